/**
 * Maps, values and raw regions that processes share, with locks that survive their holders, for
 * Deno and Bun.
 *
 * Processes that open the same name see the same entries at once. Any of them may be killed at any
 * instant: the others go on with the old or the new value of every key, never a mixture. Nobody
 * ever states a size.
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
 *   if (lock.recovered) console.log("whoever had the lock died between its two writes");
 *   accounts.set("from", 7).set("to", 3); // nobody else writes in between
 * }
 * assert.deepEqual(accounts.toObject(), { from: 7, to: 3 });
 * ```
 *
 * @module
 */
export { SharedMap } from "./src/shared_map.ts";
export type {
  AnonymousOptions,
  AttachOptions,
  Codec,
  MapStats,
  OpenOptions,
  SegmentInfo,
  SharedObject,
  VerifyReport,
} from "./src/shared_map.ts";
export { type FrozenOption, SharedValue } from "./src/shared_value.ts";
export { Mmap, type MmapOptions, type RegionLockOptions } from "./src/mmap.ts";
export { type AsyncLockOptions, Lock, type LockOptions } from "./src/lock/lock.ts";
export { pack, type PackValue, unpack, type UnpackedValue } from "./src/pack/pack.ts";
export { type ErrorCode, SharedMemoryError } from "./src/errors.ts";
