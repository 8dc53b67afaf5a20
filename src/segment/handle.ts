/**
 * What segments and regions share: one open handle of the library, with its lock, its token and the
 * errors of its calls. It is closed by `close`, or after the program has forgotten it.
 */
import { type Attempt, failure, type FailureDetails, SharedMemoryError } from "../errors.ts";
import { type Native, native } from "../ffi/native.ts";
import { DATA, FAULT } from "../ffi/scratch.ts";
import { type Lockable, Locker } from "../lock/lock.ts";
import { noteClosed, noteOpen } from "./generation.ts";
import { DEFAULT_TIMEOUT } from "./options.ts";

/** How messages describe an object, the same for each action on it. */
export type Subject = Omit<Attempt, "action">;

/** The library's functions for one kind of handle. */
export interface HandleCalls {
  readonly close: "shm_segment_close" | "shm_region_close";
  readonly token: "shm_segment_token" | "shm_region_token";
}

/** Closes handles whose objects were garbage collected. It must not hold the objects themselves. */
const forgotten = new FinalizationRegistry<{ close: HandleCalls["close"]; handle: number }>(
  ({ close, handle }) => {
    noteClosed(handle);
    native()[close](handle);
  },
);

/** One open handle, and all of it that outlives the public object. */
export abstract class Handle implements Lockable {
  readonly native: Native;
  /** Zero once closed. The library refuses a call with zero. */
  handle: number;
  readonly subject: Subject;
  /** How long calls wait for other processes by default, in milliseconds. */
  readonly timeout: number;
  readonly locker: Locker;
  readonly #calls: HandleCalls;

  /**
   * @param handle What the library's open returned, checked by `checkOpened`: above zero.
   * @param isShared Whether a lock is shared where the caller does not say: for `Locker`.
   */
  constructor(
    library: Native,
    handle: number,
    calls: HandleCalls,
    subject: Subject,
    isShared?: boolean,
  ) {
    this.native = library;
    this.handle = handle;
    this.subject = subject;
    this.timeout = subject.timeout ?? DEFAULT_TIMEOUT;
    this.locker = new Locker(this, isShared);
    this.#calls = calls;
    forgotten.register(this, { close: calls.close, handle }, this);
    noteOpen(handle, this);
  }

  /** How messages name it: `map "jobs"`. */
  get label(): string {
    return this.subject.thing;
  }

  /**
   * The error for a negative result of a call that was to do `action`, with what the library notes
   * about the last failed call of this handle: ask before the next call.
   */
  failure(status: number, action: string, details?: FailureDetails): Error {
    if (this.handle === 0) return this.refusal("Closed", action, "it is closed");
    FAULT.bytes.fill(0);
    this.native.shm_fault(this.handle, FAULT.bytes);
    return faultError(status, action, { ...this.subject, ...details });
  }

  /** Throws `"Closed"` unless open. */
  assertOpen(action: string): void {
    if (this.handle === 0) throw this.refusal("Closed", action, "it is closed");
  }

  /** Throws unless a lock can be had here: an exclusive one, or with `shared` 1 a shared one. */
  abstract assertLockable(action: string, shared: number): void;

  /** The error for an action that this handle cannot do. */
  protected refusal(
    code: "Closed" | "ReadOnly" | "WriteOnly" | "Unsupported",
    action: string,
    why: string,
  ): SharedMemoryError {
    return new SharedMemoryError(code, `Cannot ${action} ${this.label}: ${why}`);
  }

  /**
   * The string that leads other processes to the same segment or region; the same for as long as
   * this handle is open. Throws `"Closed"`, and `"Unsupported"` for a region over a file.
   */
  get token(): string {
    this.assertOpen("identify");
    DATA.end = 0;
    const length = this.native[this.#calls.token](this.handle, DATA.bytes, DATA.bytes.length);
    if (length < 0) throw this.failure(length, "identify");
    return DATA.text.utf8Slice(0, length);
  }

  /** Closes the handle, with which the library releases its lock. Closing twice does nothing. */
  close(): void {
    const { handle } = this;
    if (handle === 0) return;
    this.handle = 0;
    forgotten.unregister(this);
    noteClosed(handle);
    this.native[this.#calls.close](handle);
    this.locker.closed();
  }

  /** The library has closed the handle, because this isolate ends. */
  abandoned(): void {
    forgotten.unregister(this);
    this.locker.closed();
  }
}

/** The result of an open that was to do `action`. Throws its error if it gave no handle. */
export function checkOpened(handle: number, action: string, subject: Subject): number {
  if (handle > 0) return handle;
  throw faultError(handle, action, subject);
}

/** The error for a negative result of a call that has left its fault record in `FAULT`. */
export function faultError(status: number, action: string, subject: Subject): Error {
  return failure(status, { ...subject, action }, FAULT.bytes);
}
