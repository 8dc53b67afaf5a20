/**
 * The suites in Bun for Windows, under wine: the real `bun.exe` of npm, the library for Windows,
 * and a copy of what a suite needs of the checkout, with the library where a build leaves it.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { leftOutOf } from "./left_out.mjs";
import {
  checkLeftOut,
  counts,
  environment,
  replaceTest,
  run,
  shipped,
  Skipped,
  suites,
  SUITES_OF_SOURCES,
  work,
} from "./machine.mjs";
import { bunCounts, ROOT, worth } from "../check.mjs";

const PACKAGE = "@oven/bun-windows-x64";
const DOWNLOAD_MS = 3 * 60_000;
const SUITE_MS = 8 * 60_000;
const OUTPUT_END = 4000;
const COPIED = ["mod.ts", "src", "tests", "package.json", "LICENSE"];

/** Bun asks for it when it starts, and wine 8 does not have it. */
const RANDOM_BYTES = `
extern "advapi32" fn SystemFunction036(target: [*]u8, len: u32) callconv(.winapi) u8;

pub export fn ProcessPrng(target: [*]u8, len: usize) callconv(.winapi) c_int {
    return SystemFunction036(target, @intCast(len));
}
`;

/** How the suites are told where they are: no Deno, kernel locks, a tenth of the work, patience. */
const TOLD = {
  SHMAP_TEST_ALONE: "1",
  SHMAP_TEST_LOCK: "kernel",
  SHMAP_TEST_SCALE: "0.1",
  SHMAP_TEST_PATIENCE: "5",
};
/** How many suites run at a time. */
const LANES = 2;

/** So it is where npm starts the tests; started otherwise, most of their programs run. */
const NO_SAFER = "`bun run` in a child can call SaferiIsExecutableFileType, which wine has not";

/** Suites of which nothing is tried there. */
const SUITES_LEFT_OUT = {
  examples: NO_SAFER,
  readme: NO_SAFER,
  ...SUITES_OF_SOURCES,
  library: "it packs the library of Linux, and opens it from memory",
  owners: "it gives files to other users, and there are none",
};

/**
 * Suites that try that a token leads to nothing when the last handle is closed. Its file is deleted
 * then; but wine opens it all the same while another process has it open, as whoever looks for what
 * the dead left has for a moment. So no other suite runs beside them.
 */
const ALONE = ["mmap", "token"];

/** The package that npm has of Bun for Windows, as locked, unpacked into a new directory. */
function download() {
  const name = `node_modules/${PACKAGE}`;
  const lock = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")).packages[name];
  const place = join(work, "bun");
  mkdirSync(place);
  const shell = { cwd: place, encoding: "utf8", timeout: DOWNLOAD_MS };
  const packed = spawnSync("npm", ["pack", "--silent", `${PACKAGE}@${lock.version}`], shell);
  if (packed.status !== 0) throw new Skipped(`npm has no ${PACKAGE}@${lock.version} to give`);
  const file = join(place, packed.stdout.trim().split("\n").at(-1));
  const hash = createHash("sha512").update(readFileSync(file)).digest("base64");
  if (`sha512-${hash}` !== lock.integrity) throw new Error(`${file} is not what is locked`);
  if (spawnSync("tar", ["-xzf", file], shell).status !== 0) throw new Error(`${file}: no tar`);
  return join(place, "package", "bin");
}

/** A checkout as a suite in Bun on Windows sees it; its path, and that of `bun.exe`. */
function prepare() {
  const bin = download();
  const source = join(work, "bcryptprimitives.zig");
  writeFileSync(source, RANDOM_BYTES);
  run("zig", [
    ...["build-lib", source, "-dynamic", "-O", "ReleaseSmall", "-target", "x86_64-windows-gnu"],
    ...["-ladvapi32", `-femit-bin=${join(bin, "bcryptprimitives.dll")}`],
  ]);
  const checkout = join(work, "checkout");
  for (const path of COPIED) cpSync(join(ROOT, path), join(checkout, path), { recursive: true });
  replaceTest(join(checkout, "tests"));
  const codec = join("node_modules", "msgpackr");
  cpSync(join(ROOT, codec), join(checkout, codec), { recursive: true, dereference: true });
  const built = join(checkout, "zig-out", "lib");
  mkdirSync(built, { recursive: true });
  copyFileSync(shipped("windows-x64", "shmap.dll"), join(built, "shmap.dll"));
  // Bun is for Windows 10 and newer; wine says 7 unless told.
  const version = ["/v", "Version", "/d", "win10", "/f"];
  run("wine", ["reg", "add", "HKCU\\Software\\Wine", ...version], work);
  return { checkout, bun: join(bin, "bun.exe") };
}

/** Runs one suite; what it counts, what it said, and for how many seconds. */
function runSuite(suite, { checkout, bun }) {
  const args = [bun, "test", "--timeout", "120000", `./tests/${suite}_test.ts`];
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
      const counted = worth(bunCounts, code === 0, output);
      resolve({ output, counted, seconds: (performance.now() - start) / 1000 });
    });
  });
}

/** Counts the suites that are left out, and says it. One that there is not is an error. */
function tellLeftOut() {
  return Object.entries(SUITES_LEFT_OUT).map(([suite, reason]) => {
    if (!suites().includes(suite)) throw new Error(`no suite "${suite}"`);
    counts.skipped += 1;
    return `    not run: ${suite}: ${reason}`;
  });
}

/** Runs every suite that tries something of Windows, and counts their tests; what is to be said. */
export async function runSuitesUnderWine() {
  const said = ["", ...tellLeftOut()];
  const place = prepare();
  const leftOut = leftOutOf("wine", "bun", TOLD.SHMAP_TEST_LOCK);
  const together = suites()
    .filter((suite) => !(suite in SUITES_LEFT_OUT) && !ALONE.includes(suite));
  let failed = 0;
  const lane = async (waiting) => {
    for (let suite = waiting.shift(); suite; suite = waiting.shift()) {
      const { output, counted, seconds } = await runSuite(suite, place);
      counts.passed += counted.passed;
      counts.skipped += counted.skipped;
      failed += counted.failed;
      const { passed, skipped, reasons } = counted;
      if (counted.failed === 0) checkLeftOut(leftOut, [suite], reasons);
      const numbers = `${passed} passed, ${counted.failed} failed, ${skipped} skipped`;
      said.push(`    ${suite}: ${numbers} (${seconds.toFixed(1)} s)`);
      said.push(...reasons.map((reason) => `    not run: ${reason}`));
      if (counted.failed > 0) said.push(output.slice(-OUTPUT_END));
    }
  };
  await Promise.all(Array.from({ length: LANES }, () => lane(together)));
  await lane([...ALONE]);
  counts.passed -= 1; // the step itself counts as one
  if (failed > 0) throw new Error(`${failed} failed${said.join("\n")}`);
  return said.join("\n");
}
