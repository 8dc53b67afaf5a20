/**
 * JavaScript values to bytes and back, and the keys beside them.
 *
 * A stored value is a kind byte and its bytes. Primitives and byte arrays have kinds of their own
 * and come back exactly. Everything else goes through a codec; the default one is MessagePack in
 * structured-clone mode, behind a check that refuses what it would lose.
 */
import { Buffer } from "node:buffer";
import { types } from "node:util";
import { Packr, RESET_BUFFER_MODE } from "msgpackr/pack";
import { formatBytes, SharedMemoryError } from "./errors.ts";

/** What turns structures into bytes and back, in place of the default. */
interface Coder {
  readonly id: string;
  encode(value: unknown): Uint8Array;
  decode(bytes: Uint8Array): unknown;
}

/** Bytes to read, and two more views of the same memory. */
interface Memory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly text: TextSlices;
}

/** What buffers can do, in both runtimes, beyond their published types. */
interface TextSlices {
  latin1Slice(start: number, end: number): string;
  utf8Slice(start: number, end: number): string;
  ucs2Slice(start: number, end: number): string;
}

/** Memory that grows: encoders append at `end`. */
interface Room extends Memory {
  end: number;
  /** Makes room for `length` bytes after `end`; the views may be others afterwards. */
  reserve(length: number): void;
}

/** The kind bytes. Stable: other processes, runtimes and versions read them. Zero is none. */
const KIND = {
  structure: 1,
  /** A structure with errors in it. */
  structureWithErrors: 2,
  /** A string of codes 0 to 127, a byte each. */
  ascii: 3,
  utf8: 4,
  /** A string with lone surrogates, as code units. */
  utf16: 5,
  /** A number, as its eight bytes. */
  number: 6,
  /** A bigint of 64 bits with its sign. */
  int64: 7,
  /** A larger bigint: its magnitude, most significant byte first. */
  positive: 8,
  negative: 9,
  false: 10,
  true: 11,
  null: 12,
  bytes: 13,
} as const;

/** The id of the default codec, recorded in every segment that uses it. */
export const DEFAULT_CODEC_ID = "msgpackr";

const MAX_KEY_BYTES = 65_535;
const MAX_VALUE_BYTES = 2 ** 30;

/** Up to here a loop over the code units is the fastest encoder in both runtimes. */
const SHORT_TEXT = 40;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** What a key needs at most while it is written, its length not yet checked. */
export const KEY_ROOM_BYTES = MAX_KEY_BYTES + 1;

/**
 * Writes `key` into `target` at `offset`, where `KEY_ROOM_BYTES` are free, and returns its length.
 *
 * @throws {TypeError} When `key` is not a well-formed, non-empty string.
 * @throws {RangeError} When it has more than 65,535 bytes.
 */
export function writeKey(key: string, target: Uint8Array, offset: number): number {
  if (typeof key !== "string") throw keyTypeError(key);
  const length = key.length;
  if (length > SHORT_TEXT) return writeLongKey(key, target, offset);
  for (let i = 0; i < length; i += 1) {
    const code = key.charCodeAt(i);
    if (code > 127) return writeLongKey(key, target, offset);
    target[offset + i] = code;
  }
  if (length === 0) {
    throw new TypeError("Cannot use an empty string as a key: key must not be empty");
  }
  return length;
}

function writeLongKey(key: string, target: Uint8Array, offset: number): number {
  if (!key.isWellFormed()) {
    throw new TypeError("Cannot use a string with a lone surrogate as a key");
  }
  const room = target.subarray(offset, offset + KEY_ROOM_BYTES);
  const { read, written } = encoder.encodeInto(key, room);
  if (read < key.length || written > MAX_KEY_BYTES) {
    const bytes = Buffer.byteLength(key);
    throw new RangeError(`Cannot use a key of ${bytes} bytes: the limit is ${MAX_KEY_BYTES}`);
  }
  return written;
}

function keyTypeError(key: unknown): TypeError {
  return new TypeError(
    key === undefined
      ? "Cannot use undefined as a key: key must be defined"
      : `Cannot use ${describe(key)} as a key: key must be a string`,
  );
}

/** The key of `length` bytes at `offset`. */
export function readKey(memory: Memory, offset: number, length: number): string {
  return memory.text.utf8Slice(offset, offset + length);
}

/**
 * Appends the bytes of `value` to `room` and returns its kind. Code of the caller's, such as a
 * codec, runs before the first byte is written.
 */
export function encode(value: unknown, codec: Coder | undefined, room: Room): number {
  switch (typeof value) {
    case "string":
      return encodeString(value, room);
    case "number":
      if (room.end + 8 > room.bytes.length) room.reserve(8);
      room.view.setFloat64(room.end, value, true);
      room.end += 8;
      return KIND.number;
    case "boolean":
      return value ? KIND.true : KIND.false;
    case "bigint":
      return encodeBigint(value, room);
    case "object":
      if (value === null) return KIND.null;
      if (isBytes(value)) {
        append(value, room);
        return KIND.bytes;
      }
      return encodeStructure(value, codec, room);
    case "undefined":
      throw new TypeError("Cannot store undefined: value must be defined");
    default:
      throw new TypeError(`Cannot store ${describe(value)}`);
  }
}

/** The kind of a byte array, for callers that pass its bytes on without a copy. */
export const BYTES_KIND: number = KIND.bytes;

/** Whether `value` is stored as its bytes: a Uint8Array, or a Buffer, which comes back as one. */
export function isBytes(value: unknown): value is Uint8Array {
  if (!ArrayBuffer.isView(value)) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Uint8Array.prototype || prototype === Buffer.prototype;
}

/** Bytes that no value has: the cause is why. */
export class Undecodable extends Error {
  override readonly name = "Undecodable";
}

/** The value of `kind` in `length` bytes at `offset`. Throws `Undecodable` where there is none. */
export function decode(
  memory: Memory,
  offset: number,
  length: number,
  kind: number,
  codec: Coder | undefined,
): unknown {
  const end = offset + length;
  switch (kind) {
    case KIND.ascii:
      return memory.text.latin1Slice(offset, end);
    case KIND.number:
      if (length === 8) return memory.view.getFloat64(offset, true);
      break;
    case KIND.structure:
      return decodeStructure(memory, offset, end, codec);
    case KIND.structureWithErrors:
      return mend(decodeStructure(memory, offset, end, codec), new Set());
    case KIND.utf8:
      return decodeUtf8(memory, offset, end);
    case KIND.utf16:
      if (length % 2 === 0) return memory.text.ucs2Slice(offset, end);
      break;
    case KIND.true:
      if (length === 0) return true;
      break;
    case KIND.false:
      if (length === 0) return false;
      break;
    case KIND.null:
      if (length === 0) return null;
      break;
    case KIND.bytes:
      return memory.bytes.slice(offset, end);
    case KIND.int64:
      if (length === 8) return memory.view.getBigInt64(offset, true);
      break;
    case KIND.positive:
      return decodeMagnitude(memory, offset, end);
    case KIND.negative:
      return -decodeMagnitude(memory, offset, end);
  }
  throw new Undecodable(`no value has kind ${kind} and ${length} bytes`);
}

/** The getter of every byte array: an object made to deceive has a `length` of its own besides. */
const lengthOf = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Uint8Array.prototype),
  "length",
)!.get!;

/** How many bytes there really are. Throws "TooLarge" for more than any value may have. */
export function checkedLength(bytes: Uint8Array): number {
  const length: number = lengthOf.call(bytes);
  if (length > MAX_VALUE_BYTES) throw tooLarge(length);
  return length;
}

function append(bytes: Uint8Array, room: Room): void {
  const length = checkedLength(bytes);
  if (room.end + length > room.bytes.length) room.reserve(length);
  room.bytes.set(bytes, room.end);
  room.end += length;
}

function tooLarge(length: number): SharedMemoryError {
  const limit = formatBytes(MAX_VALUE_BYTES);
  return new SharedMemoryError(
    "TooLarge",
    `Cannot store a value of ${length} bytes: the limit is ${limit}`,
  );
}

function encodeString(value: string, room: Room): number {
  const length = value.length;
  if (length > SHORT_TEXT) return encodeLongString(value, room);
  if (room.end + SHORT_TEXT > room.bytes.length) room.reserve(SHORT_TEXT);
  const { bytes, end } = room;
  for (let i = 0; i < length; i += 1) {
    const code = value.charCodeAt(i);
    if (code > 127) return encodeLongString(value, room);
    bytes[end + i] = code;
  }
  room.end = end + length;
  return KIND.ascii;
}

function encodeLongString(value: string, room: Room): number {
  if (value.length > MAX_VALUE_BYTES) throw tooLarge(value.length);
  if (!value.isWellFormed()) return encodeCodeUnits(value, room);
  const start = room.end;
  // Most strings are ASCII: ask for three bytes a character only where one was not enough.
  room.reserve(value.length);
  const { read, written } = encoder.encodeInto(value, tail(room));
  room.end += written;
  if (read < value.length) {
    const rest = value.slice(read);
    room.reserve(3 * rest.length);
    room.end += encoder.encodeInto(rest, tail(room)).written;
  }
  const length = room.end - start;
  if (length > MAX_VALUE_BYTES) throw tooLarge(length);
  return length === value.length ? KIND.ascii : KIND.utf8;
}

function tail(room: Room): Uint8Array {
  return room.end === 0 ? room.bytes : room.bytes.subarray(room.end);
}

function encodeCodeUnits(value: string, room: Room): number {
  const length = 2 * value.length;
  if (length > MAX_VALUE_BYTES) throw tooLarge(length);
  room.reserve(length);
  const { view, end } = room;
  for (let i = 0; i < value.length; i += 1) view.setUint16(end + 2 * i, value.charCodeAt(i), true);
  room.end += length;
  return KIND.utf16;
}

function decodeUtf8({ bytes }: Memory, offset: number, end: number): string {
  try {
    return decoder.decode(bytes.subarray(offset, end));
  } catch (cause) {
    if (cause instanceof TypeError) throw new Undecodable("the text is not UTF-8", { cause });
    throw cause;
  }
}

function encodeBigint(value: bigint, room: Room): number {
  if (BigInt.asIntN(64, value) === value) {
    if (room.end + 8 > room.bytes.length) room.reserve(8);
    room.view.setBigInt64(room.end, value, true);
    room.end += 8;
    return KIND.int64;
  }
  // By way of hexadecimal digits: both runtimes convert those in linear time.
  const digits = (value < 0n ? -value : value).toString(16);
  const whole = digits.length % 2 === 0 ? digits : `0${digits}`;
  const length = whole.length / 2;
  if (length > MAX_VALUE_BYTES) throw tooLarge(length);
  room.reserve(length);
  room.bytes.subarray(room.end, room.end + length).setFromHex(whole);
  room.end += length;
  return value < 0n ? KIND.negative : KIND.positive;
}

function decodeMagnitude({ bytes }: Memory, offset: number, end: number): bigint {
  return BigInt(`0x0${bytes.subarray(offset, end).toHex()}`);
}

/** Results larger than this are not kept in the packer's own buffer. */
const SPARE_BYTES = 4 * 2 ** 20;

const packer = new Packr({ structuredClone: true, moreTypes: true, useToJSON: false });
const unpacker = new Packr({ structuredClone: true, moreTypes: true, copyBuffers: true });

/** What the unpacker makes of the byte that MessagePack never uses. */
const NEVER_USED: unknown = unpacker.unpack(Uint8Array.of(0xc1));

function encodeStructure(value: object, codec: Coder | undefined, room: Room): number {
  const start = room.end;
  if (codec !== undefined) {
    const bytes = encodeWith(codec, value);
    room.end = start; // calls the codec made, and that failed, leave their bytes behind
    append(bytes, room);
    return KIND.structure;
  }
  const check = new Check();
  check.visit(value, undefined, 0);
  const packed = pack(value);
  room.end = start; // as do those that getters made
  append(packed, room);
  if (packed.length > SPARE_BYTES) packer.useBuffer(Buffer.allocUnsafeSlow(8192));
  return check.foundError ? KIND.structureWithErrors : KIND.structure;
}

function pack(value: object): Uint8Array {
  try {
    return packer.encode(value, RESET_BUFFER_MODE);
  } catch (cause) {
    if (cause instanceof TypeError || cause instanceof RangeError) throw cause;
    throw new TypeError("Cannot encode the value", { cause });
  }
}

function encodeWith(codec: Coder, value: object): Uint8Array {
  let bytes: unknown;
  try {
    bytes = codec.encode(value);
  } catch (cause) {
    const isOurs = cause instanceof TypeError || cause instanceof RangeError ||
      cause instanceof SharedMemoryError;
    if (isOurs) throw cause;
    throw new TypeError(`Cannot encode the value with codec "${codec.id}"`, { cause });
  }
  if (types.isUint8Array(bytes)) return bytes;
  throw new TypeError(
    `Cannot store what codec "${codec.id}" returned: encode must return a Uint8Array`,
  );
}

function decodeStructure(
  memory: Memory,
  start: number,
  end: number,
  codec: Coder | undefined,
): unknown {
  try {
    if (codec !== undefined) return codec.decode(memory.bytes.slice(start, end));
    const value: unknown = unpacker.unpack(memory.bytes, start === 0 ? end : { start, end });
    if (typeof value === "object" && value !== null && value !== NEVER_USED) return value;
  } catch (cause) {
    const isOurs = cause instanceof SharedMemoryError ||
      cause instanceof RangeError && cause.message.includes("call stack");
    if (isOurs) throw cause;
    throw new Undecodable("the codec does not read its bytes", { cause });
  }
  throw new Undecodable("its bytes are no structure");
}

/** Takes back the `cause` that the unpacker gives to every error, where there was none. */
function mend(value: unknown, seen: Set<unknown>): unknown {
  if (typeof value !== "object" || value === null || seen.has(value)) return value;
  seen.add(value);
  if (value instanceof Error) {
    if (value.cause === undefined) delete value.cause;
    else mend(value.cause, seen);
  } else if (value instanceof Map) {
    for (const [key, entry] of value) {
      mend(key, seen);
      mend(entry, seen);
    }
  } else if (value instanceof Set) {
    for (const member of value) mend(member, seen);
  } else if (!ArrayBuffer.isView(value)) {
    for (const member of Object.values(value)) mend(member, seen);
  }
  return value;
}

/** Deeper structures would overflow the stack of one runtime or another, here or at the reader. */
const MAX_DEPTH = 500;

/** Longer arrays are not searched for properties besides their elements, which takes too long. */
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
 * One walk over a structure, in the packer's order, that throws a TypeError for what would not come
 * back as it was. Each object is visited once.
 */
class Check {
  /** Whether the structure has errors in it. */
  foundError = false;
  readonly #seen = new Set<object>();
  /** The errors the walk is inside of. */
  readonly #open: object[] = [];

  /** Checks `value`, found under `place`. */
  visit(value: unknown, place: unknown, depth: number): void {
    if (typeof value === "string") return checkText(value, place);
    if (typeof value !== "object") {
      if (typeof value === "function" || typeof value === "symbol") throw refusal(value, place);
      return;
    }
    if (value === null) return;
    if (this.#seen.has(value)) {
      if (this.#open.includes(value)) throw refusal("an error that leads back to itself", place);
      return;
    }
    this.#seen.add(value);
    if (depth > MAX_DEPTH) throw refusal(`more than ${MAX_DEPTH} levels`, place);
    if (types.isProxy(value)) throw refusal("a proxy", place);
    const prototype = Object.getPrototypeOf(value);
    if (prototype === Object.prototype) this.#visitObject(value, place, depth);
    else if (prototype === Array.prototype) this.#visitArray(value as unknown[], place, depth);
    else this.#visitBuiltIn(value, prototype, place, depth);
  }

  #visitObject(value: object, place: unknown, depth: number): void {
    const record = value as Record<string, unknown>;
    for (const key in record) {
      checkText(key, key);
      // The packer would rename the first, and the second is a name of its own.
      if (key === "__proto__" || key === "__keys__") throw refusal(`a key "${key}"`, key);
      const member = record[key];
      // Reading twice costs less than asking whether it is a getter, and more cannot be lost.
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

  /** An error keeps its class, name, message and cause, and gets the stack of its reader. */
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

/** A value as messages name it. */
export function describe(value: unknown): string {
  if (typeof value === "function") {
    const { name }: { name: unknown } = value;
    return typeof name === "string" && name !== "" ? `function "${name}"` : "a function";
  }
  if (typeof value === "symbol") return `symbol "${value.description ?? ""}"`;
  if (typeof value === "object" && value !== null) return `an instance of ${className(value)}`;
  return String(value);
}

function className(value: object): string {
  const prototype = Object.getPrototypeOf(value);
  if (prototype === null) return "no class (its prototype is null)";
  return String(prototype.constructor?.name || "an unnamed class");
}
