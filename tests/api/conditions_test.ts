/** Conditions and counters: each changes what it is asked to, in one step, or nothing. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Entry, SharedMap } from "../../mod.ts";
import {
  assertSound,
  content,
  freshAnonymous,
  freshMap,
  isArgumentError,
  pause,
  thrown,
  untyped,
} from "../support/support.ts";

const LARGE = "x".repeat(200_000);

test("SharedMap.getEntry() gives value and version of one moment, and an absent key as version 0", (t) => {
  const map = freshMap<unknown>(t);
  const absent: Entry<unknown> = map.getEntry("k");
  assert.deepEqual(absent, { key: "k", value: undefined, version: 0, expires: undefined });
  map.set("k", { a: [1] });
  const first = map.getEntry("k");
  assert.deepEqual(first.value, { a: [1] });
  assert.equal(first.expires, undefined);
  assert.deepEqual(map.getEntry("k"), first);
  map.set("k", { a: [1] });
  const second = map.getEntry("k");
  assert.ok(second.version > first.version);
  map.delete("k");
  assert.equal(map.getEntry("k").version, 0);
  map.set("k", 1);
  assert.ok(map.getEntry("k").version > second.version, "no version comes twice");
  map.set("large", LARGE);
  assert.equal(map.getEntry("large").value, LARGE);
});

test("An entry of a frozen handle is a copy of its own", (t) => {
  const map = freshAnonymous<{ list: number[] }>(t, { frozen: true }).set("a", { list: [1] });
  assert.ok(Object.isFrozen(map.get("a")));
  const { value } = map.getEntry("a");
  value!.list.push(2);
  assert.deepEqual(map.get("a"), { list: [1] });
  const taken = map.swap("a", { list: [3] })!;
  taken.list.push(4);
  assert.deepEqual(map.get("a"), { list: [3] }); // not what was kept of the one before
  const last = map.take("a")!;
  last.list.push(5);
  assert.equal(map.get("a"), undefined);
  map.set("a", { list: [6] });
  assert.deepEqual(map.get("a"), { list: [6] });
});

test("SharedMap.replace() stores where there is an entry, and with ifVersion where it is the one", (t) => {
  const map = freshMap<unknown>(t);
  assert.equal(map.replace("k", 1), false);
  assert.equal(map.replace("k", 1, {}), false);
  assert.equal(map.replace("k", 1, { ifVersion: 0 }), false);
  assert.equal(map.has("k"), false);
  map.set("k", 1);
  const { version } = map.getEntry("k");
  assert.equal(map.replace("k", 2, { ifVersion: 0 }), false);
  assert.equal(map.replace("k", 2, { ifVersion: version + 1 }), false);
  assert.equal(map.replace("k", 2, { ifVersion: version }), true);
  assert.equal(map.replace("k", 3, { ifVersion: version }), false);
  assert.equal(map.get("k"), 2);
  assert.equal(map.replace("k", LARGE, { ifVersion: undefined }), true);
  assert.equal(map.get("k"), LARGE);
  // Deleted and stored again is another version, though the value is the same.
  map.set("k", 2);
  const before = map.getEntry("k");
  map.delete("k");
  map.set("k", 2);
  assert.equal(map.replace("k", 4, { ifVersion: before.version }), false);
  assertSound(map);
});

test("SharedMap.delete() with ifVersion removes that version alone, and ignores what no object is", (t) => {
  const map = freshMap<number>(t).set("k", 1);
  const { version } = map.getEntry("k");
  assert.equal(map.delete("k", { ifVersion: 0 }), false);
  assert.equal(map.delete("k", { ifVersion: version + 1 }), false);
  assert.equal(map.delete("k", { ifVersion: version }), true);
  assert.equal(map.delete("k", { ifVersion: version }), false);
  map.set("k", 1);
  assert.equal(map.delete("k", {}), true);
  map.set("a", 1).set("b", 2).set("c", 3);
  ["a", "b"].forEach(map.delete, map);
  new Set(["c"]).forEach(map.delete, map);
  assert.equal(map.size, 0);
});

test("SharedMap.swap() gives what was there, of any size, and stores in its place", (t) => {
  const map = freshMap<unknown>(t);
  assert.equal(map.swap("k", 1), undefined);
  assert.equal(map.swap("k", { a: 1 }), 1);
  assert.deepEqual(map.swap("k", LARGE), { a: 1 });
  assert.equal(map.swap("k", new Map([[1, 2]])), LARGE);
  assert.deepEqual(map.get("k"), new Map([[1, 2]]));
  const { version } = map.getEntry("k");
  map.swap("k", 5);
  assert.ok(map.getEntry("k").version > version);
  assert.equal(map.size, 1);
  assertSound(map);
});

test("SharedMap.take() gives a value once, of any size", (t) => {
  const map = freshMap<unknown>(t);
  assert.equal(map.take("k"), undefined);
  for (const value of [1, "", null, { a: 1 }, LARGE, new Uint8Array(70_000).fill(7)]) {
    map.set("k", value);
    assert.deepEqual(map.take("k"), value);
    assert.equal(map.take("k"), undefined);
    assert.equal(map.size, 0);
  }
  assertSound(map);
});

test("SharedMap.increment() adds numbers, and bigints of any size", (t) => {
  const map = freshMap<number | bigint>(t);
  assert.equal(map.increment("n"), 1);
  assert.equal(map.increment("n", 4), 5);
  assert.equal(map.increment("n", -7.5), -2.5);
  assert.equal(map.increment("n", undefined, { initial: 100 }), -1.5);
  assert.equal(map.increment("new", 2, { initial: 40 }), 42);
  assert.equal(map.increment("zero", 0), 0);
  assert.equal(map.get("n"), -1.5);
  let model = 0n;
  const steps = [1n, 2n ** 63n - 1n, 1n, -1n, -(2n ** 64n), -5n, 2n ** 200n, 3n ** 400n, 7n];
  for (const step of [...steps, ...steps.map((step) => -step), -1n]) {
    model += step;
    assert.equal(map.increment("b", step), model);
    assert.equal(map.get("b"), model);
  }
  assert.equal(map.increment("big", 1n, { initial: 2n ** 70n }), 2n ** 70n + 1n);
  const huge = 2n ** 600_000n;
  assert.equal(map.increment("huge", huge), huge);
  assert.equal(map.increment("huge", huge), 2n * huge);
  assert.equal(map.increment("huge", -2n * huge), 0n);
  assertSound(map);
});

test("SharedMap.incrementEntry() gives the entry as its step has left it", (t) => {
  const map = freshMap<number | bigint>(t);
  const first = map.incrementEntry("n");
  assert.deepEqual(first, map.getEntry("n"));
  const second = map.incrementEntry("n", 2);
  assert.deepEqual([second.value, second.key, second.expires], [3, "n", undefined]);
  assert.ok(second.version > first.version);
  assert.deepEqual(map.incrementEntry("b", 2n ** 80n), map.getEntry("b"));
});

test("A step that is refused changes nothing", (t) => {
  const map = freshMap<unknown>(t);
  const most = Number.MAX_SAFE_INTEGER;
  const values: [string, unknown][] = [
    ["text", "1"],
    ["none", null],
    ["bigint", 1n],
    ["large", 2n ** 80n],
    ["number", 1],
    ["most", most],
    ["least", -most],
    ["object", { n: 1 }],
    ["infinite", Infinity],
  ];
  map.setMany(values);
  const entries = values.map(([key]) => map.getEntry(key));
  for (const key of ["text", "none", "bigint", "large", "object"]) {
    assert.throws(() => map.increment(key), {
      name: "TypeError",
      message: /its value is no number/,
    });
  }
  for (const key of ["text", "none", "number", "object"]) {
    assert.throws(() => map.increment(key, 1n), { name: "TypeError", message: /is no bigint/ });
  }
  const beyond: [string, number][] = [
    ["most", 1],
    ["most", 2 ** 52],
    ["least", -1],
    ["number", Infinity],
    ["number", NaN],
    ["infinite", -Infinity],
    ["infinite", 1],
    ["absent", 2 ** 53],
  ];
  for (const [key, by] of beyond) {
    assert.throws(() => map.increment(key, by), { name: "RangeError", message: new RegExp(key) });
  }
  assert.throws(() => map.increment("absent", 1, { initial: most }), RangeError);
  for (const by of ["1", null, {}, true, Symbol("s")]) {
    assert.throws(() => map.increment("number", untyped(by)), TypeError);
  }
  assert.throws(() => map.increment("number", 1, untyped({ initial: 1n })), TypeError);
  assert.throws(() => map.increment("number", 1n, untyped({ initial: 1 })), TypeError);
  assert.throws(() => map.increment("number", 1, untyped({ initial: "1" })), TypeError);
  assert.throws(() => map.increment("number", 1, untyped({ initail: 1 })), /initial/);
  assert.deepEqual(values.map(([key]) => map.getEntry(key)), entries);
  assert.equal(map.has("absent"), false);
});

test("Conditions refuse what cannot be stored and options that are none, and change nothing", (t) => {
  const map = freshMap<unknown>(t).set("k", 1);
  const before = map.getEntry("k");
  const bad: unknown[] = ["", 7, undefined, null, "\ud800", "x".repeat(65_536)];
  for (const key of bad.map(untyped)) {
    const calls = [
      () => map.getEntry(key),
      () => map.replace(key, 1),
      () => map.swap(key, 1),
      () => map.take(key),
      () => map.delete(key, { ifVersion: 1 }),
      () => map.increment(key),
      () => map.increment(key, 1n),
    ];
    for (const call of calls) assert.throws(call, isArgumentError);
  }
  for (const value of [undefined, () => {}, Symbol("s")]) {
    assert.throws(() => map.replace("k", value), TypeError);
    assert.throws(() => map.swap("k", value), TypeError);
  }
  for (const ifVersion of [-1, 1.5, NaN, "1", 1n, null].map(untyped)) {
    assert.throws(() => map.replace("k", 2, { ifVersion }), isArgumentError);
    assert.throws(() => map.delete("k", { ifVersion }), isArgumentError);
  }
  assert.throws(() => map.replace("k", 2, untyped({ ifversion: 1 })), /ifVersion/);
  assert.throws(() => map.delete("k", untyped({ version: 1 })), /ifVersion/);
  assert.deepEqual(map.getEntry("k"), before);
});

test("A reading handle gets entries and pages, and may change nothing", (t) => {
  const map = freshMap<number>(t).set("k", 1);
  const reader = SharedMap.open<number>(map.name, { mode: "attach", readonly: true });
  assert.deepEqual(reader.getEntry("k"), map.getEntry("k"));
  const calls = [
    () => reader.replace("k", 2),
    () => reader.swap("k", 2),
    () => reader.take("k"),
    () => reader.delete("k", { ifVersion: 1 }),
    () => reader.increment("k"),
    () => reader.increment("k", untyped(1n)),
    () => reader.incrementEntry("k"),
    () => reader.clear({ prefix: "k" }),
  ];
  for (const call of calls) thrown("ReadOnly", call);
  reader.close();
  for (const call of [...calls, () => reader.getEntry("k")]) thrown("Closed", call);
  assert.deepEqual(content(map), [["k", 1]]);
});

test("While another handle has the lock, conditions and counters wait, and their time is bounded", (t) => {
  const map = freshMap<number>(t).set("k", 1);
  const other = SharedMap.attach<number>(map.token, { timeout: 20 });
  const holder = SharedMap.attach<number>(map.token);
  const calls = [
    () => other.replace("k", 2),
    () => other.swap("k", 2),
    () => other.take("k"),
    () => other.delete("k", { ifVersion: 1 }),
    () => other.increment("k"),
    () => other.clear({ prefix: "k" }),
  ];
  {
    using _lock = holder.lock();
    // The lock is this isolate's own: it could not be given back meanwhile.
    for (const call of calls) thrown("Locked", call);
    assert.equal(holder.increment("k"), 2);
    assert.equal(holder.swap("k", 1), 2);
    assert.equal(other.getEntry("k").value, 1);
  }
  for (const call of calls) call();
  other.close();
  holder.close();
});

test("A value that cannot be read back is reported by take and swap", (t) => {
  const codec = {
    id: "picky",
    encode: (value: unknown) => new TextEncoder().encode(JSON.stringify(value)),
    decode: (): unknown => {
      throw new Error("never");
    },
  };
  const map = freshAnonymous<unknown>(t, { codec }).set("a", { a: 1 });
  thrown("Corrupt", () => map.getEntry("a"));
  thrown("Corrupt", () => map.swap("a", 1));
  assert.equal(map.get("a"), 1);
});

test("Conditions and counters have ends: of their own, kept, or the handle's", async (t) => {
  const map = freshMap<unknown>(t);
  const hour = 3_600_000;
  const near = (expires: number | undefined, wanted: number) => {
    assert.ok(Math.abs(expires! - wanted) < 60_000, `${expires} is not near ${wanted}`);
  };
  map.set("k", 1);
  assert.equal(map.replace("k", 2, hour), true);
  near(map.getEntry("k").expires, Date.now() + hour);
  const { version } = map.getEntry("k");
  assert.equal(map.replace("k", 3, { ttl: 2 * hour, ifVersion: version }), true);
  near(map.getEntry("k").expires, Date.now() + 2 * hour);
  assert.equal(map.replace("k", 4), true);
  assert.equal(map.getEntry("k").expires, undefined);
  assert.equal(map.swap("k", 5, { expires: Date.now() + hour }), 4);
  near(map.getEntry("k").expires, Date.now() + hour);

  const first = map.incrementEntry("hits", 1, { ttl: hour, initial: 10 });
  assert.equal(first.value, 11);
  near(first.expires, Date.now() + hour);
  const second = map.incrementEntry("hits", 1, { ttl: 9 * hour });
  assert.deepEqual([second.value, second.expires], [12, first.expires]);
  assert.equal(map.getEntry("hits").expires, first.expires);
  const big = map.incrementEntry("big", 2n ** 70n, { ttl: hour });
  near(big.expires, Date.now() + hour);
  assert.equal(map.incrementEntry("big", 1n).expires, big.expires);

  assert.equal(map.incrementEntry("over", 1, { ttl: 0 }).value, 1);
  assert.equal(map.has("over"), false);
  assert.equal(map.swap("k", 6, { ttl: -1 }), 5);
  assert.equal(map.replace("hits", 6, 0), true);
  assert.deepEqual([map.has("k"), map.has("hits")], [false, false]);

  const lending = SharedMap.attach<unknown>(map.token, { ttl: hour });
  near(lending.incrementEntry("n").expires, Date.now() + hour);
  lending.swap("s", 1);
  near(map.getEntry("s").expires, Date.now() + hour);
  assert.equal(map.increment("m"), 1);
  assert.equal(lending.incrementEntry("m").expires, undefined); // it was there
  lending.close();
  for (const bad of [{ ttl: 1, expires: 1 }, { ttl: NaN }, { ttl: "1" }].map(untyped)) {
    assert.throws(() => map.increment("m", 1, bad), TypeError);
    assert.throws(() => map.swap("s", 1, bad), TypeError);
    assert.throws(() => map.replace("s", 1, bad), TypeError);
  }
  assert.deepEqual([map.get("m"), map.get("s")], [2, 1]);

  map.set("short", 1, 20);
  const { version: ended } = map.getEntry("short");
  while (map.has("short")) await pause(5);
  assert.equal(map.take("short"), undefined);
  assert.equal(map.replace("short", 2), false);
  assert.equal(map.delete("short", { ifVersion: ended }), false);
  assert.deepEqual(map.scan({ prefix: "short" }).keys, []);
  assert.equal(map.getEntry("short").version, 0);
  assert.equal(map.swap("short", 2), undefined);
  assert.equal(map.get("short"), 2);
  assertSound(map);
});
