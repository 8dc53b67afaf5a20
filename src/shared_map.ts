/**
 * `SharedMap`: a map that processes share by its name, with the methods of `Map` and a few more.
 *
 * @module
 */
import { checkFunction } from "./arguments.ts";
import {
  type Entry,
  remove,
  type ReplaceOptions,
  replace,
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
export class SharedMap<V = unknown> extends SharedObject {
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

  /**
   * The value of `key`, as a copy; undefined if there is none.
   *
   * @param key The key.
   * @returns The value or undefined.
   * @throws {TypeError | RangeError} For a key that is not valid.
   */
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

  /**
   * Stores `value` under `key`, in place of the old value.
   *
   * @param key A non-empty string of up to 65,535 bytes in UTF-8, without lone surrogates.
   * @param value A string, number, bigint, boolean, null, Uint8Array, or any that the codec keeps.
   * @param expiry When the entry ends: milliseconds from now, or `{ ttl }`, or `{ expires }`, a time.
   * Default: after the `ttl` of this handle, or never. It lasts no shorter, and up to 20 ms longer.
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
  set(key: string, value: V, expiry?: Expiry): this {
    this.#entries.put(key, value, 0, expiry);
    return this;
  }

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
  add(key: string, value: V, expiry?: Expiry): boolean {
    return this.#entries.put(key, value, ONLY_IF_ABSENT, expiry) === 1;
  }

  /** The value of `key`; stores `value` first if there is none, with an end as in `set`. */
  getOrInsert(key: string, value: V, expiry?: Expiry): V {
    return this.getOrInsertComputed(key, () => value, expiry);
  }

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
  getOrInsertComputed(key: string, compute: (key: string) => V, expiry?: Expiry): V {
    return this.#entries.getOrInsertComputed(key, compute, expiry);
  }

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
  update(key: string, fn: (current: V | undefined) => V, expiry?: Expiry): V {
    return this.#entries.update(key, fn, expiry);
  }

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

  /**
   * Value, version and end of `key`, of one moment. The value is a copy of its own, also from a handle
   * that was opened with `frozen`.
   *
   * @param key The key.
   * @returns An entry in any case: of a key that is absent it has version 0.
   *
   * @example Change what nobody else has changed
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<string>().set("job", "waiting");
   * const { version } = map.getEntry("job");
   * assert.equal(map.replace("job", "running", { ifVersion: version }), true);
   * assert.equal(map.replace("job", "running", { ifVersion: version }), false);
   * ```
   */
  getEntry(key: string): Entry<V> {
    return this.#entries.getEntry(key);
  }

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
  replace(key: string, value: V, options?: number | ReplaceOptions): boolean {
    return replace(this.#entries, key, value, options);
  }

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
  swap(key: string, value: V, expiry?: Expiry): V | undefined {
    return swap(this.#entries, key, value, expiry);
  }

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
  take(key: string): V | undefined {
    return take(this.#entries.segment, key);
  }

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
  delete(key: string, options: VersionOptions | undefined): boolean;
  delete(key: string, options?: VersionOptions): boolean {
    return remove(this.#entries.segment, key, options);
  }

  /**
   * Adds to a number in one step, whatever other processes add to it meanwhile.
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
  increment(key: string, by: bigint, options?: CountOptions<bigint>): bigint;
  increment(
    key: string,
    by?: number | bigint,
    options?: CountOptions<number | bigint>,
  ): number | bigint {
    return increment(this.#entries, key, by, options);
  }

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
   * that stays all the time is in exactly one page, whatever is stored and deleted in between.
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
