/**
 * The proof that a kill at any instruction is harmless: builds its parts, runs them, and prints one
 * table of what was tried and what was found.
 *
 *     node tests/proof/run.mjs                    every part, at most fifteen minutes on two cores
 *     node tests/proof/run.mjs --scale 20         sizes twenty times as large
 *     node tests/proof/run.mjs life --seed 7      one part, replayed
 *
 * A part prints one line of JSON for each row: `{ part, what, tried, found, least, seed, note }`,
 * or `{ part, what, skipped }`. A row passes when nothing was found and at least `least` was tried.
 * The last line is `N passed, N failed, N skipped`, of rows.
 */
import { spawn } from "node:child_process";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { ENVIRONMENT, install, ROOT } from "../../tools/check.mjs";
import { runProofMutants } from "../../tools/mutants/proof.mjs";

const CORES = 2;
const STDERR_LINES_MAX = 60;
const MINUTES_MAX = 14;

/** What runs, in this order; `cores`: how many it keeps busy. Native parts are built first. */
const PARTS = [
  { name: "storm", cores: 2, command: native("storm") },
  { name: "storm of runtimes", cores: 2, command: ["bun", "tests/proof/storm.ts"] },
  { name: "history", cores: 2, command: native("history") },
  { name: "corrupt", cores: 2, command: native("corrupt") },
  { name: "faults", cores: 2, command: ["node", "tests/proof/faults.mjs"] },
  { name: "order", cores: 1, command: ["node", "tests/proof/order.mjs"] },
  { name: "api on deno", cores: 1, command: ["deno", "run", "-A", "tests/proof/api.ts"] },
  { name: "enumerate", cores: 1, command: native("enumerate") },
  { name: "api on bun", cores: 1, command: ["bun", "tests/proof/api.ts"] },
  { name: "life", cores: 1, command: native("life") },
  { name: "fuzz", cores: 1, command: ["node", "tests/proof/fuzz.mjs"] },
  { name: "full", cores: 1, command: native("full") },
  { name: "step", cores: 1, command: native("step") },
];

function native(name) {
  return [`zig-out/bin/shmap-proof-${name}`];
}

/** Runs a part to its end; resolves with its rows and what it said besides. */
function runPart({ name, command }, { scale, seed }) {
  const args = ["--scale", String(scale), ...(seed === undefined ? [] : ["--seed", seed])];
  const started = performance.now();
  return new Promise((resolve) => {
    const child = spawn(command[0], [...command.slice(1), ...args], {
      cwd: ROOT,
      env: ENVIRONMENT,
      stdio: ["ignore", "pipe", "pipe"],
      detached: true, // leads a process group of its own, which ends as a whole when it hangs
    });
    const output = { stdout: "", stderr: "" };
    for (const stream of ["stdout", "stderr"]) {
      child[stream].setEncoding("utf8").on("data", (text) => output[stream] += text);
    }
    const alarm = setTimeout(() => {
      output.stderr += `\nstopped after ${MINUTES_MAX} minutes times the scale\n`;
      process.kill(-child.pid, "SIGKILL");
    }, MINUTES_MAX * 60_000 * Math.max(1, scale));
    const finish = (how) => {
      clearTimeout(alarm);
      const seconds = (performance.now() - started) / 1000;
      resolve({ name, rows: rowsIn(output.stdout), how, seconds, stderr: output.stderr });
    };
    child.on("error", (error) => finish(error.message));
    child.on("close", (code, signal) => finish(code === 0 ? "" : `ended by ${signal ?? code}`));
  });
}

function rowsIn(text) {
  return text.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
}

const isPassed = (row) => row.found === 0 && row.tried >= row.least;

/** The rows of a part that ended; one more if it failed without saying so, or said nothing. */
function judged({ name, rows, how, seconds, stderr }) {
  const isOk = rows.length > 0 && rows.every((row) => row.skipped !== undefined || isPassed(row));
  if (how !== "" && isOk || rows.length === 0) {
    rows.push({ part: 0, what: name, tried: 0, found: 1, least: 0, note: how || "said nothing" });
  }
  console.log(`${name}: ${seconds.toFixed(0)} s${how && `, ${how}`}`);
  if (how !== "" || !isOk) {
    console.log(stderr.trimEnd().split("\n").slice(-STDERR_LINES_MAX).join("\n"));
  }
  return rows;
}

/** Runs the parts, as many at once as the cores take; resolves with all rows. */
async function runParts(parts, options) {
  const rows = [];
  const waiting = [...parts];
  const running = new Set();
  let busy = 0;
  while (waiting.length > 0 || running.size > 0) {
    const next = waiting.findIndex(({ cores }) => busy + cores <= CORES);
    if (next < 0) {
      await Promise.race(running);
      continue;
    }
    const [part] = waiting.splice(next, 1);
    busy += part.cores;
    const ended = runPart(part, options).then((result) => {
      rows.push(...judged(result));
      busy -= part.cores;
      running.delete(ended);
    });
    running.add(ended);
    if (waiting.length === 0) await Promise.all(running);
  }
  return rows;
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

/** Builds the library and the native parts. */
function build() {
  return new Promise((resolve) => {
    const child = spawn("zig", ["build", "install", "proof"], {
      cwd: ROOT,
      env: ENVIRONMENT,
      stdio: "inherit",
    });
    child.on("close", (code) => resolve(code === 0));
  });
}

function optionsOf(args) {
  const options = { scale: 1, seed: undefined, names: [] };
  for (let i = 0; i < args.length; i += 1) {
    if (args[i] === "--scale") options.scale = Number(args[i += 1]);
    else if (args[i] === "--seed") options.seed = args[i += 1];
    else options.names.push(args[i]);
  }
  return options;
}

async function main(args) {
  const options = optionsOf(args);
  const isWanted = (name) =>
    options.names.length === 0 || options.names.some((word) => name.includes(word));
  const { isOk, output } = await install();
  if (!isOk || !await build()) {
    console.log(`${output}\n0 passed, 1 failed, 0 skipped`);
    return false;
  }
  const rows = await runParts(PARTS.filter(({ name }) => isWanted(name)), options);
  if (isWanted("mutants")) rows.push(...await runProofMutants());
  console.log(`\n${table(rows)}\n`);
  const skipped = rows.filter((row) => row.skipped !== undefined).length;
  const passed = rows.filter((row) => row.skipped === undefined && isPassed(row)).length;
  const failed = rows.length - skipped - passed;
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  return failed === 0 && rows.length > 0;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  process.exitCode = await main(process.argv.slice(2)) ? 0 : 1;
}
