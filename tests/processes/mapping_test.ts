/** Mappings that grow, many of them in one process, and processes that may map little. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { freemem } from "node:os";
import { test } from "node:test";
import {
  assertSound,
  atEnd,
  CHILDREN,
  freshDirectory,
  freshMap,
  inSmallTmpfs,
  NEEDS,
  refusesTmpfs,
  removeAll,
  SCALE,
  startChild,
  startWith,
  testUnless,
  until,
} from "../support/support.ts";
import { noLimit, startLimited } from "../support/address_space.ts";

const LONG = { timeout: 280_000 };
const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** What a runtime has open for itself, and more. */
const OTHER_DESCRIPTORS = 150;
const DESCRIPTORS_MAX = 20_000;
const DESCRIPTORS_MIN = 4000;

/** Executes what follows with another limit. */
function limited(flag: string, amount: number): string[] {
  return ["sh", "-c", `ulimit ${flag} ${amount} && exec "$@"`, "sh"];
}

function hardLimit(): number {
  const { status, stdout } = spawnSync("sh", ["-c", "ulimit -Hn"], { encoding: "utf8" });
  if (status !== 0) return 0;
  return stdout.trim() === "unlimited" ? DESCRIPTORS_MAX : Number(stdout);
}

const descriptors = Math.min(NEEDS.shell ? 0 : hardLimit(), DESCRIPTORS_MAX);
const lacksDescriptors = NEEDS.shell ?? NEEDS.memoryFiles ??
  (descriptors < DESCRIPTORS_MIN ? `ulimit -Hn is ${descriptors}` : undefined);

for (const runtime of CHILDREN) {
  testUnless(
    lacksDescriptors,
    `a process has as many maps open as descriptors allow, in ${runtime}`,
    LONG,
    async (t) => {
      const count = Math.floor((descriptors - OTHER_DESCRIPTORS) / 2);
      // Each map without `maxBytes` takes 84 KiB of memory, each of the others 20.
      const isLarge = SCALE >= 1 && freemem() > 3 * GIB;
      const plain = isLarge ? count : Math.min(count, 2000);
      const child = await startChild(t, runtime, { wrap: limited("-n", descriptors) });
      await child.ask("openMany", { count, plain, options: { maxBytes: 256 * KIB } });
      assert.equal(await child.ask("checkMany", { count }), count);
      const more = child.ask("openUntilError", { options: { maxBytes: 256 * KIB } });
      await assert.rejects(more, { code: "System", errno: "EMFILE" });
      await assert.rejects(more, {
        message: /as many files open as it may, and an open takes two; raise "ulimit -n", .*EMFILE/,
      });
      await child.ask("closeMany", { count });
      await child.ask("anonymous", { id: "afterwards" });
    },
  );
}

for (const runtime of CHILDREN) {
  testUnless(
    noLimit,
    `ulimit -v leaves room for hundreds of maps in ${runtime}`,
    LONG,
    async (t) => {
      const child = await startLimited(t, runtime, GIB);
      await child.ask("openMany", { count: 500 });
      assert.equal(await child.ask("checkMany", { count: 500 }), 500);
    },
  );

  testUnless(
    noLimit,
    `a process in ${runtime} that can map little changes nothing for others`,
    LONG,
    async (t) => {
      const map = freshMap<Uint8Array | number>(t);
      const child = await startLimited(t, runtime, 150 * MIB);
      // It makes the segment, which has no ceiling all the same.
      const { name } = map;
      map.unlink();
      await child.ask("open", { id: "map", name, options: { mode: "create" } });
      await child.call("set", "small", 1);
      const own = await startWith(t, runtime, name);
      assert.equal((await own.call("stats")).ceiling, undefined);
      for (let i = 0; i < 5; i += 1) {
        await own.ask("setBytes", { id: "map", key: `large ${i}`, bytes: 64 * MIB });
      }
      const wanted = { name: "SharedMemoryError", code: "NoSpace", errno: "ENOMEM" };
      const message = /no room for \d.* more in this process's address space, ulimit -v is /;
      for (let i = 0; i < 3; i += 1) {
        const unreachable = child.ask("lengthOf", { id: "map", key: "large 4" });
        await assert.rejects(unreachable, wanted);
        await assert.rejects(unreachable, { message });
        await assert.rejects(child.call("verify"), wanted);
      }
      assert.equal(await child.call("get", "small"), 1);
      assert.equal(await own.ask("lengthOf", { id: "map", key: "large 4" }), 64 * MIB);
      const verdict = await own.call("verify");
      assert.deepEqual([verdict.ok, verdict.dropped], [true, 0]);
      assert.equal((await own.call("stats")).recoveries, 0);
    },
  );

  testUnless(
    noLimit,
    `a value for which ${runtime} has no address space is refused, and small ones go on`,
    LONG,
    async (t) => {
      const map = freshMap<unknown>(t);
      const child = await startLimited(t, runtime, 160 * MIB);
      await child.ask("open", { id: "map", name: map.name });
      const before = map.set("a", 1).stats().allocated;
      let stored = 0;
      const refused = await (async () => {
        for (;; stored += 1) {
          await child.ask("setBytes", { id: "map", key: `large ${stored}`, bytes: 4 * MIB });
        }
      })().catch((error) => error);
      assert.equal(refused.code, "NoSpace", refused.message);
      assert.match(refused.message, /address space, ulimit -v is/);
      assert.ok(stored > 0);
      await child.call("set", "small", 2);
      assert.equal(map.get("small"), 2);
      assertSound(map);
      const { allocated, committed, recoveries } = map.stats();
      assert.ok(allocated > before && allocated <= committed, `${allocated} of ${committed}`);
      assert.equal(recoveries, 0);
    },
  );
}

const noTmpfs = refusesTmpfs();

/** A file system of 8 MiB, which has 40 as soon as there is a file beside it. */
const GROWING = `mount -t tmpfs -o size=8m shmap-test "$0" || exit
  for _ in $(seq 3000); do
    if test -e "$0.grow"; then
      mount -o remount,size=40m "$0" && touch "$0.grown"
      exit
    fi
    sleep 0.1
  done </dev/null >/dev/null 2>&1 &
  exec "$@"`;

for (const runtime of CHILDREN) {
  testUnless(
    noTmpfs,
    `a refused value leaves the disk as full as it was in ${runtime}`,
    LONG,
    async (t) => {
      const directory = freshDirectory(t);
      const wrap = inSmallTmpfs(directory, "16m");
      const child = await startChild(t, runtime, { wrap, permissions: ["-A"] });
      await child.ask("open", { id: "map", name: "small", options: { directory } });
      await child.ask("setBytes", { id: "map", key: "kept", bytes: 3 * MIB });
      const before = await child.ask("freeBytes", { path: directory });
      for (const bytes of [13 * MIB, 20 * MIB, 15 * MIB]) {
        const refused = child.ask("setBytes", { id: "map", key: "large", bytes });
        await assert.rejects(refused, { code: "NoSpace", errno: "ENOSPC" });
        await assert.rejects(refused, { message: / is full, .* used and .* more needed/ });
        assert.equal(await child.ask("freeBytes", { path: directory }), before);
      }
      assert.equal(await child.ask("lengthOf", { id: "map", key: "kept" }), 3 * MIB);
    },
  );

  testUnless(
    noTmpfs,
    `a file system that was made larger is used in ${runtime}`,
    LONG,
    async (t) => {
      const directory = freshDirectory(t);
      const wrap = ["unshare", "-Urm", "sh", "-c", GROWING, directory];
      for (const end of [".grow", ".grown"]) atEnd(t, () => removeAll(`${directory}${end}`));
      const child = await startChild(t, runtime, { wrap, permissions: ["-A"] });
      await child.ask("open", { id: "map", name: "small", options: { directory } });
      const fill = async (from: number) => {
        for (let i = from;; i += 1) {
          const set = child.ask("setBytes", { id: "map", key: `value ${i}`, bytes: MIB });
          if (await set.then(() => false, (error) => error.code === "NoSpace")) return i;
        }
      };
      const first = await fill(0);
      writeFileSync(`${directory}.grow`, "");
      await until("the larger file system", () => existsSync(`${directory}.grown`));
      const second = await fill(first);
      assert.ok(first >= 5 && second >= first + 24, `${first}, then ${second} values`);
      for (let i = 0; i < second; i += 1) {
        assert.equal(await child.ask("lengthOf", { id: "map", key: `value ${i}` }), MIB);
      }
      assert.equal((await child.call("stats")).ceiling, undefined);
      assert.equal((await child.call("verify")).ok, true);
    },
  );

  test(`a map grows while a task of ${runtime} waits for its lock`, LONG, async (t) => {
    const map = freshMap<unknown>(t);
    const child = await startWith(t, runtime, map.name);
    const lock = map.lock();
    await child.ask("joinLine", { id: "map", as: "it", options: { timeout: 120_000 } });
    for (let i = 0; i < 4; i += 1) {
      map.set(`large ${i}`, new Uint8Array(40 * MIB));
      // The child maps the segment anew, beside the task that sleeps on its first mapping.
      assert.equal(await child.ask("lengthOf", { id: "map", key: `large ${i}` }), 40 * MIB);
    }
    lock.unlock();
    assert.deepEqual(await child.ask("leaveLine", { as: "it" }), { recovered: false });
    await child.call("set", "by", runtime);
    await child.ask("unlock", { as: "it" });
    assert.equal(map.get("by"), runtime);
    using again = map.lock({ timeout: 10_000 });
    assert.equal(again.recovered, false);
  });
}
