/**
 * The project's runner: installs what is missing, builds the library, runs every check and every
 * suite, and adds up what they counted. It needs Node and npm only, and says
 * `N passed, N failed, N skipped` in its last line.
 *
 *     node tools/check.mjs              everything
 *     node tools/check.mjs check        the checks that run no suite
 *     node tools/check.mjs "bun test"   the steps of these names
 *     node tools/check.mjs start        one of the tasks below, in the terminal
 *
 * A suite counts by its own summary; any other step counts as one. A step that crashes, hangs, runs
 * nothing or cannot be read counts as a failure.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const MODULES = join(ROOT, "node_modules");
const SHARED_MEMORY = "/dev/shm";
const STEP_TIMEOUT_MS = 20 * 60_000;
const OUTPUT_LINES_MAX = 400;

export const ENVIRONMENT = {
  ...process.env,
  PATH: join(MODULES, ".bin") + delimiter + (process.env.PATH ?? ""),
  NO_COLOR: "1",
  DENO_NO_UPDATE_CHECK: "1",
  // A home directory may be missing or read-only; the repository is neither.
  ZIG_GLOBAL_CACHE_DIR: process.env.ZIG_GLOBAL_CACHE_DIR ?? join(ROOT, ".zig-cache", "global"),
  DENO_DIR: process.env.DENO_DIR ?? join(MODULES, ".cache", "deno"),
};

/** The suites of what a map can do, which also run over segments with kernel locks. */
const MAP_SUITES = (
  "api/map api/map_additions api/values perl/seed processes/space processes/flood " +
  "processes/processes processes/crash api/lifecycle processes/foreign api/token " +
  "processes/owners api/value api/lock"
).split(" ").map((name) => `tests/${name}_test.ts`);
/** A third of the long work, all of which is done with the usual lock. */
const KERNEL_LOCKS = { SHMAP_TEST_LOCK: "kernel", SHMAP_TEST_SCALE: "0.3" };

const ZIG_SOURCES = ["build.zig", "build.zig.zon", "zig", "tests", "bench"];
const SCRIPTS = ["mod.ts", "src", "tests", "examples", "bench", "tools"];
const WORD_COUNT = "examples/word_count.ts";
const WORD_COUNT_ON_DENO =
  `deno run --allow-env --allow-ffi --allow-read --allow-run ${WORD_COUNT}`;
/** What the example says when it has shown what it is for. */
const WORKER_KILLED = /^killed worker \d \(\w+\) in the middle of share \d+$/m;

/** What `npm run <name>` does beside testing; arguments are handed to the last command. */
const TASKS = {
  setup: ["zig build"],
  start: ["zig build", WORD_COUNT_ON_DENO],
  build: ["zig build"],
  "build:all": ["node tools/package/build.mjs build"],
  pack: ["node tools/package/build.mjs pack"],
  peer: ["zig build peer"],
  abi: ["zig build abi"],
  fmt: [`zig fmt ${ZIG_SOURCES.join(" ")}`, "deno fmt"],
};

/**
 * Every step in its order. `count` reads a suite's summary, `says` must be found in the output, and
 * what `isCheck` runs no suite.
 */
const STEPS = [
  { name: "zig fmt", isCheck: true, command: ["zig", "fmt", "--check", ...ZIG_SOURCES] },
  { name: "deno fmt", isCheck: true, command: "deno fmt --check" },
  { name: "deno lint", isCheck: true, command: "deno lint" },
  { name: "deno check", isCheck: true, command: ["deno", "check", ...existing(SCRIPTS)] },
  { name: "deno doc", isCheck: true, command: "deno doc --lint mod.ts" },
  { name: "deno publish", isCheck: true, command: "deno publish --dry-run --allow-dirty" },
  { name: "fresh abi", isCheck: true, task: checkAbi },
  { name: "zig build", command: "zig build" },
  // The peer besides, which takes a core as long to compile as the tests.
  { name: "zig test", command: "zig build peer test --summary all", count: zigCounts },
  { name: "deno test", command: "deno test -A tests", count: denoCounts },
  { name: "bun test", command: "bun test --timeout 300000 ./tests", count: bunCounts },
  {
    name: "deno test, kernel locks",
    command: ["deno", "test", "-A", ...MAP_SUITES],
    env: KERNEL_LOCKS,
    count: denoCounts,
  },
  {
    name: "bun test, kernel locks",
    command: ["bun", "test", "--timeout", "300000", ...MAP_SUITES.map((path) => `./${path}`)],
    env: KERNEL_LOCKS,
    count: bunCounts,
  },
  { name: "doc examples", command: "deno test -A --doc mod.ts src", count: denoCounts },
  { name: "example on deno", command: WORD_COUNT_ON_DENO, says: WORKER_KILLED },
  { name: "example on bun", command: `bun run ${WORD_COUNT}`, says: WORKER_KILLED },
  { name: "packages", command: "node tools/package/try.mjs", count: plainCounts },
  { name: "leftovers", task: checkLeftovers },
];

/** Paths among `paths` that this checkout has. */
function existing(paths) {
  return paths.filter((path) => existsSync(join(ROOT, path)));
}

/** Runs a command in the repository and resolves with what it said and how it ended. */
function run(command, env = {}) {
  const [program, ...args] = words(command);
  return new Promise((resolve) => {
    let output = "";
    const child = spawn(program, args, {
      cwd: ROOT,
      env: { ...ENVIRONMENT, ...env },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true, // leads a process group of its own, which ends as a whole when it hangs
    });
    const alarm = setTimeout(() => {
      output += `\nstopped after ${STEP_TIMEOUT_MS / 60_000} minutes\n`;
      process.kill(-child.pid, "SIGKILL");
    }, STEP_TIMEOUT_MS);
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => output += text);
    }
    const finish = (isOk) => {
      clearTimeout(alarm);
      resolve({ isOk, output });
    };
    child.on("error", (error) => {
      output += `${program}: ${error.message}\n`;
      finish(false);
    });
    child.on("close", (code, signal) => {
      if (signal) output += `${program}: ended by ${signal}\n`;
      finish(code === 0);
    });
  });
}

/** Runs a command in the terminal; resolves with whether it ended well. */
function runHere(command) {
  const [program, ...args] = words(command);
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: ROOT, env: ENVIRONMENT, stdio: "inherit" });
    child.on("error", reject);
    child.on("close", (code) => resolve(code === 0));
  });
}

function words(command) {
  return Array.isArray(command) ? command : command.split(" ");
}

/** Counts in `deno test`'s summary: `ok | 3 passed (2 steps) | 0 failed | 1 ignored (10ms)`. */
export function denoCounts(output) {
  const summary = last(output, /^(?:ok|FAILED) \| (\d+) passed\b.*? \| (\d+) failed\b(.*)$/gm);
  if (!summary) return undefined;
  const ignored = /\| (\d+) ignored\b/.exec(summary[3]);
  return {
    passed: Number(summary[1]),
    failed: Number(summary[2]),
    skipped: Number(ignored?.[1] ?? 0),
    reasons: matches(output, /^(.*) \.\.\. ignored\b/gm),
  };
}

/** Counts in `bun test`'s summary: lines ` 3 pass`, ` 1 skip` (if any), ` 0 fail`. */
export function bunCounts(output) {
  const passed = last(output, /^ *(\d+) pass$/gm);
  const failed = last(output, /^ *(\d+) fail$/gm);
  if (!passed || !failed || !/^Ran \d+ tests? across/m.test(output)) return undefined;
  const unfinished = matches(output, /^ *(\d+) (?:skip|todo)$/gm).map(Number);
  const errors = Number(last(output, /^ *(\d+) errors?$/gm)?.[1] ?? 0);
  return {
    passed: Number(passed[1]),
    failed: Number(failed[1]) + errors,
    skipped: unfinished.reduce((sum, count) => sum + count, 0),
    // Bun says each where it is its turn, and all of them at the end.
    reasons: [...new Set(matches(output, /^\((?:skip|todo)\) (.*?)(?: \[[\d.]+ms\])?$/gm))],
  };
}

/** Counts in Zig's build summary: `…; 10/12 tests passed (1 skipped, 1 failed)`. */
export function zigCounts(output) {
  const summary = last(output, /^Build Summary:.*; (\d+)\/(\d+) tests passed(?: \((.*)\))?.*$/gm);
  if (!summary) return undefined;
  const passed = Number(summary[1]);
  const skipped = Number(/(\d+) skipped/.exec(summary[3] ?? "")?.[1] ?? 0);
  return {
    passed,
    failed: Number(summary[2]) - passed - skipped,
    skipped,
    reasons: matches(output, /^(.*\bskipped: .*)$/gm),
  };
}

/** Counts in the last line of our own scripts: `3 passed, 0 failed, 1 skipped`. */
export function plainCounts(output) {
  const summary = /^(\d+) passed, (\d+) failed, (\d+) skipped$/.exec(
    output.trimEnd().split("\n").at(-1),
  );
  if (!summary) return undefined;
  const [passed, failed, skipped] = summary.slice(1).map(Number);
  return { passed, failed, skipped, reasons: matches(output, /^skipped (.*)$/gm) };
}

function last(text, pattern) {
  return [...text.matchAll(pattern)].at(-1);
}

function matches(text, pattern) {
  return [...text.matchAll(pattern)].map((match) => match[1]);
}

/** What a step's end is worth: its own counts, made honest, or one for the whole step. */
export function worth(count, isOk, output) {
  if (!count) return { passed: isOk ? 1 : 0, failed: isOk ? 0 : 1, skipped: 0, reasons: [] };
  const counts = count(output) ?? { passed: 0, failed: 0, skipped: 0, reasons: [] };
  const isEmpty = counts.passed + counts.failed === 0;
  if (counts.failed === 0 && (isEmpty || !isOk)) counts.failed = 1;
  return counts;
}

/** `src/ffi/abi.ts` is what `zig build abi` writes; an outdated one is put back as it was. */
async function checkAbi() {
  const path = join(ROOT, "src", "_abi.ts");
  const before = readFileSync(path, "utf8");
  const { isOk, output } = await run("zig build abi");
  if (!isOk) return { isOk, output };
  const after = readFileSync(path, "utf8");
  if (after === before) return { isOk, output };
  writeFileSync(path, before);
  return { isOk: false, output: "src/ffi/abi.ts is outdated: run `npm run abi`\n" };
}

/** The test segments in shared memory whose process is gone. */
function leftovers() {
  if (!existsSync(SHARED_MEMORY)) return [];
  return readdirSync(SHARED_MEMORY).filter((file) => {
    const pid = /^\.?shmap-test-(\d+)-/.exec(file)?.[1];
    return pid && !existsSync(`/proc/${pid}`);
  });
}

const leftoversBefore = new Set(leftovers());

/** The suites removed what they made in shared memory. */
function checkLeftovers() {
  const names = leftovers().filter((name) => !leftoversBefore.has(name));
  return { isOk: names.length === 0, output: names.join("\n") };
}

/** Direct dependencies whose installed version is not the locked one. */
function missingPackages() {
  const lock = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")).packages;
  const { dependencies, devDependencies } = lock[""];
  return Object.keys({ ...dependencies, ...devDependencies }).filter((name) => {
    const manifest = join(MODULES, name, "package.json");
    if (!existsSync(manifest)) return true;
    const { version } = JSON.parse(readFileSync(manifest, "utf8"));
    return version !== lock[`node_modules/${name}`].version;
  });
}

/** Installs what is missing. npm may have been told to run no install scripts: then we run them. */
export async function install() {
  if (missingPackages().length > 0) {
    console.log("installing the locked packages with npm ci");
    const { isOk, output } = await run("npm ci --no-audit --no-fund");
    if (!isOk) return { isOk, output };
  }
  if (!(await run("bun --version")).isOk) {
    const { isOk, output } = await run("node node_modules/bun/install.js");
    if (!isOk) return { isOk, output };
  }
  if (realpathSync(join(MODULES, ".bin", "deno")).endsWith(".cjs")) {
    return run("node node_modules/deno/install.cjs");
  }
  return { isOk: true, output: "" };
}

/** Runs a task of the table, after installing what it needs. */
async function runTask(name, args) {
  const { isOk, output } = await install();
  if (!isOk) console.error(output);
  const last = TASKS[name].length - 1;
  let isGood = isOk;
  for (const [index, command] of TASKS[name].entries()) {
    isGood &&= await runHere([...words(command), ...(index === last ? args : [])]);
  }
  return isGood;
}

function indented(output) {
  const lines = output.trimEnd().split("\n");
  const left = lines.length - OUTPUT_LINES_MAX;
  const shown = left > 0 ? [`… ${left} lines …`, ...lines.slice(left)] : lines;
  return shown.map((line) => `    ${line}`).join("\n");
}

function report(name, counts, output, seconds) {
  const isGood = counts.failed === 0;
  const numbers = `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`;
  console.log(`${isGood ? "ok    " : "FAILED"} ${name}: ${numbers} (${seconds.toFixed(1)} s)`);
  for (const reason of counts.reasons) console.log(`    not run: ${reason}`);
  if (!isGood) console.log(indented(output));
}

/** Runs the steps one after another and reports each; returns what they add up to. */
async function runSteps(steps) {
  const total = { passed: 0, failed: 0, skipped: 0 };
  for (const { name, command, env, task, count, says } of steps) {
    const start = performance.now();
    const { isOk, output } = await (task ? task() : run(command, env));
    const counts = worth(count, isOk && (says?.test(output) ?? true), output);
    report(name, counts, output, (performance.now() - start) / 1000);
    for (const kind of Object.keys(total)) total[kind] += counts[kind];
    if (task === install && !isOk) break; // nothing else could say more
  }
  return total;
}

/** The steps of these names, all without one; undefined when a name is nobody's. */
function chosenSteps(wanted) {
  const names = new Set(["check", ...STEPS.map((step) => step.name)]);
  if (wanted.some((name) => !names.has(name))) return undefined;
  if (wanted.length === 0) return STEPS;
  return STEPS.filter((step) =>
    wanted.includes(step.name) || (step.isCheck && wanted.includes("check"))
  );
}

async function main(wanted) {
  if (wanted[0] in TASKS) return runTask(wanted[0], wanted.slice(1));
  const steps = chosenSteps(wanted);
  if (!steps) {
    const names = [...Object.keys(TASKS), "check", ...STEPS.map((step) => step.name)];
    console.error(`there is: ${names.join(", ")}`);
    return false;
  }
  const total = await runSteps([{ name: "install", task: install }, ...steps]);
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  return total.failed === 0;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  process.exitCode = await main(process.argv.slice(2)) ? 0 : 1;
}
