/**
 * A Worker that uses everything until it is ended: from outside, by itself, or by an error. It
 * tells how far it has come in memory that it shares with its maker, which sees it at any time.
 */
import process from "node:process";
import { type Lock, Mmap, SharedMap, SharedValue } from "../../../mod.ts";
import { seededRandom } from "../../support/random.ts";

/** How far a Worker has come with the lock. */
export const STEP = { start: 0, locking: 1, locked: 2, unlocking: 3, unlocked: 4 } as const;

/** How far a Worker has come with its life. */
export const LIFE = { unborn: 0, working: 1, done: 2 } as const;

/** What a Worker is to do. */
export interface Plan {
  seed: number;
  /** Where it says how far it has come: with the lock, and with its life. */
  step: Int32Array;
  map: string;
  named: string;
  value: string;
  region: string;
  /** A map of its own, whose lock no other thread takes meanwhile. */
  own: string;
  /** How it uses the lock. */
  lock: "none" | "release" | "keep" | "async";
  /** How it ends by itself; "not" waits for its maker. */
  ending: "close" | "throw" | "not";
}

/** So long a Worker works at most: where ending it does not end a loop, it ends by itself. */
const WORK_MS = 20;

/** A value that shows whether it is whole. */
export function wholeValue(key: string, n: number): string {
  return `${key}|${n}|${"x".repeat(n % 300)}`;
}

/** Whether a value is one of those. */
export function isWhole(key: string, value: unknown): boolean {
  const n = Number(String(value).split("|")[1]);
  return value === wholeValue(key, n);
}

const scope = globalThis as unknown as {
  onmessage: (event: { data: Plan }) => void;
  close?: () => void;
};

scope.onmessage = async ({ data: plan }) => {
  const lock = await work(plan);
  Atomics.store(plan.step, 1, LIFE.done); // a message may be lost with its sender
  if (plan.ending === "throw") throw new Error("planted");
  if (plan.ending === "close") scope.close ? scope.close() : process.exit();
  kept.push(lock);
};

/** Nothing here is collected while the Worker lives. */
const kept: unknown[] = [];

async function work(plan: Plan): Promise<Lock | undefined> {
  Atomics.store(plan.step, 1, LIFE.working);
  const random = seededRandom(plan.seed);
  const map = SharedMap.attach(plan.map, { timeout: 200 });
  const named = SharedMap.open(plan.named, { timeout: 200 });
  const value = SharedValue.attach<number>(plan.value, { timeout: 200 });
  const region = Mmap.attach(plan.region);
  const own = SharedMap.attach<number>(plan.own, { timeout: 200 });
  kept.push(map, named, value, region, own);
  const lock = await takeLock(plan, own);
  const end = Date.now() + random(WORK_MS);
  for (let n = 0; n < 20 || Date.now() < end; n += 1) {
    const key = `w${random(40)}`;
    const target = random(2) === 0 ? map : named;
    if (random(4) === 0) target.delete(key);
    else target.set(key, wholeValue(key, random(1000)));
    if (random(8) === 0) region.write(wholeValue(key, random(100)), random(100));
    if (random(8) === 0) { for (const [key, value] of map) check(key, value); }
    if (random(16) === 0) SharedMap.anonymous().set("left", "open");
    if (random(16) === 0) tryUpdate(value);
    if (random(64) === 0) map.toObject();
  }
  if (lock === undefined || plan.lock === "keep") return lock;
  Atomics.store(plan.step, 0, STEP.unlocking);
  lock.unlock();
  Atomics.store(plan.step, 0, STEP.unlocked);
  return undefined;
}

async function takeLock(plan: Plan, own: SharedMap<number>): Promise<Lock | undefined> {
  if (plan.lock === "none") return undefined;
  Atomics.store(plan.step, 0, STEP.locking);
  const lock = plan.lock === "async" ? await own.lockAsync() : own.lock();
  Atomics.store(plan.step, 0, STEP.locked);
  own.set("under lock", plan.seed);
  return lock;
}

/** Others may be in the middle of theirs, or dead there. */
function tryUpdate(value: SharedValue<number>): void {
  try {
    value.update((count = 0) => count + 1);
  } catch (error) {
    if ((error as { code?: string }).code !== "Timeout") throw error;
  }
}

function check(key: string, value: unknown): void {
  if (!isWhole(key, value)) throw new Error(`"${key}" is ${String(value).slice(0, 80)}`);
}
