/**
 * The suites in Bun for Windows, under wine: the real `bun.exe` of npm, the library for Windows,
 * and a copy of what a suite needs of the checkout, with the library where a build leaves it.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bunCounts, ROOT, worth } from "./run.mjs";

const PACKAGE = "@oven/bun-windows-x64";
const DOWNLOAD_MS = 3 * 60_000;
const SUITE_MS = 4 * 60_000;
const OUTPUT_END = 4000;
const COPIED = ["mod.ts", "src", "tests", "examples", "package.json", "README.md", "LICENSE"];

/** Bun asks for it when it starts, and wine 8 does not have it. */
const RANDOM_BYTES = `
extern "advapi32" fn SystemFunction036(target: [*]u8, len: u32) callconv(.winapi) u8;

pub export fn ProcessPrng(target: [*]u8, len: usize) callconv(.winapi) c_int {
    return SystemFunction036(target, @intCast(len));
}
`;

/** How the suites are told where they are: no Deno, kernel locks, a tenth of the long work. */
const TOLD = { SHMAP_TEST_ALONE: "1", SHMAP_TEST_LOCK: "kernel", SHMAP_TEST_SCALE: "0.1" };
/** How many suites run at a time. */
const LANES = 2;

/** Suites of which nothing is tried there. */
const SUITES_LEFT_OUT = {
  tidy: "it reads the sources, which are the same here",
  run: "it tries the runner, which needs Node",
  seed_cases: "it reads the sources and the README, which are the same here",
  versions: "it reads the sources, which are the same here",
  library: "it packs the library of Linux, and opens it from memory",
  examples: "their processes write where their parent does, and Bun dies of that under wine",
};

// A segment is renamed while its creator has it open, and wine then says that the creator's file is
// on no volume: not the one that others have open. On Windows it is.
const NO_VOLUME = "wine does not know the volume of an open file that was renamed";
const NO_PLACEHOLDERS = "wine has no placeholders, so a thread can take another's addresses";
const STDERR = "Bun complains on stderr of what wine calls its directories";
const STDOUT = "Bun dies under wine when its child writes where itself does";

/** What wine cannot, test by test: title, and why. */
const TESTS_LEFT_OUT = {
  "B-83 a process that ends takes nothing from the others": STDERR,
  "Lock keeps threads of one process apart": NO_PLACEHOLDERS,
  "README: parent.ts gets its answer from child.ts": STDOUT,
  "SharedMap.lock() and tryLock() beside a line of tasks": NO_VOLUME,
  "SharedMap.unlink() leaves attached handles at work on the old memory": NO_VOLUME,
  "SharedMap.update() is Locked where fn has locked through another handle": NO_VOLUME,
  "SharedMap: every write through another handle is Locked, and changes nothing": NO_VOLUME,
  'SharedMemoryError "Locked" says that this thread itself is in the way': NO_VOLUME,
  "SharedValue.open() has the modes of maps": NO_VOLUME,
  "lock() does not wait for a task of its isolate that is first in line": NO_VOLUME,
  "tryLock() does not overtake a task that waits for another process": NO_VOLUME,
};

/** The package that npm has of Bun for Windows, as locked, unpacked into a new directory. */
function download(work, skip) {
  const name = `node_modules/${PACKAGE}`;
  const lock = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")).packages[name];
  const place = join(work, "bun");
  mkdirSync(place);
  const shell = { cwd: place, encoding: "utf8", timeout: DOWNLOAD_MS };
  const packed = spawnSync("npm", ["pack", "--silent", `${PACKAGE}@${lock.version}`], shell);
  if (packed.status !== 0) skip(`npm has no ${PACKAGE}@${lock.version} to give`);
  const file = join(place, packed.stdout.trim().split("\n").at(-1));
  const hash = createHash("sha512").update(readFileSync(file)).digest("base64");
  if (`sha512-${hash}` !== lock.integrity) throw new Error(`${file} is not what is locked`);
  if (spawnSync("tar", ["-xzf", file], shell).status !== 0) throw new Error(`${file}: no tar`);
  return join(place, "package", "bin");
}

/** A checkout as a suite in Bun on Windows sees it; its path, and that of `bun.exe`. */
function prepare({ work, run, skip }) {
  const bin = download(work, skip);
  const source = join(work, "bcryptprimitives.zig");
  writeFileSync(source, RANDOM_BYTES);
  run("zig", [
    ...["build-lib", source, "-dynamic", "-O", "ReleaseSmall", "-target", "x86_64-windows-gnu"],
    ...["-ladvapi32", `-femit-bin=${join(bin, "bcryptprimitives.dll")}`],
  ]);
  const libraries = join(work, "libraries");
  run("zig", ["build", "all", "--prefix", libraries]);
  const checkout = join(work, "checkout");
  for (const path of COPIED) cpSync(join(ROOT, path), join(checkout, path), { recursive: true });
  const codec = join("node_modules", "msgpackr");
  cpSync(join(ROOT, codec), join(checkout, codec), { recursive: true, dereference: true });
  const built = join(checkout, "zig-out", "lib");
  mkdirSync(built, { recursive: true });
  copyFileSync(join(libraries, "all", "windows-x64", "shmap.dll"), join(built, "shmap.dll"));
  // Bun is for Windows 10 and newer; wine says 7 unless told.
  const version = ["/v", "Version", "/d", "win10", "/f"];
  run("wine", ["reg", "add", "HKCU\\Software\\Wine", ...version], work);
  return { checkout, bun: join(bin, "bun.exe") };
}

function escaped(title) {
  return title.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}

/** Runs one suite; what it counts, what it said, and for how many seconds. */
function runSuite(suite, { checkout, bun }, environment) {
  const titles = Object.keys(TESTS_LEFT_OUT).map(escaped).join("|");
  const filter = ["-t", `^(?!(?:${titles})$)`];
  const args = [bun, "test", "--timeout", "120000", ...filter, `./tests/${suite}_test.ts`];
  const env = { ...environment, ...TOLD };
  const limits = { timeout: SUITE_MS, killSignal: "SIGKILL" };
  const child = spawn("wine", args, { cwd: checkout, env, stdio: "pipe", ...limits });
  const start = performance.now();
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => output += text.replaceAll("\r", ""));
  }
  child.stdin.end();
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code) => {
      const counts = worth(bunCounts, code === 0, output);
      resolve({ suite, output, counts, seconds: (performance.now() - start) / 1000 });
    });
  });
}

/** Counts what is left out. A name that is no test's any more is an error. */
function tellLeftOut(total) {
  const sources = suites().map((suite) => readFileSync(pathOf(suite), "utf8")).join("");
  for (const [name, reason] of Object.entries({ ...SUITES_LEFT_OUT, ...TESTS_LEFT_OUT })) {
    if (!sources.includes(name) && !suites().includes(name)) throw new Error(`no test "${name}"`);
    total.skipped += 1;
    total.said.push(`    not run: ${name}: ${reason}`);
  }
}

function suites() {
  return readdirSync(join(ROOT, "tests")).sort()
    .map((file) => /^(\w+)_test\.ts$/.exec(file)?.[1]).filter(Boolean);
}

function pathOf(suite) {
  return join(ROOT, "tests", `${suite}_test.ts`);
}

/** Runs every suite that tries something of Windows; what they count, and what there is to say. */
export async function runSuitesUnderWine(tools) {
  const total = { passed: 0, failed: 0, skipped: 0, said: [] };
  tellLeftOut(total);
  const place = prepare(tools);
  const waiting = suites().filter((suite) => !(suite in SUITES_LEFT_OUT));
  const lane = async () => {
    for (let suite = waiting.shift(); suite; suite = waiting.shift()) {
      const { output, counts, seconds } = await runSuite(suite, place, tools.environment);
      const { passed, failed, skipped, reasons } = counts;
      total.passed += passed;
      total.failed += failed;
      total.skipped += skipped;
      const numbers = `${passed} passed, ${failed} failed, ${skipped} skipped`;
      total.said.push(`    ${suite}: ${numbers} (${seconds.toFixed(1)} s)`);
      for (const reason of reasons) total.said.push(`    not run: ${reason}`);
      if (failed > 0) total.said.push(output.slice(-OUTPUT_END));
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return total;
}
