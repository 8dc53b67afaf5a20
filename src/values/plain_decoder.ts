/**
 * Reads plain structures (`format.ts`). The bytes are input: reading any bytes ends, makes
 * nothing large that they do not have room for, and throws for what no value has.
 *
 * Strings are cut out of stretches of text (`limits.ts`).
 */
import type { Scratch } from "../ffi/scratch.ts";
import {
  ARRAY,
  BIGINT,
  DATE,
  ENTRIES_MOST,
  FALSE,
  FLOAT,
  FLOATS,
  INTEGER,
  LATIN1,
  LONG_ARRAY,
  NAMES_ENTRY,
  NAMES_HEAD,
  NULL,
  OBJECT,
  SHAPE_ENTRY,
  SHAPE_HEAD,
  STRING,
  STRING_MOST,
  sumOf,
  TRUE,
  UNDEFINED,
  WIDE,
} from "./format.ts";
import { makeDecoder, USES_BEFORE_CODE } from "./generate.ts";
import { MAX_DEPTH, STRETCH_BYTES, STRETCHED_MOST } from "./limits.ts";
import { define, isInherited, OBJECT_PROTOTYPE } from "./own.ts";
import { type Position, rememberedShape, rememberShape, Shape } from "./shapes.ts";

/** A memory larger than this is let go of after use. */
const KEPT_BYTES = 4 * 2 ** 20;

const { setPrototypeOf } = Object;
const NO_BYTES = new Uint8Array(0);
const NO_VIEW = new DataView(NO_BYTES.buffer);

const position: Position = { at: 0, text: "", from: 0, to: 0 };
let bytes: Uint8Array = NO_BYTES;
let view: DataView = NO_VIEW;
let slices: Scratch["text"];
/** Where the stream ends. */
let end = 0;
/** The names of objects: a shape, or where names stand. */
const table: (Shape | number)[] = [];
let tableLength = 0;
/** The shapes seen last at the same index. */
const hints: (Shape | undefined)[] = [];

function damaged(what: string): never {
  throw new Error(`damaged: ${what}`);
}

/** The value between `from` and `to`. Throws any error for bytes that are none. */
export function decodePlain(memory: Scratch, from: number, to: number): unknown {
  if (to - from < 5) damaged("too short");
  bytes = memory.bytes;
  view = memory.view;
  slices = memory.text;
  const head = view.getInt32(from, true);
  end = from + (head & 0x7fffffff) | 0;
  if (end < from + 5 || end > to) damaged("no stream");
  readTable(end, to);
  position.at = from + 4;
  position.text = "";
  position.from = position.to = from + 4;
  if (head >= 0) makeText(from + 4);
  const value = readItem(bytes[position.at++], 0);
  if (position.at !== end) damaged("more or less than a value");
  if (bytes.length > KEPT_BYTES) {
    bytes = NO_BYTES;
    view = NO_VIEW;
  }
  return value;
}

/** Reads which names there are. */
function readTable(from: number, to: number): void {
  let at = from;
  let count = 0;
  while (at < to) {
    if (count === ENTRIES_MOST) damaged("more names than any value has");
    if (bytes[at] === NAMES_ENTRY) {
      table[count] = at;
      at = endOfNames(at, to);
    } else {
      let shape = hints[count];
      if (shape === undefined || at + shape.entry.length > to || !shape.standsAt(view, at)) {
        shape = hints[count] = shapeAt(at, to);
      }
      table[count] = shape;
      at += shape.entry.length;
    }
    count += 1;
  }
  if (at !== to) damaged("names that are cut short");
  tableLength = count;
}

/** Where the names of one object end, after a look at their sum. */
function endOfNames(at: number, to: number): number {
  if (at + NAMES_HEAD > to) damaged("names that are cut short");
  const length = view.getInt32(at + 5, true);
  const next = at + NAMES_HEAD + length | 0;
  if (length < 0 || next > to || next < at) damaged("names that are cut short");
  if (sumOf(bytes, at + 5, next) !== view.getInt32(at + 1, true)) damaged("names that changed");
  return next;
}

/** The shape whose entry stands at `at`. */
function shapeAt(at: number, to: number): Shape {
  if (bytes[at] !== SHAPE_ENTRY || at + SHAPE_HEAD > to) damaged("no shape");
  const remembered = rememberedShape(view, at, to);
  if (remembered !== undefined) return remembered;
  const next = at + SHAPE_HEAD + view.getUint16(at + 5, true);
  if (next > to) damaged("a shape that is cut short");
  if (sumOf(bytes, at + SHAPE_HEAD, next) !== view.getInt32(at + 1, true)) {
    damaged("a shape that changed");
  }
  const names: string[] = [];
  let place = at + SHAPE_HEAD;
  while (place < next) {
    const nameEnd = place + 1 + bytes[place];
    if (nameEnd > next) damaged("a name that is cut short");
    names.push(slices.utf8Slice(place + 1, nameEnd));
    place = nameEnd;
  }
  if (names.includes("__proto__") || new Set(names).size < names.length) damaged("no names");
  return rememberShape(new Shape(names, bytes.slice(at, next)));
}

/** Makes text of the bytes from `from` on. */
function makeText(from: number): void {
  const to = Math.min(end, from + STRETCH_BYTES);
  position.text = to > from ? slices.latin1Slice(from, to) : "";
  position.from = from;
  position.to = to;
}

function readString(length: number): string {
  const { at } = position;
  const next = at + length;
  if (next > position.to) {
    if (next > end) damaged("a string that is cut short");
    if (length > STRETCHED_MOST) {
      position.at = next;
      return slices.latin1Slice(at, next);
    }
    makeText(at);
  }
  position.at = next;
  return position.text.substring(at - position.from, next - position.from);
}

function readWide(length: number): string {
  const { at } = position;
  const next = at + 2 * length;
  if (next > end) damaged("a string that is cut short");
  position.at = next;
  return slices.ucs2Slice(at, next);
}

/** A length, which is no unsigned number: JavaScriptCore would take every later one for a float. */
function readLength(): number {
  const { at } = position;
  position.at = at + 4;
  const length = view.getInt32(at, true);
  if (length < 0) damaged("a length");
  return length;
}

/** The item whose tag was just read. */
function readItem(tag: number, depth: number): unknown {
  if (tag < STRING) return tag;
  if (tag < OBJECT) return readString(tag - STRING);
  if (tag < ARRAY) return readObject(tag - OBJECT, depth);
  if (tag < NULL) return readArray(tag - ARRAY, depth);
  const { at } = position;
  switch (tag) {
    case NULL:
      return null;
    case UNDEFINED:
      return undefined;
    case TRUE:
      return true;
    case FALSE:
      return false;
    case FLOAT:
      position.at = at + 8;
      return view.getFloat64(at, true);
    case INTEGER:
      position.at = at + 4;
      return view.getInt32(at, true);
    case LATIN1:
      return readString(readLength());
    case WIDE:
      return readWide(readLength());
    case LONG_ARRAY:
      return readArray(readLength(), depth);
    case DATE:
      position.at = at + 8;
      return new Date(view.getFloat64(at, true));
    case BIGINT:
      position.at = at + 8;
      return view.getBigInt64(at, true);
    case FLOATS:
      return readFloats(readLength());
  }
  return damaged(`tag ${tag}`);
}

function readArray(length: number, depth: number): unknown[] {
  if (depth > MAX_DEPTH || length > end - position.at) damaged("an array that is cut short");
  const array = new Array(length);
  const source = bytes;
  for (let i = 0; i < length; i += 1) {
    const { at } = position;
    const tag = source[at];
    position.at = at + 1;
    if (tag < STRING) array[i] = tag;
    else if (tag === FLOAT) {
      array[i] = view.getFloat64(at + 1, true);
      position.at = at + 9;
    } else if (tag === INTEGER) {
      array[i] = view.getInt32(at + 1, true);
      position.at = at + 5;
    } else array[i] = readItem(tag, depth + 1);
  }
  return array;
}

function readFloats(length: number): number[] {
  let { at } = position;
  if (length > end - at >> 3) damaged("an array that is cut short");
  const array = new Array(length);
  for (let i = 0; i < length; i += 1, at += 8) array[i] = view.getFloat64(at, true);
  position.at = at;
  return array;
}

function readObject(high: number, depth: number): object {
  const index = high << 8 | bytes[position.at++];
  if (index >= tableLength || depth > MAX_DEPTH) damaged("an object of no names");
  const shape = table[index];
  if (typeof shape === "number") return readNamed(shape, depth);
  if (shape.decode !== undefined) return shape.decode(bytes, view, position, depth);
  shape.reads += 1;
  if (shape.reads === USES_BEFORE_CODE) shape.decode = makeDecoder(shape, readItem);
  const { names } = shape;
  if (names.length > end - position.at) damaged("an object that is cut short");
  const object: Record<string, unknown> = {};
  for (let i = 0; i < names.length; i += 1) {
    put(object, names[i], readItem(bytes[position.at++], depth + 1));
  }
  return object;
}

function put(object: Record<string, unknown>, name: string, value: unknown): void {
  if (isInherited(name)) define(object, name, value);
  else object[name] = value;
}

/** An object whose names, which no other has, stand at `entry`. */
function readNamed(entry: number, depth: number): object {
  const from = entry + NAMES_HEAD;
  const namesEnd = from + view.getInt32(entry + 5, true) | 0;
  const count = view.getInt32(entry + 9, true);
  if (count < 0 || count > end - position.at) damaged("an object that is cut short");
  const text = slices.latin1Slice(from, namesEnd);
  // Names that never come again would each make the engine a class; without a prototype they do
  // not, and none of them is met by an assignment.
  const object: Record<string, unknown> = Object.create(null);
  let at = from;
  for (let i = 0; i < count; i += 1) {
    const tag = bytes[at++];
    let name: string;
    if (tag >= STRING && tag <= STRING + STRING_MOST) {
      const next = at + tag - STRING;
      if (next > namesEnd) damaged("a name that is cut short");
      name = text.substring(at - from, next - from);
      at = next;
    } else if (tag === LATIN1 || tag === WIDE) {
      const length = view.getInt32(at, true);
      const next = at + 4 + length * (tag === WIDE ? 2 : 1);
      if (length < 0 || next > namesEnd) damaged("a name that is cut short");
      name = tag === WIDE ? slices.ucs2Slice(at + 4, next) : slices.latin1Slice(at + 4, next);
      at = next;
    } else damaged("no name");
    object[name] = readItem(bytes[position.at++], depth + 1);
  }
  if (at !== namesEnd) damaged("names");
  return setPrototypeOf(object, OBJECT_PROTOTYPE);
}
