/**
 * One winner, exact counts and pages of keys among processes of both runtimes, some of which are
 * killed at work.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import { seededRandom } from "../support/random.ts";
import {
  assertSound,
  type Child,
  divided,
  freshAnonymous,
  freshMap,
  HERE,
  PATIENCE,
  pause,
  runtimeOf,
  SEED,
  startMany,
  startWith,
  type TestContext,
  THERE,
  thrown,
  until,
  withSeed,
} from "../support/support.ts";
import { fillKey } from "../support/tasks.ts";
import { Thread } from "../support/thread.ts";

const LONG = { timeout: 300_000 };

test("versions, counters and pages mean the same in another runtime", async (t) => {
  const map = freshMap<unknown>(t);
  const child = await startWith(t, THERE, map.name);
  map.set("k", { n: 1 });
  const { version } = map.getEntry("k");
  assert.equal((await child.call("getEntry", "k")).version, version);
  assert.equal(await child.call("replace", "k", { n: 2 }, { ifVersion: version }), true);
  assert.equal(map.replace("k", { n: 3 }, { ifVersion: version }), false);
  assert.deepEqual(await child.call("swap", "k", { n: 4 }), { n: 2 });
  assert.deepEqual(map.take("k"), { n: 4 });
  assert.equal(await child.call("has", "k"), false);
  assert.equal(await child.call("increment", "n", 5), 5);
  assert.equal(map.increment("n", -2), 3);
  assert.equal((await child.call("incrementEntry", "n")).value, 4);
  const seen = map.getEntry("n").version;
  assert.equal(await child.call("delete", "n", { ifVersion: seen + 1 }), false);
  assert.equal(await child.call("delete", "n", { ifVersion: seen }), true);

  const keys = Array.from({ length: 900 }, (_, i) => `key ${i}`);
  map.setMany(keys.map((key, i) => [key, i]));
  const found: string[] = [];
  let cursor: string | undefined;
  for (let turn = 0; turn === 0 || cursor !== undefined; turn += 1) {
    const options = { prefix: "key", cursor, limit: 60 };
    const page = turn % 2 === 0 ? map.scan(options) : await child.call("scan", options);
    found.push(...page.keys);
    cursor = page.cursor;
  }
  assert.deepEqual(found.sort(), keys.sort());
  await child.call("clear", { prefix: "key 1" });
  assert.equal(map.size, keys.filter((key) => !key.startsWith("key 1")).length);
});

/** Processes come in waves: a hundred at once would only wait for each other to start. */
const WAVE = 10;
const TAKERS = WAVE * divided(10);

test(
  `of ${TAKERS} processes that take one key at most one gets it, with kills`,
  LONG,
  async (t) => {
    await withSeed(async (random) => {
      const map = freshMap<unknown>(t);
      for (let wave = 0; wave < TAKERS / WAVE; wave += 1) {
        const round = `round ${wave}`;
        const children = await startMany(t, WAVE, map.name);
        // The same keys for all of them, in the same order: they meet at each.
        const keys = Array.from({ length: 400 }, (_, i) => `${round} ${fillKey(i)}`);
        map.setMany(keys.map((key) => [key, key]));
        const works = children.map((child) => {
          return child.ask("takeAll", { count: keys.length, prefix: `${round} ` });
        });
        const doomed = children.filter((_, i) => i % 3 === 0);
        for (const child of doomed) {
          await pause(random(6));
          child.signalWith("SIGKILL");
        }
        const taken = await Promise.allSettled(works);
        const lists = taken.flatMap((end) => end.status === "fulfilled" ? [end.value] : []);
        assert.ok(lists.length >= WAVE - doomed.length);
        const all = (lists as number[][]).flat();
        assert.equal(new Set(all).size, all.length, "a key was given twice");
        // What no process has got was taken by one that was killed, and no key is left.
        assert.deepEqual([...map.keys({ prefix: round })], []);
        if (lists.length === WAVE) assert.equal(all.length, keys.length);
        await Promise.all(children.map((child) => child.kill()));
      }
      assertSound(map);
    });
  },
);

test(
  "a key that is taken a hundred times at once goes to exactly one, where none is killed",
  LONG,
  async (t) => {
    const map = freshMap<string>(t);
    const children = await startMany(t, 10, map.name);
    for (let round = 0; round < divided(30); round += 1) {
      map.set("token", `round ${round}`);
      const asked = Array.from(
        { length: TAKERS },
        (_, i) => children[i % 10].call("take", "token"),
      );
      const got = (await Promise.all(asked)).filter((value) => typeof value === "string");
      assert.deepEqual(got, [`round ${round}`]);
    }
  },
);

interface Counting {
  t: TestContext;
  map: SharedMap & { readonly name: string };
  kills: number;
}

/** The steps a child acknowledged: a dot behind each. */
function acknowledged(child: Child): number {
  assert.match(child.tail, /^\.*$/);
  return child.tail.length;
}

/** Kills one counting process after the other; gives the steps that were acknowledged. */
async function countAndKill({ t, map, kills }: Counting, lane: number): Promise<number> {
  const random = seededRandom(SEED + lane);
  let steps = 0;
  for (let kill = 0; kill < kills; kill += 1) {
    const child = await startWith(t, runtimeOf(lane + kill), map.name);
    child.send("countForever", { keys: 3 });
    await until("a first step", () => child.tail.length > 0);
    await pause(random(30) * PATIENCE);
    await child.kill();
    steps += acknowledged(child);
  }
  return steps;
}

const COUNTERS = 8;

test(
  `${COUNTERS} processes that count are exact: what was acknowledged is counted`,
  LONG,
  async (t) => {
    await withSeed(async () => {
      const map = freshMap<unknown>(t);
      const kills = divided(4);
      const lanes = Array.from({ length: COUNTERS }, (_, i) => countAndKill({ t, map, kills }, i));
      const steps = (await Promise.all(lanes)).reduce((sum, count) => sum + count, 0);
      const sum = [0, 1, 2].reduce((all, i) => all + Number(map.get(`count ${i}`) ?? 0), 0);
      // Each that was killed may have counted one step more than it said.
      assert.ok(sum >= steps, `${steps} steps were acknowledged, ${sum} are counted`);
      assert.ok(sum <= steps + COUNTERS * kills, `${steps} acknowledged, ${sum} counted`);
      assert.ok(steps > COUNTERS * kills);
      assertSound(map);
    });
  },
);

test(`${COUNTERS} processes that count and live come to the exact sum`, LONG, async (t) => {
  const map = freshMap<unknown>(t);
  const children = await startMany(t, COUNTERS, map.name);
  const times = divided(2000);
  const works = children.map((child, i) => {
    return child.ask("countTimes", { times, by: i + 1, big: i % 2 === 0 });
  });
  await Promise.all(works);
  const odd = Array.from({ length: COUNTERS }, (_, i) => i + 1).filter((by) => by % 2 === 0);
  const even = Array.from({ length: COUNTERS }, (_, i) => i + 1).filter((by) => by % 2 === 1);
  const sum = (list: number[]) => list.reduce((all, by) => all + by, 0);
  assert.equal(map.get("number"), sum(odd) * times);
  const unit = 2n ** 62n;
  assert.equal(map.get("bigint"), BigInt(sum(even) * times) * unit);
  assertSound(map);
});

test("changes by version wait for the lock of another process, and one that dies lets them go on", async (t) => {
  const map = freshMap<unknown>(t, { timeout: 10_000 }).set("k", 1);
  const child = await startWith(t, THERE, map.name);
  const impatient = SharedMap.attach<unknown>(map.token, { timeout: 30 });
  await child.ask("lock");
  const { version } = map.getEntry("k");
  const calls = [
    () => impatient.take("k"),
    () => impatient.swap("k", 2),
    () => impatient.replace("k", 2),
    () => impatient.delete("k", { ifVersion: version }),
    () => impatient.increment("k"),
    () => impatient.increment("big", 1n),
    () => impatient.clear({ prefix: "k" }),
  ];
  for (const call of calls) thrown("Timeout", call);
  assert.deepEqual(map.getEntry("k").value, 1);
  assert.deepEqual(map.scan().keys, ["k"]);
  child.signalWith("SIGKILL");
  assert.equal(map.increment("k"), 2);
  assert.equal(map.replace("k", 5, { ifVersion: map.getEntry("k").version }), true);
  assert.equal(map.take("k"), 5);
  impatient.close();
});

test("a Worker counts in the same map", async (t) => {
  const map = freshAnonymous<number>(t);
  map.increment("n", 5);
  const thread = new Thread(t);
  await thread.ask("attach", { token: map.token });
  const call = (method: string, ...args: unknown[]) => thread.ask("call", { method, args });
  const steps = Array.from({ length: 500 }, () => {
    map.increment("n");
    return call("increment", "n");
  });
  await Promise.all(steps);
  assert.equal(map.get("n"), 1005);
  assert.equal((await call("getEntry", "n")).version, map.getEntry("n").version);
  assert.equal(await call("take", "n"), 1005);
  assert.equal(map.take("n"), undefined);
  await thread.ask("close");
});

test("a page goes on in a child that this process knows nothing else of", async (t) => {
  const map = freshMap<number>(t);
  map.setMany(Array.from({ length: 3000 }, (_, i) => [fillKey(i), i]));
  const child = await startWith(t, HERE, map.name, { mode: "attach", readonly: true });
  const first = map.scan({ limit: 1000 });
  const grown = Array.from({ length: 5000 }, (_, i) => `more ${i}`);
  map.setMany(grown.map((key) => [key, 0]));
  const found = [...first.keys];
  for (let { cursor } = first; cursor !== undefined;) {
    const page = await child.call("scan", { cursor, limit: 1000 });
    found.push(...page.keys);
    cursor = page.cursor;
  }
  const stayed = found.filter((key) => !key.startsWith("more"));
  assert.equal(stayed.length, 3000);
  assert.equal(new Set(found).size, found.length);
});
