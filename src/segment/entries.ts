/**
 * The entries of a segment: what a `SharedMap` does.
 */
import { checkFunction, checkIterable, lengthOf, wrongType } from "../arguments.ts";
import { damageText } from "../errors.ts";
import { flags, records, statuses } from "../ffi/abi.ts";
import { offsetOf, readRecord } from "../ffi/fields.ts";
import { DATA, KEY, OUT } from "../ffi/scratch.ts";
import { BYTES_KIND, decode, isBytes, TEXT_KINDS, writeKey } from "../values/kinds.ts";
import { askMany, markMany, putMany } from "./batches.ts";
import type { Entry } from "./conditions.ts";
import { endOf, endToSet, type Expiry, KEPT, NEVER } from "./expiry.ts";
import { FrozenTable } from "./frozen.ts";
import { Records } from "./records.ts";
import { prefixIn, type PrefixOptions } from "./scan.ts";
import type { Segment } from "./segment.ts";
import { noteEnds, sweep } from "./sweeper.ts";
import {
  bytesOf,
  encodeValue,
  fits,
  isFinal,
  KIND_BYTES,
  shortened,
  TAIL_BYTES,
  takeValue,
  unreadable,
  versionBehind,
} from "./value_io.ts";

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
  /** Whether everything was looked at, and nothing was wrong in it; values are not checked. */
  ok: boolean;
  /** How many problems were found. */
  problems: number;
  /** How many entries there are, after a repair if it was one. */
  entries: number;
  /** How many entries this repair had to drop. */
  dropped: number;
  /**
   * How many of a map's parts (its stripes, and the space they share) could not be looked at,
   * because other processes had them until `timeout`: one that is stopped while it writes, say.
   */
  busy: number;
  /** The first problem: what it is, and in which stripe. */
  first: { what: string; stripe: number } | undefined;
}

/** A flag beside the kind: store only if the key is absent. */
export const ONLY_IF_ABSENT = 256;
const { absent: ABSENT, unchanged: UNCHANGED } = statuses;
/** The version of no entry. */
const NO_VERSION = 0;
/** What follows the value of an entry. */
const ENTRY_TAIL_BYTES = records.EntryTail.bytes;
const ENTRY_VERSION = offsetOf("EntryTail", "version");
const ENTRY_EXPIRES = offsetOf("EntryTail", "expires");
const BYTES_MASK = 1 << BYTES_KIND;
/** The kinds that `getInto` copies. */
const INTO_MASK = TEXT_KINDS.reduce((mask, kind) => mask | 1 << kind, BYTES_MASK);
/** How often `update` tries again at once before it pauses between its attempts. */
const EAGER_ATTEMPTS = 4;
const LONGEST_PAUSE_MS = 5;

/** The entries of one open segment. */
export class Entries<V> {
  readonly segment: Segment;
  readonly #frozen: FrozenTable | undefined;
  /** After how many milliseconds what is stored without an end ends. */
  readonly ttl: number;

  /**
   * With `isFrozen`, `get` gives one frozen object for as long as an entry stays the same. `ttl`:
   * after how many milliseconds the entries end that are stored without an end; `Infinity`: never.
   */
  constructor(segment: Segment, isFrozen: boolean, ttl: number) {
    this.segment = segment;
    this.#frozen = isFrozen ? new FrozenTable(segment.codec !== undefined) : undefined;
    this.ttl = ttl;
    if (segment.writeHandle !== 0) sweep(segment); // others may have left entries that end
  }

  /** The value of `key`, or undefined. */
  get(key: string): V | undefined {
    const keyLength = writeKey(key, KEY.bytes, 0);
    if (this.#frozen !== undefined) return this.#getFrozen(key, keyLength, this.#frozen);
    const { segment } = this;
    const { native, handle } = segment;
    const length = native.shm_map_get(handle, KEY.bytes, keyLength, DATA.bytes, DATA.bytes.length);
    if (!fits(segment, length, KIND_BYTES)) return this.#getLarge(key, keyLength);
    return length < 0 ? undefined : takeValue<V>(segment, length, key);
  }

  /** A copy of a value that does not fit into `DATA`. Bytes are copied only once. */
  #getLarge(key: string, keyLength: number): V | undefined {
    const { segment } = this;
    let bytes = new Uint8Array(0);
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const [kind, length] = this.#readInto(keyLength, BYTES_MASK, bytes) ?? [0, 0];
      if (kind !== BYTES_KIND) break;
      if (length === bytes.length) return bytes as V;
      bytes = new Uint8Array(length);
    }
    const length = this.#read(keyLength);
    return length < 0 ? undefined : takeValue<V>(segment, length, key);
  }

  #getFrozen(key: string, keyLength: number, table: FrozenTable): V | undefined {
    const { segment } = this;
    const { native, handle } = segment;
    const hash = table.hashOf(KEY.bytes, keyLength);
    const kept = table.find(hash, key);
    let known = kept === undefined ? NO_VERSION : kept.version;
    for (;;) {
      const { bytes } = DATA;
      const length = native.shm_map_get_unless(
        handle,
        KEY.bytes,
        keyLength,
        known,
        bytes,
        bytes.length,
      );
      if (length === UNCHANGED) return kept!.value as V;
      known = NO_VERSION;
      if (!isFinal(segment, length, TAIL_BYTES)) continue;
      const version = length < 0 ? NO_VERSION : versionBehind(length);
      const value = length < 0 ? undefined : takeValue<V>(segment, length, key);
      if (kept !== undefined || typeof value === "object") table.keep(hash, key, version, value);
      return value;
    }
  }

  /** Copies bytes, or the UTF-8 of a string, into `target` if they fit. Their length. */
  getInto(key: string, target: Uint8Array): number | undefined {
    if (!isBytes(target)) throw wrongType("target", "a Uint8Array", target);
    const keyLength = writeKey(key, KEY.bytes, 0);
    const [kind, length] = this.#readInto(keyLength, INTO_MASK, target) ?? [0, undefined];
    if (length === undefined || (INTO_MASK & 1 << kind) !== 0) return length;
    throw new TypeError(
      `Cannot read "${shortened(key)}" in ${this.segment.label} into bytes: ` +
        "it is neither bytes nor a string without lone surrogates",
    );
  }

  /** Copies the value of the key in `KEY` if it fits and is of these kinds: its kind and length. */
  #readInto(
    keyLength: number,
    kinds: number,
    target: Uint8Array,
  ): [kind: number, length: number] | undefined {
    const { segment } = this;
    const { native, handle } = segment;
    const room = lengthOf.call(target);
    const found = native.shm_map_get_into(
      handle,
      KEY.bytes,
      keyLength,
      kinds,
      room === 0 ? null : target,
      room,
    );
    if (found >= 0) return [Math.floor(found / 2 ** 32), found % 2 ** 32];
    if (found === ABSENT) return undefined;
    throw segment.failure(found, "read");
  }

  /** Stores `value` under `key` if the flags allow: 1, or 0 if they do not. */
  put(key: string, value: V, putFlags: number, expiry: Expiry | undefined): number {
    const { segment } = this;
    if (segment.writeHandle === 0) segment.assertWritable("write");
    if (expiry !== undefined || this.ttl !== Infinity) {
      return this.#putUntil(key, value, putFlags, endOf(expiry, this.ttl));
    }
    let result: number;
    try {
      const kind = encodeValue(segment, value, "write");
      const bytes = bytesOf(value, kind);
      // The key is written last: a codec that itself uses a map overwrites `KEY`.
      const keyLength = writeKey(key, KEY.bytes, 0);
      const { native, writeHandle } = segment;
      result = native.shm_map_put(
        writeHandle,
        KEY.bytes,
        keyLength,
        bytes,
        OUT.end,
        kind | putFlags,
      );
    } finally {
      OUT.release(); // also after a key that is refused, or a codec that throws
    }
    if (result < 0) throw segment.failure(result, "write");
    return result;
  }

  /** As `put`, with an end as it crosses. */
  #putUntil(key: string, value: V, putFlags: number, end: number): number {
    const { segment } = this;
    let result: number;
    try {
      const kind = encodeValue(segment, value, "write");
      const bytes = bytesOf(value, kind);
      const keyLength = writeKey(key, KEY.bytes, 0);
      const { native, writeHandle } = segment;
      result = native.shm_map_put_until(
        writeHandle,
        KEY.bytes,
        keyLength,
        bytes,
        OUT.end,
        kind | putFlags,
        end,
      );
    } finally {
      OUT.release();
    }
    if (result < 0) throw segment.failure(result, "write");
    if (end !== NEVER) noteEnds(segment);
    return result;
  }

  /** Gives the entry of `key` another end; false: there is none. */
  touch(key: string, expiry: Expiry): boolean {
    const { segment } = this;
    if (segment.writeHandle === 0) segment.assertWritable("write");
    segment.locker.assertFree("write");
    const end = endToSet(expiry);
    const keyLength = writeKey(key, KEY.bytes, 0);
    const result = segment.native.shm_map_touch(segment.writeHandle, KEY.bytes, keyLength, end);
    if (result < 0) throw segment.failure(result, "write");
    if (end !== NEVER) noteEnds(segment);
    return result === 1;
  }

  /** Removes all entries that have ended; says how many these were. */
  prune(): number {
    const { segment } = this;
    segment.assertWritable("prune");
    segment.locker.assertFree("prune");
    const removed = segment.native.shm_map_prune(segment.writeHandle);
    if (removed < 0) throw segment.failure(removed, "prune");
    return removed;
  }

  /** The value of `key`; if there is none, what `compute` returns is stored. */
  getOrInsertComputed(
    key: string,
    compute: (key: string) => V,
    expiry: Expiry | undefined,
  ): V {
    const { segment } = this;
    segment.assertWritable("write");
    checkFunction("compute", compute);
    endOf(expiry, this.ttl); // throws also where there is a value
    let computed: { value: V } | undefined;
    for (;;) {
      const length = this.#read(writeKey(key, KEY.bytes, 0));
      if (length >= 0) return takeValue<V>(segment, length, key);
      computed ??= { value: compute(key) };
      if (this.put(key, computed.value, ONLY_IF_ABSENT, expiry) === 1) return computed.value;
    }
  }

  /** Stores what `fn` makes of the value of `key`, and tries again if the key changed meanwhile. */
  update(
    key: string,
    fn: (current: V | undefined) => V,
    expiry: Expiry | undefined,
  ): V {
    const { segment } = this;
    segment.assertWritable("write");
    checkFunction("fn", fn);
    endOf(expiry, this.ttl); // throws before `fn` is called
    segment.locker.assertFree("write");
    for (let attempt = 1;; attempt += 1) {
      const length = this.#readWithVersion(writeKey(key, KEY.bytes, 0));
      const version = length < 0 ? 0 : versionBehind(length);
      const next = fn(length < 0 ? undefined : takeValue<V>(segment, length, key));
      const keeps = expiry === undefined && version !== NO_VERSION;
      const end = keeps ? KEPT : endOf(expiry, this.ttl);
      if (this.#putVersion(key, next, version, end)) return next;
      if (attempt >= EAGER_ATTEMPTS) pause(attempt - EAGER_ATTEMPTS);
    }
  }

  has(key: string): boolean {
    const { segment } = this;
    const keyLength = writeKey(key, KEY.bytes, 0);
    const result = segment.native.shm_map_has(segment.handle, KEY.bytes, keyLength);
    if (result < 0) throw segment.failure(result, "read");
    return result === 1;
  }

  /** Value, version and end of `key`, of one moment. The value is a copy, also if frozen. */
  getEntry(key: string): Entry<V> {
    const { segment } = this;
    const { native, handle } = segment;
    const keyLength = writeKey(key, KEY.bytes, 0);
    let length: number;
    do {
      const { bytes } = DATA;
      length = native.shm_map_get_entry(handle, KEY.bytes, keyLength, bytes, bytes.length);
    } while (!isFinal(segment, length, ENTRY_TAIL_BYTES));
    if (length < 0) return { key, value: undefined, version: NO_VERSION, expires: undefined };
    const version = DATA.view.getFloat64(length + ENTRY_VERSION, true);
    const end = DATA.view.getFloat64(length + ENTRY_EXPIRES, true);
    const value = takeValue<V>(segment, length, key);
    return { key, value, version, expires: end === NEVER ? undefined : end };
  }

  clear(options: PrefixOptions | undefined): void {
    const { segment } = this;
    segment.assertWritable("clear");
    segment.locker.assertFree("clear");
    const prefix = prefixIn(options);
    const { native, writeHandle } = segment;
    const result = prefix === undefined
      ? native.shm_map_clear(writeHandle)
      : native.shm_map_clear_prefix(writeHandle, prefix, prefix.length);
    if (result < 0) throw segment.failure(result, "clear");
  }

  compact(): number {
    const { segment } = this;
    segment.assertWritable("compact");
    const bytes = segment.native.shm_map_compact(segment.writeHandle);
    if (bytes < 0) throw segment.failure(bytes, "compact");
    return bytes;
  }

  get size(): number {
    const { segment } = this;
    const size = segment.native.shm_map_size(segment.handle);
    if (size < 0) throw segment.failure(size, "read");
    return size;
  }

  getMany(keys: Iterable<string>): (V | undefined)[] {
    const { segment } = this;
    const list = listOf(keys);
    const values: (V | undefined)[] = new Array(list.length);
    askMany(segment, list, {
      missing: (index) => values[index] = undefined,
      text: (index, text) => values[index] = text as V,
      value: (index, memory, at, length, kind) => {
        try {
          values[index] = decode(memory, at, length, kind, segment.codec) as V;
        } catch (error) {
          throw unreadable(segment, error, list[index]);
        }
      },
      leftOut: (index) => {
        const key = list[index];
        values[index] = this.#getLarge(key, writeKey(key, KEY.bytes, 0));
      },
    });
    return values;
  }

  setMany(entries: Iterable<readonly [string, V, Expiry?]>): void {
    this.segment.assertWritable("write");
    checkIterable("entries", entries);
    putMany(this.segment, entries, this.ttl);
  }

  hasMany(keys: Iterable<string>): boolean[] {
    this.segment.assertOpen("read");
    return markMany(this.segment, listOf(keys), "shm_map_has_many", "read");
  }

  deleteMany(keys: Iterable<string>): boolean[] {
    this.segment.assertWritable("write");
    this.segment.locker.assertFree("write");
    return markMany(this.segment, listOf(keys), "shm_map_delete_many", "write");
  }

  toObject(): Record<string, V> {
    const { segment } = this;
    const gathered = new Records();
    gathered.take(segment, segment.native.shm_map_snapshot(segment.handle));
    const object: Record<string, V> = {};
    while (gathered.next()) {
      const { key } = gathered;
      const value = this.#valueOf(gathered, key);
      if (key !== "__proto__") object[key] = value;
      else defineOwn(object, key, value);
    }
    return object;
  }

  keys(options: PrefixOptions | undefined): Generator<string, undefined> {
    this.segment.assertOpen("iterate over");
    return this.#walk(prefixIn(options), flags.keysOnly, (key) => key);
  }

  /** Iterates over the entries; `pick` makes the results. */
  iterate<T>(
    options: PrefixOptions | undefined,
    pick: (key: string, value: V) => T,
  ): Generator<T, undefined> {
    this.segment.assertOpen("iterate over");
    return this.#walk(prefixIn(options), 0, pick);
  }

  /** Iterates stripe by stripe. With `keysOnly` in `gatherFlags` there are no values to pick. */
  *#walk<T>(
    prefix: Uint8Array | undefined,
    gatherFlags: number,
    pick: (key: string, value: V) => T,
  ): Generator<T, undefined> {
    const { segment } = this;
    const gathered = new Records();
    const start = prefix ?? null;
    const length = prefix?.length ?? 0;
    for (let stripe = 0; stripe < segment.stripes; stripe += 1) {
      const { native, handle } = segment;
      const found = native.shm_map_gather(handle, stripe, start, length, gatherFlags);
      gathered.take(segment, found);
      while (gathered.next()) {
        const { key } = gathered;
        segment.assertOpen("iterate over");
        if (gatherFlags === flags.keysOnly) {
          yield pick(key, undefined as V);
        } else if (!gathered.isLeftOut) {
          yield pick(key, this.#valueOf(gathered, key));
        } else {
          const length = this.#read(writeKey(key, KEY.bytes, 0));
          if (length >= 0) yield pick(key, takeValue<V>(segment, length, key));
        }
      }
    }
  }

  /** Checks every invariant. */
  verify(): VerifyReport {
    this.segment.assertOpen("verify");
    return this.#check("verify", 0);
  }

  /** Checks every invariant and repairs what is wrong. */
  repair(): VerifyReport {
    const { segment } = this;
    segment.assertWritable("repair");
    segment.locker.assertFree("repair");
    return this.#check("repair", 1);
  }

  #check(action: string, repair: number): VerifyReport {
    const { segment } = this;
    const { native, handle } = segment;
    const length = native.shm_map_verify(handle, repair, DATA.bytes, DATA.bytes.length);
    if (length < 0) throw segment.failure(length, action);
    const verdict = readRecord("Verdict", DATA.view);
    const { problems, entries, dropped, reason, stripe, busy } = verdict;
    const first = problems > 0 ? { what: damageText(reason), stripe } : undefined;
    return { ok: problems === 0 && busy === 0, problems, entries, dropped, busy, first };
  }

  /** Stores `value` if the key still has `version`; says whether it did. */
  #putVersion(key: string, value: V, version: number, end: number): boolean {
    const { segment } = this;
    let result: number;
    try {
      const kind = encodeValue(segment, value, "write");
      const bytes = bytesOf(value, kind);
      const keyLength = writeKey(key, KEY.bytes, 0);
      const { native, writeHandle } = segment;
      result = native.shm_map_put_version(
        writeHandle,
        KEY.bytes,
        keyLength,
        bytes,
        OUT.end,
        kind,
        version,
        end,
      );
    } finally {
      OUT.release();
    }
    if (result < 0) throw segment.failure(result, "write");
    if (end > NEVER) noteEnds(segment);
    return result === 1;
  }

  /** Reads the value of the key in `KEY` into `DATA`, then its kind. Its length, or `absent`. */
  #read(keyLength: number): number {
    const { segment } = this;
    const { native, handle } = segment;
    let length: number;
    do {
      length = native.shm_map_get(handle, KEY.bytes, keyLength, DATA.bytes, DATA.bytes.length);
    } while (!isFinal(segment, length, KIND_BYTES));
    return length;
  }

  /** As `#read`; the version follows the kind. */
  #readWithVersion(keyLength: number): number {
    const { segment } = this;
    const { native, handle } = segment;
    const keyBytes = KEY.bytes;
    let length: number;
    do {
      const { bytes } = DATA;
      length = native.shm_map_get_version(handle, keyBytes, keyLength, bytes, bytes.length);
    } while (!isFinal(segment, length, TAIL_BYTES));
    return length;
  }

  /** The value of the record `gathered` is at. */
  #valueOf(gathered: Records, key: string): V {
    try {
      return gathered.value(this.segment.codec) as V;
    } catch (error) {
      throw unreadable(this.segment, error, key);
    }
  }
}

/** Keys by their places. */
function listOf(keys: Iterable<string>): readonly string[] {
  checkIterable("keys", keys);
  return Array.isArray(keys) ? keys : [...keys];
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

/** Pauses for a random time, longer after more failures, so that competing updates get apart. */
function pause(failures: number): void {
  const most = Math.min(2 ** failures / 16, LONGEST_PAUSE_MS);
  Atomics.wait(sleeper, 0, 0, Math.random() * most);
}
