/**
 * Where robust mutexes end: processes of other PID namespaces and of another libc. A segment with
 * kernel locks serves them together, also while some are killed; any other segment refuses them.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import {
  assertSound,
  atEnd,
  freshMap,
  freshName,
  HERE,
  pause,
  ROOT,
  runtimeOf,
  RUNTIMES,
  scaled,
  startChild,
  testUnless,
  thrown,
  until,
  withSeed,
} from "../support/support.ts";
import type { Child, Runtime, TestContext } from "../support/support.ts";

const LONG = { timeout: 300_000 };
const KERNEL = { lock: "kernel" } as const;

/** A command in a PID namespace of its own, which ends with it. */
const OTHER_NAMESPACE = ["unshare", "-Urpf", "--kill-child=SIGKILL"];
const PEER = join(ROOT, "zig-out", "bin", "shmap-peer");

function refusesNamespace(): string | undefined {
  const [command, ...args] = [...OTHER_NAMESPACE, "true"];
  const result = spawnSync(command, args, { encoding: "utf8" });
  if (result.status === 0) return undefined;
  return `no PID namespace: ${(result.stderr || `${result.error}`).trim()}`;
}
const noNamespace = refusesNamespace();
const noPeer = existsSync(PEER) ? undefined : "no native process: run npm run peer";

/** A child in another PID namespace. */
function startApart(t: TestContext, runtime: Runtime): Promise<Child> {
  return startChild(t, runtime, { wrap: OTHER_NAMESPACE });
}

/** A process of another libc; its answers are numbers and text. */
class Peer {
  readonly #process = spawn(PEER, { stdio: ["pipe", "pipe", "inherit"] });
  #lines: string[] = [];
  #tail = "";
  #waiting: ((line: string) => void)[] = [];
  readonly closed: Promise<void>;

  constructor(t: TestContext) {
    this.#process.stdout.setEncoding("utf8").on("data", (text: string) => {
      const lines = (this.#tail + text).split("\n");
      this.#tail = lines.pop()!;
      for (const line of lines) (this.#waiting.shift() ?? ((l) => this.#lines.push(l)))(line);
    });
    this.#process.stdin.on("error", () => {}); // it may have been killed
    this.closed = new Promise((resolve) => this.#process.on("close", () => resolve()));
    atEnd(t, () => this.kill());
  }

  get pid(): number {
    return this.#process.pid!;
  }

  ask(command: string): Promise<string> {
    this.#process.stdin.write(`${command}\n`);
    const line = this.#lines.shift();
    if (line !== undefined) return Promise.resolve(line);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  async kill(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      this.#process.kill("SIGKILL");
    }
    await this.closed;
  }
}

for (const runtime of RUNTIMES) {
  testUnless(
    noNamespace,
    `a default map is refused to ${runtime} in another PID namespace, and from there`,
    LONG,
    async (t) => {
      const map = freshMap<number>(t, { lock: "robust" });
      map.set("a", 1);
      const apart = await startApart(t, runtime);
      const error = await apart.ask("open", { name: map.name }).then(() => undefined, (e) => e);
      assert.equal(error?.code, "Incompatible");
      assert.match(error.message, /PID namespace.*lock: "kernel"/);
      await apart.ask("open", { id: "reader", name: map.name, options: { readonly: true } });
      assert.equal(await apart.ask("call", { id: "reader", method: "get", args: ["a"] }), 1);

      const theirs = freshName(t);
      await apart.ask("open", { name: theirs, options: { lock: "robust" } });
      assert.match(
        thrown("Incompatible", () => SharedMap.open(theirs)).message,
        /PID namespace.*lock: "kernel"/,
      );
      await apart.ask("close");
      SharedMap.open(theirs).close();
    },
  );

  testUnless(
    noNamespace,
    `a map with kernel locks is shared with ${runtime} in another PID namespace`,
    LONG,
    async (t) => {
      const map = freshMap(t, KERNEL);
      const apart = await startApart(t, runtime);
      await apart.ask("open", { name: map.name });
      assert.equal(map.stats().lock, "kernel");
      const keys = ["a", "b"];
      const together = apart.ask("increment", { keys, times: scaled(2000) });
      for (let i = 0; i < scaled(2000); i += 1) {
        for (const key of keys) map.update(key, (n) => (n as number ?? 0) + 1);
      }
      await together;
      assert.deepEqual(map.getMany(keys), [2 * scaled(2000), 2 * scaled(2000)]);
      assertSound(map);

      await apart.ask("lock", {});
      assert.equal(map.tryLock(), undefined);
      const impatient = SharedMap.open(map.name, { timeout: 20 });
      thrown("Timeout", () => impatient.set("a", 0));
      impatient.close();
      await apart.kill();
      using lock = map.lock();
      assert.equal(lock.recovered, true);
      map.set("a", 0);
    },
  );
}

testUnless(
  noNamespace,
  "kernel locks across PID namespaces keep exact totals while processes are killed",
  LONG,
  (t) =>
    withSeed(async (random) => {
      const map = freshMap<number>(t, KERNEL);
      let acknowledged = 0;
      let kills = 0;
      const lane = async (isApart: boolean) => {
        for (let life = 0; life < scaled(12); life += 1) {
          const runtime = runtimeOf(life);
          const child = await (isApart ? startApart(t, runtime) : startChild(t, runtime));
          await child.ask("open", { name: map.name, options: { timeout: 60_000 } });
          child.send("pairs", { way: "lock", dots: true });
          await until("some sections", () => child.tail.length > 3);
          await pause(random(30));
          await child.kill();
          kills += 1;
          acknowledged += child.tail.length - 1; // the last may not have come to its end
        }
      };
      await Promise.all([lane(false), lane(true)]);
      using _lock = map.lock();
      const [left, right] = map.getMany(["left", "right"]) as number[];
      assert.ok(left >= acknowledged - kills && left <= acknowledged + kills, `${left}`);
      assert.ok(Math.abs(left - right) <= 1, `${left} and ${right}`);
      assertSound(map);
    }),
);

testUnless(noPeer, "a default map is refused to a process of another libc", LONG, async (t) => {
  const name = freshName(t);
  const peer = new Peer(t);
  assert.equal(await peer.ask(`open ${name} - 1000`), "1");
  assert.match(
    thrown("Incompatible", () => SharedMap.open(name)).message,
    /C library.*lock: "kernel"/,
  );
  await peer.ask("close");
  const map = SharedMap.open(name, { lock: "robust" });
  atEnd(t, () => map.close());
  assert.equal(await peer.ask(`open ${name} - 100`), "-10"); // Incompatible: it opens ours
});

testUnless(noPeer, "a map with kernel locks is shared with another libc", LONG, async (t) => {
  const map = freshMap<string>(t, KERNEL);
  const peer = new Peer(t);
  assert.equal(await peer.ask(`open ${map.name} kernel 1000`), "1");
  map.set("ours", "from here");
  assert.equal(await peer.ask("get ours"), "9 from here");
  await peer.ask("put theirs from-there");
  assert.equal(map.get("theirs"), "from-there");
  const times = scaled(3000);
  const together = peer.ask(`add count ${times}`);
  for (let i = 0; i < times; i += 1) {
    using _lock = map.lock({ timeout: 60_000 });
    map.set("count", `${Number(map.get("count") ?? 0) + 1}`);
    if (i % 100 === 0) await pause(0);
  }
  assert.equal(await together, "0");
  assert.equal(map.get("count"), `${2 * times}`);
  assertSound(map);
  assert.equal(await peer.ask("verify"), "0");
});

testUnless(noPeer, "a death is noticed across libcs, both ways", LONG, async (t) => {
  const map = freshMap<string>(t, KERNEL);
  for (let round = 0; round < scaled(10); round += 1) {
    const peer = new Peer(t);
    assert.equal(await peer.ask(`open ${map.name} - 20000`), "1");
    void peer.ask("add count 1000000");
    await pause(5 + round);
    await peer.kill();
    map.set("after", "writes go on");
    map.lock().unlock();
    assertSound(map);
  }
  const peer = new Peer(t);
  assert.equal(await peer.ask(`open ${map.name} - 20000`), "1");
  const child = await startChild(t, HERE);
  await child.ask("open", { name: map.name });
  await child.ask("lock", {});
  assert.equal(await peer.ask("lock 0"), "-7");
  await child.kill();
  assert.equal(await peer.ask("lock 1000"), "1"); // recovered
  assert.equal(await peer.ask("unlock"), "0");
});

test("the two kinds of lock do not mix", (t) => {
  const map = freshMap(t, KERNEL).set("a", 1);
  const { message } = thrown("Incompatible", () => SharedMap.open(map.name, { lock: "robust" }));
  assert.match(message, /its lock is "kernel", wanted "robust"$/);
  using other = SharedMap.open(map.name); // not stated: what it has
  assert.deepEqual([map.stats().lock, other.stats().lock], ["kernel", "kernel"]);
  assert.equal(other.set("b", 2).get("a"), 1);
});
