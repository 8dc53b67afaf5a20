/** Structures: what `structuredClone` keeps is kept, what would come back different is refused. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import vm from "node:vm";
import { SharedMap, SharedValue } from "../../mod.ts";
import { assertAlike, structure, writeStructures } from "../support/structures.ts";
import {
  freshAnonymous,
  freshMap,
  HERE,
  RUNTIMES,
  scaled,
  startWith,
  testUnless,
} from "../support/support.ts";

test("SharedMap keeps 20,000 structures as structuredClone does, and refuses the rest", (t) => {
  const map = freshAnonymous<unknown>(t);
  const first = 1_000_000 + Math.floor(Math.random() * 1e9);
  const count = scaled(20_000);
  let refused = 0;
  for (let number = first; number < first + count; number += 1) {
    const { given, expected, refusedAt, canClone } = structure(number);
    if (refusedAt !== undefined) {
      writeStructures(map, number, number + 1);
      assert.equal(map.has(`${number}`), false);
      refused += 1;
      continue;
    }
    map.set("key", given);
    assertAlike(map.get("key"), expected, `value of ${number}`);
    if (canClone) assertAlike(structuredClone(given), expected, `clone of ${number}`);
  }
  assert.ok(refused > count / 100 && refused < count / 2, `${refused} of ${count}`);
});

for (const writer of RUNTIMES) {
  for (const reader of RUNTIMES) {
    test(`SharedMap carries structures from ${writer} to ${reader}`, {
      timeout: 300_000,
    }, async (t) => {
      const map = freshMap(t);
      const [source, target] = await Promise.all(
        [writer, reader].map((runtime) => startWith(t, runtime, map.name)),
      );
      const range = { from: 0, to: scaled(3000) };
      const refused = await source.ask("writeStructures", range);
      await source.end();
      assert.equal(await target.ask("checkStructures", range), range.to - Number(refused));
      await target.end();
    });
  }
}

/** What came back of what was set. */
function kept<T>(value: T): T {
  using map = SharedMap.anonymous<T>();
  return map.set("key", value).get("key")!;
}

test("SharedMap.set() names the way to what it refuses", () => {
  const fn = () => 1;
  const ways: [unknown, string][] = [
    [{ rows: [0, 1, 2, { fn }] }, "value.rows[3].fn"],
    [{ "a b": { 0: fn } }, 'value["a b"][0]'],
    [new Map<unknown, unknown>([["a", new Map([[1, fn]])]]), 'value.get("a").get(1)'],
    [new Map([[fn, 1]]), "value.keys()[0]"],
    [{ set: new Set([1, fn]) }, "value.set.values()[1]"],
    [new Error("a", { cause: { fn } }), "value.cause.fn"],
    [Object.assign(new Error("a"), { response: fn }), "value.response"],
    [Array.from({ length: 5000 }, (_, i) => i === 4999 ? fn : 0), "value[4999]"],
    [Object.assign(Array.from({ length: 50 }, () => 0), { total: fn }), "value.total"],
  ];
  for (const [value, way] of ways) {
    assert.throws(() => kept(value), {
      name: "TypeError",
      message: `Cannot store function "fn" at ${way}`,
    });
  }
});

test("SharedMap keeps the properties of arrays, however long they are", () => {
  for (const length of [0, 1, 8, 9, 32, 33, 256, 257, 5000]) {
    for (const make of [(i: number) => i, (i: number) => i + 0.5, (i: number) => ({ i })]) {
      const rows = Object.assign(Array.from({ length }, (_, i) => make(i)), { total: 1000 });
      assertAlike(kept(rows), rows);
      const holes = Array.from({ length: length + 2 }, (_, i) => make(i));
      delete holes[length];
      assertAlike(kept(holes), holes);
    }
  }
});

test("SharedMap keeps errors of the system, of the platform and its own", () => {
  const errors: Error[] = [AbortSignal.abort().reason];
  for (
    const fail of [() => kept(() => 1), () => SharedMap.open("shmap-absent", { mode: "attach" })]
  ) {
    try {
      fail();
    } catch (error) {
      errors.push(error as Error);
    }
  }
  errors.push(Object.assign(new Error("no file"), { code: "ENOENT", errno: -2, path: "/a" }));
  assert.equal(errors.length, 4);
  for (const error of errors) {
    const { state, error: found } = kept({ state: "failed", error });
    assert.equal(state, "failed");
    assert.ok(found instanceof Error);
    for (const field of ["name", "message", "stack", "code", "errno", "path"]) {
      assert.deepEqual(found[field as keyof Error], error[field as keyof Error], field);
    }
  }
});

test("SharedMap keeps what other realms made as objects of this one", () => {
  const value = vm.runInNewContext(
    `({ rows: [{ a: 1 }, new Date(5)], map: new Map([[1, new Set([2])]]), bytes: new Uint8Array(3),
      none: Object.create(null), error: new RangeError("far") })`,
  );
  const { error, ...rest } = kept(value);
  assertAlike(rest, {
    rows: [{ a: 1 }, new Date(5)],
    map: new Map([[1, new Set([2])]]),
    bytes: new Uint8Array(3),
    none: {},
  });
  assert.equal(Object.getPrototypeOf(error), RangeError.prototype);
});

test("SharedMap keeps an array that is as long as arrays can be, with one element", () => {
  const array: number[] = [];
  array.length = 2 ** 32 - 1;
  array[7] = 1;
  const found = kept(array);
  assert.deepEqual([found.length, Object.keys(found), found[7]], [2 ** 32 - 1, ["7"], 1]);
});

test("SharedMap keeps structures whole beside properties of Object.prototype", () => {
  const plain = () => ({ id: 1, list: [1, "two", 2.5], rows: [{ id: 2 }, { id: 3 }] });
  for (const enumerable of [false, true]) {
    for (const value of [plain(), [plain(), new Map([[1, plain()]])]]) {
      let calls = 0;
      Object.defineProperty(Object.prototype, "id", {
        get: () => 9,
        set: () => calls += 1,
        enumerable,
        configurable: true,
      });
      let found: unknown;
      try {
        found = kept(value);
      } finally {
        delete (Object.prototype as { id?: number }).id;
      }
      assert.equal(calls, 0);
      assertAlike(found, value);
    }
  }
});

/** A program that freezes the prototypes before it stores what has names of theirs. */
const FROZEN = `
  const { SharedMap } = await import(${JSON.stringify(import.meta.resolve("../../mod.ts"))});
  const map = SharedMap.anonymous();
  console.log; // both runtimes load parts of it when it is first used
  Object.freeze(Object.prototype);
  Object.freeze(Array.prototype);
  const value = { toString: 1, valueOf: [1, { constructor: "x" }], rows: [{ id: 1 }, new Map()] };
  map.set("key", value).set("plain", value.valueOf);
  console.log(JSON.stringify([map.get("key"), map.get("plain")]));
`;

test("SharedMap keeps the holes of arrays that inherit an element", () => {
  const arrays = [4, 9, 40, 300].flatMap((length) =>
    [(i: number) => i, (i: number) => i + 0.5, (i: number) => `${i}`].map((make) => {
      const array = Array.from({ length }, (_, i) => make(i));
      delete array[3];
      return array;
    })
  );
  const prototype = Array.prototype as unknown[];
  prototype[3] = 1234.5;
  let found: unknown[];
  try {
    found = arrays.map((array) => kept(array));
  } finally {
    delete prototype[3];
  }
  prototype.length = 0;
  assertAlike(found, arrays);
});

test("SharedMap keeps structures whole if prototypes are frozen", () => {
  const args = HERE === "deno" ? ["eval", "--no-check", FROZEN] : ["-e", FROZEN];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  const list = '[1,{"constructor":"x"}]';
  assert.equal(
    stdout.trim(),
    `[{"toString":1,"valueOf":${list},"rows":[{"id":1},{}]},${list}]`,
    stderr,
  );
});

/** A program that stores and reads often enough that code would be made, if it were allowed. */
const MANY_TIMES = `
  const { SharedMap } = await import(${JSON.stringify(import.meta.resolve("../../mod.ts"))});
  const map = SharedMap.anonymous();
  let last;
  for (let id = 0; id < 3000; id += 1) {
    last = map.set("key", { id, name: "é", in: { x: [id] } }).get("key");
  }
  let isAllowed = true;
  try { new Function("return 1")(); } catch { isAllowed = false; }
  console.log(JSON.stringify([isAllowed, last]));
`;

testUnless(
  HERE === "bun" ? "Bun has no such flag" : undefined,
  "SharedMap keeps structures where no code may be made from strings",
  {},
  () => {
    const flag = "--v8-flags=--disallow-code-generation-from-strings";
    const args = ["eval", "--no-check", flag, MANY_TIMES];
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
    const wanted = [false, { id: 2999, name: "é", in: { x: [2999] } }];
    assert.equal(stdout.trim(), JSON.stringify(wanted), stderr);
  },
);

/** A program that keeps one string of each value, and says how many bytes each holds. */
const KEEPING = `
  const { SharedMap } = await import(${JSON.stringify(import.meta.resolve("../../mod.ts"))});
  const map = SharedMap.anonymous();
  const text = (n) => String(n).padStart(60, "abcdefghij");
  const value = (n) => ({ first: text(n), rest: Array.from({ length: 40 }, (_, i) => text(i)) });
  const used = () => {
    globalThis.gc?.();
    globalThis.Bun?.gc(true);
    return process.memoryUsage().heapUsed;
  };
  const keep = (count) => {
    const kept = [];
    for (let n = 0; n < count; n += 1) {
      map.set("key", value(n));
      kept.push(map.get("key").rest[n % 40]);
    }
    return kept;
  };
  keep(2000);
  const before = used();
  const kept = keep(20000);
  console.log((used() - before) / kept.length);
`;

test("a string that is kept holds no more than 256 bytes besides itself", () => {
  const args = HERE === "deno"
    ? ["eval", "--no-check", "--v8-flags=--expose-gc", KEEPING]
    : ["-e", KEEPING];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  const held = Number(stdout.trim().split("\n").at(-1));
  assert.ok(held > 60 && held <= 60 + 256, `${held} ${stderr}`);
});

test("SharedMap tells objects apart whose names differ in any one character", () => {
  const names = ["a", "second", "the third of them", "last"];
  const lists = names.flatMap((name, i) =>
    Array.from(
      name,
      (_, at) => names.with(i, `${name.slice(0, at)}~${name.slice(at + 1)}`),
    )
  );
  const values = [names, ...lists].map((list) =>
    Object.fromEntries(list.map((name, n) => [name, n]))
  );
  // Names that were met this often are compared, and no longer read.
  using map = SharedMap.anonymous<unknown>();
  for (let round = 0; round < 40; round += 1) {
    for (const value of values) assertAlike(map.set("key", value).get("key"), value);
  }
  assertAlike(kept(values), values);
});

test("SharedMap.set() stores what getters gave, also where they use the map", () => {
  using map = SharedMap.anonymous<unknown>();
  const nested = {
    before: "a".repeat(100),
    get inner() {
      map.set("inner", { deep: [{ before: 1 }, "☺".repeat(9000)], list: [1.5, 2.5, 3.5, 4.5] });
      return map.get("inner");
    },
    after: { list: [1, 2, 3] },
  };
  const inner = { deep: [{ before: 1 }, "☺".repeat(9000)], list: [1.5, 2.5, 3.5, 4.5] };
  const wanted = { before: "a".repeat(100), inner, after: { list: [1, 2, 3] } };
  for (let i = 0; i < 1100; i += 1) map.set("outer", nested); // until there is code for it
  assertAlike(map.get("outer"), wanted);
  assertAlike(map.get("inner"), inner);
});

/** What a getter may store while a structure is written: nothing of it is a structure itself. */
const STORED_MEANWHILE: Record<string, (map: SharedMap<unknown>) => unknown> = {
  "a string": (map) => map.set("inner", "inner ".repeat(20)),
  "a number": (map) => map.set("inner", 0.5),
  "a bigint": (map) => map.set("inner", -(2n ** 200n)),
  "bytes": (map) => map.set("inner", new Uint8Array(200).fill(255)),
  "many values": (map) => map.setMany([["inner", "inner ".repeat(20)], ["more", 1]]),
  "what replaces another": (map) => map.set("inner", 1).swap("inner", "inner ".repeat(20)),
  "a sum": (map) => map.set("inner", 1n).increment("inner", 2n ** 100n),
  "a value of 8 MiB": (map) => map.set("inner", "i".repeat(8 * 2 ** 20)).delete("inner"),
};

for (const [what, store] of Object.entries(STORED_MEANWHILE)) {
  test(`SharedMap.set() keeps a structure whole whose getter stores ${what}`, () => {
    using map = SharedMap.anonymous<unknown>();
    const make = () => ({
      before: ["a", 1],
      get now() {
        store(map);
        return "now";
      },
      after: { list: [1, 2, 3], text: "text".repeat(30) },
    });
    const wanted = {
      before: ["a", 1],
      now: "now",
      after: { list: [1, 2, 3], text: "text".repeat(30) },
    };
    for (let i = 0; i < (what.includes("MiB") ? 3 : 1100); i += 1) map.set("outer", make());
    assertAlike(map.get("outer"), wanted);
    map.setMany([["first", make()], ["second", make()]]);
    assertAlike(map.getMany(["first", "second"]), [wanted, structuredClone(wanted)]);
    map.set("outer", 1).swap("outer", make());
    assertAlike(map.get("outer"), wanted);
    using value = SharedValue.anonymous<unknown>();
    value.set(make());
    assertAlike(value.get(), wanted);
  });
}

test("SharedMap.set() keeps no field that a getter deleted or added meanwhile", () => {
  const make = () => ({
    get a() {
      delete (this as { c?: number }).c;
      Object.assign(this, { d: 4 });
      return 1;
    },
    b: 2,
    c: 3 as number | undefined,
  });
  using map = SharedMap.anonymous<unknown>();
  for (let i = 0; i < 1100; i += 1) map.set("warm", { a: 1, b: 2, c: 3 });
  // What the getters do is done again if the first attempt found that the names had changed.
  assertAlike(map.set("key", make()).get("key"), { a: 1, b: 2, d: 4 });
  const shrinking = () => ({
    get a() {
      delete (this as { c?: number }).c;
      return 1;
    },
    b: 2,
    c: 3 as number | undefined,
  });
  assertAlike(map.set("key", shrinking()).get("key"), structuredClone(shrinking()));
});

test("SharedMap tells leaves apart that are alike, and finds those that come twice", () => {
  for (const count of [2, 12, 13, 14, 40, 300, 3000]) {
    for (const make of [() => ({}), () => [], () => ({ a: 1, b: "text" }), () => new Date(7)]) {
      const rows: object[] = Array.from({ length: count }, make);
      assertAlike(kept(rows), rows);
      rows.push(rows[count >> 1]);
      assertAlike(kept({ rows }), { rows });
    }
  }
});

test("SharedMap keeps structures in which every way leads to the same few objects", () => {
  let value: object = { end: 1 };
  for (let i = 0; i < 100; i += 1) value = { left: value, right: value };
  const found = kept(value) as { left: object; right: object };
  assert.equal(found.left, found.right);
});

test("SharedMap keeps objects of more names than are remembered", () => {
  using map = SharedMap.anonymous<unknown>();
  for (let i = 0; i < 20_000; i += 1) {
    const value = { [`name${i}`]: i, [`other${i % 3000}`]: [i], common: "x" };
    assertAlike(map.set("key", value).get("key"), value);
  }
  const rows = Array.from({ length: 5000 }, (_, i) => ({ [`a${i}`]: i }));
  assertAlike(map.set("key", rows).get("key"), rows);
});
