/** Every method and property of the public API, and what each of its arguments is. */

/** What an argument is, so that a good one can be made of it. */
export type Argument =
  | "key"
  | "prefix"
  | "scan"
  | "version"
  | "by"
  | "count"
  | "end"
  | "value"
  | "compute"
  | "change"
  | "each"
  | "any"
  | "keys"
  | "entries"
  | "lock"
  | "regionLock"
  | "lockAsync"
  | "offset"
  | "length"
  | "data"
  | "target"
  | "template"
  | "packed"
  | "bytes"
  | "token"
  | "name"
  | "file"
  | "open"
  | "anonymous"
  | "attach"
  | "directory"
  | "mmap"
  | "size";

/** How often a method is called beside others, and its arguments. */
export type Methods = Record<string, readonly [weight: number, ...Argument[]]>;

const OBJECT: Methods = {
  name: [1],
  token: [1],
  locked: [2],
  lock: [3, "lock"],
  tryLock: [3],
  lockAsync: [7, "lockAsync"],
  stats: [1],
  unlink: [1],
  close: [1],
  "@@dispose": [1],
};

export const MAP: Methods = {
  ...OBJECT,
  get: [9, "key"],
  set: [18, "key", "value", "end"],
  touch: [4, "key", "end"],
  prune: [1],
  add: [7, "key", "value", "end"],
  getOrInsert: [5, "key", "value", "end"],
  getOrInsertComputed: [6, "key", "compute", "end"],
  update: [8, "key", "change", "end"],
  has: [4, "key"],
  delete: [8, "key", "version"],
  clear: [1, "prefix"],
  getEntry: [4, "key"],
  replace: [5, "key", "value", "version"],
  swap: [5, "key", "value", "end"],
  take: [4, "key"],
  increment: [6, "key", "by", "count"],
  incrementEntry: [3, "key", "by", "count"],
  scan: [3, "scan"],
  getInto: [4, "key", "bytes"],
  getMany: [5, "keys"],
  hasMany: [4, "keys"],
  deleteMany: [3, "keys"],
  setMany: [7, "entries"],
  keys: [2, "prefix"],
  values: [2, "prefix"],
  entries: [2, "prefix"],
  "@@iterator": [2],
  forEach: [3, "each", "any"],
  toObject: [2],
  verify: [1],
  repair: [1],
  compact: [1],
  size: [2],
  "@@new": [1, "any"],
};

export const VALUE: Methods = {
  ...OBJECT,
  get: [9],
  set: [14, "value"],
  update: [9, "change"],
  version: [3],
  "@@new": [1, "any", "any"],
};

export const REGION: Methods = {
  read: [9, "offset", "length"],
  readInto: [10, "target", "offset"],
  write: [14, "data", "offset", "length"],
  pack: [7, "offset", "template", "packed", "packed", "packed"],
  unpack: [7, "offset", "length", "template"],
  lock: [3, "regionLock"],
  tryLock: [3, "regionLock"],
  lockAsync: [7, "lockAsync"],
  flush: [1],
  length: [1],
  filename: [1],
  fd: [1],
  token: [1],
  locked: [1],
  unmap: [1],
  close: [1],
  "@@dispose": [1],
  "@@new": [1, "any"],
};

export const LOCK: Methods = {
  unlock: [4],
  recovered: [1],
  "@@dispose": [2],
  "@@new": [1, "any", "any"],
};

/** The statics of `SharedMap` and `SharedValue`. */
export const OPENERS: Methods = {
  open: [6, "name", "open"],
  anonymous: [3, "anonymous"],
  attach: [5, "token", "attach"],
  unlink: [3, "name", "directory"],
  list: [1, "directory"],
};

export const REGION_OPENERS: Methods = {
  open: [5, "file", "mmap"],
  anonymous: [3, "size"],
  attach: [3, "token"],
};

export const TEMPLATES: Methods = {
  pack: [2, "template", "packed", "packed", "packed"],
  unpack: [2, "template", "bytes"],
};

/** What stores something, so that an error of it must have changed nothing. */
export const WRITES = new Set(
  "set add getOrInsert getOrInsertComputed update delete deleteMany clear setMany repair write pack " +
    "replace swap take increment incrementEntry touch prune"
      .split(
        " ",
      ),
);

/** The property of `target` that a method's name stands for. */
export function keyOf(method: string): PropertyKey {
  if (method === "@@iterator") return Symbol.iterator;
  return method === "@@dispose" ? Symbol.dispose : method;
}

/** What is wrong with the type of a result; undefined when nothing is. */
export function wrongResult(method: string, result: unknown): string | undefined {
  const wanted = RESULTS[method];
  if (wanted === undefined || wanted(result)) return undefined;
  return `${method} gave a result of another type: ${typeof result}`;
}

const isNumber = (value: unknown) => typeof value === "number" && value >= 0;
const isBoolean = (value: unknown) => typeof value === "boolean";
const isText = (value: unknown) => typeof value === "string";
const isObject = (value: unknown) => typeof value === "object" && value !== null;
const isNothing = (value: unknown) => value === undefined;

const RESULTS: Record<string, (value: unknown) => boolean> = {
  locked: isBoolean,
  has: isBoolean,
  add: isBoolean,
  touch: isBoolean,
  prune: (value) => value === 0,
  replace: isBoolean,
  getEntry: isObject,
  incrementEntry: isObject,
  increment: (value) => typeof value === "number" || typeof value === "bigint",
  scan: (value) => isObject(value) && Array.isArray((value as { keys: unknown }).keys),
  delete: isBoolean,
  unlink: isBoolean,
  recovered: isBoolean,
  size: isNumber,
  version: isNumber,
  length: isNumber,
  write: isNumber,
  readInto: isNumber,
  token: isText,
  name: (value) => isText(value) || isNothing(value),
  filename: (value) => isText(value) || isNothing(value),
  fd: (value) => isNumber(value) || isNothing(value),
  lock: isObject,
  lockAsync: (value) => value instanceof Promise,
  tryLock: (value) => isObject(value) || isNothing(value),
  stats: isObject,
  toObject: isObject,
  getMany: Array.isArray,
  hasMany: Array.isArray,
  deleteMany: Array.isArray,
  getInto: (value) => isNumber(value) || isNothing(value),
  unpack: Array.isArray,
  list: Array.isArray,
  read: (value) => value instanceof Uint8Array,
  verify: isObject,
  compact: isNumber,
  repair: (value) => isObject(value) && (value as { dropped: number }).dropped === 0,
  clear: isNothing,
  setMany: isNothing,
  forEach: isNothing,
  flush: isNothing,
  close: isNothing,
  unmap: isNothing,
  unlock: isNothing,
};
