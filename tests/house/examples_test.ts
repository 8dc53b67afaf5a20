/**
 * The examples, run by the commands their opening comments name, on both runtimes; and, where one
 * has a part for another process, that part on the other runtime.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { Mmap, SharedMap, SharedValue } from "../../mod.ts";
import {
  atEnd,
  CHILDREN,
  executable,
  freshDirectory,
  NEEDS,
  otherThan,
  PATIENCE,
  ROOT,
  RUNTIMES,
  SHM,
  testUnless,
  until,
} from "../support/support.ts";
import type { Runtime, TestContext } from "../support/support.ts";

const LONG = { timeout: 120_000 };
/** Far longer than any example takes. */
const EXAMPLE_MS = 60_000 * PATIENCE;

/** What each example says when it has shown what it is for. */
const SAYS: Record<string, RegExp[]> = {
  "sessions_server.ts": [
    /^killed server \d+ after 800 answers$/m,
    /^2400 requests answered by [23] servers, \d+ asked again$/m,
    /^2400 numbers given out, \d+ more counted for lost answers$/m,
    /^16 of 16 carts are whole$/m,
    /^nothing was lost$/m,
  ],
  "rate_limit.ts": [
    /^killed server \d+ after 600 answers$/m,
    /^\d+ answers of [23] servers, \d+ requests lost$/m,
    /^1[12]\d\d passed, \d+ refused$/m,
    /^every client got its limit, and none more$/m,
  ],
  "configuration.ts": [
    /^ *the parent's: \{"level":"error","limits":\{"requests":500\},"isOver":true\}$/m,
    /^all children saw every change$/m,
  ],
  "critical_section.ts": [
    /^process \d+ has put right what another one left half done$/m,
    /^the workers ended: (?:SIGKILL|1), 0, 0, 0$/m,
    /^1622 transfers of 1622; there are 3000 of 3000$/m,
  ],
  "binary_log.ts": [/^[\dT:.Z-]+ info: record 1000$/m, /^every record came, in order$/m],
};

/** The command with which the opening comment of an example has it run. */
function command(runtime: Runtime, example: string): string[] {
  const text = readFileSync(join(ROOT, "examples", example), "utf8");
  const line = new RegExp(`^ \\* {5}${runtime} (.* examples/${example})$`, "m").exec(text);
  assert.ok(line, `${example} does not say how ${runtime} runs it`);
  return line[1].split(" ");
}

interface Ended {
  pid: number;
  code: number | null;
  output: string;
}

/** Starts a runtime with these arguments; it does not outlive the test. */
function start(t: TestContext, runtime: Runtime, args: string[]): ChildProcess {
  const [verb, ...rest] = args;
  const asked = runtime === "deno" ? [verb, "--quiet", "--no-prompt", ...rest] : args;
  const child = spawn(executable(runtime), asked, {
    cwd: ROOT,
    env: { ...process.env, NO_COLOR: "1" },
    stdio: ["pipe", "pipe", "pipe"],
    timeout: EXAMPLE_MS,
    killSignal: "SIGKILL",
  });
  atEnd(t, () => child.kill("SIGKILL"));
  return child;
}

/** How a process ends, and everything it says. */
function ended(child: ChildProcess): Promise<Ended> {
  let output = "";
  child.stdout!.setEncoding("utf8").on("data", (text: string) => output += text);
  child.stderr!.setEncoding("utf8").on("data", (text: string) => output += text);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ pid: child.pid!, code, output }));
  });
}

/** The names of segments in shared memory that `pid` might have made. */
function segments(): string[] {
  return readdirSync(SHM).filter((name) => !/^\.?shmap-(?:test|example)-/.test(name));
}

for (const [example, patterns] of Object.entries(SAYS)) {
  for (const runtime of CHILDREN) {
    const isServer = example === "sessions_server.ts" || example === "rate_limit.ts";
    const reason = isServer ? NEEDS.portSharing : undefined;
    testUnless(
      reason,
      `examples/${example} shows what it is for, in ${runtime}`,
      LONG,
      async (t) => {
        const before = segments();
        const { pid, code, output } = await ended(start(t, runtime, command(runtime, example)));
        for (const pattern of patterns) assert.match(output, pattern);
        assert.equal(code, 0, output);
        assert.deepEqual(segments().filter((name) => !before.includes(name)), []);
        assert.equal(existsSync(`/tmp/shmap-log-${pid}.bin`), false);
      },
    );
  }
}

/** The words that run an example's part for another process. */
function part(runtime: Runtime, example: string, permissions: string[], args: string[]): string[] {
  const options = runtime === "deno" ? ["--allow-ffi", ...permissions] : [];
  return ["run", ...options, join("examples", example), ...args];
}

testUnless(
  NEEDS.portSharing,
  "examples/sessions_server.ts serves from both runtimes on one port",
  LONG,
  async (t) => {
    using store = SharedMap.anonymous<number | string[]>();
    const net = ["-N=127.0.0.1", "--unstable-net"];
    const servers = RUNTIMES.map((runtime) =>
      start(t, runtime, part(runtime, "sessions_server.ts", net, [store.token]))
    );
    const ends = servers.map(ended);
    await until("the servers", () => store.get("servers") === servers.length);
    const pids = new Set<number>();
    let asked = 0;
    await until("an answer of each", async () => {
      const url = `http://127.0.0.1:${store.get("port")}/visitor/item-${asked}`;
      const { pid, number } = await (await fetch(url, { method: "POST" })).json();
      asked += 1;
      assert.equal(number, asked);
      return pids.add(pid).size === servers.length;
    });
    assert.equal(store.get("requests"), asked);
    const items = Array.from({ length: asked }, (_, i) => `item-${i}`);
    assert.deepEqual(store.get("cart of visitor"), items);
    for (const server of servers) server.stdin!.end();
    for (const { code, output } of await Promise.all(ends)) assert.equal(code, 0, output);
  },
);

testUnless(
  NEEDS.portSharing,
  "examples/rate_limit.ts keeps one limit in servers of both runtimes",
  LONG,
  async (t) => {
    using store = SharedMap.anonymous<number>();
    const net = ["-N=127.0.0.1", "--unstable-net"];
    const servers = RUNTIMES.map((runtime) =>
      start(t, runtime, part(runtime, "rate_limit.ts", net, [store.token]))
    );
    const ends = servers.map(ended);
    await until("the servers", () => store.get("servers") === servers.length);
    const pids = new Set<string>();
    const statuses: number[] = [];
    for (let asked = 0; asked < 120 || pids.size < servers.length; asked += 1) {
      const response = await fetch(`http://127.0.0.1:${store.get("port")}/visitor`);
      pids.add(await response.text());
      statuses.push(response.status);
      assert.equal(response.headers.get("ratelimit-remaining"), `${Math.max(0, 99 - asked)}`);
      assert.ok(Number(response.headers.get("ratelimit-reset")) > 0);
    }
    assert.deepEqual(statuses, statuses.map((_, i) => i < 100 ? 200 : 429));
    assert.equal(store.get("hits of visitor"), statuses.length);
    for (const server of servers) server.stdin!.end();
    for (const { code, output } of await Promise.all(ends)) assert.equal(code, 0, output);
  },
);

test("examples/configuration.ts: children of both runtimes see every change", LONG, async (t) => {
  using shared = SharedValue.anonymous<Record<string, unknown>>();
  const outputs = RUNTIMES.map((runtime) => {
    const child = start(t, runtime, part(runtime, "configuration.ts", [], [shared.token]));
    const lines: string[] = [];
    child.stdout!.setEncoding("utf8").on("data", (text: string) => lines.push(text));
    return { lines, end: ended(child) };
  });
  const said: string[] = [];
  for (const level of ["info", "debug", "error"]) {
    const next = { level, isOver: level === "error" };
    shared.set(next);
    said.push(`${JSON.stringify(next)}\n`);
    await until(
      "both saw it",
      () => outputs.every(({ lines }) => lines.join("").length >= said.join("").length),
    );
  }
  for (const { lines, end } of outputs) {
    assert.equal((await end).code, 0);
    assert.equal(lines.join(""), said.join(""));
  }
});

test("examples/critical_section.ts: workers of both runtimes, one is killed", LONG, async (t) => {
  using bank = SharedMap.anonymous<number | Record<string, number>>();
  bank.setMany([["anna", 10], ["ben", 20], ["cleo", 30], ["transfers", 0]]);
  const run = (runtime: Runtime, how: string) =>
    ended(
      start(t, runtime, part(runtime, "critical_section.ts", ["--allow-run"], [bank.token, how])),
    );
  for (const [i, fatal] of RUNTIMES.entries()) {
    const victim = await run(fatal, "fatal");
    assert.notEqual(victim.code, 0);
    assert.ok(bank.has("undo"), "it died in the middle");
    assert.notEqual(sum(bank), 60);
    const { code, output } = await run(otherThan(fatal), "");
    assert.equal(code, 0, output);
    assert.match(output, /has put right/);
    assert.equal(sum(bank), 60);
    assert.equal(bank.get("transfers"), (i + 1) * (122 + 500));
  }
});

function sum(bank: SharedMap<number | Record<string, number>>): number {
  return ["anna", "ben", "cleo"].reduce((total, name) => total + (bank.get(name) as number), 0);
}

for (const runtime of RUNTIMES) {
  test(`examples/binary_log.ts writes in ${runtime} what is read here`, LONG, async (t) => {
    const file = join(freshDirectory(t), "log.bin");
    using log = Mmap.open(file, { length: 64 * 1024, protection: "read-write" });
    const access = [`-R=${file}`, `-W=${file}`];
    const writer = ended(start(t, runtime, part(runtime, "binary_log.ts", access, [file])));
    let [at, count] = [4, 0];
    await until("every record", async () => {
      using _lock = await log.lockAsync();
      const [end] = log.unpack(0, 4, "L") as [number];
      while (at < end) {
        const [length] = log.unpack(at, 2, "n") as [number];
        const [time, level, text] = log.unpack(at + 2, length, "d C a*");
        count += 1;
        assert.deepEqual([level, text], [count % 3, `record ${count}`]);
        assert.ok(Math.abs(Date.now() - Number(time)) < EXAMPLE_MS);
        at += 2 + length;
      }
      return count === 1000;
    });
    const { code, output } = await writer;
    assert.equal(code, 0, output);
  });
}
