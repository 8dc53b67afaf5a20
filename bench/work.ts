/**
 * The work that every candidate of `bench/map.ts` does: keys, values, and the passes over them.
 *
 * Keys and values are the same for all, from a fixed seed, and made before any clock starts.
 */
import { Buffer } from "node:buffer";
import process from "node:process";
import { isDeepStrictEqual } from "node:util";
import { type Structure, structureOf } from "./structures.ts";

/** The kinds of value that are measured. */
export type ValueKind = "string" | "number" | "bytes" | "object" | Structure;

/** Why a candidate cannot run here. */
export class Unavailable extends Error {}

/** What one process is to measure. */
export interface Task {
  candidate: string;
  value: ValueKind;
  keys: number;
  /** How many operations one transaction holds. */
  transaction: number;
  /** Where its files may lie. */
  directory: string;
  /** The socket of the Redis server, if there is one. */
  redis?: string;
}

/** Keys, values and the order in which they are used. */
export interface Work {
  readonly task: Task;
  readonly keys: readonly string[];
  readonly absent: readonly string[];
  readonly values: readonly unknown[];
  /** What every value of this kind weighs: a pass adds up what it read. */
  readonly weigh: (value: unknown) => number;
}

/** One thing to measure. Exactly one of the four ways of doing it is given. */
export interface Operation {
  readonly who: string;
  readonly case: string;
  /** Whether it is handed keys that were never stored. */
  readonly isMiss?: boolean;
  /** What one operation adds to the sum, unless it is what a value weighs. */
  readonly weight?: number;
  /** Once; what it returns is added up. */
  readonly once?: (key: string, value: unknown) => number;
  /** Once; the result is awaited and weighed. */
  readonly awaited?: (key: string, value: unknown) => Promise<unknown>;
  /** For many keys at once; the results are weighed. */
  readonly many?: (keys: string[], values: unknown[]) => Promise<unknown[]> | unknown[];
  /** Weighs the results of the two above. */
  readonly weigh?: (result: unknown) => number;
  /** Runs `body` within one transaction. */
  readonly within?: (body: () => void) => void;
}

/** What gets and sets a value in any store. */
export type Get = (key: string) => unknown;
export type Put = (key: string, value: unknown) => unknown;

/** A candidate, with all keys stored. */
export interface Store {
  readonly operations: readonly Operation[];
  /** The value of a key, undefined if there is none: for checks outside the clock. */
  readonly read?: Get;
  /** How many bytes of memory or disk all entries take. */
  readonly allocated?: () => number;
  close(): unknown;
}

/** The length of a string value in bytes, and of one of bytes. */
const STRING_LENGTH = 32;
const BYTES_LENGTH = 1024;
/** How many different values take turns. */
const VALUES = 256;
/** How many keys are drawn beforehand; a power of two. */
const DRAWN = 2 ** 20;
/** How many keys cross in one call where many do. */
const MANY = 100;
/** How many keys are stored at once before the clock starts. */
const FILLED = 100;
/** A pass looks at the clock about as often as this. */
const LOOKS = 16;

/** Everything a candidate needs for its task. */
export function prepare(task: Task): Work {
  return {
    task,
    keys: Array.from({ length: task.keys }, (_, n) => flat(`user:session:${n}`)),
    absent: Array.from({ length: task.keys }, (_, n) => flat(`user:nothing:${n}`)),
    values: Array.from({ length: VALUES }, (_, n) => valueOf(task.value, n)),
    weigh: (WEIGH as Partial<Record<ValueKind, unknown>>)[task.value] as Work["weigh"] ?? isThere,
  };
}

/** The string in one piece, as a parser would make it; concatenation may leave it in two. */
function flat(text: string): string {
  return Buffer.from(text).toString("latin1");
}

function valueOf(kind: ValueKind, n: number): unknown {
  switch (kind) {
    case "string":
      return flat(`${n}`.padStart(STRING_LENGTH, "abcdefghijklmnop"));
    case "number":
      return n + 0.5;
    case "bytes":
      return new Uint8Array(BYTES_LENGTH).fill(n);
    case "object":
      return {
        id: n + 1,
        name: `Anna Example ${n}`,
        email: `anna.${n}@example.org`,
        role: "editor",
        active: true,
        visits: 17 * n,
        balance: n + 0.25,
        city: "Lisbon",
        created: 1_700_000_000_000 + n,
        referrer: null,
      };
    default:
      return structureOf(kind, n);
  }
}

const isThere = (value: unknown) => typeof value === "object" && value !== null ? 1 : 0;

const WEIGH = {
  string: (value: string) => value.length,
  number: (value: number) => value > 0 ? 1 : 0,
  bytes: (value: Uint8Array) => value.length,
  object: (value: { id: number }) => value.id > 0 ? 1 : 0,
};

/** What can be measured of everything that is called and returns. */
export function direct(who: string, { task, weigh }: Work, get: Get, set: Put): Operation[] {
  const miss = (key: string) => get(key) === undefined ? 1 : 0;
  return [
    { who, case: "get", once: (key) => weigh(get(key)) },
    ...(task.value === "string"
      ? [{ who, case: "miss", isMiss: true, weight: 1, once: miss }]
      : []),
    { who, case: "set", weight: 1, once: (key, value) => (set(key, value), 1) },
  ];
}

/** The same sets in transactions, each of which holds `set` for many keys. */
export function inTransactions(who: string, set: Put, within: Operation["within"]): Operation {
  const once = (key: string, value: unknown) => (set(key, value), 1);
  return { who, case: "set in a transaction", weight: 1, once, within };
}

/** Stores every key. */
export function fill({ keys, values }: Work, set: Put): void {
  keys.forEach((key, n) => set(key, values[n % values.length]));
}

/** Stores every key, some at a time. */
export async function fillInLots(
  { keys, values }: Work,
  store: (lot: string[], values: unknown[]) => Promise<unknown>,
): Promise<void> {
  for (let from = 0; from < keys.length; from += FILLED) {
    const lot = keys.slice(from, from + FILLED);
    await store(lot, lot.map((_, n) => values[(from + n) % values.length]));
  }
}

/** Throws unless `store` has what was stored, and its sets store. */
export async function verify(store: Store, work: Work): Promise<void> {
  const { read } = store;
  if (read === undefined) return;
  const { keys, absent, values, task } = work;
  const step = Math.ceil(keys.length / 100);
  for (let n = 0; n < keys.length; n += step) {
    const found = await read(keys[n]);
    if (!values.some((value) => isSame(value, found))) {
      throw new Error(`${task.candidate}: "${keys[n]}" has ${JSON.stringify(found)}`);
    }
    if (await read(absent[n]) !== undefined) {
      throw new Error(`${task.candidate}: "${absent[n]}" is there`);
    }
  }
  for (const operation of store.operations) {
    if (!operation.case.startsWith("set")) continue;
    const before = await read(keys[0]);
    const value = values.find((each) => !isSame(each, before));
    await doOnce(operation, keys[0], value);
    if (!isSame(value, await read(keys[0]))) {
      throw new Error(`${operation.who}, ${operation.case}: "${keys[0]}" was not stored`);
    }
  }
}

/** Whether these are the same value; a Buffer is as good as an array of bytes. */
function isSame(value: unknown, found: unknown): boolean {
  return isDeepStrictEqual(value, Buffer.isBuffer(found) ? new Uint8Array(found) : found);
}

/** Does an operation once, in any of its ways. */
async function doOnce(operation: Operation, key: string, value: unknown): Promise<void> {
  const { once, awaited, many, within = (body: () => void) => body() } = operation;
  if (once !== undefined) within(() => once(key, value));
  await awaited?.(key, value);
  await many?.([key], [value]);
}

/**
 * One pass of an operation: nanoseconds for each, after at least `ms`. Before, the same is done for
 * `settleMs`, or as often as there are keys, to bring back to the caches what the others that had
 * their turns have displaced.
 */
export type Pass = (ms: number, settleMs: number) => Promise<number>;

/** The passes of every operation of a store. */
export function passesOf(store: Store, work: Work): Pass[] {
  const order = draw(work.task.keys);
  return store.operations.map((operation) => passOf(operation, work, order));
}

/** Random indices, the same in every process. */
function draw(keys: number): Uint32Array {
  let state = 0x9e3779b9;
  return Uint32Array.from({ length: DRAWN }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * keys);
  });
}

/** Whether the runtime says at any time how many bytes its heap has; Bun does when it collects. */
export const countsGarbage: boolean = !("Bun" in globalThis);
/** As many calls do not fill what is collected at once, however much they leave behind. */
const GARBAGE_CALLS = 100;
const GARBAGE_RUNS = 20;

/**
 * How many bytes each call of an operation leaves to be collected, after the passes have had it
 * compiled. A collection within a run takes away from what it shows: so the larger ones count.
 */
export function garbageOf({ task, keys, values }: Work, { once }: Operation): number | undefined {
  if (once === undefined || !countsGarbage) return undefined;
  const order = draw(task.keys);
  let sum = 0;
  const grown: number[] = [];
  for (let run = 0, i = 0; run < GARBAGE_RUNS; run += 1) {
    const before = process.memoryUsage().heapUsed;
    for (const to = i + GARBAGE_CALLS; i < to; i += 1) {
      sum += once(keys[order[i]], values[i & (VALUES - 1)]);
    }
    grown.push((process.memoryUsage().heapUsed - before) / GARBAGE_CALLS);
  }
  if (sum <= 0) throw new Error("nothing was done");
  return grown.sort((a, b) => a - b)[Math.floor(0.75 * GARBAGE_RUNS)];
}

type Loop = (from: number, count: number) => number | Promise<number>;

function passOf(operation: Operation, work: Work, order: Uint32Array): Pass {
  const loop = loopOf(operation, work, order);
  const { once, many, within } = operation;
  const weight = operation.weight ?? work.weigh(work.values[0]);
  let count = within !== undefined ? work.task.transaction : many !== undefined ? MANY : 1;
  let from = 0;
  /** Does the operation for at least `ms`, or `most` times. */
  const run = async (ms: number, most: number) => {
    let done = 0;
    let sum = 0;
    let elapsed = 0;
    const start = performance.now();
    do {
      // Awaiting what is no promise would cost a turn of the event loop.
      const added = loop(from, count);
      sum += typeof added === "number" ? added : await added;
      const before = elapsed;
      elapsed = performance.now() - start;
      done += count;
      from = (from + count) % DRAWN;
      if (within === undefined && elapsed - before < ms / LOOKS) count *= 2;
    } while (elapsed < ms && done < most);
    if (sum !== done * weight) {
      throw new Error(`${operation.who}, ${operation.case}: ${sum} instead of ${done * weight}`);
    }
    return 1e6 * elapsed / done;
  };
  return async (ms, settleMs) => {
    if (once !== undefined && within === undefined) await run(settleMs, work.task.keys);
    return await run(ms, Infinity);
  };
}

/**
 * A loop of its own for each operation: were it shared, the runtime's compiler would see many
 * functions called from one place, and make no call of them as cheap as it is in a program.
 */
function loopOf(operation: Operation, work: Work, order: Uint32Array): Loop {
  const { once, awaited, many, within } = operation;
  const keys = operation.isMiss === true ? work.absent : work.keys;
  const weigh = operation.weigh ?? work.weigh;
  const source = once !== undefined ? ONCE : awaited !== undefined ? AWAITED : IN_LOTS;
  const make = new Function("operation", "keys", "values", "order", "weigh", source);
  const loop: Loop = make(once ?? awaited ?? many, keys, work.values, order, weigh);
  if (within === undefined) return loop;
  return (from, count) => {
    let sum = 0;
    within(() => sum = loop(from, count) as number);
    return sum;
  };
}

const PICK = `keys[order[i & ${DRAWN - 1}]], values[i & ${VALUES - 1}]`;

const ONCE = `return function (from, count) {
  let sum = 0;
  for (let i = from; i < from + count; i += 1) sum += operation(${PICK});
  return sum;
}`;

const AWAITED = `return async function (from, count) {
  let sum = 0;
  for (let i = from; i < from + count; i += 1) sum += weigh(await operation(${PICK}));
  return sum;
}`;

const IN_LOTS = `return async function (from, count) {
  let sum = 0;
  for (let lot = from; lot < from + count; lot += ${MANY}) {
    const lotKeys = [];
    const lotValues = [];
    for (let i = lot; i < lot + ${MANY}; i += 1) {
      lotKeys.push(keys[order[i & ${DRAWN - 1}]]);
      lotValues.push(values[i & ${VALUES - 1}]);
    }
    const results = await operation(lotKeys, lotValues);
    for (const result of results) sum += weigh(result);
  }
  return sum;
}`;
