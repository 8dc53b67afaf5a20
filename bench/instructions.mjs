/**
 * How many instructions an operation of the engine takes, counted by callgrind: the same on a busy
 * machine as on a quiet one, and, because nothing is drawn at random (`instructions.zig`), the same
 * in every run. Compares with the figures of stage 1, which `instructions.json` keeps and nothing
 * writes anew: an operation that uses nothing new may take 2 % more at most.
 *
 *     node bench/instructions.mjs      compares; ends with `N passed, N failed, N skipped`
 *
 * What is counted is the built library and the mutex of this machine's C library; the figures were
 * taken with glibc 2.36 on x86-64.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { inWords } from "../tools/counts.mjs";
import { install } from "../tools/install.mjs";
import { isInstalled, must, ROOT, run } from "../tools/process.mjs";

const PROGRAM = join(ROOT, "zig-out", "bin", "shmap-bench-instructions");
const LIBRARY = join(ROOT, "zig-out", "lib", "libshmap.so");
const STAGE_1 = JSON.parse(readFileSync(join(ROOT, "bench", "instructions.json"), "utf8"));
const MORE_AT_MOST = 0.02;

/** The instructions of one operation: the average of a hundred thousand. */
async function counted(lock, name, keys) {
  const { output } = await run([
    ...["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"],
    ...["--collect-atstart=no", "--toggle-collect=instructions.counted"],
    ...[PROGRAM, LIBRARY, lock, name, keys],
  ]);
  const instructions = /Collected : (\d+)/.exec(output);
  const operations = /^(\d+) operations$/m.exec(output);
  if (!instructions || !operations) throw new Error(`callgrind failed: ${output}`);
  return Math.round(10 * Number(instructions[1]) / Number(operations[1])) / 10;
}

if (process.arch !== "x64" || !isInstalled("valgrind")) {
  console.log("skipped: instructions are counted by valgrind, on x86-64");
  console.log("0 passed, 0 failed, 1 skipped");
  process.exit(0);
}
const installed = await install();
if (!installed.isOk) throw new Error(installed.output);
await must(["zig", "build", "bench-programs"]);
let failed = 0;
let passed = 0;
for (const [lock, cases] of Object.entries(STAGE_1)) {
  for (const [name, counts] of Object.entries(cases)) {
    for (const [keys, before] of Object.entries(counts)) {
      const now = await counted(lock, name, keys);
      const percent = 100 * (now / before - 1);
      const isGood = percent <= 100 * MORE_AT_MOST;
      const change = `${before} -> ${now} (${percent < 0 ? "" : "+"}${percent.toFixed(1)} %)`;
      console.log(`${isGood ? "ok  " : "MORE"}  ${lock}, ${name}, ${keys} keys: ${change}`);
      if (isGood) passed++;
      else failed++;
    }
  }
}
console.log(inWords({ passed, failed, skipped: 0 }));
process.exit(failed === 0 ? 0 : 1);
