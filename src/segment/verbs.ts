/**
 * What can be done with single keys of a map.
 */
import type { Entry, ReplaceOptions, VersionOptions } from "./conditions.ts";
import type { Counted, CountOptions } from "./counters.ts";
import type { Expiry } from "./expiry.ts";

/**
 * What can be done with single keys of a map, and with many at once: the verbs of `SharedMap`.
 *
 * @typeParam V The type of the values.
 *
 * @example A function that takes any map
 * ```ts
 * import { type MapVerbs, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * function visit(map: MapVerbs<number>, page: string): number {
 *   return map.increment(`visits of ${page}`);
 * }
 * using map = SharedMap.anonymous<number>();
 * assert.equal(visit(map, "home"), 1);
 * ```
 */
export interface MapVerbs<V> {
  /**
   * The value of `key`, as a copy; undefined if there is none.
   *
   * @param key The key.
   * @returns The value or undefined.
   * @throws {TypeError | RangeError} For a key that is not valid.
   */
  get(key: string): V | undefined;

  /**
   * Value, version and end of `key`, of one moment. The value is a copy of its own, also from a
   * handle that was opened with `frozen`.
   *
   * @param key The key.
   * @returns An entry in any case: of a key that is absent it has version 0.
   *
   * @example Change what no other process has changed
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<string>().set("job", "waiting");
   * const { version } = map.getEntry("job");
   * assert.equal(map.replace("job", "running", { ifVersion: version }), true);
   * assert.equal(map.replace("job", "running", { ifVersion: version }), false);
   * ```
   */
  getEntry(key: string): Entry<V>;

  /** Whether there is a value under `key`. */
  has(key: string): boolean;

  /**
   * The values of many keys, in one crossing.
   *
   * @param keys The keys.
   * @returns Their values, in the same order; undefined where there is none.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1).set("b", 2);
   * assert.deepEqual(map.getMany(["b", "c", "a"]), [2, undefined, 1]);
   * ```
   */
  getMany(keys: Iterable<string>): (V | undefined)[];

  /**
   * Stores `value` under `key`, in place of the old value.
   *
   * @param key A non-empty string of up to 65,535 bytes in UTF-8, without lone surrogates.
   * @param value A string, number, bigint, boolean, null, Uint8Array, or any that the codec keeps.
   * @param expiry When the entry ends: milliseconds from now, or `{ ttl }`, or `{ expires }`, a
   * time. Default: after the `ttl` of this handle, or never. It lasts no shorter, and up to 20 ms
   * longer.
   * @returns This map.
   * @throws {TypeError | RangeError} For a key or a value that cannot be stored.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<unknown>();
   * map.set("a", 1).set("b", new Map([["c", new Date(0)]]));
   * assert.deepEqual(map.get("b"), new Map([["c", new Date(0)]]));
   * ```
   */
  set(key: string, value: V, expiry?: Expiry): this;

  /**
   * Stores `value` only if `key` is absent.
   *
   * @param key The key.
   * @param value The value.
   * @param expiry When the entry ends, as in `set`.
   * @returns Whether this call stored it.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous();
   * assert.deepEqual([map.add("a", 1), map.add("a", 2), map.get("a")], [true, false, 1]);
   * ```
   */
  add(key: string, value: V, expiry?: Expiry): boolean;

  /**
   * Stores `value` only if `key` is there, and, with `ifVersion`, only if its entry still has that
   * version.
   *
   * @param key The key.
   * @param value The value.
   * @param options When it ends, as in `set`, and which version it must have.
   * @returns Whether this call stored it.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number>().set("a", 1);
   * assert.deepEqual([map.replace("a", 2), map.replace("b", 2)], [true, false]);
   * ```
   */
  replace(key: string, value: V, options?: number | ReplaceOptions): boolean;

  /**
   * Stores `value` and gives the value that it replaces, in one step.
   *
   * @param key The key.
   * @param value The value.
   * @param expiry When the entry ends, as in `set`.
   * @returns What was there; undefined if nothing was.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<string>();
   * assert.equal(map.swap("leader", "a"), undefined);
   * assert.equal(map.swap("leader", "b"), "a");
   * ```
   */
  swap(key: string, value: V, expiry?: Expiry): V | undefined;

  /**
   * Removes `key` and gives its value, in one step: of any number of callers at most one gets it,
   * and exactly one if none of them is killed.
   *
   * @param key The key.
   * @returns What was there; undefined if nothing was.
   *
   * @example A token that is good once
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using tokens = SharedMap.anonymous<string>().set("token", "ann");
   * assert.equal(tokens.take("token"), "ann");
   * assert.equal(tokens.take("token"), undefined);
   * ```
   */
  take(key: string): V | undefined;

  /**
   * Removes `key` and its value, with `ifVersion` only if its entry still has that version. A
   * number, or anything else but an object, behind the key is ignored, so that
   * `keys.forEach(map.delete, map)` works.
   *
   * @param key The key.
   * @param options Which version it must have.
   * @returns Whether this call removed it.
   */
  delete(key: string): boolean;
  /** As `delete(key)`, where its entry has the version that `options` name. */
  delete(key: string, options: VersionOptions | undefined): boolean;

  /**
   * Gives the entry of `key` another end; its value stays. Reading never does so.
   *
   * @param key The key.
   * @param expiry The new end, as in `set`: `Infinity` takes it away, one that has passed removes
   * the entry.
   * @returns Whether there was an entry.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using sessions = SharedMap.anonymous<string>({ ttl: 20 * 60_000 }).set("a1b2", "ada");
   * assert.equal(sessions.touch("a1b2", 20 * 60_000), true); // with each request
   * assert.equal(sessions.touch("gone", 20 * 60_000), false);
   * ```
   */
  touch(key: string, expiry: Expiry): boolean;

  /**
   * Replaces the value of `key` by the result of `fn`. If the key changes while `fn` runs, `fn`
   * runs again with the new value. No lock is held meanwhile.
   *
   * @param key The key.
   * @param fn Gets the value or undefined, and returns the next. If it throws, nothing changes.
   * @param expiry When the entry ends, as in `set`. Default: as it did before; of a new entry, as
   * in `set`.
   * @returns The value that was stored.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number>();
   * for (let i = 0; i < 3; i += 1) map.update("count", (count = 0) => count + 1);
   * assert.equal(map.get("count"), 3);
   * ```
   */
  update(key: string, fn: (current: V | undefined) => V, expiry?: Expiry): V;

  /** The value of `key`; stores `value` first if there is none, with an end as in `set`. */
  getOrInsert(key: string, value: V, expiry?: Expiry): V;

  /**
   * The value of `key`; computes and stores one if there is none. No lock is held meanwhile: if
   * another process stores a value first, that one stays and is returned.
   *
   * @param key The key.
   * @param compute Called with the key, at most once, if it is absent.
   * @param expiry When the entry ends that is stored, as in `set`.
   * @returns The value that was there, or the one that was stored.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number>();
   * assert.equal(map.getOrInsertComputed("four", (key) => key.length), 4);
   * ```
   */
  getOrInsertComputed(key: string, compute: (key: string) => V, expiry?: Expiry): V;

  /**
   * Adds to a number in one step, also while other processes add to it.
   *
   * @param key The key.
   * @param by A number to add to a number, or a bigint to add to a bigint.
   * @param options What it starts at and when it ends, if this call is the one that makes it.
   * @returns The sum.
   * @throws {TypeError} If the value is of another type than `by`; nothing has changed.
   * @throws {RangeError} If a sum of numbers is beyond ±(2^53 − 1); nothing has changed.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number | bigint>();
   * assert.equal(map.increment("hits"), 1);
   * assert.equal(map.increment("hits", 9), 10);
   * assert.equal(map.increment("bytes", 2n ** 64n), 18446744073709551616n);
   * ```
   */
  increment(key: string, by?: number, options?: CountOptions): number;
  /** As `increment` of a number, for a bigint of any size. */
  increment(key: string, by: bigint, options?: CountOptions<bigint>): bigint;

  /**
   * As `increment`; gives the whole entry, as this very step has left it.
   *
   * @param key The key.
   * @param by A number to add to a number, or a bigint to add to a bigint.
   * @param options What it starts at and when it ends, if this call is the one that makes it.
   * @returns The entry with the sum.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number>();
   * const { value, version } = map.incrementEntry("hits");
   * assert.deepEqual([value, version], [1, map.getEntry("hits").version]);
   * ```
   */
  incrementEntry(key: string, by?: number, options?: CountOptions): Counted<number>;
  /** As `incrementEntry` of a number, for a bigint of any size. */
  incrementEntry(key: string, by: bigint, options?: CountOptions<bigint>): Counted<bigint>;
}
