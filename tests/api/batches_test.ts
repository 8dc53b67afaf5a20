/** Many keys at once: the same as one after the other, in any number and size. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import { countingBytes } from "../support/corpus.ts";
import { seededRandom } from "../support/random.ts";
import { assertAlike } from "../support/structures.ts";
import { freshAnonymous, freshMap, isArgumentError, thrown } from "../support/support.ts";

/** A key of a length that takes one way or another through the encoder. */
function keyOf(i: number): string {
  const tail = ["", "é", "☺".repeat(i % 30), "x".repeat(i % 90), "long ".repeat(i % 2000)][i % 5];
  return `key ${i} ${tail}`;
}

function valueOf(i: number): unknown {
  const dice = i % 11;
  if (dice < 4) return "abcdefghij".repeat(i % 40).slice(0, i % 160);
  if (dice === 4) return "é".repeat(i % 50);
  if (dice === 5) return i / 3;
  if (dice === 6) return { id: i, name: `name ${i}`, tags: ["a", "☺"] };
  if (dice === 7) return new Map([[i, new Date(i)]]);
  if (dice === 8) return countingBytes(i % 500);
  if (dice === 9) return [null, true, 2n ** 70n][i % 3];
  return i % 110 === 10 ? countingBytes(70_000 + i) : "z".repeat(i % 4000);
}

test("SharedMap.getMany() gives what get gives, for any number of keys and any values", (t) => {
  const map = freshAnonymous<unknown>(t);
  for (const count of [0, 1, 2, 31, 32, 33, 100, 1500, 5000]) {
    const numbers = Array.from({ length: count }, (_, i) => i);
    map.setMany(numbers.filter((i) => i % 7 !== 3).map((i) => [keyOf(i), valueOf(i)]));
    const found = map.getMany(numbers.map(keyOf));
    assert.equal(found.length, count);
    found.forEach((value, i) => {
      assertAlike(value, i % 7 === 3 ? undefined : valueOf(i), `value ${i} of ${count}`);
      if (i % 50 === 0) assertAlike(map.get(keyOf(i)), value);
    });
    assert.deepEqual(map.hasMany(numbers.map(keyOf)), numbers.map((i) => i % 7 !== 3));
    assert.deepEqual(new Map(map), new Map(Object.entries(map.toObject())));
  }
});

test("SharedMap.deleteMany() removes what is there and says of each whether it was", (t) => {
  const map = freshMap<number>(t);
  const keys = Array.from({ length: 3000 }, (_, i) => keyOf(i));
  map.setMany(keys.map((key, i) => [key, i]));
  const some = keys.filter((_, i) => i % 3 === 0);
  assert.deepEqual(map.deleteMany(some), some.map(() => true));
  assert.deepEqual(map.deleteMany([...some, keys[1], keys[1]]), [
    ...some.map(() => false),
    true,
    false,
  ]);
  assert.equal(map.size, 3000 - 1000 - 1);
  assert.deepEqual(map.hasMany(keys), keys.map((_, i) => i % 3 !== 0 && i !== 1));
  assert.deepEqual([map.deleteMany([]), map.hasMany(new Set<string>())], [[], []]);
});

test("SharedMap's batches take iterables of every kind, and keys once each", (t) => {
  const map = freshAnonymous<number>(t);
  function* entries(): Generator<[string, number]> {
    for (let i = 0; i < 100; i += 1) yield [`k${i}`, i];
  }
  map.setMany(entries());
  map.setMany(new Map([["k1", 11]]));
  assert.deepEqual(map.getMany(new Set(["k1", "k2"])), [11, 2]);
  assert.deepEqual(
    map.getMany((function* () {
      yield "k3";
    })()),
    [3],
  );
  assert.equal(map.size, 100);
});

test("SharedMap's batches refuse what single calls refuse, and change nothing", (t) => {
  const map = freshMap<unknown>(t).set("a", 1);
  const bad: unknown[] = ["", 7, undefined, null, "\ud800", "x".repeat(65_536)];
  for (const key of bad) {
    const keys = ["a", key] as string[];
    for (
      const call of [() => map.getMany(keys), () => map.hasMany(keys), () => map.deleteMany(keys)]
    ) {
      assert.throws(call, isArgumentError, `${String(key).slice(0, 9)}`);
    }
    assert.throws(() => map.setMany([["b", 1], [key as string, 2]]), isArgumentError);
  }
  for (const list of [undefined, 7, {}] as unknown as string[][]) {
    assert.throws(() => map.getMany(list), TypeError);
    assert.throws(() => map.hasMany(list), TypeError);
    assert.throws(() => map.deleteMany(list), TypeError);
  }
  assert.deepEqual([...map], [["a", 1]]);
  using reader = SharedMap.open(map.name, { readonly: true });
  assert.deepEqual(reader.hasMany(["a", "b"]), [true, false]);
  thrown("ReadOnly", () => reader.deleteMany(["a"]));
  reader.close();
  thrown("Closed", () => reader.hasMany(["a"]));
  thrown("Closed", () => reader.deleteMany(["a"]));
  thrown("Closed", () => reader.getMany([]));
});

test("SharedMap's batches inside of batches do not mix their memory", (t) => {
  const map = freshAnonymous<unknown>(t);
  const inner = (i: number) => ({
    get nested() {
      map.setMany([[`inner ${i}`, i], [`text ${i}`, "x".repeat(i % 60)]]);
      return map.getMany([`inner ${i}`, `text ${i}`]);
    },
  });
  map.setMany(Array.from({ length: 200 }, (_, i) => [`outer ${i}`, inner(i)] as const));
  for (let i = 0; i < 200; i += 1) {
    assert.deepEqual(map.get(`outer ${i}`), { nested: [i, "x".repeat(i % 60)] });
  }
});

test("SharedMap.getMany() finds what is stored beside it, in random batches", (t) => {
  const map = freshAnonymous<string>(t);
  const oracle = new Map<string, string>();
  const random = seededRandom(3);
  for (let round = 0; round < 300; round += 1) {
    const keys = Array.from({ length: random(80) }, () => `k${random(500)}`);
    if (round % 3 === 0) {
      const entries = keys.map((key) => [key, "v".repeat(random(200))] as [string, string]);
      map.setMany(entries);
      for (const [key, value] of entries) oracle.set(key, value);
    } else if (round % 3 === 1) {
      assert.deepEqual(map.deleteMany(keys), keys.map((key) => oracle.delete(key)));
    }
    assert.deepEqual(map.getMany(keys), keys.map((key) => oracle.get(key)));
  }
  assert.equal(map.size, oracle.size);
});
