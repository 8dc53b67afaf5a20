/**
 * The behaviour of the Perl modules IPC::Mmap::Share and IPC::Mmap::SimpleShare, case by case, by
 * the numbers of the list these cases were collected in: `new(size)` is `SharedValue.anonymous()`,
 * with the size as `maxBytes` where it matters; `lock` and `unlock` are a `Lock`.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Lock, SharedValue } from "../../mod.ts";
import {
  atEnd,
  type Child,
  divided,
  freshValue,
  isArgumentError,
  lentChild,
  pause,
  runtimeOf,
  RUNTIMES,
  startMany,
  startWith,
  type TestContext,
  thrown,
  until,
  untyped,
  withSeed,
} from "../support/support.ts";
import type { Raise, Tally } from "../support/lock_tasks.ts";

const LONG = { timeout: 120_000 };

function fresh<T = unknown>(t: TestContext, maxBytes?: number): SharedValue<T> {
  const value = SharedValue.anonymous<T>({ maxBytes });
  atEnd(t, () => value.close());
  return value;
}

// C-01, that the module loads, is A-01: here there is one module.

test("C-02 anonymous() gives an instance of SharedValue", (t) => {
  assert.ok(fresh(t, 100) instanceof SharedValue);
});

test("C-03 get() returns what was set", (t) => {
  const value = fresh(t, 100);
  value.set(135);
  assert.equal(value.get(), 135);
});

test("C-04 lock and unlock succeed", (t) => {
  const lock = fresh(t).lock();
  assert.ok(lock instanceof Lock);
  assert.equal(lock.unlock(), undefined);
});

test("C-05 close() succeeds", (t) => {
  assert.equal(fresh(t).close(), undefined);
});

for (const runtime of RUNTIMES) {
  test(`C-10 a child in ${runtime} sets a structure, and its parent gets it`, LONG, async (t) => {
    const value = fresh(t, 10_000);
    const child = await lentChild(t, runtime);
    await child.ask("attach", { id: "map", kind: "value", token: value.token });
    await child.call("set", { a: 1, b: [1, 2, 3] });
    assert.deepEqual(value.get(), { a: 1, b: [1, 2, 3] });
    value.set(new Map([["c", 1n]]));
    assert.equal(await child.ask("property", { property: "version" }), value.version);
  });
}

test("C-11 set() takes primitives and structures alike", (t) => {
  const value = fresh(t);
  for (const stored of ["text", 1.5, true, [1], { a: { b: [] } }, new Map([[1, new Date(0)]])]) {
    value.set(stored);
    assert.deepEqual(value.get(), stored);
  }
});

// The seed must be told a size. Here none is needed, and one that cannot be is refused.
test("C-12 anonymous() needs no size, and refuses one of 0", (t) => {
  assert.equal(fresh(t).get(), undefined);
  assert.throws(() => SharedValue.anonymous({ maxBytes: 0 }), RangeError);
  assert.throws(() => SharedValue.anonymous(untyped(100)), TypeError);
});

test("C-13 set() of undefined is a TypeError; null is a value", (t) => {
  const value = fresh(t);
  assert.throws(() => value.set(undefined), { name: "TypeError", message: /undefined/ });
  assert.throws(() => untyped(value).set(), { name: "TypeError", message: /undefined/ });
  assert.equal(value.version, 0);
  value.set(null);
  assert.equal(value.get(), null);
  assert.throws(() => value.set(undefined), TypeError);
  assert.equal(value.get(), null);
});

test("C-14 set() stores 0, an empty string and false", (t) => {
  const value = fresh(t);
  for (const stored of [0, "", "0", false]) {
    value.set(stored);
    assert.equal(value.get(), stored);
  }
});

test("C-15 set() of two values is a TypeError, and stores neither", (t) => {
  const value = fresh(t);
  assert.throws(() => untyped(value).set(1, 2), { name: "TypeError", message: /2 values/ });
  assert.throws(() => untyped(value).set(1, undefined), TypeError);
  assert.equal(value.get(), undefined);
});

test("C-16 set() of an array stores all of it", (t) => {
  const value = fresh(t);
  value.set([1, [2], 3]);
  assert.deepEqual(value.get(), [1, [2], 3]);
});

test("C-17 set() of more than maxBytes names the size needed, and the old value stays", (t) => {
  const value = freshValue<unknown>(t, { maxBytes: 1000 });
  for (const before of ["before", { a: 1 }, undefined]) {
    if (before !== undefined) value.set(before);
    const { version } = value;
    for (const stored of ["x".repeat(1234), new Uint8Array(1234), new Uint8Array(70_000)]) {
      const needed = stored.length;
      assert.equal(
        thrown("TooLarge", () => value.set(stored)).message,
        `Cannot set value "${value.name}": it needs ${needed} bytes, maxBytes is 1000; ` +
          `try a maxBytes of at least ${needed}`,
      );
    }
    const error = thrown("TooLarge", () => value.update(() => Array(2000).fill(1)));
    const needed = Number(/at least (\d+)$/.exec(error.message)![1]);
    using enough = SharedValue.anonymous<unknown>({ maxBytes: needed });
    enough.set(Array(2000).fill(1));
    assert.deepEqual([value.get(), value.version], [before ?? { a: 1 }, version]);
  }
});

test("C-18 set() of exactly maxBytes is accepted", (t) => {
  const value = fresh(t, 1000);
  for (const stored of ["x".repeat(1000), new Uint8Array(1000).fill(1), "€".repeat(333)]) {
    value.set(stored);
    assert.deepEqual(value.get(), stored);
  }
  thrown("TooLarge", () => value.set("x".repeat(1001)));
});

// The seed needs 24 bytes for a number of three digits.
test("C-19 a number takes 8 bytes of maxBytes, a string of ASCII a byte each", (t) => {
  const value = fresh(t, 8);
  value.set(135);
  value.set("12345678");
  value.set(2n ** 60n);
  assert.equal(value.get(), 2n ** 60n);
  thrown("TooLarge", () => fresh(t, 7).set(135));
});

test("C-20 without maxBytes a value grows as it must, through every handle", (t) => {
  const value = fresh<string>(t);
  using other = SharedValue.attach<string>(value.token);
  for (const length of [1, 1000, 1_000_000, 20_000_000, 3]) {
    value.set("x".repeat(length));
    assert.equal(other.get()!.length, length);
  }
});

test("C-21 and C-26 before any set get() is undefined, and locked is false", (t) => {
  const value = fresh(t);
  using other = SharedValue.attach(value.token);
  assert.equal(value.locked, false);
  assert.deepEqual([value.get(), other.get(), value.version], [undefined, undefined, 0]);
  assert.equal(value.locked, false);
});

test("C-22 get() gives a copy: changing it changes nothing", (t) => {
  const value = fresh<{ list: number[] } | Uint8Array>(t);
  value.set({ list: [1] });
  const [one, two] = [value.get(), value.get()] as { list: number[] }[];
  assert.notEqual(one, two);
  one.list.push(2);
  assert.deepEqual(value.get(), { list: [1] });
  value.set(Uint8Array.of(1, 2));
  const bytes = value.get() as Uint8Array;
  bytes[0] = 9;
  assert.deepEqual(value.get(), Uint8Array.of(1, 2));
});

test("C-23 set() of a shorter value leaves nothing of a longer one", (t) => {
  const value = fresh(t);
  for (const stored of ["x".repeat(5000), "short", "", "x".repeat(70_000), "y"]) {
    value.set(stored);
    assert.equal(value.get(), stored);
  }
});

test("C-24 get() and set() work under a lock of the same handle, and keep it", (t) => {
  const value = fresh<number>(t);
  using other = SharedValue.attach<number>(value.token);
  value.set(1);
  const lock = value.lock();
  value.set(value.get()! + 1);
  assert.equal(value.update((current) => current! + 1), 3);
  assert.throws(() => value.update(() => assert.fail("fn")), /fn/);
  assert.equal(other.locked, true);
  thrown("Locked", () => other.set(9));
  thrown("Locked", () => other.update(() => 9));
  lock.unlock();
  assert.equal(other.get(), 3);
  assert.equal(other.update((current) => current! + 1), 4);
});

const WAYS: readonly Raise[] = ["lock", "lockAsync", "update"];

/** Four processes, the runtimes by turns, that wait as long as it takes. */
function startFour(t: TestContext, name: string): Promise<Child[]> {
  return startMany(t, 4, name, { timeout: 60_000 }, "value");
}

test("C-24 blocks of several processes are atomic as a whole", LONG, async (t) => {
  const value = freshValue<Tally>(t, { timeout: 60_000 });
  const children = await startFour(t, value.name);
  const times = divided(300);
  for (const how of WAYS) {
    value.set({ total: 0, by: {} });
    await Promise.all(
      children.map((child, i) => child.ask("tally", { id: "map", how, times, worker: `${i}` })),
    );
    const { total, by } = value.get()!;
    assert.deepEqual(Object.values(by), [times, times, times, times], how);
    assert.equal(total, 4 * times, how);
  }
});

test(`C-25 four processes count to 2,000, and by ${4 * divided(10_000)} more`, LONG, async (t) => {
  const value = freshValue<number>(t, { timeout: 60_000 });
  const children = await startFour(t, value.name);
  for (const how of WAYS) {
    value.set(0);
    let total = 0;
    for (const times of [500, divided(10_000)]) {
      await Promise.all(children.map((child) => child.ask("count", { id: "map", how, times })));
      total += 4 * times;
      assert.deepEqual([value.get(), value.locked], [total, false], how);
    }
  }
});

for (const how of WAYS) {
  const kills = divided(12);
  test(`C-25 ${kills} processes killed while they count by ${how}`, LONG, async (t) => {
    await withSeed((random) => countAndKill(t, how, kills, () => random(40)));
  });
}

/**
 * Workers print a dot before each count. What a killed one has counted is all of its dots, or all
 * but the last; what survivors have counted is exact; the total is the sum.
 */
async function countAndKill(
  t: TestContext,
  how: Raise,
  kills: number,
  pauseMs: () => number,
): Promise<void> {
  const value = freshValue<Tally>(t, { timeout: 60_000 });
  const survivors = await startMany(t, 2, value.name, { timeout: 60_000 }, "value");
  const start = (child: Child, worker: string) =>
    child.send("tally", { id: "map", how, times: 1e9, worker });
  const work = survivors.map((child, i) => start(child, `survivor ${i}`));
  const victims = new Map<string, Child>();
  for (let kill = 0; kill < kills; kill += 1) {
    const options = { timeout: 60_000 };
    const child = await startWith(t, runtimeOf(kill), value.name, options, "value");
    victims.set(`victim ${kill}`, child);
    start(child, `victim ${kill}`);
    await until("the first count", () => child.tail.length > 0);
    await pause(pauseMs());
    await child.kill();
  }
  value.update((old) => ({ ...old!, isOver: true }));
  const counts = await Promise.all(work);
  const { total, by } = value.get()!;
  for (const [worker, child] of victims) {
    const [counted, begun] = [by[worker] ?? 0, child.tail.length];
    assert.ok(counted === begun || counted === begun - 1, `${worker}: ${counted} of ${begun}`);
  }
  assert.deepEqual([by["survivor 0"], by["survivor 1"]], counts);
  assert.equal(Object.values(by).reduce((sum, count) => sum + count), total);
  value.lock().unlock();
  t.diagnostic(`${total} counts, ${counts} of survivors, ${kills} kills`);
}

for (const runtime of RUNTIMES) {
  test(`C-25b a child's lock() in ${runtime} waits for its parent's unlock`, LONG, async (t) => {
    const value = freshValue<string>(t, { timeout: 20_000 });
    const child = await startWith(t, runtime, value.name, { timeout: 20_000 }, "value");
    const lock = value.lock();
    let isWaiting = true;
    const wait = child.send("lock", { id: "map" }).finally(() => isWaiting = false);
    await pause(100);
    value.set("the parent was here");
    assert.equal(isWaiting, true);
    lock.unlock();
    await wait;
    assert.equal(value.locked, true);
    assert.equal(await child.call("get"), "the parent was here");
    await child.ask("unlock");
  });
}

test("C-27 closing a locked value unlocks it", (t) => {
  const value = fresh(t);
  using other = SharedValue.attach(value.token);
  value.lock();
  assert.equal(other.locked, true);
  value[Symbol.dispose]();
  assert.equal(other.locked, false);
  assert.equal(other.lock().recovered, false);
});

// `get_size` and the accessors of the seed's inner object; its `is_locked` is `locked`.
test("C-28 stats() tells the sizes, and locked the lock", (t) => {
  const value = fresh(t, 5000);
  value.set("x".repeat(4000));
  const { maxBytes, allocated, entries } = value.stats();
  assert.deepEqual([maxBytes, entries], [5000, 1]);
  assert.ok(allocated >= 4000 && allocated < 2 ** 20, `${allocated}`);
  using _lock = value.lock();
  assert.equal(value.locked, true);
});

// C-29 is about two versions of the seed that do not fit together: here there is one module.
test("C-29 a value of this version opens in this version, in every runtime", LONG, async (t) => {
  const value = freshValue<unknown>(t);
  value.set({ a: [1, new Date(0)] });
  for (const runtime of RUNTIMES) {
    const child = await startWith(t, runtime, value.name, {}, "value");
    assert.deepEqual(await child.call("get"), { a: [1, new Date(0).toISOString()] });
  }
});

test("C-30 an error between lock and unlock leaves no lock behind", (t) => {
  const value = fresh<unknown>(t, 100);
  value.set("before");
  const refused: [unknown, (error: unknown) => boolean][] = [
    [() => {}, isArgumentError],
    [undefined, isArgumentError],
    ["x".repeat(101), (error) => (error as { code?: string }).code === "TooLarge"],
  ];
  for (const [stored, isExpected] of refused) {
    assert.throws(() => value.update(() => stored), isExpected);
    assert.throws(() => {
      using _lock = value.lock();
      value.set(stored);
    }, isExpected);
    assert.deepEqual([value.locked, value.get()], [false, "before"]);
  }
});
