/**
 * The lock of maps and values as one isolate sees it: what it keeps out, in which order its tasks
 * get it, and how a wait ends early. `lock_processes_test.ts` has what takes several processes.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { Lock, Mmap, SharedMap, SharedValue } from "../../mod.ts";
import {
  atEnd,
  freshAnonymous,
  freshMap,
  freshName,
  scaled,
  type TestContext,
  thrown,
  untyped,
} from "../support/support.ts";

const LONG = { timeout: 60_000 };

type Shared = SharedMap | SharedValue;

/** For each kind: two handles of one object, and a write through a handle. */
const KINDS = {
  SharedMap: {
    pair: (t: TestContext): [Shared, Shared] => pairOf(t, SharedMap),
    write: (object: Shared) => void (object as SharedMap).set("key", 1),
  },
  SharedValue: {
    pair: (t: TestContext): [Shared, Shared] => pairOf(t, SharedValue),
    write: (object: Shared) => void (object as SharedValue).set(1),
  },
};

function pairOf(t: TestContext, kind: typeof SharedMap | typeof SharedValue): [Shared, Shared] {
  const first = kind.anonymous();
  const second = kind.attach(first.token);
  atEnd(t, () => [first, second].forEach((object) => object.close()));
  return [first, second];
}

/** Notes in `order` what each promise came to, as it comes to it. */
function watch(order: string[], name: string, promise: Promise<Lock>): Promise<Lock | undefined> {
  return promise.then((lock) => {
    order.push(name);
    return lock;
  }, (error) => {
    order.push(`${name}: ${error?.code ?? error?.name ?? error}`);
    return undefined;
  });
}

/** Lets what is settled be noticed, without giving timers their time. */
async function settle(): Promise<void> {
  for (let i = 0; i < 10; i += 1) await Promise.resolve();
}

for (const [kind, { pair, write }] of Object.entries(KINDS)) {
  test(`${kind}.lock() gives a Lock, and locked is true for every handle until unlock`, (t) => {
    const [first, second] = pair(t);
    assert.deepEqual([first.locked, second.locked], [false, false]);
    const lock = first.lock();
    assert.ok(lock instanceof Lock);
    assert.equal(lock.recovered, false);
    assert.deepEqual([first.locked, second.locked], [true, true]);
    lock.unlock();
    assert.deepEqual([first.locked, second.locked], [false, false]);
  });

  test(`${kind}.lock() is undone at the end of a using scope, and by an error in it`, (t) => {
    const [first, second] = pair(t);
    assert.throws(() => {
      using _lock = first.lock();
      assert.equal(second.locked, true);
      throw new Error("inside");
    }, /inside/);
    assert.equal(second.locked, false);
  });

  test(`${kind}: Lock.unlock() twice does not unlock a later lock`, (t) => {
    const [first] = pair(t);
    const lock = first.lock();
    lock.unlock();
    const later = first.lock();
    lock.unlock();
    lock[Symbol.dispose]();
    assert.equal(first.locked, true);
    later.unlock();
    assert.equal(first.locked, false);
  });

  test(`${kind}.tryLock() is undefined while any handle has the lock`, (t) => {
    const [first, second] = pair(t);
    const lock = first.tryLock();
    assert.ok(lock instanceof Lock);
    assert.deepEqual([first.tryLock(), second.tryLock()], [undefined, undefined]);
    lock.unlock();
    const other = second.tryLock();
    assert.equal(first.tryLock(), undefined);
    other!.unlock();
  });

  test(`${kind}.lock() is "Locked" at once where this isolate has the lock`, (t) => {
    const [first, second] = pair(t);
    using _lock = first.lock();
    for (const object of [first, second]) {
      const error = thrown("Locked", () => object.lock({ timeout: Infinity }));
      assert.match(error.message, /^Cannot lock anonymous (map|value): this thread holds its lock/);
    }
  });

  test(`${kind}: writes go through the handle that has the lock, and no other`, (t) => {
    const [first, second] = pair(t);
    const lock = first.lock();
    write(first);
    const error = thrown("Locked", () => write(second));
    assert.match(error.message, /^Cannot (write|set) anonymous (map|value): this thread holds/);
    lock.unlock();
    write(second);
    using _other = second.lock();
    thrown("Locked", () => write(first));
    write(second);
  });

  test(`${kind}.close() unlocks, and the next holder finds nothing to recover`, (t) => {
    const [first, second] = pair(t);
    const lock = first.lock();
    first.close();
    assert.equal(second.locked, false);
    using next = second.lock();
    assert.equal(next.recovered, false);
    lock.unlock();
    assert.equal(second.locked, true, "a lock of a closed handle unlocked another's");
    write(second);
  });

  test(`${kind}: after close every call about the lock is "Closed"`, async (t) => {
    const [first] = pair(t);
    first.lock().unlock();
    first.close();
    thrown("Closed", () => first.lock());
    thrown("Closed", () => first.tryLock());
    thrown("Closed", () => first.locked);
    await assert.rejects(first.lockAsync(), { code: "Closed" });
  });

  test(`${kind}: a read-only handle takes no lock and sees it`, async (t) => {
    const [first] = pair(t);
    const open = first instanceof SharedMap ? SharedMap : SharedValue;
    using reader = open.attach(first.token, { readonly: true });
    for (const isHeld of [false, true]) {
      thrown("ReadOnly", () => reader.lock());
      thrown("ReadOnly", () => reader.tryLock());
      await assert.rejects(reader.lockAsync(), { code: "ReadOnly" });
      assert.equal(reader.locked, isHeld);
      if (!isHeld) first.lock();
    }
  });

  test(`${kind}.lockAsync() gives the lock to tasks in the order they asked`, LONG, async (t) => {
    const [first, second] = pair(t);
    const order: number[] = [];
    let inside = 0;
    const handles = [first, second, first, first, second, second, first, second];
    await Promise.all(handles.map(async (object, i) => {
      using _lock = await object.lockAsync();
      inside += 1;
      assert.equal(inside, 1, "two tasks have the lock at once");
      await new Promise((resolve) => setTimeout(resolve, i % 3));
      write(object);
      order.push(i);
      inside -= 1;
    }));
    assert.deepEqual(order, handles.map((_, i) => i));
    assert.equal(first.locked, false);
  });

  test(`${kind}.lockAsync() of a free lock takes it at once`, async (t) => {
    const [first, second] = pair(t);
    const promise = first.lockAsync();
    assert.equal(second.locked, true);
    thrown("Locked", () => write(second));
    (await promise).unlock();
    write(second);
  });

  test(`${kind}.lockAsync() passes a lock on when it is unlocked, not later`, async (t) => {
    const [first, second] = pair(t);
    const order: string[] = [];
    const lock = first.lock();
    const waits = [first, second].map((object, i) => watch(order, `${i}`, object.lockAsync()));
    await settle();
    assert.deepEqual(order, []);
    lock.unlock();
    await settle();
    assert.deepEqual(order, ["0"]);
    (await waits[0])!.unlock();
    await settle();
    assert.deepEqual(order, ["0", "1"]);
    (await waits[1])!.unlock();
  });

  test(`${kind}.lockAsync() ends by its signal, wherever in line`, LONG, async (t) => {
    for (const gone of [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2], [0, 2]]) {
      const [first, second] = pair(t);
      const order: string[] = [];
      const lock = first.lock();
      const controllers = [0, 1, 2].map(() => new AbortController());
      const waits = controllers.map(({ signal }, i) =>
        watch(order, `${i}`, [second, first, second][i].lockAsync({ signal }))
      );
      for (const i of gone) controllers[i].abort(`reason ${i}`);
      await settle();
      assert.deepEqual(order, gone.map((i) => `${i}: reason ${i}`));
      lock.unlock();
      for (const i of [0, 1, 2]) (await waits[i])?.unlock();
      const rest = [0, 1, 2].filter((i) => !gone.includes(i)).map(String);
      assert.deepEqual(order.slice(gone.length), rest);
      for (const controller of controllers) controller.abort();
      assert.equal(first.locked, false);
    }
  });

  test(`${kind}.lockAsync() ends at its deadline, wherever in line`, LONG, async (t) => {
    const [first, second] = pair(t);
    const order: string[] = [];
    const lock = first.lock();
    const timeouts = [25, 1000_000, 5, 2 ** 40, 15, 0];
    const waits = timeouts.map((timeout, i) =>
      watch(order, `${i}`, (i % 2 ? first : second).lockAsync({ timeout }))
    );
    await waits[0];
    assert.deepEqual(order, ["5: Timeout", "2: Timeout", "4: Timeout", "0: Timeout"]);
    lock.unlock();
    (await waits[1])!.unlock();
    (await waits[3])!.unlock();
    assert.deepEqual(order.slice(4), ["1", "3"]);
  });
}

test("SharedMap: every write through another handle is Locked, and changes nothing", (t) => {
  const map = freshMap<number>(t).set("a", 1);
  using other = SharedMap.open<number>(map.name);
  using _lock = other.lock();
  let runs = 0;
  const writes: Record<string, () => unknown> = {
    set: () => map.set("a", 2),
    large: () => (map as SharedMap).set("a", new Uint8Array(100_000)),
    add: () => map.add("b", 2),
    getOrInsert: () => map.getOrInsert("b", 2),
    getOrInsertComputed: () => map.getOrInsertComputed("b", () => 2),
    update: () => map.update("a", () => runs += 1),
    delete: () => map.delete("a"),
    clear: () => map.clear(),
    setMany: () => map.setMany([["a", 2], ["b", 2]]),
    repair: () => map.repair(),
  };
  for (const [name, task] of Object.entries(writes)) {
    const error = thrown("Locked", task);
    assert.ok(error.message.includes(`map "${map.name}"`), `${name}: ${error.message}`);
    assert.equal(error.stored, name === "setMany" ? 0 : undefined);
  }
  assert.equal(runs, 0);
  assert.deepEqual(map.toObject(), { a: 1 });
});

test("SharedMap.update() is Locked where fn has locked through another handle", (t) => {
  const map = freshMap<number>(t).set("a", 1);
  using other = SharedMap.open<number>(map.name);
  const update = () =>
    map.update("a", () => {
      other.lock();
      return 2;
    });
  thrown("Locked", update);
  assert.equal(map.get("a"), 1);
});

test("SharedMap: reads through another handle go on during a lock", (t) => {
  const map = freshMap<number>(t).set("a", 1);
  using other = SharedMap.open<number>(map.name);
  using _lock = other.lock();
  assert.deepEqual([map.get("a"), map.has("a"), map.size, map.getMany(["a"])], [1, true, 1, [1]]);
  assert.deepEqual([[...map], map.toObject(), map.verify().ok], [[["a", 1]], { a: 1 }, true]);
  assert.deepEqual([map.getOrInsert("a", 2), map.stats().entries], [1, 1]);
});

test("SharedMap: locks of different maps are nothing to each other", (t) => {
  const [one, two] = [freshAnonymous(t), freshAnonymous(t)];
  using _first = one.lock();
  using _second = two.lock();
  one.set("a", 1);
  two.set("a", 1);
  using other = SharedMap.attach(two.token);
  thrown("Locked", () => other.set("a", 2));
});

test("SharedMap: a lock belongs to what a handle has open, not to its name", (t) => {
  const map = freshMap(t);
  using _lock = map.lock();
  using fresh = SharedMap.open(map.name, { mode: "exclusive" });
  assert.equal(fresh.locked, false);
  fresh.set("a", 1);
  fresh.lock().unlock();
});

test('SharedMap: a lock of a replaced map is unlocked as ever, and a new one "Replaced"', (t) => {
  const map = freshMap(t);
  const lock = map.lock();
  using _fresh = SharedMap.open(map.name, { mode: "exclusive" });
  lock.unlock();
  thrown("Replaced", () => map.lock());
});

test("SharedMap.lock() refuses what is no options object", async (t) => {
  const map = freshAnonymous(t);
  for (const options of [null, 0, 1, "100", true, Symbol("x"), () => {}]) {
    assert.throws(() => map.lock(untyped(options)), TypeError, String(options));
    await assert.rejects(map.lockAsync(untyped(options)), TypeError);
  }
  for (const timeout of ["1", null, {}, 1n, true]) {
    assert.throws(() => map.lock({ timeout: untyped(timeout) }), TypeError, String(timeout));
    await assert.rejects(map.lockAsync({ timeout: untyped(timeout) }), TypeError);
  }
  for (const timeout of [-1, NaN, -Infinity, -1e-9]) {
    assert.throws(() => map.lock({ timeout }), RangeError, String(timeout));
    await assert.rejects(map.lockAsync({ timeout }), RangeError);
  }
  // What only looks like a signal could fail once it stands in line, and keep others from the lock.
  const lookalike = { aborted: false, addEventListener: () => {} };
  const wrong = [null, 1, "abort", {}, new AbortController(), new EventTarget(), lookalike];
  wrong.push(Object.create(AbortSignal.prototype, { aborted: { value: false } }));
  wrong.push(new Proxy(new AbortController().signal, {}));
  for (const signal of wrong) {
    await assert.rejects(map.lockAsync({ signal: untyped(signal) }), TypeError);
  }
  assert.equal(map.locked, false);
});

test("Lock cannot be constructed", () => {
  for (const given of [undefined, {}, 1]) {
    assert.throws(() => new (untyped(Lock))(given), { name: "TypeError", message: /lockAsync/ });
  }
});

test("SharedMap.lockAsync() with an aborted signal takes nothing", async (t) => {
  const map = freshAnonymous(t);
  const reason = new Error("enough");
  const liar = Object.defineProperty(AbortSignal.abort(reason), "aborted", { value: false });
  for (const signal of [AbortSignal.abort(reason), liar]) {
    const promise = map.lockAsync({ signal });
    assert.equal(map.locked, false);
    await assert.rejects(promise, (error) => error === reason);
  }
});

for (const method of ["addEventListener", "removeEventListener"]) {
  test(`SharedMap.lockAsync() heeds a signal, not the ${method} it has of its own`, async (t) => {
    const map = freshAnonymous(t);
    const controller = new AbortController();
    const get = () => assert.fail("called");
    const signal = Object.defineProperty(controller.signal, method, { get });
    const lock = map.lock();
    const granted = map.lockAsync({ signal });
    const aborted = map.lockAsync({ signal });
    lock.unlock();
    const reason = new Error("enough");
    controller.abort(reason);
    await assert.rejects(aborted, (error) => error === reason);
    (await granted).unlock();
    await assert.rejects(map.lockAsync({ signal }), (error) => error === reason);
    assert.equal(map.locked, false);
  });
}

test("SharedMap.lockAsync() is not undone by an abort after it was granted", async (t) => {
  const map = freshAnonymous(t);
  const { signal, ...controller } = withAbort();
  const lock = map.lock();
  const promise = map.lockAsync({ signal });
  lock.unlock(); // grants it, before any code has seen the promise settle
  controller.abort();
  const granted = await promise;
  assert.equal(map.locked, true);
  granted.unlock();
  assert.equal(map.locked, false);
});

function withAbort(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort() };
}

test("SharedMap.lockAsync() rejects with the reason of AbortSignal.timeout()", LONG, async (t) => {
  const map = freshAnonymous(t);
  using _lock = map.lock();
  const promise = map.lockAsync({ signal: AbortSignal.timeout(5) });
  await assert.rejects(promise, { name: "TimeoutError" });
});

test("SharedMap.lockAsync() waits as long as the handle says, and names the holder", async (t) => {
  const name = freshName(t);
  using map = SharedMap.open(name, { timeout: 30 });
  const lock = map.lock();
  const { pid } = process;
  for (const [timeout, waited] of [[undefined, 30], [10, 10], [0, 0]]) {
    await assert.rejects(map.lockAsync({ timeout }), {
      code: "Timeout",
      message: `Cannot lock map "${name}": it is locked by process ${pid}, waited ${waited} ms`,
    });
  }
  lock.unlock();
});

test("SharedMap.close() ends the waits of its handle, and the others' go on", LONG, async (t) => {
  const map = freshMap(t);
  const other = SharedMap.open(map.name);
  atEnd(t, () => other.close());
  const order: string[] = [];
  const lock = map.lock();
  const waits = [other, map, other, map].map((object, i) =>
    watch(order, `${i}`, object.lockAsync())
  );
  other.close();
  await settle();
  assert.deepEqual(order, ["0: Closed", "2: Closed"]);
  lock.unlock();
  (await waits[1])!.unlock();
  (await waits[3])!.unlock();
  assert.deepEqual(order.slice(2), ["1", "3"]);
});

test("SharedMap.close() of the holder gives the lock to the next in line", LONG, async (t) => {
  const map = freshMap(t);
  using other = SharedMap.open(map.name);
  const order: string[] = [];
  const lock = map.lock();
  const waits = [map, other].map((object, i) => watch(order, `${i}`, object.lockAsync()));
  map.close();
  const next = await waits[1];
  assert.deepEqual(order, ["0: Closed", "1"]);
  assert.equal(next!.recovered, false);
  lock.unlock();
  assert.equal(other.locked, true);
  next!.unlock();
});

test("SharedMap.lock() and tryLock() beside a line of tasks", LONG, async (t) => {
  const map = freshMap(t);
  using other = SharedMap.open(map.name);
  const order: string[] = [];
  const lock = map.lock();
  const waits = [map, other].map((object, i) => watch(order, `${i}`, object.lockAsync()));
  await settle();
  lock.unlock(); // the first task has it now, although it has not run yet
  assert.equal(other.tryLock(), undefined);
  thrown("Locked", () => other.lock());
  const first = await waits[0];
  first!.unlock();
  assert.equal(map.tryLock(), undefined);
  (await waits[1])!.unlock();
  map.tryLock()!.unlock();
  assert.deepEqual(order, ["0", "1"]);
});

test("Mmap.lockAsync() lets shared locks in together, in the order they asked", async (t) => {
  const first = Mmap.anonymous(100);
  const [second, third] = [Mmap.attach(first.token), Mmap.attach(first.token)];
  atEnd(t, () => [first, second, third].forEach((region) => region.close()));
  const order: string[] = [];
  const lock = first.lock({ shared: true });
  second.lock({ shared: true }).unlock();
  thrown("Locked", () => second.lock());
  const controller = new AbortController();
  const { signal } = controller;
  const waits = [
    watch(order, "exclusive", second.lockAsync({ signal })),
    watch(order, "shared", third.lockAsync({ shared: true })),
    watch(order, "exclusive 2", second.lockAsync()),
  ];
  await settle();
  assert.deepEqual(order, [], "a shared lock overtook an exclusive one");
  controller.abort("gone");
  await settle();
  assert.deepEqual(order, ["exclusive: gone", "shared"]);
  lock.unlock();
  await settle();
  assert.equal(order.length, 2);
  (await waits[1])!.unlock();
  (await waits[2])!.unlock();
  assert.deepEqual(order.slice(2), ["exclusive 2"]);
});

/** How often each of twenty tasks takes the lock. */
const TURNS = scaled(500);

test(
  `SharedMap.lockAsync(): ${20 * TURNS} turns through one lock leave nothing behind`,
  LONG,
  async (t) => {
    const map = freshAnonymous<number>(t).set("n", 0);
    using other = SharedMap.attach<number>(map.token);
    await Promise.all(Array.from({ length: 20 }, async (_, task) => {
      const handle = task % 2 ? map : other;
      for (let i = 0; i < TURNS; i += 1) {
        using _lock = await handle.lockAsync();
        handle.set("n", handle.get("n")! + 1);
      }
    }));
    assert.equal(map.get("n"), 20 * TURNS);
    assert.equal(map.locked, false);
  },
);

test("SharedMap.set() is Locked where the codec has locked through another handle", (t) => {
  const locks: Lock[] = [];
  const codec = {
    id: "locking",
    encode(value: unknown) {
      locks.push(other.lock());
      return new TextEncoder().encode(JSON.stringify(value));
    },
    decode: (bytes: Uint8Array) => JSON.parse(new TextDecoder().decode(bytes)),
  };
  const map = freshAnonymous(t, { codec });
  using other = SharedMap.attach(map.token, { codec });
  thrown("Locked", () => map.set("a", {}));
  locks.pop()!.unlock();
  assert.equal(map.size, 0);
});

test("lockAsync() whose listening fails leaves no place in line behind", async (t) => {
  const map = freshAnonymous(t);
  const lock = map.lock();
  // Deno takes it for an option of every listener, and fails.
  Object.defineProperty(Object.prototype, "signal", { configurable: true, value: {} });
  const { signal } = new AbortController();
  let waiting: Promise<Lock>;
  try {
    waiting = map.lockAsync({ signal });
  } finally {
    delete (Object.prototype as { signal?: unknown }).signal;
  }
  const ended = waiting.then(
    (later) => later.unlock(),
    (error) => assert.match(error.message, /signal cannot be heard/),
  );
  lock.unlock();
  await ended;
  assert.equal(map.locked, false);
  map.lock().unlock();
});
