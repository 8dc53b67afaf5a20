/**
 * The proof that a kill at any instruction is harmless: builds its parts, runs them, and prints one
 * table of what was tried and what was found.
 *
 *     node tests/proof/run.mjs                    every part, at most fifteen minutes on two cores
 *     node tests/proof/run.mjs --scale 20         sizes twenty times as large
 *     node tests/proof/run.mjs --minutes 10       sizes for which there is time
 *     node tests/proof/run.mjs life --seed 7      one part, replayed
 *
 * A part prints one line of JSON for each row: `{ part, what, tried, found, least, seed, note }`,
 * or `{ part, what, skipped }`; and lines `{ calls }`, of which the last says how often it called
 * each exported function (`calls.mjs`). A row passes when nothing was found and at least `least`
 * was tried.
 * The last line is `N passed, N failed, N skipped`, of rows.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { judgeCalls } from "./calls.mjs";
import { install } from "../../tools/install.mjs";
import { inWords } from "../../tools/counts.mjs";
import { ENVIRONMENT, run } from "../../tools/process.mjs";
import { PROGRAM_OF } from "../../tools/proof_programs.mjs";

const CORES = 2;
const STDERR_LINES_MAX = 60;
/** After so long a part is stopped, for it hangs: beside other load the slowest takes fourteen. */
const MINUTES_MAX = 25;
/** Below this some parts try nothing of a kind. */
const SCALE_MIN = 0.01;
/** From here on what is drawn at random comes to each function that a part calls. */
const SCALE_OF_CALLS = 0.1;

/**
 * What runs, in this order; `cores`: how many it keeps busy; `seconds`: what it takes at any scale,
 * and besides at scale 1, on two free cores; `share`: how much of its work at scale 1 is enough.
 * Native parts are built first.
 */
const PARTS = [
  { name: "storm", cores: 2, seconds: [1, 80], command: native("storm") },
  {
    name: "storm with small mappings",
    cores: 2,
    seconds: [1, 20],
    command: native("storm"),
    share: 0.25,
    env: { SHMAP_SMALL_MAPPINGS: "1" }, // each growth maps anew (zig/segment/mappings.zig)
    detail: "small mappings",
  },
  {
    name: "storm with small extents",
    cores: 2,
    seconds: [1, 20],
    command: native("storm"),
    share: 0.25,
    env: { SHMAP_SMALL_EXTENTS: "1" }, // entries over 4 KiB park (zig/stripe/parked.zig)
    detail: "small extents",
  },
  {
    name: "storm of runtimes",
    cores: 2,
    seconds: [2, 150],
    command: ["bun", "tests/proof/storm.ts"],
  },
  { name: "history", cores: 2, seconds: [1, 40], command: native("history") },
  { name: "corrupt", cores: 2, seconds: [1, 110], command: native("corrupt") },
  { name: "faults", cores: 2, seconds: [4, 160], command: ["node", "tests/proof/faults.mjs"] },
  { name: "order", cores: 1, seconds: [150, 120], command: ["node", "tests/proof/order.mjs"] },
  {
    name: "api on deno",
    cores: 1,
    seconds: [2, 240],
    command: ["deno", "run", "-A", "tests/proof/api.ts"],
  },
  { name: "enumerate", cores: 1, seconds: [1, 230], command: native("enumerate") },
  { name: "api on bun", cores: 1, seconds: [2, 230], command: ["bun", "tests/proof/api.ts"] },
  {
    name: "values on deno",
    cores: 1,
    seconds: [4, 90],
    command: ["deno", "run", "-A", "tests/proof/values.ts"],
  },
  { name: "values on bun", cores: 1, seconds: [4, 90], command: ["bun", "tests/proof/values.ts"] },
  { name: "life", cores: 1, seconds: [40, 120], command: native("life") },
  { name: "fuzz", cores: 1, seconds: [50, 45], command: ["node", "tests/proof/fuzz.mjs"] },
  { name: "full", cores: 1, seconds: [1, 80], command: native("full") },
  { name: "step", cores: 1, seconds: [1, 20], command: native("step") },
];

function native(name) {
  return [`zig-out/bin/shmap-proof-${PROGRAM_OF[name]}`, name];
}

/** Runs a part to its end; resolves with its rows and what it said besides. */
async function runPart({ name, command, env, detail, share = 1 }, scale, seed) {
  const args = ["--scale", String(scale * share), ...(seed === undefined ? [] : ["--seed", seed])];
  const limitMs = MINUTES_MAX * 60_000 * Math.max(1, scale);
  const options = { limitMs, env: { ...ENVIRONMENT, ...env } };
  const { stdout, stderr, how, seconds } = await run([...command, ...args], options);
  const lines = stdout.split("\n").filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line));
  const calls = lines.findLast((line) => line.calls)?.calls ?? {};
  const rows = lines.filter((line) => !line.calls)
    .map((row) => detail === undefined ? row : { ...row, what: `${row.what}, ${detail}` });
  return { name, rows, calls, how, seconds, stderr };
}

const isPassed = (row) => row.found === 0 && row.tried >= row.least;

/** The rows of a part that ended; one more if it failed without saying so, or said nothing. */
function judged({ name, rows, how, seconds, stderr }, scale) {
  const isOk = rows.length > 0 && rows.every((row) => row.skipped !== undefined || isPassed(row));
  if (how !== "" && isOk || rows.length === 0) {
    rows.push({ part: 0, what: name, tried: 0, found: 1, least: 0, note: how || "said nothing" });
  }
  console.log(`${name}: ${seconds.toFixed(0)} s at scale ${scale}${how && `, ${how}`}`);
  if (how !== "" || !isOk) {
    console.log(stderr.trimEnd().split("\n").slice(-STDERR_LINES_MAX).join("\n"));
  }
  return rows;
}

const coreSeconds = ({ cores, seconds: [fixed, perScale] }, scale) =>
  cores * (fixed + perScale * scale);

/** How large the next part may be, if all that wait are to end in time at that scale. */
class Time {
  #deadline;
  #running = new Map();
  #predicted = 0;
  #took = 0;

  constructor(minutes) {
    this.#deadline = performance.now() + minutes * 60_000;
  }

  /** The scale of a part that begins now, when all of these are still to come. */
  begin(part, waiting) {
    const now = performance.now();
    const pace = this.#predicted > 0 ? this.#took / this.#predicted : 1;
    const owed = [...this.#running.values()].reduce(
      (sum, { needs, cores, since }) =>
        sum + Math.max(0, needs * pace - cores * (now - since) / 1000),
      0,
    );
    const left = (CORES * (this.#deadline - now) / 1000 - owed) / pace;
    const fixed = waiting.reduce((sum, each) => sum + coreSeconds(each, 0), 0);
    const perScale = waiting.reduce((sum, each) => sum + coreSeconds(each, 1), 0) - fixed;
    const scale = Number(Math.max(SCALE_MIN, (left - fixed) / perScale).toPrecision(2));
    this.#running.set(part, { needs: coreSeconds(part, scale), cores: part.cores, since: now });
    return scale;
  }

  end(part, seconds) {
    this.#predicted += this.#running.get(part).needs;
    this.#took += part.cores * seconds;
    this.#running.delete(part);
  }
}

/** Runs the parts, as many at once as the cores take; resolves with all rows. */
async function runParts(parts, { scale, seed }, time) {
  const rows = [];
  const calls = {};
  const waiting = [...parts];
  const running = new Set();
  let busy = 0;
  while (waiting.length > 0 || running.size > 0) {
    const next = waiting.findIndex(({ cores }) => busy + cores <= CORES);
    if (next < 0) {
      await Promise.race(running);
      continue;
    }
    const chosen = time?.begin(waiting[next], waiting) ?? scale;
    const [part] = waiting.splice(next, 1);
    busy += part.cores;
    const ended = runPart(part, chosen, seed).then((result) => {
      time?.end(part, result.seconds);
      rows.push(...judged(result, chosen));
      if (chosen >= SCALE_OF_CALLS) calls[result.name] = result.calls;
      busy -= part.cores;
      running.delete(ended);
    });
    running.add(ended);
    if (waiting.length === 0) await Promise.all(running);
  }
  const isWhole = parts.length === PARTS.length;
  return isWhole ? [...rows, ...judgeCalls(calls)] : rows;
}

/** One line for each row, and below it what there is to say about them. */
function table(rows) {
  const lines = [["", "tried", "found", "seed"]];
  const notes = [];
  for (const row of rows.toSorted((a, b) => a.part - b.part)) {
    const what = `${row.part} ${row.what}`;
    if (row.skipped !== undefined) {
      lines.push([what, "skipped", "", ""]);
      notes.push(`${what}: skipped: ${row.skipped}`);
      continue;
    }
    lines.push([what, row.tried.toLocaleString("en"), `${row.found}`, `${row.seed ?? ""}`]);
    if (row.tried < row.least) notes.push(`${what}: fewer than ${row.least.toLocaleString("en")}`);
    if (row.note) notes.push(`${what}: ${row.note}`);
  }
  const widths = [0, 1, 2, 3].map((i) => Math.max(...lines.map((line) => line[i].length)));
  const cells = ([what, ...rest]) => [
    what.padEnd(widths[0]),
    ...rest.map((cell, i) => cell.padStart(widths[i + 1])),
  ];
  return [...lines.map((line) => cells(line).join("  ").trimEnd()), "", ...notes].join("\n");
}

/** The command line: numbers above zero, and the parts whose names have one of the words. */
function optionsOf() {
  const options = {
    scale: { type: "string" },
    minutes: { type: "string" },
    seed: { type: "string" },
  };
  const { values, positionals: names } = parseArgs({ options, allowPositionals: true });
  for (const name of ["scale", "minutes"]) {
    if (values[name] === undefined || Number(values[name]) > 0) continue;
    throw new TypeError(`--${name} takes a number above zero, not "${values[name]}"`);
  }
  if (values.scale && values.minutes) throw new TypeError("--scale or --minutes, not both");
  const minutes = values.minutes === undefined ? undefined : Number(values.minutes);
  return { scale: Number(values.scale ?? 1), minutes, seed: values.seed, names };
}

async function main() {
  const options = optionsOf();
  const { names } = options;
  const parts = PARTS.filter(({ name }) =>
    names.length === 0 || names.some((word) => name.includes(word))
  );
  if (parts.length === 0) {
    throw new RangeError(`there is: ${PARTS.map(({ name }) => name).join(", ")}`);
  }
  // From here on, for building takes minutes where nothing is built yet.
  const time = options.minutes === undefined ? undefined : new Time(options.minutes);
  const { isOk, output } = await install();
  const built = isOk && await run(["zig", "build", "install", "proof"], { show: true });
  if (!built.isOk) {
    console.log(`${output}${built.how ?? ""}\n0 passed, 1 failed, 0 skipped`);
    return false;
  }
  const rows = await runParts(parts, options, time);
  console.log(`\n${table(rows)}\n`);
  const skipped = rows.filter((row) => row.skipped !== undefined).length;
  const passed = rows.filter((row) => row.skipped === undefined && isPassed(row)).length;
  const failed = rows.length - skipped - passed;
  console.log(inWords({ passed, failed, skipped }));
  return failed === 0 && rows.length > 0;
}

process.exitCode = await main() ? 0 : 1;
