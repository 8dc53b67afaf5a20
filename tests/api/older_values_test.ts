/** Values that earlier versions stored, and damaged ones of this version. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { pack, shapeOf } from "../../bench/stage1_codec.ts";
import { Scratch } from "../../src/ffi/scratch.ts";
import { decode, encode, Undecodable } from "../../src/values/kinds.ts";
import { assertSame, corpus } from "../support/corpus.ts";
import { readDamaged } from "../support/damage.ts";
import { scaled } from "../support/support.ts";

/** The kinds of version 0.2, by what its check found. */
const KINDS = { plain: 14, full: 1, withErrors: 2 };

test("every structure that version 0.2 stored is read", () => {
  const memory = new Scratch(1024);
  let count = 0;
  for (const [name, value] of corpus()) {
    if (typeof value !== "object" || value === null) continue;
    const shape = shapeOf(value);
    const bytes = pack(value, shape);
    memory.end = 0;
    memory.reserve(bytes.length + 8);
    memory.bytes.set(bytes, 8);
    assertSame(decode(memory, 8, bytes.length, KINDS[shape], undefined), value, name);
    count += 1;
  }
  assert.ok(count > 70);
});

test("structures are stored in kinds that version 0.2 calls no value", () => {
  const memory = new Scratch(1024);
  assert.equal(encode({ a: 1 }, undefined, memory), 15);
  assert.equal(encode(new Map(), undefined, memory), 16);
});

test("damaged structures are refused, or read as others of the same names, and nothing else", {
  timeout: 120_000,
}, () => {
  assert.ok(readDamaged(scaled(100_000), Math.floor(Math.random() * 2 ** 31)) > 0);
});

test("a name that was changed is found, whether it is of one object or of many", () => {
  const memory = new Scratch(1024);
  const twice = Array.from({ length: 20 }, (_, i) => ({ abcd: i, efgh: 1 }));
  for (const value of [{ "1": 1, name: 2, "é": 3 }, twice, { ["☺"]: 1 }]) {
    memory.end = 0;
    for (let i = 0; i < 3; i += 1) { // the first ones lay the way to a shape
      memory.end = 0;
      encode(value, undefined, memory);
    }
    const bytes = memory.bytes.slice(0, memory.end);
    const stream = new DataView(bytes.buffer).getInt32(0, true) & 0x7fffffff;
    for (let at = stream; at < bytes.length; at += 1) {
      for (const change of [1, 0x20, 0x80]) {
        memory.bytes.set(bytes);
        memory.bytes[at] ^= change;
        assert.throws(() => decode(memory, 0, bytes.length, 15, undefined), Undecodable);
      }
    }
  }
});
