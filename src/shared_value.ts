/**
 * `SharedValue`: one value that processes share, replaced as a whole.
 *
 * @module
 */
import { DIRECT_BYTES, KIND_BYTES, unreadable, VERSION_BYTES } from "./segment/entries.ts";
import {
  type AnonymousOptions,
  anonymousSegment,
  type AttachOptions,
  attachSegment,
  checkObject,
  checkType,
  type Codec,
  DATA,
  listSegments,
  type OpenOptions,
  openSegment,
  type Segment,
  type SegmentInfo,
  statuses,
  unlinkSegment,
  VALUE,
} from "./segment/segment.ts";
import { SharedObject } from "./segment/shared_object.ts";
import {
  BYTES_KIND,
  checkedLength,
  decode,
  DEFAULT_CODEC_ID,
  describe,
  encode,
  isBytes,
} from "./values/kinds.ts";

/**
 * How `get` hands out structures.
 *
 * @example
 * ```ts
 * import { type FrozenOption, SharedValue } from "shmap";
 * import assert from "node:assert/strict";
 * const option: FrozenOption = { frozen: true };
 * using value = SharedValue.open<{ list: number[] }>("shmap-example-frozen", option);
 * value.set({ list: [1] });
 * assert.equal(value.get(), value.get()); // one object, not a copy each time
 * value.unlink();
 * ```
 */
export interface FrozenOption {
  /**
   * Hand out one deeply frozen object for as long as the value stays the same, instead of a copy
   * each time. This holds for structures of plain objects, arrays and primitives; where anything
   * else is inside, and for byte arrays, it is a copy each time all the same. Default false.
   */
  frozen?: boolean;
}

const { absent: ABSENT, locked: LOCKED, unchanged: UNCHANGED } = statuses;

/** The version of no value: asked for it, the library sends the value in any case. */
const NO_VERSION = 0;

/**
 * One value that processes share: by its name, or without one by its token. It is stored and read
 * as a whole. All calls are synchronous and safe to use from any number of processes, any of which
 * may be killed at any moment: the others find the old value or the new one.
 *
 * Several calls throw `SharedMemoryError` with these codes: `"Closed"` after `close`, `"Replaced"`
 * after an exclusive open elsewhere, `"Corrupt"` for bytes that make no sense. Calls that write
 * also throw `"ReadOnly"`, `"NoSpace"`, `"TooLarge"`, and, while somebody else has the lock,
 * `"Timeout"` or `"Locked"`.
 *
 * @typeParam T The type of the value. It is not checked: other processes may store anything.
 *
 * @example Share a configuration
 * ```ts
 * import { SharedValue } from "shmap";
 * import assert from "node:assert/strict";
 *
 * using config = SharedValue.anonymous<{ debug: boolean }>();
 * using other = SharedValue.attach<{ debug: boolean }>(config.token); // in any process
 * config.set({ debug: true });
 * assert.deepEqual(other.get(), { debug: true });
 * ```
 */
export class SharedValue<T = unknown> extends SharedObject {
  readonly #segment: Segment;
  readonly #codec: Codec | undefined;
  readonly #isFrozen: boolean;
  /** What `get` returns while the version is still this one. */
  #kept: T | undefined;
  #keptVersion = NO_VERSION;
  #isUpdating = false;

  private constructor(segment: Segment, isFrozen: boolean) {
    super(segment);
    this.#segment = segment;
    this.#codec = segment.codec;
    this.#isFrozen = isFrozen;
  }

  /**
   * Opens the value `name`, and creates it if there is none.
   *
   * @param name 1 to 200 of `A-Z a-z 0-9 . _ -`, not starting with a dot.
   * @param options How to open it. `maxBytes` is the limit of one encoded value.
   * @returns The value, to be closed after use.
   * @throws {TypeError | RangeError} For a name or an option that cannot be.
   * @throws {SharedMemoryError} When it cannot be opened as the options ask; the code says why.
   *
   * @example
   * ```ts
   * import { SharedValue } from "shmap";
   * import assert from "node:assert/strict";
   * using value = SharedValue.open<number>("shmap-example-value", { mode: "exclusive" });
   * value.set(135);
   * assert.equal(value.get(), 135);
   * value.unlink();
   * ```
   */
  static open<T = unknown>(
    name: string,
    options: OpenOptions & FrozenOption = {},
  ): SharedValue<T> {
    const isFrozen = frozenIn(options);
    const segment = openSegment(VALUE, name, options, DEFAULT_CODEC_ID);
    return new SharedValue(segment, isFrozen);
  }

  /**
   * Makes a value without a name, which lives as long as any process has it open.
   *
   * @param options How to make it. `maxBytes` is the limit of one encoded value.
   * @returns The value; its `token` leads other processes to it.
   * @throws {TypeError | RangeError} For an option that cannot be.
   *
   * @example
   * ```ts
   * import { SharedValue } from "shmap";
   * import assert from "node:assert/strict";
   * using value = SharedValue.anonymous<string>({ maxBytes: 10 });
   * assert.throws(() => value.set("far too long"), { code: "TooLarge" });
   * ```
   */
  static anonymous<T = unknown>(options: AnonymousOptions & FrozenOption = {}): SharedValue<T> {
    const isFrozen = frozenIn(options);
    const segment = anonymousSegment(VALUE, options, DEFAULT_CODEC_ID);
    return new SharedValue(segment, isFrozen);
  }

  /**
   * Attaches to a value by its token.
   *
   * @param token The `token` of an open value of this or another process.
   * @param options How to attach.
   * @returns The value, to be closed after use.
   * @throws {TypeError} When `token` is none.
   * @throws {SharedMemoryError} `"NotFound"` when it leads nowhere any more.
   *
   * @example
   * ```ts
   * import { SharedValue } from "shmap";
   * import assert from "node:assert/strict";
   * using value = SharedValue.anonymous<number[]>();
   * using reader = SharedValue.attach<number[]>(value.token, { readonly: true });
   * value.set([1, 2]);
   * assert.deepEqual(reader.get(), [1, 2]);
   * ```
   */
  static attach<T = unknown>(
    token: string,
    options: AttachOptions & FrozenOption = {},
  ): SharedValue<T> {
    const isFrozen = frozenIn(options);
    const segment = attachSegment(VALUE, token, options, DEFAULT_CODEC_ID);
    return new SharedValue(segment, isFrozen);
  }

  /**
   * Removes the name of a value. Whoever has it open goes on with it; its memory goes with the
   * last.
   *
   * @param name The name of the value.
   * @param options Where it lies.
   * @returns Whether there was one.
   * @throws {SharedMemoryError} `"Incompatible"` when it is no value: then it stays.
   *
   * @example
   * ```ts
   * import { SharedValue } from "shmap";
   * import assert from "node:assert/strict";
   * SharedValue.open("shmap-example-value-unlink").close();
   * assert.equal(SharedValue.unlink("shmap-example-value-unlink"), true);
   * assert.equal(SharedValue.unlink("shmap-example-value-unlink"), false);
   * ```
   */
  static unlink(name: string, options: { directory?: string } = {}): boolean {
    return unlinkSegment(VALUE, name, options);
  }

  /**
   * Lists the segments in a directory, other kinds than values too.
   *
   * @param options Where to look.
   * @returns What each of them says of itself.
   *
   * @example
   * ```ts
   * import { SharedValue } from "shmap";
   * import assert from "node:assert/strict";
   * using value = SharedValue.open("shmap-example-value-list");
   * const found = SharedValue.list().find(({ name }) => name === value.name);
   * assert.equal(found?.kind, "value");
   * value.unlink();
   * ```
   */
  static list(options: { directory?: string } = {}): SegmentInfo[] {
    return listSegments(options);
  }

  /**
   * A number that grows with each `set`, from 0 where there was none yet: it tells without reading
   * the value whether it may have changed.
   */
  get version(): number {
    const { native, handle } = this.#segment;
    const version = native.shm_value_version(handle);
    if (version < 0) throw this.#segment.failure(version, "read");
    return version;
  }

  /**
   * The value. What is no primitive is a copy of the caller's own, unless opened with `frozen`; an
   * unchanged primitive is returned without being decoded again.
   *
   * @returns The value, or undefined if none was stored yet.
   *
   * @example
   * ```ts
   * import { SharedValue } from "shmap";
   * import assert from "node:assert/strict";
   * using value = SharedValue.anonymous<{ list: number[] }>();
   * assert.equal(value.get(), undefined);
   * value.set({ list: [1] });
   * value.get()!.list.push(2); // a copy
   * assert.deepEqual(value.get(), { list: [1] });
   * ```
   */
  get(): T | undefined {
    const { native, handle } = this.#segment;
    const { bytes } = DATA;
    const length = native.shm_value_get(handle, this.#keptVersion, bytes, bytes.length);
    return length === UNCHANGED ? this.#kept : this.#takeAndKeep(length);
  }

  /**
   * Stores `value` in place of what was there.
   *
   * @param value A string, number, bigint, boolean, null, Uint8Array, or what the codec can keep.
   * @throws {TypeError} For what cannot be a value, and for a second argument.
   * @throws {SharedMemoryError} `"TooLarge"` beyond `maxBytes`. The value stays what it was.
   *
   * @example
   * ```ts
   * import { SharedValue } from "shmap";
   * import assert from "node:assert/strict";
   * using value = SharedValue.anonymous();
   * value.set(new Map([["a", new Date(0)]]));
   * assert.deepEqual(value.get(), new Map([["a", new Date(0)]]));
   * ```
   */
  set(value: T): void {
    if (arguments.length > 1) {
      throw new TypeError(
        `Cannot set ${this.#segment.label} to ${arguments.length} values: it takes one`,
      );
    }
    this.#put(value, "set");
  }

  /**
   * Replaces the value by what `fn` makes of it. The lock is held meanwhile, so that `fn` runs once
   * and no other process writes in between. If `fn` throws, or the process dies, nothing changes.
   *
   * @param fn Gets the value, as a copy of its own, or undefined; returns the next. Not a promise.
   * @returns What was stored.
   * @throws {SharedMemoryError} `"Timeout"` or `"Locked"` as `lock`; `"Locked"` also inside `fn`.
   *
   * @example
   * ```ts
   * import { SharedValue } from "shmap";
   * import assert from "node:assert/strict";
   * using value = SharedValue.anonymous<number>();
   * for (let i = 0; i < 3; i += 1) value.update((count = 0) => count + 1);
   * assert.equal(value.get(), 3);
   * ```
   */
  update(fn: (current: T | undefined) => T): T {
    const segment = this.#segment;
    segment.assertWritable("update");
    if (typeof fn !== "function") {
      throw new TypeError(`Cannot update ${segment.label} by ${describe(fn)}: it is no function`);
    }
    if (this.#isUpdating) throw segment.failure(LOCKED, "update");
    return segment.locker.during("update", () => {
      this.#isUpdating = true;
      try {
        const next = fn(this.#read());
        if (isThenable(next)) {
          throw new TypeError(`Cannot update ${segment.label} to a promise: it must be the value`);
        }
        this.#put(next, "update");
        return next;
      } finally {
        this.#isUpdating = false;
      }
    });
  }

  /** The value as a copy, whatever is kept. */
  #read(): T | undefined {
    const { native, handle } = this.#segment;
    const { bytes } = DATA;
    const length = native.shm_value_get(handle, NO_VERSION, bytes, bytes.length);
    return this.#take(this.#complete(length));
  }

  /** What `get` returns after the library said `length`, and says from now on while it may. */
  #takeAndKeep(length: number): T | undefined {
    const complete = this.#complete(length);
    const version = complete < 0 ? NO_VERSION : DATA.view.getFloat64(complete + KIND_BYTES, true);
    const value = this.#take(complete);
    const isKept = typeof value !== "object" || value === null || this.#isFrozen && freeze(value);
    this.#kept = isKept ? value : undefined;
    this.#keptVersion = isKept ? version : NO_VERSION;
    return value;
  }

  /** Reads again until all of the value is in `DATA`; gives its length, or `absent`. */
  #complete(length: number): number {
    const { native, handle } = this.#segment;
    for (;;) {
      if (length === ABSENT) return length;
      if (length < 0) throw this.#segment.failure(length, "read");
      const needed = length + KIND_BYTES + VERSION_BYTES;
      if (needed <= DATA.bytes.length) return length;
      DATA.end = 0;
      DATA.reserve(needed);
      length = native.shm_value_get(handle, NO_VERSION, DATA.bytes, DATA.bytes.length);
    }
  }

  /** The value of `length` bytes that was read into `DATA`, which is free again afterwards. */
  #take(length: number): T | undefined {
    if (length < 0) return undefined;
    let value: unknown;
    try {
      value = decode(DATA, 0, length, DATA.bytes[length], this.#codec);
    } catch (error) {
      throw unreadable(this.#segment.label, error);
    }
    DATA.release();
    return value as T;
  }

  #put(value: T, action: string): void {
    const segment = this.#segment;
    if (segment.writeHandle === 0) segment.assertWritable(action);
    let result: number;
    if (ArrayBuffer.isView(value) && value.byteLength >= DIRECT_BYTES && isBytes(value)) {
      const length = checkedLength(value);
      segment.locker.assertFree(action);
      const { native, writeHandle } = segment;
      result = native.shm_value_put(writeHandle, value, length, BYTES_KIND);
    } else {
      DATA.end = 0;
      const kind = encode(value, this.#codec, DATA);
      segment.locker.assertFree(action); // the codec may have taken the lock
      const { native, writeHandle } = segment;
      result = native.shm_value_put(writeHandle, DATA.bytes, DATA.end, kind);
      DATA.release();
    }
    if (result < 0) throw segment.failure(result, action, { limit: "maxBytes" });
  }
}

function frozenIn(options: FrozenOption): boolean {
  const { frozen = false } = checkObject(options);
  checkType("frozen", frozen, "boolean");
  return frozen;
}

function isThenable(value: unknown): boolean {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}

/**
 * Freezes a structure of plain objects, arrays and primitives; cycles are fine. False, and nothing
 * is frozen, where anything else is inside: freezing would not keep it from changing.
 */
function freeze(structure: object): boolean {
  const found = new Set<object>([structure]);
  for (const object of found) { // which grows meanwhile
    const prototype = Object.getPrototypeOf(object);
    if (prototype !== Object.prototype && prototype !== Array.prototype) return false;
    for (const key of Reflect.ownKeys(object)) {
      const member = (object as Record<PropertyKey, unknown>)[key];
      if (typeof member === "function") return false;
      if (typeof member === "object" && member !== null) found.add(member);
    }
  }
  for (const object of found) Object.freeze(object);
  return true;
}
