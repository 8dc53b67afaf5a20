/**
 * What can be done with a segment's entries, in JavaScript's terms: the one engine behind the
 * public objects, which are thin faces of it.
 */
import { damageText, SharedMemoryError } from "../errors.ts";
import { encodeEntries, encodeKeys, Records } from "./records.ts";
import {
  checkFunction,
  checkIterable,
  type Codec,
  DATA,
  flags,
  KEY,
  type Segment,
  statuses,
} from "./segment.ts";
import {
  BYTES_KIND,
  checkedLength,
  decode,
  encode,
  isBytes,
  Undecodable,
  writeKey,
} from "../values/kinds.ts";

/**
 * What `verify` or `repair` found.
 *
 * @example
 * ```ts
 * import { SharedMap, type VerifyReport } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.anonymous().set("a", 1);
 * const { ok, entries }: VerifyReport = map.verify();
 * assert.deepEqual([ok, entries], [true, 1]);
 * ```
 */
export interface VerifyReport {
  /** Whether nothing was wrong. */
  ok: boolean;
  /** How many problems were found. */
  problems: number;
  /** How many entries are there, after the repair if it was one. */
  entries: number;
  /** How many entries this repair had to drop. */
  dropped: number;
  /** The first problem: what it is, and in which stripe. */
  first: { what: string; stripe: number } | undefined;
}

/** Beside the kind: store only if the key is absent. */
export const ONLY_IF_ABSENT = 256;
/** What follows a value that was read: its kind, and its version if asked for. */
export const KIND_BYTES = 1;
export const VERSION_BYTES = 8;
/** From here on, byte arrays are passed on as they lie instead of by way of a buffer. */
export const DIRECT_BYTES = 64 * 1024;
/** So often `update` tries again at once before it begins to wait in between. */
const EAGER_ATTEMPTS = 4;
const LONGEST_PAUSE_MS = 5;

const { absent: ABSENT } = statuses;

/** The entries of one open segment. */
export class Entries<V> {
  readonly segment: Segment;
  readonly codec: Codec | undefined;

  constructor(segment: Segment) {
    this.segment = segment;
    this.codec = segment.codec;
  }

  /** The value of `key`, or undefined. */
  get(key: string): V | undefined {
    const length = this.#read(writeKey(key, KEY.bytes, 0));
    return length < 0 ? undefined : this.#take(key, length);
  }

  /** Stores `value` if `how` allows: 1, or 0 if it does not. */
  put(key: string, value: V, how: number): number {
    const segment = this.segment;
    if (segment.writeHandle === 0) segment.assertWritable("write");
    if (ArrayBuffer.isView(value) && value.byteLength >= DIRECT_BYTES && isBytes(value)) {
      return this.#putBytes(key, value, how);
    }
    DATA.end = 0;
    const kind = encode(value, this.codec, DATA);
    segment.locker.assertFree("write"); // the codec may have taken the lock
    // The key comes after the codec, which may itself have used the map and its buffers.
    const keyLength = writeKey(key, KEY.bytes, 0);
    const { native, writeHandle } = segment;
    const result = native.shm_map_put(
      writeHandle,
      KEY.bytes,
      keyLength,
      DATA.bytes,
      DATA.end,
      kind | how,
    );
    DATA.release();
    if (result < 0) throw segment.failure(result, "write");
    return result;
  }

  /** The value of `key`; if there is none, what `compute` returns is stored. */
  getOrInsertComputed(key: string, compute: (key: string) => V): V {
    this.segment.assertWritable("write");
    checkFunction("compute", compute);
    let computed: { value: V } | undefined;
    for (;;) {
      const length = this.#read(writeKey(key, KEY.bytes, 0));
      if (length >= 0) return this.#take(key, length);
      computed ??= { value: compute(key) };
      if (this.put(key, computed.value, ONLY_IF_ABSENT) === 1) return computed.value;
    }
  }

  /** Stores what `fn` makes of the value of `key`, again and again until nobody came between. */
  update(key: string, fn: (current: V | undefined) => V): V {
    this.segment.assertWritable("write");
    checkFunction("fn", fn);
    this.segment.locker.assertFree("write");
    for (let attempt = 1;; attempt += 1) {
      const length = this.#readWithVersion(writeKey(key, KEY.bytes, 0));
      const version = length < 0 ? 0 : DATA.view.getFloat64(length + 1, true);
      const next = fn(length < 0 ? undefined : this.#take(key, length));
      if (this.#putVersion(key, next, version)) return next;
      if (attempt >= EAGER_ATTEMPTS) pause(attempt - EAGER_ATTEMPTS);
    }
  }

  has(key: string): boolean {
    const segment = this.segment;
    const keyLength = writeKey(key, KEY.bytes, 0);
    const result = segment.native.shm_map_has(segment.handle, KEY.bytes, keyLength);
    if (result < 0) throw segment.failure(result, "read");
    return result === 1;
  }

  delete(key: string): boolean {
    const segment = this.segment;
    if (segment.writeHandle === 0) segment.assertWritable("write");
    segment.locker.assertFree("write");
    const keyLength = writeKey(key, KEY.bytes, 0);
    const result = segment.native.shm_map_delete(segment.writeHandle, KEY.bytes, keyLength);
    if (result < 0) throw segment.failure(result, "write");
    return result === 1;
  }

  clear(): void {
    const segment = this.segment;
    segment.assertWritable("clear");
    segment.locker.assertFree("clear");
    const result = segment.native.shm_map_clear(segment.writeHandle);
    if (result < 0) throw segment.failure(result, "clear");
  }

  get size(): number {
    const segment = this.segment;
    const size = segment.native.shm_map_size(segment.handle);
    if (size < 0) throw segment.failure(size, "read");
    return size;
  }

  getMany(keys: Iterable<string>): (V | undefined)[] {
    const segment = this.segment;
    checkIterable("keys", keys);
    const list = [...keys];
    encodeKeys(list, DATA);
    const { native, handle } = segment;
    const size = native.shm_map_get_many(handle, DATA.bytes, DATA.end, list.length);
    DATA.release();
    const records = new Records();
    records.take(segment, size);
    return list.map((key) => records.nextAnswer() ? this.#valueOf(records, key) : undefined);
  }

  setMany(entries: Iterable<readonly [string, V]>): void {
    const segment = this.segment;
    segment.assertWritable("write");
    checkIterable("entries", entries);
    let stored = 0;
    for (const piece of encodeEntries(entries, this.codec)) {
      segment.locker.assertFree("write", { stored });
      const { native, writeHandle } = segment;
      const result = native.shm_map_put_many(writeHandle, piece.bytes, piece.end, piece.count);
      if (result < 0) throw segment.failure(result, "write", { stored });
      stored += piece.count;
    }
  }

  toObject(): Record<string, V> {
    const segment = this.segment;
    const records = new Records();
    records.take(segment, segment.native.shm_map_snapshot(segment.handle));
    const object: Record<string, V> = {};
    while (records.next()) {
      const { key } = records;
      const value = this.#valueOf(records, key);
      if (key !== "__proto__") object[key] = value;
      else defineOwn(object, key, value);
    }
    return object;
  }

  /** Iterates stripe by stripe; `pick` makes the results. With `keysOnly` it gets no values. */
  iterate<T>(
    what: number,
    pick: (key: string, value: V) => T,
  ): Generator<T, undefined, undefined> {
    this.segment.assertOpen("iterate over");
    return this.#walk(what, pick);
  }

  *#walk<T>(
    what: number,
    pick: (key: string, value: V) => T,
  ): Generator<T, undefined, undefined> {
    const segment = this.segment;
    const records = new Records();
    for (let stripe = 0; stripe < segment.stripes; stripe += 1) {
      records.take(segment, segment.native.shm_map_gather(segment.handle, stripe, what));
      while (records.next()) {
        const { key } = records;
        segment.assertOpen("iterate over");
        if (what === flags.keysOnly) {
          yield pick(key, undefined as V);
        } else if (!records.isLeftOut) {
          yield pick(key, this.#valueOf(records, key));
        } else {
          const length = this.#read(writeKey(key, KEY.bytes, 0));
          if (length >= 0) yield pick(key, this.#take(key, length));
        }
      }
    }
  }

  /** Checks every invariant; repairs if `repair` is 1. */
  verify(repair: number): VerifyReport {
    const segment = this.segment;
    if (repair === 0) segment.assertOpen("verify");
    else {
      segment.assertWritable("repair");
      segment.locker.assertFree("repair");
    }
    const { native, handle } = segment;
    const length = native.shm_map_verify(handle, repair, DATA.bytes, DATA.bytes.length);
    if (length < 0) throw segment.failure(length, repair === 1 ? "repair" : "verify");
    const [problems, entries, dropped, reason, stripe] = [0, 1, 2, 3, 4].map((index) =>
      DATA.view.getFloat64(index * 8, true)
    );
    const first = problems > 0 ? { what: damageText(reason), stripe } : undefined;
    return { ok: problems === 0, problems, entries, dropped, first };
  }

  /** Reads the value of the key in `KEY` into `DATA`: its length, or `absent`. */
  #read(keyLength: number): number {
    const { native, handle } = this.segment;
    for (;;) {
      const size = DATA.bytes.length;
      const length = native.shm_map_get(handle, KEY.bytes, keyLength, DATA.bytes, size);
      if (length < 0) return this.#checkAbsent(length);
      if (length + KIND_BYTES <= size) return length;
      DATA.end = 0;
      DATA.reserve(length + KIND_BYTES);
    }
  }

  /** As `#read`; the version follows the kind. */
  #readWithVersion(keyLength: number): number {
    const { native, handle } = this.segment;
    for (;;) {
      const size = DATA.bytes.length;
      const length = native.shm_map_get_version(handle, KEY.bytes, keyLength, DATA.bytes, size);
      if (length < 0) return this.#checkAbsent(length);
      if (length + KIND_BYTES + VERSION_BYTES <= size) return length;
      DATA.end = 0;
      DATA.reserve(length + KIND_BYTES + VERSION_BYTES);
    }
  }

  #checkAbsent(status: number): number {
    if (status === ABSENT) return status;
    throw this.segment.failure(status, "read");
  }

  /** The value of `length` bytes that was read into `DATA`, which is free again afterwards. */
  #take(key: string, length: number): V {
    let value: unknown;
    try {
      value = decode(DATA, 0, length, DATA.bytes[length], this.codec);
    } catch (error) {
      throw this.#unreadable(key, error);
    }
    DATA.release();
    return value as V;
  }

  /** The value of the record `records` is at. */
  #valueOf(records: Records, key: string): V {
    try {
      return records.value(this.codec) as V;
    } catch (error) {
      throw this.#unreadable(key, error);
    }
  }

  #unreadable(key: string, error: unknown): unknown {
    const short = key.length > 100 ? `${key.slice(0, 100)}…` : key;
    return unreadable(`"${short}" in ${this.segment.label}`, error);
  }

  /** As `put`, for many bytes, which cross without a copy in between. */
  #putBytes(key: string, value: Uint8Array, how: number): number {
    const length = checkedLength(value);
    this.segment.locker.assertFree("write");
    const { native, writeHandle } = this.segment;
    const keyLength = writeKey(key, KEY.bytes, 0);
    const kind = BYTES_KIND | how;
    const result = native.shm_map_put(writeHandle, KEY.bytes, keyLength, value, length, kind);
    if (result < 0) throw this.segment.failure(result, "write");
    return result;
  }

  /** Stores `value` if the key still has `version`. */
  #putVersion(key: string, value: V, version: number): boolean {
    const { native, writeHandle, locker } = this.segment;
    DATA.end = 0;
    const kind = encode(value, this.codec, DATA);
    locker.assertFree("write");
    const keyLength = writeKey(key, KEY.bytes, 0);
    const result = native.shm_map_put_version(
      writeHandle,
      KEY.bytes,
      keyLength,
      DATA.bytes,
      DATA.end,
      kind,
      version,
    );
    DATA.release();
    if (result < 0) throw this.segment.failure(result, "write");
    return result === 1;
  }
}

/** What to throw where decoding `thing` threw `error`. */
export function unreadable(thing: string, error: unknown): unknown {
  if (!(error instanceof Undecodable)) return error;
  const message = `Cannot read ${thing}: ${error.message}`;
  return new SharedMemoryError("Corrupt", message, { cause: error.cause ?? error });
}

function defineOwn(object: object, key: string, value: unknown): void {
  Object.defineProperty(object, key, {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  });
}

const sleeper = new Int32Array(new SharedArrayBuffer(4));

/** Waits a random while, longer after more failures, so that competitors stop meeting. */
function pause(failures: number): void {
  const most = Math.min(2 ** failures / 16, LONGEST_PAUSE_MS);
  Atomics.wait(sleeper, 0, 0, Math.random() * most);
}
