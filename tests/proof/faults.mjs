/**
 * Part 4 of the proof: system calls that fail, and kills at system calls.
 *
 *     node tests/proof/faults.mjs [--scale <n>] [--seed <n>]
 *
 * The acts of `act.zig` are disturbed by that program itself, in two halves at once. Then a script
 * in Bun and in Deno is disturbed by strace, in those calls that only the library makes: each is
 * made to fail, and is where the process is killed. Afterwards `shmap-proof-plain act look` goes on
 * with what is left.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { isInstalled, MODULES, ROOT, run } from "../../tools/process.mjs";
import { partArguments } from "./part.mjs";

const { scale, seed } = partArguments();

const NATIVE = [join(ROOT, "zig-out", "bin", "shmap-proof-plain"), "act"];
const SCRIPT = join(ROOT, "tests", "proof", "act.ts");
const SIDES = 2;
const TIMEOUT_MS = 20_000;

/** What the full enumerations have at the least. */
const LEAST = {
  "system calls failed": 8000,
  "kills at system calls": 3500,
  "calls failed in Bun and Deno": 150,
  "kills in Bun and Deno": 50,
};

const RUNTIMES = [
  { name: "bun", command: [join(MODULES, ".bin", "bun"), "run"] },
  { name: "deno", command: [join(MODULES, ".bin", "deno"), "run", "-A", "--no-lock"] },
];
/** Calls that the runtimes leave to the library, but for some at their start. */
const CALLS = ["open", "fstatfs", "fchmod", "fallocate", "linkat", "renameat2", "unlinkat"];
const ERRORS = ["ENOSPC", "ENOMEM", "EINTR", "EIO", "EMFILE"];
/** Calls that the kernel itself may end early for a signal, by their manual pages. */
const INTERRUPTIBLE = ["open", "fstatfs", "fallocate"];
/** What a step may fail with. */
const TYPED = ["NoSpace", "System"];

const totals = new Map();
let isSound = true;

function say(what, { tried, found, note }) {
  const least = Math.floor(LEAST[what] * Math.min(1, scale) * 0.9);
  writeSync(1, `${JSON.stringify({ part: 4, what, tried, found, least, seed, note })}\n`);
  if (found > 0 || tried < least) isSound = false;
}

/** How often each exported function was called, by what it was called on: both sides together. */
const called = {};

function addCalls(calls) {
  for (const [name, counts] of Object.entries(calls)) {
    const sum = called[name] ??= {};
    for (const [on, count] of Object.entries(counts)) sum[on] = (sum[on] ?? 0) + count;
  }
}

function complain(text) {
  process.stderr.write(`${text}\n`);
}

function linesOf(text) {
  return text.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
}

async function runNative() {
  const halves = await Promise.all(Array.from({ length: SIDES }, (_, side) => {
    const words = ["share", String(side), String(SIDES)];
    const args = [...words, "--scale", String(scale), "--seed", String(seed)];
    return run([...NATIVE, ...args], { limitMs: 600_000 * Math.max(1, scale) });
  }));
  for (const { stdout, stderr, status, how } of halves) {
    process.stderr.write(stderr);
    const lines = linesOf(stdout);
    addCalls(lines.findLast(({ calls }) => calls)?.calls ?? {}); // it counts on from line to line
    for (const { what, tried, found, note } of lines.filter(({ what }) => what)) {
      const sum = totals.get(what) ?? { tried: 0, found: 0 };
      totals.set(what, { tried: sum.tried + tried, found: sum.found + found, note });
    }
    if (status === 0) continue;
    if (status !== 1) complain(`shmap-proof-plain act ${how}`);
    isSound = false;
  }
  writeSync(1, `${JSON.stringify({ calls: called })}\n`);
  for (const what of ["system calls failed", "kills at system calls"]) {
    say(what, totals.get(what) ?? { tried: 0, found: 0, note: "" });
  }
}

/** Why strace cannot be used here, or nothing. */
async function missing() {
  if (!isInstalled("strace")) return "no strace";
  const { isOk, stderr } = await run(["strace", "-f", "true"]);
  return isOk ? undefined : `strace fails: ${stderr.trim().split("\n").at(-1)}`;
}

/** One run of the script under strace, in a directory of its own. */
async function trace(runtime, base, side, inject) {
  const directory = join(base, `run-${side}`);
  const log = join(base, `log-${side}`);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory);
  const words = ["-f", "-o", log, "-e", `trace=${CALLS.join()}`];
  if (inject) words.push("-e", `inject=${inject}`);
  if (!inject?.includes("SIGKILL")) words.push("--seccomp-bpf"); // faster, but sends no signals
  const command = ["strace", ...words, ...runtime.command, SCRIPT, directory];
  const result = await run(command, { limitMs: TIMEOUT_MS });
  return { ...result, directory, lines: readFileSync(log, "utf8").split("\n") };
}

/** The calls of the main thread that are ours: from the first that names the directory on. */
function ownCalls({ lines, directory }) {
  const main = lines[0].split(" ")[0];
  const counts = new Map();
  const own = [];
  let hasBegun = false;
  for (const line of lines) {
    const [, thread, call] = /^(\d+) +(\w+)\(/.exec(line) ?? [];
    if (thread !== main) continue;
    counts.set(call, (counts.get(call) ?? 0) + 1);
    hasBegun ||= line.includes(`"${directory}"`);
    if (hasBegun) own.push({ call, n: counts.get(call) });
  }
  return own;
}

/** What is wrong after a run in which a call was made to fail, or to be the last one. */
async function judge({ directory, stdout, stderr, isLate, status, signal }, { kill, error, call }) {
  if (isLate) return "hung";
  const steps = linesOf(stdout);
  const failed = steps.filter((step) => step.failed);
  if (kill) {
    if (signal !== "SIGKILL" && status !== 137) return `ended by ${signal ?? status}`;
  } else {
    if (status !== 0) return `ended by ${signal ?? status}: ${stderr.slice(0, 300)}`;
    if (failed.length > 1) return `failed more than once: ${JSON.stringify(failed)}`;
    for (const { name, failed: how, again } of failed) {
      if (!TYPED.includes(how)) return `${name} failed with ${how}`;
      if (again) return `${name} failed with ${how}, and then with ${again}`;
      if (error === "EINTR" && INTERRUPTIBLE.includes(call)) {
        return `${name} failed with ${how}: not made again`;
      }
      if (error === "ENOSPC" && call === "fallocate" && how !== "NoSpace") return `told ${how}`;
    }
    if (steps.length !== 13) return `${steps.length} steps: ${stdout}`;
  }
  const look = await run([...NATIVE, "look", directory], { limitMs: TIMEOUT_MS });
  if (!look.isOk) return `afterwards: ${look.stderr.trim()}`;
  const left = readdirSync(directory);
  return left.length === 1 && left[0] === "map" ? undefined : `left over: ${left.join(" ")}`;
}

/** Whether the disturbance met a call of ours and nothing else. */
function wasOurs({ lines, directory }, { kill, call, n }) {
  const main = lines[0].split(" ")[0];
  const own = ownCalls({ lines, directory });
  if (kill) return own.at(-1)?.call === call && own.at(-1)?.n === n;
  const injected = lines.filter((line) => line.includes("(INJECTED)"));
  return injected.length === 1 && injected[0].startsWith(`${main} `);
}

async function runRuntimes(base) {
  const failing = { tried: 0, found: 0, missed: 0 };
  const killing = { tried: 0, found: 0, missed: 0 };
  const jobs = [];
  for (const runtime of RUNTIMES) {
    const plain = await trace(runtime, base, 0);
    const wrong = await judge(plain, {});
    if (wrong) throw new Error(`${runtime.name} fails undisturbed: ${wrong}`);
    for (const own of ownCalls(plain)) {
      jobs.push({ runtime, ...own, kill: true });
      for (const error of ERRORS) jobs.push({ runtime, ...own, error });
    }
  }
  let state = seed % 2147483647;
  const dice = () => (state = (state * 48271 + 1) % 2147483647) / 2147483647;
  // As large a share of each kind as the scale says: a few drawn by themselves may be too few.
  const drawn = jobs.map((job) => ({ job, lot: dice() })).sort((a, b) => a.lot - b.lot);
  const chosen = [true, false].flatMap((isKill) => {
    const kind = drawn.map(({ job }) => job).filter(({ kill = false }) => kill === isKill);
    return kind.slice(0, Math.ceil(kind.length * scale));
  });
  await Promise.all(Array.from({ length: SIDES }, async (_, side) => {
    for (let job = chosen.pop(); job; job = chosen.pop()) {
      const tally = job.kill ? killing : failing;
      const deed = job.kill ? "signal=SIGKILL" : `error=${job.error}`;
      const result = await trace(job.runtime, base, side, `${job.call}:${deed}:when=${job.n}`);
      if (!result.isLate && !wasOurs(result, job)) {
        tally.missed += 1;
        continue;
      }
      tally.tried += 1;
      const wrong = await judge(result, job);
      if (!wrong) continue;
      tally.found += 1;
      complain(`${job.runtime.name}: ${job.call} ${job.n} ${deed}: ${wrong}`);
    }
  }));
  const note = ({ missed }) => `by strace, ${missed} met another call`;
  say("calls failed in Bun and Deno", { ...failing, note: note(failing) });
  say("kills in Bun and Deno", { ...killing, note: note(killing) });
}

await runNative();
const reason = await missing();
if (reason) {
  for (const what of ["calls failed in Bun and Deno", "kills in Bun and Deno"]) {
    writeSync(1, `${JSON.stringify({ part: 4, what, skipped: reason })}\n`);
  }
} else {
  const base = mkdtempSync(`/dev/shm/shmap-test-${process.pid}-faults-`);
  try {
    await runRuntimes(base);
  } finally {
    rmSync(base, { recursive: true, force: true });
  }
}
process.exitCode = isSound ? 0 : 1;
