/**
 * What can be tried of the other platforms on a Linux machine: that the Zig tests compile for all
 * of them (the library does in `tools/package/try.mjs`), that they hold with musl, on arm64 under
 * qemu (all of them, with glibc, in `tests/proof/order.mjs`) and on Windows under wine, and that
 * processes there share, lock and die as here. The steps for Linux, for arm64 and for Windows are
 * three lines that run at the same time. The last line says `N passed, N failed, N skipped`; what
 * cannot be run here is skipped, and says why.
 *
 *     node tools/emulate/platforms.mjs         everything
 *     node tools/emulate/platforms.mjs wine    the steps whose names contain one of these words
 *     node tools/emulate/platforms.mjs --smoke   a glance at each platform, in three minutes
 */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { inWords, zigCounts } from "../counts.mjs";
import { filters, zigTestsFor, zigTestsWithoutMutex } from "../left_out.mjs";
import { arm64Steps } from "./arm64.mjs";
import { attempt, counts, need, run, shipped, Skipped, work } from "./machine.mjs";
import { compilePeer, endPeers, share, shareMutexes } from "./peers.mjs";
import { runSuitesUnderWine } from "./wine.mjs";

const WINDOWS_LIBRARIES = ["-lkernel32", "-lntdll", "-ladvapi32"];

let hasWindows = false;

/** Makes what stands for a disk of Windows, which two programs must not do at once. */
async function needWine() {
  need("wine");
  if (!hasWindows) await run("wine", ["wineboot", "--init"], work);
  hasWindows = true;
}

/** Compiles the Zig tests for a target, and gives the path of the program. */
async function compileTests(target, more = [], mode = "ReleaseSafe") {
  const program = join(work, `tests-${target}${target.includes("windows") ? ".exe" : ""}`);
  await run("zig", [
    ...["test", "zig/root.zig", "-O", mode, "-target", target, "--test-no-exec"],
    ...[`-femit-bin=${program}`, ...more],
  ]);
  return program;
}

/** Compiles tests that nothing here can run, and so without the optimizer, which takes longest. */
function tryCompiling(target, libraries) {
  return compileTests(target, libraries, "Debug");
}

/** Checks the summary of a test program, and counts what it skipped. */
function judgeTests(output) {
  const counted = zigCounts(output);
  if (!counted || counted.failed > 0) throw new Error(output.slice(-4000));
  counts.passed += counted.passed - 1; // the step itself counts as one
  counts.skipped += counted.skipped;
}

const MUSL_LOADER = "/lib/ld-musl-x86_64.so.1";

/**
 * The command of a process in C that loads the library that is shipped for Linux on x86-64, beside
 * this C library.
 */
async function peerInC(libc) {
  if (process.arch !== "x64") throw new Skipped("it is a program for x86-64");
  if (libc === "musl" && !existsSync(MUSL_LOADER)) throw new Skipped("musl is not installed");
  const program = join(work, `peer-in-c-${libc}`);
  if (!existsSync(program)) {
    await run("zig", [
      ...["cc", "-Wall", "-Wextra", "-Werror", "-O2", "-target", `x86_64-linux-${libc}`],
      ...[libc === "musl" ? "-dynamic" : "-fPIE", "tests/native/peer.c", "-o", program],
    ]);
  }
  return [program, await shipped("linux-x64")];
}

const LINUX_STEPS = {
  "compile the tests for macOS": async () => {
    for (const target of ["aarch64-macos", "x86_64-macos"]) await tryCompiling(target, ["-lc"]);
  },
  "run them on macOS": () => {
    throw new Skipped("there is nothing on Linux that runs programs of macOS");
  },
  "compile the tests for Windows on arm64": async () => {
    await tryCompiling("aarch64-windows-gnu", WINDOWS_LIBRARIES);
  },
  "run the tests with musl": async () => {
    const chosen = filters(zigTestsFor("musl"));
    judgeTests(await run(await compileTests("x86_64-linux-musl", ["-lc", ...chosen]), []));
  },
  "run the test of a fork with musl": () => {
    throw new Skipped("a static program, as the tests are, has no pthread_atfork of musl's");
  },
  "share between processes with musl": async () => {
    return share([await compilePeer("x86_64-linux-musl", ["-lc"])]);
  },
  "share the shipped library's map between C programs with musl": async () => {
    return share(await peerInC("musl"));
  },
  "share it between C programs with musl and with glibc": async () => {
    return share(await peerInC("musl"), await peerInC("gnu"));
  },
  "share it with the mutexes of musl, and kill": async () => {
    return shareMutexes(await peerInC("musl"), await peerInC("gnu"));
  },
  "run the tests without mutexes on arm64 with musl, under qemu": async () => {
    need("qemu-aarch64");
    const chosen = filters(zigTestsFor("qemu", zigTestsWithoutMutex()));
    const program = await compileTests("aarch64-linux-musl", ["-lc", ...chosen]);
    judgeTests(await run("qemu-aarch64", [program]));
  },
  "run the others on arm64 with musl": () => {
    throw new Skipped("qemu has no robust lists, and musl then refuses robust mutexes");
  },
};

const WINDOWS_STEPS = {
  "run the tests on Windows, under wine": async () => {
    await needWine();
    const program = await compileTests("x86_64-windows-gnu", WINDOWS_LIBRARIES);
    judgeTests(await run("wine", [program], work));
  },
  "share between processes on Windows, under wine": async () => {
    await needWine();
    return share(["wine", await compilePeer("x86_64-windows-gnu", WINDOWS_LIBRARIES)]);
  },
  "run the suites in Bun on Windows, under wine": async () => {
    await needWine();
    return runSuitesUnderWine();
  },
};

const { positionals: words, values } = parseArgs({
  options: { smoke: { type: "boolean", default: false } },
  allowPositionals: true,
});

/** The steps of each line, which follow each other; the lines run at the same time. */
const LINES = [arm64Steps({ isSmoke: values.smoke, words }), WINDOWS_STEPS, LINUX_STEPS];

/** One step for each platform that something here can run, in seconds. */
const SMOKE = [
  "share between processes with musl",
  "share the shipped library's map between C programs with musl",
  "run a suite on Deno for arm64, under qemu",
  "run a suite on Bun for arm64, under qemu",
  "share between processes on Windows, under wine",
];

function isWanted(name) {
  if (values.smoke) return SMOKE.includes(name);
  return words.length === 0 || words.some((word) => name.includes(word));
}

/** Does a step and counts it; what there is to be said of it. */
async function take(name, step) {
  const start = performance.now();
  const took = () => `${((performance.now() - start) / 1000).toFixed(1)} s`;
  try {
    const note = await step();
    counts.passed++;
    return `passed: ${name} (${took()})${note ? `: ${note}` : ""}`;
  } catch (error) {
    if (error instanceof Skipped) {
      counts.skipped++;
      return `skipped: ${name}: ${error.message}`;
    }
    counts.failed++;
    return `FAILED: ${name} (${took()})\n${error.message}`;
  }
}

async function runLine(steps) {
  for (const [name, step] of Object.entries(steps)) {
    if (isWanted(name)) console.log(await take(name, step));
  }
}

try {
  await Promise.all(LINES.map(runLine));
} finally {
  endPeers();
  // Of our own prefix only.
  if (hasWindows) await attempt("wineserver", ["-k"], { limitMs: 30_000 });
  rmSync(work, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
}
console.log(inWords(counts));
process.exitCode = counts.failed > 0 ? 1 : 0;
