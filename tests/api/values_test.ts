/** Every kind of value, exact, in one process and from one runtime to the other. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import { type Codec, SharedMap } from "../../mod.ts";
import { assertSame, CODECS, corpus, countingBytes, writeCorpus } from "../support/corpus.ts";
import {
  freshMap,
  HERE,
  RUNTIMES,
  scaled,
  startChild,
  startWith,
  thrown,
} from "../support/support.ts";

test("SharedMap.get() returns every value of the corpus as it was set", (t) => {
  const map = freshMap(t);
  for (const [name, value] of corpus()) {
    map.set("key", value);
    assertSame(map.get("key"), value, name);
    assertSame(map.update("other", () => value), value, `update: ${name}`);
    assertSame(map.get("other"), value, `after update: ${name}`);
  }
  assert.equal(map.size, 2);
});

for (const writer of RUNTIMES) {
  for (const reader of RUNTIMES) {
    const title = `SharedMap carries the whole corpus from ${writer} to ${reader}`;
    test(title, { timeout: 60_000 }, async (t) => {
      const map = freshMap(t);
      const [source, target] = await Promise.all(
        [writer, reader].map((runtime) => startWith(t, runtime, map.name)),
      );
      const count = await source.ask("writeCorpus");
      await source.end();
      assert.equal(await target.ask("checkCorpus"), count);
      assert.equal(count, corpus().length);
      await target.end();
    });
  }
}

test("SharedMap.get() returns bytes as a plain Uint8Array, also where a subclass was set", (t) => {
  const map = freshMap<Uint8Array>(t);
  const bytes = countingBytes(40);
  const views = [bytes, bytes.subarray(3, 20), Buffer.from(bytes), Buffer.from(bytes).subarray(1)];
  for (const view of views) {
    const found = map.set("key", view).get("key")!;
    assert.equal(Object.getPrototypeOf(found), Uint8Array.prototype);
    assert.deepEqual([...found], [...view]);
  }
});

test("SharedMap.get() returns a Buffer inside a structure as a plain Uint8Array", (t) => {
  const map = freshMap<{ bytes: Uint8Array }>(t).set("key", { bytes: Buffer.from([1, 2, 3]) });
  const { bytes } = map.get("key")!;
  assert.equal(Object.getPrototypeOf(bytes), Uint8Array.prototype);
  assert.deepEqual(bytes, Uint8Array.of(1, 2, 3));
});

test("SharedMap keeps cycles through maps and sets", (t) => {
  const map = freshMap<unknown>(t);
  const ring = new Map<string, unknown>([["a", 1]]);
  map.set("map", ring.set("self", ring));
  const loop = new Set<unknown>([1]);
  map.set("set", loop.add(loop));
  const found = map.get("map") as typeof ring;
  assert.ok(found instanceof Map && found.get("self") === found && found.get("a") === 1);
  const set = map.get("set") as typeof loop;
  assert.ok(set instanceof Set && set.has(set) && set.has(1) && set.size === 2);
});

test("SharedMap takes bytes over a buffer that is shared, resizable or offset", (t) => {
  const map = freshMap<Uint8Array>(t);
  const resizable = new ArrayBuffer(16, { maxByteLength: 64 });
  for (const buffer of [new SharedArrayBuffer(16), resizable]) {
    const view = new Uint8Array(buffer, 3, 9);
    view.set([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.deepEqual([...map.set("key", view).get("key")!], [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  }
});

/** Byte arrays of ten bytes that say of themselves to have more, fewer, or no number of them. */
function* liars(): Generator<Uint8Array> {
  for (const value of [1_000_000, 64 * 1024, 50, 3, 0, -1, NaN]) {
    yield Object.defineProperty(countingBytes(10), "length", { value });
  }
}

test("SharedMap takes bytes that lie about their length for what they are", (t) => {
  const ten = [...countingBytes(10)];
  const map = freshMap<Uint8Array>(t);
  map.set("key", new Uint8Array(70_000).fill(0xee)); // what a buffer may hold from before
  for (const liar of liars()) {
    assert.deepEqual([...map.set("key", liar).get("key")!], ten, `${liar.length}`);
    map.setMany([["a", liar], ["b", countingBytes(10)]]);
    assert.deepEqual(map.getMany(["a", "b"]).map((bytes) => [...bytes!]), [ten, ten]);
    map.update("key", () => liar);
    assert.deepEqual([...map.get("key")!], ten, `${liar.length}`);
    const codec = {
      id: "liar-test",
      encode: () => liar,
      decode: (bytes: Uint8Array) => [...bytes],
    };
    assert.deepEqual(freshMap<unknown>(t, { codec }).set("key", {}).get("key"), ten);
  }
});

test("SharedMap keeps long strings and bytes of every size around a power of two", (t) => {
  const map = freshMap<string | Uint8Array>(t);
  for (let power = 4; power <= 20; power += 1) {
    for (const length of [2 ** power - 1, 2 ** power, 2 ** power + 1]) {
      const text = "abcdefghij".repeat(Math.ceil(length / 10)).slice(0, length);
      assert.ok(map.set("text", text).get("text") === text, `text of ${length}`);
      const bytes = countingBytes(length);
      assert.deepEqual(map.set("bytes", bytes).get("bytes"), bytes);
    }
  }
});

test("SharedMap keeps keys of every length up to 65,535 bytes", (t) => {
  const map = freshMap<number>(t);
  const lengths = [1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 255, 256, 1000, 4096, 65_534, 65_535];
  const texts = lengths.flatMap((length) => [
    "k".repeat(length),
    "\0".repeat(length),
    "é".repeat(Math.ceil(length / 2)),
    "☺".repeat(Math.ceil(length / 3)),
    "😀".repeat(Math.ceil(length / 4)),
  ]);
  const keys = [...new Set(texts)].filter((key) => Buffer.byteLength(key) <= 65_535);
  keys.forEach((key, i) => map.set(key, i));
  assert.deepEqual(map.getMany(keys), keys.map((_, i) => i));
  assert.deepEqual([...map.keys()].sort(), [...keys].sort());
});

const MEBI = 1 << 20;
/** How many MiB a string has that no buffer was made for in advance. */
const LARGE = Math.max(20, scaled(100));

/** Long strings that take the various ways through the encoder. */
const LONG: [string, () => string][] = [
  ["1 MiB of ASCII", () => "0123456789abcdef".repeat(MEBI / 16)],
  ["1 MiB of Latin-1", () => "é\xffaÀ".repeat(MEBI / 4)],
  ["1 MiB astral", () => "😀a☺é".repeat(MEBI / 8)],
  ["1 MiB ill-formed", () => "a\ud800b\udc00☺".repeat(MEBI / 8)],
  ["ASCII with its only lone surrogate at the end", () => "x".repeat(MEBI) + "\udfff"],
  ["ASCII with its only wide character at the end", () => "x".repeat(MEBI) + "☺"],
  [`${LARGE} MiB of ASCII`, () => "0123456789abcdef".repeat(LARGE * MEBI / 16)],
];

for (const [what, make] of LONG) {
  test(`SharedMap keeps a string of ${what}`, { timeout: 60_000 }, (t) => {
    const map = freshMap<string>(t);
    const text = make();
    map.set("key", text).set("after", "x");
    assert.ok(map.get("key") === text, "the string came back changed");
    assert.ok(map.getMany(["key"])[0] === text, "getMany changed it");
    assert.ok(new Map(map).get("key") === text, "iteration changed it");
    assert.ok(map.toObject().key === text, "toObject changed it");
    assert.equal(map.get("after"), "x");
  });
}

class Point {
  constructor(readonly x = 1) {}
}

/** What the default codec cannot keep; one function each, for some break equality checks. */
const REFUSED: [string, () => unknown][] = [
  ["undefined", () => undefined],
  ["a function", () => () => 1],
  ["a class", () => Point],
  ["a symbol", () => Symbol("s")],
  ["a registered symbol", () => Symbol.for("s")],
  ["a class instance", () => new Point()],
  ["a function inside", () => ({ a: [1, { f: () => 1 }] })],
  ["a method", () => ({ name: "x", go() {} })],
  ["a symbol inside", () => ({ a: [Symbol("s")] })],
  ["a function in a Map", () => new Map([["f", () => 1]])],
  ["a symbol as a Map's key", () => new Map([[Symbol("s"), 1]])],
  ["a function in a Set", () => new Set([() => 1])],
  ["a class instance inside", () => ({ list: [new Point()] })],
  ["a class instance in a Map", () => new Map([["p", new Point()]])],
  ["a promise", () => Promise.resolve(1)],
  ["a WeakMap", () => new WeakMap()],
  ["a WeakRef", () => new WeakRef({})],
  ["a generator", () => (function* () {})()],
  ["an array of a subclass", () => new (class List extends Array {})()],
  ["a Map of a subclass", () => new (class Own extends Map {})()],
];

for (const [what, make] of REFUSED) {
  test(`SharedMap.set() refuses ${what} and the old value stays`, (t) => {
    const map = freshMap(t).set("key", "old");
    const calls: (() => unknown)[] = [
      () => map.set("key", make()),
      () => map.set("new", make()),
      () => map.add("new", make()),
      () => map.getOrInsert("new", make()),
      () => map.getOrInsertComputed("new", make),
      () => map.update("key", make),
      () => map.setMany([["new", 1], ["key", make()]]),
    ];
    for (const call of calls) assert.throws(call, TypeError);
    assert.deepEqual([...map], [["key", "old"]]);
  });
}

/** What earlier versions refused. */
const KEPT: [string, () => unknown][] = [
  ["a __proto__ key", () => JSON.parse('{"__proto__": 1}')],
  ["a __proto__ key inside", () => ({ a: [JSON.parse('{"__proto__": {"b": 1}}')] })],
  ["a lone surrogate inside", () => ({ text: "a\ud800" })],
  ["a lone surrogate in an array", () => ["\udc00"]],
  ["a lone surrogate as a key inside", () => ({ "\ud800": 1 })],
  ["a lone surrogate in a Map's key", () => new Map([["\ud800", 1]])],
  ["a lone surrogate in a Set", () => new Set(["\ud800"])],
  ["a lone surrogate in a long string inside", () => ["x".repeat(70_000) + "\ud800"]],
];

for (const [what, make] of KEPT) {
  test(`SharedMap.set() keeps ${what}, as structuredClone does`, (t) => {
    const map = freshMap(t).set("key", make());
    assertSame(map.get("key"), structuredClone(make()), what);
    assert.deepEqual(shape(map.get("key")), shape(make()));
  });
}

test("SharedMap.set() keeps what has no prototype as an object of this realm", (t) => {
  const map = freshMap(t).set("key", Object.assign(Object.create(null), { a: 1 }));
  assertSame(map.get("key"), { a: 1 }, "a null prototype");
});

test("SharedMap.set() keeps an error of a subclass as the class it extends, under its name", (t) => {
  class Mine extends TypeError {
    override readonly name = "Mine";
    readonly code = "EMINE";
  }
  const error = new Mine("broken", { cause: new Error("why") });
  const found = freshMap(t).set("key", { error }).get("key") as { error: Mine };
  assert.equal(Object.getPrototypeOf(found.error), TypeError.prototype);
  const { name, message, stack, code, cause } = found.error;
  assert.deepEqual([name, message, stack, code], ["Mine", "broken", error.stack, "EMINE"]);
  assertSame(cause, error.cause, "the cause");
  assert.equal((cause as Error).stack, (error.cause as Error).stack);
});

/** Unusual values of which a codec may keep all or nothing. */
const UNUSUAL: [string, () => unknown][] = [
  ["a sparse array", () => [1, , 3]],
  ["an array with a property", () => Object.assign([1, 2], { name: "x" })],
  ["a symbol key", () => ({ a: 1, [Symbol.for("s")]: 2 })],
  ["an inherited property", () => Object.create({ inherited: 1 })],
  ["an invalid date", () => new Date(NaN)],
  ["a boxed number", () => new Number(1)],
  ["a boxed string", () => new String("a")],
  ["a boxed boolean inside", () => ({ b: new Boolean(false) })],
  ["a DataView", () => new DataView(countingBytes(10).buffer, 2, 4)],
  ["an empty array buffer", () => ({ buffer: new ArrayBuffer(0) })],
  ["a shared array buffer", () => new SharedArrayBuffer(4)],
  ["a resizable array buffer", () => new ArrayBuffer(4, { maxByteLength: 8 })],
  ["an error with a cause", () => ({ error: new Error("a", { cause: { b: 1 } }) })],
  ["an error with a property", () => ({ error: Object.assign(new Error("a"), { code: "E" }) })],
  ["an aggregate error", () => ({ error: new AggregateError([new Error("a")], "b") })],
  ["a regular expression that has moved", () => Object.assign(/a/g, { lastIndex: 3 })],
  ["a regular expression with all flags", () => ({ re: /a/dgimsuy })],
  ["a URL", () => new URL("https://example.org/a")],
  ["a date with a property", () => Object.assign(new Date(5), { zone: "UTC" })],
  ["a map with a property", () => Object.assign(new Map([["a", 1]]), { name: "x" })],
  ["a set with a property", () => ({ set: Object.assign(new Set([1]), { name: "x" }) })],
  ["an array of 1e5 undefined", () => Array.from({ length: 1e5 }, () => undefined)],
  [
    "a Map with NaN and objects for keys",
    () => new Map<unknown, number>([[NaN, 1], [{ a: 1 }, 2]]),
  ],
  ["one bytes array twice", () => {
    const b = countingBytes(5);
    return [b, b];
  }],
  ["one date twice", () => {
    const d = new Date(7);
    return { d, e: [d] };
  }],
  ["a key named toJSON", () => ({ toJSON: 1, valueOf: 2, then: 3 })],
  ["microsecond-like dates", () => [new Date(1), new Date(999), new Date(4294967296001)]],
  ["deep nesting", () => {
    let v: unknown = 0;
    for (let i = 0; i < 5000; i += 1) v = [v];
    return v;
  }],
];

/** The own keys at every level, with the class of what they hold: what deepEqual may overlook. */
function shape(value: unknown, seen = new Set<unknown>()): unknown {
  if (typeof value !== "object" || value === null || seen.has(value)) return typeof value;
  seen.add(value);
  const own = Reflect.ownKeys(value).filter((key) =>
    key !== "stack" && key !== "line" &&
    key !== "column" && key !== "sourceURL" && key !== "originalLine" && key !== "originalColumn"
  );
  const inside = ArrayBuffer.isView(value)
    ? []
    : own.map((key) => shape((value as Record<PropertyKey, unknown>)[key], seen));
  return [Object.getPrototypeOf(value)?.constructor?.name, own.map(String), inside];
}

for (const [what, make] of UNUSUAL) {
  test(`SharedMap.set() keeps ${what} whole or refuses it`, (t) => {
    const map = freshMap(t).set("key", "old");
    const value = make();
    try {
      map.set("key", value);
    } catch (error) {
      assert.ok(error instanceof TypeError, `${error}`);
      assert.equal(map.get("key"), "old");
      return;
    }
    assertSame(map.get("key"), value, what);
    assert.deepEqual(shape(map.get("key")), shape(value));
  });
}

test("SharedMap.set() encodes a getter's value at the time of the call, or refuses it", (t) => {
  const map = freshMap<{ n: number }>(t);
  let reads = 0;
  try {
    map.set("key", {
      get n() {
        return reads += 1;
      },
    });
  } catch (error) {
    assert.ok(error instanceof TypeError);
    return;
  }
  assert.deepEqual(map.get("key"), { n: 1 });
  assert.deepEqual(map.get("key"), { n: 1 });
});

test("SharedMap.set() passes on what a getter throws, and the old value stays", (t) => {
  const map = freshMap<unknown>(t).set("key", { old: 1 });
  assert.throws(() =>
    map.set("key", {
      get n() {
        throw new Error("mine");
      },
    })
  );
  assert.deepEqual(map.get("key"), { old: 1 });
  assert.deepEqual(map.set("key", { list: [1, 2] }).get("key"), { list: [1, 2] });
});

test("SharedMap.set() refuses what only looks like bytes, in words of its own", (t) => {
  const values = freshMap<unknown>(t);
  for (const length of [3, 100_000]) {
    const proxy = new Proxy(new Uint8Array(length), {});
    const child = Object.create(Uint8Array.prototype, { length: { value: length } });
    for (const [fake, what] of [[proxy, "a proxy"], [child, "an instance of Uint8Array"]]) {
      const refused = (message: string) => ({ name: "TypeError", message });
      for (const method of ["set", "add", "update"] as const) {
        const value = method === "update" ? () => fake : fake;
        assert.throws(() => values[method]("key", value), refused(`Cannot store ${what}`));
      }
      assert.throws(() => values.set("key", [fake]), refused(`Cannot store ${what} at value[0]`));
      const codec = { id: "fake-test", encode: () => fake, decode: () => 1 };
      const why = 'Cannot store what codec "fake-test" returned: encode must return a Uint8Array';
      assert.throws(() => freshMap<unknown>(t, { codec }).set("key", {}), refused(why));
    }
  }
  assert.equal(values.size, 0);
});

test("SharedMap stores with a codec of another kind, and primitives without it", (t) => {
  const map = freshMap(t, { codec: CODECS.json });
  map.set("object", { a: [1, null, "é☺"] }).set("number", -0).set("bytes", Uint8Array.of(1));
  map.set("bigint", 2n ** 70n).set("text", "\ud800");
  assert.deepEqual(map.get("object"), { a: [1, null, "é☺"] });
  assert.ok(Object.is(map.get("number"), -0));
  assert.deepEqual(map.get("bytes"), Uint8Array.of(1));
  assert.deepEqual([map.get("bigint"), map.get("text")], [2n ** 70n, "\ud800"]);
  assert.deepEqual(map.set("date", new Date(0)).get("date"), "1970-01-01T00:00:00.000Z");
});

test("SharedMap calls a codec with exactly the value, and with exactly its bytes", (t) => {
  const log: unknown[] = [];
  const codec: Codec = {
    id: "log-test",
    encode(value) {
      log.push(["encode", value]);
      return countingBytes(1000).subarray(10, 15);
    },
    decode(bytes) {
      log.push(["decode", [...bytes]]);
      bytes.fill(0); // its own copy: the next reader must not notice
      return { decoded: true };
    },
  };
  const map = freshMap<unknown>(t, { codec });
  const value = { v: 1 };
  map.set("key", value).set("number", 1);
  assert.deepEqual([map.get("key"), map.get("number")], [{ decoded: true }, 1]);
  map.get("key");
  const bytes = [...countingBytes(15).subarray(10)];
  assert.deepEqual(log, [["encode", value], ["decode", bytes], ["decode", bytes]]);
  assert.equal((log[0] as unknown[])[1], value);
});

test('SharedMap.open() with a codec other than the recorded one is "Incompatible"', async (t) => {
  const map = freshMap(t, { codec: CODECS.json }).set("key", { a: 1 });
  const error = thrown("Incompatible", () => SharedMap.open(map.name));
  assert.ok(error.message.includes("json-test"), error.message);
  using same = SharedMap.open(map.name, { codec: CODECS.json });
  assert.deepEqual(same.get("key"), { a: 1 });
  const standard = freshMap(t);
  thrown("Incompatible", () => SharedMap.open(standard.name, { codec: CODECS.json }));
  const child = await startChild(t, HERE);
  const options = { codec: "json" };
  await child.ask("open", { id: "map", name: map.name, options });
  assert.deepEqual(await child.call("get", "key"), { a: 1 });
  const refused = child.ask("open", { id: "other", name: standard.name, options });
  await assert.rejects(refused, { code: "Incompatible" });
});

test("SharedMap.set() throws what a codec throws, or with it as the cause; nothing changes", (t) => {
  const mine = new Error("mine");
  const codec: Codec = {
    id: "throw-test",
    encode: () => {
      throw mine;
    },
    decode: () => 1,
  };
  const map = freshMap<unknown>(t, { codec }).set("key", 1);
  const isMine = (error: unknown) => error === mine || (error as Error).cause === mine;
  assert.throws(() => map.set("key", {}), isMine);
  assert.throws(() => map.setMany([["a", 1], ["key", {}]]), isMine);
  assert.deepEqual([...map], [["key", 1]]);
});

test("SharedMap.set() refuses what a codec returns when it is not a Uint8Array", (t) => {
  for (const garbage of [undefined, null, "text", 7, {}, [1, 2], new ArrayBuffer(4)]) {
    const codec = { id: "garbage-test", encode: () => garbage, decode: () => 1 };
    const map = freshMap<unknown>(t, { codec: codec as unknown as Codec }).set("key", 1);
    assert.throws(() => map.set("key", {}), TypeError, String(garbage));
    assert.deepEqual([...map], [["key", 1]]);
  }
});

test('SharedMap.get() of bytes that do not decode is "Corrupt" with the cause', (t) => {
  const map = freshMap(t, { codec: CODECS.rubbish }).set("bad", { a: 1 }).set("good", 1);
  const reads: (() => unknown)[] = [
    () => map.get("bad"),
    () => map.getMany(["good", "bad"]),
    () => [...map],
    () => [...map.values()],
    () => map.toObject(),
    () => map.update("bad", () => 1),
  ];
  for (const read of reads) {
    const error = thrown("Corrupt", read);
    assert.ok(error.cause instanceof Error, `${error.message}: no cause`);
    assert.ok(error.message.includes("bad") && error.message.includes(map.name), error.message);
  }
  assert.equal(map.has("bad"), true);
  assert.equal(map.get("good"), 1);
  assert.deepEqual([...map.keys()].sort(), ["bad", "good"]);
  assert.deepEqual(map.set("bad", 2).get("bad"), 2);
});

test('SharedMap.get() of bytes the default codec cannot read is "Corrupt" with the cause', (t) => {
  const reference = freshMap(t);
  const standard = idOfDefaultCodec(reference);
  for (
    const bytes of [[], [0xc1], [0xd9], [0xdf, 255, 255, 255, 255], [0x93, 1], [0xdd, 1, 0, 0, 0]]
  ) {
    const codec = { id: standard, encode: () => Uint8Array.from(bytes), decode: () => 1 };
    const writer = freshMap<unknown>(t, { codec });
    writer.set("key", {}).set("good", 1);
    using reader = SharedMap.open(writer.name);
    const error = thrown("Corrupt", () => reader.get("key"));
    assert.ok(error.cause instanceof Error, `${bytes}: no cause`);
    assert.equal(reader.get("good"), 1);
    assert.deepEqual(reader.set("key", { a: 1 }).get("key"), { a: 1 });
  }
});

/** The default codec's id, from the message that refuses another codec. */
function idOfDefaultCodec(map: SharedMap & { name: string }): string {
  const error = thrown("Incompatible", () => SharedMap.open(map.name, { codec: CODECS.json }));
  const quoted = [...error.message.matchAll(/"([^"]+)"/g)].map(([, text]) => text);
  const id = quoted.find((text) => text !== map.name && text !== CODECS.json.id);
  assert.ok(id, `no codec id in: ${error.message}`);
  return id;
}

test("SharedMap holds corpora of many handles without mixing their buffers", (t) => {
  const maps = [freshMap(t), freshMap(t), freshMap(t)];
  for (const map of maps) writeCorpus(map);
  maps.forEach((map, i) => map.set("which", i));
  for (const [name, value] of corpus()) {
    for (const map of maps) assertSame(map.get(name), value, name);
  }
  assert.deepEqual(maps.map((map) => map.get("which")), [0, 1, 2]);
});

test("SharedMap.set() keeps what makes a structure more than plain, wherever in it that is", () => {
  const shared = { leaf: 1 };
  const loop: unknown[] = [];
  loop.push(loop);
  using map = SharedMap.anonymous<Record<string, unknown>>();
  const besides = { twice: [shared, shared], loop, absent: undefined, large: 2n ** 70n };
  for (const [name, value] of Object.entries({ ...besides, date: new Date(0), map: new Map() })) {
    map.set("deep", { plain: { list: [1, "two", null, true, 1.5] }, [name]: value });
    const copy = map.get("deep")!;
    assert.deepEqual(copy.plain, { list: [1, "two", null, true, 1.5] });
    assert.ok(name in copy);
    assert.deepEqual(copy[name], value);
  }
  map.set("twice", { twice: [shared, shared] });
  const [first, second] = map.get("twice")!.twice as object[];
  assert.equal(first, second);
});
