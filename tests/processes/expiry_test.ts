/** Entries that end, between processes of both runtimes, with kills, and in Workers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import {
  assertSound,
  atEnd,
  divided,
  freshMap,
  HERE,
  otherThan,
  pause,
  runtimeOf,
  SEED,
  startMany,
  startWith,
  until,
} from "../support/support.ts";
import { STOP } from "../support/tasks.ts";
import { Thread } from "../support/thread.ts";

const MIB = 2 ** 20;
const DAY = 24 * 60 * 60_000;
const SOON = 40;
const LONG = { timeout: 240_000 };

for (const lock of ["robust", "kernel"] as const) {
  test(`an entry ends for every process, over ${lock} locks`, LONG, async (t) => {
    const map = freshMap<unknown>(t, { lock });
    const child = await startWith(t, otherThan(HERE), map.name);
    const reader = await startWith(t, otherThan(HERE), map.name, { readonly: true });
    await child.call("set", "a", "of the child", SOON);
    await child.call("set", "b", "of the child", DAY);
    map.set("c", "of this process", SOON);
    await until("the end", () => !map.has("a") && !map.has("c"));
    for (const process of [child, reader]) {
      await until("the end there", async () => {
        const [a, c] = await process.call("hasMany", ["a", "c"]);
        return !a && !c;
      });
      assert.equal(await process.call("get", "b"), "of the child");
    }
    assert.equal(await child.call("touch", "b", SOON), true);
    await until("the end of what was touched", () => !map.has("b"));
    assert.equal(await child.call("touch", "b", SOON), false);
    assert.equal(await child.call("add", "b", "again"), true);
    await until("the removal", () => map.size === 1);
    assertSound(map);
  });
}

test("what a killed process stored ends, and others remove it", LONG, async (t) => {
  const map = freshMap<unknown>(t);
  const child = await startWith(t, otherThan(HERE), map.name);
  const entries = Array.from({ length: 200 }, (_, i) => [`key ${i}`, i, 500]);
  await child.call("setMany", entries);
  await child.call("set", "stays", 1);
  await child.kill();
  // This process has stored nothing that ends: it learns of it when it opens the map.
  using other = SharedMap.open(map.name);
  await until("the removal", () => other.size === 1);
  assert.equal(other.stats().expirations, 200);
  assertSound(map);
});

test("a process that does nothing removes what a killed one stored", LONG, async (t) => {
  // No end is there when they open it, and they store none.
  const map = freshMap<unknown>(t);
  const child = await startWith(t, otherThan(HERE), map.name);
  const idle = await startWith(t, otherThan(HERE), map.name);
  await pause(1200); // each has looked, and found none
  await child.call("setMany", Array.from({ length: 200 }, (_, i) => [`key ${i}`, i, 500]));
  await child.kill();
  await until("the removal", () => map.size === 0);
  const { expirations } = map.stats();
  assert.equal(expirations, 200);
  const reader = SharedMap.open(map.name, { readonly: true });
  map.close(); // from here on the other runtime's idle process is the only one that may write
  const writer = await startWith(t, HERE, reader.name as string);
  await writer.call("set", "again", 1, 300);
  await writer.kill();
  await until("the removal by the idle process", () => reader.stats().expirations === 201);
  reader.close();
  await idle.end();
});

test("of many processes one removes, and all may come to their end", LONG, async (t) => {
  const map = freshMap<unknown>(t);
  const children = await startMany(t, 4, map.name);
  for (const child of children) await child.call("set", `of ${child.pid}`, 1, DAY);
  for (let i = 0; i < divided(500); i += 1) map.set(`key ${i}`, i, SOON);
  await until("the removal", () => map.size === 4);
  assert.equal(map.stats().expirations, divided(500));
  // Their timers keep none of them alive.
  for (const child of children) await child.end();
  assertSound(map);
});

test("sessions that are stored, touched and ended beside kills", LONG, async (t) => {
  const map = freshMap<unknown>(t);
  const start = async (i: number) => {
    const child = await startWith(t, runtimeOf(i), map.name);
    child.send("sessions", { seed: SEED + i, keyCount: 500 });
    return child;
  };
  const steady = await Promise.all([start(0), start(1)]);
  for (let i = 2; i < 2 + divided(12); i += 1) {
    const victim = await start(i);
    await pause(20 + i * 7 % 60);
    await victim.kill();
    assert.ok(steady.every(({ isClosed }) => !isClosed), "a process that was not killed has ended");
  }
  map.set(STOP, true);
  for (const child of steady) {
    await child.ask("ready");
    await child.end();
  }
  assertSound(map);
  for (const key of [...map.keys()]) if (key !== STOP) map.touch(key, 1);
  await until("the removal of all", () => map.size === 1);
  const { expiring, dropped } = map.stats();
  assert.deepEqual([expiring, dropped], [0, 0]);
  assertSound(map);
});

test("a Worker's entries end, and its own timer removes them", LONG, async (t) => {
  const map = freshMap<unknown>(t).set("stays", 1);
  const { token } = map;
  const thread = new Thread(t);
  await thread.ask("attach", { token });
  using reader = SharedMap.attach(token, { readonly: true });
  map.close(); // from here on the Worker is the only one that may write
  await thread.ask("set", { key: "a", value: 1, expiry: SOON });
  await until("the removal", () => reader.size === 1);
  assert.equal(reader.stats().expirations, 1);
  await thread.ask("close");
  atEnd(t, () => thread.terminate());
});

test("large values that end give their memory back, without a call", LONG, async (t) => {
  const map = freshMap<Uint8Array>(t);
  for (let i = 0; i < 6; i += 1) map.set(`large ${i}`, new Uint8Array(8 * MIB), 1000);
  assert.ok(map.stats().allocated >= 48 * MIB);
  await until("the memory", () => map.stats().allocated <= 16 * MIB);
  assert.equal(map.size, 0);
  assertSound(map);
});
