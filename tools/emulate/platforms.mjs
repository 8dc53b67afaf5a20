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
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { ARM64_STEPS } from "./arm64.mjs";
import { living, share, shareMutexes } from "./peers.mjs";
import { counts, environment, need, run, shipped, Skipped, work } from "./machine.mjs";
import { runSuitesUnderWine } from "./wine.mjs";
import { QEMU_LEAVES_OUT } from "../../tests/proof/order/tests.mjs";
import { ROOT } from "../check.mjs";

/** The test that fails where the libc calls nothing of ours in a forked child. */
const NEEDS_ATFORK = "a forked child has no handles";
/** The files whose tests open no segment with the usual lock. */
const WITHOUT_MUTEX = (
  "crash directory handles hash heap layout os.windows_owner pool range_lock region_test " +
  "status table temporary"
).split(" ");
const WINDOWS_LIBRARIES = ["-lkernel32", "-lntdll", "-ladvapi32"];

let hasWindows = false;

/** Makes what stands for a disk of Windows, which two programs must not do at once. */
function needWine() {
  need("wine");
  if (!hasWindows) run("wine", ["wineboot", "--init"], work);
  hasWindows = true;
}

/** Compiles the Zig tests for a target, and gives the path of the program. */
function compileTests(target, more = [], mode = "ReleaseSafe") {
  const program = join(work, `tests-${target}${target.includes("windows") ? ".exe" : ""}`);
  run("zig", [
    ...["test", "zig/root.zig", "-O", mode, "-target", target, "--test-no-exec"],
    ...[`-femit-bin=${program}`, ...more],
  ]);
  return program;
}

/** Compiles tests that nothing here can run, and so without the optimizer, which takes longest. */
function tryCompiling(target, libraries) {
  compileTests(target, libraries, "Debug");
}

/** Checks the summary of a test program, and counts what it skipped. */
function judgeTests(output) {
  const all = /^All (\d+) tests passed\.$/m.exec(output);
  const some = /^(\d+) passed; (\d+) skipped; 0 failed\.$/m.exec(output);
  if (!all && !some) throw new Error(output.slice(-4000));
  counts.passed += Number((all ?? some)[1]) - 1; // the step itself counts as one
  counts.skipped += Number(some?.[2] ?? 0);
}

function compilePeer(target, more = []) {
  const program = join(work, `peer-${target}${target.includes("windows") ? ".exe" : ""}`);
  run("zig", [
    ...["build-exe", "tests/native/peer.zig", "-O", "ReleaseSafe", "-target", target],
    ...[`-femit-bin=${program}`, ...more],
  ]);
  return program;
}

const MUSL_LOADER = "/lib/ld-musl-x86_64.so.1";

/**
 * The command of a process in C that loads the library that is shipped for Linux on x86-64, beside
 * this C library.
 */
function peerInC(libc) {
  if (process.arch !== "x64") throw new Skipped("it is a program for x86-64");
  if (libc === "musl" && !existsSync(MUSL_LOADER)) throw new Skipped("musl is not installed");
  const program = join(work, `peer-in-c-${libc}`);
  if (!existsSync(program)) {
    run("zig", [
      ...["cc", "-Wall", "-Wextra", "-Werror", "-O2", "-target", `x86_64-linux-${libc}`],
      ...[libc === "musl" ? "-dynamic" : "-fPIE", "tests/native/peer.c", "-o", program],
    ]);
  }
  return [program, shipped("linux-x64")];
}

const LINUX_STEPS = {
  "compile the tests for macOS": () => {
    for (const target of ["aarch64-macos", "x86_64-macos"]) tryCompiling(target, ["-lc"]);
  },
  "run them on macOS": () => {
    throw new Skipped("there is nothing on Linux that runs programs of macOS");
  },
  "compile the tests for Windows on arm64": () => {
    tryCompiling("aarch64-windows-gnu", WINDOWS_LIBRARIES);
  },
  "run the tests with musl": () => {
    const filters = namesOfTests().filter((name) => !name.includes(NEEDS_ATFORK))
      .flatMap((name) => ["--test-filter", name]);
    judgeTests(run(compileTests("x86_64-linux-musl", ["-lc", ...filters]), []));
  },
  "run the test of a fork with musl": () => {
    throw new Skipped("a static program, as the tests are, has no pthread_atfork of musl's");
  },
  "share between processes with musl": () => {
    return share([compilePeer("x86_64-linux-musl", ["-lc"])]);
  },
  "share the shipped library's map between C programs with musl": () => share(peerInC("musl")),
  "share it between C programs with musl and with glibc": () => {
    return share(peerInC("musl"), peerInC("gnu"));
  },
  "share it with the mutexes of musl, and kill": () => {
    return shareMutexes(peerInC("musl"), peerInC("gnu"));
  },
  "run the tests without mutexes on arm64 with musl, under qemu": () => {
    need("qemu-aarch64");
    const filters = namesOfTests().filter((name) =>
      WITHOUT_MUTEX.includes(name.split(/\.(?:decl)?test\./)[0]) &&
      !QEMU_LEAVES_OUT.some(([piece]) => name.includes(piece))
    ).flatMap((name) => ["--test-filter", name]);
    const program = compileTests("aarch64-linux-musl", ["-lc", ...filters]);
    judgeTests(run("qemu-aarch64", [program]));
  },
  "run the others on arm64 with musl": () => {
    throw new Skipped("qemu has no robust lists, and musl then refuses robust mutexes");
  },
};

const WINDOWS_STEPS = {
  "run the tests on Windows, under wine": () => {
    needWine();
    judgeTests(run("wine", [compileTests("x86_64-windows-gnu", WINDOWS_LIBRARIES)], work));
  },
  "share between processes on Windows, under wine": () => {
    needWine();
    return share(["wine", compilePeer("x86_64-windows-gnu", WINDOWS_LIBRARIES)]);
  },
  "run the suites in Bun on Windows, under wine": () => {
    needWine();
    return runSuitesUnderWine();
  },
};

/** The names of all Zig tests, as the compiler's filter knows them. */
function namesOfTests() {
  return readdirSync(join(ROOT, "zig"), { recursive: true }).sort().flatMap((file) => {
    if (!file.endsWith(".zig")) return [];
    const text = readFileSync(join(ROOT, "zig", file), "utf8");
    const module = file.replace(/\.zig$/, "").replaceAll("/", ".");
    return [...text.matchAll(/^test (?:"(.*)"|(\w+)) \{$/gm)].map(([, title, name]) =>
      title ? `${module}.test.${title}` : `${module}.decltest.${name}`
    );
  });
}

const LINES = [ARM64_STEPS, WINDOWS_STEPS, LINUX_STEPS];
const words = process.argv.slice(2);

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

/** One line of steps, in a thread and with a directory of its own. */
async function runLine(steps) {
  for (const [name, step] of Object.entries(steps)) {
    if (words.length > 0 && !words.some((word) => name.includes(word))) continue;
    parentPort.postMessage({ said: await take(name, step) });
    for (const child of living) child.kill("SIGKILL");
  }
  if (hasWindows) {
    // Of our own prefix only.
    spawnSync("wineserver", ["-k"], { env: environment, timeout: 30_000 });
  }
  rmSync(work, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  parentPort.postMessage({ counts });
}

/** Runs a line in a thread, and says what it says; what it counts. */
function startLine(number) {
  return new Promise((resolve) => {
    const worker = new Worker(new URL(import.meta.url), { argv: words, workerData: number });
    worker.on("message", (message) => {
      if (message.said) console.log(message.said);
      else resolve(message.counts);
    });
    worker.on("error", (error) => console.log(`FAILED: a line of steps\n${error.stack}`));
    worker.on("exit", () => resolve({ passed: 0, failed: 1, skipped: 0 })); // no counts came before
  });
}

if (isMainThread) {
  for (const counted of await Promise.all(LINES.map((_, number) => startLine(number)))) {
    for (const kind of Object.keys(counts)) counts[kind] += counted[kind];
  }
  rmSync(work, { recursive: true });
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  process.exit(counts.failed > 0 ? 1 : 0);
} else {
  await runLine(LINES[workerData]);
}
