/** Objects that a map hands out again, and values that it copies into memory of the caller. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import { countingBytes } from "../support/corpus.ts";
import { freshMap, RUNTIMES, scaled, startWith, thrown } from "../support/support.ts";

interface Deep {
  n: number;
  list: { x: number }[];
}

test("a frozen SharedMap gives one deeply frozen object until the entry changes", (t) => {
  const map = freshMap<Deep>(t);
  using frozen = SharedMap.open<Deep>(map.name, { frozen: true });
  using reader = SharedMap.attach<Deep>(map.token, { frozen: true, readonly: true });
  map.set("a", { n: 1, list: [{ x: 1 }] });
  for (const handle of [frozen, reader]) {
    const first = handle.get("a")!;
    assert.deepEqual(first, { n: 1, list: [{ x: 1 }] });
    assert.ok([first, first.list, first.list[0]].every(Object.isFrozen));
    assert.equal(handle.get("a"), first);
    map.set("b", { n: 2, list: [] });
    assert.equal(handle.get("a"), first, "another key has changed");
    map.set("a", { n: 1, list: [{ x: 1 }] }); // the same, but stored anew
    assert.notEqual(handle.get("a"), first);
    map.delete("a");
    assert.equal(handle.get("a"), undefined);
    map.set("a", { n: 3, list: [{ x: 1 }] });
    assert.equal(handle.get("a")!.n, 3);
    map.clear();
    assert.equal(handle.get("a"), undefined);
    map.set("a", { n: 1, list: [{ x: 1 }] });
  }
});

test("every other call of a frozen SharedMap gives copies", () => {
  using map = SharedMap.anonymous<Deep>({ frozen: true });
  const first = map.set("a", { n: 1, list: [] }).get("a");
  const copies = [
    map.getMany(["a"])[0],
    [...map.values()][0],
    map.toObject().a,
    map.getOrInsert("a", { n: 2, list: [] }),
  ];
  map.update("a", (current) => {
    copies.push(current);
    return current!;
  });
  for (const copy of copies) {
    assert.deepEqual(copy, { n: 1, list: [] });
    assert.ok(copy !== first && !Object.isFrozen(copy));
  }
});

test("a frozen SharedMap gives copies of what cannot be frozen, and primitives as they are", () => {
  using map = SharedMap.anonymous<unknown>({ frozen: true });
  for (const value of [new Map([[1, 2]]), { date: new Date(5) }, Uint8Array.of(1, 2)]) {
    map.set("key", value);
    assert.deepEqual(map.get("key"), value);
    assert.notEqual(map.get("key"), map.get("key"));
  }
  for (const value of ["text", 1.5, 7n, true, null, "x".repeat(70_000)]) {
    assert.equal(map.set("key", value).get("key"), value);
    assert.equal(map.get("key"), value);
  }
});

test("a frozen SharedMap keeps no more objects than there is room for", () => {
  using map = SharedMap.anonymous<{ i: number }>({ frozen: true });
  const count = 20_000;
  map.setMany(Array.from({ length: count }, (_, i) => [`key ${i}`, { i }]));
  const first = Array.from({ length: count }, (_, i) => map.get(`key ${i}`)!);
  let kept = 0;
  for (let i = count - 1; i >= 0; i -= 1) {
    const found = map.get(`key ${i}`)!;
    assert.equal(found.i, i);
    if (found === first[i]) kept += 1;
  }
  assert.ok(kept > 1000 && kept <= 4096, `${kept}`);
});

test("SharedMap refuses a frozen that is no boolean", () => {
  const options = { frozen: 1 } as unknown as { frozen: boolean };
  assert.throws(() => SharedMap.anonymous(options), TypeError);
  assert.throws(() => SharedMap.attach("x", options), TypeError);
  assert.throws(() => SharedMap.open("x", options), TypeError);
});

for (const runtime of RUNTIMES) {
  test(`a frozen SharedMap shows every set that ${runtime} has acknowledged`, {
    timeout: 120_000,
  }, async (t) => {
    const map = freshMap<{ n: number }>(t, { frozen: true });
    const writer = await startWith(t, runtime, map.name);
    for (let n = 1; n <= scaled(500); n += 1) {
      const key = `key ${n % 7}`;
      await writer.call("set", key, { n });
      const found = map.get(key)!;
      assert.equal(found.n, n);
      assert.ok(Object.isFrozen(found) && map.get(key) === found);
    }
    await writer.end();
  });
}

test("SharedMap.getInto() copies bytes and text, exactly, if they fit", (t) => {
  const map = freshMap<unknown>(t);
  for (const length of [0, 1, 7, 8, 31, 32, 33, 1024, 70_000]) {
    const bytes = countingBytes(length);
    map.set("bytes", bytes).set("text", "x".repeat(length)).set("wide", "é☺".repeat(length));
    const target = new Uint8Array(length + 40).fill(0xee);
    assert.equal(map.getInto("bytes", target), length);
    assert.deepEqual(target.subarray(0, length), bytes);
    assert.ok(target.subarray(length).every((byte) => byte === 0xee), "it wrote behind the value");
    const exact = new Uint8Array(length);
    assert.equal(map.getInto("text", exact), length);
    assert.ok(exact.every((byte) => byte === 0x78));
    if (length > 0) {
      const short = new Uint8Array(length - 1).fill(0xee);
      assert.equal(map.getInto("bytes", short), length);
      assert.ok(short.every((byte) => byte === 0xee), "it copied what does not fit");
    }
    const wide = new Uint8Array(5 * length);
    assert.equal(map.getInto("wide", wide.subarray()), 5 * length);
    assert.equal(new TextDecoder().decode(wide), "é☺".repeat(length));
    const inside = new Uint8Array(length + 20);
    assert.equal(map.getInto("bytes", inside.subarray(10, 10 + length)), length);
    assert.ok(inside.subarray(0, 10).every((byte) => byte === 0));
  }
  assert.equal(map.getInto("absent", new Uint8Array(3)), undefined);
});

test("SharedMap.getInto() refuses other kinds and other targets", (t) => {
  const map = freshMap<unknown>(t).set("text", "a");
  for (const value of [1, true, null, 7n, { a: 1 }, new Map(), "\ud800", new Uint16Array(3)]) {
    const target = new Uint8Array(100);
    assert.throws(() => map.set("key", value).getInto("key", target), TypeError);
    assert.ok(target.every((byte) => byte === 0));
  }
  for (const target of [undefined, null, [], new Uint16Array(3), new ArrayBuffer(3)]) {
    assert.throws(() => map.getInto("text", target as unknown as Uint8Array), TypeError);
  }
  map.close();
  thrown("Closed", () => map.getInto("text", new Uint8Array(3)));
});

test("SharedMap.get() reads large bytes and strings that change meanwhile", (t) => {
  const map = freshMap<unknown>(t);
  for (const length of [65_535, 65_536, 65_537, 1_000_000]) {
    const bytes = countingBytes(length);
    const found = map.set("key", bytes).get("key") as Uint8Array;
    assert.equal(found.buffer.byteLength, length);
    assert.deepEqual(found, bytes);
    assert.equal(map.set("key", "x".repeat(length)).get("key"), "x".repeat(length));
  }
});
