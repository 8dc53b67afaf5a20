/**
 * Shapes: lists of names that many objects have in common. Every process finds its own; a value
 * carries the names of its objects with it, in bytes that are compared and not parsed. So nothing
 * is shared that could be half written, and a flood of other people's field names costs no more
 * memory than the limits below.
 */
import { SHAPE_ENTRY, SHAPE_HEAD, STRING_MOST, sumOf } from "./format.ts";

/** Where objects are found, with the shape that the last one there had. */
export class Place {
  shape: Shape | undefined;
}

/** Writes the members of an object that has the names of a shape, and returns where they end. */
export type EncodeMembers = (
  record: object,
  at: number,
  depth: number,
  bytes: Uint8Array,
  view: DataView,
) => number;

/** Where a reader is, and a stretch of the bytes as text: one character for each. */
export interface Position {
  at: number;
  text: string;
  from: number;
  to: number;
}

/** Reads an object that has the names of a shape. */
export type DecodeMembers = (
  bytes: Uint8Array,
  view: DataView,
  position: Position,
  depth: number,
) => object;

/** The most that a member takes which needs no call: a short string. */
export const MEMBER_ROOM: number = STRING_MOST + 1;

const encoder = new TextEncoder();

export class Shape {
  readonly names: readonly string[];
  /** The entry of these names. */
  readonly entry: Uint8Array;
  /** The same as words: from the second byte on, and the last four bytes. */
  readonly words: Int32Array;
  /** The room that its members need, as far as none needs a call. */
  readonly room: number;
  /** The value that was written last with it, and its index there. */
  turn = 0;
  index = 0;
  reads = 0;
  writes = 0;
  decode: DecodeMembers | undefined;
  encode: EncodeMembers | undefined;

  constructor(names: readonly string[], entry: Uint8Array) {
    this.names = names;
    this.entry = entry;
    const view = new DataView(entry.buffer);
    const count = Math.ceil((entry.length - 1) / 4);
    this.words = Int32Array.from(
      { length: count },
      (_, i) => view.getInt32(Math.min(1 + 4 * i, entry.length - 4), true),
    );
    this.room = MEMBER_ROOM * names.length;
  }

  /** Whether exactly these names stand at `at`. There is no need to look at their sum. */
  standsAt(view: DataView, at: number): boolean {
    const { words } = this;
    const last = words.length - 1;
    for (let i = 0, place = at + 1; i < last; i += 1, place += 4) {
      if (view.getInt32(place, true) !== words[i]) return false;
    }
    return view.getInt32(at + this.entry.length - 4, true) === words[last];
  }
}

/** As many shapes are remembered; then all but those with code are forgotten. */
const SHAPES_MOST = 2048;
/** By a part of the sum. */
let shapes = new Map<number, Shape[]>();
let shapeCount = 0;

/** The shape whose entry stands at `at` and ends before `to`, if it is remembered. */
export function rememberedShape(view: DataView, at: number, to: number): Shape | undefined {
  const alike = shapes.get(view.getInt32(at + 1, true));
  return alike?.find((shape) => at + shape.entry.length <= to && shape.standsAt(view, at));
}

/** Remembers a shape that is not remembered yet. */
export function rememberShape(shape: Shape): Shape {
  if (shapeCount >= SHAPES_MOST) forgetShapes();
  shapeCount += 1;
  const alike = shapes.get(shape.words[0]);
  if (alike === undefined) shapes.set(shape.words[0], [shape]);
  else alike.push(shape);
  return shape;
}

function forgetShapes(): void {
  const before = [...shapes.values()].flat();
  shapes = new Map();
  shapeCount = 0;
  for (const shape of before) {
    if (shape.encode !== undefined || shape.decode !== undefined) rememberShape(shape);
  }
}

/** The shape of these names. */
function shapeOf(names: readonly string[]): Shape {
  const parts: number[] = [];
  for (const name of names) {
    const bytes = encoder.encode(name);
    parts.push(bytes.length, ...bytes);
  }
  const entry = new Uint8Array(SHAPE_HEAD + parts.length);
  const view = new DataView(entry.buffer);
  entry[0] = SHAPE_ENTRY;
  entry.set(parts, SHAPE_HEAD);
  view.setInt32(1, sumOf(entry, SHAPE_HEAD, entry.length), true);
  view.setUint16(5, parts.length, true);
  return rememberedShape(view, 0, entry.length) ?? rememberShape(new Shape(names, entry));
}

/**
 * Names in their order, as far as they were met in this order: a node of a tree. An object lays one
 * node at most, so that an object of ten names has a shape when it is met for the eleventh time,
 * and a dictionary of names that never come again costs one node.
 */
export class Path {
  readonly before: Path | undefined;
  readonly name: string;
  readonly length: number;
  /** What lies in the member of that name. */
  readonly place: Place = new Place();
  /** The way on that was taken last. */
  lastName: string | undefined;
  last: Path | undefined;
  #ways: Map<string, Path> | undefined;
  #shape: Shape | undefined;

  constructor(before: Path | undefined, name: string) {
    this.before = before;
    this.name = name;
    this.length = before === undefined ? 0 : before.length + 1;
  }

  /** The way on by `name`; undefined if there was none, of which one may now be laid. */
  next(name: string): Path | undefined {
    const found = this.#ways?.get(name);
    if (found !== undefined) {
      this.lastName = name;
      this.last = found;
      return found;
    }
    if (this.length >= NAMES_MOST || !isName(name)) return undefined;
    if (pathCount >= PATHS_MOST) {
      root = new Path(undefined, "");
      pathCount = 0;
      return undefined;
    }
    pathCount += 1;
    (this.#ways ??= new Map()).set(name, new Path(this, name));
    return undefined;
  }

  names(): string[] {
    return this.before === undefined ? [] : [...this.before.names(), this.name];
  }

  /** The places of the members, in the order of the names. */
  places(): Place[] {
    return this.before === undefined ? [] : [...this.before.places(), this.place];
  }

  get shape(): Shape {
    return this.#shape ??= shapeOf(this.names());
  }
}

const PATHS_MOST = 8192;
/** With more names an object is a dictionary. */
const NAMES_MOST = 128;
let root = new Path(undefined, "");
let pathCount = 0;

/** Where the names of every object begin. */
export function startOfNames(): Path {
  return root;
}

/**
 * Whether a shape may have this name: one that looks like an index is one of a dictionary, and
 * `__proto__` in an object literal, which generated code has, is no name but the prototype.
 */
function isName(name: string): boolean {
  const code = name.charCodeAt(0);
  return name.length <= STRING_MOST && !(code >= 48 && code <= 57) && name !== "__proto__" &&
    name.isWellFormed();
}
