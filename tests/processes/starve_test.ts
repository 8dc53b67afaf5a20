/**
 * Reads of values of any size beside a process that writes other keys as fast as it can: none
 * waits, none fails, and the bytes are right, through handles that write and handles that read.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import {
  assertSound,
  atEnd,
  type Child,
  divided,
  freshMap,
  HERE,
  otherThan,
  SCALE,
  startWith,
  type TestContext,
  until,
} from "../support/support.ts";
import { STOP } from "../support/tasks.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
/** One that fits the fast path, the first that does not, and one of several pieces. */
const SIZES = [KIB, 64 * KIB, 64 * KIB + 1, 3 * MIB + 5];
/** These are read once by each handle. */
const LARGE = [64 * MIB, ...(SCALE >= 1 ? [256 * MIB] : [])];
const ROUNDS = divided(10);
/** A read that waits for a quiet moment, or starts again and again, does not end in this time. */
const TIMEOUT = 500;
const LONG = { timeout: 240_000 };

/** Values of these sizes by their keys, stored in a map. */
function stored(map: SharedMap<unknown>, sizes: number[]): Map<string, Uint8Array> {
  const values = new Map(sizes.map((size) => [`value of ${size}`, valueOf(size)]));
  for (const [key, value] of values) map.set(key, value);
  return values;
}

/** A value of this size: each word tells its place, so that no two pieces are alike. */
function valueOf(size: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(size / 4));
  for (let i = 0; i < words.length; i += 1) words[i] = i * 2654435761 + size;
  return new Uint8Array(words.buffer, 0, size);
}

function assertBytes(actual: unknown, expected: Uint8Array, what: string): void {
  assert.ok(actual instanceof Uint8Array, `${what} is ${typeof actual}`);
  assert.equal(actual.length, expected.length, what);
  assert.equal(Buffer.compare(actual, expected), 0, `${what} has other bytes`);
}

/** A child of the other runtime that writes 1,000 other keys until `stop`. */
async function startWriter(t: TestContext, map: SharedMap<unknown>, name: string): Promise<Child> {
  const child = await startWith(t, otherThan(HERE), name);
  const before = map.size;
  child.send("writeOthers", { keys: 1000 });
  atEnd(t, () => map.set(STOP, true));
  await until("other keys", () => map.size > before + 300);
  return child;
}

/** Reads all values in every way there is. */
function readAll(
  handle: SharedMap<unknown>,
  how: string,
  values: Map<string, Uint8Array>,
): void {
  for (const [key, value] of values) {
    assertBytes(handle.get(key), value, `${key} by get of ${how}`);
    assert.ok(handle.has(key));
  }
  const many = handle.getMany(values.keys());
  for (const [index, [key, value]] of [...values].entries()) {
    assertBytes(many[index], value, `${key} by getMany of ${how}`);
  }
  const left = new Map(values);
  for (const [key, value] of handle) {
    const expected = left.get(key);
    if (!expected) {
      assert.ok(key.startsWith("other "), `"${key}" by iteration of ${how}`);
      continue;
    }
    assertBytes(value, expected, `${key} by iteration of ${how}`);
    left.delete(key);
  }
  assert.equal(left.size, 0, `${[...left.keys()]} not by iteration of ${how}`);
  const keys = [...handle.keys()];
  assert.equal(new Set(keys).size, keys.length, "a key comes twice");
  for (const key of values.keys()) assert.ok(keys.includes(key), `${key} not by keys of ${how}`);
}

test("values of any size are read beside a writer of other keys at full speed", LONG, async (t) => {
  const map = freshMap<unknown>(t);
  const small = stored(map, SIZES);
  const large = stored(map, LARGE);
  const child = await startWriter(t, map, map.name);
  const handles = [true, false].map((readonly) => {
    const handle = SharedMap.open<unknown>(map.name, { readonly, timeout: TIMEOUT });
    atEnd(t, () => handle.close());
    return { handle, how: readonly ? "a reading handle" : "a writing handle" };
  });
  for (const { handle, how } of handles) readAll(handle, how, new Map([...small, ...large]));
  for (const key of large.keys()) map.delete(key);
  for (let round = 1; round < ROUNDS; round += 1) {
    for (const { handle, how } of handles) readAll(handle, how, small);
  }
  assert.equal(child.isClosed, false, child.stderr);
  map.set(STOP, true);
  await child.end();
  assertSound(map);
});

test(
  "toObject of a writing handle beside a writer of other keys at full speed",
  LONG,
  async (t) => {
    const map = freshMap<unknown>(t);
    const values = stored(map, [...SIZES, 16 * MIB]);
    const child = await startWriter(t, map, map.name);
    for (let round = 0; round < ROUNDS; round += 1) {
      const object = map.toObject();
      for (const [key, value] of values) assertBytes(object[key], value, `${key} by toObject`);
      for (const key of Object.keys(object)) assert.ok(values.has(key) || key.startsWith("other "));
    }
    assert.equal(child.isClosed, false, child.stderr);
    map.set(STOP, true);
    await child.end();
    assertSound(map);
  },
);

test("a value that is replaced all the time is read whole", LONG, async (t) => {
  const map = freshMap<unknown>(t);
  const child = await startWith(t, otherThan(HERE), map.name);
  child.send("replaceLarge", { key: "large", size: 3 * MIB });
  atEnd(t, () => map.set(STOP, true));
  await until("the value", () => map.has("large"));
  const reader = SharedMap.open<unknown>(map.name, { readonly: true });
  atEnd(t, () => reader.close());
  for (let round = 0; round < divided(20); round += 1) {
    for (const handle of [map, reader]) {
      const value = handle.get("large") as Uint8Array;
      assertBytes(value, new Uint8Array(3 * MIB).fill(value[0]), "the value");
    }
  }
  map.set(STOP, true);
  await child.end();
  assertSound(map);
});
