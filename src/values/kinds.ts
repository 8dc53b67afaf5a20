/**
 * Encodes and decodes values and keys.
 *
 * A stored value is a kind byte and its bytes. Primitives and byte arrays have kinds of their own
 * and come back exactly. Everything else is a structure: plain ones are written by
 * `plain_encoder.ts`, all others by `general_encoder.ts`, unless the user gave a codec.
 */
import { Buffer } from "node:buffer";
import { types } from "node:util";
import { lengthOf } from "../arguments.ts";
import { SharedMemoryError } from "../errors.ts";
import type { Scratch } from "../ffi/scratch.ts";
import { describe } from "./describe.ts";
import { decodeGeneral } from "./general_decoder.ts";
import { encodeGeneral } from "./general_encoder.ts";
import { MAX_VALUE_BYTES, tooLarge } from "./limits.ts";
import { NEVER_USED, type Shape, unpack } from "./msgpack.ts";
import { decodePlain } from "./plain_decoder.ts";
import { encodePlain } from "./plain_encoder.ts";

/**
 * What turns structured values into bytes and back.
 *
 * @example
 * ```ts
 * import { type Codec, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * const json: Codec = {
 *   id: "json",
 *   encode: (value) => new TextEncoder().encode(JSON.stringify(value)),
 *   decode: (bytes) => JSON.parse(new TextDecoder().decode(bytes)),
 * };
 * using map = SharedMap.anonymous({ codec: json }).set("a", { list: [1] });
 * assert.deepEqual(map.get("a"), { list: [1] });
 * ```
 */
export interface Codec {
  /** Recorded in the segment, so that no other codec reads it: 1 to 63 ASCII characters. */
  readonly id: string;
  /** The bytes of a value. */
  encode(value: unknown): Uint8Array;
  /** The value of bytes that `encode` made. The codec may keep and change them. */
  decode(bytes: Uint8Array): unknown;
}

/** The kind bytes. Stable: other processes, runtimes and versions read them. Zero is no kind. */
const KIND = {
  /** What a codec of the user made; in MessagePack, where there is none. */
  structure: 1,
  /** A structure with errors in it, in MessagePack. No longer written. */
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
  /** A structure of plain objects, arrays and primitives, in MessagePack. No longer written. */
  packed: 14,
  /** A plain structure (`format.ts`). */
  plain: 15,
  /** Any other structure (`general_format.ts`). */
  general: 16,
} as const;

/** The id of the default codec, recorded in every segment that uses it. */
export const DEFAULT_CODEC_ID = "msgpackr";

const MAX_KEY_BYTES = 65_535;

/** Up to this length a loop over the code units is the fastest encoder in both runtimes. */
const SHORT_TEXT = 40;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The room that writing a key needs at most, before its length is checked. */
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
export function readKey(memory: Scratch, offset: number, length: number): string {
  return memory.text.utf8Slice(offset, offset + length);
}

/**
 * Appends the bytes of `value` to `target` and returns its kind. Code of the user, such as a codec
 * or a getter, runs before the first byte is written.
 */
export function encode(value: unknown, codec: Codec | undefined, target: Scratch): number {
  switch (typeof value) {
    case "string":
      return encodeString(value, target);
    case "number":
      if (target.end + 8 > target.bytes.length) target.reserve(8);
      target.view.setFloat64(target.end, value, true);
      target.end += 8;
      return KIND.number;
    case "boolean":
      return value ? KIND.true : KIND.false;
    case "bigint":
      return encodeBigint(value, target);
    case "object":
      if (value === null) return KIND.null;
      if (isBytes(value)) {
        append(value, target);
        return KIND.bytes;
      }
      return encodeStructure(value, codec, target);
    case "undefined":
      throw new TypeError("Cannot store undefined: value must be defined");
    default:
      throw new TypeError(`Cannot store ${describe(value)}`);
  }
}

/** The kind of a string of ASCII, for callers that read and write its bytes themselves. */
export const ASCII_KIND: number = KIND.ascii;

/** The kinds of strings whose bytes are UTF-8. */
export const TEXT_KINDS: readonly number[] = [KIND.ascii, KIND.utf8];

/** The kind of a byte array, for callers that pass its bytes to the library without a copy. */
export const BYTES_KIND: number = KIND.bytes;

/**
 * Whether `value` is stored as its bytes: a Uint8Array, or a Buffer, which is read as the former.
 */
export function isBytes(value: unknown): value is Uint8Array {
  if (!ArrayBuffer.isView(value)) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Uint8Array.prototype || prototype === Buffer.prototype;
}

/** The error for bytes that are no value. */
export class Undecodable extends Error {
  override readonly name = "Undecodable";
}

/** The value of `kind` in `length` bytes at `offset`. Throws `Undecodable` if they are none. */
export function decode(
  memory: Scratch,
  offset: number,
  length: number,
  kind: number,
  codec: Codec | undefined,
): unknown {
  const end = offset + length;
  switch (kind) {
    case KIND.ascii:
      return memory.text.latin1Slice(offset, end);
    case KIND.number:
      if (length === 8) return memory.view.getFloat64(offset, true);
      break;
    case KIND.plain:
      return decodeOwn(decodePlain, memory, offset, end);
    case KIND.general:
      return decodeOwn(decodeGeneral, memory, offset, end);
    case KIND.packed:
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
  throw new Undecodable(
    `no value of this version of shmap has kind ${kind} and ${length} bytes; ` +
      "a newer one may read it",
  );
}

/** How many bytes there are. Throws "TooLarge" for more than any value may have. */
export function checkedLength(bytes: Uint8Array): number {
  const length = lengthOf.call(bytes);
  if (length > MAX_VALUE_BYTES) throw tooLarge(length);
  return length;
}

function append(bytes: Uint8Array, target: Scratch): void {
  const length = checkedLength(bytes);
  if (target.end + length > target.bytes.length) target.reserve(length);
  target.bytes.set(bytes, target.end);
  target.end += length;
}

/** As `encode`, of a string. */
export function encodeString(value: string, target: Scratch): number {
  const length = value.length;
  if (length > SHORT_TEXT) return encodeLongString(value, target);
  if (target.end + SHORT_TEXT > target.bytes.length) target.reserve(SHORT_TEXT);
  const { bytes, end } = target;
  for (let i = 0; i < length; i += 1) {
    const code = value.charCodeAt(i);
    if (code > 127) return encodeLongString(value, target);
    bytes[end + i] = code;
  }
  target.end = end + length;
  return KIND.ascii;
}

function encodeLongString(value: string, target: Scratch): number {
  if (value.length > MAX_VALUE_BYTES) throw tooLarge(value.length);
  if (!value.isWellFormed()) return encodeCodeUnits(value, target);
  const start = target.end;
  // Most strings are ASCII: reserve three bytes a character only if one was not enough.
  target.reserve(value.length);
  const { read, written } = encoder.encodeInto(value, tail(target));
  target.end += written;
  if (read < value.length) {
    const rest = value.slice(read);
    target.reserve(3 * rest.length);
    target.end += encoder.encodeInto(rest, tail(target)).written;
  }
  const length = target.end - start;
  if (length > MAX_VALUE_BYTES) throw tooLarge(length);
  return length === value.length ? KIND.ascii : KIND.utf8;
}

function tail(target: Scratch): Uint8Array {
  return target.end === 0 ? target.bytes : target.bytes.subarray(target.end);
}

function encodeCodeUnits(value: string, target: Scratch): number {
  const length = 2 * value.length;
  if (length > MAX_VALUE_BYTES) throw tooLarge(length);
  target.reserve(length);
  const { view, end } = target;
  for (let i = 0; i < value.length; i += 1) view.setUint16(end + 2 * i, value.charCodeAt(i), true);
  target.end += length;
  return KIND.utf16;
}

function decodeUtf8({ bytes }: Scratch, offset: number, end: number): string {
  try {
    return decoder.decode(bytes.subarray(offset, end));
  } catch (cause) {
    if (cause instanceof TypeError) throw new Undecodable("the text is not UTF-8", { cause });
    throw cause;
  }
}

function encodeBigint(value: bigint, target: Scratch): number {
  if (BigInt.asIntN(64, value) === value) {
    if (target.end + 8 > target.bytes.length) target.reserve(8);
    target.view.setBigInt64(target.end, value, true);
    target.end += 8;
    return KIND.int64;
  }
  // Hexadecimal digits on the way: both runtimes convert them in linear time.
  const digits = (value < 0n ? -value : value).toString(16);
  const whole = digits.length % 2 === 0 ? digits : `0${digits}`;
  const length = whole.length / 2;
  if (length > MAX_VALUE_BYTES) throw tooLarge(length);
  target.reserve(length);
  target.bytes.subarray(target.end, target.end + length).setFromHex(whole);
  target.end += length;
  return value < 0n ? KIND.negative : KIND.positive;
}

function decodeMagnitude({ bytes }: Scratch, offset: number, end: number): bigint {
  return BigInt(`0x0${bytes.subarray(offset, end).toHex()}`);
}

function encodeStructure(value: object, codec: Codec | undefined, target: Scratch): number {
  const start = target.end;
  if (codec !== undefined) {
    const bytes = encodeWith(codec, value);
    target.end = start; // a call that the codec made, and that failed, may have moved it
    append(bytes, target);
    return KIND.structure;
  }
  if (encodePlain(value, target)) return KIND.plain;
  target.end = start; // growing has moved it, or a call that a getter made
  encodeGeneral(value, target);
  return KIND.general;
}

function encodeWith(codec: Codec, value: object): Uint8Array {
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

function decodeOwn(
  read: (memory: Scratch, from: number, to: number) => unknown,
  memory: Scratch,
  start: number,
  end: number,
): unknown {
  try {
    const value = read(memory, start, end);
    if (typeof value === "object" && value !== null) return value;
  } catch (cause) {
    if (isOverflow(cause)) throw cause;
    throw new Undecodable("its bytes are no structure", { cause });
  }
  throw new Undecodable("its bytes are no structure");
}

/** Whether the stack was too short, which says nothing of the bytes. */
function isOverflow(error: unknown): boolean {
  return error instanceof RangeError && error.message.includes("call stack");
}

function decodeStructure(
  memory: Scratch,
  start: number,
  end: number,
  shape: Shape,
  codec: Codec | undefined,
): unknown {
  try {
    if (codec !== undefined) return codec.decode(memory.bytes.slice(start, end));
    const value = unpack(memory.bytes, start, end, shape);
    if (typeof value === "object" && value !== null && value !== NEVER_USED) return value;
  } catch (cause) {
    if (cause instanceof SharedMemoryError || isOverflow(cause)) throw cause;
    throw new Undecodable("the codec does not read its bytes", { cause });
  }
  throw new Undecodable("its bytes are no structure");
}
