/**
 * The order in which other processors, and other tools, see what the library does.
 *
 *     node tests/proof/order.mjs [--scale <n>] [--seed <n>] [piece …]
 *
 * Pieces: `spin` searches the models of `order.pml`, `refill.pml`, `snapshot.pml` and `lock.pml`
 * exhaustively, and their faulty variants until each fails; `disassembly` looks for every ordering
 * site in the machine code for arm64; `tsan` runs threads on one mapping; `valgrind` and `qemu` run
 * the Zig tests. Without any, all of them. What a machine has no tool for is a skipped row; root
 * may have it installed. Sources are copied first, so that all of a piece sees the same.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import {
  attribute,
  instructions,
  judge,
  judgeBumps,
  judgeLastLooks,
  ORDERING,
  sites,
} from "./order/sites.mjs";
import { MODELS } from "./order/models.mjs";
import { filters, ZIG_LEFT_OUT, zigTests, zigTestsFor } from "../../tools/left_out.mjs";
import {
  ENVIRONMENT,
  isInstalled,
  must as mustRun,
  ROOT,
  run as runProgram,
} from "../../tools/process.mjs";
import { partArguments } from "./part.mjs";

const { scale, seed, words } = partArguments();
const PART = 8;
const STEP_SECONDS = 900;

const work = mkdtempSync(join(tmpdir(), "shmap-order-"));
let isGood = true;

/** Prints a row; one with something found, or too little tried, fails the run. */
function say(row) {
  if (!("skipped" in row)) isGood &&= row.found === 0 && row.tried >= row.least;
  console.log(JSON.stringify({ part: PART, ...row }));
}

/** How a program is run here: in a directory that goes at the end, and with this besides. */
function told({ cwd = work, env = {}, input } = {}) {
  return { cwd, input, env: { ...ENVIRONMENT, ...env }, limitMs: STEP_SECONDS * 1000 };
}

function run(command, options) {
  return runProgram(command, told(options));
}

function must(command, options) {
  return mustRun(command, told(options));
}

/** Why a tool is not there, after trying to get it; undefined if it is. */
async function missing(tool, packages) {
  const has = () => tool.startsWith("/") ? existsSync(tool) : isInstalled(tool);
  if (has()) return undefined;
  if (process.getuid?.() === 0) {
    await run(["apt-get", "install", "-y", "-qq", ...packages]);
  }
  return has() ? undefined : `needs ${tool} (package ${packages.join(", ")})`;
}

/** A copy of what is built from. */
function copied(name = "sources") {
  const to = join(work, name);
  if (existsSync(to)) return to;
  mkdirSync(join(to, "tests"), { recursive: true });
  cpSync(join(ROOT, "zig"), join(to, "zig"), { recursive: true });
  cpSync(join(ROOT, "tests", "proof"), join(to, "tests", "proof"), { recursive: true });
  return to;
}

/** One search of a model: how many states, whether it was complete, and what went wrong. */
async function search(model, defines, optimize) {
  const at = mkdtempSync(join(work, "spin-"));
  const options = { cwd: at };
  const macros = defines.map((define) => `-D${define}`);
  await must(["spin", "-a", ...macros, join(ROOT, "tests", "proof", `${model}.pml`)], options);
  // Collapsed states are kept whole: nothing is hashed away. A search that does not fit fails.
  const flags = [optimize, "-w", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=1900"];
  await must(["gcc", ...flags, "-o", "pan", "pan.c"], options);
  const { output: all } = await run([join(at, "pan"), "-m100000", "-w22"], options);
  const states = Number(/^ *([\d.e+]+) states, stored/m.exec(all)?.[1] ?? 0);
  const errors = Number(/errors: (\d+)/.exec(all)?.[1] ?? -1);
  const isComplete = errors >= 0 &&
    !/not completed|too small|out of memory|MEMLIM|truncated|aborting/i.test(all);
  const fault = /^pan:1: (.*) \(at depth/m.exec(all)?.[1];
  rmSync(at, { recursive: true });
  return { states, errors, isComplete, fault, all };
}

/** Every search that must find nothing, to its end. */
async function searchModels() {
  const row = { what: "states of the model", tried: 0, found: 0, least: 0 };
  const notes = [];
  for (const { model, searches, small } of MODELS) {
    for (const [least, ...defines] of scale >= 1 ? searches : [[1, ...small]]) {
      const result = await search(model, defines, "-O2");
      row.tried += result.states;
      row.least += least;
      notes.push(`${model} ${result.states} (${defines.join(" ")})`);
      if (result.errors === 0 && result.isComplete && result.states >= least) continue;
      row.found++;
      console.error(`${model}.pml ${defines.join(" ")}:\n${result.all}`);
    }
  }
  say({ ...row, note: notes.join(", ") });
}

/** Every variant, until it fails. */
async function searchVariants() {
  const row = { what: "variants of the model refused", tried: 0, found: 0 };
  for (const { model, small, variants } of MODELS) {
    for (const [variant, ...defines] of variants) {
      row.tried++;
      const result = await search(
        model,
        [...(defines.length > 0 ? defines : small), variant],
        "-O0",
      );
      // What counts is that the model asserts something that is not so.
      if (result.errors > 0 && /assertion/.test(result.fault ?? "")) continue;
      row.found++;
      console.error(`${model}.pml does not refuse ${variant}:\n${result.all}`);
    }
  }
  say({ ...row, least: row.tried, note: "each has a counterexample" });
}

async function spin() {
  const lack = await missing("spin", ["spin"]) ?? await missing("gcc", ["gcc", "libc6-dev"]);
  if (lack) {
    say({ what: "states of the model", skipped: lack });
    return say({ what: "variants of the model refused", skipped: lack });
  }
  await searchModels();
  await searchVariants();
}

/** The library for arm64, built as the shipped one but for what it is told. */
async function buildLibrary(sources, name, flags) {
  const path = join(work, name);
  await must([
    ...["zig", "build-lib", "-dynamic", ...flags, "-fallow-shlib-undefined", "-z", "nodelete"],
    ...["-O", "ReleaseFast", "-target", "aarch64-linux-none", "-mcpu", "baseline"],
    ...["--name", "shmap", `-femit-bin=${path}`, `-Mroot=${join(sources, "zig", "root.zig")}`],
  ]);
  return instructions(await must(["llvm-objdump", "-d", "--no-show-raw-insn", path]));
}

async function disassemble() {
  const what = "ordering sites in arm64 code";
  const lack = await missing("llvm-objdump", ["llvm"]) ??
    await missing("llvm-symbolizer", ["llvm"]);
  if (lack) return say({ what, skipped: lack });
  const sources = copied();
  const code = await buildLibrary(sources, "debug.so", []);
  const symbolizer = ["-e", join(work, "debug.so"), "--inlines", "--functions=linkage"];
  const addresses = code.map(({ address }) => `0x${address.toString(16)}\n`).join("");
  attribute(code, await must(["llvm-symbolizer", ...symbolizer], { input: addresses }));
  const wanted = sites(sources);
  const results = [
    judge(code, wanted.sites),
    judgeBumps(code, wanted.bumps),
    judgeLastLooks(code, wanted.looks),
  ];
  const faults = [...wanted.faults, ...results.flatMap((result) => result.faults)];
  // What is shipped has no debug information; it orders the same way.
  const shipped = await buildLibrary(sources, "shipped.so", ["-fstrip"]);
  const order = (all) => all.map(({ name }) => name).filter((name) => ORDERING.test(name)).join();
  if (order(shipped) !== order(code)) faults.push("the stripped library orders in another way");
  for (const fault of faults) console.error(`arm64: ${fault}`);
  const [all, bumps, looks] = results.map(({ looked }) => looked);
  say({
    what,
    tried: all + bumps + looks,
    found: faults.length,
    least: wanted.sites.length,
    note: `${wanted.sites.length} sites, ${all} instructions; a fence right after each of ` +
      `${bumps} new generations and before each of ${looks} last looks`,
  });
}

/**
 * The library makes its system calls itself, so the sanitizer would take private memory that was
 * given back, and is another thread's now, for shared. In the copy that it sees, such memory is
 * given back through the libc, and copied where the kernel would move it.
 */
function tellOfUnmapping(sources) {
  const path = join(sources, "zig", "os", "linux.zig");
  const text = readFileSync(path, "utf8");
  const copies = "pub const has_page_moves = false;\n";
  const changed = text.replaceAll("linux.munmap(", "std.c.munmap(")
    .replace(copies.replace("false", "true"), copies);
  if (!changed.includes(copies) || !changed.includes("std.c.munmap(")) {
    throw new Error("zig/os/linux.zig gives memory back in another way than it did");
  }
  writeFileSync(path, changed);
}

async function runThreads() {
  const what = "operations under ThreadSanitizer";
  const sources = copied("sources-tsan");
  tellOfUnmapping(sources);
  const program = join(work, "threads");
  const flags = ["-fsanitize-thread", "-O", "ReleaseSafe", "-lc"];
  await must([
    ...["zig", "build-exe", "--name", "threads", `-femit-bin=${program}`],
    ...[...flags, "--dep", "shmap", `-Mroot=${join(sources, "tests", "proof", "threads.zig")}`],
    ...[...flags, `-Mshmap=${join(sources, "zig", "root.zig")}`],
  ]);
  const env = { TSAN_OPTIONS: "exitcode=66 halt_on_error=0 history_size=2" };
  const reports = (text) => text.split(/^={18}$/m).filter((one) => /^WARNING: Thr/m.test(one));
  const command = [program, "threads", "--seed", String(seed), "--scale"];
  const real = await run([...command, String(scale)], { env });
  const row = real.stdout.split("\n").find((line) => line.startsWith("{"));
  const numbers = row ? JSON.parse(row) : { tried: 0, found: 1, least: 1, note: "no row" };
  let found = numbers.found + reports(real.output).length;
  if (found === 0 && !real.isOk) found = 1;
  if (found > 0) console.error(real.output);
  // A sanitizer that sees nothing would pass as well.
  const planted = await run([...command, "0.02", "plant"], { env });
  if (!reports(planted.output).some((one) => one.includes("storePlainly"))) {
    found++;
    console.error(`the planted race was not reported:\n${planted.output}`);
  }
  say({ ...numbers, what, found, note: `${numbers.note}; a planted race is reported` });
}

/** Builds the Zig tests for a target and runs those whose names are not left out. */
async function runTests(what, target, tool, command) {
  const sources = copied();
  const names = zigTests(sources);
  const wanted = zigTestsFor(tool, names);
  const program = join(work, target);
  await must([
    ...[
      "zig",
      "test",
      join(sources, "zig", "root.zig"),
      "-O",
      "ReleaseSafe",
      "-lc",
      "-target",
      target,
    ],
    ...["-mcpu=baseline", "--test-no-exec", `-femit-bin=${program}`],
    ...filters(wanted),
  ]);
  const env = { SHMAP_SEED: String(seed), SHMAP_TEST_SCALE: String(Math.min(1, scale)) };
  const { isOk, output } = await run([...command, program], { env });
  const passed = [...output.matchAll(/\.\.\.OK$/gm)].length;
  const failed = [...output.matchAll(/\.\.\.FAIL\b/gm)].length;
  const found = failed + (isOk || failed > 0 ? 0 : 1);
  if (found > 0) console.error(`SHMAP_SEED=${seed}\n${output}`);
  const ran = passed + failed;
  say({
    what,
    tried: ran,
    found,
    least: wanted.length,
    seed,
    note: `${ran} of ${names.length} tests; left out: ` +
      ZIG_LEFT_OUT[tool].map(([piece, why]) => `${piece} (${why})`).join(", "),
  });
}

async function runValgrind() {
  const what = "Zig tests under valgrind";
  const lack = await missing("valgrind", ["valgrind"]);
  if (lack) return say({ what, skipped: lack });
  await runTests(what, "x86_64-linux-gnu", "valgrind", [
    ...["valgrind", "-q", "--error-exitcode=9", "--child-silent-after-fork=yes"],
  ]);
}

async function runQemu() {
  const what = "Zig tests on arm64 under qemu";
  const libc = "/usr/aarch64-linux-gnu/lib/libc.so.6";
  const lack = await missing("qemu-aarch64", ["qemu-user"]) ??
    await missing(libc, ["libc6-arm64-cross"]);
  if (lack) return say({ what, skipped: lack });
  // musl asks the kernel for robust lists, and refuses where glibc only does without.
  await runTests(what, "aarch64-linux-gnu.2.36", "qemu", [
    ...["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
  ]);
}

const PIECES = {
  spin,
  disassembly: disassemble,
  tsan: runThreads,
  valgrind: runValgrind,
  qemu: runQemu,
};

try {
  for (const piece of words.length > 0 ? words : Object.keys(PIECES)) await PIECES[piece]();
} finally {
  rmSync(work, { recursive: true, force: true });
}
process.exitCode = isGood ? 0 : 1;
