/** `SharedValue`: one value as a whole, in one process; what `seed_value_test.ts` does not say. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as module from "../../mod.ts";
import { SharedMap, SharedValue } from "../../mod.ts";
import { CODECS } from "../support/corpus.ts";
import {
  atEnd,
  freshDirectory,
  freshMap,
  freshName,
  freshValue,
  RUNTIMES,
  startWith,
  type TestContext,
  thrown,
  untyped,
} from "../support/support.ts";

const LONG = { timeout: 60_000 };

/** A value without a name, and another handle on it. */
function pair<T>(
  t: TestContext,
  options: Parameters<typeof SharedValue.anonymous>[0] = {},
): [SharedValue<T>, SharedValue<T>] {
  const first = SharedValue.anonymous<T>(options);
  const second = SharedValue.attach<T>(first.token, { codec: options.codec });
  atEnd(t, () => [first, second].forEach((value) => value.close()));
  return [first, second];
}

const PRIMITIVES: unknown[] = [
  0,
  -0,
  NaN,
  -Infinity,
  135,
  1e300,
  "",
  "text",
  "ä€𝄞",
  "\ud800",
  "x".repeat(100_000),
  "€".repeat(50_000),
  0n,
  -(2n ** 63n),
  2n ** 1000n,
  true,
  false,
  null,
];

test("SharedValue.get() returns every kind of value, at once through every handle", (t) => {
  const structures = [{ a: [1, { b: new Date(5) }] }, [], {}, new Map([[{}, new Set([1])]])];
  const bytes = [new Uint8Array(0), Uint8Array.of(1, 2), new Uint8Array(200_000).fill(7)];
  const [value, other] = pair(t);
  for (const stored of [...PRIMITIVES, ...structures, ...bytes, ...PRIMITIVES]) {
    value.set(stored);
    for (let i = 0; i < 3; i += 1) {
      for (const handle of [value, other]) {
        assert.deepEqual(handle.get(), stored);
        assert.ok(Object.is(handle.get(), stored) || typeof stored === "object" && stored);
      }
    }
  }
});

test("SharedValue.get() sees each of two handles' sets by turns", (t) => {
  const [value, other] = pair<unknown>(t);
  for (let i = 0; i < 200; i += 1) {
    const stored = i % 3 === 0 ? { i } : i % 3 === 1 ? i : `text ${i}`;
    (i % 2 ? value : other).set(stored);
    assert.deepEqual([value.get(), other.get()], [stored, stored]);
  }
});

test("SharedValue.version grows with each set, through any handle, and by nothing else", (t) => {
  const [value, other] = pair<unknown>(t);
  let version = value.version;
  for (const handle of [value, other, value]) {
    for (const stored of [1, 1, { a: 1 }, new Uint8Array(100_000)]) {
      handle.set(stored);
      assert.ok(handle.version > version, `${handle.version} after ${version}`);
      version = handle.version;
      value.get();
      other.get();
      assert.throws(() => value.set(undefined), TypeError);
      value.lock().unlock();
      assert.deepEqual([value.version, other.version], [version, version]);
    }
  }
});

test("SharedValue with frozen hands out one deeply frozen object while it is unchanged", (t) => {
  const [value] = pair<unknown>(t);
  using frozen = SharedValue.attach<unknown>(value.token, { frozen: true });
  const cycle: Record<string, unknown> = { list: [1, "a", null, [true, 1n]], empty: {} };
  cycle.self = cycle;
  for (const stored of [{ a: { b: [1, { c: 2 }] } }, [[[]]], {}, cycle]) {
    value.set(stored);
    const object = frozen.get();
    assert.deepEqual(object, stored);
    assert.equal(frozen.get(), object);
    assertDeeplyFrozen(object, new Set());
    assert.notEqual(value.get(), value.get());
  }
  value.set({ a: 1 });
  const before = frozen.get();
  value.set({ a: 1 });
  assert.notEqual(frozen.get(), before, "the same object for another version");
  value.set(5);
  assert.equal(frozen.get(), 5);
});

function assertDeeplyFrozen(object: unknown, seen: Set<unknown>): void {
  if (typeof object !== "object" || object === null || seen.has(object)) return;
  seen.add(object);
  assert.ok(Object.isFrozen(object));
  for (const member of Object.values(object)) assertDeeplyFrozen(member, seen);
}

test("SharedValue with frozen still copies what freezing would not protect", (t) => {
  const [value] = pair<unknown>(t);
  using frozen = SharedValue.attach<unknown>(value.token, { frozen: true });
  const inside = [new Date(1), new Map(), new Set([1]), Uint8Array.of(1), /x/, new Error("e")];
  for (const part of inside) {
    for (const stored of [part, [part], { first: {}, part }]) {
      value.set(stored);
      const [one, two] = [frozen.get(), frozen.get()] as object[];
      assert.notEqual(one, two, String(part));
      assert.equal(Object.isFrozen(one), false, String(part));
      if (Array.isArray(one)) one.push(1);
      assert.deepEqual(two, stored);
    }
  }
});

test("SharedValue with frozen and a codec of one's own keeps no class instances", () => {
  class Point {
    x = 1;
  }
  const decoded: unknown[] = [new Point(), { point: new Point() }, { call: () => 1 }, [
    new Point(),
  ]];
  for (const object of decoded) {
    const codec = { id: "own", encode: () => Uint8Array.of(1), decode: () => object };
    using value = SharedValue.anonymous<unknown>({ codec, frozen: true });
    value.set({});
    assert.equal(value.get(), object);
    assert.equal(Object.isFrozen(object), false);
  }
});

test("SharedValue.update() stores what fn returns, and returns it", (t) => {
  const [value, other] = pair<number>(t);
  const seen: unknown[] = [];
  assert.equal(value.update((current) => (seen.push(current), 1)), 1);
  assert.equal(other.update((current) => (seen.push(current), current! + 1)), 2);
  assert.deepEqual([seen, value.get(), other.get()], [[undefined, 1], 2, 2]);
  assert.deepEqual([value.locked, other.locked], [false, false]);
});

test("SharedValue.update() gives fn a copy of its own, with frozen too", () => {
  for (const frozen of [false, true]) {
    using value = SharedValue.anonymous<{ list: number[] }>({ frozen });
    value.set({ list: [1] });
    const before = value.get();
    value.update((current) => {
      current!.list.push(2);
      return current!;
    });
    assert.deepEqual([before, value.get()], [{ list: [1] }, { list: [1, 2] }]);
    assert.throws(() =>
      value.update((current) => {
        current!.list.length = 0;
        throw new Error("no");
      }), /no/);
    assert.deepEqual(value.get(), { list: [1, 2] });
  }
});

test("SharedValue.update() that fails changes nothing and holds nothing", async (t) => {
  const [value, other] = pair<unknown>(t, { maxBytes: 1000 });
  value.set("before");
  const { version } = value;
  const failing: [(current: unknown) => unknown, object | RegExp][] = [
    [() => {
      throw new Error("fn");
    }, /^Error: fn$/],
    [() => undefined, TypeError],
    [() => () => 1, TypeError],
    [() => Promise.resolve(1), /promise/],
    [async () => await 1, /promise/],
    [() => ({ then() {} }), /promise/],
    [() => "x".repeat(1001), { code: "TooLarge" }],
  ];
  for (const [fn, expected] of failing) {
    assert.throws(() => value.update(fn), expected, String(fn));
    assert.deepEqual([value.get(), value.version, value.locked], ["before", version, false]);
  }
  for (const fn of [undefined, null, 1, "f", {}]) {
    assert.throws(() => value.update(untyped(fn)), TypeError);
  }
  (await other.lockAsync()).unlock();
});

test('SharedValue.update() inside its own fn is "Locked", with a lock of the caller too', (t) => {
  const [value, other] = pair<number>(t);
  value.set(1);
  for (const isHeld of [false, true]) {
    const lock = isHeld ? value.lock() : undefined;
    value.update((current) => {
      thrown("Locked", () => value.update(() => 9));
      thrown("Locked", () => other.update(() => 9));
      thrown("Locked", () => other.set(9));
      thrown("Locked", () => value.lock());
      assert.equal(value.tryLock(), undefined);
      assert.equal(other.get(), current);
      return current! + 1;
    });
    assert.equal(value.locked, isHeld);
    lock?.unlock();
  }
  assert.equal(value.get(), 3);
});

test(
  "SharedValue.update() lets tasks that wait for the lock have it afterwards",
  LONG,
  async (t) => {
    const [value, other] = pair<number>(t);
    let granted: Promise<unknown> | undefined;
    value.update(() => {
      granted = Promise.all([value, other].map(async (handle) => {
        using _lock = await handle.lockAsync();
        handle.set(handle.get()! + 1);
      }));
      return 1;
    });
    await granted;
    assert.equal(value.get(), 3);
  },
);

test("SharedValue.update() in which fn closes the value stores nothing", (t) => {
  const [value, other] = pair<number>(t);
  value.set(1);
  thrown("Closed", () =>
    value.update(() => {
      value.close();
      return 2;
    }));
  assert.deepEqual([other.get(), other.locked], [1, false]);
});

for (const runtime of RUNTIMES) {
  const title = `SharedValue.update() passes on the death of a holder in ${runtime}`;
  test(title, LONG, async (t) => {
    const value = freshValue<number>(t);
    const child = await startWith(t, runtime, value.name, {}, "value");
    await child.ask("lock", { id: "map" });
    await child.kill();
    value.update((current = 0) => current + 1);
    value.update((current) => current! + 1);
    const first = value.lock();
    assert.equal(first.recovered, true);
    value.update((current) => current! + 1);
    first.unlock();
    value.update((current) => current! + 1);
    assert.equal(value.lock().recovered, false);
    assert.equal(value.get(), 4);
  });
}

test("SharedValue: after close every call is Closed", (t) => {
  const [value] = pair(t);
  value.set(1);
  assert.equal(value.get(), 1);
  value.close();
  value.close();
  const calls = [
    () => value.get(),
    () => value.set(1),
    () => value.update(() => 1),
    () => value.version,
    () => value.name,
    () => value.token,
    () => value.stats(),
    () => value.unlink(),
    () => value.locked,
  ];
  for (const call of calls) thrown("Closed", call);
  assert.match(thrown("Closed", calls[1]).message, /^Cannot set anonymous value: it is closed$/);
});

test("SharedValue opened read-only reads, and writes nothing", (t) => {
  const value = freshValue<number>(t);
  value.set(1);
  using reader = SharedValue.open<number>(value.name, { readonly: true });
  assert.deepEqual([reader.get(), reader.version], [1, value.version]);
  for (const call of [() => reader.set(2), () => reader.update(() => 2), () => reader.unlink()]) {
    thrown("ReadOnly", call);
  }
  value.set(2);
  assert.equal(reader.get(), 2);
});

test("SharedValue and SharedMap do not open each other", (t) => {
  const [map, value] = [freshMap(t), freshValue(t)];
  map.set("a", 1);
  value.set(1);
  const asValue = thrown("Incompatible", () => SharedValue.open(map.name));
  assert.match(asValue.message, /^Cannot open value ".*": it is a map, wanted a value$/);
  const asMap = thrown("Incompatible", () => SharedMap.open(value.name));
  assert.match(asMap.message, /^Cannot open map ".*": it is a value, wanted a map$/);
  for (const mode of ["create", "attach", "exclusive"] as const) {
    const isMap = mode === "create" ? /there is one already/ : /it is a map, wanted a value$/;
    assert.throws(() => SharedValue.open(map.name, { mode }), { message: isMap });
    const isValue = mode === "create" ? /there is one already/ : /it is a value, wanted a map$/;
    assert.throws(() => SharedMap.open(value.name, { mode }), { message: isValue });
  }
  const mapLeft = thrown("Incompatible", () => SharedValue.unlink(map.name));
  assert.match(mapLeft.message, /^Cannot unlink value ".*": it is a map, wanted a value$/);
  const valueLeft = thrown("Incompatible", () => SharedMap.unlink(value.name));
  assert.match(valueLeft.message, /^Cannot unlink map ".*": it is a value, wanted a map$/);
  thrown("Incompatible", () => SharedValue.attach(map.token));
  assert.deepEqual([map.get("a"), value.get()], [1, 1]);
});

test("SharedValue.open() has the modes of maps", (t) => {
  const name = freshName(t, "value");
  thrown("NotFound", () => SharedValue.open(name, { mode: "attach" }));
  using first = SharedValue.open<number>(name, { mode: "create" });
  thrown("Exists", () => SharedValue.open(name, { mode: "create" }));
  first.set(1);
  using second = SharedValue.open<number>(name);
  assert.deepEqual([first.name, second.get()], [name, 1]);
  using fresh = SharedValue.open<number>(name, { mode: "exclusive" });
  assert.equal(fresh.get(), undefined);
  thrown("Replaced", () => first.get());
  thrown("Replaced", () => second.set(1));
  assert.equal(fresh.unlink(), true);
  assert.equal(SharedValue.unlink(name), false);
});

test("SharedValue.list() says that it is a value", (t) => {
  const directory = freshDirectory(t);
  using value = SharedValue.open("one", { directory });
  using _map = SharedMap.open("two", { directory });
  const found = (): Record<string, unknown> =>
    Object.fromEntries(
      SharedValue.list({ directory }).map(({ name, kind, entries, inUse, locked }) => [
        name,
        { kind, entries, inUse, locked },
      ]),
    );
  value.set(1);
  using _lock = value.lock();
  assert.deepEqual(found(), {
    one: { kind: "value", entries: 1, inUse: true, locked: true },
    two: { kind: "map", entries: 0, inUse: true, locked: false },
  });
  assert.deepEqual(SharedMap.list({ directory }), SharedValue.list({ directory }));
});

test("SharedValue checks its options before anything is made", (t) => {
  const name = freshName(t, "value");
  for (const frozen of [null, 1, "true", {}]) {
    assert.throws(() => SharedValue.open(name, { frozen: untyped(frozen) }), TypeError);
    assert.throws(() => SharedValue.anonymous({ frozen: untyped(frozen) }), TypeError);
  }
  for (const options of [null, 1, "x"]) {
    assert.throws(() => SharedValue.open(name, untyped(options)), TypeError);
  }
  for (const maxBytes of [0, -1, 1.5, NaN]) {
    assert.throws(() => SharedValue.open(name, { maxBytes }), RangeError);
  }
  thrown("NotFound", () => SharedValue.open(name, { mode: "attach" }));
});

test("SharedValue and SharedMap read each option once, so that a getter cannot change it", (t) => {
  for (const kind of [SharedValue, SharedMap]) {
    const name = freshName(t, "value");
    let reads = 0;
    const options = {
      get codec() {
        if (++reads > 1) throw new Error("read twice");
        return CODECS.json;
      },
    };
    kind.open(name, options).close();
    assert.equal(reads, 1);
  }
});

test("SharedValue and SharedMap read a codec's id once, before anything is written", (t) => {
  for (const kind of [SharedValue, SharedMap]) {
    const [name, other] = [freshName(t, "value"), freshMap(t)];
    let reads = 0;
    const hijack = () => (other.has("x".repeat(name.length)), "again");
    const codec = Object.defineProperty({ ...CODECS.json }, "id", {
      get: () => ++reads > 1 ? { length: 1, toString: hijack } : "once",
    });
    using object = kind.open(name, { codec });
    const hasName = kind.unlink(name);
    object.unlink(); // by whichever name the object took
    assert.deepEqual([reads, hasName], [1, true]);
  }
});

test("SharedValue.set() stores nothing of a call that fails inside of it", (t) => {
  const [value] = pair<unknown>(t);
  const map = freshMap(t);
  const given = {
    get x() {
      assert.throws(() => map.set("", "garbage"), TypeError);
      return 1;
    },
  };
  value.set(given);
  assert.deepEqual(value.get(), { x: 1 });
  value.update(() => given);
  assert.deepEqual(value.get(), { x: 1 });
});

test("SharedValue.open() takes -0 for 0", (t) => {
  const value = SharedValue.open(freshName(t, "value"), { permissions: -0, timeout: -0 });
  value.lock({ timeout: -0 }).unlock();
  value.close();
});

test("SharedValue takes bytes that lie about their length for what they are", (t) => {
  const [value] = pair<Uint8Array>(t);
  for (const length of [1_000_000, 50, 3, -1, NaN]) {
    const liar = Object.defineProperty(new Uint8Array([1, 2, 3, 4]), "length", { value: length });
    value.set(liar);
    assert.deepEqual([...value.get()!], [1, 2, 3, 4], `${length}`);
  }
});

test('SharedValue with another maxBytes or codec is "Incompatible"', (t) => {
  const value = freshValue<unknown>(t, { maxBytes: 1000, codec: CODECS.json });
  value.set({ a: 1 });
  thrown("Incompatible", () => SharedValue.open(value.name, { codec: CODECS.json, maxBytes: 999 }));
  thrown("Incompatible", () => SharedValue.open(value.name, { maxBytes: 1000 }));
  using same = SharedValue.open(value.name, { maxBytes: 1000, codec: CODECS.json });
  using any = SharedValue.open(value.name, { codec: CODECS.json });
  assert.deepEqual([same.get(), any.get()], [{ a: 1 }, { a: 1 }]);
  assert.equal(any.stats().maxBytes, 1000);
  thrown("TooLarge", () => any.set("x".repeat(1001)));
});

test("SharedValue cannot be constructed, and shows no property of its own", (t) => {
  const construct = untyped(SharedValue);
  assert.throws(() => new construct({}), { name: "TypeError", message: /SharedValue: use open/ });
  const [value] = pair(t);
  assert.deepEqual(Object.keys(value), []);
  assert.ok("SharedValue" in module && "Lock" in module);
});

test("SharedValue: its memory does not grow with the number of sets", (t) => {
  const value = freshValue<unknown>(t);
  const sizes = [10, 3000, 200_000, 50];
  for (let i = 0; i < 50; i += 1) value.set("x".repeat(sizes[i % 4]));
  const { allocated } = value.stats();
  for (let i = 0; i < 2000; i += 1) value.set("x".repeat(sizes[i % 4]));
  assert.ok(value.stats().allocated <= allocated + 1_000_000, `${value.stats().allocated}`);
  assert.equal(value.stats().entries, 1);
});
