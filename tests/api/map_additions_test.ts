/** What SharedMap adds to the contract of `Map`. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import {
  assertSound,
  atEnd,
  content,
  freshAnonymous,
  freshMap,
  freshName,
  isArgumentError,
  type TestContext,
  thrown,
} from "../support/support.ts";

/** Pairs of handles that must show the same map. */
function twoHandles<V = unknown>(t: TestContext): [SharedMap<V>, SharedMap<V>] {
  const first = freshMap<V>(t);
  const second = SharedMap.open<V>(first.name, { mode: "attach" });
  atEnd(t, () => second.close());
  return [first, second];
}

test("SharedMap.set() of one handle is seen by every other at once", (t) => {
  const [first, second] = twoHandles(t);
  first.set("a", 1);
  assert.equal(second.get("a"), 1);
  second.delete("a");
  assert.equal(first.has("a"), false);
  second.set("b", "two").set("c", [3]);
  assert.deepEqual([first.size, content(first)], [2, [["b", "two"], ["c", [3]]]]);
});

test("SharedMap.get() gives the caller a copy of its own", (t) => {
  const map = freshMap<{ list: number[] }>(t);
  const mine = { list: [1] };
  map.set("key", mine);
  mine.list.push(2);
  map.get("key")!.list.push(3);
  assert.deepEqual(map.get("key"), { list: [1] });
  const bytes = freshMap<Uint8Array>(t).set("key", Uint8Array.of(1, 2, 3));
  bytes.get("key")!.fill(9);
  assert.deepEqual(bytes.get("key"), Uint8Array.of(1, 2, 3));
});

test("SharedMap.get() results stay as they were while others are read into the same buffer", (t) => {
  const map = freshMap<Uint8Array>(t).set("a", Uint8Array.of(1, 1)).set("b", Uint8Array.of(2, 2));
  const a = map.get("a")!;
  const all = map.getMany(["a", "b", "a"]);
  map.get("b");
  assert.deepEqual([a, ...all].map((bytes) => bytes![0]), [1, 1, 2, 1]);
});

test("SharedMap.add() stores only under a key that is missing", (t) => {
  const map = freshMap(t);
  assert.equal(map.add("key", 1), true);
  assert.equal(map.add("key", 2), false);
  assert.equal(map.get("key"), 1);
  map.delete("key");
  assert.equal(map.add("key", 3), true);
  assert.equal(map.get("key"), 3);
});

test("SharedMap.update() stores and returns what its function makes of the current value", (t) => {
  const map = freshMap<number>(t);
  const seen: (number | undefined)[] = [];
  const next = (current: number | undefined) => {
    seen.push(current);
    return (current ?? 10) + 1;
  };
  assert.equal(map.update("key", next), 11);
  assert.equal(map.update("key", next), 12);
  assert.deepEqual([seen, map.get("key")], [[undefined, 11], 12]);
});

test("SharedMap.update() changes nothing when its function throws", (t) => {
  const map = freshMap(t).set("key", { n: 1 });
  const mine = new Error("mine");
  for (const key of ["key", "missing"]) {
    assert.throws(() =>
      map.update(key, () => {
        throw mine;
      }), (error) => error === mine);
  }
  assert.deepEqual(content(map), [["key", { n: 1 }]]);
});

test("SharedMap.update() refuses undefined and what no codec keeps, and changes nothing", (t) => {
  const map = freshMap(t).set("key", 1);
  for (const result of [undefined, () => {}, Symbol("s")]) {
    assert.throws(() => map.update("key", () => result), TypeError);
    assert.throws(() => map.update("missing", () => result), TypeError);
  }
  assert.deepEqual(content(map), [["key", 1]]);
});

test("SharedMap.update() does not store a change its function made to the current value", (t) => {
  const map = freshMap<{ n: number }>(t).set("key", { n: 1 });
  assert.throws(() =>
    map.update("key", (current) => {
      current!.n = 2;
      throw new Error("mine");
    })
  );
  assert.deepEqual(map.get("key"), { n: 1 });
});

test("SharedMap.update() runs its function again when the value changed meanwhile", (t) => {
  const [map, other] = twoHandles<number>(t);
  const cases: [string, number | undefined, () => void, number | undefined][] = [
    ["overwritten", 1, () => other.set("key", 50), 50],
    ["inserted", undefined, () => other.set("key", 60), 60],
    ["deleted", 3, () => other.delete("key"), undefined],
    ["overwritten with the same", 4, () => other.set("key", 4), 4],
    ["replaced by a new entry", 5, () => (other.delete("key"), other.set("key", 5)), 5],
  ];
  for (const [what, before, interfere, after] of cases) {
    map.delete("key");
    if (before !== undefined) map.set("key", before);
    const seen: (number | undefined)[] = [];
    const result = map.update("key", (current) => {
      seen.push(current);
      if (seen.length === 1) interfere();
      return 1000 + (current ?? 0);
    });
    assert.deepEqual(seen, [before, after], what);
    assert.equal(result, 1000 + (after ?? 0), what);
    assert.equal(other.get("key"), result, what);
  }
});

test("SharedMap.update() can use the map inside its function", (t) => {
  const map = freshMap<number>(t).set("a", 1).set("b", 2);
  assert.equal(map.update("sum", () => map.get("a")! + map.get("b")!), 3);
  assert.equal(map.update("a", (a) => a! + map.update("b", (b) => b! * 10)), 21);
  assert.deepEqual(content(map), [["a", 21], ["b", 20], ["sum", 3]]);
});

test("SharedMap.getMany() gives values in the order of the keys, undefined where missing", (t) => {
  const map = freshMap<unknown>(t).set("a", 1).set("b", [2]).set("n", null);
  assert.deepEqual(map.getMany(["b", "x", "a", "a", "n"]), [[2], undefined, 1, 1, null]);
  assert.deepEqual(map.getMany([]), []);
  assert.deepEqual(map.getMany(new Set(["a"])), [1]);
  assert.deepEqual(
    map.getMany((function* () {
      yield "a";
      yield "b";
    })()),
    [1, [2]],
  );
});

test("SharedMap.getMany() reads thousands of keys and large values", (t) => {
  const map = freshMap<string>(t);
  const keys = Array.from({ length: 5000 }, (_, i) => `key ${i}`);
  map.setMany(keys.map((key, i) => [key, "x".repeat(i % 1000)]));
  map.set("key 7", "y".repeat(1_000_000));
  const values = map.getMany(keys);
  assert.equal(values[7]!.length, 1_000_000);
  assert.ok(values.every((value, i) => i === 7 || value === "x".repeat(i % 1000)));
});

test("SharedMap.setMany() stores entries of any iterable", (t) => {
  const map = freshMap<number>(t);
  assert.equal(map.setMany([["a", 1], ["b", 2]]), undefined);
  map.setMany(new Map([["c", 3]]));
  map.setMany((function* (): Generator<[string, number]> {
    yield ["d", 4];
  })());
  map.setMany([]);
  map.setMany(map);
  assert.deepEqual(content(map), [["a", 1], ["b", 2], ["c", 3], ["d", 4]]);
});

test("SharedMap.setMany() lets the last of several entries of one key win", (t) => {
  const map = freshMap<number>(t).set("a", 0);
  map.setMany([["a", 1], ["b", 1], ["a", 2], ["b", 2], ["a", 3]]);
  assert.deepEqual(content(map), [["a", 3], ["b", 2]]);
});

test("SharedMap.setMany() checks and encodes everything before it stores anything", (t) => {
  const map = freshMap(t).set("old", 1);
  const mine = new Error("mine");
  const bad: Iterable<readonly [string, unknown]>[] = [
    [["a", 1], ["", 2]],
    [["a", 1], [3 as unknown as string, 2]],
    [["a", 1], ["\ud800", 2]],
    [["a", 1], ["k".repeat(65_536), 2]],
    [["a", 1], ["b", undefined]],
    [["a", 1], ["b", () => {}]],
    [["a", 1], ["b", { inside: Symbol("s") }]],
    [["a", 1], 7 as unknown as [string, unknown]],
    7 as unknown as [],
  ];
  for (const entries of bad) assert.throws(() => map.setMany(entries), isArgumentError);
  const throwing = function* (): Generator<[string, number]> {
    yield ["a", 1];
    throw mine;
  };
  assert.throws(() => map.setMany(throwing()), (error) => error === mine);
  assert.deepEqual(content(map), [["old", 1]]);
});

test("SharedMap.setMany() says how many entries an error left stored", (t) => {
  const map = freshMap<string>(t, { maxBytes: 256 * 1024 });
  const entries = Array.from({ length: 2000 }, (_, i): [string, string] => {
    return [`key ${i}`, `${i} `.repeat(200)];
  });
  const error = thrown("NoSpace", () => map.setMany(entries));
  assert.ok(error.stored! > 0 && error.stored! < 2000, `${error.stored}`);
  assert.deepEqual(content(map), content(entries.slice(0, error.stored)));
});

test("SharedMap.toObject() holds every key as an own property", (t) => {
  const keys = ["__proto__", "constructor", "toString", "0", "10", "2", "-1", "a b", "\0", "é😀"];
  const map = freshMap<string>(t);
  for (const key of keys) map.set(key, `value of ${key}`);
  const object = map.toObject();
  assert.deepEqual(Object.keys(object).sort(), [...keys].sort());
  assert.ok(keys.every((key) => Object.hasOwn(object, key)));
  assert.ok(keys.every((key) => Object.getOwnPropertyDescriptor(object, key)!.writable));
  assert.ok(keys.every((key) => object[key] === `value of ${key}`));
  const prototype = Object.getPrototypeOf(object);
  assert.ok(prototype === null || prototype === Object.prototype);
});

test("SharedMap.toObject() is a snapshot: changing it changes nothing shared", (t) => {
  const map = freshMap<{ n: number }>(t).set("a", { n: 1 });
  const object = map.toObject();
  object.a.n = 2;
  object.b = { n: 3 };
  map.set("a", { n: 4 });
  assert.deepEqual([object.a.n, map.get("a"), map.has("b")], [2, { n: 4 }, false]);
});

test("SharedMap iterates over values too large to be gathered with the rest", (t) => {
  const map = freshMap<string | Uint8Array>(t);
  for (let i = 0; i < 40; i += 1) {
    map.set(`large ${i}`, `${i % 10}`.repeat(60_000 + i * 1000)).set(`small ${i}`, `${i}`);
  }
  map.set("bytes", new Uint8Array(3_000_000).fill(7));
  const found = new Map(map);
  assert.equal(found.size, 81);
  assert.ok([...found].every(([key, value]) => value.length === map.get(key)!.length));
  assert.equal(map.toObject()["large 39"].length, 99_000);
});

test("SharedMap.stats() counts what is there", (t) => {
  const map = freshMap(t);
  const empty = map.stats();
  for (let i = 0; i < 5000; i += 1) map.set(`key ${i}`, "x".repeat(100));
  const full = map.stats();
  assert.deepEqual([empty.entries, full.entries], [0, 5000]);
  assert.ok(full.allocated > empty.allocated && full.allocated >= 500_000, `${full.allocated}`);
  map.clear();
  assert.equal(map.stats().entries, 0);
});

test("SharedMap.verify() and repair() find nothing wrong with a map in use", (t) => {
  const map = freshMap(t);
  for (let i = 0; i < 5000; i += 1) {
    map.set(`key ${i % 1500}`, "x".repeat(i % 800));
    if (i % 3 === 0) map.delete(`key ${(i * 31) % 1500}`);
  }
  const before = content(map);
  assertSound(map);
  assert.equal(map.repair().ok, true);
  assertSound(map);
  assert.deepEqual(content(map), before);
});

test("SharedMap is disposed of at the end of its scope", (t) => {
  const name = freshName(t);
  let outside: SharedMap;
  {
    using map = SharedMap.open(name);
    map.set("a", 1);
    outside = map;
  }
  thrown("Closed", () => outside.get("a"));
  using again = SharedMap.open(name, { mode: "attach" });
  assert.equal(again.get("a"), 1);
});

/** Uses a map in every way, as a callback in the middle of another call may. */
function useInBetween(map: SharedMap): void {
  map.set("between", "x".repeat(3000)).set("large between", "y".repeat(200_000));
  assert.deepEqual(map.getMany(["between", "none"]), ["x".repeat(3000), undefined]);
  assert.equal(map.get("large between"), "y".repeat(200_000));
  map.update("counted", (n) => (n as number ?? 0) + 1);
  map.setMany([["many between", [1, 2]], ["between", 1]]);
  assert.ok([...map].length >= 4 && Object.keys(map.toObject()).length >= 4);
  map.delete("large between");
}

test("SharedMap may be used by what its own calls call", (t) => {
  const map = freshMap<unknown>(t);
  const other = freshMap<unknown>(t);
  const between = () => {
    useInBetween(map);
    useInBetween(other);
  };
  map.setMany((function* (): Generator<[string, unknown]> {
    yield ["from a generator", "first"];
    between();
    yield ["from a generator too", { second: true }];
  })());
  const keys = function* () {
    yield "from a generator";
    between();
    yield "from a generator too";
  };
  assert.deepEqual(map.getMany(keys()), ["first", { second: true }]);
  const value = {
    a: "before",
    get b() {
      between();
      return "after";
    },
  };
  try {
    assert.deepEqual(map.set("getter", value).get("getter"), { a: "before", b: "after" });
  } catch (error) {
    assert.ok(error instanceof TypeError, `${error}`);
  }
  const compute = (key: string) => {
    between();
    return key.length;
  };
  assert.equal(map.getOrInsertComputed("computed", compute), 8);
  assert.equal(map.get("computed"), 8);
  const bytes = Uint8Array.of(1, 2, 3);
  map.set("bytes", bytes);
  const updated = map.update("bytes", (current) => {
    between();
    assert.deepEqual(current, bytes);
    return "updated";
  });
  assert.deepEqual([updated, map.get("bytes")], ["updated", "updated"]);
  map.forEach(() => between());
  for (const _ of map.values()) between();
  assert.equal(map.get("from a generator"), "first");
});

/** Calls that fail when their value is in the buffer already, by which others go too. */
function failInBetween(map: SharedMap): void {
  assert.throws(() => map.set("", "garbage"), TypeError);
  assert.throws(() => map.set("", new Uint8Array(70_000)), TypeError);
  assert.throws(() => map.getMany(["good", ""]), TypeError);
}

test("SharedMap stores nothing of the calls that fail inside of its own", (t) => {
  const plain = freshMap<unknown>(t);
  const codec = {
    id: "failing-test",
    encode(value: unknown) {
      failInBetween(plain);
      return new TextEncoder().encode(JSON.stringify(value));
    },
    decode: (bytes: Uint8Array) => JSON.parse(new TextDecoder().decode(bytes)),
  };
  const value = {
    get x() {
      failInBetween(plain);
      return 1;
    },
  };
  for (const map of [plain, freshMap<unknown>(t, { codec })]) {
    map.set("set", value).add("add", value);
    map.update("update", () => value);
    map.getOrInsert("getOrInsert", value);
    map.setMany([["first", 1], ["setMany", value]]);
    for (const [key, found] of map) assert.deepEqual(found, key === "first" ? 1 : { x: 1 }, key);
    assert.equal(map.size, 6);
  }
});

test("SharedMap may be used by its codec", (t) => {
  const log = freshMap<unknown>(t);
  let map = undefined as SharedMap<unknown> | undefined;
  const codec = {
    id: "busy-test",
    encode(value: unknown) {
      useInBetween(log);
      map?.set("encoded", "by the codec");
      return new TextEncoder().encode(JSON.stringify(value));
    },
    decode(bytes: Uint8Array): unknown {
      useInBetween(log);
      map?.set("decoded", "by the codec");
      map?.get("encoded");
      return JSON.parse(new TextDecoder().decode(bytes));
    },
  };
  map = freshMap<unknown>(t, { codec });
  const values = Array.from({ length: 20 }, (_, i) => ({ i, text: "é".repeat(i * 300) }));
  map.set("one", values[7]);
  assert.deepEqual(map.get("one"), values[7]);
  map.setMany(values.map((value, i) => [`key ${i}`, value]));
  assert.deepEqual(map.getMany(values.map((_, i) => `key ${i}`)), values);
  const object = map.toObject();
  const iterated = new Map(map);
  for (const [i, value] of values.entries()) {
    assert.deepEqual(object[`key ${i}`], value);
    assert.deepEqual(iterated.get(`key ${i}`), value);
  }
  assert.deepEqual(map.update("one", () => values[3]), values[3]);
  assert.deepEqual(map.get("one"), values[3]);
});

/** Every call on data, as one function each. */
const CALLS: Record<string, (map: SharedMap) => unknown> = {
  get: (map) => map.get("a"),
  has: (map) => map.has("a"),
  size: (map) => map.size,
  getMany: (map) => map.getMany(["a"]),
  "getMany of nothing": (map) => map.getMany([]),
  keys: (map) => [...map.keys()],
  values: (map) => [...map.values()],
  entries: (map) => [...map.entries()],
  "[Symbol.iterator]": (map) => [...map],
  forEach: (map) => map.forEach(() => {}),
  toObject: (map) => map.toObject(),
  stats: (map) => map.stats(),
  verify: (map) => map.verify(),
  token: (map) => map.token,
};

const WRITES: Record<string, (map: SharedMap) => unknown> = {
  set: (map) => map.set("a", 2),
  add: (map) => map.add("b", 2),
  getOrInsert: (map) => map.getOrInsert("b", 2),
  getOrInsertComputed: (map) => map.getOrInsertComputed("b", () => 2),
  update: (map) => map.update("a", () => 2),
  delete: (map) => map.delete("a"),
  clear: (map) => map.clear(),
  setMany: (map) => map.setMany([["a", 2]]),
  repair: (map) => map.repair(),
  unlink: (map) => map.unlink(),
};

for (const [method, call] of Object.entries({ ...CALLS, ...WRITES })) {
  test(`SharedMap.${method} of a closed map is "Closed"`, (t) => {
    for (const map of [freshMap(t).set("a", 1), freshAnonymous(t).set("a", 1)]) {
      map.close();
      const error = thrown("Closed", () => call(map));
      assert.match(error.message, /closed/i);
      thrown("Closed", () => call(map));
    }
  });
}

for (const [method, call] of Object.entries(WRITES)) {
  test(`SharedMap.${method} of a read-only map is "ReadOnly" and changes nothing`, (t) => {
    const map = freshMap(t).set("a", 1);
    using reader = SharedMap.open(map.name, { readonly: true });
    const { message } = thrown("ReadOnly", () => call(reader));
    assert.ok(message.startsWith("Cannot ") && message.includes(`"${map.name}"`), message);
    assert.deepEqual(content(map), [["a", 1]]);
    assert.deepEqual(content(reader), [["a", 1]]);
  });
}

test("SharedMap's reading calls all work on a read-only map", (t) => {
  const map = freshMap(t).set("a", 1);
  using reader = SharedMap.open(map.name, { readonly: true });
  for (const call of Object.values(CALLS)) call(reader);
  map.set("a", { later: true });
  assert.deepEqual(reader.get("a"), { later: true });
});

test('SharedMap.close() twice does nothing, and iterators begun before are "Closed"', (t) => {
  const map = freshMap<number>(t);
  for (let i = 0; i < 2000; i += 1) map.set(`key ${i}`, i);
  const iterator = map.entries();
  assert.equal(iterator.next().done, false);
  map.close();
  map.close();
  map[Symbol.dispose]();
  thrown("Closed", () => [...iterator]);
});
