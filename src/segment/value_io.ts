/**
 * How values cross into a segment and out of it: the steps that the entries of a map and a single
 * value have in common. They are functions, not methods of a common base class, because that costs
 * more calls on the way of each get and set, and Bun inlines only five calls deep.
 */
import { SharedMemoryError } from "../errors.ts";
import { records, statuses } from "../ffi/abi.ts";
import { offsetOf } from "../ffi/fields.ts";
import { DATA, OUT } from "../ffi/scratch.ts";
import {
  ASCII_KIND,
  BYTES_KIND,
  checkedLength,
  decode,
  encode,
  encodeString,
  isBytes,
  Undecodable,
} from "../values/kinds.ts";
import type { Segment } from "./segment.ts";

/** What follows a value that was read: its kind. */
export const KIND_BYTES = 1;
/** What follows a value that was read with its version. */
export const TAIL_BYTES: number = records.ValueTail.bytes;
const TAIL_VERSION = offsetOf("ValueTail", "version");

/** The version of the value of `length` bytes that was read into `DATA`. */
export function versionBehind(length: number): number {
  return DATA.view.getFloat64(length + TAIL_VERSION, true);
}

/** Byte arrays of this size and more cross as they lie, without a copy in `OUT`. */
const DIRECT_BYTES = 64 * 1024;

const { absent: ABSENT } = statuses;

/**
 * Encodes `value` for the call that stores it, and returns its kind. Its length is then `OUT.end`,
 * and its bytes are `bytesOf(value, kind)`.
 */
export function encodeValue(segment: Segment, value: unknown, action: string): number {
  let kind = BYTES_KIND;
  OUT.end = 0;
  if (typeof value === "string") {
    kind = encodeString(value, OUT); // by a call less, which the runtimes inline
  } else if (typeof value === "object" && isLargeBytes(value)) {
    OUT.end = checkedLength(value);
  } else {
    kind = encode(value, segment.codec, OUT);
  }
  segment.locker.assertFree(action); // the codec may have taken the lock
  return kind;
}

function isLargeBytes(value: object | null): value is Uint8Array {
  return ArrayBuffer.isView(value) && value.byteLength >= DIRECT_BYTES && isBytes(value);
}

/**
 * The bytes of a value that was encoded: its own, if they cross as they lie, or those in `OUT`.
 */
export function bytesOf(value: unknown, kind: number): Uint8Array {
  return kind === BYTES_KIND && OUT.end >= DIRECT_BYTES ? value as Uint8Array : OUT.bytes;
}

/**
 * Whether the answer to a read, a length or a status, is final. If the value and the `trailer`
 * bytes after it did not fit into `DATA`, makes room: the read must be repeated.
 */
export function isFinal(segment: Segment, length: number, trailer: number): boolean {
  if (fits(segment, length, trailer)) return true;
  DATA.end = 0;
  DATA.reserve(length + trailer);
  return false;
}

/** As `isFinal`, without making room. */
export function fits(segment: Segment, length: number, trailer: number): boolean {
  if (length >= 0) return length + trailer <= DATA.bytes.length;
  if (length === ABSENT) return true;
  DATA.release(); // a try before this one may have made room for a large value
  throw segment.failure(length, "read");
}

/** Decodes the value of `length` bytes in `DATA`, which is free again afterwards. */
export function takeValue<V>(segment: Segment, length: number, key?: string): V {
  const kind = DATA.bytes[length];
  let value: unknown;
  try {
    // The most usual kind needs no call that is too large to be inlined.
    value = kind === ASCII_KIND
      ? DATA.text.latin1Slice(0, length)
      : decode(DATA, 0, length, kind, segment.codec);
  } catch (error) {
    throw unreadable(segment, error, key);
  } finally {
    DATA.release();
  }
  return value as V;
}

/** The error to throw after decoding the value, or the one of `key`, threw `error`. */
export function unreadable({ label }: Segment, error: unknown, key?: string): unknown {
  if (!(error instanceof Undecodable)) return error;
  const thing = key === undefined ? label : `"${shortened(key)}" in ${label}`;
  const message = `Cannot read ${thing}: ${error.message}`;
  return new SharedMemoryError("Corrupt", message, { cause: error.cause ?? error });
}

/** A key as messages name it. */
export function shortened(key: string): string {
  return key.length > 100 ? `${key.slice(0, 100)}…` : key;
}
