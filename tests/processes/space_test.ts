/** Space: what a map takes, gives back and does when there is none; values up to 1 GiB. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { freemem } from "node:os";
import { statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import { LOCK } from "../support/lock_mode.ts";
import { seededRandom } from "../support/random.ts";
import {
  assertSound,
  type Child,
  content,
  freshDirectory,
  freshMap,
  inSmallTmpfs,
  leftTo,
  refusesTmpfs,
  runtimeOf,
  SCALE,
  scaled,
  SHM,
  startChild,
  type TestContext,
  testUnless,
  thrown,
  withSeed,
} from "../support/support.ts";

const LONG = { timeout: 180_000 };
const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** The bytes a segment's file really takes. */
function allocatedBytes(name: string): number {
  return statSync(join(SHM, name)).blocks * 512;
}

test("SharedMap takes at most 256 KiB when empty", (t) => {
  const map = freshMap(t);
  assert.ok(allocatedBytes(map.name) <= 256 * KIB, `${allocatedBytes(map.name)}`);
  assert.ok(map.stats().allocated <= 256 * KIB);
});

test("SharedMap takes at most 512 KiB with a thousand entries of 50 bytes", (t) => {
  const map = freshMap(t);
  for (let i = 0; i < 1000; i += 1) map.set(`key ${`${i}`.padStart(6, "0")}`, "x".repeat(50));
  assert.ok(allocatedBytes(map.name) <= 512 * KIB, `${allocatedBytes(map.name)}`);
});

test("SharedMap.stats().allocated is what the file takes", (t) => {
  const map = freshMap(t);
  for (let i = 0; i < 20_000; i += 1) {
    map.set(`key ${i}`, i);
    if (i % 5000 === 0) assert.equal(map.stats().allocated, allocatedBytes(map.name));
  }
});

test("SharedMap reuses the space of replaced values of varying sizes", LONG, async (t) => {
  await withSeed((random) => {
    const map = freshMap<string>(t);
    const peaks: number[] = [];
    const rounds = Math.max(40, scaled(60));
    for (let round = 0; round < rounds; round += 1) {
      for (let i = 0; i < 1000; i += 1) map.set(`key ${i}`, "x".repeat(random(2000)));
      peaks.push(map.stats().allocated);
    }
    const early = peaks[Math.floor(rounds / 2)];
    const late = peaks[rounds - 1];
    assert.ok(late <= early * 1.15, `${early} bytes after half the rounds, ${late} at the end`);
    assert.ok(late <= 1000 * 2000 * 3, `${late} bytes for at most 2 MB`);
  });
});

test("SharedMap reuses the space of deleted entries", LONG, async (t) => {
  await withSeed((random) => {
    const map = freshMap<string>(t);
    const sizes: number[] = [];
    for (let round = 0; round < scaled(20); round += 1) {
      for (let i = 0; i < 2000; i += 1) map.set(`round ${round} key ${i}`, "x".repeat(random(800)));
      if (round % 2) map.clear();
      else for (const key of [...map.keys()]) map.delete(key);
      assert.equal(map.size, 0);
      sizes.push(map.stats().allocated);
    }
    const late = sizes.at(-1)!;
    assert.ok(late <= sizes[Math.floor(sizes.length / 4)] * 1.3, `${sizes}`);
    assertSound(map);
  });
});

test("SharedMap reuses the space of large values, of one and of changing sizes", LONG, (t) => {
  const map = freshMap<Uint8Array>(t);
  const value = new Uint8Array(24 * MIB);
  for (let i = 0; i < 20; i += 1) map.set("same", value);
  const same = map.stats().allocated;
  assert.ok(same <= 4 * 24 * MIB, `${same} bytes for one value of 24 MiB`);
  const random = seededRandom(7);
  let early = 0;
  for (let i = 0; i < 100; i += 1) {
    map.set("other", value.subarray(0, 64 * KIB + random(8 * MIB)));
    if (i === 30) early = map.stats().allocated;
  }
  const late = map.stats().allocated;
  assert.ok(late <= early * 1.3, `${early} bytes after 30 values, ${late} after 100`);
});

test("SharedMap.open() with maxBytes has a ceiling it never passes", LONG, async (t) => {
  await withSeed((random) => {
    for (const maxBytes of [256 * KIB, 300_000, MIB, 5 * MIB + 1]) {
      const map = freshMap<string>(t, { maxBytes });
      let stored = 0;
      const error = thrown("NoSpace", () => {
        for (;; stored += 1) map.set(`key ${stored}`, "x".repeat(random(500)));
      });
      assert.ok(allocatedBytes(map.name) <= maxBytes, `${allocatedBytes(map.name)} of ${maxBytes}`);
      assert.equal(map.size, stored);
      assert.match(error.message, /\d/);
      for (let i = 0; i < stored; i += 1) assert.ok(map.has(`key ${i}`));
      // So many that whole chunks are free again: a new key may need a larger table.
      for (let i = 0; i < stored; i += 1) {
        if (i % 10 !== 0) assert.equal(map.delete(`key ${i}`), true);
      }
      for (let i = 0; i < stored / 10; i += 1) map.set(`again ${i}`, "x".repeat(200));
      assertSound(map);
    }
  });
});

test("SharedMap at its ceiling takes overwrites in place of what it holds", LONG, (t) => {
  const map = freshMap<string>(t, { maxBytes: 2 * MIB });
  thrown("NoSpace", () => {
    for (let i = 0;; i += 1) map.set(`key ${i}`, "x".repeat(1000));
  });
  const count = map.size;
  for (let i = 0; i < count; i += 10) map.delete(`key ${i}`);
  for (let round = 0; round < 20; round += 1) {
    for (let i = 1; i < count; i += 10) map.set(`key ${i}`, `${round}`.padEnd(1000, "y"));
  }
  assert.equal(map.size, count - Math.ceil(count / 10));
  assert.ok(allocatedBytes(map.name) <= 2 * MIB);
});

test("SharedMap at its ceiling drains and fills again as often as one likes", LONG, (t) => {
  const map = freshMap<string>(t, { maxBytes: MIB });
  const counts: number[] = [];
  for (let round = 0; round < 12; round += 1) {
    thrown("NoSpace", () => {
      for (let i = 0;; i += 1) map.set(`key ${i}`, "x".repeat(100 + 50 * (round % 3)));
    });
    counts.push(map.size);
    if (round % 2) map.clear();
    else for (const key of [...map.keys()]) map.delete(key);
  }
  for (let i = 3; i < counts.length; i += 1) {
    assert.ok(counts[i] >= counts[i - 3] * 0.8, `fewer fit each time: ${counts}`);
  }
});

test("SharedMap.set() of a value larger than the ceiling changes nothing", (t) => {
  const map = freshMap<unknown>(t, { maxBytes: MIB }).set("a", 1);
  for (const size of [MIB, 2 * MIB, 100 * MIB]) {
    const error = thrownOneOf(["NoSpace", "TooLarge"], () => map.set("a", new Uint8Array(size)));
    assert.match(error.message, /\d/);
    assert.deepEqual(content(map), [["a", 1]]);
  }
  assert.ok(map.stats().allocated <= MIB);
});

function thrownOneOf(codes: string[], task: () => unknown): Error {
  let error: unknown;
  assert.throws(task, (caught) => {
    error = caught;
    return codes.includes((caught as { code: string }).code);
  });
  return error as Error;
}

test("SharedMap keeps values of every order of magnitude side by side", LONG, (t) => {
  const map = freshMap<Uint8Array>(t);
  const sizes = Array.from({ length: SCALE < 1 ? 25 : 28 }, (_, i) => 2 ** i - 1);
  for (const size of sizes) map.set(`${size}`, new Uint8Array(size).fill(size % 251));
  for (const size of sizes) {
    const value = map.get(`${size}`)!;
    const wanted = new Uint8Array(size).fill(size % 251);
    assert.equal(Buffer.compare(value, wanted), 0, `${size} bytes`);
  }
  for (const size of sizes) map.set(`${size}`, Uint8Array.of(1));
  assert.ok(sizes.every((size) => map.get(`${size}`)!.length === 1));
});

const lacksMemory = freemem() > 7 * GIB ? undefined : "less than 7 GiB of memory is free";

testUnless(leftTo("bun") ?? lacksMemory, "SharedMap keeps a value of exactly 1 GiB", LONG, (t) => {
  const map = freshMap<Uint8Array>(t);
  const value = new Uint8Array(GIB);
  const words = new Uint32Array(value.buffer);
  for (let i = 0; i < words.length; i += 1024) words[i] = Math.imul(i + 1, 2654435761);
  value[GIB - 1] = 77;
  map.set("key", value);
  const found = map.get("key")!;
  assert.equal(found.length, GIB);
  assert.equal(Buffer.compare(found, value), 0, "the bytes came back changed");
  found[0] += 1;
  assert.notEqual(found[0], value[0]);
  assert.equal(map.delete("key"), true);
});

const refused = lacksMemory ?? leftTo("deno") ??
  (SCALE < 1 && LOCK === "kernel" ? "with less of the work the usual lock does it" : undefined);

/** Has others take the pool's lock, which is when parts of what is free go back. */
async function allocatedAfterCalls(map: SharedMap<unknown>, most: number): Promise<number> {
  const value = new Uint8Array(1.5 * MIB);
  for (let i = 0; i < 400 && map.stats().allocated > most; i += 1) {
    if (i % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 300));
    map.set("other", value);
  }
  map.delete("other");
  return map.stats().allocated;
}

testUnless(refused, "SharedMap gives back what a value of 1 GiB took", LONG, async (t) => {
  const map = freshMap<unknown>(t).set("small", 1);
  const value = new Uint8Array(GIB);
  map.set("key", value).set("key", value);
  assert.ok(map.stats().allocated > 2 * GIB);
  map.delete("key");
  const allocated = await allocatedAfterCalls(map, 16 * MIB);
  assert.ok(allocated <= 16 * MIB, `${allocated}`);
  assert.ok(allocatedBytes(map.name) === allocated);
  assert.ok(map.compact() >= 0);
  assert.ok(map.stats().allocated < 8 * MIB, `${map.stats().allocated}`);
  assert.deepEqual(content(map), [["small", 1]]);
  assertSound(map);
});

test("SharedMap gives back what clear() left when its last user leaves", LONG, async (t) => {
  const map = freshMap<string>(t);
  const { name } = map;
  const reader = await startChild(t, runtimeOf(1));
  const text = "x".repeat(100_000);
  for (let i = 0; i < 1000; i += 1) map.set(`key ${i}`, `${i} ${text}`);
  assert.ok(map.stats().allocated > 100_000_000);
  await reader.ask("open", { id: "map", name, options: { readonly: true } });
  map.clear();
  map.set("kept", "here");
  // Beside a reader there may be one that is stopped in the middle of what was ordinary space.
  assert.ok(map.compact() < MIB && map.stats().allocated > 100_000_000);
  await reader.ask("close", { id: "map" });
  map.close();
  assert.ok(allocatedBytes(name) < 8 * MIB, `${allocatedBytes(name)}`);
  using again = SharedMap.open<string>(name);
  assert.equal(again.get("kept"), "here");
  assertSound(again);
});

test("SharedMap.compact() gives back all that nothing uses, and says how much", LONG, async (t) => {
  const map = freshMap<unknown>(t);
  const text = "x".repeat(5000);
  for (let i = 0; i < 4000; i += 1) map.set(`key ${i}`, `${i} ${text}`);
  for (let i = 0; i < 4000; i += 1) if (i >= 40) map.delete(`key ${i}`);
  const large = new Uint8Array(3 * MIB).fill(3);
  map.set("large", large).set("large", large).delete("large");
  const before = map.stats().allocated;
  const bytes = map.compact();
  assert.equal(map.stats().allocated, before - bytes);
  assert.ok(map.stats().allocated < 8 * MIB, `${map.stats().allocated}`);
  assert.equal(map.size, 40);
  assertSound(map);
  // Others come, see all of it, and store as before.
  const child = await startChild(t, runtimeOf(1));
  await child.ask("open", { id: "map", name: map.name });
  assert.equal(await child.call("get", "key 39"), `39 ${text}`);
  await child.call("set", "from the child", "y".repeat(2 * MIB));
  map.set("large", large);
  assert.equal((map.get("from the child") as string).length, 2 * MIB);
  assert.equal(Buffer.compare(map.get("large") as Uint8Array, large), 0);
  assert.equal(await child.call("delete", "from the child"), true);
  assert.ok(await child.call("compact") >= 2 * MIB);
  assert.ok((await child.call("verify")).ok);
  using reader = SharedMap.open(map.name, { readonly: true });
  thrown("ReadOnly", () => reader.compact());
});

test('SharedMap.set() of one byte more than 1 GiB is "TooLarge"', LONG, (t) => {
  const map = freshMap<unknown>(t).set("key", 1);
  thrown("TooLarge", () => map.set("key", new Uint8Array(GIB + 1)));
  assert.deepEqual(content(map), [["key", 1]]);
  assert.ok(map.stats().allocated <= 256 * KIB);
});

const noTmpfs = refusesTmpfs();

/** A child alone in a file system of this size, with a map open in it. */
async function inTmpfs(t: TestContext, size: string, at: number): Promise<Child> {
  const directory = freshDirectory(t);
  const options = { wrap: inSmallTmpfs(directory, size), permissions: ["-A"] };
  const child = await startChild(t, runtimeOf(at), options);
  await child.ask("open", { id: "map", name: "small", options: { directory } });
  return child;
}

for (const [at, size] of ["1m", "4m", "16m", "1m", "4m"].entries()) {
  const title = `SharedMap goes on in a full file system of ${size} in ${runtimeOf(at)}`;
  testUnless(noTmpfs, title, LONG, async (t) => {
    const child = await inTmpfs(t, size, at);
    const rounds = size === "16m" ? 4 : 6;
    const report = await child.ask("fillDisk", { id: "map", rounds, seed: at });
    assert.ok(report.counts.every((count: number) => count > 500), JSON.stringify(report));
    await child.end();
  });
}

testUnless(noTmpfs, 'SharedMap.open() in a full file system is "NoSpace"', LONG, async (t) => {
  for (const [at, size] of ["4k", "8k", "12k"].entries()) {
    await assert.rejects(inTmpfs(t, size, at), { name: "SharedMemoryError", code: "NoSpace" });
  }
});

testUnless(
  noTmpfs,
  "SharedMap leaves room again after a large value was refused",
  LONG,
  async (t) => {
    const child = await inTmpfs(t, "8m", 0);
    await child.call("set", "a", 1);
    await child.call("set", "half", "x".repeat(4 * MIB));
    for (let i = 0; i < 5; i += 1) {
      const refused = child.call("set", "large", "x".repeat(5 * MIB));
      await assert.rejects(refused, { code: "NoSpace" });
      await child.call("set", `after ${i}`, "x".repeat(100_000));
    }
    await assert.rejects(child.call("set", "a", "x".repeat(12 * MIB)), { code: "NoSpace" });
    assert.equal(await child.call("has", "large"), false);
    assert.equal(await child.call("get", "a"), 1);
    assert.equal((await child.call("verify")).ok, true);
  },
);
