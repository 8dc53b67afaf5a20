/**
 * `SharedValue`: one value that processes share, replaced as a whole.
 *
 * @module
 */
import { listSegments, type SegmentInfo, unlinkSegment } from "./segment/directory.ts";
import { frozenIn, VALUE } from "./segment/options.ts";
import type { AnonymousOptions, AttachOptions, OpenOptions } from "./segment/options.ts";
import { anonymousSegment, attachSegment, openSegment, type Segment } from "./segment/segment.ts";
import { headOf, orReason, printBy } from "./segment/printing.ts";
import { SharedObject } from "./segment/shared_object.ts";
import { ValueEntry } from "./segment/value_entry.ts";

/**
 * How `get` returns structures.
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
   * Return one deeply frozen object for as long as the value stays the same, instead of a copy each
   * time. This holds for structures of plain objects, arrays and primitives. A structure with
   * anything else in it, and a byte array, is a copy each time all the same. Default false.
   */
  frozen?: boolean | undefined;
}

/**
 * One value that processes share: by its name, or without one by its token. It is stored and read
 * as a whole. All calls are synchronous. Any number of processes may use the value, and any of them
 * may be killed at any moment: the others find the old value or the new one.
 *
 * Several calls throw `SharedMemoryError` with these codes: `"Closed"` after `close`, `"Replaced"`
 * after an exclusive open elsewhere, `"Corrupt"` for damaged bytes. Calls that write also throw
 * `"ReadOnly"`, `"NoSpace"`, `"TooLarge"`, and, while another handle has the lock, `"Timeout"` or
 * `"Locked"`.
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
  readonly #entry: ValueEntry<T>;

  static {
    printBy(this.prototype, (object, show) => {
      if (!(#entry in object)) return "SharedValue {}"; // the prototype itself
      return orReason("SharedValue", () => {
        const { name } = object;
        return `${headOf("SharedValue", undefined, name)} ${show({ value: object.get() })}`;
      });
    });
  }

  private constructor(segment: Segment, isFrozen: boolean) {
    super(segment);
    this.#entry = new ValueEntry(segment, isFrozen);
  }

  /**
   * Opens the value `name`, and creates it if there is none.
   *
   * @param name 1 to 200 of `A-Z a-z 0-9 . _ -`, not starting with a dot.
   * @param options How to open it. `maxBytes` is the limit of one encoded value.
   * @returns The value, to be closed after use.
   * @throws {TypeError | RangeError} For a name or an option that is not valid.
   * @throws {SharedMemoryError} If it cannot be opened as the options ask; the code says why.
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
    return new SharedValue(openSegment(VALUE, name, options), isFrozen);
  }

  /**
   * Makes a value without a name, which lives as long as any process has it open.
   *
   * @param options How to make it. `maxBytes` is the limit of one encoded value.
   * @returns The value; its `token` leads other processes to it.
   * @throws {TypeError | RangeError} For an option that is not valid.
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
    return new SharedValue(anonymousSegment(VALUE, options), isFrozen);
  }

  /**
   * Attaches to a value by its token.
   *
   * @param token The `token` of an open value of this or another process.
   * @param options How to attach.
   * @returns The value, to be closed after use.
   * @throws {TypeError} If `token` is not a token.
   * @throws {SharedMemoryError} `"NotFound"` if the value it was for is gone.
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
    return new SharedValue(attachSegment(VALUE, token, options), isFrozen);
  }

  /**
   * Removes the name of a value. Open handles stay usable; the memory is freed with the last of
   * them.
   *
   * @param name The name of the value.
   * @param options Where it lies.
   * @returns Whether there was one.
   * @throws {SharedMemoryError} `"Incompatible"` if the name is of something else, which then
   *   stays.
   */
  static unlink(name: string, options: { directory?: string | undefined } = {}): boolean {
    return unlinkSegment(VALUE, name, options);
  }

  /** Lists the segments in a directory, maps and regions too. */
  static list(options: { directory?: string | undefined } = {}): SegmentInfo[] {
    return listSegments(options);
  }

  /**
   * A number that grows with each `set`, from 0 before the first one. Comparing it shows, without
   * reading the value, whether the value was set since.
   */
  get version(): number {
    return this.#entry.version;
  }

  /**
   * The value. Unless opened with `frozen`, anything but a primitive is a copy, which the caller
   * may change. An unchanged primitive is returned without being decoded again.
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
    return this.#entry.get();
  }

  /**
   * Stores `value` in place of the old one.
   *
   * @param value A string, number, bigint, boolean, null, Uint8Array, or any that the codec keeps.
   * @throws {TypeError} For a value that cannot be stored, and for a second argument.
   * @throws {SharedMemoryError} `"TooLarge"` beyond `maxBytes`. The old value stays.
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
        `Cannot set ${this.#entry.segment.label} to ${arguments.length} values: it takes one`,
      );
    }
    this.#entry.put(value, "set");
  }

  /**
   * Replaces the value by the result of `fn`. The lock is held meanwhile: `fn` runs once, and no
   * other process writes in between. If `fn` throws, or the process dies, nothing changes.
   *
   * @param fn Gets a copy of the value, or undefined, and returns the next; not a promise.
   * @returns The value that was stored.
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
    return this.#entry.update(fn);
  }
}
