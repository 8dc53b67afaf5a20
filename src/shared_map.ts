/**
 * `SharedMap`: a map that processes share by its name, with the methods of `Map` and a few more.
 *
 * @module
 */
import { checkFunction } from "./arguments.ts";
import {
  type Entry,
  remove,
  replace,
  type ReplaceOptions,
  swap,
  take,
  type VersionOptions,
} from "./segment/conditions.ts";
import { type Counted, type CountOptions, increment, incrementEntry } from "./segment/counters.ts";
import { listSegments, type SegmentInfo, unlinkSegment } from "./segment/directory.ts";
import { Entries, ONLY_IF_ABSENT, type VerifyReport } from "./segment/entries.ts";
import { checkHandleTtl, type Expiry } from "./segment/expiry.ts";
import { frozenIn, MAP } from "./segment/options.ts";
import type { AnonymousOptions, AttachOptions, OpenOptions } from "./segment/options.ts";
import { anonymousSegment, attachSegment, openSegment, type Segment } from "./segment/segment.ts";
import { headOf, orReason, printBy, shownEntries } from "./segment/printing.ts";
import { type PrefixOptions, scan, type ScanOptions, type ScanPage } from "./segment/scan.ts";
import type { MapVerbs } from "./segment/verbs.ts";
import { SharedObject } from "./segment/shared_object.ts";

/**
 * A map that processes share: by its name, or without one by its token. Keys are strings; a value
 * that is read is a copy, which the caller may change. All calls are synchronous. Any number of
 * processes may use the map, and any of them may be killed at any moment.
 *
 * It can be passed wherever a `Map<string, V>` or a `ReadonlyMap<string, V>` is expected. Two
 * things differ: a value that was read is a copy, so changing it changes nothing here; and entries
 * have no order. An iteration takes one part of the map after the other, copied when its turn
 * comes, while others go on writing: a key that stays all the time is seen once, none is seen
 * twice, and one that is added or deleted meanwhile, by this program too, may be seen or not.
 *
 * Several calls throw `SharedMemoryError` with these codes: `"Closed"` after `close`, `"Replaced"`
 * after an exclusive open elsewhere, `"Corrupt"` for damaged bytes. Calls that write also throw
 * `"ReadOnly"`, `"NoSpace"`, `"TooLarge"`, and, while another handle has the lock, `"Timeout"` or
 * `"Locked"`.
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
export class SharedMap<V = unknown> extends SharedObject implements MapVerbs<V> {
  readonly #entries: Entries<V>;

  static {
    // As in `Map`, the two are one function.
    this.prototype[Symbol.iterator] = this.prototype.entries;
    printBy(this.prototype, (map, show) => {
      if (!(#entries in map)) return "SharedMap {}"; // the prototype itself
      return orReason("SharedMap", () => {
        const { name, size } = map;
        return `${headOf("SharedMap", size, name)} ${shownEntries(map.#oneByOne(), size, show)}`;
      });
    });
  }

  private constructor(segment: Segment, isFrozen: boolean, ttl: number) {
    super(segment);
    this.#entries = new Entries(segment, isFrozen, ttl);
  }

  /**
   * Opens the map `name`, and creates it if there is none.
   *
   * @param name 1 to 200 of `A-Z a-z 0-9 . _ -`, not starting with a dot.
   * @param options How to open it.
   * @returns The map, to be closed after use.
   * @throws {TypeError | RangeError} For a name or an option that is not valid.
   * @throws {SharedMemoryError} If it cannot be opened as the options ask; the code says why.
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
    const isFrozen = frozenIn(options);
    const ttl = checkHandleTtl(options?.ttl);
    return new SharedMap(openSegment(MAP, name, options), isFrozen, ttl);
  }

  /**
   * Makes a map without a name, which lives as long as any process has it open.
   *
   * @param options How to make it.
   * @returns The map; its `token` leads other processes to it.
   * @throws {TypeError | RangeError} For an option that is not valid.
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
    const isFrozen = frozenIn(options);
    const ttl = checkHandleTtl(options?.ttl);
    return new SharedMap(anonymousSegment(MAP, options), isFrozen, ttl);
  }

  /**
   * Attaches to a map by its token.
   *
   * @param token The `token` of an open map of this or another process.
   * @param options How to attach.
   * @returns The map, to be closed after use.
   * @throws {TypeError} If `token` is not a token.
   * @throws {SharedMemoryError} `"NotFound"` if the map it was for is gone.
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
    const isFrozen = frozenIn(options);
    const ttl = checkHandleTtl(options?.ttl);
    return new SharedMap(attachSegment(MAP, token, options), isFrozen, ttl);
  }

  /**
   * Removes the name of a map. Open handles stay usable; the memory is freed with the last of them.
   *
   * @param name The name of the map.
   * @param options Where it lies.
   * @returns Whether there was one.
   * @throws {SharedMemoryError} `"Incompatible"` if the name is of something else, which then
   *   stays.
   */
  static unlink(name: string, options: { directory?: string | undefined } = {}): boolean {
    return unlinkSegment(MAP, name, options);
  }

  /** Lists the segments in a directory, values and regions too. */
  static list(options: { directory?: string | undefined } = {}): SegmentInfo[] {
    return listSegments(options);
  }

  /**
   * How many entries are stored. Among them may be some that have ended: they are removed within
   * about a second by a process that has the map open for writing, and sooner by those that write.
   */
  get size(): number {
    return this.#entries.size;
  }

  /** The value of `key`, as a copy; undefined if there is none. */
  get(key: string): V | undefined {
    return this.#entries.get(key);
  }

  /**
   * Copies a byte array, or a string in UTF-8, into memory of the caller: the quickest way to read
   * one.
   *
   * @param key The key.
   * @param target Gets the bytes, from its start on, if they fit; else it stays as it is.
   * @returns How many bytes there are, also if they did not fit; undefined if there is no value.
   * @throws {TypeError} If the value is neither bytes nor a string of whole characters.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", Uint8Array.of(1, 2));
   * const target = new Uint8Array(4);
   * assert.equal(map.getInto("a", target), 2);
   * assert.deepEqual(target, Uint8Array.of(1, 2, 0, 0));
   * ```
   */
  getInto(key: string, target: Uint8Array): number | undefined {
    return this.#entries.getInto(key, target);
  }

  /** Stores `value` under `key`, in place of the old value. */
  set(key: string, value: V, expiry?: Expiry): this {
    this.#entries.put(key, value, 0, expiry);
    return this;
  }

  /** Stores `value` only if `key` is absent; says whether it did. */
  add(key: string, value: V, expiry?: Expiry): boolean {
    return this.#entries.put(key, value, ONLY_IF_ABSENT, expiry) === 1;
  }

  /** The value of `key`; stores `value` first if there is none. */
  getOrInsert(key: string, value: V, expiry?: Expiry): V {
    return this.getOrInsertComputed(key, () => value, expiry);
  }

  /** The value of `key`; computes and stores one if there is none. */
  getOrInsertComputed(key: string, compute: (key: string) => V, expiry?: Expiry): V {
    return this.#entries.getOrInsertComputed(key, compute, expiry);
  }

  /** Replaces the value of `key` by the result of `fn`. */
  update(key: string, fn: (current: V | undefined) => V, expiry?: Expiry): V {
    return this.#entries.update(key, fn, expiry);
  }

  /** Gives the entry of `key` another end; says whether there is one. */
  touch(key: string, expiry: Expiry): boolean {
    return this.#entries.touch(key, expiry);
  }

  /** Removes all entries that have ended, at once. Returns how many. No program needs to do so. */
  prune(): number {
    return this.#entries.prune();
  }

  /** Whether there is a value under `key`. */
  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /** Value, version and end of `key`, of one moment. */
  getEntry(key: string): Entry<V> {
    return this.#entries.getEntry(key);
  }

  /** Stores `value` only if `key` is there, or has a version; says whether it did. */
  replace(key: string, value: V, options?: number | ReplaceOptions): boolean {
    return replace(this.#entries, key, value, options);
  }

  /** Stores `value` and gives the value that it replaces, in one step. */
  swap(key: string, value: V, expiry?: Expiry): V | undefined {
    return swap(this.#entries, key, value, expiry);
  }

  /** Removes `key` and gives its value, in one step: at most one caller gets it. */
  take(key: string): V | undefined {
    return take(this.#entries.segment, key);
  }

  /** Removes `key`, with `ifVersion` if it has that version; says whether it did. */
  delete(key: string): boolean;
  delete(key: string, options: VersionOptions | undefined): boolean;
  delete(key: string, options?: VersionOptions): boolean {
    return remove(this.#entries.segment, key, options);
  }

  /** Adds to a number in one step; gives the sum. */
  increment(key: string, by?: number, options?: CountOptions): number;
  increment(key: string, by: bigint, options?: CountOptions<bigint>): bigint;
  increment(
    key: string,
    by?: number | bigint,
    options?: CountOptions<number | bigint>,
  ): number | bigint {
    return increment(this.#entries, key, by, options);
  }

  /** As `increment`; gives the whole entry, as this very step has left it. */
  incrementEntry(key: string, by?: number, options?: CountOptions): Counted<number>;
  incrementEntry(key: string, by: bigint, options?: CountOptions<bigint>): Counted<bigint>;
  incrementEntry(
    key: string,
    by?: number | bigint,
    options?: CountOptions<number | bigint>,
  ): Counted<number> | Counted<bigint> {
    return incrementEntry(this.#entries, key, by, options) as Counted<number>;
  }

  /**
   * Removes all entries, or those whose keys begin with `prefix`, part by part: others may see it
   * half done, and may add entries meanwhile.
   *
   * @param options Which keys.
   */
  clear(options?: PrefixOptions): void {
    this.#entries.clear(options);
  }

  /**
   * Gives memory back to the system. Values of 1 MiB and more give theirs back when they are gone,
   * a little later and a step at a time; this does it now. What smaller entries left goes back only
   * if no other handle has the map open: here, or when the last one closes.
   *
   * @returns How many bytes less the map takes.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", new Uint8Array(2 ** 21));
   * map.delete("a");
   * map.compact();
   * assert.ok(map.stats().allocated < 2 ** 20);
   * ```
   */
  compact(): number {
    return this.#entries.compact();
  }

  /** The values of many keys, in one crossing. */
  getMany(keys: Iterable<string>): (V | undefined)[] {
    return this.#entries.getMany(keys);
  }

  /**
   * Stores many entries, after all of them were checked and encoded. Each is stored by itself:
   * other processes may see some before the rest, and an error may leave some of them stored.
   *
   * @param entries Keys and values, and when each ends if that is not as in `set` by default.
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
  setMany(entries: Iterable<readonly [key: string, value: V, expiry?: Expiry]>): void {
    this.#entries.setMany(entries);
  }

  /** Whether there is a value under each of many keys, in their order. */
  hasMany(keys: Iterable<string>): boolean[] {
    return this.#entries.hasMany(keys);
  }

  /**
   * Removes many keys, after all of them were checked, each by itself.
   *
   * @param keys The keys.
   * @returns Whether each was there, in the same order.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1).set("b", 2);
   * assert.deepEqual(map.deleteMany(["b", "c"]), [true, false]);
   * assert.deepEqual(map.hasMany(["a", "b"]), [true, false]);
   * ```
   */
  deleteMany(keys: Iterable<string>): boolean[] {
    return this.#entries.deleteMany(keys);
  }

  /**
   * Iterates over the keys, one part of the map after the other, as all iteration here does: in no
   * order; a key that stays all the time is seen once, and none is seen twice. A key that is
   * deleted after its part was copied still comes, and one that is added may come or not.
   *
   * @param options Which keys: with `prefix`, those that begin so. What does not is not copied.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number>().set("user:1", 1).set("job:1", 2);
   * assert.deepEqual([...map.keys({ prefix: "user:" })], ["user:1"]);
   * ```
   */
  keys(options?: PrefixOptions): MapIterator<string> {
    return this.#entries.keys(options);
  }

  /** Iterates over the values, as `keys` does. */
  values(options?: PrefixOptions): MapIterator<V> {
    return this.#entries.iterate(options, (_key, value) => value);
  }

  /**
   * Iterates over keys and values, as `keys` does. A value of more than 64 KiB is read when its
   * turn comes.
   */
  entries(options?: PrefixOptions): MapIterator<[string, V]> {
    return this.#entries.iterate(options, (key, value): [string, V] => [key, value]);
  }

  /**
   * Keys page by page. A page ends at a place in an order that all processes agree on, so another
   * process, or a later request, goes on with `cursor`; the order says nothing of the keys. A key
   * that stays all the time is in exactly one page, also where others are stored and deleted.
   *
   * @param options Which keys, from where on, and how many.
   * @returns As many keys as there are, `limit` at most, and where the next page begins.
   * @throws {TypeError} For a `cursor` that is none.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number>();
   * for (let i = 0; i < 25; i += 1) map.set(`user:${i}`, i);
   * const found: string[] = [];
   * for (let cursor: string | undefined, isFirst = true; isFirst || cursor; isFirst = false) {
   *   const page = map.scan({ prefix: "user:", limit: 10, cursor });
   *   found.push(...page.keys);
   *   cursor = page.cursor;
   * }
   * assert.equal(new Set(found).size, 25);
   * ```
   */
  scan(options?: ScanOptions): ScanPage {
    return scan(this.#entries.segment, options);
  }

  /** The very function `entries`, for `for … of`, spread and `new Map(map)`. */
  [Symbol.iterator](): MapIterator<[string, V]> {
    return this.entries(); // its place is taken above
  }

  /** Always `"SharedMap"`: what `Object.prototype.toString` calls it. */
  get [Symbol.toStringTag](): string {
    return "SharedMap";
  }

  /** Key by key, so that printing the first entries copies no values of others. */
  *#oneByOne(): Generator<[string, V]> {
    for (const key of this.keys()) {
      const value = this.get(key);
      if (value !== undefined) yield [key, value];
    }
  }

  /** Calls `fn` for each entry, with the value, the key and this map. */
  forEach(fn: (value: V, key: string, map: this) => void, thisArg?: unknown): void {
    checkFunction("fn", fn);
    for (const [key, value] of this.entries()) fn.call(thisArg, value, key, this);
  }

  /**
   * All entries as they were at one instant.
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
   * Checks every part of the map and changes nothing. Writers of a part wait while it is checked.
   *
   * It checks what the map is made of: the header, tables, lengths, the place of each key, free
   * space. It does not check what values say: a changed byte of a value is not found, for values
   * have no checksum, nor are structures that no longer decode, which `get` finds.
   *
   * @returns What is wrong; `ok` says that the map can be used, not that its values are right.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1);
   * const { ok, problems, first } = map.verify();
   * assert.deepEqual([ok, problems, first], [true, 0, undefined]);
   * ```
   */
  verify(): VerifyReport {
    return this.#entries.verify();
  }

  /**
   * Checks what `verify` checks, and drops damaged entries. After the death of a process no such
   * call is needed: the next writer repairs what it left.
   *
   * @returns What was wrong, and how many entries were dropped.
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
    return this.#entries.repair();
  }
}
