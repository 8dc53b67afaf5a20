/**
 * Kill storms among both runtimes and native processes on the same maps and values: workers are
 * killed while they start, attach, write, grow, lock, update, clear and replace, and after each
 * death what is left is compared with what the dead one had said. Survivors of each kind read and
 * write throughout.
 *
 *     bun tests/proof/storm.ts [--scale <n>] [--seed <n>]        (or: deno run -A …)
 *
 * The seed decides what the workers do; when they are killed the machine decides. A call of a
 * survivor counts as waiting for the time it took, less what its thread spent in the run queue
 * and what this process's own timer was late meanwhile.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { SharedMap, SharedValue } from "../../mod.ts";
import { checkedSequence, checkedValue } from "../support/checked.ts";
import { type JournalPlan, type Model, replay, settle } from "../support/journal.ts";
import { type Random, seededRandom } from "../support/random.ts";
import {
  assertSound,
  Child,
  pause,
  ROOT,
  type Runtime,
  RUNTIMES,
  SHM,
  temporaries,
  until,
} from "../support/support.ts";
import { STOP } from "../support/tasks.ts";
import { partArguments } from "./part.mjs";
import {
  checkCounts,
  checkTotals,
  type Counts,
  type Plan,
  type SlowCall,
  type Survival,
} from "./storm/worker.ts";

const WORKER = join(ROOT, "tests", "proof", "storm", "worker.ts");
const NATIVE = join(ROOT, "zig-out", "bin", "shmap-proof-plain");
const PREFIX = `shmap-test-${process.pid}-storm`;
const SHARED = `${PREFIX}-shared`;
const VALUE = `${PREFIX}-value`;
const LANES = 6;
const SURVIVORS = 2;
const PERMISSIONS = ["--allow-ffi", "--allow-env=SHMAP_STORM"];
/** Dies before this many milliseconds: a third of all, most of them while they start. */
const YOUNG_MS = 60;

const { scale: SCALE, seed } = partArguments();
const SEED = seed >>> 0;
const LEAST = Math.max(1, Math.round(2000 * SCALE));
const NATIVE_LEAST = Math.ceil(LEAST / 10);
const DEADLINE = Date.now() + 60_000 + LEAST * 600;

const laneNumbers = Array.from({ length: LANES + SURVIVORS }, (_, i) => i);
const nameOf = (lane: number) => `${PREFIX}-name${lane % LANES}`;
const ownOf = (lane: number) => `${PREFIX}-own${lane}`;

const shared = SharedMap.open(SHARED);
const value = SharedValue.open<Counts>(VALUE);
const owns = Array.from({ length: LANES }, (_, i) => {
  return SharedMap.open(ownOf(i), i % 3 === 2 ? { lock: "kernel" } : {});
});

/** What of a map belongs to its header and stripes alone. */
function fixedBytes(map: SharedMap): number {
  const { committed, owned, pooled } = map.stats();
  return committed - owned - pooled;
}

const fixed = new Map([shared, ...owns].map((map) => [map, fixedBytes(map)]));

/** What happened, for the report. */
const tally = { kills: 0, natives: 0, starting: 0, opening: 0, operations: 0, checked: 0 };
const violations: string[] = [];
const survivors: Child[] = [];
/** Deaths with the shared map's lock: for certain, and perhaps. */
const holders = { certain: 0, doubtful: 0, told: 0 };

function violated(what: string, error: unknown): void {
  const text = error instanceof Error ? error.message : String(error);
  violations.push(`--seed ${SEED}, kill ${tally.kills}, ${what}: ${text}`);
}

/** How late this process's own timer came, and when: how starved the machine is. */
const lateness: { at: number; ms: number }[] = [];
let ticked = performance.now();
const ticker = setInterval(() => {
  const now = performance.now();
  if (now - ticked > 40) lateness.push({ at: Date.now(), ms: now - ticked - 20 });
  ticked = now;
}, 20);

/** One line of workers, one after the other, with keys and counts of its own. */
class Lane {
  readonly #random: Random;
  readonly #own: Model = new Map();
  readonly #shared: Model = new Map();
  #sections = 0;
  #updates = 0;
  #count = 0;

  constructor(readonly lane: number) {
    this.#random = seededRandom(SEED + lane);
  }

  #role(): Plan["role"] | "own" {
    const dice = this.#random(10);
    if (dice < 2) return "own";
    if (dice < 5) return "journal";
    if (dice < 7) return "sections";
    return dice < 9 ? "updates" : "names";
  }

  #plan(role: Plan["role"] | "own"): Plan {
    const { lane } = this;
    const seed = this.#random(2 ** 31);
    const prefix = role === "own" ? "" : `lane ${lane} `;
    const name = role === "own" ? ownOf(lane) : role === "journal" ? SHARED : nameOf(lane);
    const sizes = { hotCount: 12, wideCount: 300, manyCount: 60 };
    const journal: JournalPlan = { seed, prefix, ...sizes, hasClear: role === "own" };
    return {
      role: role === "own" ? "journal" : role,
      shared: SHARED,
      value: VALUE,
      name,
      lane,
      lanes: laneNumbers,
      seed,
      until: DEADLINE,
      journal,
    };
  }

  async run(): Promise<void> {
    while (tally.kills < LEAST && Date.now() < DEADLINE && violations.length < 20) {
      this.#count += 1;
      const runtime = RUNTIMES[(this.#count + this.lane) % 2];
      const role = this.#role();
      const plan = this.#plan(role);
      const what = `lane ${this.lane}, ${role} of ${runtime}, plan ${plan.seed}`;
      try {
        const said = await this.#kill(runtime, plan);
        this.#check(role, plan, said, what);
        tally.kills += 1;
      } catch (error) {
        violated(what, error);
      }
    }
  }

  /** Starts a worker and kills it; gives what it said. */
  async #kill(runtime: Runtime, plan: Plan): Promise<string> {
    const env = { SHMAP_STORM: JSON.stringify(plan) };
    const child = new Child(runtime, { file: WORKER, permissions: PERMISSIONS, env });
    if (this.#random(3) === 0) await pause(this.#random(YOUNG_MS));
    else {
      const wanted = this.#random(6) === 0 ? 1 : 3;
      await until("its first words", () => child.tail.length >= wanted || child.isClosed);
      await pause(this.#random(wanted === 1 ? 4 : 12));
    }
    await child.kill();
    assert.equal(child.signal, "SIGKILL", `${child.tail} ${child.stderr}`);
    assert.match(child.tail, /^(?:so?|so[.+hru]+)?$/, "what it said");
    if (child.tail === "") tally.starting += 1;
    else if (child.tail === "s") tally.opening += 1;
    return child.tail;
  }

  #check(role: Plan["role"] | "own", plan: Plan, said: string, what: string): void {
    const begun = [...said].filter((letter) => letter === ".").length;
    const done = [...said].filter((letter) => letter === "+").length;
    tally.operations += begun;
    if (role === "own" || role === "journal") {
      const isOwn = role === "own";
      const model = isOwn ? this.#own : this.#shared;
      const map = isOwn ? owns[this.lane] : shared;
      const doubtful = replay(model, plan.journal!, begun);
      const prefix = plan.journal!.prefix;
      settle(model, doubtful, new Map([...map].filter(([key]) => key.startsWith(prefix))), what);
      tally.checked += model.size + doubtful.size;
      if (isOwn) assertSound(map, what);
    } else if (role === "sections") {
      this.#noteHolder(said);
      this.#sections = this.#counted(shared.get(`count ${plan.lane}`), this.#sections, done, begun);
    } else if (role === "updates") {
      const count = value.get()?.counts[plan.lane];
      this.#updates = this.#counted(count, this.#updates, done, begun);
    } else this.#checkName(plan.name, what);
  }

  /** What was counted: all that was acknowledged, and perhaps the one that was under way. */
  #counted(found: unknown, before: number, done: number, begun: number): number {
    const count = Number(found ?? 0);
    const least = before + done;
    const most = before + begun;
    tally.checked += done;
    assert.ok(count >= least && count <= most, `${count} counted, not ${least} to ${most}`);
    return count;
  }

  #noteHolder(said: string): void {
    holders.told += [...said].filter((letter) => letter === "r").length;
    if (/hr?$/.test(said)) holders.certain += 1;
    else if (/[.u]$/.test(said)) holders.doubtful += 1;
  }

  #checkName(name: string, what: string): void {
    using map = SharedMap.open(name, { mode: this.#random(2) ? "shared" : "exclusive" });
    for (const [key, found] of map) checkedSequence(key, found);
    assert.equal(map.set("after", checkedValue("after", 1)).size >= 1, true);
    assertSound(map, what);
    assert.deepEqual(temporaries(name), [], what);
    assert.equal(map.unlink(), true, what);
    tally.checked += 1;
  }
}

/** Native processes on the shared map, one killed after the other. */
async function runNatives(random: Random): Promise<void> {
  const known = new Map<string, string>();
  for (let life = 0; tally.natives < NATIVE_LEAST || tally.kills < LEAST; life += 1) {
    if (Date.now() > DEADLINE || violations.length >= 20) return;
    const base = life * 1_000_000;
    const child = startNative("mortal", base);
    try {
      if (random(3) > 0) await until("a dot", () => child.tail.length > 0 || child.isClosed);
      await pause(random(10));
      await child.kill();
      assert.equal(child.signal, "SIGKILL", child.stderr);
      checkNative(known, base, child.tail.length);
      tally.natives += 1;
    } catch (error) {
      violated(`native, base ${base}`, error);
    }
    await pause(100);
  }
}

function startNative(lane: string, base: number, ...more: string[]): Child {
  const command = [NATIVE, "storm", "beside", SHARED, lane, `${base}`, ...more];
  return new Child("bun", { wrap: ["sh", "-c", 'exec "$0" "$@"', ...command, "--"] });
}

/** Each of its keys is what the last acknowledged operation made it, or the one after that. */
function checkNative(known: Map<string, string>, base: number, begun: number): void {
  const valueAt = (key: string, n: number) => checkedValue(key, base + n, n * 37 % 3000);
  for (let n = Math.max(0, begun - 9); n < begun - 1; n += 1) {
    const key = `native mortal ${n % 8}`;
    known.set(key, valueAt(key, n));
  }
  for (let index = 0; index < 8; index += 1) {
    const key = `native mortal ${index}`;
    const found = shared.get(key) as string | undefined;
    if (found === known.get(key)) continue;
    const last = (begun - 1) % 8 === index ? valueAt(key, begun - 1) : undefined;
    assert.equal(found, last, `"${key}" after ${begun} operations`);
    known.set(key, found!);
  }
  tally.checked += 8;
}

function startSurvivor(runtime: Runtime, lane: number): Child {
  const plan: Plan = {
    role: "survivor",
    shared: SHARED,
    value: VALUE,
    name: nameOf(lane),
    lane,
    lanes: laneNumbers,
    seed: SEED + lane,
    until: DEADLINE + 10_000,
    watched: owns.map((_, i) => ownOf(i)),
  };
  const env = { SHMAP_STORM: JSON.stringify(plan) };
  return new Child(runtime, { file: WORKER, permissions: ["-A"], env });
}

/** Waits for a survivor's good end. */
async function survived(child: Child, answer: Promise<unknown>, what: string): Promise<unknown> {
  const end = await Promise.race([child.closed, pause(30_000)]);
  if (end === undefined && !child.isClosed) violated(what, "it did not stop");
  await child.kill();
  if (child.exitCode === 0) return await answer;
  violated(what, `ended with ${child.signal ?? child.exitCode}: ${child.tail} ${child.stderr}`);
  return undefined;
}

/** Longer than a second, and not because the machine had no time for us either. */
function checkWaits(slow: SlowCall[], what: string): void {
  for (const { call, ms, until } of slow) {
    const mine = lateness.filter(({ at }) => at > until - ms - 1000 && at < until + 1000);
    const late = mine.reduce((sum, { ms }) => sum + ms, 0);
    if (ms - late > 1000) violated(what, `${call} took ${Math.round(ms)} ms`);
  }
}

/** All processes but this one are gone: everything agrees, and nothing is left of it. */
function checkEnd(): void {
  const lock = shared.lock();
  holders.told += Number(lock.recovered);
  checkTotals(shared, laneNumbers, lock.recovered);
  lock.unlock();
  checkCounts(value.get()!);
  const most = holders.certain + holders.doubtful;
  assert.ok(holders.told <= most + tally.natives, `${holders.told} told of ${most} deaths`);
  for (const map of [shared, ...owns]) {
    assertSound(map);
    for (const key of [...map.keys()]) assert.equal(map.delete(key), true, key);
    assert.equal(map.size, 0);
    assertSound(map, "an empty map");
    const { owned, committed, stripes } = map.stats();
    assert.ok(owned <= stripes * 16 * 1024, `${owned} bytes are still owned`);
    assert.equal(fixedBytes(map), fixed.get(map), "bytes that no stripe has");
    assert.ok(committed <= 64 << 20, `${committed} bytes for less than one tenth of it`);
    assert.equal(map.unlink(), true);
    map.close();
  }
  assert.equal(value.unlink(), true);
  value.close();
  for (const lane of laneNumbers) SharedMap.unlink(nameOf(lane));
  SharedMap.list(); // removes what the dead left under temporary names
  assert.deepEqual(readdirSync(SHM).filter((file) => file.includes(PREFIX)), []);
}

async function storm(): Promise<string> {
  const begun = performance.now();
  survivors.push(...RUNTIMES.map((runtime, i) => startSurvivor(runtime, LANES + i)));
  const native = startNative("survivor", 0, "survive");
  survivors.push(native);
  const answers = survivors.map((child) => child.ask("survive"));
  const lanes = Array.from({ length: LANES }, (_, i) => new Lane(i).run());
  await Promise.all([...lanes, runNatives(seededRandom(SEED + 99))]);
  shared.set(STOP, 1);
  const notes: string[] = [];
  for (const [i, child] of survivors.slice(0, SURVIVORS).entries()) {
    const what = `the survivor of ${child.runtime}`;
    const survival = await survived(child, answers[i], what) as Survival | undefined;
    if (!survival) continue;
    holders.told += survival.told;
    checkWaits(survival.slow, what);
    const { call, ms } = survival.worst;
    notes.push(
      `${child.runtime}: ${survival.reads} reads, longest wait ${ms.toFixed(1)} ms (${call})`,
    );
  }
  const said = await survived(native, answers[SURVIVORS], "the native survivor") as
    | { reads: number; ms: number; slow: SlowCall[] }
    | undefined;
  if (said) checkWaits(said.slow, "the native survivor");
  if (said) notes.push(`native: ${said.reads} reads, longest wait ${said.ms} ms`);
  const seconds = (performance.now() - begun) / 1000;
  return `${(tally.kills / seconds).toFixed(1)} a second; ${notes.join("; ")}`;
}

function clean(): void {
  for (const file of readdirSync(SHM)) {
    if (file.includes(PREFIX)) rmSync(join(SHM, file), { force: true });
  }
}

if (!existsSync(NATIVE)) {
  console.log(JSON.stringify({ part: 3, what: "runtime kills", skipped: `no ${NATIVE}` }));
  process.exit(1);
}
let note = "";
try {
  note = await storm();
  checkEnd();
} catch (error) {
  violated("the end", error);
  for (const child of survivors) await child.kill();
  clean();
}
clearInterval(ticker);
for (const violation of violations) console.error(violation);
const row = {
  part: 3,
  what: "runtime kills",
  tried: tally.kills,
  found: violations.length,
  least: LEAST,
  seed: SEED,
  note: `${note}; ${tally.starting} while starting, ${tally.opening} while opening, ` +
    `${tally.operations} operations, ${tally.checked} states checked, ` +
    `${tally.natives} native processes killed beside, ` +
    `${holders.certain} to ${holders.certain + holders.doubtful} holders died, ` +
    `${holders.told} times told`,
};
console.log(JSON.stringify(row));
process.exit(row.found > 0 || row.tried < row.least ? 1 : 0);
