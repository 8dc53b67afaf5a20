/**
 * JavaScript values to bytes and back, and the keys beside them.
 *
 * A stored value is a kind byte and its bytes. Primitives and byte arrays have kinds of their own
 * and come back exactly. Everything else goes through a codec; the default one is `msgpack.ts`.
 */
import { Buffer } from "node:buffer";
import { types } from "node:util";
import { formatBytes, SharedMemoryError } from "../errors.ts";
import { describe, NEVER_USED, pack, type Shape, shapeOf, unpack } from "./msgpack.ts";

export { describe };

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
  /** A structure of plain objects, arrays and primitives alone. */
  plain: 14,
} as const;

const SHAPE_KINDS: Readonly<Record<Shape, number>> = {
  plain: KIND.plain,
  full: KIND.structure,
  withErrors: KIND.structureWithErrors,
};

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
    case KIND.plain:
      return decodeStructure(memory, offset, end, "plain", codec);
    case KIND.structure:
      return decodeStructure(memory, offset, end, "full", codec);
    case KIND.structureWithErrors:
      return decodeStructure(memory, offset, end, "withErrors", codec);
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

function encodeStructure(value: object, codec: Coder | undefined, room: Room): number {
  const start = room.end;
  if (codec !== undefined) {
    const bytes = encodeWith(codec, value);
    room.end = start; // calls the codec made, and that failed, leave their bytes behind
    append(bytes, room);
    return KIND.structure;
  }
  const shape = shapeOf(value);
  const packed = pack(value, shape);
  room.end = start; // as do those that getters made
  append(packed, room);
  return SHAPE_KINDS[shape];
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
  shape: Shape,
  codec: Coder | undefined,
): unknown {
  try {
    if (codec !== undefined) return codec.decode(memory.bytes.slice(start, end));
    const value = unpack(memory.bytes, start, end, shape);
    if (typeof value === "object" && value !== null && value !== NEVER_USED) return value;
  } catch (cause) {
    const isOurs = cause instanceof SharedMemoryError ||
      cause instanceof RangeError && cause.message.includes("call stack");
    if (isOurs) throw cause;
    throw new Undecodable("the codec does not read its bytes", { cause });
  }
  throw new Undecodable("its bytes are no structure");
}
