/**
 * The single value of a segment: what a `SharedValue` does.
 */
import { statuses } from "../ffi/abi.ts";
import { DATA, OUT } from "../ffi/scratch.ts";
import { describe } from "../values/describe.ts";
import { freeze } from "./frozen.ts";
import type { Segment } from "./segment.ts";
import { bytesOf, encodeValue, isFinal, TAIL_BYTES, takeValue, versionBehind } from "./value_io.ts";

const { locked: LOCKED, unchanged: UNCHANGED } = statuses;

/** The version of no value: a read that knows this one always gets the value. */
const NO_VERSION = 0;

/** The value of one open segment. */
export class ValueEntry<T> {
  readonly segment: Segment;
  readonly #isFrozen: boolean;
  /** What `get` returns for as long as the version is `#keptVersion`. */
  #kept: T | undefined;
  #keptVersion = NO_VERSION;
  #isUpdating = false;

  /** With `isFrozen`, `get` gives one frozen object for as long as the value stays the same. */
  constructor(segment: Segment, isFrozen: boolean) {
    this.segment = segment;
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
    return length === UNCHANGED ? this.#kept : this.#takeAndKeep(this.#complete(length));
  }

  /** Stores `value`. `action` is the verb of messages. */
  put(value: T, action: string): void {
    const { segment } = this;
    if (segment.writeHandle === 0) segment.assertWritable(action);
    let result: number;
    try {
      const kind = encodeValue(segment, value, action);
      const bytes = bytesOf(value, kind);
      const { native, writeHandle } = segment;
      result = native.shm_value_put(writeHandle, bytes, OUT.end, kind);
    } finally {
      OUT.release();
    }
    if (result < 0) throw segment.failure(result, action, { limit: "maxBytes" });
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
        const length = this.#complete(this.#read(NO_VERSION));
        const next = fn(length < 0 ? undefined : takeValue<T>(segment, length));
        if (isThenable(next)) {
          throw new TypeError(`Cannot update ${segment.label} to a promise: it must be the value`);
        }
        this.put(next, "update");
        return next;
      } finally {
        this.#isUpdating = false;
      }
    });
  }

  /**
   * Reads the value into `DATA`, then its kind and its version. Returns its length, `unchanged` if
   * it still has `knownVersion`, or another status.
   */
  #read(knownVersion: number): number {
    const { native, handle } = this.segment;
    const { bytes } = DATA;
    return native.shm_value_get(handle, knownVersion, bytes, bytes.length);
  }

  /** Reads again until all of the value is in `DATA`. Returns its length, or `absent`. */
  #complete(length: number): number {
    let complete = length;
    while (!isFinal(this.segment, complete, TAIL_BYTES)) {
      complete = this.#read(NO_VERSION);
    }
    return complete;
  }

  /** Decodes what was read, and keeps it for the next `get` if the caller cannot change it. */
  #takeAndKeep(length: number): T | undefined {
    const version = length < 0 ? NO_VERSION : versionBehind(length);
    const value = length < 0 ? undefined : takeValue<T>(this.segment, length);
    const isKept = typeof value !== "object" || value === null || this.#isFrozen &&
        freeze(value, this.segment.codec !== undefined);
    this.#kept = isKept ? value : undefined;
    this.#keptVersion = isKept ? version : NO_VERSION;
    return value;
  }
}

function isThenable(value: unknown): boolean {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}
