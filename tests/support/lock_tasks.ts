/** Work under locks, and on shared values, done by a child process on a single command. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import process from "node:process";
import type { Lock, SharedMap, SharedValue } from "../../mod.ts";
import { isTooOld } from "./lifetime.ts";
import { STOP } from "./tasks.ts";

type Say = (text: string) => void;
type Task<Shared, Args> = (object: Shared, args: Args, say: Say) => unknown;

/** How a task gets the lock. */
export type Way = "lock" | "lockAsync" | "tryLock";

function isStopped(map: SharedMap): boolean {
  return isTooOld() || map.has(STOP);
}

async function take(object: SharedMap | SharedValue, way: Way): Promise<Lock> {
  const options = { timeout: 60_000 };
  if (way === "lock") return object.lock(options);
  if (way === "lockAsync") return await object.lockAsync(options);
  for (;;) {
    const lock = object.tryLock();
    if (lock !== undefined) return lock;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Keeps this process busy for a while. */
function dawdle(): void {
  const end = performance.now() + 8;
  while (performance.now() < end);
}

/** Has the lock nearly always, until told to stop; gives how often it took it. */
function hog(map: SharedMap): number {
  let sections = 0;
  for (; !isStopped(map); sections += 1) {
    using _lock = map.lock({ timeout: 60_000 });
    dawdle();
  }
  return sections;
}

interface SectionArgs {
  way: Way;
  /** How often; without it, until told to stop. */
  times?: number;
  /** Whether to print a dot before each. */
  dots?: boolean;
}

/**
 * Changes two keys that are equal whenever no holder is between its lock and its unlock; gives how
 * often it had to mend what the death of a holder left.
 */
async function pairs(
  map: SharedMap,
  { way, times = Infinity, dots = false }: SectionArgs,
  say: Say,
): Promise<{ sections: number; recoveries: number }> {
  let [sections, recoveries] = [0, 0];
  for (; sections < times && !isStopped(map); sections += 1) {
    if (dots) say(".");
    using lock = await take(map, way);
    const [left = 0, right = 0] = map.getMany(["left", "right"]) as number[];
    if (lock.recovered) recoveries += 1;
    else if (left !== right) assert.fail(`not alone: ${left} and ${right}`);
    map.set("left", left + 1);
    if (dots) dawdle(); // most deaths are to come here
    map.set("right", left + 1);
  }
  if (dots) say("\n");
  return { sections, recoveries };
}

/** Looks that no write of another handle comes between two reads under the lock. */
async function guard(map: SharedMap, { way, times = Infinity }: SectionArgs): Promise<number> {
  let sections = 0;
  for (; sections < times && !isStopped(map); sections += 1) {
    using _lock = await take(map, way);
    const before = map.get("scribble");
    for (let i = 0; i < 20; i += 1) map.set(`guarded ${i}`, sections);
    const after = map.get("scribble");
    if (before !== after) assert.fail(`written during a lock: ${before}, then ${after}`);
  }
  return sections;
}

/** Writes without a lock until told to stop. */
function scribble(map: SharedMap, { owner }: { owner: number }): number {
  let count = 0;
  for (; !isStopped(map); count += 1) map.set("scribble", `${owner} ${count}`);
  return count;
}

/** Takes the lock and gives it back a while after the answer. */
function lockFor(map: SharedMap, { ms }: { ms: number }): boolean {
  const lock = map.lock();
  setTimeout(() => lock.unlock(), ms);
  return lock.recovered;
}

/** The share of one core this process takes, and how long it waits for a file, in milliseconds. */
interface Load {
  cpu: number;
  fileMs: number;
}

async function measure(ms: number): Promise<Load> {
  const [start, used] = [performance.now(), process.cpuUsage()];
  const waits: number[] = [];
  while (performance.now() < start + ms) {
    const asked = performance.now();
    await readFile(new URL(import.meta.url));
    waits.push(performance.now() - asked);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const { user, system } = process.cpuUsage(used);
  const cpu = (user + system) / 1000 / (performance.now() - start);
  return { cpu, fileMs: waits.sort((a, b) => a - b)[waits.length >> 1] };
}

const arrivals: number[] = [];
let crowd: Promise<unknown> | undefined;

/** Lets many tasks wait for a lock that another process has; tells what the process costs then. */
async function crowdIn(
  map: SharedMap,
  { tasks, ms }: { tasks: number; ms: number },
): Promise<{ idle: Load; waiting: Load }> {
  await measure(ms); // so that everything is compiled
  const idle = await measure(ms);
  crowd = Promise.all(Array.from({ length: tasks }, async (_, i) => {
    using _lock = await map.lockAsync({ timeout: Infinity });
    arrivals.push(i);
    map.set("arrivals", arrivals.length);
  }));
  await measure(ms / 2);
  return { idle, waiting: await measure(ms) };
}

/** Waits until all of the crowd have had the lock; gives their order. */
async function crowdOut(): Promise<number[]> {
  await crowd;
  return arrivals;
}

export const LOCK_TASKS: Record<string, Task<SharedMap, never>> = {
  pairs,
  guard,
  hog,
  scribble,
  lockFor,
  crowdIn,
  crowdOut,
};

/** How a counter is raised. */
export type Raise = Way | "update";

interface CountArgs {
  how: Raise;
  times: number;
  dots?: boolean;
}

async function raise<T>(value: SharedValue<T>, how: Raise, next: (old?: T) => T): Promise<void> {
  if (how === "update") {
    value.update(next);
    return;
  }
  using _lock = await take(value, how);
  value.set(next(value.get()));
}

/** Adds one to a shared number, again and again. */
async function count(value: SharedValue, { how, times }: CountArgs): Promise<void> {
  const counter = value as SharedValue<number>;
  for (let i = 0; i < times; i += 1) await raise(counter, how, (old = 0) => old + 1);
}

/** What several processes count in at once: each for itself, and all together. */
export interface Tally {
  total: number;
  by: Record<string, number>;
  /** Workers that count without an end are to end. */
  isOver?: boolean;
}

/** Adds one to this worker's count and to the total, with a dot before each; gives how often. */
async function tally(
  value: SharedValue,
  { how, times, worker }: CountArgs & { worker: string },
  say: Say,
): Promise<number> {
  const shared = value as SharedValue<Tally>;
  let done = 0;
  while (done < times && !shared.get()?.isOver && !isTooOld()) {
    say(".");
    await raise(shared, how, (old: Tally = { total: 0, by: {} }) => {
      const by = { ...old.by, [worker]: (old.by[worker] ?? 0) + 1 };
      return { ...old, total: old.total + 1, by };
    });
    done += 1;
  }
  say("\n"); // the answer has a line of its own
  return done;
}

export const VALUE_TASKS: Record<string, Task<SharedValue, never>> = { count, tally };
