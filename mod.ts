/**
 * Maps, values and raw regions that processes share, with locks that survive their holders, for
 * Deno and Bun.
 *
 * Processes that open the same name see the same entries at once. Any of them may be killed at any
 * instant: the others go on with the old or the new value of every key, never a mixture. No size
 * has to be stated.
 *
 * @example Count words from several processes
 * ```ts
 * import { SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 *
 * using words = SharedMap.open<number>("shmap-example", { mode: "exclusive" });
 * for (const word of ["to", "be", "or", "not", "to", "be"]) {
 *   words.update(word, (count = 0) => count + 1);
 * }
 * assert.deepEqual(words.toObject(), { to: 2, be: 2, or: 1, not: 1 });
 * words.unlink();
 * ```
 *
 * @example Keep two values in step
 * ```ts
 * import { SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 *
 * using accounts = SharedMap.anonymous<number>().set("from", 10).set("to", 0);
 * {
 *   using lock = await accounts.lockAsync();
 *   if (lock.recovered) console.log("the last holder died between its two writes");
 *   accounts.set("from", 7).set("to", 3); // no other process writes in between
 * }
 * assert.deepEqual(accounts.toObject(), { from: 7, to: 3 });
 * ```
 *
 * @module
 */
export { SharedMap } from "./src/shared_map.ts";
export { type FrozenOption, SharedValue } from "./src/shared_value.ts";
export { Mmap } from "./src/mmap.ts";
export { Lock } from "./src/lock/lock.ts";
export type { AsyncLockOptions, LockOptions, RegionLockOptions } from "./src/lock/lock.ts";
export type { AnonymousOptions, AttachOptions, OpenOptions } from "./src/segment/options.ts";
export type { Entry, ReplaceOptions, VersionOptions } from "./src/segment/conditions.ts";
export type { Counted, CountOptions } from "./src/segment/counters.ts";
export type { MapVerbs } from "./src/segment/verbs.ts";
export type { PrefixOptions, ScanOptions, ScanPage } from "./src/segment/scan.ts";
export type { SharedObject } from "./src/segment/shared_object.ts";
export type { MapStats } from "./src/segment/segment.ts";
export type { Expiry, ExpiryOptions } from "./src/segment/expiry.ts";
export type { SegmentInfo } from "./src/segment/directory.ts";
export type { VerifyReport } from "./src/segment/entries.ts";
export type { MmapOptions } from "./src/segment/region.ts";
export type { Codec } from "./src/values/kinds.ts";
export { pack, type PackValue, unpack, type UnpackedValue } from "./src/pack/pack.ts";
export { type ErrorCode, SharedMemoryError } from "./src/errors.ts";
