/**
 * `SharedObject`, the base of `SharedMap` and `SharedValue`: name, token, lock, statistics, close.
 */
import type { AsyncLockOptions, Lock, LockOptions } from "../lock/lock.ts";
import { type MapStats, Segment } from "./segment.ts";

/**
 * What a `SharedMap` and a `SharedValue` have in common.
 *
 * Each of them has one lock, the same for all handles of all processes. While one handle holds it,
 * writes through any other wait, up to the `timeout` of that other handle; reads never wait. The
 * lock is not re-entrant: a call that would wait for a lock which this isolate itself holds throws
 * `"Locked"`. Writes through the handle that holds the lock succeed, no matter which task writes:
 * tasks that exclude each other should have a handle each, or lock before every write.
 *
 * @example
 * ```ts
 * import { SharedMap, type SharedObject, SharedValue } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.anonymous();
 * using value = SharedValue.anonymous();
 * const shared: SharedObject[] = [map, value];
 * assert.ok(shared.every(({ locked }) => !locked));
 * ```
 */
export abstract class SharedObject implements Disposable {
  readonly #segment: Segment;

  /** Called by `open`, `anonymous` and `attach`. */
  protected constructor(segment: unknown) {
    if (!(segment instanceof Segment)) {
      throw new TypeError(`Cannot construct ${new.target.name}: use open, anonymous or attach`);
    }
    this.#segment = segment;
  }

  /** The name, or undefined for an anonymous one. */
  get name(): string | undefined {
    this.#segment.assertOpen("identify");
    return this.#segment.name;
  }

  /**
   * A string for `attach`, in this and other processes, for as long as this object is open.
   *
   * @throws {SharedMemoryError} `"NotFound"` if it has a name that no longer leads here, by which
   * others would look for it.
   */
  get token(): string {
    return this.#segment.token;
  }

  /** Whether any handle holds the lock, this one included. */
  get locked(): boolean {
    return this.#segment.locker.locked;
  }

  /**
   * Waits for the lock and takes it. This blocks the whole isolate: a server should use
   * `lockAsync`.
   *
   * @param options How long to wait.
   * @returns The lock, to be unlocked after use.
   * @throws {SharedMemoryError} `"Timeout"`, which names the process that has it; `"Locked"` if
   * this isolate has it.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number>().set("count", 1);
   * {
   *   using lock = map.lock({ timeout: 1000 });
   *   if (lock.recovered) map.clear(); // the last holder died half-way
   *   map.set("count", map.get("count")! + 1);
   * }
   * assert.equal(map.get("count"), 2);
   * ```
   */
  lock(options?: LockOptions): Lock {
    return this.#segment.locker.lock(options);
  }

  /**
   * Takes the lock if it is free and no task of this isolate waits for it.
   *
   * @returns The lock, or undefined.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous();
   * using lock = map.tryLock();
   * assert.ok(lock);
   * assert.equal(map.tryLock(), undefined);
   * ```
   */
  tryLock(): Lock | undefined {
    return this.#segment.locker.tryLock();
  }

  /**
   * Waits for the lock without blocking. The tasks of an isolate get it in the order they asked.
   *
   * @param options How long to wait, and a signal that ends the wait.
   * @returns The lock, to be unlocked after use.
   * @throws {SharedMemoryError} `"Timeout"`, which names the process that has it; `"Closed"` if
   * this object is closed meanwhile.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number>().set("count", 0);
   * const tasks = Array.from({ length: 3 }, async () => {
   *   using _lock = await map.lockAsync({ signal: AbortSignal.timeout(5000) });
   *   const count = map.get("count")!;
   *   await Promise.resolve();
   *   map.set("count", count + 1);
   * });
   * await Promise.all(tasks);
   * assert.equal(map.get("count"), 3);
   * ```
   */
  lockAsync(options?: AsyncLockOptions): Promise<Lock> {
    return this.#segment.locker.lockAsync(options);
  }

  /**
   * Figures for people who look for the cause of a problem. Each is right by itself, but they are
   * not all of the same instant.
   */
  stats(): MapStats {
    return this.#segment.stats();
  }

  /**
   * Removes the name, if it still leads here, and returns whether it did: false also if another
   * program has removed or replaced its file. Open handles stay usable.
   */
  unlink(): boolean {
    return this.#segment.unlink();
  }

  /**
   * Closes this object; the data stays. The lock is released, waiting `lockAsync` calls and all
   * later calls throw `"Closed"`. Closing twice does nothing.
   */
  close(): void {
    this.#segment.close();
  }

  /** As `close`, at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }
}
