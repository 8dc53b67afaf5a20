/**
 * `SharedMap`: a map that processes share by its name, with the methods of `Map` and a few more.
 *
 * @module
 */
import { Entries, ONLY_IF_ABSENT, type VerifyReport } from "./segment/entries.ts";
import {
  type AnonymousOptions,
  anonymousSegment,
  type AttachOptions,
  attachSegment,
  checkFunction,
  type Codec,
  flags,
  listSegments,
  MAP,
  type MapStats,
  type OpenOptions,
  openSegment,
  type Segment,
  type SegmentInfo,
  unlinkSegment,
} from "./segment/segment.ts";
import { SharedObject } from "./segment/shared_object.ts";
import { DEFAULT_CODEC_ID } from "./values/kinds.ts";

export type {
  AnonymousOptions,
  AttachOptions,
  Codec,
  MapStats,
  OpenOptions,
  SegmentInfo,
  SharedObject,
  VerifyReport,
};

/**
 * A map that processes share: by its name, or without one by its token. Keys are strings; values
 * are whatever can be stored, and what is read is a copy of the caller's own. All calls are
 * synchronous and safe to use from any number of processes, any of which may be killed at any
 * moment.
 *
 * Several calls throw `SharedMemoryError` with these codes: `"Closed"` after `close`, `"Replaced"`
 * after an exclusive open elsewhere, `"Corrupt"` for bytes that make no sense. Calls that write
 * also throw `"ReadOnly"`, `"NoSpace"`, `"TooLarge"`, and, while somebody else has the lock,
 * `"Timeout"` or `"Locked"`.
 *
 * @typeParam V The type of the values. It is not checked: other processes may store anything.
 *
 * @example Share a map
 * ```ts
 * import { SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 *
 * using map = SharedMap.anonymous<number>();
 * using other = SharedMap.attach<number>(map.token); // in any process
 * map.set("answer", 42);
 * assert.equal(other.get("answer"), 42);
 * ```
 */
export class SharedMap<V = unknown> extends SharedObject {
  readonly #entries: Entries<V>;

  private constructor(segment: Segment) {
    super(segment);
    this.#entries = new Entries(segment);
  }

  /**
   * Opens the map `name`, and creates it if there is none.
   *
   * @param name 1 to 200 of `A-Z a-z 0-9 . _ -`, not starting with a dot.
   * @param options How to open it.
   * @returns The map, to be closed after use.
   * @throws {TypeError | RangeError} For a name or an option that cannot be.
   * @throws {SharedMemoryError} When it cannot be opened as the options ask; the code says why.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.open<number>("shmap-example-open", { mode: "exclusive" });
   * assert.equal(map.set("a", 1).size, 1);
   * map.unlink();
   * ```
   */
  static open<V = unknown>(name: string, options: OpenOptions = {}): SharedMap<V> {
    return new SharedMap(openSegment(MAP, name, options, DEFAULT_CODEC_ID));
  }

  /**
   * Makes a map without a name, which lives as long as any process has it open.
   *
   * @param options How to make it.
   * @returns The map; its `token` leads other processes to it.
   * @throws {TypeError | RangeError} For an option that cannot be.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous({ maxBytes: 1 << 20 });
   * assert.equal(map.name, undefined);
   * ```
   */
  static anonymous<V = unknown>(options: AnonymousOptions = {}): SharedMap<V> {
    return new SharedMap(anonymousSegment(MAP, options, DEFAULT_CODEC_ID));
  }

  /**
   * Attaches to a map by its token.
   *
   * @param token The `token` of an open map of this or another process.
   * @param options How to attach.
   * @returns The map, to be closed after use.
   * @throws {TypeError} When `token` is none.
   * @throws {SharedMemoryError} `"NotFound"` when it leads nowhere any more.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1);
   * using reader = SharedMap.attach(map.token, { readonly: true });
   * assert.equal(reader.get("a"), 1);
   * ```
   */
  static attach<V = unknown>(token: string, options: AttachOptions = {}): SharedMap<V> {
    return new SharedMap(attachSegment(MAP, token, options, DEFAULT_CODEC_ID));
  }

  /**
   * Removes the name of a map. Whoever has it open goes on with it; its memory goes with the last.
   *
   * @param name The name of the map.
   * @param options Where it lies.
   * @returns Whether there was one.
   * @throws {SharedMemoryError} `"Incompatible"` when it is no map: then it stays.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * SharedMap.open("shmap-example-unlink").close();
   * assert.equal(SharedMap.unlink("shmap-example-unlink"), true);
   * assert.equal(SharedMap.unlink("shmap-example-unlink"), false);
   * ```
   */
  static unlink(name: string, options: { directory?: string } = {}): boolean {
    return unlinkSegment(MAP, name, options);
  }

  /**
   * Lists the segments in a directory, other kinds than maps too.
   *
   * @param options Where to look.
   * @returns What each of them says of itself.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.open("shmap-example-list");
   * assert.ok(SharedMap.list().some(({ name, inUse }) => name === map.name && inUse));
   * map.unlink();
   * ```
   */
  static list(options: { directory?: string } = {}): SegmentInfo[] {
    return listSegments(options);
  }

  /** How many entries there are. */
  get size(): number {
    return this.#entries.size;
  }

  /**
   * The value of `key`, as a copy of the caller's own.
   *
   * @param key The key.
   * @returns The value, or undefined if there is none.
   * @throws {TypeError | RangeError} For what cannot be a key.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", { list: [1] });
   * assert.deepEqual(map.get("a"), { list: [1] });
   * assert.equal(map.get("b"), undefined);
   * ```
   */
  get(key: string): V | undefined {
    return this.#entries.get(key);
  }

  /**
   * Stores `value` under `key`, in place of what was there.
   *
   * @param key A non-empty string of up to 65,535 bytes in UTF-8, without lone surrogates.
   * @param value A string, number, bigint, boolean, null, Uint8Array, or what the codec can keep.
   * @returns This map.
   * @throws {TypeError | RangeError} For what cannot be a key or a value. Nothing is stored.
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
  set(key: string, value: V): this {
    this.#entries.put(key, value, 0);
    return this;
  }

  /**
   * Stores `value` only if there is nothing under `key`.
   *
   * @param key The key.
   * @param value The value.
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
  add(key: string, value: V): boolean {
    return this.#entries.put(key, value, ONLY_IF_ABSENT) === 1;
  }

  /**
   * The value of `key`; stores `value` first if there is none.
   *
   * @param key The key.
   * @param value What to store if there is nothing.
   * @returns What was there, or `value`.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous();
   * assert.deepEqual([map.getOrInsert("a", 1), map.getOrInsert("a", 2)], [1, 1]);
   * ```
   */
  getOrInsert(key: string, value: V): V {
    return this.getOrInsertComputed(key, () => value);
  }

  /**
   * The value of `key`; computes and stores one if there is none. No lock is held meanwhile: when
   * another process stores one first, that stays and is returned.
   *
   * @param key The key.
   * @param compute Called with the key, at most once, if there is nothing.
   * @returns What was there, or what was stored.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number>();
   * assert.equal(map.getOrInsertComputed("four", (key) => key.length), 4);
   * ```
   */
  getOrInsertComputed(key: string, compute: (key: string) => V): V {
    return this.#entries.getOrInsertComputed(key, compute);
  }

  /**
   * Replaces the value of `key` by what `fn` makes of it, unless the key changed meanwhile: then
   * `fn` runs again with the new value. No lock is held while it runs.
   *
   * @param key The key.
   * @param fn Gets the value or undefined, returns the next. If it throws, nothing changes.
   * @returns What was stored.
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
  update(key: string, fn: (current: V | undefined) => V): V {
    return this.#entries.update(key, fn);
  }

  /**
   * Whether there is a value under `key`.
   *
   * @param key The key.
   * @returns Whether there is one.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", null);
   * assert.deepEqual([map.has("a"), map.has("b")], [true, false]);
   * ```
   */
  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /**
   * Removes `key` and its value.
   *
   * @param key The key.
   * @returns Whether it was there.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1);
   * assert.deepEqual([map.delete("a"), map.delete("a")], [true, false]);
   * ```
   */
  delete(key: string): boolean {
    return this.#entries.delete(key);
  }

  /**
   * Removes all entries, part by part: others may see it half done, and may add some meanwhile.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1);
   * map.clear();
   * assert.equal(map.size, 0);
   * ```
   */
  clear(): void {
    this.#entries.clear();
  }

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
  getMany(keys: Iterable<string>): (V | undefined)[] {
    return this.#entries.getMany(keys);
  }

  /**
   * Stores many entries, after all of them were checked and encoded. Each is stored by itself:
   * others may see some of them before the rest, and an error may leave some of them stored.
   *
   * @param entries Keys and values.
   * @throws {SharedMemoryError} `stored` says how many entries were stored before the error.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number>();
   * map.setMany([["a", 1], ["b", 2]]);
   * assert.equal(map.size, 2);
   * ```
   */
  setMany(entries: Iterable<readonly [string, V]>): void {
    this.#entries.setMany(entries);
  }

  /**
   * Iterates over the keys. As all iteration here it takes one part of the map after the other: a
   * key that stays all the time is seen once, and none twice.
   *
   * @returns An iterator.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1).set("b", 2);
   * assert.deepEqual([...map.keys()].sort(), ["a", "b"]);
   * ```
   */
  keys(): IterableIterator<string> {
    return this.#entries.iterate(flags.keysOnly, (key) => key);
  }

  /**
   * Iterates over the values.
   *
   * @returns An iterator.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number>().set("a", 1).set("b", 2);
   * assert.equal([...map.values()].reduce((sum, value) => sum + value), 3);
   * ```
   */
  values(): IterableIterator<V> {
    return this.#entries.iterate(0, (_key, value) => value);
  }

  /**
   * Iterates over keys and values, in no order. Values of more than 64 KiB are read when their turn
   * comes.
   *
   * @returns An iterator.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1);
   * assert.deepEqual([...map.entries()], [["a", 1]]);
   * ```
   */
  entries(): IterableIterator<[string, V]> {
    return this.#entries.iterate(0, (key, value): [string, V] => [key, value]);
  }

  /**
   * As `entries`, for `for … of`, spread and `new Map(map)`.
   *
   * @returns An iterator.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1);
   * for (const [key, value] of map) assert.deepEqual([key, value], ["a", 1]);
   * ```
   */
  [Symbol.iterator](): IterableIterator<[string, V]> {
    return this.entries();
  }

  /**
   * Calls `fn` for each entry.
   *
   * @param fn Gets value, key and this map.
   * @param thisArg What is `this` in `fn`.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1);
   * map.forEach((value, key) => assert.deepEqual([key, value], ["a", 1]));
   * ```
   */
  forEach(fn: (value: V, key: string, map: this) => void, thisArg?: unknown): void {
    checkFunction("fn", fn);
    for (const [key, value] of this.entries()) fn.call(thisArg, value, key, this);
  }

  /**
   * The whole map as it was at one instant.
   *
   * @returns A plain object; every key is an own property of it, `"__proto__"` too.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1).set("b", 2);
   * assert.deepEqual(map.toObject(), { a: 1, b: 2 });
   * ```
   */
  toObject(): Record<string, V> {
    return this.#entries.toObject();
  }

  /**
   * Checks every part of the map, which writers of that part wait for.
   *
   * @returns What was found; nothing is changed.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1);
   * assert.equal(map.verify().ok, true);
   * ```
   */
  verify(): VerifyReport {
    return this.#entries.verify(0);
  }

  /**
   * Checks every part of the map and repairs what it can: damaged entries are dropped. The death of
   * a process needs no call of this, it is repaired at once.
   *
   * @returns What was found, and how much was lost.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1);
   * assert.equal(map.repair().dropped, 0);
   * ```
   */
  repair(): VerifyReport {
    return this.#entries.verify(1);
  }
}
