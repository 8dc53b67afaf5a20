/**
 * The behaviour of the Perl module Shared::Simple, case by case, by the numbers of the list these
 * cases were collected in: `new(name, SHARED)` is `SharedMap.open(name)`, EXCLUSIVE is the mode of
 * that name, `put` is `set`, `get_size` is `size`, `get_all` is `toObject()`.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import { checkedSequence, checkedValue } from "../support/checked.ts";
import { noLimit, startLimited } from "../support/address_space.ts";
import {
  assertSound,
  atEnd,
  commandLine,
  content,
  divided,
  freshDirectory,
  freshMap,
  freshName,
  HERE,
  isArgumentError,
  lentChild,
  NO_PERMISSIONS,
  PATIENCE,
  pause,
  refusesTmpfs,
  runtimeOf,
  RUNTIMES,
  SHM,
  startChild,
  startMany,
  startOnSmallTmpfs,
  startWith,
  temporaries,
  type TestContext,
  testUnless,
  THERE,
  thrown,
  until,
  untyped,
} from "../support/support.ts";

const LONG = { timeout: 60_000 };
const KILLS = Math.max(4, divided(10));

function exclusive(t: TestContext): SharedMap & { name: string } {
  return freshMap(t, { mode: "exclusive" });
}

for (const runtime of RUNTIMES) {
  test(`A-01 and C-01 mod.ts loads in ${runtime}, without opening anything`, LONG, () => {
    const [command, ...args] = commandLine(runtime, undefined, NO_PERMISSIONS);
    const commands = JSON.stringify([{ request: 1, command: "ready" }]);
    const result = spawnSync(command, [...args, commands], { encoding: "utf8" });
    assert.equal(result.status, 0, result.stderr);
    assert.equal(JSON.parse(result.stdout).request, 1);
  });
}

test("A-02 and A-03 open() in exclusive mode gives an instance of SharedMap", (t) => {
  assert.ok(exclusive(t) instanceof SharedMap);
});

// A-04 to A-06 look at the seed's inner pointer. Here the inside is private: it does not show.
test("A-04 an open map shows no property of its own", (t) => {
  assert.deepEqual(Object.keys(exclusive(t)), []);
});

test("A-05 an open map has a token, which is a string and not a number to guess", (t) => {
  assert.equal(typeof exclusive(t).token, "string");
});

test("A-06 an open map's token is not empty, and no other segment has it", (t) => {
  const [first, second] = [exclusive(t), exclusive(t)];
  assert.ok(first.token.length > 0);
  assert.notEqual(first.token, second.token);
});

test("A-07 get() of a missing key is undefined", (t) => {
  assert.equal(exclusive(t).get("nosuchkey"), undefined);
});

test("A-08 set() succeeds, and gives the map", (t) => {
  const map = exclusive(t);
  assert.equal(map.set("hello", "world"), map);
});

test("A-09 get() returns what was set", (t) => {
  assert.equal(exclusive(t).set("hello", "world").get("hello"), "world");
});

test("A-10 set() of a key that is there does not throw", (t) => {
  const map = exclusive(t).set("hello", "world");
  assert.equal(map.set("hello", "updated"), map);
});

test("A-11 get() after two sets returns the second value", (t) => {
  assert.equal(exclusive(t).set("hello", "world").set("hello", "updated").get("hello"), "updated");
});

test("A-12 set() takes a value of exactly 32 bytes", (t) => {
  assert.equal(exclusive(t).set("maxkey", "x".repeat(32)).get("maxkey"), "x".repeat(32));
});

test("A-13 set() of an empty key is a TypeError that says so", (t) => {
  const map = exclusive(t);
  assert.throws(() => map.set("", "val"), { name: "TypeError", message: /empty/ });
  assert.equal(map.size, 0);
});

test("A-14 set() of an undefined key is a TypeError", (t) => {
  const map = exclusive(t);
  for (const key of [undefined, null, 1, {}]) {
    assert.throws(() => map.set(untyped(key), "val"), TypeError);
  }
  assert.equal(map.size, 0);
});

test("A-15 get() of an empty key is a TypeError that says so", (t) => {
  assert.throws(() => exclusive(t).get(""), { name: "TypeError", message: /empty/ });
});

test("A-16 get() of an undefined key is a TypeError", (t) => {
  assert.throws(() => exclusive(t).get(untyped(undefined)), TypeError);
});

// A-17 and A-18 are limits of the seed; both are lifted, so both values are stored.
test("A-17 set() takes an empty value", (t) => {
  const map = exclusive(t).set("k", "");
  assert.deepEqual([map.get("k"), map.has("k"), map.size], ["", true, 1]);
});

test("A-18 set() takes a value of 33 bytes and far more", (t) => {
  const map = exclusive(t);
  for (const length of [33, 1000, 1_000_000]) {
    assert.equal(map.set("k", "x".repeat(length)).get("k"), "x".repeat(length));
  }
});

/** The map after the calls of A-08 to A-16, the failed ones included. */
function afterTheSuite(t: TestContext): SharedMap {
  const map = exclusive(t).set("hello", "world").set("hello", "updated");
  map.set("maxkey", "x".repeat(32));
  for (const key of ["", undefined]) {
    assert.throws(() => map.set(untyped(key), "val"));
    assert.throws(() => map.get(untyped(key)));
  }
  assert.throws(() => map.set("k", undefined));
  return map;
}

test("A-19 size counts what was stored, and failed calls stored nothing", (t) => {
  assert.equal(afterTheSuite(t).size, 2);
});

test("A-20 size grows by one with another key", (t) => {
  assert.equal(afterTheSuite(t).set("another", "val").size, 3);
});

test("A-21 toObject() is a plain object", (t) => {
  const object = afterTheSuite(t).toObject();
  const prototype = Object.getPrototypeOf(object);
  assert.ok(prototype === null || prototype === Object.prototype);
});

for (
  const [number, key, value] of [
    ["A-22", "hello", "updated"],
    ["A-23", "maxkey", "x".repeat(32)],
    ["A-24", "another", "val"],
  ]
) {
  test(`${number} toObject().${key} is the value that was set`, (t) => {
    assert.equal(afterTheSuite(t).set("another", "val").toObject()[key], value);
  });
}

test("A-25 toObject() has exactly as many keys as there are", (t) => {
  assert.equal(Object.keys(afterTheSuite(t).set("another", "val").toObject()).length, 3);
});

test("A-30 open() of an absent name creates an empty map", (t) => {
  const name = freshName(t);
  using map = SharedMap.open(name, { mode: "shared" });
  assert.equal(map.size, 0);
  assert.ok(existsSync(join(SHM, name)));
});

test("A-31 open() of a present name attaches and sees its data", (t) => {
  const first = freshMap(t, { mode: "shared" }).set("a", "1");
  using second = SharedMap.open(first.name, { mode: "shared" });
  assert.deepEqual(content(second), [["a", "1"]]);
});

test("A-32 open() without a mode creates, and then attaches", (t) => {
  const name = freshName(t);
  using first = SharedMap.open(name);
  first.set("a", "1");
  using second = SharedMap.open(name);
  assert.equal(second.get("a"), "1");
});

test("A-33 open() in exclusive mode of a present name gives an empty map", (t) => {
  const first = freshMap(t).set("a", "1");
  using second = SharedMap.open(first.name, { mode: "exclusive" });
  assert.deepEqual([second.size, Object.keys(second.toObject())], [0, []]);
});

test(`A-34 get() in ${THERE} returns what set() stored in ${HERE}, and back`, LONG, async (t) => {
  const map = freshMap(t).set("a", "1");
  const child = await startWith(t, THERE, map.name);
  assert.equal(await child.call("get", "a"), "1");
  await child.call("set", "b", "2");
  assert.equal(map.get("b"), "2");
});

test("A-35 a map outlives the processes that used it, until it is unlinked", LONG, async (t) => {
  const name = freshName(t);
  const first = await startWith(t, HERE, name, { mode: "create" });
  await first.call("set", "a", "1");
  await first.end();
  const others = await startMany(t, 2, name, { mode: "attach" });
  for (const child of others) assert.equal(await child.call("get", "a"), "1");
  await others[0].ask("fill", { id: "map", to: 1000 });
  await others[1].ask("fill", { id: "map", from: 1000, to: 2000 });
  await others[0].end();
  await others[1].kill();
  using map = SharedMap.open(name, { mode: "attach" });
  assert.deepEqual([map.size, map.get("a"), map.get("key 1999")], [2001, "1", 1999]);
  assert.equal(SharedMap.unlink(name), true);
  thrown("NotFound", () => SharedMap.open(name, { mode: "attach" }));
});

test("A-37 open() of an empty name throws", () => {
  assert.throws(() => SharedMap.open(""), isArgumentError);
});

test("A-38 open() of a name that is too long throws, and creates nothing", (t) => {
  const stem = freshName(t);
  for (const length of [201, 250, 255, 256, 1000]) {
    assert.throws(() => SharedMap.open(stem.padEnd(length, "x")), isArgumentError);
  }
  assert.deepEqual(readdirSync(SHM).filter((file) => file.startsWith(stem)), []);
});

test("A-39 changing what toObject() returned changes nothing shared", (t) => {
  const map = exclusive(t).set("a", "1");
  const object = map.toObject();
  object.a = "2";
  object.b = "3";
  assert.deepEqual(content(map), [["a", "1"]]);
});

// A-51: there is no capacity to observe; a map takes its first key as it takes its last.
test("A-40 and A-51 set() beyond any capacity grows the map and keeps every key", LONG, (t) => {
  const map = exclusive(t);
  const count = Math.max(10_000, divided(50_000));
  for (let i = 0; i < count; i += 1) map.set(`key ${i}`, checkedValue(`key ${i}`, i));
  assert.equal(map.size, count);
  for (let i = 0; i < count; i += 1) {
    assert.equal(checkedSequence(`key ${i}`, map.get(`key ${i}`)), i);
  }
});

for (const victim of RUNTIMES) {
  test(`A-41 set() goes on after ${victim} was killed inside a call`, LONG, async (t) => {
    const map = exclusive(t);
    const work = { key: "large", bytes: 8 << 20 };
    for (let round = 0; round < Math.max(2, divided(5)); round += 1) {
      const child = await startWith(t, victim, map.name);
      child.send("setForever", { id: "map", ...work });
      await until("the first large value", () => map.has("large"));
      await child.kill();
      for (let i = 0; i < 200; i += 1) map.set(`key ${i}`, round);
      assert.equal((map.get("large") as Uint8Array).length, work.bytes);
      assert.deepEqual([map.size, map.delete("large")], [201, true]);
    }
    assertSound(map);
  });
}

test("A-42 every key of many children is there", LONG, async (t) => {
  const map = exclusive(t);
  const children = await startMany(t, Math.max(4, divided(8)), map.name, { mode: "shared" });
  await Promise.all(children.map((child, i) => child.call("set", `key ${i}`, `value ${i}`)));
  const wanted = children.map((_, i): [string, string] => [`key ${i}`, `value ${i}`]);
  assert.deepEqual(content(map), wanted);
});

test("A-50 set() of undefined is a TypeError and stores nothing", (t) => {
  const map = exclusive(t).set("old", 1);
  assert.throws(() => map.set("k", undefined), TypeError);
  assert.throws(() => map.set("old", undefined), TypeError);
  assert.deepEqual(content(map), [["old", 1]]);
});

test("A-52 every size around a doubling keeps every key", LONG, () => {
  const sizes = [51, 52, 53, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 999, 1000];
  for (const size of [...sizes, 1001, 9_999, 10_000, 10_001]) {
    using map = SharedMap.anonymous<string>();
    for (let i = 0; i < size; i += 1) map.set(`k${`${i}`.padStart(6, "0")}`, "x".repeat(32));
    assert.equal(map.size, size);
    assert.equal(new Set(map.keys()).size, size);
    for (let i = 0; i < size; i += 1) assert.ok(map.has(`k${`${i}`.padStart(6, "0")}`));
  }
});

for (const grower of RUNTIMES) {
  test(`A-53 a map grown by ${grower} is whole for one attached before`, LONG, async (t) => {
    const map = exclusive(t);
    const child = await startWith(t, grower, map.name);
    for (let size = 10; size <= 20_000; size *= 4) {
      await child.ask("fill", { id: "map", to: size });
      assert.deepEqual([map.size, map.get("key 0"), map.get(`key ${size - 1}`)], [
        size,
        0,
        size - 1,
      ]);
      assert.equal(new Set(map.keys()).size, size);
      assert.equal(Object.keys(map.toObject()).length, size);
      map.set(`key ${size - 1}`, size - 1);
    }
    await child.ask("checkFill", { id: "map", count: map.size });
  });
}

test("A-54 open() while another process makes the map grow sees a whole map", LONG, async (t) => {
  const map = exclusive(t).set("steady", 7);
  const child = await startWith(t, THERE, map.name);
  let isGrowing = true;
  const growth = child.ask("fill", { id: "map", to: 60_000 }).then(() => isGrowing = false);
  let opens = 0;
  while (isGrowing) {
    using again = SharedMap.open(map.name, { mode: "attach" });
    assert.equal(again.get("steady"), 7);
    again.set("opens", opens += 1);
    await pause(0);
  }
  await growth;
  assert.ok(opens > 0);
  assert.deepEqual([map.size, map.get("opens")], [60_002, opens]);
});

// A-36: no process can be seen in the middle of initialising, for a segment has no name before it
// is complete. What is left to observe: processes that open at once hardly wait for one another.
test("A-36 and A-55 processes that create at the same instant get one map", LONG, async (t) => {
  const children = await Promise.all(
    Array.from({ length: 8 }, (_, i) => lentChild(t, runtimeOf(i))),
  );
  const options = { timeout: 2000 * PATIENCE };
  for (let round = 0; round < divided(20); round += 1) {
    const name = freshName(t);
    await Promise.all(children.map((child) => child.ask("open", { id: "map", name, options })));
    await Promise.all(children.map((child, i) => child.call("set", `key ${i}`, i)));
    for (const child of children) {
      assert.equal(await child.ask("property", { id: "map", property: "size" }), 8);
    }
    using map = SharedMap.open(name, { mode: "attach" });
    assert.deepEqual(content(map), children.map((_, i) => [`key ${i}`, i]));
    assert.deepEqual(temporaries(name), []);
  }
});

for (const victim of RUNTIMES) {
  test(`A-56 open() succeeds after ${victim} was killed while creating`, LONG, async (t) => {
    for (let round = 0; round < KILLS; round += 1) {
      const name = freshName(t);
      const child = await startChild(t, victim);
      child.send("churn", { name, seed: round, rounds: 1e9, dots: true });
      await until("the first opens", () => child.tail.length > round);
      await child.kill();
      using map = SharedMap.open(name);
      assert.equal(map.set("after", 1).get("after"), 1);
      assertSound(map);
    }
  });
}

test(
  "A-57 a key being inserted by a killed process is there or not, and all others are",
  LONG,
  async (t) => {
    const map = exclusive(t);
    for (let i = 0; i < 100; i += 1) map.set(`old ${i}`, i);
    for (let round = 0; round < KILLS; round += 1) {
      const child = await startWith(t, runtimeOf(round), map.name);
      const before = map.size;
      child.send("fill", { id: "map", from: round * 1e7, to: round * 1e7 + 1e7 });
      await until("the first inserts", () => map.size > before + 20);
      await child.kill();
      const mine = [...map].filter(([key]) => key.startsWith("key "));
      assert.ok(mine.every(([key, value]) => key === `key ${value}`));
      for (let i = 0; i < 100; i += 1) assert.equal(map.set(`new ${i}`, i).get(`old ${i}`), i);
      assert.equal(map.size, [...map].length);
      for (const [key] of mine) assert.equal(map.delete(key), true);
    }
    assertSound(map);
  },
);

test(
  "A-57b a value being overwritten by a killed process is the old or the new one",
  LONG,
  async (t) => {
    const map = exclusive(t);
    const keyCount = 8;
    for (let round = 0; round < KILLS; round += 1) {
      const child = await startWith(t, runtimeOf(round), map.name);
      map.delete("storm 0");
      child.send("storm", { id: "map", seed: round, keyCount });
      await until("the first values", () => map.has("storm 0"));
      await child.kill();
      for (const [key, value] of map) checkedSequence(key, value);
      assertSound(map);
    }
  },
);

test("A-58 a map being grown by a killed process keeps all it had", LONG, async (t) => {
  for (let round = 0; round < divided(6); round += 1) {
    const map = exclusive(t);
    for (let i = 0; i < 1000; i += 1) map.set(`kept ${i}`, checkedValue(`kept ${i}`, i));
    const child = await startWith(t, runtimeOf(round), map.name);
    child.send("fillMany", { id: "map", to: 1e7 });
    await until("growth", () => map.size > 20_000 * (round + 1));
    await child.kill();
    for (let i = 0; i < 1000; i += 1) {
      assert.equal(checkedSequence(`kept ${i}`, map.get(`kept ${i}`)), i);
    }
    assert.equal(map.size, [...map.keys()].length);
    assertSound(map);
  }
});

test("A-59 set() takes a long key on an empty map, and refuses one too long", (t) => {
  for (const length of [2000, 2001, 5000, 65_535]) {
    assert.equal(exclusive(t).set("k".repeat(length), length).get("k".repeat(length)), length);
  }
  const map = exclusive(t);
  assert.throws(() => map.set("k".repeat(65_536), 1), RangeError);
  assert.equal(map.size, 0);
});

test("A-60 keys with a NUL are keys of their own", (t) => {
  const map = exclusive(t).set("a\0b", 1);
  assert.deepEqual([map.get("a"), map.get("a\0"), map.get("a\0b")], [undefined, undefined, 1]);
});

test("A-61 values with a NUL come back exact", (t) => {
  const map = exclusive(t);
  for (const value of ["ab\0cd", "\0x", "\0", "x\0"]) {
    assert.equal(map.set("k", value).get("k"), value);
  }
});

test("A-62 text comes back as the same text", (t) => {
  assert.equal(exclusive(t).set("k", "café☺").get("k"), "café☺");
});

test("A-63 names of 249 to 255 characters are refused before anything is created", (t) => {
  const directory = freshDirectory(t);
  for (let length = 249; length <= 255; length += 1) {
    assert.throws(() => SharedMap.open("x".repeat(length), { directory }), isArgumentError);
  }
  assert.deepEqual(readdirSync(directory), []);
});

test("A-64 names that the seed's suffix would confuse are two maps", (t) => {
  const first = freshMap(t);
  const names = ["_data", ".data", "-data", "_control", ".lock", "~"].map((end) =>
    first.name + end
  );
  for (const name of names.filter((name) => !name.endsWith("~"))) {
    atEnd(t, () => SharedMap.unlink(name));
    using second = SharedMap.open(name);
    assert.equal(second.set("who", name).size, 1);
    assert.equal(first.size, 0);
  }
  assert.throws(() => SharedMap.open(`${first.name}~`), isArgumentError);
});

test("A-65 a name with a slash is refused", (t) => {
  for (const name of ["/x", "a/b", "../x", `${freshName(t)}/`]) {
    assert.throws(() => SharedMap.open(name), isArgumentError);
  }
});

test("A-66 a mode that does not exist is refused", (t) => {
  const name = freshName(t);
  for (const mode of [7, 1, "", "other", "SHARED", null, "exclusive "]) {
    assert.throws(() => SharedMap.open(name, { mode: untyped(mode) }), isArgumentError);
  }
  assert.equal(existsSync(join(SHM, name)), false);
});

test('A-67 size of a replaced map is "Replaced", not the orphan\'s count', (t) => {
  const old = freshMap(t).set("a", 1);
  using fresh = SharedMap.open(old.name, { mode: "exclusive" });
  thrown("Replaced", () => old.size);
  assert.equal(fresh.size, 0);
});

for (const replacer of RUNTIMES) {
  test(`A-68 handles notice that ${replacer} replaced the map`, LONG, async (t) => {
    const map = freshMap(t).set("a", 1);
    const others = await startMany(t, 2, map.name);
    const child = await startChild(t, replacer);
    const options = { mode: "exclusive" };
    await child.ask("open", { id: "map", name: map.name, options });
    await child.call("set", "b", 2);
    thrown("Replaced", () => map.get("a"));
    thrown("Replaced", () => map.set("a", 2));
    for (const other of others) await assert.rejects(other.call("get", "a"), { code: "Replaced" });
    using again = SharedMap.open(map.name);
    assert.deepEqual(content(again), [["b", 2]]);
  });
}

test("A-69 keys that differ only in early characters are found at once", LONG, (t) => {
  const map = exclusive(t);
  const keys = Array.from({ length: 20_000 }, (_, i) => `${i}${"-same-long-ending".repeat(4)}`);
  keys.forEach((key, i) => map.set(key, i));
  assert.ok(keys.every((key, i) => map.get(key) === i));
  assert.equal(map.size, keys.length);
});

test("A-70 get() of missing keys in a map filled to any size is undefined", LONG, (t) => {
  const map = exclusive(t);
  for (let size = 0; size < 3000; size += 1) {
    assert.equal(map.get(`missing ${size}`), undefined);
    map.set(`key ${size}`, size);
  }
});

// A-71: mapping fails when there is no room for it in the address space.
testUnless(noLimit, "A-71 open() throws when the mapping is refused", LONG, async (t) => {
  const map = exclusive(t).set("large", new Uint8Array(250 * 2 ** 20));
  const child = await startLimited(t, "bun", 150 * 2 ** 20);
  const opened = child.ask("open", { id: "map", name: map.name });
  await assert.rejects(opened, { name: "SharedMemoryError", code: "NoSpace", errno: "ENOMEM" });
});

testUnless(
  refusesTmpfs(),
  'A-72 set() into a full file system is "NoSpace", and the map goes on',
  LONG,
  async (t) => {
    const { child, directory } = await startOnSmallTmpfs(t);
    await child.call("set", "first", 1);
    const fill = child.ask("fill", { id: "map", to: 1e6 });
    await assert.rejects(fill, { name: "SharedMemoryError", code: "NoSpace" });
    await assert.rejects(fill, (error: Error) => {
      assert.ok(error.message.includes(directory), error.message);
      assert.match(error.message, /"small".*\d+(\.\d+)? [KM]iB/);
      return true;
    });
    assert.deepEqual([await child.call("get", "first"), await child.call("get", "key 0")], [1, 0]);
    assert.equal(await child.call("delete", "first"), true);
  },
);

// A-73 is about a second ftruncate on macOS. Growing in place many times is what can be seen here.
test("A-73 a map grows in place, step by step, under handles that stay valid", LONG, (t) => {
  const map = exclusive(t);
  using other = SharedMap.open(map.name);
  for (let i = 0; i < 400; i += 1) {
    map.set(`key ${i}`, "x".repeat(20_000));
    assert.equal((other.get(`key ${i}`) as string).length, 20_000);
  }
  assert.ok(map.stats().allocated >= 8_000_000);
});
