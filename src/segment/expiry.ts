/**
 * When entries end: the arguments that say so, as they cross to the library.
 */
import { checkOptions, wrongType } from "../arguments.ts";

/**
 * When an entry ends: `ttl` milliseconds from now, or at `expires`, in milliseconds since 1970; not
 * both. `Infinity` says never. An entry that ends now or has ended is not stored, and what its key
 * had is removed.
 *
 * @example
 * ```ts
 * import { type ExpiryOptions, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * const hour: ExpiryOptions = { ttl: 3_600_000 };
 * using map = SharedMap.anonymous().set("a", 1, hour).set("b", 2, { expires: 0 });
 * assert.deepEqual(map.toObject(), { a: 1 });
 * ```
 */
export interface ExpiryOptions {
  /** Milliseconds from now on. */
  ttl?: number | undefined;
  /** Milliseconds since 1970, as `Date.now()` counts them. */
  expires?: number | undefined;
}

/**
 * When an entry ends; a bare number is a `ttl`.
 *
 * @example
 * ```ts
 * import { type Expiry, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * const soon: Expiry = 60_000;
 * using map = SharedMap.anonymous().set("a", 1, soon);
 * assert.equal(map.stats().expiring, 1);
 * ```
 */
export type Expiry = number | ExpiryOptions;

/** An end as it crosses: never. */
export const NEVER = 0;
/** An end as it crosses: that of the entry which is replaced. */
export const KEPT = -1;
/** An end as it crosses: one that has passed. */
const PAST = 1;
/** What lies behind this does not cross, and is as good as never. */
const LATEST = Number.MAX_SAFE_INTEGER;

/** The end that `expiry` says, as it crosses, or that of a `ttl` of the handle. */
export function endOf(expiry: Expiry | undefined, handleTtl: number): number {
  if (expiry === undefined) return endAfter(handleTtl);
  if (typeof expiry === "number") return endAfter(checkTime("ttl", expiry));
  return statedEnd(expiry) ?? endAfter(handleTtl);
}

/** The end that `expiry` says, where it has to say one. */
export function endToSet(expiry: Expiry): number {
  const end = typeof expiry === "number" ? endOf(expiry, Infinity) : statedEnd(expiry);
  if (end !== undefined) return end;
  throw new TypeError("Cannot use these options: they state neither ttl nor expires");
}

/** The end that options state, if they do. */
function statedEnd(options: ExpiryOptions): number | undefined {
  if (typeof options !== "object" || options === null) {
    throw wrongType("expiry", "a number or an object with ttl or expires", options);
  }
  const { ttl, expires } = checkOptions(options, ["ttl", "expires"]);
  if (ttl !== undefined && expires !== undefined) {
    throw new TypeError("Cannot use both ttl and expires: state one of them");
  }
  if (ttl !== undefined) return endAfter(checkTime("ttl", ttl));
  return expires === undefined ? undefined : endAt(checkTime("expires", expires), Date.now());
}

/** The default end of what a handle stores. */
export function checkHandleTtl(ttl: number | undefined): number {
  if (ttl === undefined) return Infinity;
  if (checkTime("ttl", ttl) > 0) return ttl;
  throw new RangeError(`Cannot use ttl ${ttl}: it must be more than 0`);
}

function checkTime(option: string, time: number): number {
  if (typeof time !== "number" || Number.isNaN(time)) throw wrongType(option, "a number", time);
  return time;
}

function endAfter(ttl: number): number {
  if (ttl === Infinity) return NEVER;
  const now = Date.now();
  return endAt(now + ttl, now);
}

function endAt(time: number, now: number): number {
  if (time <= now) return PAST;
  return time < LATEST ? Math.ceil(time) : NEVER; // never early by a part of a millisecond
}
