/** Keys by how they begin, and page by page. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import {
  assertSound,
  freshAnonymous,
  freshMap,
  isArgumentError,
  thrown,
  untyped,
} from "../support/support.ts";

/** All pages. Each has keys, no more than asked for, and the last has none behind it. */
function pagesOf(map: SharedMap, options: { prefix?: string; limit: number }): string[][] {
  const pages: string[][] = [];
  let cursor: string | undefined;
  do {
    const page = map.scan({ ...options, cursor });
    assert.ok(page.keys.length <= options.limit);
    assert.ok(pages.length === 0 || page.keys.length > 0, "an empty page behind another");
    pages.push(page.keys);
    cursor = page.cursor;
  } while (cursor !== undefined);
  return pages;
}

test("SharedMap.scan() has every key in one page, of any size", (t) => {
  const map = freshMap<number>(t);
  assert.deepEqual(map.scan(), { keys: [], cursor: undefined });
  const keys = Array.from({ length: 2500 }, (_, i) => `${["user", "job", "é☺"][i % 3]}:${i}`);
  map.setMany(keys.map((key, i) => [key, i]));
  for (const limit of [1, 2, 99, 1000, 2499, 2500, 2501]) {
    const found = pagesOf(map, { limit }).flat();
    assert.deepEqual(found.sort(), keys.toSorted());
  }
  assert.equal(map.scan().keys.length, 1000);
  for (const prefix of ["", "user:", "é", "é☺:2", "nothing"]) {
    const wanted = keys.filter((key) => key.startsWith(prefix)).sort();
    for (const limit of [7, 5000]) {
      assert.deepEqual(pagesOf(map, { prefix, limit }).flat().sort(), wanted);
    }
    assert.deepEqual([...map.keys({ prefix })].sort(), wanted);
    assert.deepEqual([...map.entries({ prefix })].map(([key]) => key).sort(), wanted);
    const numbers = [...map.values({ prefix })].map((i) => keys[i]);
    assert.deepEqual(numbers.sort(), wanted);
  }
  assert.equal([...map.keys({})].length, 2500);
  assert.equal([...map.keys(undefined)].length, 2500);
});

test("SharedMap.scan() keeps to its pages while tables grow and keys come and go", (t) => {
  const map = freshMap<number>(t);
  const stay = Array.from({ length: 700 }, (_, i) => `stays ${i}`);
  map.setMany(stay.map((key, i) => [key, i]));
  const reader = SharedMap.open<number>(map.name, { mode: "attach", readonly: true });
  const found: string[] = [];
  let cursor: string | undefined;
  let round = 0;
  do {
    const page = (round % 2 === 0 ? map : reader).scan({ prefix: "stays", cursor, limit: 20 });
    found.push(...page.keys);
    cursor = page.cursor;
    const others = Array.from({ length: 4000 }, (_, i) => `other ${i}`);
    if (round % 3 === 0) map.setMany(others.map((key, i) => [key, i]));
    if (round % 3 === 2) map.deleteMany(others);
    round += 1;
  } while (cursor !== undefined);
  assert.ok(round >= 35);
  assert.deepEqual(found.sort(), stay.sort());
  reader.close();
  thrown("Closed", () => reader.scan());
});

test("Values of all sizes come with a prefix, and only those", (t) => {
  const map = freshMap<string>(t);
  for (let i = 0; i < 60; i += 1) {
    map.set(`a ${i}`, "x".repeat(i * 3000));
    map.set(`b ${i}`, "y".repeat(i * 3000));
  }
  const entries = new Map(map.entries({ prefix: "a " }));
  assert.equal(entries.size, 60);
  for (const [key, value] of entries) assert.equal(value, "x".repeat(Number(key.slice(2)) * 3000));
  assert.equal([...map.values({ prefix: "a 59" })][0].length, 59 * 3000);
  assert.equal(map.entries, map[Symbol.iterator]);
});

test("SharedMap.clear() with a prefix removes those keys alone", (t) => {
  const map = freshMap<number>(t);
  for (let i = 0; i < 1000; i += 1) map.set(`user:${i}`, i).set(`users${i}`, i);
  map.clear({ prefix: "none" });
  assert.equal(map.size, 2000);
  map.clear({ prefix: "user:" });
  assert.equal(map.size, 1000);
  assert.ok([...map.keys()].every((key) => key.startsWith("users")));
  map.clear({ prefix: "" });
  assert.equal(map.size, 0);
  map.set("a", 1).clear({});
  assert.equal(map.size, 0);
  assertSound(map);
});

test("Scans refuse what is no prefix, no cursor and no limit", (t) => {
  const map = freshAnonymous<number>(t).set("a", 1);
  for (const prefix of [1, null, {}, "\ud800", "x".repeat(65_536)].map(untyped)) {
    assert.throws(() => map.scan({ prefix }), isArgumentError);
    assert.throws(() => map.keys({ prefix }), isArgumentError);
    assert.throws(() => map.values({ prefix }), isArgumentError);
    assert.throws(() => map.entries({ prefix }), isArgumentError);
    assert.throws(() => map.clear({ prefix }), isArgumentError);
  }
  for (const cursor of ["", "x", "0".repeat(15), "0".repeat(17), 5, null, "G".repeat(16)]) {
    assert.throws(() => map.scan({ cursor: untyped(cursor) }), TypeError);
  }
  for (const limit of [0, -1, 1.5, 2 ** 32, NaN, "5", null]) {
    assert.throws(() => map.scan({ limit: untyped(limit) }), isArgumentError);
  }
  for (const options of [untyped({ prefx: "a" }), untyped(5)]) {
    assert.throws(() => map.scan(options), TypeError);
    assert.throws(() => map.keys(options), TypeError);
    assert.throws(() => map.clear(options), TypeError);
  }
  // Any place is one, whichever process or map it is from.
  for (const cursor of ["0".repeat(16), "f".repeat(16), "f".repeat(32)]) map.scan({ cursor });
  assert.equal(map.size, 1);
});
