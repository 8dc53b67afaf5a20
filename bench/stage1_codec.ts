/**
 * The codec of stage 1, to measure what came after it beside it: MessagePack, as `msgpackr` writes
 * it, and a check before it that refuses structures that would not come back as they were.
 */
import { Buffer } from "node:buffer";
import { types } from "node:util";
import { Packr, RESET_BUFFER_MODE } from "msgpackr/pack";
import { className, describe } from "../src/values/describe.ts";
import { type Shape, unpack } from "../src/values/msgpack.ts";

/** The packer keeps no buffer larger than this after use. */
const SPARE_BYTES = 4 * 2 ** 20;

const packer = new Packr({ structuredClone: true, moreTypes: true, useToJSON: false });
const plainPacker = new Packr({ useRecords: false, useToJSON: false });

/** What `value` consists of. Throws a TypeError if it would not come back as it was. */
export function shapeOf(value: object): Shape {
  const check = new Check();
  check.visit(value, undefined, 0);
  if (check.foundError) return "withErrors";
  return check.isPlain ? "plain" : "full";
}

/** The bytes of a structure of this shape. The next call may overwrite them. */
export function pack(value: object, shape: Shape): Uint8Array {
  const chosen = shape === "plain" ? plainPacker : packer;
  try {
    const bytes = chosen.encode(value, RESET_BUFFER_MODE);
    if (bytes.length > SPARE_BYTES) chosen.useBuffer(Buffer.allocUnsafeSlow(8192));
    return bytes;
  } catch (cause) {
    if (cause instanceof TypeError || cause instanceof RangeError) throw cause;
    throw new TypeError("Cannot encode the value", { cause });
  }
}

/** Deeper structures could overflow the stack here or in the runtime that reads them. */
const MAX_DEPTH = 500;

/** Longer arrays are not searched for properties besides their elements: it takes too long. */
const MAX_SEARCHED_LENGTH = 32;

/** The unpacker drops a byte order mark at the start of strings with more bytes than this. */
const MAX_MARKED_BYTES = 64;

const ARRAY_VIEWS: ReadonlySet<object> = new Set([
  Int8Array.prototype,
  Uint8Array.prototype,
  Buffer.prototype,
  Uint8ClampedArray.prototype,
  Int16Array.prototype,
  Uint16Array.prototype,
  Int32Array.prototype,
  Uint32Array.prototype,
  Float32Array.prototype,
  Float64Array.prototype,
  BigInt64Array.prototype,
  BigUint64Array.prototype,
]);

const ERRORS: ReadonlyMap<object, string> = new Map(
  [Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError].map(
    (kind) => [kind.prototype as object, kind.name],
  ),
);
const ERROR_NAMES = new Set([...ERRORS.values(), "AggregateError"]);

/**
 * One walk over a structure, in the packer's order. It throws a TypeError for a value that would
 * not come back as it was. Each object is visited once.
 */
class Check {
  /** Whether the structure has errors in it. */
  foundError = false;
  /** Whether all that the walk has visited so far is of the plain shape. */
  isPlain = true;
  #root: object | undefined;
  #seen: Set<object> | undefined;
  /** The errors that the walk is inside of. */
  readonly #open: object[] = [];

  /** Checks `value`, found under the key `place`. */
  visit(value: unknown, place: unknown, depth: number): void {
    if (typeof value === "string") return checkText(value, place);
    if (typeof value !== "object") {
      if (typeof value === "function" || typeof value === "symbol") throw refusal(value, place);
      if (value === undefined || typeof value === "bigint") this.isPlain = false;
      return;
    }
    if (value === null) return;
    if (this.#isKnown(value)) {
      this.isPlain = false;
      if (this.#open.includes(value)) throw refusal("an error that leads back to itself", place);
      return;
    }
    if (depth > MAX_DEPTH) throw refusal(`more than ${MAX_DEPTH} levels`, place);
    if (types.isProxy(value)) throw refusal("a proxy", place);
    const prototype = Object.getPrototypeOf(value);
    if (prototype === Object.prototype) this.#visitObject(value, place, depth);
    else if (prototype === Array.prototype) this.#visitArray(value as unknown[], place, depth);
    else {
      this.isPlain = false;
      this.#visitBuiltIn(value, prototype, place, depth);
    }
  }

  /** Whether the walk has visited this object. The first one needs no set: often it is the only. */
  #isKnown(value: object): boolean {
    if (this.#root === undefined) {
      this.#root = value;
      return false;
    }
    this.#seen ??= new Set([this.#root]);
    if (this.#seen.has(value)) return true;
    this.#seen.add(value);
    return false;
  }

  #visitObject(value: object, place: unknown, depth: number): void {
    const record = value as Record<string, unknown>;
    for (const key in record) {
      checkText(key, key);
      // The packer would rename the first, and uses the second for itself.
      if (key === "__proto__" || key === "__keys__") throw refusal(`a key "${key}"`, key);
      const member = record[key];
      // The packer reads it once more. Reading twice here is cheaper than looking for a getter.
      if (!Object.is(member, record[key])) throw refusal("a getter that changes its value", key);
      this.visit(member, key, depth + 1);
    }
    if (hasSymbols(value)) throw refusal("a symbol as a key", place);
  }

  #visitArray(array: unknown[], place: unknown, depth: number): void {
    const { length } = array;
    if (
      length <= MAX_SEARCHED_LENGTH && Object.keys(array).length !== length || hasSymbols(array)
    ) {
      throw refusal("an array with holes or other properties", place);
    }
    for (let i = 0; i < length; i += 1) {
      const member = array[i];
      if (member === undefined && !(i in array)) throw refusal("an array with holes", place);
      this.visit(member, i, depth + 1);
    }
  }

  #visitBuiltIn(value: object, prototype: object | null, place: unknown, depth: number): void {
    if (prototype === Map.prototype) {
      checkBare(value, 0, place);
      for (const [key, member] of value as Map<unknown, unknown>) {
        this.visit(key, place, depth + 1);
        this.visit(member, key, depth + 1);
      }
    } else if (prototype === Set.prototype) {
      checkBare(value, 0, place);
      for (const member of value as Set<unknown>) this.visit(member, place, depth + 1);
    } else if (prototype !== null && ARRAY_VIEWS.has(prototype) && ArrayBuffer.isView(value)) {
      const { length } = value as Uint8Array;
      if (length <= MAX_SEARCHED_LENGTH) checkBare(value, length, place);
    } else if (prototype === Date.prototype || prototype === DataView.prototype) {
      checkBare(value, 0, place);
    } else if (prototype === ArrayBuffer.prototype) {
      checkBare(value, 0, place);
      if ((value as ArrayBuffer).resizable) throw refusal("a resizable ArrayBuffer", place);
    } else if (prototype === RegExp.prototype) {
      checkBare(value, 1, place);
      if ((value as RegExp).lastIndex !== 0) throw refusal("a RegExp with a lastIndex", place);
      checkText((value as RegExp).source, place);
    } else if (prototype !== null && ERRORS.has(prototype)) {
      this.#visitError(value as Error, ERRORS.get(prototype)!, place, depth);
    } else {
      throw refusal(value, place);
    }
  }

  /** An error keeps its class, name, message and cause. Its stack becomes that of its reader. */
  #visitError(error: Error, kind: string, place: unknown, depth: number): void {
    const { name, message } = error;
    const isRenamed = kind === "Error" && typeof name === "string" && !ERROR_NAMES.has(name);
    const isKept = Object.keys(error).every((key) => key === "name" && isRenamed) &&
      typeof message === "string" && (name === kind || isRenamed) &&
      !hasSymbols(error);
    if (!isKept) throw refusal("an error with properties of its own", place);
    checkText(name, place);
    checkText(message, place);
    this.foundError = true;
    this.#open.push(error);
    this.visit(error.cause, "cause", depth + 1);
    this.#open.pop();
  }
}

function checkText(text: string, place: unknown): void {
  if (!text.isWellFormed()) {
    throw refusal("a string with a lone surrogate inside a structure", place);
  }
  if (text.charCodeAt(0) === 0xfeff && Buffer.byteLength(text) > MAX_MARKED_BYTES) {
    throw refusal("a long string with a byte order mark inside a structure", place);
  }
}

function hasSymbols(value: object): boolean {
  return Object.getOwnPropertySymbols(value).length > 0;
}

/** Throws unless `value` has exactly `count` properties of its own. */
function checkBare(value: object, count: number, place: unknown): void {
  if (Reflect.ownKeys(value).length !== count) {
    throw refusal(`a ${className(value)} with properties of its own`, place);
  }
}

function refusal(what: unknown, place: unknown): TypeError {
  const where = typeof place === "string" || typeof place === "number"
    ? ` under "${String(place).slice(0, 100)}"`
    : "";
  return new TypeError(`Cannot store ${typeof what === "string" ? what : describe(what)}${where}`);
}

const SHAPES: readonly Shape[] = ["plain", "full", "withErrors"];

/** It, as a codec of the user. The first byte says what a structure consists of. */
export const stage1Codec = {
  id: "stage-1",
  encode(value: unknown): Uint8Array {
    const shape = shapeOf(value as object);
    const packed = pack(value as object, shape);
    const bytes = new Uint8Array(1 + packed.length);
    bytes[0] = SHAPES.indexOf(shape);
    bytes.set(packed, 1);
    return bytes;
  },
  decode: (bytes: Uint8Array): unknown => unpack(bytes, 1, bytes.length, SHAPES[bytes[0]]),
};
