/**
 * The lock between processes of both runtimes and between threads: its holder is alone, other
 * lockers wait or get an error that names it, and a holder's death shows to the next locker, once.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedMap, SharedValue } from "../../mod.ts";
import {
  assertSound,
  atEnd,
  type Child,
  divided,
  freshMap,
  freshName,
  HERE,
  NEEDS,
  pause,
  runtimeOf,
  RUNTIMES,
  startChild,
  startMany,
  startWith,
  type TestContext,
  testUnless,
  THERE,
  thrown,
  until,
  withSeed,
} from "../support/support.ts";
import type { Way } from "../support/lock_tasks.ts";
import { Thread } from "../support/thread.ts";
import { STOP } from "../support/tasks.ts";

const LONG = { timeout: 120_000 };
const WAYS: readonly Way[] = ["lock", "lockAsync", "tryLock"];
const MODES = ["robust", "kernel"] as const;
const KINDS = { map: SharedMap, value: SharedValue };

async function startThread(t: TestContext, map: SharedMap): Promise<Thread> {
  const thread = new Thread(t);
  await thread.ask("attach", { token: map.token });
  return thread;
}

for (const lock of MODES) {
  const mode = `lock: "${lock}"`;
  const none = lock === "robust" ? NEEDS.robustMutexes : undefined;

  for (const runtime of RUNTIMES) {
    testUnless(
      none,
      `Lock keeps out a process in ${runtime}, and says so (${mode})`,
      LONG,
      async (t) => {
        for (const kind of ["map", "value"] as const) {
          const name = freshName(t);
          using object = KINDS[kind].open(name, { lock, timeout: 20 });
          const child = await startWith(t, runtime, name, { timeout: 20 }, kind);
          await child.ask("lock", { id: "map" });
          assert.equal(object.locked, true);
          assert.equal(object.tryLock(), undefined);
          const by = `${kind} "${name}": it is locked by process ${child.pid}`;
          const set = object instanceof SharedMap ? "write" : "set";
          const waits: [string, () => unknown][] = [
            [`Cannot lock ${by}, waited 30 ms`, () => object.lock({ timeout: 30 })],
            [`Cannot lock ${by}, waited 20 ms`, () => object.lock()],
            [`Cannot lock ${by}, waited 0 ms`, () => object.lock({ timeout: 0 })],
            [`Cannot ${set} ${by}, waited 20 ms`, () => write(object)],
          ];
          if (object instanceof SharedMap) {
            waits.push([`Cannot clear ${by}, waited 20 ms`, () => object.clear()]);
          } else waits.push([`Cannot update ${by}, waited 20 ms`, () => object.update(() => 2)]);
          for (const [message, task] of waits) {
            assert.equal(thrown("Timeout", task).message, message);
          }
          await assert.rejects(object.lockAsync({ timeout: 30 }), {
            code: "Timeout",
            message: `Cannot lock ${by}, waited 30 ms`,
          });
          await child.ask("unlock");
          assert.equal(object.locked, false);
          write(object);
          const own = await object.lockAsync();
          assert.equal(own.recovered, false);
          assert.equal(await child.ask("tryLock", { id: "map" }), null);
          await assert.rejects(child.ask("lock", { id: "map" }), { code: "Timeout" });
          own.unlock();
        }
      },
    );

    testUnless(
      none,
      `Lock.recovered tells of a killed holder in ${runtime}, once (${mode})`,
      LONG,
      async (t) => {
        const child = await startChild(t, runtime);
        const all = (["map", "value"] as const).flatMap((kind) =>
          WAYS.map((way) => {
            const object = KINDS[kind].open(freshName(t), { lock });
            atEnd(t, () => object.close());
            return { kind, way, object, id: `${kind} ${way}` };
          })
        );
        for (const { kind, object: { name }, id } of all) {
          await child.ask("open", { id, kind, name });
          await child.ask("lock", { id, as: id });
        }
        assert.ok(all.every(({ object }) => object.locked));
        await child.kill();
        for (const { way, object, id } of all) {
          await until("the end of the lock", () => !object.locked);
          const first = await object[way]();
          assert.equal(first!.recovered, true, id);
          first!.unlock();
          const second = await object[way]();
          assert.equal(second!.recovered, false, `${id} again`);
          second!.unlock();
        }
      },
    );

    testUnless(
      none,
      `Lock.recovered is false after an orderly end in ${runtime} (${mode})`,
      LONG,
      async (t) => {
        const map = freshMap(t, { lock });
        const child = await startWith(t, runtime, map.name);
        const endings: (() => Promise<unknown>)[] = [
          () => child.ask("unlock"),
          () => child.ask("close", { id: "map" }),
          () => child.end(),
        ];
        for (const end of endings) {
          await child.ask("open", { id: "map", name: map.name });
          await child.ask("lock", { id: "map" });
          await end();
          const next = map.lock();
          assert.equal(next.recovered, false);
          next.unlock();
        }
      },
    );
  }

  testUnless(
    none,
    `Lock: writes and locks wait for the holder's unlock (${mode})`,
    LONG,
    async (t) => {
      const map = freshMap<number>(t, { lock, timeout: 20_000 });
      const child = await startWith(t, THERE, map.name);
      const waits: Record<string, () => unknown> = {
        set: () => map.set("a", 1),
        update: () => map.update("a", () => 2),
        delete: () => map.delete("a"),
        setMany: () => map.setMany([["a", 1], ["b", 2]]),
        clear: () => map.clear(),
        repair: () => map.repair(),
        lock: () => map.lock().unlock(),
      };
      for (const [name, task] of Object.entries(waits)) {
        await child.ask("lockFor", { ms: 250 }); // an answer may take a while
        assert.equal(map.locked, true);
        const start = performance.now();
        assert.deepEqual(map.getMany(["a"]).length, 1);
        task();
        assert.equal(map.locked, false, name);
        assert.ok(performance.now() - start >= 20, `${name} did not wait`);
      }
    },
  );

  testUnless(none, `Lock lets one process in at a time (${mode})`, LONG, async (t) => {
    const map = freshMap<number>(t, { lock, timeout: 60_000 });
    const children = await startMany(t, 4, map.name, { timeout: 60_000 });
    for (const way of WAYS) {
      map.clear();
      const times = divided(way === "tryLock" ? 100 : 1000);
      const results = await Promise.all(
        children.map((child) => child.ask("pairs", { id: "map", way, times })),
      );
      assert.ok(results.every(({ recoveries }) => recoveries === 0), way);
      assert.deepEqual(map.getMany(["left", "right"]), [4 * times, 4 * times], way);
    }
  });

  testUnless(
    none,
    `Lock: no write of others comes between two of the holder's (${mode})`,
    LONG,
    async (t) => {
      const map = freshMap(t, { lock });
      const children = await startMany(t, 4, map.name, { timeout: 60_000 });
      const writers = children.slice(0, 2).map((child, owner) => child.ask("scribble", { owner }));
      const times = divided(300);
      await Promise.all([
        children[2].ask("guard", { way: "lock", times }),
        children[3].ask("guard", { way: "lockAsync", times }),
      ]);
      map.set(STOP, 1);
      const counts = await Promise.all(writers);
      assert.ok(counts.every((count) => count > 0), `${counts}`);
    },
  );
}

for (const how of ["signal", "timeout", "close"] as const) {
  const title = `lockAsync() that ends by its ${how} leaves its place to other processes`;
  test(title, LONG, async (t) => {
    const map = freshMap(t);
    const waiting = SharedMap.open(map.name);
    const [holder, next] = await startMany(t, 2, map.name);
    await holder.ask("lock", { id: "map" });
    const controller = new AbortController();
    const wait = waiting.lockAsync({
      signal: controller.signal,
      timeout: how === "timeout" ? 60 : Infinity,
    });
    const isRejected = assert.rejects(wait);
    await pause(50); // by now it is first in line
    if (how === "signal") controller.abort();
    if (how === "close") waiting.close();
    await isRejected;
    await holder.ask("unlock");
    assert.deepEqual(await next.ask("tryLock", { id: "map" }), { recovered: false });
    waiting.close();
  });
}

test("lock() does not wait for a task of its isolate that is first in line", LONG, async (t) => {
  const map = freshMap(t);
  using other = SharedMap.open(map.name);
  const child = await startWith(t, THERE, map.name);
  let shortest = Infinity;
  for (let round = 0; round < 5; round += 1) {
    await child.ask("lockFor", { ms: 60 });
    const start = performance.now();
    const wait = other.lockAsync();
    await pause(30); // by now it is first in line
    map.lock().unlock();
    shortest = Math.min(shortest, performance.now() - start);
    (await wait).unlock();
  }
  assert.ok(shortest < 130, `${shortest} ms`); // 100 ms more where others think it stopped
});

test("tryLock() does not overtake a task that waits for another process", LONG, async (t) => {
  const map = freshMap(t);
  using other = SharedMap.open(map.name);
  const child = await startWith(t, THERE, map.name);
  await child.ask("lockFor", { ms: 20 });
  const wait = map.lockAsync();
  while (map.locked); // so that no timer comes in between
  assert.deepEqual([map.tryLock(), other.tryLock()], [undefined, undefined]);
  (await wait).unlock();
  other.tryLock()!.unlock();
});

test("lockAsync() gets its turn beside a process that locks again at once", LONG, async (t) => {
  const map = freshMap<number>(t);
  const child = await startWith(t, THERE, map.name);
  const work = child.ask("hog");
  await until("the first section", () => map.locked);
  for (let turn = 0; turn < 20; turn += 1) {
    using lock = await map.lockAsync({ timeout: 3000 });
    assert.equal(lock.recovered, false);
  }
  map.set(STOP, 1);
  assert.ok(await work > 0);
});

/** Kills a child in the middle of its sections; gives how many it had begun. */
async function killInSection(child: Child, ms: number): Promise<number> {
  await until("the first section", () => child.tail.length > 0);
  await pause(ms);
  await child.kill();
  return child.tail.length;
}

for (const lock of MODES) {
  const kills = divided(lock === "robust" ? 40 : 16);
  const title = `Lock survives ${kills} kills of its holders (lock: "${lock}")`;
  const none = lock === "robust" ? NEEDS.robustMutexes : undefined;
  testUnless(none, title, { timeout: 300_000 }, async (t) => {
    await withSeed(async (random) => {
      const map = freshMap<number>(t, { lock, timeout: 60_000 });
      const options = { timeout: 60_000 };
      const survivors = await Promise.all([
        startWith(t, HERE, map.name, options),
        startWith(t, THERE, map.name, options),
      ]);
      const work = [
        survivors[0].ask("pairs", { way: "lock" }),
        survivors[1].ask("pairs", { way: "lockAsync" }),
      ];
      let begun = 0;
      for (let kill = 0; kill < kills; kill += 1) {
        const child = await startWith(t, runtimeOf(kill), map.name, options);
        child.send("pairs", { way: WAYS[random(2)], dots: true });
        begun += await killInSection(child, random(20));
      }
      const last = map.lock({ timeout: 60_000 });
      if (last.recovered) map.set("left", map.get("left")!).set("right", map.get("left")!);
      map.set(STOP, 1);
      last.unlock();
      const results = await Promise.all(work);
      const sections = results.reduce((sum, result) => sum + result.sections, 0);
      const recoveries = results.reduce((sum, result) => sum + result.recoveries, 0);
      assert.ok(recoveries <= kills, `${recoveries} recoveries after ${kills} kills`);
      const [left, right] = map.getMany(["left", "right"]) as number[];
      assert.equal(left, right);
      const [most, least] = [sections + begun, sections + begun - kills];
      assert.ok(left >= least && left <= most, `${left} sections, ${least} to ${most} were done`);
      assertSound(map);
      t.diagnostic(`${left} sections, ${recoveries} of ${kills} kills left a lock to survivors`);
    });
  });
}

test("Lock keeps threads of one process apart", LONG, async (t) => {
  const map = freshMap<number>(t, { timeout: 60_000 });
  const threads = await Promise.all([0, 1, 2].map(() => startThread(t, map)));
  await threads[0].ask("lock");
  assert.equal(map.tryLock(), undefined);
  assert.equal(await threads[1].ask("tryLock"), false);
  thrown("Timeout", () => map.lock({ timeout: 20 }));
  const own = map.lockAsync();
  await threads[0].ask("unlock");
  (await own).unlock();
  const times = divided(500);
  await Promise.all(threads.map((thread, i) =>
    thread.ask("task", {
      task: "pairs",
      way: (["lock", "lockAsync", "lock"] as const)[i],
      times,
    })
  ));
  assert.deepEqual(map.getMany(["left", "right"]), [3 * times, 3 * times]);
});

for (
  const [ending, end] of Object.entries({
    "close()": (thread: Thread) => thread.ask("end"),
    "terminate()": (thread: Thread) => thread.terminate(),
  })
) {
  test(`Lock.recovered is true after ${ending} of a Worker that held it`, LONG, async (t) => {
    const map = freshMap(t);
    const thread = await startThread(t, map);
    assert.equal(await thread.ask("lock"), false);
    thrown("Timeout", () => map.lock({ timeout: 20 }));
    end(thread);
    await until("the end of the lock", () => !map.locked);
    using lock = map.lock();
    assert.equal(lock.recovered, true);
    map.set("a", 1);
  });
}

for (const runtime of RUNTIMES) {
  test(`Lock outlives the garbage collection of its handle in ${runtime}`, LONG, async (t) => {
    const map = freshMap(t);
    const permissions = ["--allow-ffi", "--v8-flags=--expose-gc"];
    const child = await startChild(t, runtime, { permissions });
    await child.ask("open", { id: "map", name: map.name });
    await child.ask("lock", { id: "map" });
    await child.ask("forget", { id: "map" });
    await child.ask("forgetLock");
    for (let i = 0; i < 3; i += 1) await child.ask("collect");
    assert.equal(map.locked, true);
    await child.kill();
    await until("the end of the lock", () => !map.locked);
    assert.equal(map.lock().recovered, true);
  });

  test(`lockAsync() keeps its handle while it waits in ${runtime}`, LONG, async (t) => {
    const map = freshMap(t);
    const permissions = ["--allow-ffi", "--v8-flags=--expose-gc"];
    const child = await startChild(t, runtime, { permissions });
    await child.ask("open", { id: "map", name: map.name });
    const lock = map.lock();
    await child.ask("joinLine", { id: "map" });
    await child.ask("forget", { id: "map" });
    for (let i = 0; i < 3; i += 1) await child.ask("collect");
    lock.unlock();
    assert.deepEqual(await child.ask("leaveLine"), { recovered: false });
    assert.equal(map.locked, true);
    await child.ask("unlock");
    assert.equal(map.locked, false);
  });

  test(`A forgotten handle without a lock is closed in ${runtime}`, LONG, async (t) => {
    const map = freshMap(t);
    const permissions = ["--allow-ffi", "--v8-flags=--expose-gc"];
    const child = await startChild(t, runtime, { permissions });
    await child.ask("open", { id: "map", name: map.name });
    await child.ask("lock", { id: "map" });
    await child.ask("unlock");
    using reader = SharedMap.open(map.name, { readonly: true });
    map.close(); // where only a reader can tell, the writers are to be others
    assert.equal(reader.stats().hasOtherWriters, true);
    await child.ask("forget", { id: "map" });
    await child.ask("forgetLock");
    await until("the collection", async () => {
      await child.ask("collect");
      return !reader.stats().hasOtherWriters;
    });
  });

  test(`lockAsync(): 1,000 tasks in ${runtime} wait for another process`, LONG, async (t) => {
    const map = freshMap<number>(t);
    const child = await startChild(t, runtime, { permissions: ["-A"] });
    await child.ask("open", { id: "map", name: map.name });
    const lock = map.lock();
    const tasks = 1000;
    const { idle, waiting } = await child.ask("crowdIn", { tasks, ms: 200 + divided(300) });
    assert.equal(map.get("arrivals"), undefined);
    lock.unlock();
    const order = await child.ask("crowdOut");
    assert.deepEqual(order, Array.from({ length: tasks }, (_, i) => i));
    assert.equal(map.get("arrivals"), tasks);
    assert.ok(waiting.cpu - idle.cpu < 0.5, `${waiting.cpu} of a core, ${idle.cpu} without`);
    const share = (cpu: number) => `${(100 * cpu).toFixed(2)} %`;
    t.diagnostic(
      `${runtime}: ${share(idle.cpu)} of a core idle, ${
        share(waiting.cpu)
      } with ${tasks} waiting; ` +
        `a file is read in ${idle.fileMs.toFixed(2)} ms and ${waiting.fileMs.toFixed(2)} ms`,
    );
  });
}

function write(object: SharedMap | SharedValue): void {
  if (object instanceof SharedMap) object.set("key", 1);
  else object.set(1);
}
