/** The contract of `Map`, run on `Map` itself and on SharedMap. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { content, freshAnonymous, freshMap, type TestContext } from "../support/support.ts";

/** What `Map` and SharedMap have in common. */
interface MapLike<V> extends Iterable<[string, V]> {
  get(key: string): V | undefined;
  set(key: string, value: V): this;
  has(key: string): boolean;
  delete(key: string): boolean;
  clear(): void;
  readonly size: number;
  keys(): IterableIterator<string>;
  values(): IterableIterator<V>;
  entries(): IterableIterator<[string, V]>;
  forEach(fn: (value: V, key: string, map: MapLike<V>) => void): void;
  getOrInsert(key: string, value: V): V;
  getOrInsertComputed(key: string, compute: (key: string) => V): V;
}

type MakeMap = <V>(t: TestContext) => MapLike<V>;

function describeMapContract(kind: string, make: MakeMap): void {
  describeSingleKeys(kind, make);
  describeWholeMap(kind, make);
  describeIteration(kind, make);
  describeChangesWhileIterating(kind, make);
  describeGetOrInsert(kind, make);
}

function describeSingleKeys(kind: string, make: MakeMap): void {
  test(`${kind}.set() returns the map, so calls chain`, (t) => {
    const map = make<number>(t);
    assert.equal(map.set("a", 1), map);
    map.set("b", 2).set("c", 3);
    assert.equal(map.size, 3);
  });

  test(`${kind}.set() overwrites, and the size stays`, (t) => {
    const map = make<unknown>(t);
    for (const value of ["one", "a much longer value than before", 3, "", null]) {
      map.set("key", value);
      assert.equal(map.get("key"), value);
      assert.equal(map.size, 1);
    }
  });

  test(`${kind}.has() tells a stored key from a missing one, with any value`, (t) => {
    const map = make<unknown>(t).set("null", null).set("false", false).set("empty", "");
    assert.ok(["null", "false", "empty"].every((key) => map.has(key)));
    assert.equal(map.has("other"), false);
  });

  test(`${kind}.delete() removes a key and says whether it was there`, (t) => {
    const map = make<number>(t).set("a", 1).set("b", 2);
    assert.equal(map.delete("a"), true);
    assert.equal(map.delete("a"), false);
    assert.equal(map.delete("never"), false);
    assert.deepEqual([map.get("a"), map.has("a"), map.get("b"), map.size], [
      undefined,
      false,
      2,
      1,
    ]);
    assert.equal(map.set("a", 3).get("a"), 3);
  });

  test(`${kind} keeps keys apart that differ in little`, (t) => {
    const keys = ["a", "A", "a ", " a", "a\0", "\0a", "a\0b", "a\0c", "á", "a\u0301", "😀", "😁"];
    const map = make<number>(t);
    keys.forEach((key, i) => map.set(key, i));
    assert.deepEqual(keys.map((key) => map.get(key)), keys.map((_, i) => i));
    assert.equal(map.size, keys.length);
  });

  test(`${kind} takes keys that plain objects trip over`, (t) => {
    const keys = ["__proto__", "constructor", "toString", "0", "-1", "hasOwnProperty", "length"];
    const map = make<string>(t);
    assert.ok(keys.every((key) => map.get(key) === undefined));
    for (const key of keys) map.set(key, `value of ${key}`);
    assert.deepEqual([...map.keys()].sort(), [...keys].sort());
    assert.equal(map.get("__proto__"), "value of __proto__");
  });
}

function describeWholeMap(kind: string, make: MakeMap): void {
  test(`${kind}.size counts keys exactly through sets and deletes`, (t) => {
    const map = make<number>(t);
    assert.equal(map.size, 0);
    for (let i = 0; i < 2000; i += 1) {
      map.set(`key ${i % 700}`, i);
      if (i % 3 === 0) map.delete(`key ${(i * 7) % 700}`);
      if (i % 100 === 0) assert.equal(map.size, [...map.keys()].length);
    }
    assert.equal(map.size, [...map].length);
  });

  test(`${kind}.clear() empties the map, which can be filled again`, (t) => {
    const map = make<number>(t);
    assert.equal(map.clear(), undefined);
    for (let round = 0; round < 3; round += 1) {
      for (let i = 0; i < 500; i += 1) map.set(`key ${i}`, i * round);
      assert.equal(map.size, 500);
      map.clear();
      assert.equal(map.size, 0);
      assert.equal(map.get("key 1"), undefined);
      assert.deepEqual([...map], []);
    }
  });

  test(`${kind} behaves as a model does through thousands of random changes`, (t) => {
    const map = make<number>(t);
    const model: Record<string, number> = {};
    for (let i = 0; i < 5000; i += 1) {
      const key = `key ${(i * 7919) % 1009}`;
      if (i % 5 === 4) {
        assert.equal(map.delete(key), key in model);
        delete model[key];
      } else {
        map.set(key, i);
        model[key] = i;
      }
    }
    assert.deepEqual(Object.fromEntries(content(map)), model);
  });
}

function describeIteration(kind: string, make: MakeMap): void {
  test(`${kind}.keys(), values() and entries() go together`, (t) => {
    const map = make<number>(t);
    for (let i = 0; i < 1000; i += 1) map.set(`key ${i}`, i);
    const keys = [...map.keys()];
    const values = [...map.values()];
    assert.deepEqual([...map.entries()], keys.map((key, i) => [key, values[i]]));
    assert.deepEqual([...map], [...map.entries()]);
    assert.equal(new Set(keys).size, 1000);
    assert.ok(keys.every((key, i) => key === `key ${values[i]}`));
  });

  test(`${kind} iterates over nothing when empty`, (t) => {
    const map = make(t);
    assert.deepEqual([[...map.keys()], [...map.values()], [...map.entries()]], [[], [], []]);
    map.forEach(() => assert.fail("called for an empty map"));
  });

  test(`${kind}'s iterators are iterable, end once and for all, and can be left early`, (t) => {
    const map = make<number>(t).set("a", 1).set("b", 2);
    for (const iterator of [map.keys(), map.values(), map.entries(), map[Symbol.iterator]()]) {
      const iterable = iterator as IterableIterator<unknown>;
      assert.equal(iterable[Symbol.iterator](), iterable);
      assert.equal(iterable.next().done ?? false, false);
      assert.equal(iterable.next().done ?? false, false);
      assert.deepEqual(iterable.next(), { value: undefined, done: true });
      assert.deepEqual(iterable.next(), { value: undefined, done: true });
    }
    for (const _ of map) break;
    assert.equal([...map].length, 2);
  });

  test(`${kind}.forEach() gives value, key and the map`, (t) => {
    const map = make<number>(t).set("a", 1).set("b", 2);
    const seen: [string, number][] = [];
    const result = map.forEach((value, key, self) => {
      assert.equal(self, map);
      seen.push([key, value]);
    });
    assert.equal(result, undefined);
    assert.deepEqual(content(seen), [["a", 1], ["b", 2]]);
  });

  test(`${kind}.forEach() passes on what its function throws`, (t) => {
    const map = make<number>(t).set("a", 1);
    const mine = new Error("mine");
    assert.throws(() =>
      map.forEach(() => {
        throw mine;
      }), (error) => error === mine);
    assert.equal(map.get("a"), 1);
  });

  test(`new Map(${kind}) copies it`, (t) => {
    const map = make<number>(t).set("a", 1).set("__proto__", 2);
    assert.deepEqual(content(new Map(map)), [["__proto__", 2], ["a", 1]]);
  });
}

function describeChangesWhileIterating(kind: string, make: MakeMap): void {
  const kept = Array.from({ length: 500 }, (_, i) => `kept ${i}`);

  function iterateChanging(map: MapLike<number>, change: (step: number) => void): void {
    const times = new Map<string, number>();
    let step = 0;
    for (const [key] of map) {
      times.set(key, (times.get(key) ?? 0) + 1);
      if (step < 2000) change(step);
      step += 1;
    }
    assert.deepEqual(kept.filter((key) => times.get(key) !== 1), []);
    assert.deepEqual([...times].filter(([, count]) => count !== 1), []);
  }

  test(`${kind} iterates once over each key while others are inserted`, (t) => {
    const map = make<number>(t);
    kept.forEach((key, i) => map.set(key, i));
    iterateChanging(map, (step) => map.set(`new ${step}`, step).set(`newer ${step}`, step));
    assert.ok(map.size > kept.length + 500);
  });

  test(`${kind} iterates once over each key while all are overwritten`, (t) => {
    const map = make<number>(t);
    kept.forEach((key, i) => map.set(key, i));
    iterateChanging(map, (step) => map.set(kept[(step * 7) % 500], -step));
    assert.equal(map.size, kept.length);
  });

  test(`${kind} iterates once over each key that stays while others are deleted`, (t) => {
    const map = make<number>(t);
    kept.forEach((key, i) => map.set(key, i).set(`gone ${i}`, i));
    iterateChanging(map, (step) => map.delete(`gone ${(step * 13) % 500}`));
    assert.ok(map.size < 1000);
  });

  test(`${kind} can be cleared and closed in on while iterating`, (t) => {
    const map = make<number>(t);
    kept.forEach((key, i) => map.set(key, i));
    const seen = new Set<string>();
    for (const key of map.keys()) {
      assert.equal(seen.has(key), false);
      seen.add(key);
      map.clear();
    }
    assert.ok(seen.size >= 1);
    assert.equal(map.size, 0);
  });
}

function describeGetOrInsert(kind: string, make: MakeMap): void {
  test(`${kind}.getOrInsert() returns what is there, or stores and returns its value`, (t) => {
    const map = make<unknown>(t).set("null", null);
    assert.equal(map.getOrInsert("a", 1), 1);
    assert.equal(map.getOrInsert("a", 2), 1);
    assert.equal(map.get("a"), 1);
    assert.equal(map.getOrInsert("null", 3), null);
  });

  test(`${kind}.getOrInsertComputed() computes only for a missing key`, (t) => {
    const map = make<string>(t);
    const asked: string[] = [];
    const compute = (key: string) => {
      asked.push(key);
      return `computed for ${key}`;
    };
    assert.equal(map.getOrInsertComputed("a", compute), "computed for a");
    assert.equal(map.getOrInsertComputed("a", compute), "computed for a");
    assert.deepEqual([asked, map.get("a")], [["a"], "computed for a"]);
  });

  test(`${kind}.getOrInsertComputed() stores nothing when its function throws`, (t) => {
    const map = make<string>(t);
    const mine = new Error("mine");
    assert.throws(() =>
      map.getOrInsertComputed("a", () => {
        throw mine;
      }), (e) => e === mine);
    assert.equal(map.has("a"), false);
  });
}

describeMapContract("Map", <V>() => new Map<string, V>());
describeMapContract("SharedMap", <V>(t: TestContext) => freshMap<V>(t));
describeMapContract("SharedMap.anonymous", <V>(t: TestContext) => freshAnonymous<V>(t));
