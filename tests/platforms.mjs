/**
 * What can be tried of the other platforms on a Linux machine: that the Zig tests compile for all
 * of them (the library does in `tests/package.mjs`), that they hold with musl, on arm64 under qemu
 * (all of them, with glibc, in `tests/proof/order.mjs`) and on Windows under wine, and that
 * processes there share, lock and die as here. The last line says
 * `N passed, N failed, N skipped`; what cannot be run here is skipped, and says why.
 *
 *     node tests/platforms.mjs               everything
 *     node tests/platforms.mjs wine compile  the steps whose names contain one of these words
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { runSuitesUnderWine } from "./_platforms_wine.mjs";
import { ENVIRONMENT, ROOT } from "./run.mjs";
import { QEMU_LEAVES_OUT } from "./proof/_order_tests.mjs";

const TIMEOUT_MS = 10 * 60_000;
const ANSWER_MS = 30_000;
/** The test that fails where the libc calls nothing of ours in a forked child. */
const NEEDS_ATFORK = "a forked child has no handles";
/** The files whose tests open no segment with the usual lock. */
const WITHOUT_MUTEX = (
  "crash directory handles hash heap layout os.windows_owner pool range_lock region_test " +
  "status table temporary"
).split(" ");
const WINDOWS_LIBRARIES = ["-lkernel32", "-lntdll", "-ladvapi32"];

const work = mkdtempSync(join(tmpdir(), "shmap-platforms-"));
const environment = { ...ENVIRONMENT, WINEDEBUG: "-all", WINEPREFIX: join(work, "wine") };
const counts = { passed: 0, failed: 0, skipped: 0 };
/** Processes that have not ended yet. */
const living = new Set();

/** A step that found out that it cannot run here. */
class Skipped extends Error {}

function isInstalled(program) {
  return environment.PATH.split(delimiter).some((path) => {
    const found = spawnSync("test", ["-x", join(path, program)]);
    return found.status === 0;
  });
}

function need(program) {
  if (!isInstalled(program)) throw new Skipped(`${program} is not installed`);
}

let hasWindows = false;

/** Makes what stands for a disk of Windows, which two programs must not do at once. */
function needWine() {
  need("wine");
  if (!hasWindows) run("wine", ["wineboot", "--init"], work);
  hasWindows = true;
}

/** Runs a command to its end; its output, or an error with the end of it. */
function run(program, args, cwd = ROOT) {
  const options = { cwd, env: environment, encoding: "utf8", timeout: TIMEOUT_MS };
  const ended = spawnSync(program, args, { ...options, maxBuffer: 1 << 28 });
  const output = `${ended.stdout ?? ""}${ended.stderr ?? ""}`.replaceAll("\r", "\n");
  if (ended.status === 0) return output;
  const how = ended.error?.message ?? ended.signal ?? ended.status;
  throw new Error(`${program} ${args[0]} ended with ${how}\n${output.slice(-4000)}`);
}

/** Compiles the Zig tests for a target, and gives the path of the program. */
function compileTests(target, more = []) {
  const program = join(work, `tests-${target}${target.includes("windows") ? ".exe" : ""}`);
  run("zig", [
    ...["test", "zig/tests.zig", "-O", "ReleaseSafe", "-target", target, "--test-no-exec"],
    ...[`-femit-bin=${program}`, ...more],
  ]);
  return program;
}

/** Checks the summary of a test program, and counts what it skipped. */
function judgeTests(output) {
  const all = /^All (\d+) tests passed\.$/m.exec(output);
  const some = /^(\d+) passed; (\d+) skipped; 0 failed\.$/m.exec(output);
  if (!all && !some) throw new Error(output.slice(-4000));
  counts.passed += Number((all ?? some)[1]) - 1; // the step itself counts as one
  counts.skipped += Number(some?.[2] ?? 0);
}

/** A native process that does what it is told (`zig/peer.zig`). */
class Peer {
  #child;
  #lines;
  /** Resolves when the process has ended. */
  ended;

  constructor(command) {
    const options = { cwd: work, env: environment, stdio: ["pipe", "pipe", "ignore"] };
    this.#child = spawn(command[0], command.slice(1), options);
    living.add(this.#child);
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    this.ended = new Promise((resolve) => this.#child.on("close", resolve));
    this.ended.then(() => living.delete(this.#child));
  }

  async ask(line) {
    this.#child.stdin.write(`${line}\n`);
    let alarm;
    const late = new Promise((_, reject) => {
      alarm = setTimeout(() => reject(new Error(`no answer to "${line}"`)), ANSWER_MS);
    });
    const answer = await Promise.race([this.#lines.next(), late]);
    clearTimeout(alarm);
    return answer.value?.trim();
  }

  async expect(line, wanted) {
    const answer = await this.ask(line);
    if (answer !== wanted) throw new Error(`"${line}" gave ${answer}, not ${wanted}`);
  }

  kill() {
    this.#child.kill("SIGKILL");
    return this.ended;
  }
}

/** Two processes share a map, exclude each other, replace and unlink it, and one is killed. */
async function share(command) {
  const name = `platforms-${process.pid}`;
  const [a, b] = [new Peer(command), new Peer(command)];
  await a.expect(`open ${name} kernel 5000`, "1");
  await b.expect(`open ${name} kernel 5000`, "1");
  await a.expect("put greeting hello", "1");
  await b.expect("get greeting", "5 hello");
  for (let i = 0; i < 300; i++) await a.expect(`put key-${i} ${"v".repeat(1500)}`, "1");
  await b.expect("size", "301");
  await b.expect(`get key-299`, `1500 ${"v".repeat(1500)}`);
  await b.expect("verify", "0");
  await a.expect("lock 1000", "0");
  await b.expect("lock 100", "-7");
  await a.expect("unlock", "0");
  await Promise.all([a.expect("add count 300", "0"), b.expect("add count 300", "0")]);
  await a.expect("get count", "3 600");
  await a.expect("lock 1000", "0");
  await a.kill();
  await b.expect("lock 20000", "1"); // its last holder died
  await b.expect("unlock", "0");
  const c = new Peer(command);
  await c.expect(`open ${name} kernel 5000`, "1");
  await c.expect("get greeting", "5 hello");
  const d = new Peer(command);
  await d.expect(`open ${name} exclusive 5000`, "1");
  await d.expect("size", "0");
  await c.expect("get greeting", "-11"); // replaced while it was open, and mapped
  await c.expect("close", "0");
  await c.expect(`open ${name} kernel 5000`, "1");
  await d.expect(`unlink ${name}`, "1");
  await d.expect(`unlink ${name}`, "0");
  await d.expect("put still works", "1");
  await c.expect("get still", "5 works");
  const e = new Peer(command);
  await e.expect(`open ${name} attach 100`, "-2");
  await e.expect(`open ${name} kernel 5000`, "1");
  await e.expect("size", "0");
  await e.expect("verify", "0");
  for (const peer of [b, c, d, e]) await peer.ask("close");
  await e.expect(`open ${name} kernel 5000`, "1"); // reopened by the only one, clean or not
  await e.expect(`unlink ${name}`, "1");
  await e.expect("close", "0");
  for (const peer of [b, c, d, e]) await peer.kill();
}

function compilePeer(target, more = []) {
  const program = join(work, `peer-${target}${target.includes("windows") ? ".exe" : ""}`);
  run("zig", [
    ...["build-exe", "zig/peer.zig", "-O", "ReleaseSafe", "-target", target],
    ...[`-femit-bin=${program}`, ...more],
  ]);
  return program;
}

const STEPS = {
  "compile the tests for macOS": () => {
    for (const target of ["aarch64-macos", "x86_64-macos"]) compileTests(target, ["-lc"]);
  },
  "run them on macOS": () => {
    throw new Skipped("there is nothing on Linux that runs programs of macOS");
  },
  "compile the tests for Windows on arm64": () => {
    compileTests("aarch64-windows-gnu", WINDOWS_LIBRARIES);
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
  "run the tests on Windows, under wine": () => {
    needWine();
    judgeTests(run("wine", [compileTests("x86_64-windows-gnu", WINDOWS_LIBRARIES)], work));
  },
  "share between processes on Windows, under wine": () => {
    needWine();
    return share(["wine", compilePeer("x86_64-windows-gnu", WINDOWS_LIBRARIES)]);
  },
  "run the suites in Bun on Windows, under wine": async () => {
    needWine();
    const skip = (reason) => {
      throw new Skipped(reason);
    };
    const total = await runSuitesUnderWine({ work, run, environment, skip });
    console.log(total.said.join("\n"));
    counts.passed += total.passed - 1; // the step itself counts as one
    counts.skipped += total.skipped;
    if (total.failed > 0) throw new Error(`${total.failed} failed`);
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

const words = process.argv.slice(2);
for (const [name, step] of Object.entries(STEPS)) {
  if (words.length > 0 && !words.some((word) => name.includes(word))) continue;
  const start = performance.now();
  const took = () => `${((performance.now() - start) / 1000).toFixed(1)} s`;
  try {
    await step();
    counts.passed++;
    console.log(`passed: ${name} (${took()})`);
  } catch (error) {
    if (error instanceof Skipped) {
      counts.skipped++;
      console.log(`skipped: ${name}: ${error.message}`);
    } else {
      counts.failed++;
      console.log(`FAILED: ${name} (${took()})\n${error.message}`);
    }
  }
  for (const child of living) child.kill("SIGKILL");
}
if (isInstalled("wineserver")) {
  spawnSync("wineserver", ["-k"], { env: environment, timeout: 30_000 }); // of our own prefix only
}
rmSync(work, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exit(counts.failed > 0 ? 1 : 0);
