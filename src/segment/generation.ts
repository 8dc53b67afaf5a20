/**
 * The end of an isolate whose thread lives on, and of a module that its runtime loads again: what
 * it has open is closed, and the locks that it holds are abandoned, so that the next holder finds
 * them `recovered`. The library itself sees the end of a thread.
 *
 * Deno dispatches `unload` before it starts a program again (`--watch`) and before it goes on to
 * the next file of tests. Bun dispatches nothing: with `--hot` it evaluates the same module once
 * more in the same realm, where the new generation finds the one before by its address. An isolate
 * that is gone without a word (`--watch-hmr`, `bun test --isolate`) is noticed by the library, when
 * the next one on its thread opens it (`enterRealm` in `../ffi/native.ts`).
 *
 * @module
 */
import { atIsolateEnd, evaluatesAgain, native } from "../ffi/native.ts";

/** An open object. */
export interface Owner {
  /** Zero once closed. */
  handle: number;
  /** Called after the library has closed its handle. */
  abandoned(): void;
}

/** One evaluation of this module. */
interface Generation {
  readonly url: string;
  end(): void;
}

/** What is open, by handle. Weak, so that what the program forgets is closed, too. */
const open = new Map<number, WeakRef<Owner>>();

/** Notes that `owner` has opened `handle`. */
export function noteOpen(handle: number, owner: Owner): void {
  open.set(handle, new WeakRef(owner));
}

/** Notes that `handle` is closed. */
export function noteClosed(handle: number): void {
  open.delete(handle);
}

/** Abandons all that is open. */
function end(): void {
  const ending = [...open];
  open.clear();
  // All of them before the first lock is let go: a task that waits must not get it now.
  for (const [, owner] of ending) {
    const object = owner.deref();
    if (object !== undefined) object.handle = 0;
  }
  for (const [handle, owner] of ending) {
    native().shm_realm_abandon(handle);
    owner.deref()?.abandoned();
  }
}

const GENERATIONS = Symbol.for("shmap.generations");
const realm = globalThis as { [GENERATIONS]?: Generation[] };

/** Ends the generation before this one where the runtime has evaluated this module again. */
function succeed(): void {
  const all = realm[GENERATIONS] ??= [];
  // Another copy of this module has another address, and goes on.
  const isBefore = ({ url }: Generation) => url === import.meta.url;
  for (const before of all.filter(isBefore)) before.end();
  realm[GENERATIONS] = [...all.filter((each) => !isBefore(each)), { url: import.meta.url, end }];
}

if (evaluatesAgain) succeed();
atIsolateEnd(end);
