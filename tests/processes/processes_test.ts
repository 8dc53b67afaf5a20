/** Many processes of both runtimes at once: nothing lost, nothing torn, one winner, one instant. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import { checkedSequence } from "../support/checked.ts";
import {
  assertSound,
  type Child,
  content,
  divided,
  freshMap,
  freshName,
  HERE,
  lentChild,
  NEEDS,
  otherThan,
  PATIENCE,
  pause,
  runtimeOf,
  RUNTIMES,
  SEED,
  startMany,
  startWith,
  temporaries,
  type TestContext,
  testUnless,
  THERE,
  until,
  withSeed,
} from "../support/support.ts";
import { assertOneInstant, STOP } from "../support/tasks.ts";

const LONG = { timeout: 120_000 };
/** Tens of processes that open a map at once. */
const MANY = 10 * divided(5);

/** Sizes at which a table or a chunk may grow, and one on each side. */
// deno-fmt-ignore
const SIZES = [
  0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 51, 52, 53, 63, 64, 65, 127, 128, 129, 255,
  256, 257, 511, 512, 513, 1000, 1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097, 8191, 8192,
  8193, 10_000, 16_383, 16_384, 16_385,
].filter((size) => size <= divided(20_000));

for (const writer of RUNTIMES) {
  const reader = otherThan(writer);
  test(`SharedMap of any size, written in ${writer}, is whole in ${reader}`, LONG, async (t) => {
    const [source, target] = await Promise.all([lentChild(t, writer), lentChild(t, reader)]);
    for (const count of SIZES) {
      const name = freshName(t);
      await source.ask("open", { id: "map", name });
      assert.equal(await source.ask("fill", { id: "map", to: count }), count);
      await target.ask("open", { id: "map", name });
      assert.equal(await target.ask("checkFill", { id: "map", count }), count);
      for (const child of [source, target]) await child.ask("close", { id: "map" });
      SharedMap.unlink(name);
    }
  });

  test(
    `SharedMap filled key by key in ${writer} is whole in ${reader} all along`,
    LONG,
    async (t) => {
      const name = freshName(t);
      const source = await startWith(t, writer, name);
      const target = await startWith(t, reader, name);
      let from = 0;
      for (const to of [...SIZES, divided(100_000)]) {
        await source.ask("fill", { id: "map", from, to });
        await target.ask("checkFill", { id: "map", count: to });
        from = to;
      }
    },
  );
}

test("SharedMap holds a million keys", { timeout: 240_000 }, async (t) => {
  const map = freshMap<number>(t);
  const count = divided(1_000_000);
  const source = await startWith(t, HERE, map.name);
  assert.equal(await source.ask("fillMany", { id: "map", to: count }), count);
  await source.end();
  const target = await startWith(t, THERE, map.name);
  assert.equal(await target.ask("checkFill", { id: "map", count }), count);
  await target.end();
  assert.equal(map.size, count);
  assertSound(map);
  map.clear();
  assert.equal(map.size, 0);
});

test("SharedMap loses no key of many writers at once", LONG, async (t) => {
  const map = freshMap<unknown>(t);
  const children = await startMany(t, 6, map.name);
  const count = divided(4000);
  await Promise.all(children.map((child, owner) => child.ask("writeBoth", { owner, count })));
  assert.equal(map.size, children.length * count + count);
  for (const owner of children.keys()) {
    for (let i = 0; i < count; i += 1) {
      assert.equal(map.get(`own ${owner} ${i}`), owner * count + i);
    }
  }
  for (let i = 0; i < count; i += 1) {
    const value = map.get(`common ${i}`) as { owner: number; i: number };
    assert.ok(value.i === i && value.owner >= 0 && value.owner < children.length);
  }
  assertSound(map);
});

test("SharedMap.add() is won by exactly one of many processes, for each key", LONG, async (t) => {
  const map = freshMap<number>(t);
  const children = await startMany(t, 6, map.name);
  const count = divided(5000);
  const wins: number[][] = await Promise.all(
    children.map((child, owner) => child.ask("addRace", { owner, count })),
  );
  assert.equal(wins.flat().length, count);
  assert.equal(new Set(wins.flat()).size, count);
  for (const [owner, keys] of wins.entries()) {
    assert.ok(keys.every((key) => map.get(`race ${key}`) === owner));
  }
});

test("SharedMap.getOrInsert() gives all processes the same value", LONG, async (t) => {
  const map = freshMap<number>(t);
  const children = await startMany(t, 6, map.name);
  const count = divided(3000);
  const results: number[][] = await Promise.all(
    children.map((child, owner) => child.ask("insertRace", { owner, count })),
  );
  const stored = map.getMany(Array.from({ length: count }, (_, i) => `insert ${i}`));
  for (const result of results) assert.deepEqual(result, stored);
});

for (const keyCount of [1, 40]) {
  const title = `SharedMap.update() by four processes on ${keyCount} key(s) gives the exact total`;
  test(title, LONG, async (t) => {
    const map = freshMap<number>(t);
    const children = await startMany(t, 4, map.name);
    const keys = Array.from({ length: keyCount }, (_, i) => `counter ${i}`);
    const times = divided(Math.ceil(2000 / keyCount));
    const runs: number[] = await Promise.all(
      children.map((child) => child.ask("increment", { keys, times })),
    );
    for (const key of keys) assert.equal(map.get(key), 4 * times);
    assert.ok(runs.every((count) => count >= times * keyCount));
  });
}

/** Lets children work until the key STOP appears; then every one must have ended well. */
function runFor(
  map: SharedMap,
  milliseconds: number,
  work: Promise<unknown>[],
  meanwhile: () => void = () => {},
): Promise<unknown[]> {
  let hasFailed = false;
  for (const task of work) task.catch(() => hasFailed = true);
  return withSeed(async () => {
    const end = performance.now() + milliseconds * PATIENCE;
    while (performance.now() < end && !hasFailed) {
      meanwhile();
      await pause(1);
    }
    map.set(STOP, 1);
    return await Promise.all(work);
  });
}

test("SharedMap shows no torn value to readers in a storm of writes", LONG, async (t) => {
  const map = freshMap<string>(t);
  const [w1, w2, r1, r2] = await startMany(t, 4, map.name);
  const keyCount = 300;
  const work = [w1, w2].map((child, i) => child.ask("storm", { seed: SEED + i, keyCount }));
  work.push(...[r1, r2].map((child, i) => child.ask("watch", { seed: SEED - i, keyCount })));
  const counts = await runFor(map, divided(6000), work);
  assert.ok(counts.every((count) => (count as number) > divided(100)), `${counts}`);
  for (const [key, value] of map) if (key !== STOP) checkedSequence(key, value);
  assert.equal(map.size, [...map.keys()].length);
  assertSound(map);
});

test("SharedMap shows a read-only process the same storm whole", LONG, async (t) => {
  const map = freshMap<string>(t);
  const keyCount = 100;
  const writer = await startWith(t, HERE, map.name);
  const readers = await startMany(t, 2, map.name, { readonly: true });
  const work = [writer.ask("storm", { seed: SEED, keyCount })];
  work.push(...readers.map((child, i) => child.ask("watch", { seed: SEED + i, keyCount })));
  const counts = await runFor(map, divided(3000), work);
  assert.ok(counts.every((count) => (count as number) > divided(100)), `${counts}`);
});

for (const task of ["breathe", "shuffle"] as const) {
  const what = { breathe: "makes the map grow and shrink", shuffle: "moves keys about" }[task];
  test(`SharedMap shows every key that stays once while a process ${what}`, LONG, async (t) => {
    // A small map has few stripes, and large values take long to gather: keys move meanwhile.
    const map = freshMap<unknown>(t, task === "shuffle" ? { maxBytes: 2 << 20 } : {});
    const keptCount = 200;
    for (let i = 0; i < keptCount; i += 1) map.set(`kept ${i}`, i);
    for (let i = 0; i < 20; i += 1) map.set(`large ${i}`, "x".repeat(50_000));
    const [writer, reader, watcher] = await startMany(t, 3, map.name);
    const count = task === "shuffle" ? 400 : 60_000;
    const work = [writer.ask(task, { seed: SEED, count })];
    work.push(...[reader, watcher].map((child) => child.ask("findAll", { count: keptCount })));
    const rounds = await runFor(map, divided(4000), work);
    assert.ok(rounds.every((round) => (round as number) > 0), `${rounds}`);
    assertSound(map);
  });
}

test("SharedMap.toObject() shows one instant while others write", LONG, async (t) => {
  const map = freshMap<number>(t);
  map.set("ping", 0).set("pong", 0);
  const children = await startMany(t, 5, map.name);
  const [w0, w1, ping, pong, reader] = children;
  const work = [
    w0.ask("forge", { writer: 0 }),
    w1.ask("forge", { writer: 1 }),
    ping.ask("answerEach", { mine: "ping", theirs: "pong", lag: 0 }),
    pong.ask("answerEach", { mine: "pong", theirs: "ping", lag: 1 }),
    reader.ask("snapshots", { writers: 2 }),
  ];
  let count = 0;
  const counts = await runFor(map, divided(6000), work, () => {
    assertOneInstant(map.toObject(), 2);
    count += 1;
  });
  assert.ok([...counts, count].every((one) => (one as number) > 2), `${counts} ${count}`);
});

test("SharedMap.toObject() shows a read-only handle one instant", LONG, async (t) => {
  const map = freshMap<number>(t);
  const [w0, w1] = await startMany(t, 2, map.name);
  const reader = await startWith(t, THERE, map.name, { readonly: true, timeout: 30_000 });
  const work = [
    w0.ask("forge", { writer: 0 }),
    w1.ask("forge", { writer: 1 }),
    reader.ask("snapshots", { writers: 2 }),
  ];
  const counts = await runFor(map, divided(3000), work);
  assert.ok(counts.every((count) => (count as number) > 0), `${counts}`);
});

test(`SharedMap.open() by ${MANY} processes at once gives one map`, LONG, async (t) => {
  const name = freshName(t);
  const children = await startTens(t);
  const endings = await Promise.allSettled(
    children.map((child) => child.ask("open", { id: "map", name, options: { mode: "create" } })),
  );
  const creators = endings.filter(({ status }) => status === "fulfilled");
  assert.equal(creators.length, 1);
  for (const ending of endings) {
    if (ending.status === "rejected") assert.equal(ending.reason.code, "Exists", ending.reason);
  }
  await Promise.all(children.map((child) => child.ask("open", { id: "map", name })));
  await Promise.all(children.map((child, i) => child.call("set", `key ${i}`, i)));
  using map = SharedMap.open(name, { mode: "attach" });
  assert.equal(map.size, MANY);
  assert.deepEqual(temporaries(name), []);
});

/** Processes, started ten at a time. */
async function startTens(t: TestContext): Promise<Child[]> {
  const children: Child[] = [];
  for (let i = 0; i < MANY; i += 10) {
    const ten = Array.from({ length: 10 }, (_, j) => lentChild(t, runtimeOf(j)));
    children.push(...await Promise.all(ten));
  }
  return children;
}

test(
  `SharedMap.open() and unlink() by ${MANY} processes leave a whole map or none`,
  LONG,
  async (t) => {
    await withSeed(async (random) => {
      const name = freshName(t);
      const children = await startTens(t);
      const rounds = divided(40);
      const work = children.map((child, i) =>
        child.ask("churn", { name, seed: SEED + i, rounds: i % 10 === 0 ? 1e9 : rounds })
      );
      for (let i = 0; i < MANY; i += 10) {
        await pause(random(100));
        await children[i].kill();
      }
      const endings = await Promise.all(work.filter((_, i) => i % 10 !== 0));
      const totals: Record<string, number> = {};
      for (const ending of endings as Record<string, number>[]) {
        for (const [how, count] of Object.entries(ending)) totals[how] = (totals[how] ?? 0) + count;
      }
      assert.equal(Object.values(totals).reduce((a, b) => a + b, 0), (MANY - MANY / 10) * rounds);
      assert.ok(totals.shared > 0 && totals.exclusive > 0, JSON.stringify(totals));
      using map = SharedMap.open(name);
      for (const [key, value] of map) checkedSequence(key, value);
      assert.equal(map.set("after", 1).get("after"), 1);
      assertSound(map);
      SharedMap.list();
      assert.deepEqual(temporaries(name), []);
    });
  },
);

test("SharedMap of a replacing process and its writers never mixes two maps", LONG, async (t) => {
  const name = freshName(t);
  using first = SharedMap.open(name, { mode: "exclusive" });
  first.set("epoch", 0);
  const child = await startWith(t, THERE, name);
  for (let epoch = 1; epoch <= divided(100); epoch += 1) {
    using fresh = SharedMap.open<number>(name, { mode: "exclusive" });
    fresh.set("epoch", epoch);
    await assert.rejects(child.call("set", "epoch", -1), { code: "Replaced" });
    await child.ask("open", { id: "map", name });
    assert.equal(await child.call("get", "epoch"), epoch);
    await child.call("set", "mark", epoch);
    assert.deepEqual(content(fresh), [["epoch", epoch], ["mark", epoch]]);
  }
});

testUnless(
  NEEDS.stopping,
  "SharedMap.get() answers while a writer is stopped in the middle of its work",
  LONG,
  async (t) => {
    const map = freshMap<unknown>(t);
    for (let i = 0; i < 500; i += 1) map.set(`key ${i}`, i);
    const child = await startWith(t, THERE, map.name);
    const storm = child.ask("storm", { seed: SEED, keyCount: 50 });
    await until("the storm", () => map.has("storm 1"));
    for (let round = 0; round < 30; round += 1) {
      child.signalWith("SIGSTOP");
      for (let i = 0; i < 500; i += 1) assert.equal(map.get(`key ${i}`), i);
      for (const [key, value] of map) if (key.startsWith("storm")) checkedSequence(key, value);
      assert.equal(map.size, [...map.keys()].length);
      child.signalWith("SIGCONT");
      await pause(1);
    }
    map.set(STOP, 1);
    await storm;
  },
);
