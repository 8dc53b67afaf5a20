/**
 * Workers that end in the middle of calls, in a process of its own:
 *
 *     workers.ts <seed> <workers> <name of a map>
 *
 * The last line on standard output is a report. After every Worker its lock must come free, and its
 * next holder must find it `recovered` if it was held; at the end nothing may be left of all of
 * them.
 */
import process from "node:process";
import { Mmap, SharedMap, SharedValue } from "../../../mod.ts";
import { type Random, seededRandom } from "../../support/random.ts";
import { compared, growth, measure, type Resources } from "./resources.ts";
import { isWhole, LIFE, type Plan, STEP } from "./worker.ts";

/** What a run of a part found. */
export interface Report {
  tried: number;
  problems: string[];
  note: string;
}

const PARALLEL = 6;
/** After so many the runtime has made what it keeps. */
const WARM_UP = 50;
const END_LIMIT_MS = 20_000;
const LOCK_LIMIT_MS = 10_000;
const SETTLE_LIMIT_MS = 15_000;

type Shared = Pick<Plan, "map" | "named" | "value" | "region">;

class Crowd {
  readonly problems: string[] = [];
  /** How Workers ended, and what those were told that locked after them. */
  readonly endings: Record<string, number> = {};
  started = 0;
  readonly #random: Random;

  constructor(readonly seed: number, readonly shared: Shared) {
    this.#random = seededRandom(seed);
  }

  /** Runs Workers, several at once, until there were `count`. */
  async run(count: number): Promise<void> {
    const lines = Array.from({ length: PARALLEL }, async () => {
      while (this.started < count && this.problems.length < 20) {
        this.started += 1;
        const seed = this.seed + this.started;
        try {
          await this.#one(seed);
        } catch (error) {
          this.problems.push(`Worker ${seed}: ${error}`);
        }
      }
    });
    await Promise.all(lines);
  }

  async #one(seed: number): Promise<void> {
    const random = this.#random;
    using own = SharedMap.anonymous<number>({ timeout: LOCK_LIMIT_MS });
    const plan: Plan = {
      ...this.shared,
      seed,
      own: own.token,
      step: new Int32Array(new SharedArrayBuffer(8)),
      lock: (["none", "release", "keep", "keep", "async"] as const)[random(5)],
      ending: (["close", "throw", "not", "not", "not"] as const)[random(5)],
    };
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    const problem = await this.#untilItsEnd(worker, plan, random);
    worker.terminate();
    if (problem !== undefined) this.problems.push(`Worker ${seed}: ${problem}`);
    await this.#checkLock(own, plan);
  }

  /** Waits for the moment at which this Worker is to be ended: any, while it works, or later. */
  async #untilItsEnd(worker: Worker, plan: Plan, random: Random): Promise<string | undefined> {
    let problem: string | undefined;
    let isOver = false;
    worker.onerror = (event) => {
      event.preventDefault?.();
      isOver = true;
      const isPlanted = plan.ending === "throw" && /planted/.test(event.message);
      if (!isPlanted) problem = `an error: ${event.message}`;
    };
    worker.postMessage(plan);
    const moment = random(10);
    if (moment < 2) await pause(random(40));
    else {
      const life = moment < 6 ? LIFE.working : LIFE.done;
      const end = Date.now() + END_LIMIT_MS;
      while (!isOver && Atomics.load(plan.step, 1) < life) {
        if (Date.now() > end) return "it did not come to its end";
        await pause(1);
      }
      await pause(random(life === LIFE.working ? 30 : 10));
    }
    return problem;
  }

  /** The lock of a Worker that is gone: free, and `recovered` if it had it to the last. */
  async #checkLock(own: SharedMap<number>, plan: Plan): Promise<void> {
    const isSync = this.#random(8) === 0; // which keeps all the others waiting
    using lock = isSync ? own.lock() : await own.lockAsync();
    const step = Atomics.load(plan.step, 0);
    const name = Object.keys(STEP)[step];
    const ending = `${name}${lock.recovered ? ", recovered" : ""}`;
    this.endings[ending] = (this.endings[ending] ?? 0) + 1;
    const isHeld = step === STEP.locked;
    const isOpen = step === STEP.locking || step === STEP.unlocking;
    if (!isOpen && lock.recovered !== isHeld) {
      this.problems.push(`Worker ${plan.seed}: it was ${name}, recovered is ${lock.recovered}`);
    }
    if (!own.verify().ok) this.problems.push(`Worker ${plan.seed}: its own map is damaged`);
  }
}

function damage(map: SharedMap): string[] {
  const report = map.verify();
  const torn = [...map].filter(([key, value]) => !isWhole(key, value));
  return [
    ...(report.ok ? [] : [`verify() of ${map.name} says ${JSON.stringify(report)}`]),
    ...torn.map(([key]) => `"${key}" of ${map.name} is torn`),
  ];
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function run([seed, count, name]: string[]): Promise<Report> {
  using map = SharedMap.anonymous();
  using named = SharedMap.open(name);
  using value = SharedValue.anonymous<number>();
  using region = Mmap.anonymous(5000);
  const tokens = { map: map.token, named: name, value: value.token, region: region.token };
  const crowd = new Crowd(Number(seed), tokens);
  await crowd.run(Math.min(WARM_UP, Number(count)));
  await pause(500);
  const before: Resources = measure();
  await crowd.run(Number(count));
  const { now, grown } = await growth(before, SETTLE_LIMIT_MS, crowd.started);
  const { problems, endings } = crowd;
  problems.push(...grown.map((what) => `after ${crowd.started} Workers: ${what}`));
  problems.push(...damage(map), ...damage(named));
  if (value.tryLock() === undefined) problems.push("the value is still locked");
  named.unlink();
  const note = `${compared(before, now)}; ended ${JSON.stringify(endings)}`;
  return { tried: crowd.started, problems, note };
}

if (import.meta.main) {
  console.log(JSON.stringify(await run(process.argv.slice(2))));
  process.exit();
}
