/**
 * Writes plain structures (`format.ts`): objects and arrays of each other, strings, numbers,
 * bigints of 64 bits, booleans, null, undefined and dates, none of them twice. They are checked and
 * written in one pass. What else is met is left to the general codec, which begins anew.
 *
 * Functions that write take the place to write at and return where they end; `NOT_PLAIN` ends the
 * whole. Before anything is written, what belongs to it was read: a getter may run a nested call,
 * which uses the same memory. An outer call finds by the counts of structures and of uses of the
 * memory that there was one, and gives up.
 */
import {
  ARRAY,
  ARRAY_MOST,
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
  NO_TEXT,
  NULL,
  OBJECT,
  STRING,
  STRING_MOST,
  sumOf,
  TRUE,
  UNDEFINED,
  WIDE,
} from "./format.ts";
import { isJavaScriptCore } from "../ffi/native.ts";
import type { Scratch } from "../ffi/scratch.ts";
import { makeEncoder, OTHER_NAMES, USES_BEFORE_CODE } from "./generate.ts";
import { MAX_DEPTH, MAX_VALUE_BYTES, tooLarge } from "./limits.ts";
import {
  ARRAY_PROTOTYPE,
  DATE_PROTOTYPE,
  hasNothingOwn,
  hasOnlyElements,
  hasOnlyNames,
  hasOwn,
  inheritsNoNames,
  isObjectPrototype,
  looksFractional,
  OBJECT_PROTOTYPE,
} from "./own.ts";
import { forgetLeaves, isRepeated } from "./repeats.ts";
import { type Path, Place, Shape, startOfNames } from "./shapes.ts";

const NOT_PLAIN = -1;

/** More than any item takes whose length is not looked at before. */
const SPARE = 80;
/** A memory larger than this is let go of after use. */
const KEPT_BYTES = 4 * 2 ** 20;
/** Up to this length a loop over the code units is the fastest encoder. */
const LOOP_MOST = isJavaScriptCore ? 24 : 120;
const textEncoder = new TextEncoder();
const { getPrototypeOf } = Object;
const { isArray } = Array;
const timeOf = Date.prototype.getTime;

let room: Scratch | undefined;
let bytes: Uint8Array;
let view: DataView;
/** Up to here an item may begin. */
let limit = 0;
/** Counts structures; a getter that stores another one shows in it. */
let turn = 0;
/** The names of the objects that are written, each list once. */
const entries: (Shape | readonly string[] | undefined)[] = [];
let entryCount = 0;
/** The objects that the walk is inside of. */
const open: (object | undefined)[] = [];
let deepest = 0;
let objectCount = 0;
let hasLists = false;
/** Whether any string was written that is read as text. */
const written = { text: false };

/** The places of objects that are the whole value, and of those that lie in a dictionary. */
const top = new Place();
const anywhere = new Place();

/** Appends `value` to `target`. False: it is not plain, or not for sure, and nothing is there. */
export function encodePlain(value: object, target: Scratch): boolean {
  if (!inheritsNoNames()) return false;
  const { end: start, uses } = target;
  const mine = turn += 1;
  take(target);
  entryCount = 0;
  objectCount = 0;
  written.text = false;
  if (start > limit) grow(start, SPARE);
  try {
    let at = putObject(value, start + 4, 0, top);
    if (at < 0 || turn !== mine || target.uses !== uses) return false;
    view.setInt32(start, at - start | (written.text ? 0 : NO_TEXT), true);
    for (let i = 0; i < entryCount; i += 1) at = putEntry(entries[i]!, at);
    if (at - start > MAX_VALUE_BYTES) throw tooLarge(at - start);
    target.end = at;
    return true;
  } catch (error) {
    // What was written went where the nested call had its own.
    if (turn !== mine || target.uses !== uses) return false;
    throw error;
  } finally {
    letGo();
  }
}

function take(target: Scratch): void {
  room = target;
  bytes = target.bytes;
  view = target.view;
  limit = bytes.length - SPARE;
}

/** Lets go of the objects and lists of this value. */
function letGo(): void {
  open[0] = undefined;
  if (objectCount > 1) {
    for (let i = 1; i <= deepest; i += 1) open[i] = undefined;
    deepest = 0;
    forgetLeaves();
  }
  if (hasLists) {
    entries.length = 0;
    hasLists = false;
  }
  if (bytes.length > KEPT_BYTES) {
    bytes = new Uint8Array(0);
    view = new DataView(bytes.buffer);
    limit = -1;
  }
  room = undefined;
}

/** Makes room for `length` bytes from `at` on, and for an item behind them. */
function grow(at: number, length: number): void {
  if (at + length > MAX_VALUE_BYTES + SPARE) throw tooLarge(at + length);
  if (room === undefined) throw new Error("a getter has stored a value"); // caught above
  room.end = at;
  room.reserve(length + 2 * SPARE);
  take(room);
}

/** Writes an object of any kind that is plain. */
function putObject(object: object, at: number, depth: number, place: Place): number {
  if (depth > MAX_DEPTH) return NOT_PLAIN;
  for (let i = 0; i < depth; i += 1) if (open[i] === object) return NOT_PLAIN;
  open[depth] = object;
  if (depth > deepest) deepest = depth;
  const before = objectCount += 1;
  const prototype: object | null = getPrototypeOf(object);
  let end = NOT_PLAIN;
  if (prototype === OBJECT_PROTOTYPE) end = putRecord(object, at, depth, place);
  else if (prototype === ARRAY_PROTOTYPE) end = putArrayIfOne(object, at, depth, place);
  else if (prototype === DATE_PROTOTYPE) end = putDate(object, at);
  else if (prototype === null || isObjectPrototype(prototype)) {
    end = putRecord(object, at, depth, place);
  }
  if (depth > 0 && before === objectCount && end >= 0 && isRepeated(object, printOf(at, end))) {
    return NOT_PLAIN;
  }
  return end;
}

/**
 * A number that is the same for the same bytes. The first two, an object's index, are not looked at
 * where more follow: in every value the same object has the same ones.
 */
function printOf(from: number, to: number): number {
  const length = to - from;
  if (length < 6) return length + bytes[to - 1];
  let print = Math.imul(view.getInt32(to - 4, true) ^ length, 0x9e3779b1);
  print = Math.imul(print ^ view.getInt32(from + 2, true) ^ print >>> 15, 0x85ebca6b);
  if (length > 16) {
    print = Math.imul(print ^ view.getInt32(from + (length >> 1), true), 0xc2b2ae35);
  }
  return print ^ print >>> 13;
}

function putDate(date: object, at: number): number {
  if (!hasNothingOwn(date)) return NOT_PLAIN;
  let time: number;
  try {
    time = timeOf.call(date);
  } catch {
    return NOT_PLAIN; // it only looks like a date
  }
  bytes[at] = DATE;
  view.setFloat64(at + 1, time, true);
  return at + 9;
}

/** Writes an object with the code of the shape that was here last, or name by name. */
function putRecord(record: object, at: number, depth: number, place: Place): number {
  const guess = place.shape;
  if (guess !== undefined && guess.encode !== undefined) {
    if (at + guess.room > limit) grow(at, guess.room);
    const end = guess.encode(record, at + 2, depth, bytes, view);
    if (end !== OTHER_NAMES) {
      if (end < 0 || !hasOnlyNames(record, guess.names.length)) return NOT_PLAIN;
      return putShape(guess, at, end);
    }
  }
  return putNameByName(record as Record<string, unknown>, at, depth, place);
}

function putNameByName(
  record: Record<string, unknown>,
  from: number,
  depth: number,
  place: Place,
): number {
  let path: Path | undefined = startOfNames();
  let names: string[] | undefined;
  let count = 0;
  let at = from + 2;
  for (const name in record) {
    count += 1;
    if (path !== undefined && path.lastName === name) path = path.last!;
    else if (path !== undefined) {
      const next: Path | undefined = path.next(name);
      if (next === undefined) {
        names = path.names();
        names.push(name);
      }
      path = next;
    } else names!.push(name);
    const value = record[name];
    if (at > limit) grow(at, SPARE);
    if (typeof value === "string") at = putString(value, at);
    else if (typeof value === "number") at = putNumber(value, at);
    else at = putOther(value, at, depth, path === undefined ? anywhere : path.place);
    if (at < 0) return at;
  }
  if (!hasOnlyNames(record, count)) return NOT_PLAIN;
  return path === undefined ? putNames(names!, from, at) : putShapeOf(path, place, from, at);
}

function putShapeOf(path: Path, place: Place, from: number, end: number): number {
  const { shape } = path;
  place.shape = shape;
  shape.writes += 1;
  if (shape.writes === USES_BEFORE_CODE) {
    shape.encode = makeEncoder(shape, path.places(), {
      putMember,
      bytes: () => bytes,
      view: () => view,
      written,
    });
  }
  return putShape(shape, from, end);
}

/** Writes before its members which shape an object has. */
function putShape(shape: Shape, from: number, end: number): number {
  if (shape.turn !== turn) {
    if (entryCount >= ENTRIES_MOST) return NOT_PLAIN;
    shape.turn = turn;
    shape.index = entryCount;
    entries[entryCount] = shape;
    entryCount += 1;
  }
  return putIndex(shape.index, from, end);
}

/** Writes before its members which names an object has, as no other. */
function putNames(names: readonly string[], from: number, end: number): number {
  if (entryCount >= ENTRIES_MOST) return NOT_PLAIN;
  hasLists = true;
  entries[entryCount] = names;
  entryCount += 1;
  return putIndex(entryCount - 1, from, end);
}

function putIndex(index: number, from: number, end: number): number {
  bytes[from] = OBJECT + (index >> 8);
  bytes[from + 1] = index;
  return end;
}

/** For generated code: a member that it leaves to others, and room for those behind it. */
function putMember(
  value: unknown,
  at: number,
  depth: number,
  place: unknown,
  rest: number,
): number {
  if (at > limit) grow(at, SPARE);
  const end = typeof value === "string"
    ? putString(value, at)
    : putOther(value, at, depth, place as Place);
  if (end >= 0 && end + rest > limit) grow(end, rest);
  return end;
}

function putEntry(entry: Shape | readonly string[], at: number): number {
  if (entry instanceof Shape) return putShapeEntry(entry, at);
  let end = at + NAMES_HEAD;
  for (const name of entry) {
    if (end > limit) grow(end, SPARE);
    end = putString(name, end);
  }
  if (end > limit) grow(end, SPARE);
  bytes[at] = NAMES_ENTRY;
  view.setInt32(at + 5, end - at - NAMES_HEAD, true);
  view.setInt32(at + 9, entry.length, true);
  view.setInt32(at + 1, sumOf(bytes, at + 5, end), true);
  return end;
}

/** As many words are written one by one; a copy takes longer to begin. */
const WORDS_MOST = 32;

function putShapeEntry({ entry, words }: Shape, at: number): number {
  const end = at + entry.length;
  if (end > limit) grow(at, entry.length);
  const last = words.length - 1;
  if (last > WORDS_MOST) bytes.set(entry, at);
  else {
    bytes[at] = entry[0];
    for (let i = 0, place = at + 1; i < last; i += 1, place += 4) {
      view.setInt32(place, words[i], true);
    }
    view.setInt32(end - 4, words[last], true);
  }
  return end;
}

function putOther(value: unknown, at: number, depth: number, place: Place): number {
  switch (typeof value) {
    case "object":
      if (value !== null) return putObject(value, at, depth + 1, place);
      bytes[at] = NULL;
      return at + 1;
    case "boolean":
      bytes[at] = value ? TRUE : FALSE;
      return at + 1;
    case "undefined":
      bytes[at] = UNDEFINED;
      return at + 1;
    case "bigint":
      if (BigInt.asIntN(64, value) !== value) return NOT_PLAIN;
      bytes[at] = BIGINT;
      view.setBigInt64(at + 1, value, true);
      return at + 9;
    default:
      return NOT_PLAIN;
  }
}

function putNumber(value: number, at: number): number {
  if ((value | 0) === value && (value !== 0 || 1 / value > 0)) {
    if (value >= 0 && value < STRING) {
      bytes[at] = value;
      return at + 1;
    }
    bytes[at] = INTEGER;
    view.setInt32(at + 1, value, true);
    return at + 5;
  }
  bytes[at] = FLOAT;
  view.setFloat64(at + 1, value, true);
  return at + 9;
}

function putString(value: string, at: number): number {
  const { length } = value;
  if (length > STRING_MOST) return putLongString(value, at);
  const target = bytes;
  let end = at + 1;
  let all = 0;
  for (let i = 0; i < length; i += 1) {
    const code = value.charCodeAt(i);
    all |= code;
    target[end++] = code;
  }
  if (all > 255) return putWide(value, at);
  written.text = true;
  target[at] = STRING + length;
  return end;
}

function putLongString(value: string, at: number): number {
  const { length } = value;
  if (at + length > limit) grow(at, length);
  if (length > LOOP_MOST && putAscii(value, at + 5)) {
    written.text = true;
    return putLength(LATIN1, length, at) + length;
  }
  let end = at + 5;
  let all = 0;
  for (let i = 0; i < length; i += 1) {
    const code = value.charCodeAt(i);
    all |= code;
    bytes[end++] = code;
  }
  if (all > 255) return putWide(value, at);
  written.text = true;
  return putLength(LATIN1, length, at) + length;
}

interface Utf8 {
  utf8Write(text: string, at: number, most: number): number;
}

/** Writes text a byte for each character if it is ASCII; there is room for four bytes more. */
function putAscii(value: string, at: number): boolean {
  const { length } = value;
  // With that room, as many bytes as characters are written only where all are ASCII.
  return length ===
    (isJavaScriptCore
      ? (room!.text as unknown as Utf8).utf8Write(value, at, length + 4)
      : textEncoder.encodeInto(value, bytes.subarray(at, at + length + 4)).written);
}

function putWide(value: string, at: number): number {
  const { length } = value;
  if (at + 2 * length > limit) grow(at, 2 * length);
  const end = putLength(WIDE, length, at);
  for (let i = 0; i < length; i += 1) view.setUint16(end + 2 * i, value.charCodeAt(i), true);
  return end + 2 * length;
}

/** Writes a tag and a length. */
function putLength(tag: number, length: number, at: number): number {
  bytes[at] = tag;
  view.setInt32(at + 1, length, true);
  return at + 5;
}

/** Shorter arrays of numbers are written as any other. */
const FLOATS_LEAST = 4;

function putArrayIfOne(object: object, at: number, depth: number, place: Place): number {
  return isArray(object) ? putArray(object, at, depth, place) : NOT_PLAIN;
}

function putArray(array: unknown[], from: number, depth: number, place: Place): number {
  const { length } = array;
  if (!hasOnlyElements(array)) return NOT_PLAIN;
  if (from > limit) grow(from, SPARE);
  if (length >= FLOATS_LEAST && looksFractional(array)) {
    const end = putFloats(array, from);
    if (end >= 0) return end;
  }
  let at = from;
  if (length > ARRAY_MOST) at = putLength(LONG_ARRAY, length, at);
  else bytes[at++] = ARRAY + length;
  for (let i = 0; i < length; i += 1) {
    const value = array[i];
    if (at > limit) grow(at, SPARE);
    if (typeof value === "number") at = putNumber(value, at);
    else if (typeof value === "string") at = putString(value, at);
    else {
      if (value === undefined && !hasOwn(array, i)) return NOT_PLAIN;
      at = putOther(value, at, depth, place);
    }
    if (at < 0) return at;
  }
  return array.length === length ? at : NOT_PLAIN; // a getter changed it
}

/** Writes an array of numbers, eight bytes each; `NOT_PLAIN` if there is anything else. */
function putFloats(array: readonly unknown[], at: number): number {
  const { length } = array;
  if (at + 8 * length > limit) grow(at, 8 * length);
  const target = view;
  let end = putLength(FLOATS, length, at);
  for (let i = 0; i < length; i += 1, end += 8) {
    const value = array[i];
    if (typeof value !== "number") return NOT_PLAIN;
    target.setFloat64(end, value, true);
  }
  return end;
}
