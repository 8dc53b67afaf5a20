/** Entries that end: for every call, from then on, and gone from memory without any call. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Expiry, SharedMap, SharedValue } from "../../mod.ts";
import { symbols } from "../../src/ffi/abi.ts";
import { assertSound, content, freshMap, until, untyped } from "../support/support.ts";

const DAY = 24 * 60 * 60_000;
/** So soon an entry ends that a test waits for. */
const SOON = 40;

/** Runs `task` while `Date.now` is that much ahead. */
function ahead<T>(ms: number, task: () => T): T {
  const now = Date.now;
  Date.now = () => now() + ms;
  try {
    return task();
  } finally {
    Date.now = now;
  }
}

/** Waits until the key is absent. */
async function untilEnded(map: SharedMap<unknown>, key: string): Promise<void> {
  await until(`the end of "${key}"`, () => !map.has(key));
}

/**
 * How each exported function that reads entries finds one: a value, true or a version of a key that
 * is there; undefined, false or 0 of one that has ended.
 */
const READS: Record<string, (map: SharedMap<unknown>, key: string) => unknown> = {
  shm_map_get: (map, key) => map.get(key),
  shm_map_get_version: (map, key) => {
    if (untyped(map).isReader) return map.get(key);
    let seen: unknown;
    try {
      map.update(key, (current) => {
        seen = current;
        throw new Error("only to look");
      });
    } catch {
      return seen;
    }
  },
  shm_map_get_unless: (map, key) => {
    using frozen = SharedMap.attach(map.token, { frozen: true, readonly: true });
    return frozen.get(key) && frozen.get(key);
  },
  shm_map_get_into: (map, key) => map.getInto(`${key} bytes`, new Uint8Array(8)),
  shm_map_get_batch: (map, key) => map.getMany([key])[0],
  shm_map_get_entry: (map, key) => map.getEntry(key).version,
  shm_map_has: (map, key) => map.has(key),
  shm_map_has_many: (map, key) => map.hasMany([key])[0],
  shm_map_gather: (map, key) => [...map.keys()].includes(key) && new Map(map).has(key),
  shm_map_scan: (map, key) => map.scan({ prefix: key }).keys.includes(key),
  shm_map_snapshot: (map, key) => map.toObject()[key],
  // What no call of a map comes to, `zig/map/expiry_test.zig` tries; a value has no end.
  shm_value_get: () => undefined,
  shm_value_version: () => undefined,
};
const UNREACHED = ["shm_value_get", "shm_value_version"];

/**
 * The exported functions of maps and values that read no entry, or store or remove one;
 * `conditions_test.ts` has those that do both.
 */
const NO_READS = [
  "shm_map_take",
  "shm_map_swap",
  "shm_map_replace",
  "shm_map_delete_version",
  "shm_map_increment",
  "shm_map_increment_big",
  "shm_map_clear_prefix",
  "shm_map_compact",
  "shm_map_put",
  "shm_map_put_until",
  "shm_map_put_version",
  "shm_map_put_many",
  "shm_map_touch",
  "shm_map_delete",
  "shm_map_delete_many",
  "shm_map_clear",
  "shm_map_prune",
  "shm_map_sweep",
  "shm_map_size", // counts what is stored
  "shm_map_gathered",
  "shm_map_verify",
  "shm_value_put",
];

test("each exported function that reads entries is tried here, or named as one that does not", () => {
  const all = Object.keys(symbols).filter((name) => /^shm_(?:map|value)_/.test(name));
  const known = [...Object.keys(READS), ...NO_READS];
  assert.deepEqual(all.filter((name) => !known.includes(name)), []);
  assert.deepEqual(known.filter((name) => !all.includes(name)), []);
});

test("what has ended is absent for every call that reads", async (t) => {
  const map = freshMap(t);
  using reader = SharedMap.attach(map.token, { readonly: true });
  Object.defineProperty(reader, "isReader", { value: true });
  const store = (key: string, expiry: Expiry) => {
    map.set(key, { n: 1 }, expiry).set(`${key} bytes`, Uint8Array.of(1), expiry);
  };
  store("stays", DAY);
  store("ends", SOON);
  // A large value is read in another way.
  map.set("large", new Uint8Array(200_000), SOON);
  const reads = Object.entries(READS).filter(([name]) => !UNREACHED.includes(name));
  await untilEnded(map, "ends");
  await untilEnded(map, "ends bytes");
  await untilEnded(map, "large");
  for (const handle of [map, reader]) {
    for (const [name, read] of reads) {
      assert.ok(read(handle, "stays"), `${name} misses what has not ended`);
      assert.ok(!read(handle, "ends"), `${name} finds what has ended`);
    }
    assert.equal(handle.get("large"), undefined);
    assert.deepEqual([...handle.keys()].toSorted(), ["stays", "stays bytes"]);
  }
});

test("a frozen object of an entry that has ended is not handed out again", async (t) => {
  const map = freshMap<{ n: number }>(t);
  using frozen = SharedMap.open<{ n: number }>(map.name, { frozen: true });
  frozen.set("a", { n: 1 }, DAY);
  const first = frozen.get("a");
  assert.equal(frozen.get("a"), first);
  frozen.touch("a", SOON);
  await untilEnded(map, "a");
  assert.equal(frozen.get("a"), undefined);
  frozen.set("a", { n: 1 });
  assert.notEqual(frozen.get("a"), first);
});

test("an end is a ttl, a time, or the handle's; and Infinity is none", async (t) => {
  const map = freshMap<number>(t);
  using brief = SharedMap.open<number>(map.name, { ttl: SOON });
  map.set("ttl", 1, SOON).set("options", 1, { ttl: SOON });
  map.set("expires", 1, { expires: Date.now() + SOON });
  brief.set("handle", 1).set("stated", 1, DAY).set("never", 1, Infinity);
  brief.set("empty", 1, {}).set("undefined", 1, { ttl: undefined, expires: undefined });
  brief.set("for ever", 1, { expires: Infinity });
  assert.equal(brief.add("added", 1), true);
  brief.setMany([["many", 1], ["of many", 1, DAY], ["endless", 1, { ttl: Infinity }]]);
  assert.equal(brief.getOrInsert("inserted", 1), 1);
  assert.equal(brief.getOrInsertComputed("computed", () => 1, { ttl: DAY }), 1);
  assert.equal(brief.update("updated", () => 1), 1);
  map.set("plain", 1).setMany([["plain of many", 1], ["soon", 1, SOON]]);
  const ending = [
    ..."ttl options expires handle empty undefined added many inserted updated soon".split(" "),
  ];
  for (const key of ending) await untilEnded(map, key);
  assert.deepEqual(
    [...map.keys()].toSorted(),
    [
      "computed",
      "endless",
      "for ever",
      "never",
      "of many",
      "plain",
      "plain of many",
      "stated",
    ],
  );
  assert.deepEqual([map.add("ttl", 2), map.get("ttl")], [true, 2]);
  assertSound(map);
});

test("a ttl of 0 or less, or a time that has passed, leaves the key absent", (t) => {
  const map = freshMap<number>(t);
  for (const past of [0, -1, -Infinity, { ttl: 0 }, { expires: 0 }, { expires: Date.now() }]) {
    map.set("a", 1);
    assert.equal(map.set("a", 2, past), map);
    assert.equal(map.has("a"), false);
    map.set("a", 1);
    assert.deepEqual([map.add("a", 2, past), map.get("a")], [false, 1]);
    map.setMany([["a", 2, past]]);
    assert.equal(map.has("a"), false);
    assert.deepEqual([map.add("a", 2, past), map.has("a")], [true, false]);
    assert.equal(map.getOrInsertComputed("a", () => 3, past), 3);
    assert.equal(map.update("a", () => 4, past), 4);
    assert.equal(map.touch("a", past), false);
    map.set("a", 1);
    assert.deepEqual([map.touch("a", past), map.has("a")], [true, false]);
    assert.equal(map.size, 0);
  }
});

test("update keeps the end there is, unless it is given another", async (t) => {
  const map = freshMap<number>(t);
  using brief = SharedMap.open<number>(map.name, { ttl: SOON });
  map.set("kept", 1, SOON).set("changed", 1, SOON).set("lasting", 1);
  for (let i = 0; i < 3; i += 1) map.update("kept", (n = 0) => n + 1);
  map.update("changed", (n = 0) => n + 1, DAY);
  brief.update("lasting", (n = 0) => n + 1);
  await untilEnded(map, "kept");
  assert.deepEqual(content(map).toSorted(), [["changed", 2], ["lasting", 2]]);
});

test("touch gives, changes and takes away an end, and keeps the value", async (t) => {
  const map = freshMap<unknown>(t);
  assert.equal(map.touch("a", DAY), false);
  const value = { n: 1, text: "t" };
  map.set("later", value, SOON).set("never", value, SOON).set("sooner", value, DAY);
  map.set("given", value);
  assert.equal(map.touch("later", DAY), true);
  assert.equal(map.touch("never", Infinity), true);
  assert.equal(map.touch("sooner", SOON), true);
  assert.equal(map.touch("given", { expires: Date.now() + SOON }), true);
  await untilEnded(map, "sooner");
  await untilEnded(map, "given");
  assert.deepEqual(map.toObject(), { later: value, never: value });
  assert.deepEqual([map.touch("sooner", DAY), map.has("sooner")], [false, false]);
  await until("the removal", () => map.stats().expiring === 1);
});

test("reading extends no end", async (t) => {
  const map = freshMap<number>(t).set("a", 1, SOON);
  const handles = [map, SharedMap.attach<number>(map.token, { frozen: true })];
  await until("the end", () => handles.every((handle) => handle.get("a") === undefined));
  handles[1].close();
});

test("an end that is none is refused, and nothing is stored", (t) => {
  const map = freshMap<number>(t);
  const wrong: [unknown, RegExp][] = [
    [NaN, /^Cannot use NaN as ttl: it must be a number$/],
    ["1", /^Cannot use "1" as expiry: it must be a number or an object with ttl or expires$/],
    [null, /^Cannot use null as expiry: /],
    [true, /as expiry/],
    [1n, /as expiry/],
    [{ ttl: "1" }, /^Cannot use "1" as ttl: it must be a number$/],
    [{ expires: new Date() }, /as expires: it must be a number$/],
    [{ expires: NaN }, /^Cannot use NaN as expires/],
    [{ ttl: 1, expires: 1 }, /^Cannot use both ttl and expires: state one of them$/],
    [{ tll: 1 }, /^Cannot use an option "tll": the nearest here is "ttl", of ttl, expires$/],
  ];
  for (const [expiry, message] of wrong) {
    const error = { name: "TypeError", message };
    const given = untyped(expiry);
    assert.throws(() => map.set("a", 1, given), error);
    assert.throws(() => map.add("a", 1, given), error);
    assert.throws(() => map.setMany([["b", 1], ["a", 1, given]]), error);
    assert.throws(() => map.update("a", () => assert.fail(), given), error);
    assert.throws(() => map.getOrInsert("a", 1, given), error);
    assert.throws(() => map.getOrInsertComputed("a", () => assert.fail(), given), error);
    assert.throws(() => map.touch("a", given), error);
  }
  assert.throws(() => map.touch("a", {}), /they state neither ttl nor expires$/);
  assert.throws(() => map.touch("a", untyped(undefined)), TypeError);
  const tooSmall = /^RangeError: Cannot use ttl 0: it must be more/;
  assert.throws(() => SharedMap.anonymous({ ttl: 0 }), tooSmall);
  assert.throws(() => SharedMap.anonymous({ ttl: NaN }), TypeError);
  assert.throws(() => SharedMap.attach(map.token, { ttl: untyped("1") }), TypeError);
  assert.throws(() => SharedValue.anonymous(untyped({ ttl: 1 })), /Cannot use an option "ttl"/);
  assert.equal(map.size, 0);
});

test("prune removes all that has ended, and statistics count it", async (t) => {
  const map = freshMap<number>(t);
  map.setMany(Array.from({ length: 500 }, (_, i) => [`key ${i}`, i, DAY]));
  assert.deepEqual([map.stats().expiring, map.stats().expirations], [500, 0]);
  assert.equal(map.prune(), 0);
  const { writes } = map.stats();
  map.setMany(Array.from({ length: 400 }, (_, i) => [`key ${i}`, i, SOON]));
  assert.ok(map.stats().writes >= writes + 400);
  await untilEnded(map, "key 399");
  const removed = map.prune(); // or else the timer, or the writers, were faster
  const { expiring, expirations, entries } = map.stats();
  assert.deepEqual([expiring, expirations, entries], [100, 400, 100]);
  assert.ok(removed <= 400);
  assertSound(map);
  using reader = SharedMap.attach(map.token, { readonly: true });
  assert.throws(() => reader.prune(), { code: "ReadOnly" });
  assert.throws(() => reader.touch("key 450", DAY), { code: "ReadOnly" });
  map.close();
  assert.throws(() => map.prune(), { code: "Closed" });
  assert.throws(() => map.touch("a", DAY), { code: "Closed" });
});

/** Removal by the timer alone: nothing is written after this. */
async function assertLeaves(map: SharedMap<number>): Promise<void> {
  map.setMany(Array.from({ length: 1000 }, (_, i) => [`key ${i}`, i, SOON]));
  map.set("stays", 1);
  await until("the removal", () => map.size === 1);
  assert.deepEqual([map.stats().expirations, map.stats().expiring], [1000, 0]);
}

test("what has ended leaves memory without any call", async (t) => {
  await assertLeaves(freshMap<number>(t));
  await assertLeaves(freshMap<number>(t, { lock: "kernel" }));
});

test("a handle that finds entries with an end has them removed as well", async (t) => {
  const map = freshMap<number>(t).set("a", 1, SOON);
  using other = SharedMap.open<number>(map.name);
  map.close();
  await until("the removal", () => other.size === 0);
});

test("a clock that runs ahead or behind decides only when an entry ends", async (t) => {
  const map = freshMap<number>(t);
  ahead(DAY, () => map.set("ahead", 1, SOON));
  ahead(-DAY, () => map.set("behind", 1, 1000));
  await untilEnded(map, "behind"); // it ended a day ago, by the clock of the machine
  assert.equal(map.get("ahead"), 1);
  assert.equal(ahead(-DAY, () => map.get("ahead")), 1);
});
