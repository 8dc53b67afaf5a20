/**
 * What every shared object on a segment has, whatever it holds: its name and token, its lock, its
 * life.
 */
import { type MapStats, Segment } from "./segment.ts";
import type { AsyncLockOptions, Lock, LockOptions } from "../lock/lock.ts";

/**
 * What a `SharedMap` and a `SharedValue` have in common.
 *
 * One lock belongs to each of them, for all handles of all processes alike. While one handle holds
 * it, writes through any other wait, up to that handle's `timeout`; reads never do. It is not
 * re-entrant: where this isolate itself is in the way, a call that could only wait for ever throws
 * `"Locked"`. What is written through the handle that holds the lock goes through, no matter which
 * task writes; tasks that take turns should have a handle each, or lock before every write.
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

  /** Made by `open`, `anonymous` and `attach`. */
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

  /** A string that leads `attach` here, in this and other processes, while this one is open. */
  get token(): string {
    return this.#segment.token;
  }

  /** Whether anybody holds the lock, this handle included. */
  get locked(): boolean {
    return this.#segment.locker.locked;
  }

  /**
   * Waits for the lock and takes it. This blocks the whole isolate: a server uses `lockAsync`.
   *
   * @param options How long to wait.
   * @returns The lock, to be unlocked after use.
   * @throws {SharedMemoryError} `"Timeout"` with the process that has it; `"Locked"` when this
   * isolate has it.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous<number>().set("count", 1);
   * {
   *   using lock = map.lock({ timeout: 1000 });
   *   if (lock.recovered) map.clear(); // whoever had it died half-way
   *   map.set("count", map.get("count")! + 1);
   * }
   * assert.equal(map.get("count"), 2);
   * ```
   */
  lock(options?: LockOptions): Lock {
    return this.#segment.locker.lock(options);
  }

  /**
   * Takes the lock if nobody has it and nobody stands in line for it.
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
   * @throws {SharedMemoryError} `"Timeout"` with the process that has it; `"Closed"` when this
   * object is closed meanwhile.
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
   * What it says of itself, for people who look for the cause of a problem.
   *
   * @returns Sizes, counts and facts; each is right by itself, not all at one instant.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous().set("a", 1);
   * assert.equal(map.stats().entries, 1);
   * ```
   */
  stats(): MapStats {
    return this.#segment.stats();
  }

  /**
   * Removes the name, if this object still has it. All who have it open go on with it.
   *
   * @returns Whether it had it.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.open("shmap-example-unlink-own");
   * assert.deepEqual([map.unlink(), map.unlink()], [true, false]);
   * ```
   */
  unlink(): boolean {
    return this.#segment.unlink();
  }

  /**
   * Lets go of it; its data stays. A lock that is held is unlocked, whoever waits for one gets
   * `"Closed"`, and so does every other call from now on. Closing twice does nothing.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * const map = SharedMap.anonymous();
   * map.close();
   * assert.throws(() => map.size, { code: "Closed" });
   * ```
   */
  close(): void {
    this.#segment.close();
  }

  /** As `close`, at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }
}
