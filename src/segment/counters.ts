/**
 * Counters: numbers and bigints that are added to in one step, in one crossing and by one commit.
 */
import { checkOptions, wrongType } from "../arguments.ts";
import { outcomes, records } from "../ffi/abi.ts";
import { offsetOf } from "../ffi/fields.ts";
import { DATA, KEY, OUT } from "../ffi/scratch.ts";
import { decode, encode, writeKey } from "../values/kinds.ts";
import type { Entry, Target } from "./conditions.ts";
import { endOf, type Expiry, type ExpiryOptions, NEVER } from "./expiry.ts";
import type { Segment } from "./segment.ts";
import { noteEnds } from "./sweeper.ts";
import { shortened } from "./value_io.ts";

/**
 * An entry whose value is a counter.
 *
 * @typeParam N `number` or `bigint`.
 *
 * @example
 * ```ts
 * import { type Counted, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.anonymous<number>();
 * const hits: Counted<number> = map.incrementEntry("hits");
 * assert.deepEqual([hits.value, hits.version], [1, map.getEntry("hits").version]);
 * ```
 */
export type Counted<N extends number | bigint> = Entry<N> & { readonly value: N };

/**
 * How an increment makes a counter that is absent: what it starts at, and when it ends. A counter
 * that is there is only added to, and keeps its end.
 *
 * @typeParam N `number` or `bigint`.
 *
 * @example
 * ```ts
 * import { type CountOptions, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.anonymous<number>();
 * const options: CountOptions = { initial: 100 };
 * assert.equal(map.increment("left", -1, options), 99);
 * assert.equal(map.increment("left", -1, options), 98);
 * ```
 */
export interface CountOptions<N extends number | bigint = number> extends ExpiryOptions {
  /** What is added to where there is no counter yet: 0 by default. */
  initial?: N | undefined;
}

const RECORD_BYTES = records.Counted.bytes;
const VALUE = offsetOf("Counted", "value");
const VERSION = offsetOf("Counted", "version");
const LENGTH = offsetOf("Counted", "len");
const KIND = offsetOf("Counted", "kind");
const { counted: COUNTED, otherType: OTHER_TYPE, outOfRange: OUT_OF_RANGE } = outcomes;
const EXPIRES = offsetOf("Counted", "expires");
const NAMES = ["initial", "ttl", "expires"];

/** Adds `by` to the number under `key`. The sum; the record of it is in `DATA`. */
export function increment(
  { segment, ttl }: Target,
  key: string,
  by: number | bigint = 1,
  options?: CountOptions<number | bigint>,
): number | bigint {
  if (segment.writeHandle === 0) segment.assertWritable("write");
  let initial: number | bigint | undefined;
  let expiry: Expiry | undefined;
  if (options !== undefined) {
    const stated = checkOptions(options, NAMES);
    initial = stated.initial;
    expiry = { ttl: stated.ttl, expires: stated.expires };
  }
  const end = endOf(expiry, ttl);
  if (typeof by !== "number" && typeof by !== "bigint") {
    throw wrongType("by", "a number or a bigint", by);
  }
  if (initial !== undefined && typeof initial !== typeof by) {
    throw wrongType("initial", `a ${typeof by}, as what is added`, initial);
  }
  segment.locker.assertFree("write");
  if (typeof by === "bigint") {
    const sum = incrementBig(segment, key, by, initial as bigint ?? 0n, end);
    if (end !== NEVER) noteEnds(segment);
    return sum;
  }
  const keyLength = writeKey(key, KEY.bytes, 0);
  const outcome = segment.native.shm_map_increment(
    segment.writeHandle,
    KEY.bytes,
    keyLength,
    by,
    initial as number ?? 0,
    end,
    DATA.bytes,
    DATA.bytes.length,
  );
  if (outcome !== COUNTED) throw refusal(segment, outcome, key, by);
  if (end !== NEVER) noteEnds(segment);
  return DATA.view.getFloat64(VALUE, true);
}

/** As `increment`; the entry as this step has left it. */
export function incrementEntry(
  target: Target,
  key: string,
  by: number | bigint | undefined,
  options: CountOptions<number | bigint> | undefined,
): Counted<number | bigint> {
  const value = increment(target, key, by, options);
  const version = DATA.view.getFloat64(VERSION, true);
  const expires = DATA.view.getFloat64(EXPIRES, true);
  return { key, value, version, expires: expires === NEVER ? undefined : expires };
}

function incrementBig(
  segment: Segment,
  key: string,
  by: bigint,
  initial: bigint,
  end: number,
): bigint {
  try {
    OUT.end = 0;
    const byKind = encode(by, undefined, OUT);
    const byLength = OUT.end;
    const kinds = byKind + 256 * encode(initial, undefined, OUT);
    const keyLength = writeKey(key, KEY.bytes, 0);
    for (;;) {
      const outcome = segment.native.shm_map_increment_big(
        segment.writeHandle,
        KEY.bytes,
        keyLength,
        OUT.bytes,
        OUT.end,
        byLength,
        kinds,
        end,
        DATA.bytes,
        DATA.bytes.length,
      );
      if (outcome < 0 || outcome === OTHER_TYPE) throw refusal(segment, outcome, key, by);
      const length = DATA.view.getInt32(LENGTH, true);
      if (outcome === COUNTED) {
        return decode(
          DATA,
          RECORD_BYTES,
          length,
          DATA.view.getInt32(KIND, true),
          undefined,
        ) as bigint;
      }
      DATA.end = 0;
      DATA.reserve(RECORD_BYTES + length);
    }
  } finally {
    OUT.release();
  }
}

/** The error for a step that was not counted, and has changed nothing. */
function refusal(segment: Segment, outcome: number, key: string, by: number | bigint): Error {
  if (outcome < 0) return segment.failure(outcome, "write");
  const step = `${by}`;
  const what = `Cannot add ${shortened(step)} to "${shortened(key)}" in ${segment.label}`;
  if (outcome === OUT_OF_RANGE) {
    return new RangeError(`${what}: the sum is not a number from -(2^53 - 1) to 2^53 - 1`);
  }
  return new TypeError(`${what}: its value is no ${typeof by}`);
}
