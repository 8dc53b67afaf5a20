/**
 * One timer of the isolate that has entries removed which have ended, also where no process writes.
 * It runs while a map is open that this isolate may write to, keeps no program alive, and the
 * library sees to it that of many processes one does the work. Another process may store the first
 * entry that ends, and no call tells this one of it. So the timer looks once a second, which is a
 * load for each stripe of the map.
 */
import { clearTimeout, setTimeout } from "node:timers";
import { statuses } from "../ffi/abi.ts";
import type { Native } from "../ffi/native.ts";

/** A segment, as far as it concerns this. */
export interface Swept {
  readonly native: Native;
  /** Zero once closed. */
  readonly handle: number;
}

/** When to ask the library about each handle next. Weak, so that what is forgotten is closed. */
const due = new Map<number, { segment: WeakRef<Swept>; at: number }>();
let timer: ReturnType<typeof setTimeout> | undefined;

/** After entries with an end were stored in a segment. */
export function noteEnds(segment: Swept): void {
  if (!due.has(segment.handle)) sweep(segment);
}

/** How long after a look that found no entry with an end comes the next one, in milliseconds. */
const LOOK_MS = 1000;

/** Removes ended entries of a segment, now if it is due, and goes on while it is open. */
export function sweep(segment: Swept): void {
  const after = segment.native.shm_map_sweep(segment.handle);
  // The segment was replaced or closed.
  if (after < 0 && after !== statuses.absent) return stopSweeping(segment.handle);
  const at = performance.now() + (after < 0 ? LOOK_MS : after);
  due.set(segment.handle, { segment: new WeakRef(segment), at });
  arm();
}

/** Forgets a segment, which is closed or not to be written to any more. */
export function stopSweeping(handle: number): void {
  if (due.delete(handle)) arm();
}

/** Has the timer run out when the first segment is due, or not at all. */
function arm(): void {
  clearTimeout(timer);
  timer = undefined;
  if (due.size === 0) return;
  const first = Math.min(...[...due.values()].map(({ at }) => at));
  timer = setTimeout(turn, Math.max(first - performance.now(), 1));
  timer.unref();
}

function turn(): void {
  timer = undefined;
  const now = performance.now();
  for (const [handle, { segment, at }] of [...due]) {
    const open = segment.deref();
    if (open === undefined || open.handle === 0) due.delete(handle);
    else if (at <= now) sweep(open);
  }
  arm();
}
