/**
 * `SharedMap`: a map that processes share by its name, with the methods of `Map` and a few more.
 *
 * @module
 */
import { checkFunction } from "./arguments.ts";
import { listSegments, type SegmentInfo, unlinkSegment } from "./segment/directory.ts";
import { Entries, ONLY_IF_ABSENT, type VerifyReport } from "./segment/entries.ts";
import { frozenIn, MAP } from "./segment/options.ts";
import type { AnonymousOptions, AttachOptions, OpenOptions } from "./segment/options.ts";
import { anonymousSegment, attachSegment, openSegment, type Segment } from "./segment/segment.ts";
import { headOf, orReason, printBy, shownEntries } from "./segment/printing.ts";
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

  private constructor(segment: Segment, isFrozen: boolean) {
    super(segment);
    this.#entries = new Entries(segment, isFrozen);
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
    return new SharedMap(openSegment(MAP, name, options), isFrozen);
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
    return new SharedMap(anonymousSegment(MAP, options), isFrozen);
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
    return new SharedMap(attachSegment(MAP, token, options), isFrozen);
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

  /** How many entries there are. */
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
  set(key: string, value: V): this {
    this.#entries.put(key, value, 0);
    return this;
  }

  /**
   * Stores `value` only if `key` is absent.
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

  /** The value of `key`; stores `value` first if there is none. */
  getOrInsert(key: string, value: V): V {
    return this.getOrInsertComputed(key, () => value);
  }

  /**
   * The value of `key`; computes and stores one if there is none. No lock is held meanwhile: if
   * another process stores a value first, that one stays and is returned.
   *
   * @param key The key.
   * @param compute Called with the key, at most once, if it is absent.
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
  getOrInsertComputed(key: string, compute: (key: string) => V): V {
    return this.#entries.getOrInsertComputed(key, compute);
  }

  /**
   * Replaces the value of `key` by the result of `fn`. If the key changes while `fn` runs, `fn`
   * runs again with the new value. No lock is held meanwhile.
   *
   * @param key The key.
   * @param fn Gets the value or undefined, and returns the next. If it throws, nothing changes.
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
  update(key: string, fn: (current: V | undefined) => V): V {
    return this.#entries.update(key, fn);
  }

  /** Whether there is a value under `key`. */
  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /**
   * Removes `key` and its value. Returns whether it was there. What follows the key is ignored, so
   * that `keys.forEach(map.delete, map)` works.
   */
  delete(key: string): boolean {
    return this.#entries.delete(key);
  }

  /**
   * Removes all entries, part by part: others may see it half done, and may add entries meanwhile.
   */
  clear(): void {
    this.#entries.clear();
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
   */
  keys(): MapIterator<string> {
    return this.#entries.keys();
  }

  /** Iterates over the values, as `keys` does. */
  values(): MapIterator<V> {
    return this.#entries.iterate((_key, value) => value);
  }

  /**
   * Iterates over keys and values, as `keys` does. A value of more than 64 KiB is read when its
   * turn comes.
   */
  entries(): MapIterator<[string, V]> {
    return this.#entries.iterate((key, value): [string, V] => [key, value]);
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
