/**
 * `Lock`, and the queue of this isolate for each lock: its tasks get the lock first in, first out.
 * Only the first waiter contends with other processes, so that a thousand waiting tasks cost as
 * much as one.
 *
 * Between processes the library decides. It cannot see that a call would wait for a lock which the
 * isolate it blocks holds itself: this file finds that, and throws `"Locked"`.
 *
 * @module
 */
import process from "node:process";
import { types } from "node:util";
import { builtInGetter, checkOptions, checkTimeout, checkType, wrongType } from "../arguments.ts";
import { type FailureDetails, type Holder, holderIn } from "../errors.ts";
import { records, statuses } from "../ffi/abi.ts";
import { readRecord } from "../ffi/fields.ts";
import { canWait, type Native } from "../ffi/native.ts";
import { FAULT, Scratch } from "../ffi/scratch.ts";

/**
 * How to wait for a lock.
 *
 * @example
 * ```ts
 * import { type LockOptions, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * const options: LockOptions = { timeout: 100 };
 * using map = SharedMap.anonymous();
 * using lock = map.lock(options);
 * assert.equal(map.locked, true);
 * ```
 */
export interface LockOptions {
  /** How long to wait at most, in milliseconds. Default: the `timeout` of the locked object. */
  timeout?: number | undefined;
}

/**
 * How to wait for a lock without blocking.
 *
 * @example
 * ```ts
 * import { type AsyncLockOptions, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.anonymous();
 * using held = map.lock();
 * const options: AsyncLockOptions = { signal: AbortSignal.timeout(10) };
 * using other = SharedMap.attach(map.token);
 * await assert.rejects(other.lockAsync(options), { name: "TimeoutError" });
 * ```
 */
export interface AsyncLockOptions extends LockOptions {
  /** Ends the wait: the promise is rejected with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/**
 * Which lock of a region is meant.
 *
 * @example
 * ```ts
 * import { Mmap, type RegionLockOptions } from "shmap";
 * import assert from "node:assert/strict";
 * const options: RegionLockOptions = { shared: true };
 * using region = Mmap.anonymous(100);
 * using other = Mmap.attach(region.token);
 * using lock = region.lock(options);
 * using beside = other.lock(options);
 * assert.ok(lock !== beside);
 * ```
 */
export interface RegionLockOptions {
  /**
   * Whether others may hold a shared lock at the same time. Default: true for a region that does
   * not write to its file, which can have no other, false for all others.
   */
  shared?: boolean | undefined;
}

/** Calls the constructor of `Lock`, which is private. */
let makeLock: (locker: Locker, recovered: boolean) => Lock;

/**
 * A lock that is held, from `lock`, `tryLock` or `lockAsync` until `unlock`. Closing the locked
 * object unlocks too. So does the end of the process or Worker: the next holder then finds the lock
 * `recovered`. Garbage collection of this object does not unlock.
 *
 * @example Two changes that belong together
 * ```ts
 * import { SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 *
 * using map = SharedMap.anonymous<number>().set("from", 10).set("to", 0);
 * {
 *   using _lock = map.lock();
 *   map.set("from", 9).set("to", 1); // no other process writes in between
 * }
 * assert.equal(map.locked, false);
 * ```
 */
export class Lock implements Disposable {
  /**
   * Whether the last holder ended without unlocking, so that its changes may be half-done. Always
   * false for a region over a user's file, which has no place to record it.
   */
  readonly recovered: boolean;
  readonly #locker: Locker;

  static {
    makeLock = (locker, recovered) => new Lock(locker, recovered);
  }

  private constructor(locker: Locker, recovered: boolean) {
    if (!(locker instanceof Locker)) {
      throw new TypeError("Cannot construct Lock: use lock, tryLock or lockAsync");
    }
    this.#locker = locker;
    this.recovered = recovered;
  }

  /** Releases the lock. Unlocking twice, or after `close`, does nothing. */
  unlock(): void {
    this.#locker.release(this, false);
  }

  /** As `unlock`, at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.unlock();
  }
}

/** What a `Locker` needs of the open object it locks. */
export interface Lockable {
  readonly native: Native;
  /** Zero once closed. */
  readonly handle: number;
  /** How long a call waits by default, in milliseconds. */
  readonly timeout: number;
  /** Throws unless it is open and can have such a lock; `shared` is 1 or 0. */
  assertLockable(action: string, shared: number): void;
  /** The error for a negative result of a call that was to do `action`. */
  failure(status: number, action: string, details?: FailureDetails): Error;
}

const { absent: ABSENT, locked: LOCKED, timeout: TIMEOUT } = statuses;
const IDENTITY_BYTES = records.Identity.bytes;
/**
 * Where no wake-up reaches it, the first waiter tries again after 1, 2, 4, 8 and from then on every
 * 10 milliseconds. After 10 the library lets it become first among the processes as well.
 */
const LONGEST_PAUSE_MS = 10;
/** The longest sleep on the wake sequence: a process may die before it wakes the sleepers. */
const SLICE_MS = 50;
/**
 * Each sleep takes a thread of a pool that file operations need too: further waiters use timers.
 */
const SLEEPS_MAX = 4;
/** A runtime fires timers with a longer delay at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

const IDENTITY = new Scratch(IDENTITY_BYTES);
/** Where the library writes the address and the count of a wake sequence. */
const WAKE_TICKET = new Scratch(records.WakeTicket.bytes);

// The methods of the prototype: a hostile AbortSignal may override them and throw while it is
// being added to a queue.
const { addEventListener, removeEventListener } = AbortSignal.prototype;
const abortedOf = builtInGetter<boolean>(AbortSignal.prototype, "aborted");

/** How many sleeps of this isolate have not ended. */
let sleepCount = 0;

/** How many locks this isolate holds. While it is none, writes need not look for one. */
let heldCount = 0;

/** The queue of each lock that this isolate holds or waits for, by the identity of the lock. */
const queues = new Map<string, WaitQueue>();

/** Locks one open handle, which holds one lock at a time. */
export class Locker {
  readonly owner: Lockable;
  /** Whether locks are shared unless asked otherwise; undefined where all are exclusive. */
  readonly #isShared: boolean | undefined;
  #identity: string | undefined;
  /** The lock this handle holds. `queues` keeps it and its owner alive meanwhile. */
  #lock: Lock | undefined;

  constructor(owner: Lockable, isShared?: boolean) {
    this.owner = owner;
    this.#isShared = isShared;
  }

  /** Waits for the lock, blocking the isolate. */
  lock(options?: LockOptions & RegionLockOptions, action = "lock"): Lock {
    const given = checkOptions(options, this.#names(["timeout"]));
    const timeout = checkTimeout(given.timeout, this.owner.timeout);
    const shared = this.#sharedIn(given);
    this.owner.assertLockable(action, shared);
    const queue = queues.get(this.identity);
    if (queue?.isBlocked(this, shared)) throw this.owner.failure(LOCKED, action);
    queue?.yieldTurn();
    const { native, handle } = this.owner;
    const result = native.shm_lock_acquire(handle, shared, timeout);
    if (result < 0) throw this.owner.failure(result, action, { timeout });
    return this.grant(shared, result);
  }

  /** Takes the lock if it is free at once. */
  tryLock(options?: RegionLockOptions): Lock | undefined {
    const shared = this.#sharedIn(checkOptions(options, this.#names([])));
    this.owner.assertLockable("lock", shared);
    const queue = queues.get(this.identity);
    // Waiters come first, even if the lock is free at this moment.
    if (queue !== undefined && (queue.waiters.size > 0 || queue.isBlocked(this, shared))) {
      return undefined;
    }
    const { native, handle } = this.owner;
    const result = native.shm_lock_try(handle, shared, 0);
    if (result === ABSENT) return undefined;
    if (result < 0) throw this.owner.failure(result, "lock");
    return this.grant(shared, result);
  }

  /** Waits in the queue for the lock. */
  lockAsync(options?: AsyncLockOptions & RegionLockOptions): Promise<Lock> {
    return new Promise((resolve, reject) => {
      const given = checkOptions(options, this.#names(["timeout", "signal"]));
      const { signal } = given;
      const timeout = checkTimeout(given.timeout, this.owner.timeout);
      const shared = this.#sharedIn(given);
      if (signal !== undefined && (!(signal instanceof AbortSignal) || types.isProxy(signal))) {
        throw wrongType("signal", "an AbortSignal", signal);
      }
      this.owner.assertLockable("lock", shared);
      if (signal !== undefined && abortedOf.call(signal)) throw signal.reason;
      this.#queue().add(new Waiter(this, shared, timeout, signal, resolve, reject));
    });
  }

  /** Whether any handle of any process holds the lock, this one included. */
  get locked(): boolean {
    const { native, handle } = this.owner;
    const result = native.shm_lock_held(handle);
    if (result < 0) throw this.owner.failure(result, "describe");
    return result === 1;
  }

  /** Throws "Locked" before a write that would wait for a lock which this isolate itself holds. */
  assertFree(action: string, details?: FailureDetails): void {
    if (heldCount !== 0 && this.#lock === undefined) this.#assertNotLockedHere(action, details);
  }

  #assertNotLockedHere(action: string, details: FailureDetails | undefined): void {
    if (this.owner.handle === 0) return; // the call itself says "Closed"
    const queue = queues.get(this.identity);
    if (queue !== undefined && queue.holders.size > 0) {
      throw this.owner.failure(LOCKED, action, details);
    }
  }

  /** Runs `task` under the lock: the one this handle holds, or one taken for the task. */
  during<T>(action: string, task: () => T): T {
    if (this.#lock !== undefined) return task();
    const lock = this.lock(undefined, action);
    try {
      return task();
    } finally {
      // The task repairs nothing, so the next holder must still learn that a holder died.
      this.release(lock, lock.recovered);
    }
  }

  /** Records a lock that the library has granted with this result. */
  grant(shared: number, result: number): Lock {
    const lock = makeLock(this, result === 1);
    this.#lock = lock;
    this.#queue().holders.set(this, shared);
    heldCount += 1;
    return lock;
  }

  /** Releases `lock` if it is still held. The next holder finds it `recovered` if so wished. */
  release(lock: Lock, leaveRecovered: boolean): void {
    if (this.#lock !== lock) return;
    const { native, handle } = this.owner;
    const result = native.shm_lock_release(handle, leaveRecovered ? 1 : 0);
    this.#forget();
    if (result < 0) throw this.owner.failure(result, "unlock");
  }

  /** Ends all waits of a handle that was closed. The library has released its lock already. */
  closed(): void {
    const queue = this.#identity === undefined ? undefined : queues.get(this.#identity);
    if (queue === undefined) return;
    for (const waiter of [...queue.waiters].filter(({ locker }) => locker === this)) {
      queue.leave(waiter, this.owner.failure(statuses.closed, "lock"));
    }
    this.#forget();
  }

  /** Records that the lock is no longer held, and tries for the next waiter. */
  #forget(): void {
    if (this.#lock === undefined) return;
    this.#lock = undefined;
    heldCount -= 1;
    const queue = this.#queue();
    queue.holders.delete(this);
    queue.turn();
  }

  /** The same for all handles whose locks exclude each other. */
  get identity(): string {
    return this.#identity ??= this.#readIdentity();
  }

  #readIdentity(): string {
    const { native, handle } = this.owner;
    const result = native.shm_lock_identity(handle, IDENTITY.bytes, IDENTITY_BYTES);
    if (result < 0) throw this.owner.failure(result, "lock");
    return IDENTITY.text.latin1Slice(0, IDENTITY_BYTES);
  }

  #queue(): WaitQueue {
    const { identity } = this;
    let queue = queues.get(identity);
    if (queue === undefined) queues.set(identity, queue = new WaitQueue(identity));
    return queue;
  }

  /** The options that a call takes: with `shared` where there is a choice. */
  #names(names: readonly string[]): readonly string[] {
    return this.#isShared === undefined ? names : [...names, "shared"];
  }

  #sharedIn({ shared }: RegionLockOptions): number {
    if (this.#isShared === undefined) return 0;
    checkType("shared", shared, "boolean");
    return shared ?? this.#isShared ? 1 : 0;
  }
}

/** The handles of this isolate that hold one lock, and the tasks that wait for it. */
class WaitQueue {
  /** The handles that hold it, each with 1 if shared, else 0; shared locks have several holders. */
  readonly holders = new Map<Locker, number>();
  /** The waiters, in the order of arrival. */
  readonly waiters = new Set<Waiter>();
  readonly #identity: string;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** How often the first waiter has tried since it became first or this isolate unlocked. */
  #attempts = 0;
  /** Counts turns: a sleep that ends after a later turn does nothing. */
  #turns = 0;

  constructor(identity: string) {
    this.#identity = identity;
  }

  /**
   * Whether a lock of this isolate is in the way, so that waiting for other processes is no use.
   */
  isBlocked(locker: Locker, shared: number): boolean {
    for (const [holder, holdsShared] of this.holders) {
      if (holder === locker || shared === 0 || holdsShared === 0) return true;
    }
    return false;
  }

  /** Adds a waiter. Its promise may be settled already when this returns. */
  add(waiter: Waiter): void {
    this.waiters.add(waiter);
    if (this.first === waiter) this.turn();
    if (!this.waiters.has(waiter)) return;
    try {
      waiter.arm(this);
    } catch (cause) {
      // A program may have put properties on `Object.prototype` that the runtime takes for options.
      this.leave(waiter, new TypeError("Cannot lock: the signal cannot be heard", { cause }));
    }
  }

  get first(): Waiter | undefined {
    return this.waiters.values().next().value;
  }

  /** Tries to lock for the first waiter, and for the next ones as long as that succeeds. */
  turn(): void {
    this.#endSleep();
    for (const waiter of this.waiters) {
      const { locker, shared } = waiter;
      if (this.isBlocked(locker, shared)) {
        this.#attempts = 0;
        return; // the unlock in this isolate calls this again
      }
      const { native, handle } = locker.owner;
      // The sequence is read before the try, so that a release in between ends the sleep at once.
      const { bytes } = WAKE_TICKET;
      const hasWakeSequence = canWait && native.shm_lock_wake_seq(handle, bytes, bytes.length) > 0;
      const result = native.shm_lock_try(handle, shared, waiter.waited);
      if (result === ABSENT) {
        if (hasWakeSequence && sleepCount < SLEEPS_MAX) {
          this.#sleepUntilWoken(native, waiter.waited);
        } else this.#sleepByTimer();
        return;
      }
      this.#remove(waiter);
      if (result >= 0) waiter.resolve(locker.grant(shared, result));
      else waiter.reject(locker.owner.failure(result, "lock"));
    }
    if (this.holders.size === 0) queues.delete(this.#identity);
  }

  /** Ends the sleep. One on a thread of the pool ends later by itself, and then does nothing. */
  #endSleep(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#turns += 1;
  }

  #sleepByTimer(): void {
    const pause = Math.min(2 ** this.#attempts, LONGEST_PAUSE_MS);
    this.#timer = setTimeout(() => this.turn(), pause);
    this.#attempts += 1;
  }

  async #sleepUntilWoken(native: Native, waited: number): Promise<void> {
    const turn = this.#turns;
    const slice = waited < LONGEST_PAUSE_MS ? LONGEST_PAUSE_MS - waited : SLICE_MS;
    const { address, count } = readRecord("WakeTicket", WAKE_TICKET.view);
    sleepCount += 1;
    await native.shm_wake_wait(address, count, slice);
    sleepCount -= 1;
    if (turn === this.#turns) this.turn();
  }

  /**
   * Before a call that blocks this isolate: gives up the first waiter's place among the processes,
   * behind which that call would wait for ever.
   */
  yieldTurn(): void {
    const { first } = this;
    if (first !== undefined) first.cancel();
  }

  /** Ends a wait at its deadline, unless a last try gets the lock. */
  expire(waiter: Waiter): void {
    this.turn();
    if (!this.waiters.has(waiter)) return;
    const { locker, timeout } = waiter;
    const isOwn = this.holders.size > 0;
    const holder = isOwn ? { pid: process.pid, isElsewhere: false } : this.first!.holder;
    this.leave(waiter, locker.owner.failure(TIMEOUT, "lock", { timeout, holder }));
  }

  /** Removes a waiter before it has the lock. */
  leave(waiter: Waiter, reason: unknown): void {
    const isFirst = this.first === waiter;
    this.#remove(waiter);
    waiter.reject(reason);
    if (!isFirst) return;
    waiter.cancel();
    this.turn();
  }

  #remove(waiter: Waiter): void {
    if (this.first === waiter) this.#attempts = 0;
    this.waiters.delete(waiter);
    waiter.disarm();
  }
}

/** One task that waits for a lock. */
class Waiter {
  readonly #since = performance.now();
  readonly #signal: AbortSignal | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #onAbort: (() => void) | undefined;

  constructor(
    readonly locker: Locker,
    readonly shared: number,
    readonly timeout: number,
    signal: AbortSignal | undefined,
    readonly resolve: (lock: Lock) => void,
    readonly reject: (reason: unknown) => void,
  ) {
    this.#signal = signal;
  }

  /** For how long it has waited, in milliseconds. */
  get waited(): number {
    return performance.now() - this.#since;
  }

  /** The process that held the lock at the last try, as far as the library knows it. */
  get holder(): Holder {
    const { native, handle } = this.locker.owner;
    FAULT.bytes.fill(0);
    native.shm_fault(handle, FAULT.bytes);
    return holderIn(FAULT.bytes);
  }

  /** Listens to the signal and sets the timer of the deadline. */
  arm(queue: WaitQueue): void {
    const signal = this.#signal;
    if (signal !== undefined) {
      this.#onAbort = () => queue.leave(this, signal.reason);
      addEventListener.call(signal, "abort", this.#onAbort);
    }
    this.#setTimer(queue);
  }

  #setTimer(queue: WaitQueue): void {
    const left = Math.max(0, this.timeout - this.waited);
    if (left === Infinity) return;
    const isLast = left <= LONGEST_TIMER_MS;
    this.#timer = setTimeout(
      () => isLast ? queue.expire(this) : this.#setTimer(queue),
      isLast ? left : LONGEST_TIMER_MS,
    );
  }

  /** Drops the timer, and stops listening to the signal. */
  disarm(): void {
    clearTimeout(this.#timer);
    if (this.#onAbort === undefined) return;
    try {
      removeEventListener.call(this.#signal!, "abort", this.#onAbort);
    } catch {
      // As in `WaitQueue.add`. A later abort then finds no waiter to remove.
    }
  }

  /** Tells the library that the handle gives up its place among the processes. */
  cancel(): void {
    const { native, handle } = this.locker.owner;
    if (handle !== 0) native.shm_lock_cancel(handle);
  }
}
