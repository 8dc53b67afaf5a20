/**
 * The public API under hostile use, on the runtime that runs this: random calls, Workers that are
 * ended in the middle of calls, and opens without end. Everything happens in processes of its own,
 * so that a crash is a finding and the rest goes on.
 *
 *     deno run -A tests/proof/api.ts [--scale <n>] [--seed <n>] [calls] [workers] [opens]
 *     bun run tests/proof/api.ts --batch <seed>        replays one batch of calls
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { run } from "../../tools/process.mjs";
import { addCounts, type CallCounts } from "./api/count.ts";
import type { BatchReport } from "./api/calls.ts";
import type { Report } from "./api/workers.ts";
import { partArguments } from "./part.mjs";

const PART = 7;
const HERE = "Deno" in globalThis ? "Deno" : "Bun";
const FILES = join(dirname(fileURLToPath(import.meta.url)), "api");
const SHARED_MEMORY = "/dev/shm";
const PREFIX = `shmap-test-${process.pid}-`;
/** What the issue asks for, at scale 1. */
const LEAST = { calls: 100_000, workers: 2000, opens: 10_000 };
const BATCH_CALLS = 4000;
const PARALLEL = 2;
const LIMIT_MS = { batch: 180_000, worker: 400, open: 50 };
const LAST_CALLS = 6;

/** How a process ended. */
interface Ended {
  output: string;
  errors: string;
  /** Empty when it came to a good end. */
  how: string;
}

/** Runs one of the files in a process of its own, which is killed when it takes too long. */
async function runFile(
  file: string,
  args: string[],
  directory: string,
  limitMs: number,
): Promise<Ended> {
  const flags = HERE === "Deno" ? ["run", "-A", "--no-check", "--v8-flags=--expose-gc"] : ["run"];
  const command = [process.execPath, ...flags, join(FILES, file), ...args];
  const { stdout, stderr, how } = await run(command, { cwd: directory, limitMs });
  return { output: stdout, errors: stderr, how };
}

/** The last line of an output, which is a report; undefined when there is none. */
function reportIn<T>({ output }: Ended): T | undefined {
  try {
    return JSON.parse(output.trim().split("\n").at(-1)!);
  } catch {
    return undefined;
  }
}

/** Runs `task` with two directories of its own, and leaves nothing of them behind. */
async function inPlace<T>(
  label: string,
  task: (prefix: string, memory: string, disk: string) => Promise<T>,
): Promise<T> {
  const prefix = `${PREFIX}${label}-`;
  const memory = join(SHARED_MEMORY, `${prefix}directory`);
  mkdirSync(memory);
  const disk = mkdtempSync(join(tmpdir(), prefix));
  try {
    return await task(prefix, memory, disk);
  } finally {
    removeAll(prefix);
  }
}

/** Removes what lies under a prefix, in shared memory and on the disk. */
function removeAll(prefix: string): void {
  for (const directory of [SHARED_MEMORY, tmpdir()]) {
    for (const name of readdirSync(directory)) {
      if (!name.replace(/^\./, "").startsWith(prefix)) continue;
      rmSync(join(directory, name), { recursive: true, force: true });
    }
  }
}

/** Told to end early, it leaves nothing behind either; its processes end with it. */
function endEarly(): void {
  removeAll(PREFIX);
  process.exit(1);
}

/** How often each function of the library was called, in all processes. */
const called: CallCounts = {};

interface Found {
  tried: number;
  found: number;
  note: string;
}

function explain(what: string): void {
  console.error(`${HERE}: ${what}`);
}

/** One batch of calls; what it reports, or what its journal says of a process that died. */
function batch(seed: number, calls: number): Promise<BatchReport> {
  return inPlace(`${seed}`, async (prefix, memory, disk) => {
    const args = [seed, calls, prefix, memory, disk].map(String);
    const ended = await runFile("calls.ts", args, disk, LIMIT_MS.batch);
    const journal = join(memory, "journal");
    const lines = existsSync(journal) ? readFileSync(journal, "utf8").trim().split("\n") : [];
    const report = reportIn<BatchReport>(ended) ??
      { calls: lines.length, problems: [], endings: {} };
    if (ended.how !== "" || !ended.output.includes("{")) {
      const last = lines.slice(-LAST_CALLS).map((line) => `\n    ${line.slice(0, 300)}`);
      const words = ended.errors.trim().slice(0, 2000);
      report.problems.push(
        `it ${ended.how}: ${words}\n  its last calls:${last.join("")}`,
      );
    }
    for (const problem of report.problems) {
      explain(`${problem}\n  replay: api.ts --batch ${seed} --calls ${calls}`);
    }
    return report;
  });
}

/** Batches until there were `least` calls. */
async function callsOf(least: number, seed: number): Promise<Found> {
  const found: Found = { tried: 0, found: 0, note: "" };
  const endings: Record<string, number> = {};
  let next = 0;
  const count = Math.ceil(least / BATCH_CALLS);
  const lines = Array.from({ length: PARALLEL }, async () => {
    while (next < count) {
      next += 1;
      const calls = Math.min(BATCH_CALLS, least);
      const report = await batch((seed + next * 7919) >>> 0, calls);
      addCounts(called, report.counts);
      found.tried += report.calls;
      found.found += report.problems.length;
      for (const [ending, times] of Object.entries(report.endings)) {
        endings[ending] = (endings[ending] ?? 0) + times;
      }
    }
  });
  await Promise.all(lines);
  const counts = Object.entries(endings).sort(([, a], [, b]) => b - a);
  const text = counts.map(([ending, times]) => `${ending} ${times}`).join(", ");
  return { ...found, note: `in ${count} processes; ended as ${text}` };
}

/** A part that runs in one process and reports once. */
async function reported(file: string, count: number, seed: number, limit: number): Promise<Found> {
  const label = file.replace(/\W/g, "");
  const ended = await inPlace(label, (prefix, _, disk) => {
    const place = file === "opens.ts" ? [prefix, disk] : [`${prefix}named`];
    return runFile(file, [`${seed}`, `${count}`, ...place], disk, limit);
  });
  const report = reportIn<Report>(ended) ?? { tried: 0, problems: [], note: "" };
  if (ended.how !== "" || report.tried === 0) {
    report.problems.push(`${file} ${ended.how}: ${ended.errors.slice(-3000)}`);
  }
  for (const problem of report.problems) explain(`${problem}\n  replay: --seed ${seed}`);
  return { tried: report.tried, found: report.problems.length, note: report.note };
}

async function main(): Promise<void> {
  process.on("SIGTERM", endEarly);
  process.on("SIGINT", endEarly);
  const { scale, seed, words, ...told } = partArguments(["batch", "calls"]);
  const { batch: once, calls } = told as { batch?: number; calls?: number };
  if (once !== undefined) {
    const { problems, ...rest } = await batch(once, calls ?? BATCH_CALLS);
    console.log(JSON.stringify({ found: problems.length, ...rest }));
    process.exit(problems.length === 0 ? 0 : 1);
  }
  const wanted = (Object.keys(LEAST) as (keyof typeof LEAST)[]).filter((word) =>
    words.includes(word)
  );
  const least = (word: keyof typeof LEAST) => Math.max(1, Math.floor(LEAST[word] * scale));
  const rows = {
    calls: ["API calls", callsOf],
    workers: [
      "Workers",
      (n: number) => reported("workers.ts", n, seed, 60_000 + n * LIMIT_MS.worker),
    ],
    opens: [
      "opens and closes",
      (n: number) => reported("opens.ts", n, seed, 60_000 + n * LIMIT_MS.open),
    ],
  } as const;
  let isProven = true;
  for (const word of wanted.length > 0 ? wanted : Object.keys(rows) as (keyof typeof rows)[]) {
    const [what, task] = rows[word];
    const start = performance.now();
    const { tried, found, note } = await task(least(word), seed);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    isProven &&= found === 0 && tried >= least(word);
    console.log(JSON.stringify({
      part: PART,
      what: `${what} on ${HERE}`,
      tried,
      found,
      least: least(word),
      seed,
      note: `${note}; ${seconds} s`,
    }));
  }
  console.log(JSON.stringify({ calls: called }));
  process.exit(isProven ? 0 : 1);
}

await main();
