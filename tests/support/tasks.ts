/** Long work on one map, done by a child process on a single command. */
import assert from "node:assert/strict";
import { SharedMap, SharedMemoryError } from "../../mod.ts";
import { checkedSequence, checkedValue } from "./checked.ts";
import { type JournalPlan, writeJournal } from "./journal.ts";
import { isTooOld } from "./lifetime.ts";
import { seededRandom } from "./random.ts";

// deno-lint-ignore no-explicit-any
type Json = any;
type Task = (map: SharedMap, args: Json, say: (text: string) => void) => unknown;

/** The key that ends every task without an end of its own. */
export const STOP = "stop";

function isStopped(map: SharedMap): boolean {
  return isTooOld() || map.has(STOP);
}

/** The number kept under the key of `i`, in maps filled by `fill`. */
export function fillKey(i: number): string {
  return `key ${i}`;
}

function fill(map: SharedMap, { from = 0, to }: { from?: number; to: number }): number {
  for (let i = from; i < to; i += 1) map.set(fillKey(i), i);
  return map.size;
}

function fillMany(map: SharedMap, { from = 0, to }: { from?: number; to: number }): number {
  for (let start = from; start < to; start += 10_000) {
    const count = Math.min(10_000, to - start);
    map.setMany(Array.from({ length: count }, (_, i) => [fillKey(start + i), start + i]));
  }
  return map.size;
}

/** Reads keys 0 to `count` by get, and everything by iteration and by toObject. */
function checkFill(map: SharedMap, { count }: { count: number }): number {
  assert.equal(map.size, count);
  for (let i = 0; i < count; i += 1) {
    const value = map.get(fillKey(i));
    if (value !== i) assert.fail(`"${fillKey(i)}" is ${value}`);
  }
  assert.equal(map.get(fillKey(count)), undefined);
  const seen = new Uint8Array(count);
  for (const [key, value] of map) {
    if (key !== fillKey(value as number)) assert.fail(`"${key}" is ${value}`);
    seen[value as number] += 1;
  }
  assert.ok(seen.every((times) => times === 1), "iteration skips or repeats a key");
  if (count <= 100_000) assert.equal(Object.keys(map.toObject()).length, count);
  return count;
}

function increment(map: SharedMap, { keys, times }: { keys: string[]; times: number }): number {
  let runs = 0;
  for (let i = 0; i < times && !isTooOld(); i += 1) {
    for (const key of keys) {
      map.update(key, (current) => {
        runs += 1;
        return (current as number ?? 0) + 1;
      });
    }
  }
  return runs;
}

/** Takes keys of `fill` one after the other; gives the numbers of those it got. */
function takeAll(map: SharedMap, { count, prefix }: { count: number; prefix: string }): number[] {
  const got = [];
  for (let i = 0; i < count; i += 1) {
    const key = `${prefix}${fillKey(i)}`;
    const value = map.take(key);
    if (value === undefined) continue;
    assert.equal(value, key);
    got.push(i);
  }
  return got;
}

/** Counts on by one under each of some keys, and says a dot behind each step. */
function countForever(map: SharedMap, { keys }: { keys: number }, say: (text: string) => void) {
  for (let i = 0; !isTooOld(); i += 1) {
    map.increment(`count ${i % keys}`);
    say(".");
  }
}

/** Adds to one number, or to one bigint, this many times. */
function countTimes(map: SharedMap, { times, by, big }: Json): void {
  const unit = 2n ** 62n;
  for (let i = 0; i < times; i += 1) {
    if (big) map.increment("bigint", BigInt(by) * unit);
    else map.increment("number", by);
  }
}

/** Writes keys of this owner, and keys all owners share. */
function writeBoth(map: SharedMap, { owner, count }: { owner: number; count: number }): void {
  for (let i = 0; i < count; i += 1) {
    map.set(`own ${owner} ${i}`, owner * count + i);
    map.set(`common ${i}`, { owner, i });
  }
}

function addRace(map: SharedMap, { owner, count }: { owner: number; count: number }): number[] {
  const won = [];
  for (let i = 0; i < count; i += 1) if (map.add(`race ${i}`, owner)) won.push(i);
  return won;
}

function insertRace(map: SharedMap, { owner, count }: { owner: number; count: number }): unknown[] {
  return Array.from({ length: count }, (_, i) => {
    if (i % 2 === 0) return map.getOrInsert(`insert ${i}`, owner);
    return map.getOrInsertComputed(`insert ${i}`, () => owner);
  });
}

/** Writes small values under keys of its own at full speed, some of which come and go. */
function writeOthers(map: SharedMap, { keys }: { keys: number }): number {
  let count = 0;
  for (; count % 64 !== 0 || !isStopped(map); count += 1) {
    const key = `other ${count % keys}`;
    if (count % 3 === 0) map.delete(key);
    else map.set(key, count);
  }
  return count;
}

/**
 * Stores, touches and deletes sessions under shared keys until told to stop; what is read
 * must be whole and its key's own.
 */
function sessions(map: SharedMap, { seed, keyCount }: StormArgs): number {
  const random = seededRandom(seed);
  let count = 0;
  for (; count % 64 !== 0 || !isStopped(map); count += 1) {
    const key = `session ${random(keyCount)}`;
    const dice = random(100);
    if (dice < 40) map.set(key, checkedValue(key, count), 1 + random(SESSION_MS));
    else if (dice < 50) map.add(key, checkedValue(key, count), 1 + random(SESSION_MS));
    else if (dice < 60) map.delete(key);
    else if (dice < 75) map.touch(key, random(SESSION_MS));
    else if (dice < 76) map.touch(key, Infinity);
    else {
      const value = map.get(key);
      if (value !== undefined) checkedSequence(key, value);
    }
  }
  return count;
}

const SESSION_MS = 20;

/** Replaces one value by others of its size, each of one byte throughout. */
function replaceLarge(map: SharedMap, { key, size }: { key: string; size: number }): number {
  const value = new Uint8Array(size);
  let count = 0;
  for (; !isStopped(map); count += 1) map.set(key, value.fill(count % 256));
  return count;
}

interface StormArgs {
  seed: number;
  keyCount: number;
}

/** Writes and deletes self-checking values of all sizes under shared keys until told to stop. */
function storm(map: SharedMap, { seed, keyCount }: StormArgs): number {
  const random = seededRandom(seed);
  let count = 0;
  for (; count % 64 !== 0 || !isStopped(map); count += 1) {
    const key = `storm ${random(keyCount)}`;
    const dice = random(100);
    if (dice < 20) map.delete(key);
    else if (dice < 30) map.update(key, () => checkedValue(key, count, random(300)));
    else map.set(key, checkedValue(key, count, dice < 98 ? random(500) : random(40_000)));
  }
  return count;
}

/** Reads in every way while others write; every value must be whole and its key's own. */
function watch(map: SharedMap, { seed, keyCount }: StormArgs): number {
  const random = seededRandom(seed);
  let count = 0;
  const check = (key: string, value: unknown) => {
    if (value === undefined || !key.startsWith("storm ")) return;
    checkedSequence(key, value);
    count += 1;
  };
  do {
    for (let i = 0; i < 200; i += 1) {
      const key = `storm ${random(keyCount)}`;
      check(key, map.get(key));
    }
    const keys = Array.from({ length: 20 }, () => `storm ${random(keyCount)}`);
    map.getMany(keys).forEach((value, i) => check(keys[i], value));
    const seen = new Set<string>();
    for (const [key, value] of map) {
      assert.ok(!seen.has(key), `"${key}" came twice`);
      seen.add(key);
      check(key, value);
    }
    for (const [key, value] of Object.entries(map.toObject())) check(key, value);
  } while (!isStopped(map));
  return count;
}

/** Makes the map grow and shrink again and again, by keys of its own. */
function breathe(map: SharedMap, { count }: { count: number }): number {
  let breaths = 0;
  for (; !isStopped(map); breaths += 1) {
    for (let i = 0; i < count; i += 1) map.set(`breath ${i}`, i);
    for (let i = 0; i < count; i += 1) map.delete(`breath ${i}`);
  }
  return breaths;
}

/** Takes keys out and puts them in again in another order, so that their places change. */
function shuffle(map: SharedMap, { seed, count }: { seed: number; count: number }): number {
  const random = seededRandom(seed);
  let rounds = 0;
  for (; !isStopped(map); rounds += 1) {
    const first = random(count);
    const keys = Array.from({ length: count - 9 }, (_, i) => `moved ${(first + i * 7) % count}`);
    for (const key of keys) map.delete(key);
    for (const key of keys.reverse()) map.set(key, rounds);
  }
  return rounds;
}

/** Looks for keys that stay, in every way to read; gives how often all of them were there. */
function findAll(map: SharedMap, { count }: { count: number }): number {
  const kept = Array.from({ length: count }, (_, i) => `kept ${i}`);
  let rounds = 0;
  for (; !isStopped(map); rounds += 1) {
    for (let i = 0; i < count; i += 1) {
      if (map.get(kept[i]) !== i) assert.fail(`"${kept[i]}" is ${map.get(kept[i])}`);
      if (!map.has(kept[i])) assert.fail(`has("${kept[i]}") is false`);
    }
    const many = map.getMany(kept);
    if (many.some((value, i) => value !== i)) assert.fail("getMany misses a key");
    const keys = [...map].map(([key]) => key);
    const seen = new Set(keys);
    if (seen.size !== keys.length) assert.fail(`${keys.length - seen.size} keys came twice`);
    for (const key of kept) if (!seen.has(key)) assert.fail(`iteration misses "${key}"`);
    if (map.size < count) assert.fail(`size is ${map.size}, below ${count}`);
  }
  return rounds;
}

const CHAIN_LENGTH = 12;

/** Sets the links of this writer's chain to 1, then to 2 … always from the first to the last. */
function forge(map: SharedMap, { writer }: { writer: number }): number {
  let count = 0;
  do {
    count += 1;
    for (let link = 0; link < CHAIN_LENGTH; link += 1) map.set(`chain ${writer} ${link}`, count);
  } while (count % 16 !== 0 || !isStopped(map));
  return count;
}

/** Sets `mine` to 1, 2 … each time when `theirs` has caught up. */
function answerEach(map: SharedMap, { mine, theirs, lag }: Json): number {
  let count = 0;
  while (!isStopped(map)) {
    if (map.get(theirs) !== count + lag) continue;
    count += 1;
    map.set(mine, count);
  }
  return count;
}

/** Asserts that every chain in a snapshot is as it was at one instant. */
export function assertOneInstant(snapshot: Record<string, unknown>, writers: number): void {
  for (let writer = 0; writer < writers; writer += 1) {
    const links = Array.from({ length: CHAIN_LENGTH }, (_, link) => {
      return (snapshot[`chain ${writer} ${link}`] as number | undefined) ?? 0;
    });
    const isOrdered = links.every((value, i) => i === 0 || value <= links[i - 1]);
    const isNear = links[0] - links[CHAIN_LENGTH - 1] <= 1;
    assert.ok(isOrdered && isNear, `chain ${writer} was never like this: ${links}`);
  }
  const ping = (snapshot.ping as number | undefined) ?? 0;
  const pong = (snapshot.pong as number | undefined) ?? 0;
  assert.ok(ping === pong || ping === pong + 1, `ping ${ping} and pong ${pong} never were at once`);
}

/** Takes snapshots until told to stop; gives how many. */
function snapshots(map: SharedMap, { writers }: { writers: number }): number {
  let count = 0;
  for (; !isStopped(map); count += 1) assertOneInstant(map.toObject(), writers);
  return count;
}

const CHURN_ERRORS = new Set(["Exists", "NotFound", "Replaced"]);

/** Opens, fills, replaces and unlinks one name, over and over; gives how often each ending came. */
export function churn({ name, seed, rounds, dots }: Json, say: (text: string) => void): Json {
  const random = seededRandom(seed);
  const endings: Record<string, number> = {};
  for (let round = 0; round < rounds && !isTooOld(); round += 1) {
    if (dots) say(".");
    const mode = (["shared", "create", "attach", "exclusive"] as const)[random(4)];
    let ending: string = mode;
    try {
      using map = SharedMap.open(name, { mode });
      map.set(`by ${seed}`, checkedValue(`by ${seed}`, round));
      for (const [key, value] of map) checkedSequence(key, value);
      const dice = random(9);
      if (dice < 3) map.unlink();
      else if (dice < 5) SharedMap.unlink(name);
    } catch (error) {
      if (!(error instanceof SharedMemoryError) || !CHURN_ERRORS.has(error.code)) throw error;
      ending = error.code;
    }
    endings[ending] = (endings[ending] ?? 0) + 1;
  }
  return endings;
}

/** Stores a large value without end: this process is nearly always inside one call. */
function setForever(map: SharedMap, { key, bytes }: { key: string; bytes: number }): void {
  const value = new Uint8Array(bytes);
  while (!isStopped(map)) map.set(key, value);
}

function fillUntilFull(map: SharedMap, round: number, size: () => number): number {
  try {
    for (let i = 0;; i += 1) {
      const key = `round ${round} ${i}`;
      map.set(key, checkedValue(key, i, size()));
    }
  } catch (error) {
    if (!(error instanceof SharedMemoryError) || error.code !== "NoSpace") throw error;
  }
  return map.size;
}

/** Fills the file system, goes on in it, drains the map, and over again; gives what fitted. */
function fillDisk(map: SharedMap, { rounds, seed }: { rounds: number; seed: number }): Json {
  const random = seededRandom(seed);
  const counts: number[] = [];
  let allocated = 0;
  for (let round = 0; round < rounds; round += 1) {
    const count = fillUntilFull(map, round, () => 20 + random(300));
    counts.push(count);
    const keys = [...map.keys()];
    assert.equal(keys.length, count);
    for (const key of keys) checkedSequence(key, map.get(key));
    for (const key of keys.filter((_, i) => i % 3 === 0)) assert.ok(map.delete(key));
    const [kept] = keys.filter((_, i) => i % 3 !== 0);
    for (let i = 0; i < 200; i += 1) map.set(kept, checkedValue(kept, i, 20 + random(300)));
    assert.ok(map.verify().ok, JSON.stringify(map.verify()));
    if (round === 1) allocated = map.stats().allocated;
    if (round > 1) assert.ok(map.stats().allocated <= allocated + 65_536, "it grows each round");
    if (round % 2) map.clear();
    else for (const key of [...map.keys()]) assert.ok(map.delete(key));
    assert.equal(map.size, 0);
  }
  for (const count of counts) assert.ok(count >= counts[0] * 0.8, `fewer fit: ${counts}`);
  return { counts, allocated };
}

export const TASKS: Record<string, Task> = {
  fill,
  fillMany,
  writeOthers,
  sessions,
  replaceLarge,
  checkFill,
  increment,
  takeAll,
  countForever,
  countTimes,
  writeBoth,
  addRace,
  insertRace,
  storm,
  watch,
  forge,
  answerEach,
  snapshots,
  fillDisk,
  breathe,
  shuffle,
  findAll,
  setForever,
  journal: (map, plan: JournalPlan, say) => writeJournal(map, plan, say),
};
