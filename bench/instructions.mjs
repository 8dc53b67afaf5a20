/**
 * How many instructions an operation of the engine takes, counted by callgrind: the same on a busy
 * machine as on a quiet one. Compares with `instructions.json`, where it may differ by 3 %.
 *
 *     node bench/instructions.mjs            compares; ends with `N passed, N failed, N skipped`
 *     node bench/instructions.mjs --write    counts anew
 *
 * What is counted is the built library and the mutex of this machine's C library.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { ENVIRONMENT, install, ROOT } from "../tests/run.mjs";

const PROGRAM = join(ROOT, "zig-out", "bin", "shmap-bench-engine");
const LIBRARY = join(ROOT, "zig-out", "lib", "libshmap.so");
const KEPT = join(ROOT, "bench", "instructions.json");
const TOLERANCE = 0.03;
/** With 100,000 keys some stripes have tables twice as large as others have. */
const KEYS = [1_000, 60_000];
/** An insert counts together with the delete that undoes it. */
const OPERATIONS = ["get", "set", "miss", "insert"];

/** The instructions of one operation. */
function counted(name, keys) {
  const end = spawnSync("valgrind", [
    ...["--tool=callgrind", "--callgrind-out-file=/dev/null"],
    ...["--collect-atstart=no", "--toggle-collect=engine.counted"],
    ...[PROGRAM, LIBRARY, "count", name, String(keys)],
  ], { encoding: "utf8" });
  const instructions = /Collected : (\d+)/.exec(end.stderr ?? "");
  const operations = /^(\d+) operations$/m.exec(end.stdout ?? "");
  if (!instructions || !operations) throw new Error(`callgrind failed: ${end.stderr}`);
  return Math.round(10 * Number(instructions[1]) / Number(operations[1])) / 10;
}

if (spawnSync("valgrind", ["--version"]).status !== 0) {
  console.log("valgrind is not there: instructions are not counted");
  console.log("0 passed, 0 failed, 1 skipped");
  process.exit(0);
}
const installed = await install();
if (!installed.isOk) throw new Error(installed.output);
const options = { cwd: ROOT, env: ENVIRONMENT, stdio: "inherit" };
if (spawnSync("zig", ["build", "bench-programs"], options).status !== 0) process.exit(1);
const now = {};
for (const name of OPERATIONS) {
  now[name] = Object.fromEntries(KEYS.map((keys) => [keys, counted(name, keys)]));
}
if (process.argv.includes("--write")) {
  writeFileSync(KEPT, `${JSON.stringify(now, null, 2)}\n`);
  process.exit(0);
}
const kept = JSON.parse(readFileSync(KEPT, "utf8"));
let failed = 0;
let passed = 0;
for (const [name, counts] of Object.entries(now)) {
  for (const [keys, count] of Object.entries(counts)) {
    const before = kept[name]?.[keys];
    const isSame = Math.abs(count / before - 1) <= TOLERANCE;
    console.log(`${isSame ? "same   " : "CHANGED"}  ${name}, ${keys} keys: ${before} -> ${count}`);
    if (isSame) passed++;
    else failed++;
  }
}
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exit(failed === 0 ? 0 : 1);
