/**
 * One batch of calls, in a process of its own, which may die of them:
 *
 *     calls.ts <seed> <calls> <prefix> <directory in memory> <directory on a disk> [<call>]
 *
 * Each call is written to the journal before it is made; the last line on standard output is a
 * report. With a number at the end the batch stops after that call and shows the ones before it.
 */
import { openSync, writeSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { type CallCounts, countCalls, counts } from "./count.ts";
import { Fuzz } from "./fuzz.ts";

/** What a batch found. */
export interface BatchReport {
  calls: number;
  problems: string[];
  endings: Record<string, number>;
  /** How often each function of the library was called. */
  counts?: CallCounts;
}

/** Where a batch writes its calls. */
export const JOURNAL = "journal";

const TURN_CALLS = 64;
const PROBLEMS_MAX = 20;

async function run([seed, count, prefix, memory, disk]: string[]): Promise<BatchReport> {
  countCalls();
  const journal = openSync(join(memory, JOURNAL), "w");
  let number = 0;
  const fuzz = new Fuzz(Number(seed), { prefix, memory, disk }, (line) => {
    writeSync(journal, `${number} ${line}\n`);
  });
  process.on("unhandledRejection", (reason) => {
    fuzz.problems.push(`call ${number}: a rejection that no code can catch: ${reason}`);
  });
  for (; fuzz.calls < Number(count) && fuzz.problems.length < PROBLEMS_MAX; number += 1) {
    const before = fuzz.problems.length;
    fuzz.step();
    for (let i = before; i < fuzz.problems.length; i += 1) {
      fuzz.problems[i] = `call ${number}: ${fuzz.problems[i]}`;
    }
    if (number % TURN_CALLS === 0) await fuzz.rest(false);
  }
  writeSync(journal, "the end\n");
  await fuzz.rest(true);
  fuzz.finish();
  const { calls, problems, endings } = fuzz;
  return { calls, problems, endings, counts };
}

if (import.meta.main) console.log(JSON.stringify(await run(process.argv.slice(2))));
