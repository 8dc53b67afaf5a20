/**
 * A worker of the mixed storm, on either runtime: does what its plan says until it is killed, or,
 * as a survivor, until it is told to stop. It prints one letter before and after what it does, so
 * that the process that kills it knows how far it came:
 *
 *     s  it runs        o  it has opened what it works on
 *     .  it begins      +  what it began is done
 *     h  it has the lock, r  and was told of a death before it        u  it unlocks
 *
 * What must never be is told on standard error, and ends it.
 */
import { readFileSync } from "node:fs";
import process from "node:process";
import { type Lock, SharedMap, SharedMemoryError, SharedValue } from "../../../mod.ts";
import { checkedSequence, checkedValue } from "../../support/checked.ts";
import { type JournalPlan, writeJournal } from "../../support/journal.ts";
import { type Random, seededRandom } from "../../support/random.ts";
import { say } from "../../support/say.ts";
import { churn, STOP } from "../../support/tasks.ts";

/** What a worker is told to do. */
export interface Plan {
  role: "journal" | "sections" | "updates" | "names" | "survivor";
  /** The map that all workers share. */
  shared: string;
  /** What it writes its journal to, or whose name it creates, replaces and unlinks. */
  name: string;
  /** A value that all workers share. */
  value: string;
  lane: number;
  /** All lanes that count. */
  lanes: number[];
  seed: number;
  journal?: JournalPlan;
  /** When a survivor ends although the parent did not tell it to. */
  until: number;
  /** Maps a survivor reads as well. */
  watched?: string[];
}

/** What `value` holds: how often each lane updated it, and something to tear. */
export interface Counts {
  counts: Record<string, number>;
  padding: string;
}

/** A call of a survivor that took long although it had a processor. */
export interface SlowCall {
  call: string;
  ms: number;
  until: number;
}

/** What a survivor says at its end. */
export interface Survival {
  reads: number;
  writes: number;
  told: number;
  worst: { call: string; ms: number };
  slow: SlowCall[];
  acknowledged: { sections: number; updates: number };
}

function fail(text: string): never {
  throw new Error(text);
}

const TOTALS = ["total 0", "total 1", "total 2"];
/** Each holder that dies before it has made all totals equal leaves the last one behind by one. */
const DEATHS_IN_A_ROW = 6;

function numberAt(map: SharedMap, key: string): number {
  const value = map.get(key) ?? 0;
  return typeof value === "number" ? value : fail(`"${key}" is ${typeof value}`);
}

/** With the lock held: the totals are the sum of all lanes' counts, but where a holder died. */
export function checkTotals(map: SharedMap, lanes: readonly number[], recovered: boolean): number {
  const sum = lanes.reduce((total, lane) => total + numberAt(map, `count ${lane}`), 0);
  const totals = TOTALS.map((key) => numberAt(map, key));
  const last = totals.at(-1)!;
  const fits = recovered
    ? totals.every((total, i) => total <= (totals[i - 1] ?? sum)) && sum - last <= DEATHS_IN_A_ROW
    : totals.every((total) => total === sum);
  if (!fits) fail(`counts make ${sum}, totals are ${totals}, recovered is ${recovered}`);
  return sum;
}

/** One locked section: several writes that belong together, and no other worker's between them. */
function section(map: SharedMap, plan: Plan, random: Random, lock: Lock): void {
  const sum = checkTotals(map, plan.lanes, lock.recovered);
  const others = Array.from({ length: 6 }, (_, i) => `lane ${plan.lanes[i % 4]} hot-${i}`);
  const before = map.getMany(others);
  const count = `count ${plan.lane}`;
  map.set(count, numberAt(map, count) + 1);
  for (const total of TOTALS) map.set(total, sum + 1);
  for (let i = random(40); i > 0; i -= 1) map.has(count);
  const after = map.getMany(others);
  if (before.some((value, i) => value !== after[i])) fail("another wrote in a locked section");
  checkTotals(map, plan.lanes, false);
}

async function sections(plan: Plan, random: Random): Promise<void> {
  const map = SharedMap.open(plan.shared);
  say("o");
  while (true) {
    say(".");
    const lock = random(3) > 0 ? map.lock() : await map.lockAsync();
    say(lock.recovered ? "hr" : "h");
    section(map, plan, random, lock);
    say("u");
    lock.unlock();
    say("+");
    if (random(8) === 0) await pause(random(3));
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Adds one to this lane's count in the value; everything in it must be of one update. */
export function update(value: SharedValue<Counts>, lane: number): void {
  value.update((current = { counts: {}, padding: checkedValue("padding", 0) }) => {
    const done = checkCounts(current) + 1;
    const counts = { ...current.counts, [lane]: (current.counts[lane] ?? 0) + 1 };
    return { counts, padding: checkedValue("padding", done, 16 + done * 97 % 3000) };
  });
}

/** How many updates were made, by two accounts that must agree. */
export function checkCounts({ counts, padding }: Counts): number {
  const sum = Object.values(counts).reduce((total, count) => total + count, 0);
  const sequence = checkedSequence("padding", padding);
  if (sum !== sequence) fail(`counts make ${sum}, the padding says ${sequence}`);
  return sum;
}

function updates(plan: Plan): void {
  const value = SharedValue.open<Counts>(plan.value);
  say("o");
  while (true) {
    say(".");
    update(value, plan.lane);
    say("+");
  }
}

function journal(plan: Plan): void {
  const map = SharedMap.open(plan.name);
  say("o");
  writeJournal(map, plan.journal!, say);
}

/** Times its calls, and knows for how long this thread waited for a processor. */
class Watch {
  readonly worst = { call: "none", ms: 0 };
  readonly slow: SlowCall[] = [];
  #queued = 0;
  #sampled = 0;

  #readQueued(): number {
    return Number(readFileSync("/proc/self/schedstat", "utf8").split(" ")[1]) / 1e6;
  }

  #begin(): number {
    const now = performance.now();
    if (now - this.#sampled < 50) return now;
    this.#queued = this.#readQueued();
    this.#sampled = performance.now();
    return this.#sampled;
  }

  #end(call: string, began: number): void {
    let ms = performance.now() - began;
    if (ms > 100) ms = Math.max(0, ms - (this.#readQueued() - this.#queued));
    if (ms > this.worst.ms) Object.assign(this.worst, { call, ms });
    if (ms > 1000) this.slow.push({ call, ms, until: Date.now() });
  }

  time<T>(call: string, task: () => T): T {
    const began = this.#begin();
    const result = task();
    this.#end(call, began);
    return result;
  }

  async timeAsync<T>(call: string, task: () => Promise<T>): Promise<T> {
    const began = this.#begin();
    const result = await task();
    this.#end(call, began);
    return result;
  }
}

/** Reads and writes all that the storm is about, and checks every value it meets. */
class Survivor {
  readonly #watch = new Watch();
  readonly #random: Random;
  readonly #map: SharedMap;
  readonly #value: SharedValue<Counts>;
  readonly #watched: SharedMap[];
  #reads = 0;
  #writes = 0;
  #told = 0;
  #sections = 0;
  #updates = 0;

  constructor(readonly plan: Plan) {
    this.#random = seededRandom(plan.seed);
    this.#map = SharedMap.open(plan.shared);
    this.#value = SharedValue.open(plan.value);
    this.#watched = (plan.watched ?? []).map((name) => SharedMap.open(name));
  }

  #check(key: string, value: unknown): void {
    if (value === undefined || /^(?:count|total|stop)\b/.test(key)) return;
    checkedSequence(key, value);
    this.#reads += 1;
  }

  #readSome(map: SharedMap): void {
    const { plan } = this;
    for (let i = 0; i < 60; i += 1) {
      const lane = plan.lanes[this.#random(plan.lanes.length)];
      const prefix = map === this.#map ? `lane ${lane} ` : "";
      const key = `${prefix}${this.#random(2) ? "hot" : "wide"}-${this.#random(12)}`;
      this.#check(key, this.#watch.time("get", () => map.get(key)));
    }
    if (this.#random(4) > 0) return;
    const all = this.#watch.time("toObject", () => map.toObject());
    for (const [key, value] of Object.entries(all)) this.#check(key, value);
    for (const [key, value] of this.#watch.time("entries", () => [...map])) this.#check(key, value);
  }

  #write(): void {
    for (let i = 0; i < 20; i += 1) {
      const key = `survivor ${this.plan.lane} ${this.#random(30)}`;
      const value = checkedValue(key, this.#writes, this.#random(3000));
      this.#watch.time("set", () => this.#map.set(key, value));
      if (this.#map.get(key) !== value) fail(`"${key}" is not what was just stored`);
      this.#writes += 1;
    }
  }

  async #lock(): Promise<void> {
    const lock = this.#random(2)
      ? this.#watch.time("lock", () => this.#map.lock())
      : await this.#watch.timeAsync("lockAsync", () => this.#map.lockAsync());
    this.#told += Number(lock.recovered);
    section(this.#map, this.plan, this.#random, lock);
    this.#watch.time("unlock", () => lock.unlock());
    this.#sections += 1;
  }

  /** Looks at what another lane creates, replaces and unlinks all the time. */
  #visit(): void {
    try {
      const attach = () => SharedMap.open(this.plan.name, { mode: "attach" });
      using map = this.#watch.time("attach", attach);
      for (const [key, value] of this.#watch.time("entries", () => [...map])) {
        this.#check(key, value);
      }
    } catch (error) {
      const code = error instanceof SharedMemoryError ? error.code : "";
      if (code !== "NotFound" && code !== "Replaced") throw error;
    }
  }

  async run(): Promise<Survival> {
    for (let round = 0; !this.#map.has(STOP) && Date.now() < this.plan.until; round += 1) {
      this.#readSome(this.#map);
      this.#readSome(this.#watched[round % this.#watched.length]);
      this.#write();
      this.#visit();
      this.#watch.time("update", () => update(this.#value, this.plan.lane));
      this.#updates += 1;
      checkCounts(this.#watch.time("value get", () => this.#value.get())!);
      await this.#lock();
      await pause(5 + this.#random(15));
    }
    return {
      reads: this.#reads,
      writes: this.#writes,
      told: this.#told,
      worst: this.#watch.worst,
      slow: this.#watch.slow,
      acknowledged: { sections: this.#sections, updates: this.#updates },
    };
  }
}

async function run(plan: Plan): Promise<void> {
  const random = seededRandom(plan.seed);
  say("s");
  if (plan.role === "journal") journal(plan);
  else if (plan.role === "sections") await sections(plan, random);
  else if (plan.role === "updates") updates(plan);
  else if (plan.role === "names") {
    say("o");
    churn({ name: plan.name, seed: plan.seed, rounds: 1e9, dots: true }, say);
  } else {
    const survival = await new Survivor(plan).run();
    say(`\n${JSON.stringify({ request: 1, value: survival })}\n`);
  }
}

if (import.meta.main) {
  try {
    await run(JSON.parse(process.env.SHMAP_STORM!));
  } catch (error) {
    console.error(error instanceof Error ? `${error.message} ${error.stack}` : error);
    process.exit(3);
  }
  process.exit(0);
}
