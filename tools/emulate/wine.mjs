/**
 * The suites in Bun for Windows, under wine: the real `bun.exe` of npm, the library for Windows,
 * and a copy of what a suite needs of the checkout, with the library where a build leaves it.
 */
import { createHash } from "node:crypto";
import { copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { honest } from "../counts.mjs";
import { leftOutOf } from "../left_out.mjs";
import { inLanes, ROOT } from "../process.mjs";
import {
  attempt,
  checkLeftOut,
  counts,
  countsAt,
  pathOf,
  replaceTest,
  run,
  shipped,
  Skipped,
  suites,
  SUITES_OF_SOURCES,
  work,
} from "./machine.mjs";

const PACKAGE = "@oven/bun-windows-x64";
const DOWNLOAD_MS = 3 * 60_000;
const SUITE_MS = 8 * 60_000;
const OUTPUT_END = 4000;
const COPIED = ["mod.ts", "src", "tests", "tools", "package.json", "LICENSE"];

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
 * then; but wine opens it all the same while another process has it open, as a process does that
 * looks for what the dead left has for a moment. So no other suite runs beside them.
 */
const ALONE = ["mmap", "token"];

/** The package that npm has of Bun for Windows, as locked, unpacked into a new directory. */
async function download() {
  const name = `node_modules/${PACKAGE}`;
  const lock = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")).packages[name];
  const place = join(work, "bun");
  mkdirSync(place);
  const packing = ["pack", "--silent", `${PACKAGE}@${lock.version}`];
  const packed = await attempt("npm", packing, { cwd: place, limitMs: DOWNLOAD_MS });
  if (packed.how !== "") throw new Skipped(`npm has no ${PACKAGE}@${lock.version} to give`);
  const file = join(place, packed.output.trim().split("\n").at(-1));
  const hash = createHash("sha512").update(readFileSync(file)).digest("base64");
  if (`sha512-${hash}` !== lock.integrity) throw new Error(`${file} is not what is locked`);
  await run("tar", ["-xzf", file], place);
  return join(place, "package", "bin");
}

/** A checkout as a suite in Bun on Windows sees it; its path, and that of `bun.exe`. */
async function prepare() {
  const bin = await download();
  const source = join(work, "bcryptprimitives.zig");
  writeFileSync(source, RANDOM_BYTES);
  await run("zig", [
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
  copyFileSync(await shipped("windows-x64", "shmap.dll"), join(built, "shmap.dll"));
  // Bun is for Windows 10 and newer; wine says 7 unless told.
  const version = ["/v", "Version", "/d", "win10", "/f"];
  await run("wine", ["reg", "add", "HKCU\\Software\\Wine", ...version], work);
  return { checkout, bun: join(bin, "bun.exe") };
}

/** Runs one suite; what it counts, what it said, and for how many seconds. */
async function runSuite(suite, { checkout, bun }) {
  const report = join(checkout, `report-${suite}.xml`);
  // By the name that wine has for it: relative to its directory, Bun cannot make it there.
  const reporting = [
    "--reporter=junit",
    `--reporter-outfile=Z:${report.replaceAll("/", "\\")}`,
  ];
  const args = [bun, "test", "--timeout", "120000", ...reporting, pathOf(suite)];
  const start = performance.now();
  const { how, output } = await attempt("wine", args, {
    cwd: checkout,
    env: TOLD,
    limitMs: SUITE_MS,
  });
  const counted = honest(countsAt(report), how === "");
  return { output, counted, seconds: (performance.now() - start) / 1000 };
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
  const place = await prepare();
  const leftOut = leftOutOf("wine", "bun", TOLD.SHMAP_TEST_LOCK);
  const together = suites()
    .filter((suite) => !(suite in SUITES_LEFT_OUT) && !ALONE.includes(suite));
  let failed = 0;
  const take = async (suite) => {
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
  };
  await inLanes(LANES, together, take);
  await inLanes(1, ALONE, take);
  counts.passed -= 1; // the step itself counts as one
  if (failed > 0) throw new Error(`${failed} failed${said.join("\n")}`);
  return said.join("\n");
}
