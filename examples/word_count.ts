/**
 * Counts the words of many files in two Deno and two Bun processes at once, through one SharedMap.
 * One of them is killed in the middle of its work, and another process takes over what it had
 * claimed. At the end the result is compared with a count in a single process.
 *
 *     npm start                                text found among the installed packages
 *     npm start -- README.md docs/design.md    these files
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as pause } from "node:timers/promises";
import { SharedMap } from "shmap";
import { type Counts, countWords, type Shares } from "./word_count_worker.ts";

type Runtime = "deno" | "bun";

interface Worker {
  name: string;
  runtime: Runtime;
  process: ChildProcess;
}

const MODULES = join(import.meta.dirname!, "..", "node_modules");
const SHARE_LENGTH = 256 * 1024;

function inputFiles(): string[] {
  const named = process.argv.slice(2);
  if (named.length > 0) return named;
  return readdirSync(MODULES, { recursive: true, encoding: "utf8" })
    .filter((name) => /\.(md|txt|zig|d\.ts)$/.test(name))
    .map((name) => join(MODULES, name));
}

/** Cuts a text into shares that end with a line. */
function* cut(text: string): Generator<string> {
  for (let start = 0, end; start < text.length; start = end) {
    const newline = text.indexOf("\n", start + SHARE_LENGTH);
    end = newline < 0 ? text.length : newline + 1;
    yield text.slice(start, end);
  }
}

function startWorker(name: string, runtime: Runtime, map: Shares): Worker {
  const options = runtime === "deno" ? ["run", "--allow-ffi"] : ["run"];
  const script = join(import.meta.dirname!, "word_count_worker.ts");
  const args = [...options, script, map.token, name];
  return {
    name,
    runtime,
    process: spawn(join(MODULES, ".bin", runtime), args, { stdio: "inherit" }),
  };
}

function isRunning({ process }: Worker): boolean {
  return process.exitCode === null && process.signalCode === null;
}

/** The shares that `worker` has claimed and not published. */
function unpublished(map: Shares, worker: Worker, shares: number[]): number[] {
  return shares.filter((share) =>
    map.get(`claim:${share}`) === worker.name && !map.has(`counts:${share}`)
  );
}

/** Lets the workers count all shares, killing one on the way. */
async function supervise(map: Shares, shares: number[], workers: Worker[]): Promise<void> {
  let shown = 0;
  let wasKilled = false;
  while (workers.some(isRunning)) {
    const done = shares.filter((share) => map.has(`counts:${share}`)).length;
    if (done > shown + shares.length / 10) {
      shown = done;
      console.log(`${done} of ${shares.length} shares`);
    }
    const victim = !wasKilled && done > shares.length / 3 &&
      workers.find((worker) => isRunning(worker) && unpublished(map, worker, shares).length > 0);
    if (victim) {
      victim.process.kill("SIGKILL");
      await once(victim.process, "exit");
      const left = unpublished(map, victim, shares);
      wasKilled = left.length > 0; // else it published just before it died: kill another one
      const heir = startWorker(victim.name, victim.runtime === "deno" ? "bun" : "deno", map);
      const loss = left.length > 0 ? `in the middle of share ${left}` : "between two shares";
      console.log(`killed ${victim.name} (${victim.runtime}) ${loss}`);
      console.log(`started ${heir.name} again (${heir.runtime})`);
      workers.push(heir);
    }
    await pause(5);
  }
  if (!wasKilled) console.log("no worker was killed: the text is too short for that");
}

function sum(map: Shares, shares: number[]): Counts {
  const total: Counts = new Map();
  for (const share of shares) {
    const counts = map.get(`counts:${share}`);
    if (!(counts instanceof Map)) throw new Error(`no worker counted share ${share}`);
    for (const [word, count] of counts) total.set(word, (total.get(word) ?? 0) + count);
  }
  return total;
}

function isEqual(left: Counts, right: Counts): boolean {
  return left.size === right.size && [...left].every(([word, count]) => right.get(word) === count);
}

const files = inputFiles();
const text = files.map((file) => readFileSync(file, "utf8")).join("\n");
const pieces = [...cut(text)];
const shares = [...pieces.keys()];

using map: Shares = SharedMap.anonymous();
map.setMany(pieces.map((piece, share) => [`text:${share}`, piece]));
const millions = (text.length / 1e6).toFixed(1);
console.log(`${millions} million characters of ${files.length} files in ${shares.length} shares`);

const start = performance.now();
const runtimes: Runtime[] = ["deno", "bun", "deno", "bun"];
const workers = runtimes.map((runtime, index) => startWorker(`worker ${index + 1}`, runtime, map));
await supervise(map, shares, workers);
const total = sum(map, shares);
console.log(`counted in ${((performance.now() - start) / 1000).toFixed(2)} s`);

const top = [...total].sort(([, left], [, right]) => right - left).slice(0, 10);
console.log(`most frequent: ${top.map(([word, count]) => `${word} ${count}`).join(", ")}`);

const isRight = isEqual(total, countWords(text));
console.log(isRight ? "one process alone counts the same" : "one process alone counts OTHERWISE");
process.exitCode = isRight ? 0 : 1;
