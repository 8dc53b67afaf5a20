/**
 * Processes killed at random moments, a thousand times and more; all others go on. What a
 * killed process had acknowledged is there, what it was doing is done or not, for each key.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import { checkedSequence } from "../support/checked.ts";
import { type JournalPlan, type Model, replay, settle } from "../support/journal.ts";
import { type Random, seededRandom } from "../support/random.ts";
import {
  assertSound,
  type Child,
  divided,
  freshMap,
  freshName,
  HERE,
  PATIENCE,
  pause,
  runtimeOf,
  RUNTIMES,
  SEED,
  SHM,
  startChild,
  startWith,
  temporaries,
  type TestContext,
  THERE,
  until,
  withSeed,
} from "../support/support.ts";
import { STOP } from "../support/tasks.ts";

const LONG = { timeout: 300_000 };
const LANES = 2;

/** Children that are ready before they are needed: starting one takes longer than its life. */
class Pool {
  #ready: Promise<Child>[] = [];
  #startCount = 0;
  #left: number;

  constructor(
    private readonly t: TestContext,
    private readonly name: string | undefined,
    total: number,
    size = 2,
  ) {
    this.#left = total;
    for (let i = 0; i < size; i += 1) this.#start();
  }

  #start(): void {
    if (this.#left === 0) return;
    this.#left -= 1;
    this.#startCount += 1;
    const runtime = runtimeOf(this.#startCount);
    const child = this.name === undefined
      ? startChild(this.t, runtime)
      : startWith(this.t, runtime, this.name);
    child.catch(() => {}); // `take` throws it
    this.#ready.push(child);
  }

  async take(): Promise<Child> {
    this.#start();
    return await this.#ready.shift()!;
  }
}

/**
 * How many dots the children of a lane print at least before they are killed, by turns: so it meets
 * first operations and later ones, and on a busy machine more operations than two for each kill.
 */
const LEAST_DOTS = [3, 1, 2, 4];

/** Kills a child up to 20 ms after so many of its dots; gives how many dots it had printed. */
async function killAtWork(child: Child, random: Random, least = 1): Promise<number> {
  await until("the dots", () => child.tail.length >= least);
  await pause(random(20) * PATIENCE);
  await child.kill();
  assert.ok(child.wasKilled, child.stderr);
  assert.match(child.tail, /^\.+$/, child.tail.slice(0, 300));
  return child.tail.length;
}

interface Lane {
  t: TestContext;
  map: SharedMap & { readonly name: string };
  kills: number;
  random: Random;
  plan: Omit<JournalPlan, "seed">;
}

/** Kills one writer after the other and compares what is left with the model, key by key. */
async function runLane({ t, map, kills, random, plan }: Lane): Promise<number> {
  const pool = new Pool(t, map.name, kills);
  const model: Model = new Map();
  let dots = 0;
  for (let kill = 0; kill < kills; kill += 1) {
    const child = await pool.take();
    const journal = { ...plan, seed: random(2 ** 31) };
    child.send("journal", { id: "map", ...journal });
    const begun = await killAtWork(child, random, LEAST_DOTS[kill % LEAST_DOTS.length]);
    dots += begun;
    const doubtful = replay(model, journal, begun);
    const what = `kill ${kill} of ${child.runtime}, plan ${journal.seed}, operation ${begun - 1}`;
    settle(model, doubtful, ownEntries(map, plan.prefix), what);
    if (plan.hasClear) checkWhole(map, what);
  }
  checkWhole(map, "the end");
  return dots;
}

function ownEntries(map: SharedMap, prefix: string): Map<string, unknown> {
  return new Map([...map].filter(([key]) => key.startsWith(prefix)));
}

/** What holds of a map that no other process writes to: the counts agree, and every call works. */
function checkWhole(map: SharedMap, what: string): void {
  const count = [...map.keys()].length;
  assert.equal(map.size, count, what);
  assertSound(map, what);
  assert.equal(map.set("survivor", what).get("survivor"), what);
  assert.equal(map.size, count + 1, what);
  assert.equal(map.delete("survivor"), true, what);
}

const KILLS = divided(1000);
const CROWDED_KILLS = Math.ceil(KILLS * 0.2);
const GROWTH_KILLS = Math.ceil(KILLS * 0.15);
const LIFECYCLE_KILLS = Math.ceil(KILLS * 0.1);
const QUIET_KILLS = KILLS - CROWDED_KILLS - GROWTH_KILLS - LIFECYCLE_KILLS;

/** Runs so many kills on two maps at once: the machine is never idle while a child starts. */
async function runLanes(t: TestContext, kills: number, plan: Lane["plan"]): Promise<void> {
  await withSeed(async () => {
    const lanes = Array.from({ length: LANES }, (_, i) =>
      runLane({
        t,
        map: freshMap(t),
        kills: Math.ceil((kills - i) / LANES),
        random: seededRandom(SEED + i),
        plan,
      }));
    const dots = await Promise.all(lanes);
    assert.ok(dots.every((count) => count >= kills), `${dots} operations`);
  });
}

test(`SharedMap is whole after each of ${QUIET_KILLS} kills of its writer`, LONG, async (t) => {
  const plan = { prefix: "", hotCount: 40, wideCount: 1200, manyCount: 50, hasClear: true };
  await runLanes(t, QUIET_KILLS, plan);
});

test(`SharedMap is whole after each of ${GROWTH_KILLS} kills while it grows`, LONG, async (t) => {
  const plan = { prefix: "", hotCount: 10, wideCount: 40_000, manyCount: 4000, hasClear: true };
  await runLanes(t, GROWTH_KILLS, plan);
});

test(`SharedMap is whole after ${CROWDED_KILLS} kills among busy others`, LONG, async (t) => {
  await withSeed(async () => {
    const map = freshMap(t);
    const keyCount = 60;
    const survivors = await Promise.all([
      startWith(t, THERE, map.name),
      startWith(t, HERE, map.name),
    ]);
    const work = [
      survivors[0].ask("storm", { seed: SEED, keyCount }),
      survivors[1].ask("watch", { seed: SEED, keyCount }),
    ];
    const lanes = Array.from({ length: LANES }, (_, i) =>
      runLaneAmongOthers({
        t,
        map,
        kills: Math.ceil((CROWDED_KILLS - i) / LANES),
        random: seededRandom(SEED + i),
        plan: {
          prefix: `lane ${i} `,
          hotCount: 20,
          wideCount: 300,
          manyCount: 50,
          hasClear: false,
        },
      }));
    await Promise.all(lanes);
    map.set(STOP, 1);
    const counts = await Promise.all(work);
    assert.ok(counts.every((count) => count > divided(100)), `${counts}`);
    map.delete(STOP);
    for (const [key, value] of map) if (key.startsWith("storm")) checkedSequence(key, value);
    checkWhole(map, "the end");
  });
});

/** As `runLane`, with a look only at this lane's keys: others write meanwhile. */
async function runLaneAmongOthers({ t, map, kills, random, plan }: Lane): Promise<void> {
  const pool = new Pool(t, map.name, kills);
  const model: Model = new Map();
  for (let kill = 0; kill < kills; kill += 1) {
    const child = await pool.take();
    const journal = { ...plan, seed: random(2 ** 31) };
    child.send("journal", { id: "map", ...journal });
    const begun = await killAtWork(child, random);
    const doubtful = replay(model, journal, begun);
    const what = `kill ${kill} of ${child.runtime}, plan ${journal.seed}, operation ${begun - 1}`;
    settle(model, doubtful, ownEntries(map, plan.prefix), what);
    assert.equal(map.set(`${plan.prefix}survivor`, what).get(`${plan.prefix}survivor`), what);
    assert.equal(map.delete(`${plan.prefix}survivor`), true);
  }
}

test(`SharedMap.open() works after each of ${LIFECYCLE_KILLS} kills within it`, LONG, async (t) => {
  await withSeed(async (random) => {
    const name = freshName(t);
    const pool = new Pool(t, undefined, LIFECYCLE_KILLS, 3);
    for (let kill = 0; kill < LIFECYCLE_KILLS; kill += 1) {
      const child = await pool.take();
      child.send("churn", { name, seed: random(2 ** 31), rounds: 1e9, dots: true });
      await killAtWork(child, random);
      const what = `kill ${kill} of ${child.runtime}`;
      const mode = (["shared", "exclusive"] as const)[random(2)];
      using map = SharedMap.open(name, { mode });
      for (const [key, value] of map) checkedSequence(key, value);
      assert.equal(map.set("after", what).get("after"), what);
      assertSound(map, what);
      assert.deepEqual(temporaries(name), [], what);
      assert.equal(SharedMap.unlink(name), true, what);
      assert.equal(existsSync(join(SHM, name)), false);
    }
  });
});

for (const victim of RUNTIMES) {
  const title = `SharedMap.update() of survivors is exact while ${victim} processes are killed`;
  test(title, LONG, async (t) => {
    await withSeed(async (random) => {
      const map = freshMap<number>(t);
      const survivor = await startWith(t, THERE, map.name);
      const work = survivor.ask("increment", { keys: ["survivor"], times: divided(20_000) });
      let isWorking = true;
      work.finally(() => isWorking = false).catch(() => {});
      for (let kill = 0; kill < divided(15); kill += 1) {
        const child = await startWith(t, victim, map.name);
        const before = map.get("victim") ?? 0;
        child.send("increment", { keys: ["victim", "survivor copy"], times: 1e9 });
        await until("some updates", () => (map.get("victim") ?? 0) > before + random(200));
        await child.kill();
      }
      await work;
      assert.equal(isWorking, false);
      assert.equal(map.get("survivor"), divided(20_000));
      const [count, copy] = map.getMany(["victim", "survivor copy"]) as number[];
      assert.ok(count - copy >= 0 && count - copy <= divided(15), `${count} and ${copy}`);
      assertSound(map);
    });
  });
}

test(
  "SharedMap notices a killed process's large half-written values at no cost",
  LONG,
  async (t) => {
    await withSeed(async (random) => {
      const map = freshMap<unknown>(t);
      for (let i = 0; i < 100; i += 1) map.set(`key ${i}`, i);
      let allocated = 0;
      for (let kill = 0; kill < divided(20); kill += 1) {
        const child = await startWith(t, runtimeOf(kill), map.name);
        child.send("setForever", { id: "map", key: "large", bytes: 16 << 20 });
        await until("the first large value", () => map.has("large"));
        await pause(random(20));
        await child.kill();
        assert.equal((map.get("large") as Uint8Array).length, 16 << 20);
        map.delete("large");
        assert.equal(map.size, 100);
        assertSound(map);
        if (kill === 4) allocated = map.stats().allocated;
      }
      const growth = map.stats().allocated - allocated;
      assert.ok(divided(20) <= 5 || growth <= 48 << 20, `${growth} bytes leaked`);
    });
  },
);
