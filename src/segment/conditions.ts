/**
 * What reads an entry and changes it in one step: one crossing and one commit each, so that of any
 * number of callers one is the first.
 */
import { checkInteger, checkOptions } from "../arguments.ts";
import { statuses } from "../ffi/abi.ts";
import { DATA, KEY, OUT } from "../ffi/scratch.ts";
import { writeKey } from "../values/kinds.ts";
import type { Segment } from "./segment.ts";
import { endOf, type Expiry, type ExpiryOptions, NEVER } from "./expiry.ts";
import { noteEnds } from "./sweeper.ts";
import { bytesOf, encodeValue, isFinal, KIND_BYTES, takeValue } from "./value_io.ts";

/**
 * What is known of a key at one moment.
 *
 * @typeParam V The type of the value.
 *
 * @example
 * ```ts
 * import { type Entry, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.anonymous<number>().set("a", 1);
 * const { value, version }: Entry<number> = map.getEntry("a");
 * assert.equal(map.replace("a", value! + 1, { ifVersion: version }), true);
 * assert.equal(map.getEntry("b").version, 0);
 * ```
 */
export interface Entry<V> {
  /** The key. */
  readonly key: string;
  /** The value; undefined if the key is absent. */
  readonly value: V | undefined;
  /**
   * Another one after each change of the value, and larger: no version of a key comes twice. 0 if
   * the key is absent. Versions of different keys do not compare.
   */
  readonly version: number;
  /** When it ends, in milliseconds since 1970; undefined: never. */
  readonly expires: number | undefined;
}

/**
 * Which version an entry must have for a change to take place.
 *
 * @example
 * ```ts
 * import { SharedMap, type VersionOptions } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.anonymous<number>().set("a", 1);
 * const seen: VersionOptions = { ifVersion: map.getEntry("a").version };
 * map.set("a", 2);
 * assert.equal(map.delete("a", seen), false);
 * ```
 */
export interface VersionOptions {
  /** The version of an `Entry`. 0, the version of an absent key, is that of no entry. */
  ifVersion?: number | undefined;
}

/**
 * When a value ends that replaces another, and which version that must have.
 *
 * @example
 * ```ts
 * import { type ReplaceOptions, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.anonymous<number>().set("a", 1);
 * const options: ReplaceOptions = { ttl: 60_000, ifVersion: map.getEntry("a").version };
 * assert.equal(map.replace("a", 2, options), true);
 * ```
 */
export interface ReplaceOptions extends ExpiryOptions, VersionOptions {}

/** The entries of an open segment, and after how many milliseconds they end by default. */
export interface Target {
  readonly segment: Segment;
  readonly ttl: number;
}

/** What the library takes for any version. */
const ANY_VERSION = -1;
const { absent: ABSENT } = statuses;

/** The version that was asked for, or `ANY_VERSION`. */
function versionIn({ ifVersion }: VersionOptions): number {
  return checkInteger("ifVersion", ifVersion, 0) ?? ANY_VERSION;
}

/** Removes `key` and gives its value; undefined if there is none. */
export function take<V>(segment: Segment, key: string): V | undefined {
  if (segment.writeHandle === 0) segment.assertWritable("write");
  segment.locker.assertFree("write");
  const keyLength = writeKey(key, KEY.bytes, 0);
  const { native, writeHandle } = segment;
  let length: number;
  do { // a value that does not fit stays where it is
    const { bytes } = DATA;
    length = native.shm_map_take(writeHandle, KEY.bytes, keyLength, bytes, bytes.length);
  } while (!isWritten(segment, length));
  return length < 0 ? undefined : takeValue<V>(segment, length, key);
}

/** Whether a call that changes an entry has done so; if not, there is room for the next try. */
function isWritten(segment: Segment, length: number): boolean {
  if (length >= 0 || length === ABSENT) return isFinal(segment, length, KIND_BYTES);
  DATA.release();
  throw segment.failure(length, "write");
}

/** Stores `value` under `key` and gives the value that was there; undefined if there was none. */
export function swap<V>(
  { segment, ttl }: Target,
  key: string,
  value: V,
  expiry: Expiry | undefined,
): V | undefined {
  if (segment.writeHandle === 0) segment.assertWritable("write");
  const end = endOf(expiry, ttl);
  let length: number;
  try {
    const kind = encodeValue(segment, value, "write");
    const valueBytes = bytesOf(value, kind);
    const keyLength = writeKey(key, KEY.bytes, 0);
    const { native, writeHandle } = segment;
    do {
      const { bytes } = DATA;
      length = native.shm_map_swap(
        writeHandle,
        KEY.bytes,
        keyLength,
        valueBytes,
        OUT.end,
        kind,
        end,
        bytes,
        bytes.length,
      );
    } while (!isWritten(segment, length));
  } finally {
    OUT.release();
  }
  if (end !== NEVER) noteEnds(segment);
  return length < 0 ? undefined : takeValue<V>(segment, length, key);
}

/** Stores `value` if `key` is there, and has the version asked for. Whether it did. */
export function replace<V>(
  { segment, ttl }: Target,
  key: string,
  value: V,
  options: number | ReplaceOptions | undefined,
): boolean {
  if (segment.writeHandle === 0) segment.assertWritable("write");
  let version = ANY_VERSION;
  let expiry: Expiry | undefined;
  if (typeof options === "number") expiry = options;
  else if (options !== undefined) {
    const stated = checkOptions(options, ["ttl", "expires", "ifVersion"]);
    version = versionIn(stated);
    expiry = { ttl: stated.ttl, expires: stated.expires };
  }
  const end = endOf(expiry, ttl);
  let result: number;
  try {
    const kind = encodeValue(segment, value, "write");
    const bytes = bytesOf(value, kind);
    const keyLength = writeKey(key, KEY.bytes, 0);
    const { native, writeHandle } = segment;
    result = native.shm_map_replace(
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
  if (end !== NEVER) noteEnds(segment);
  return result === 1;
}

/**
 * Removes `key` if it is there, and has the version asked for. Whether it did. Options that are no
 * object are what iterations of arrays and sets pass behind the key.
 */
export function remove(segment: Segment, key: string, options: unknown): boolean {
  if (segment.writeHandle === 0) segment.assertWritable("write");
  segment.locker.assertFree("write");
  const isAsked = typeof options === "object" && options !== null;
  const version = isAsked
    ? versionIn(checkOptions(options as VersionOptions, ["ifVersion"]))
    : ANY_VERSION;
  const keyLength = writeKey(key, KEY.bytes, 0);
  const { native, writeHandle } = segment;
  const result = version === ANY_VERSION
    ? native.shm_map_delete(writeHandle, KEY.bytes, keyLength)
    : native.shm_map_delete_version(writeHandle, KEY.bytes, keyLength, version);
  if (result < 0) throw segment.failure(result, "write");
  return result === 1;
}
