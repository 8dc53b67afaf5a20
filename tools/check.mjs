/**
 * The project's runner: installs what is missing, builds the library, runs checks and suites two at
 * a time, and adds up what they counted. It needs Node and npm only, and says
 * `N passed, N failed, N skipped` in its last line.
 *
 *     node tools/check.mjs              what `npm test` does: every suite, with less of each
 *     node tools/check.mjs quick        what a change needs while it is written
 *     node tools/check.mjs full         every suite at full size
 *     node tools/check.mjs check        the checks that run no suite
 *     node tools/check.mjs "bun test"   the steps of these names
 *     node tools/check.mjs start        one of the tasks below, in the terminal
 *
 * SHMAP_TEST_SCALE, where it is set, decides how much of its work a test does.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { honest, inWords, junitCounts, plainCounts, sum, zigCounts } from "./counts.mjs";
import { install } from "./install.mjs";
import { filters, zigTestsFor } from "./left_out.mjs";
import { ENVIRONMENT, inLanes, ROOT, run } from "./process.mjs";

const SHARED_MEMORY = "/dev/shm";
const OUTPUT_LINES_MAX = 400;
/** A step is far shorter, but for the whole suites at full size. */
const STEP_MS = 40 * 60_000;
/** How many steps run at once. */
const LANES = 2;

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

/** The suites that try the public classes in seconds: half of them on each runtime. */
const QUICK = {
  deno: paths("api/map api/lock api/errors api/pack"),
  bun: paths("api/values api/value api/mmap api/token"),
};
/**
 * The suites that reach the lock of a stripe, of the pool or of a user, which also run over kernel
 * locks: half of them on each runtime, beside children of both.
 */
const LOCK_SUITES = {
  deno: paths("api/map api/value processes/space processes/owners"),
  bun: paths("api/map_additions api/lock processes/processes processes/crash"),
};
/** Over kernel locks at full size: all that a map can do, on both runtimes. */
const MAP_SUITES = [
  ...LOCK_SUITES.deno,
  ...LOCK_SUITES.bun,
  ...paths("api/values perl/seed processes/flood api/lifecycle processes/foreign api/token"),
];
/** With kernel locks less of the long work, all of which is done with the usual lock. */
const KERNEL_SCALE_MAX = 0.3;

function paths(names) {
  return names.split(" ").map((name) => `tests/${name}_test.ts`);
}

/** The directory of the reports that suites write; it goes when this process ends. */
const reports = mkdtempSync(join(tmpdir(), "shmap-reports-"));
process.on("exit", () => rmSync(reports, { recursive: true, force: true }));

/** The start of the command that runs suites on each runtime and writes what they counted. */
const TEST = {
  deno: (report) => ["deno", "test", "-A", `--junit-path=${report}`],
  bun: (report) => [
    ...["bun", "test", "--timeout", "300000"],
    ...["--reporter=junit", `--reporter-outfile=${report}`],
  ],
};

const FLAGS = { deno: ["--no-check"], bun: [] };

/** A step that runs suites on a runtime; their types are a check of its own. */
function suites(name, runtime, wanted, { env = {}, flags = FLAGS[runtime] } = {}) {
  const report = join(reports, `${name.replaceAll(/\W+/g, "-")}.xml`);
  const files = wanted.map((path) => `./${path}`);
  const command = [...TEST[runtime](report), ...flags, ...files];
  const count = () => existsSync(report) ? junitCounts(readFileSync(report, "utf8")) : undefined;
  return { name, command, env, count };
}

const CHECKS = [
  { name: "zig fmt", command: ["zig", "fmt", "--check", ...ZIG_SOURCES] },
  { name: "deno fmt", command: "deno fmt --check" },
  { name: "deno lint", command: "deno lint" },
  { name: "deno check", command: ["deno", "check", ...existing(SCRIPTS)] },
];
const SLOWER_CHECKS = [
  { name: "deno doc", command: "deno doc --lint mod.ts" },
  { name: "deno publish", command: "deno publish --dry-run --allow-dirty" },
  { name: "fresh abi", task: checkAbi },
];
const BUILD = { name: "zig build", command: "zig build" };
/** A process with another libc, which suites start. */
const PEER = { name: "zig build peer", command: "zig build peer" };
const EXAMPLES = [
  { name: "npm start", command: "npm start", says: WORKER_KILLED },
  { name: "example on bun", command: `bun run ${WORD_COUNT}`, says: WORKER_KILLED },
];
const LEFTOVERS = { name: "leftovers", task: checkLeftovers };

function zigTest(mode, names = []) {
  const command = ["zig", "test", "zig/root.zig", "-lc", "-O", mode, ...filters(names)];
  return { name: "zig test", command, count: zigCounts };
}

/**
 * The Zig tests once more, by the program that was compiled already: every handle maps no more than
 * there is, and so maps anew at every growth (`zig/segment/mappings.zig`).
 */
const SMALL_MAPPINGS = {
  ...zigTest("ReleaseSafe"),
  name: "zig test, small mappings",
  env: { SHMAP_SMALL_MAPPINGS: "1" },
};

/** The same with extents that park for every entry with a chunk of its own (`parked.zig`). */
const SMALL_EXTENTS = {
  ...zigTest("ReleaseSafe"),
  name: "zig test, small extents",
  env: { SHMAP_SMALL_EXTENTS: "1" },
};

/** The steps of `npm test`, and of the same at full size with kernel locks for all of a map. */
function everything(kernelSuites, scale, more = []) {
  const kernel = {
    SHMAP_TEST_LOCK: "kernel",
    SHMAP_TEST_SCALE: String(Math.min(scale / 2, KERNEL_SCALE_MAX)),
  };
  return [
    [BUILD, ...CHECKS],
    [PEER, zigTest("ReleaseSafe"), ...SLOWER_CHECKS],
    [
      suites("deno test", "deno", ["tests"]),
      suites("bun test", "bun", ["tests"]),
      { name: "packages", command: "node tools/package/try.mjs", count: plainCounts },
      suites("deno test, kernel locks", "deno", kernelSuites.deno, { env: kernel }),
      suites("bun test, kernel locks", "bun", kernelSuites.bun, { env: kernel }),
      suites("doc examples", "deno", ["mod.ts", "src"], { flags: ["--doc"] }),
      ...EXAMPLES,
      ...more,
    ],
    [LEFTOVERS],
  ];
}

/**
 * The loops: how much of its work a test does, and phases of steps. A phase begins when the one
 * before it has ended; its steps begin in their order.
 */
const LOOPS = {
  quick: {
    scale: 0.05,
    phases: () => [
      [BUILD],
      [
        suites("quick suites on bun", "bun", QUICK.bun),
        suites("quick suites on deno", "deno", QUICK.deno),
        zigTest("Debug", zigTestsFor("quick")),
        ...CHECKS,
        suites("tidy", "deno", paths("house/tidy")),
      ],
      [LEFTOVERS],
    ],
  },
  test: { scale: 0.2, phases: (scale) => everything(LOCK_SUITES, scale) },
  full: {
    scale: 1,
    phases: (scale) =>
      everything({ deno: MAP_SUITES, bun: MAP_SUITES }, scale, [
        SMALL_MAPPINGS,
        SMALL_EXTENTS,
      ]),
  },
  check: { scale: 1, phases: () => [[...CHECKS, ...SLOWER_CHECKS]] },
};

/** Paths among `all` that this checkout has. */
function existing(all) {
  return all.filter((path) => existsSync(join(ROOT, path)));
}

function words(command) {
  return Array.isArray(command) ? command : command.split(" ");
}

/** `src/ffi/abi.ts` is what `zig build abi` writes; an outdated one is put back as it was. */
async function checkAbi() {
  const path = join(ROOT, "src", "ffi", "abi.ts");
  const before = readFileSync(path, "utf8");
  const { isOk, output } = await run(["zig", "build", "abi"]);
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

/** Runs a task of the table in the terminal, after installing what it needs. */
async function runTask(name, args) {
  const { isOk, output } = await install();
  if (!isOk) console.error(output);
  const last = TASKS[name].length - 1;
  let isGood = isOk;
  for (const [index, command] of TASKS[name].entries()) {
    const whole = [...words(command), ...(index === last ? args : [])];
    // Building says nothing by itself, and takes a minute where nothing is built yet.
    if (index < last) console.log(command);
    isGood &&= (await run(whole, { show: true })).isOk;
  }
  return isGood;
}

function indented(output) {
  const lines = output.trimEnd().split("\n");
  const left = lines.length - OUTPUT_LINES_MAX;
  const shown = left > 0 ? [`… ${left} lines …`, ...lines.slice(left)] : lines;
  return shown.map((line) => `    ${line}`).join("\n");
}

/** Runs a step and says how it ended; a step without counts of its own counts as one. */
async function runStep({ name, command, env, task, count, says }, scale) {
  const start = performance.now();
  const told = { ...ENVIRONMENT, SHMAP_TEST_SCALE: scale, ...env };
  const ended = await (task?.() ?? run(words(command), { env: told, limitMs: STEP_MS }));
  const isOk = ended.isOk && (says?.test(ended.output) ?? true);
  const whole = { passed: isOk ? 1 : 0, failed: isOk ? 0 : 1, skipped: 0, reasons: [] };
  const counts = honest(count ? count(ended.output) : whole, isOk);
  const isGood = counts.failed === 0;
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${isGood ? "ok    " : "FAILED"} ${name}: ${inWords(counts)} (${seconds} s)`);
  for (const reason of counts.reasons) console.log(`    not run: ${reason}`);
  if (!isGood) console.log(indented(`${ended.output}\n${ended.how ?? ""}`));
  return counts;
}

/** The loop and the steps that these words name; undefined if one names nothing. */
function chosen(wanted) {
  if (wanted.length === 1 && wanted[0] in LOOPS) return { loop: LOOPS[wanted[0]], only: undefined };
  const loop = LOOPS.test;
  if (wanted.length === 0) return { loop, only: undefined };
  const names = loop.phases(loop.scale).flat().map(({ name }) => name);
  return wanted.every((name) => names.includes(name)) ? { loop, only: wanted } : undefined;
}

async function main([first, ...rest]) {
  if (first in TASKS) return runTask(first, rest);
  const { positionals } = parseArgs({
    args: [first, ...rest].filter(Boolean),
    allowPositionals: true,
  });
  const choice = chosen(positionals);
  if (!choice) {
    const steps = LOOPS.test.phases(1).flat().map(({ name }) => name);
    console.error(
      `there is: ${[...Object.keys(TASKS), ...Object.keys(LOOPS), ...steps].join(", ")}`,
    );
    return false;
  }
  const scale = process.env.SHMAP_TEST_SCALE ?? String(choice.loop.scale);
  const all = [await runStep({ name: "install", task: install }, scale)];
  const isInstalled = all[0].failed === 0; // without it nothing else could say more
  for (const phase of isInstalled ? choice.loop.phases(Number(scale)) : []) {
    const steps = phase.filter(({ name }) => choice.only?.includes(name) ?? true);
    await inLanes(LANES, steps, async (step) => all.push(await runStep(step, scale)));
  }
  const total = sum(all);
  console.log(inWords(total));
  return total.failed === 0;
}

process.exitCode = await main(process.argv.slice(2)) ? 0 : 1;
