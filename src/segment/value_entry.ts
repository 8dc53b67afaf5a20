/**
 * The single value of a segment: what a `SharedValue` does.
 */
import { statuses } from "../ffi/abi.ts";
import { DATA } from "../ffi/scratch.ts";
import { describe } from "../values/msgpack.ts";
import type { Segment } from "./segment.ts";
import { KIND_BYTES, Store, VERSION_BYTES } from "./store.ts";

const { locked: LOCKED, unchanged: UNCHANGED } = statuses;

/** The version of no value: a read that knows this one always gets the value. */
const NO_VERSION = 0;

/** The value of one open segment. */
export class ValueEntry<T> extends Store<T> {
  readonly #isFrozen: boolean;
  /** What `get` returns for as long as the version is `#keptVersion`. */
  #kept: T | undefined;
  #keptVersion = NO_VERSION;
  #isUpdating = false;

  /** With `isFrozen`, `get` gives one frozen object for as long as the value stays the same. */
  constructor(segment: Segment, isFrozen: boolean) {
    super(segment, "maxBytes");
    this.#isFrozen = isFrozen;
  }

  get version(): number {
    const { segment } = this;
    const version = segment.native.shm_value_version(segment.handle);
    if (version < 0) throw segment.failure(version, "read");
    return version;
  }

  get(): T | undefined {
    const length = this.#read(this.#keptVersion);
    return length === UNCHANGED ? this.#kept : this.#takeAndKeep(length);
  }

  set(value: T): void {
    this.store(value, "set");
  }

  update(fn: (current: T | undefined) => T): T {
    const { segment } = this;
    segment.assertWritable("update");
    if (typeof fn !== "function") {
      throw new TypeError(`Cannot update ${segment.label} by ${describe(fn)}: it is no function`);
    }
    if (this.#isUpdating) throw segment.failure(LOCKED, "update");
    return segment.locker.during("update", () => {
      this.#isUpdating = true;
      try {
        const length = this.#read(NO_VERSION);
        const next = fn(length < 0 ? undefined : this.take(length));
        if (isThenable(next)) {
          throw new TypeError(`Cannot update ${segment.label} to a promise: it must be the value`);
        }
        this.store(next, "update");
        return next;
      } finally {
        this.#isUpdating = false;
      }
    });
  }

  protected override send(bytes: Uint8Array, length: number, kind: number): number {
    const { native, writeHandle } = this.segment;
    return native.shm_value_put(writeHandle, bytes, length, kind);
  }

  /**
   * Reads the value into `DATA`, then its kind and its version. Returns its length, `absent`, or
   * `unchanged` if it still has `knownVersion`.
   */
  #read(knownVersion: number): number {
    const { native, handle } = this.segment;
    let length: number;
    do {
      length = native.shm_value_get(handle, knownVersion, DATA.bytes, DATA.bytes.length);
    } while (!this.isFinal(length, KIND_BYTES + VERSION_BYTES));
    return length;
  }

  /** Decodes what was read, and keeps it for the next `get` if the caller cannot change it. */
  #takeAndKeep(length: number): T | undefined {
    const version = length < 0 ? NO_VERSION : DATA.view.getFloat64(length + KIND_BYTES, true);
    const value = length < 0 ? undefined : this.take(length);
    const isKept = typeof value !== "object" || value === null || this.#isFrozen && freeze(value);
    this.#kept = isKept ? value : undefined;
    this.#keptVersion = isKept ? version : NO_VERSION;
    return value;
  }
}

function isThenable(value: unknown): boolean {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}

/**
 * Freezes a structure of plain objects, arrays and primitives, which may have cycles. Freezes
 * nothing and returns false if it contains anything else: a frozen Map, say, can still be changed.
 */
function freeze(structure: object): boolean {
  const found = new Set<object>([structure]);
  for (const object of found) { // the loop also visits what it adds
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
