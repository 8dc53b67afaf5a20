/**
 * Keys page by page, from any process, and what asks for keys by how they begin.
 */
import { checkInteger, checkOptions, checkType } from "../arguments.ts";
import { records } from "../ffi/abi.ts";
import { offsetOf } from "../ffi/fields.ts";
import { DATA, KEY } from "../ffi/scratch.ts";
import { writeKey } from "../values/kinds.ts";
import { Records } from "./records.ts";
import type { Segment } from "./segment.ts";

/**
 * Which keys.
 *
 * @example
 * ```ts
 * import { type PrefixOptions, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.anonymous<number>().set("user:1", 1).set("job:1", 2);
 * const users: PrefixOptions = { prefix: "user:" };
 * assert.deepEqual([...map.keys(users)], ["user:1"]);
 * ```
 */
export interface PrefixOptions {
  /** How they begin; all keys by default. */
  prefix?: string | undefined;
}

/**
 * Which keys, from where on, and how many of them.
 *
 * @example
 * ```ts
 * import { type ScanOptions, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.anonymous<number>().set("a", 1).set("b", 2);
 * const options: ScanOptions = { limit: 1 };
 * const first = map.scan(options);
 * const second = map.scan({ ...options, cursor: first.cursor });
 * assert.deepEqual([...first.keys, ...second.keys].sort(), ["a", "b"]);
 * ```
 */
export interface ScanOptions extends PrefixOptions {
  /** What the page before gave; the first page by default. */
  cursor?: string | undefined;
  /** The most keys of a page: 1,000 by default. */
  limit?: number | undefined;
}

/**
 * A page of keys.
 *
 * @example
 * ```ts
 * import { type ScanPage, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.anonymous<number>().set("a", 1);
 * const { keys, cursor }: ScanPage = map.scan();
 * assert.deepEqual([keys, cursor], [["a"], undefined]);
 * ```
 */
export interface ScanPage {
  /** The keys, in no order. */
  keys: string[];
  /** What the next page is asked for with; undefined: this is the last. */
  cursor: string | undefined;
}

const LIMIT = 1000;
const LIMIT_MOST = 2 ** 32 - 1;
const CURSOR_BYTES = records.ScanCursor.bytes;
const HASH = offsetOf("ScanCursor", "hash");
const TIE = offsetOf("ScanCursor", "tie");
const MORE = offsetOf("ScanCursor", "more");
/** A place of the order, as digits; and, where two keys have the same, how they differ. */
const CURSOR = /^[0-9a-f]{16}(?:[0-9a-f]{16})?$/;

/** The bytes of a prefix; undefined: any key begins so. */
export function prefixIn(options: PrefixOptions | undefined): Uint8Array | undefined {
  if (options === undefined) return undefined;
  const { prefix } = checkOptions(options, ["prefix"]);
  return bytesOf(prefix);
}

function bytesOf(prefix: string | undefined): Uint8Array | undefined {
  checkType("prefix", prefix, "string");
  if (prefix === undefined || prefix === "") return undefined;
  return KEY.bytes.slice(0, writeKey(prefix, KEY.bytes, 0));
}

/** The next keys. */
export function scan(segment: Segment, options: ScanOptions | undefined): ScanPage {
  const { prefix, cursor, limit } = checkOptions(options, ["prefix", "cursor", "limit"]);
  segment.assertOpen("iterate over");
  const bytes = bytesOf(prefix);
  const most = checkInteger("limit", limit, 1, LIMIT_MOST) ?? LIMIT;
  writeCursor(cursor);
  const { native, handle } = segment;
  const length = bytes?.length ?? 0;
  const found = native.shm_map_scan(handle, bytes ?? null, length, most, DATA.bytes, CURSOR_BYTES);
  const next = found < 0 ? undefined : readCursor();
  const gathered = new Records();
  gathered.take(segment, found);
  const keys: string[] = [];
  while (gathered.next()) keys.push(gathered.key);
  return { keys, cursor: next };
}

function writeCursor(cursor: string | undefined): void {
  checkType("cursor", cursor, "string");
  DATA.bytes.fill(0, 0, CURSOR_BYTES);
  if (cursor === undefined) return;
  if (!CURSOR.test(cursor)) {
    throw new TypeError(
      `Cannot use ${JSON.stringify(cursor.slice(0, 100))} as cursor: it must be what scan gave`,
    );
  }
  DATA.view.setBigUint64(HASH, BigInt(`0x${cursor.slice(0, 16)}`), true);
  DATA.view.setBigUint64(TIE, BigInt(`0x0${cursor.slice(16)}`), true);
}

function readCursor(): string | undefined {
  const { view } = DATA;
  if (view.getInt32(MORE, true) === 0) return undefined;
  const tie = view.getBigUint64(TIE, true);
  return digits(view.getBigUint64(HASH, true)) + (tie === 0n ? "" : digits(tie));
}

function digits(word: bigint): string {
  return word.toString(16).padStart(16, "0");
}
