/**
 * Runs AFL++ over `fuzz.zig`: inputs are kept that reach code which no input before them reached.
 *
 *     node tests/proof/fuzz.mjs [--scale <n>] [--seed <n>]
 *
 * AFL++ is Debian's package afl++, and is installed where that may be done. Everything else lies in
 * a temporary directory. An input that crashes, or does not end, is printed in hex: build as
 * `build` does and run `shmap-proof-fuzz replay <hex>`.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { ROOT, scale, seed } from "./part.mjs";

const RUNTIME = "/usr/lib/afl/afl-compiler-rt.o";
const WHAT = "fuzzed inputs";
const INPUTS = 100_000;
const SECONDS = 40;
/** On a busy machine it takes longer to try as many; not for ever. */
const ROUNDS_MAX = 6;
const TIMEOUT_MS = 2000;

const say = (row) => console.log(JSON.stringify({ part: 6, what: WHAT, ...row }));

function run(command, args, options = {}) {
  return spawnSync(command, args, { encoding: "utf8", maxBuffer: 1 << 28, ...options });
}

/** Why there is no AFL++ here, or nothing. */
function missing() {
  if (process.platform !== "linux") return "AFL++ is looked for on Linux only";
  const found = () => existsSync(RUNTIME) && run("afl-fuzz", ["-h"]).error === undefined;
  if (found()) return;
  if (process.getuid() !== 0) return "afl++ is not installed, and only root can do it";
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const installed = run("apt-get", ["install", "-y", "afl++"], { env, timeout: 300_000 });
  if (!found()) return `afl++ cannot be installed: ${installed.error ?? installed.stderr}`;
}

/** Builds `fuzz.zig` so that every branch tells AFL++ that it was taken. */
function build(directory) {
  const program = join(directory, "shmap-proof-fuzz");
  const stub = join(directory, "stub.c");
  // The compiler also notes how deep the stack goes, which AFL++ does not ask.
  writeFileSync(stub, "__thread unsigned long __sancov_lowest_stack;\n");
  const built = run(join(ROOT, "node_modules/.bin/zig"), [
    "build-exe",
    "-O",
    "ReleaseSafe",
    "-fsanitize-coverage-trace-pc-guard",
    "-lc",
    `-femit-bin=${program}`,
    RUNTIME,
    stub,
    "--dep",
    "shmap",
    `-Mroot=${join(ROOT, "tests/proof/fuzz.zig")}`,
    `-Mshmap=${join(ROOT, "zig/root.zig")}`,
    "--cache-dir",
    join(ROOT, ".zig-cache"),
  ], { timeout: 600_000 });
  if (built.status !== 0) throw new Error(`fuzz.zig does not build: ${built.stderr}`);
  return program;
}

/** What AFL++ says of itself, as numbers. */
function statistics(out) {
  const text = readFileSync(join(out, "default/fuzzer_stats"), "utf8");
  return Object.fromEntries(
    [...text.matchAll(/^(\w+) +: (\d+)/gm)].map(([, name, value]) => [name, Number(value)]),
  );
}

/** Fuzzes for the time of this scale, and on while too few inputs were tried. */
function fuzz(program, seeds, out) {
  const env = {
    ...process.env,
    AFL_NO_UI: "1",
    AFL_SKIP_CPUFREQ: "1",
    AFL_NO_AFFINITY: "1",
    AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES: "1",
    AFL_AUTORESUME: "1",
  };
  const seconds = Math.max(3, Math.round(SECONDS * scale));
  let tried = 0;
  let last;
  for (let round = 0; round < ROUNDS_MAX && tried < INPUTS * scale; round++) {
    const limits = ["-V", String(seconds), "-t", String(TIMEOUT_MS), "-m", "none"];
    const args = ["-i", seeds, "-o", out, "-s", String(seed + round), ...limits, "--", program];
    const ended = run("afl-fuzz", args, { env, timeout: (seconds + 60) * 1000 });
    if (ended.status !== 0) throw new Error(`afl-fuzz failed: ${ended.stdout}${ended.stderr}`);
    last = statistics(out);
    tried = last.execs_done;
    if (last.saved_crashes + last.saved_hangs > 0) break;
  }
  return last;
}

/** Says how to replay what went wrong, as short as AFL++ makes it in a moment. */
function explain(program, out) {
  for (const kind of ["crashes", "hangs"]) {
    const directory = join(out, "default", kind);
    const names = readdirSync(directory).filter((name) => name.startsWith("id:"));
    for (const name of names.slice(0, 5)) {
      const shorter = join(out, "shorter");
      const from = ["-i", join(directory, name), "-o", shorter, "-t", String(TIMEOUT_MS)];
      const cut = run("afl-tmin", [...from, "--", program], { timeout: 20_000 });
      const file = kind === "crashes" && cut.status === 0 ? shorter : join(directory, name);
      const hex = readFileSync(file).toString("hex");
      console.error(`${kind}, seed ${seed}: shmap-proof-fuzz replay ${hex}`);
      const replayed = run(program, ["replay", hex], { timeout: 10_000 });
      console.error(replayed.stderr.split("\n").slice(0, 30).join("\n"));
    }
  }
}

function main() {
  const why = missing();
  if (why) return say({ skipped: why });
  const directory = mkdtempSync(join(tmpdir(), `shmap-test-${process.pid}-`));
  try {
    const program = build(directory);
    const seeds = join(directory, "seeds");
    mkdirSync(seeds);
    const made = run(program, ["seeds", seeds]);
    if (made.status !== 0) throw new Error(`no seeds: ${made.stderr}`);
    const out = join(directory, "out");
    const { execs_done, saved_crashes, saved_hangs, edges_found, corpus_count } = fuzz(
      program,
      seeds,
      out,
    );
    const found = saved_crashes + saved_hangs;
    if (found > 0) explain(program, out);
    const least = Math.ceil(INPUTS * scale);
    const note = `${edges_found} edges covered by ${corpus_count} inputs kept`;
    say({ tried: execs_done, found, least, seed, note });
    if (found > 0 || execs_done < least) process.exitCode = 1;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

main();
