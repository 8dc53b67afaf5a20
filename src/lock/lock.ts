/**
 * `Lock`, and who gets it next in this isolate: its tasks stand in line for each lock, first in,
 * first out. Only the first in line contends with other processes, so that a thousand waiting tasks
 * cost as much as one.
 *
 * Between processes the library decides. It cannot see that a call would wait for a lock of the
 * very isolate it blocks: that is found here, and is `"Locked"`.
 *
 * @module
 */
import process from "node:process";
import { types } from "node:util";
import { holderIn } from "../errors.ts";
import { canWait, FAULT, type Native, Scratch, statuses } from "../ffi/native.ts";
import { checkObject, checkTimeout, checkType, wrongType } from "../segment/options.ts";

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
  timeout?: number;
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
  signal?: AbortSignal;
}

/** Makes a `Lock`, which nobody else can. */
let makeLock: (locker: Locker, recovered: boolean) => Lock;

/**
 * A lock that is held, from `lock`, `tryLock` or `lockAsync` until `unlock`. Closing the locked
 * object unlocks too. The end of the process or Worker frees it for others as well, who then find
 * it `recovered`. Forgetting it does not.
 *
 * @example Two changes that belong together
 * ```ts
 * import { SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 *
 * using map = SharedMap.anonymous<number>().set("from", 10).set("to", 0);
 * {
 *   using _lock = map.lock();
 *   map.set("from", 9).set("to", 1); // nobody else writes in between
 * }
 * assert.equal(map.locked, false);
 * ```
 */
export class Lock implements Disposable {
  /**
   * Whether the last holder ended without unlocking, so that what the lock protects may be
   * half-done. Over a user's file, where nothing can record it, always false.
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

  /**
   * Gives the lock back; whoever is next gets it. Unlocking twice, or after `close`, does nothing.
   *
   * @example
   * ```ts
   * import { SharedMap } from "shmap";
   * import assert from "node:assert/strict";
   * using map = SharedMap.anonymous();
   * const lock = map.lock();
   * assert.equal(map.locked, true);
   * lock.unlock();
   * assert.equal(map.locked, false);
   * ```
   */
  unlock(): void {
    this.#locker.release(this, 0);
  }

  /** As `unlock`, at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.unlock();
  }
}

/** What a `Locker` must know of the open object it locks. */
export interface Lockable {
  readonly native: Native;
  /** Zero once closed. */
  readonly handle: number;
  /** How long calls wait unless they say otherwise. */
  readonly timeout: number;
  /** Throws unless open, and open for such a lock; `shared` is 1 or 0. */
  assertLockable(action: string, shared: number): void;
  /** The error for a negative result of a call that was to do `action`. */
  failure(status: number, action: string, details?: FailureDetails): Error;
}

/** What the library's own record of a failure does not say. */
interface FailureDetails {
  readonly timeout?: number;
  /** The process that holds what was waited for. */
  readonly holder?: number;
  /** How many entries of a bulk call were stored before. */
  readonly stored?: number;
}

/** What regions understand besides: locks that several may hold at once. */
interface Sharing {
  shared?: boolean;
}

const { absent: ABSENT, locked: LOCKED, timeout: TIMEOUT } = statuses;
const IDENTITY_BYTES = 16;
/**
 * Where nothing wakes it, the first in line tries again after 1, 2, 4, 8 and from then on 10
 * milliseconds. After 10 the library lets it become first among the processes as well.
 */
const LONGEST_PAUSE_MS = 10;
/** How long it sleeps where a bell wakes it: a wake-up may die with who was to give it. */
const SLICE_MS = 50;
/** Each sleep takes a thread of a pool that files need too: those beyond these use timers. */
const SLEEPS_MAX = 4;
/** Timers with more than this fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

const IDENTITY = new Scratch(IDENTITY_BYTES);
const BELL = new Scratch(16);

/** What every signal has: one made to deceive has its own besides, which would fail in line. */
const { addEventListener, removeEventListener } = AbortSignal.prototype;
const abortedOf = Object.getOwnPropertyDescriptor(AbortSignal.prototype, "aborted")!.get!;

/** How many sleeps of this isolate have not ended. */
let sleepCount = 0;

/** How many locks this isolate holds: writes look no further while it is none. */
let heldCount = 0;

/** Everybody in this isolate who holds or waits for a lock, by the identity of the lock. */
const lines = new Map<string, Line>();

/** The locking of one open handle, which holds one lock at a time. */
export class Locker {
  readonly owner: Lockable;
  /** Whether locks are shared unless asked otherwise; undefined where all are exclusive. */
  readonly #isShared: boolean | undefined;
  #identity: string | undefined;
  /** The lock this handle holds. From here the registry of lines keeps it and its owner alive. */
  #lock: Lock | undefined;

  constructor(owner: Lockable, isShared?: boolean) {
    this.owner = owner;
    this.#isShared = isShared;
  }

  /** Waits for the lock, blocking the isolate. */
  lock(options?: LockOptions & Sharing, action = "lock"): Lock {
    const asked = checkObject(options);
    const timeout = checkTimeout(asked.timeout, this.owner.timeout);
    const shared = this.#sharedIn(asked);
    this.owner.assertLockable(action, shared);
    const line = lines.get(this.identity);
    if (line?.isBlocked(this, shared)) throw this.owner.failure(LOCKED, action);
    line?.stepAside();
    const { native, handle } = this.owner;
    const result = native.shm_lock_acquire(handle, shared, timeout);
    if (result < 0) throw this.owner.failure(result, action, { timeout });
    return this.grant(shared, result);
  }

  /** The lock if it can be had at once. */
  tryLock(options?: Sharing): Lock | undefined {
    const shared = this.#sharedIn(checkObject(options));
    this.owner.assertLockable("lock", shared);
    const line = lines.get(this.identity);
    // Who is in line comes first, even if the lock is free at this moment.
    if (line !== undefined && (line.waiters.size > 0 || line.isBlocked(this, shared))) {
      return undefined;
    }
    const { native, handle } = this.owner;
    const result = native.shm_lock_try(handle, shared, 0);
    if (result === ABSENT) return undefined;
    if (result < 0) throw this.owner.failure(result, "lock");
    return this.grant(shared, result);
  }

  /** Waits in line for the lock. */
  lockAsync(options?: AsyncLockOptions & Sharing): Promise<Lock> {
    return new Promise((resolve, reject) => {
      const asked = checkObject(options);
      const { signal } = asked;
      const timeout = checkTimeout(asked.timeout, this.owner.timeout);
      const shared = this.#sharedIn(asked);
      if (signal !== undefined && (!(signal instanceof AbortSignal) || types.isProxy(signal))) {
        throw wrongType("signal", "an AbortSignal", signal);
      }
      this.owner.assertLockable("lock", shared);
      if (signal !== undefined && abortedOf.call(signal)) throw signal.reason;
      this.#line().add(new Waiter(this, shared, timeout, signal, resolve, reject));
    });
  }

  /** Whether anybody holds the lock, this isolate included. */
  get locked(): boolean {
    const { native, handle } = this.owner;
    const result = native.shm_lock_held(handle);
    if (result < 0) throw this.owner.failure(result, "describe");
    return result === 1;
  }

  /** Throws "Locked" before a write that would wait for a lock of this very isolate. */
  assertFree(action: string, details?: FailureDetails): void {
    if (heldCount !== 0 && this.#lock === undefined) this.#assertNotLockedHere(action, details);
  }

  #assertNotLockedHere(action: string, details: FailureDetails | undefined): void {
    if (this.owner.handle === 0) return; // the call itself says "Closed"
    const line = lines.get(this.identity);
    if (line !== undefined && line.holders.size > 0) {
      throw this.owner.failure(LOCKED, action, details);
    }
  }

  /** Runs `task` under the lock: the one this handle holds, or one that is taken for it. */
  during<T>(action: string, task: () => T): T {
    if (this.#lock !== undefined) return task();
    const lock = this.lock(undefined, action);
    try {
      return task();
    } finally {
      // Whoever locks next learns of a death that this call was not asked to make good.
      this.release(lock, lock.recovered ? 1 : 0);
    }
  }

  /** Takes note of a lock that the library has granted; `result` is what it said. */
  grant(shared: number, result: number): Lock {
    const lock = makeLock(this, result === 1);
    this.#lock = lock;
    this.#line().holders.set(this, shared);
    heldCount += 1;
    return lock;
  }

  /** Gives `lock` back if it is still held. */
  release(lock: Lock, keep: number): void {
    if (this.#lock !== lock) return;
    const { native, handle } = this.owner;
    const result = native.shm_lock_release(handle, keep);
    this.#forget();
    if (result < 0) throw this.owner.failure(result, "unlock");
  }

  /** To be called when the handle is closed, with which the library has released its lock. */
  closed(): void {
    const line = this.#identity === undefined ? undefined : lines.get(this.#identity);
    if (line === undefined) return;
    for (const waiter of [...line.waiters].filter(({ locker }) => locker === this)) {
      line.leave(waiter, this.owner.failure(statuses.closed, "lock"));
    }
    this.#forget();
  }

  /** The lock is no longer held: the next in line may have it. */
  #forget(): void {
    if (this.#lock === undefined) return;
    this.#lock = undefined;
    heldCount -= 1;
    const line = this.#line();
    line.holders.delete(this);
    line.turn();
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

  #line(): Line {
    const { identity } = this;
    let line = lines.get(identity);
    if (line === undefined) lines.set(identity, line = new Line(identity));
    return line;
  }

  #sharedIn({ shared }: Sharing): number {
    if (this.#isShared === undefined) return 0;
    checkType("shared", shared, "boolean");
    return shared ?? this.#isShared ? 1 : 0;
  }
}

/** Everybody in this isolate who holds one lock or waits for it. */
class Line {
  /** The handles that hold it; more than one where locks are shared. */
  readonly holders = new Map<Locker, number>();
  /** Who waits, in the order of arrival. */
  readonly waiters = new Set<Waiter>();
  readonly #identity: string;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** How often the first in line has tried since it came there or this isolate unlocked. */
  #attempts = 0;
  /** Counts turns, so that a sleep knows whether it is the last one. */
  #turns = 0;

  constructor(identity: string) {
    this.#identity = identity;
  }

  /** Whether this isolate itself is in the way, so that waiting for others helps nothing. */
  isBlocked(locker: Locker, shared: number): boolean {
    for (const [holder, holdsShared] of this.holders) {
      if (holder === locker || shared === 0 || holdsShared === 0) return true;
    }
    return false;
  }

  /** Adds a waiter; the promise may be settled when this returns. */
  add(waiter: Waiter): void {
    this.waiters.add(waiter);
    if (this.first === waiter) this.turn();
    if (!this.waiters.has(waiter)) return;
    try {
      waiter.await(this);
    } catch (cause) {
      // The runtime reads options from where a program may have put some, `Object.prototype` say.
      this.leave(waiter, new TypeError("Cannot lock: the signal cannot be heard", { cause }));
    }
  }

  get first(): Waiter | undefined {
    return this.waiters.values().next().value;
  }

  /** Tries for the first in line, and for the next ones as long as that succeeds. */
  turn(): void {
    this.#awake();
    for (const waiter of this.waiters) {
      const { locker, shared } = waiter;
      if (this.isBlocked(locker, shared)) {
        this.#attempts = 0;
        return; // the unlock that helps calls this again
      }
      const { native, handle } = locker.owner;
      // Listens before it tries: a release in between ends the sleep at once.
      const hasBell = canWait && native.shm_lock_bell(handle, BELL.bytes, BELL.bytes.length) > 0;
      const result = native.shm_lock_try(handle, shared, waiter.waited);
      if (result === ABSENT) {
        if (hasBell && sleepCount < SLEEPS_MAX) this.#sleepUntilRung(native, waiter.waited);
        else this.#sleepAwhile();
        return;
      }
      this.#remove(waiter);
      if (result >= 0) waiter.resolve(locker.grant(shared, result));
      else waiter.reject(locker.owner.failure(result, "lock"));
    }
    if (this.holders.size === 0) lines.delete(this.#identity);
  }

  /** Ends the sleep; one on a thread of the pool ends by itself, and wakes nobody any more. */
  #awake(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#turns += 1;
  }

  #sleepAwhile(): void {
    const pause = Math.min(2 ** this.#attempts, LONGEST_PAUSE_MS);
    this.#timer = setTimeout(() => this.turn(), pause);
    this.#attempts += 1;
  }

  async #sleepUntilRung(native: Native, waited: number): Promise<void> {
    const turn = this.#turns;
    const slice = waited < LONGEST_PAUSE_MS ? LONGEST_PAUSE_MS - waited : SLICE_MS;
    const [bell, count] = [BELL.view.getFloat64(0, true), BELL.view.getFloat64(8, true)];
    sleepCount += 1;
    await native.shm_bell_wait(bell, count, slice);
    sleepCount -= 1;
    if (turn === this.#turns) this.turn();
  }

  /** Before a call that blocks this isolate: the first in line must not keep its place from it. */
  stepAside(): void {
    const { first } = this;
    if (first !== undefined) first.cancel();
  }

  /** Gives up at the deadline, unless the lock can be had at this very moment. */
  expire(waiter: Waiter): void {
    this.turn();
    if (!this.waiters.has(waiter)) return;
    const { locker, timeout } = waiter;
    const holder = this.holders.size > 0 ? process.pid : this.first!.holder;
    this.leave(waiter, locker.owner.failure(TIMEOUT, "lock", { timeout, holder }));
  }

  /** Takes a waiter out before its turn. */
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
    waiter.settle();
  }
}

/** One task in line. */
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

  /** For how long it has been waiting, in milliseconds. */
  get waited(): number {
    return performance.now() - this.#since;
  }

  /** The process that was in the way of the last try, as the library knows it. */
  get holder(): number {
    const { native, handle } = this.locker.owner;
    FAULT.bytes.fill(0);
    native.shm_fault(handle, FAULT.bytes);
    return holderIn(FAULT.bytes);
  }

  /** Watches for what ends the wait before its turn. */
  await(line: Line): void {
    const signal = this.#signal;
    if (signal !== undefined) {
      this.#onAbort = () => line.leave(this, signal.reason);
      addEventListener.call(signal, "abort", this.#onAbort);
    }
    this.#arm(line);
  }

  #arm(line: Line): void {
    const left = Math.max(0, this.timeout - this.waited);
    if (left === Infinity) return;
    const isLast = left <= LONGEST_TIMER_MS;
    this.#timer = setTimeout(
      () => isLast ? line.expire(this) : this.#arm(line),
      isLast ? left : LONGEST_TIMER_MS,
    );
  }

  /** Nothing is to be watched for any more. */
  settle(): void {
    clearTimeout(this.#timer);
    if (this.#onAbort === undefined) return;
    try {
      removeEventListener.call(this.#signal!, "abort", this.#onAbort);
    } catch {
      // As in `Line.add`. It may still hear of an abort, and has no place to leave then.
    }
  }

  /** Tells the library that the handle gives up its place among the processes. */
  cancel(): void {
    const { native, handle } = this.locker.owner;
    if (handle !== 0) native.shm_lock_cancel(handle);
  }
}
