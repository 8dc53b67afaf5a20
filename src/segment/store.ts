/**
 * How values cross into a segment and out of it: the part that the entries of a map and a single
 * value have in common.
 */
import { SharedMemoryError } from "../errors.ts";
import { statuses } from "../ffi/abi.ts";
import { DATA } from "../ffi/scratch.ts";
import {
  BYTES_KIND,
  checkedLength,
  type Codec,
  decode,
  encode,
  isBytes,
  Undecodable,
} from "../values/kinds.ts";
import type { Segment } from "./segment.ts";

/** What follows a value that was read: its kind, then its version if asked for. */
export const KIND_BYTES = 1;
export const VERSION_BYTES = 8;

/** Byte arrays of this size and more cross as they lie, without a copy in `DATA`. */
const DIRECT_BYTES = 64 * 1024;

const { absent: ABSENT, unchanged: UNCHANGED } = statuses;

/** Reads and stores the values of one open segment. */
export abstract class Store<V> {
  readonly segment: Segment;
  readonly codec: Codec | undefined;
  /** The option that limits the size of one value, for messages. */
  readonly #limit: string | undefined;

  constructor(segment: Segment, limit?: string) {
    this.segment = segment;
    this.codec = segment.codec;
    this.#limit = limit;
  }

  /** Calls the library to store `length` of `bytes`, and returns its result. */
  protected abstract send(
    bytes: Uint8Array,
    length: number,
    kind: number,
    key: string,
    version: number | undefined,
  ): number;

  /**
   * Encodes `value` and stores it, a map's under `key`. `flags` go beside the kind; with `version`
   * it is stored only if the key still has that one. Returns 1 if it was stored, else 0.
   */
  protected store(value: V, action: string, key = "", flags = 0, version?: number): number {
    const { segment } = this;
    if (segment.writeHandle === 0) segment.assertWritable(action);
    let result: number;
    if (ArrayBuffer.isView(value) && value.byteLength >= DIRECT_BYTES && isBytes(value)) {
      const length = checkedLength(value);
      segment.locker.assertFree(action);
      result = this.send(value, length, BYTES_KIND | flags, key, version);
    } else {
      DATA.end = 0;
      const kind = encode(value, this.codec, DATA);
      segment.locker.assertFree(action); // the codec may have taken the lock
      result = this.send(DATA.bytes, DATA.end, kind | flags, key, version);
      DATA.release();
    }
    if (result < 0) throw segment.failure(result, action, { limit: this.#limit });
    return result;
  }

  /**
   * Whether the answer to a read, a length or a status, is final. If the value and the `trailer`
   * bytes after it did not fit into `DATA`, makes room: the read must be repeated.
   */
  protected isFinal(length: number, trailer: number): boolean {
    if (length >= 0) {
      if (length + trailer <= DATA.bytes.length) return true;
      DATA.end = 0;
      DATA.reserve(length + trailer);
      return false;
    }
    if (length === ABSENT || length === UNCHANGED) return true;
    throw this.segment.failure(length, "read");
  }

  /** Decodes the value of `length` bytes in `DATA`, which is free again afterwards. */
  protected take(length: number, key?: string): V {
    let value: unknown;
    try {
      value = decode(DATA, 0, length, DATA.bytes[length], this.codec);
    } catch (error) {
      throw this.unreadable(error, key);
    }
    DATA.release();
    return value as V;
  }

  /** The error to throw after decoding the value, a map's under `key`, threw `error`. */
  protected unreadable(error: unknown, key?: string): unknown {
    if (!(error instanceof Undecodable)) return error;
    const { label } = this.segment;
    const thing = key === undefined ? label : `"${shortened(key)}" in ${label}`;
    const message = `Cannot read ${thing}: ${error.message}`;
    return new SharedMemoryError("Corrupt", message, { cause: error.cause ?? error });
  }
}

function shortened(key: string): string {
  return key.length > 100 ? `${key.slice(0, 100)}…` : key;
}
