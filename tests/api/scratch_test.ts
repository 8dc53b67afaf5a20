/** A call that fails keeps no memory and nothing of the value that it was given. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { type Codec, SharedMap, SharedValue } from "../../mod.ts";
import { CODEC, DATA, FAULT, KEY, OUT } from "../../src/ffi/scratch.ts";
import { assertSound, content, freshAnonymous, thrown } from "../support/support.ts";

/** Far more than a buffer may keep, which is 4 MiB. */
const LARGE = 9 * 2 ** 20;
const SPARE = 4 * 2 ** 20;
const LONG = { timeout: 120_000 };

const large = () => "é".repeat(LARGE / 2);

/** The buffers between here and the library have their usual sizes. */
function assertSmall(what: string): void {
  for (const [name, scratch] of Object.entries({ CODEC, DATA, FAULT, KEY, OUT })) {
    assert.ok(scratch.bytes.length <= SPARE, `${what}: ${name} has ${scratch.bytes.length} bytes`);
  }
}

class Mine extends Error {}

function throwMine(): never {
  throw new Mine();
}

/** A codec that puts a large value before it fails, or fails to read one. */
function failing(part: "encode" | "decode"): Codec {
  return {
    id: "failing",
    encode: () => part === "encode" ? throwMine() : new Uint8Array(LARGE),
    decode: throwMine,
  };
}

/** A value that is large, and that throws while it is read. */
function hostile(): object {
  return {
    first: large(),
    get then() {
      return throwMine();
    },
  };
}

type Failure = (t: TestContext) => unknown;

/** Calls that must throw. */
const FAILURES: Record<string, Failure> = {
  "set of a key that is refused": (t) => freshAnonymous(t).set("", large()),
  "set of a long key": (t) => freshAnonymous(t).set("x".repeat(70_000), large()),
  "set of large bytes with a bad key": (t) => freshAnonymous(t).set("", new Uint8Array(LARGE)),
  "add of a key that is refused": (t) => freshAnonymous(t).add("\ud800", large()),
  "getOrInsert over a small map": (t) =>
    freshAnonymous(t, { maxBytes: 2 ** 20 }).getOrInsert("a", large()),
  "update to what is refused": (t) => freshAnonymous(t).update("a", () => [large(), () => 1]),
  "update over a small map": (t) => freshAnonymous(t, { maxBytes: 2 ** 20 }).update("a", large),
  "set of a structure with a function": (t) =>
    freshAnonymous(t).set("a", { a: large(), b: () => 1 }),
  "set of a structure whose getter throws": (t) => freshAnonymous(t).set("a", hostile()),
  "set of a Map whose member throws": (t) =>
    freshAnonymous(t).set("a", new Map([["large", large() as unknown], ["hostile", hostile()]])),
  "getMany with a key that is refused": (t) =>
    freshAnonymous(t).getMany([...Array.from({ length: 200 }, () => "x".repeat(60_000)), ""]),
  "getMany with a key that throws": (t) =>
    freshAnonymous(t).getMany((function* () {
      for (let i = 0; i < 200; i += 1) yield "x".repeat(60_000);
      throwMine();
    })()),
  "setMany with a key that is refused": (t) =>
    freshAnonymous(t).setMany([["a", large()], ["", large()]]),
  "setMany over a small map": (t) =>
    freshAnonymous(t, { maxBytes: 2 ** 20 }).setMany([["a", large()]]),
  "set while another handle has the lock": (t) => {
    const map = freshAnonymous(t);
    using other = SharedMap.attach(map.token);
    using _lock = other.lock();
    map.set("a", large());
  },
  "set with a codec that throws": (t) =>
    freshAnonymous(t, { codec: failing("encode") }).set("a", {}),
  "get with a codec that throws": (t) =>
    freshAnonymous(t, { codec: failing("decode") }).set("a", {}).get("a"),
  "toObject with a codec that throws": (t) =>
    freshAnonymous(t, { codec: failing("decode") }).set("a", {}).toObject(),
  "values with a codec that throws": (t) => [
    ...freshAnonymous(t, { codec: failing("decode") }).set("a", {}).values(),
  ],
  "set of a value beyond its limit": () => {
    using value = SharedValue.anonymous({ maxBytes: 100 });
    value.set(large());
  },
  "update of a value to what is refused": () => {
    using value = SharedValue.anonymous();
    value.update(() => [large(), () => 1]);
  },
  "get of a value with a codec that throws": () => {
    using value = SharedValue.anonymous({ codec: failing("decode") });
    value.set({});
    value.get();
  },
};

for (const [what, call] of Object.entries(FAILURES)) {
  test(`a failing call keeps no memory: ${what}`, LONG, (t) => {
    assert.throws(() => call(t));
    assertSmall(what);
    const map = freshAnonymous<unknown>(t);
    for (const value of [{ a: [1] }, new Map([["a", { b: 1 }]]), "text", [new Error("e")]]) {
      assert.deepEqual(map.set("after", value).get("after"), value);
    }
    assertSmall(`${what}, and calls after it`);
  });
}

test("a getter that stores a large value does not damage the one that it belongs to", (t) => {
  const map = freshAnonymous<unknown>(t);
  let stored = 0;
  const value = {
    before: "b".repeat(1000),
    get inner() {
      map.set("other", { text: large(), nested: new Map([[1, 2]]) });
      stored += 1;
      return 7;
    },
    after: "a".repeat(1000),
  };
  for (const each of [value, { value, again: new Map([["value", value]]) }]) {
    map.set("outer", each);
    const plain = { before: value.before, inner: 7, after: value.after };
    const wanted = each === value ? plain : { value: plain, again: new Map([["value", plain]]) };
    assert.deepEqual(map.get("outer"), wanted);
  }
  assert.ok(stored >= 3);
  assert.equal((map.get("other") as { text: string }).text, large());
  assertSmall("nested calls");
  assertSound(map as SharedMap);
});

test("a call that fails with the lock of another handle changes nothing", (t) => {
  const map = freshAnonymous<string>(t).set("a", "old");
  using other = SharedMap.attach<string>(map.token);
  using _lock = other.lock();
  thrown("Locked", () => map.set("a", large()));
  assert.deepEqual(content(map), [["a", "old"]]);
});
