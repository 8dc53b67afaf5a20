/**
 * Runs AFL++ over `fuzz.zig`: inputs are kept that reach code which no input before them reached.
 *
 *     node tests/proof/fuzz.mjs [--scale <n>] [--seed <n>]
 *
 * AFL++ is Debian's package afl++, and is installed where that may be done. Everything else lies in
 * a temporary directory. An input that crashes, or does not end, is printed in hex: build as
 * `build` does and run `shmap-proof-fuzz replay <hex>`.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { ENVIRONMENT, isInstalled, must, ROOT, run } from "../../tools/process.mjs";
import { partArguments } from "./part.mjs";

const { scale, seed } = partArguments();
const RUNTIME = "/usr/lib/afl/afl-compiler-rt.o";
const WHAT = "fuzzed inputs";
const INPUTS = 100_000;
const SECONDS = 40;
/** On a busy machine it takes longer to try as many; not for ever. */
const ROUNDS_MAX = 20;
const TIMEOUT_MS = 2000;

const say = (row) => console.log(JSON.stringify({ part: 6, what: WHAT, ...row }));

/** Why there is no AFL++ here, or nothing. */
async function missing() {
  if (process.platform !== "linux") return "AFL++ is looked for on Linux only";
  const found = () => existsSync(RUNTIME) && isInstalled("afl-fuzz");
  if (found()) return;
  if (process.getuid() !== 0) return "afl++ is not installed, and only root can do it";
  const env = { ...ENVIRONMENT, DEBIAN_FRONTEND: "noninteractive" };
  const installed = await run(["apt-get", "install", "-y", "afl++"], { env, limitMs: 300_000 });
  if (!found()) return `afl++ cannot be installed: ${installed.how}${installed.stderr}`;
}

/** Builds `fuzz.zig` so that every branch tells AFL++ that it was taken. */
async function build(directory) {
  const program = join(directory, "shmap-proof-fuzz");
  const stub = join(directory, "stub.c");
  // The compiler also notes how deep the stack goes, which AFL++ does not ask.
  writeFileSync(stub, "__thread unsigned long __sancov_lowest_stack;\n");
  const built = await run([
    "zig",
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
  ], { limitMs: 600_000 });
  if (!built.isOk) throw new Error(`fuzz.zig does not build: ${built.output}`);
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
async function fuzz(program, seeds, out) {
  const env = {
    ...ENVIRONMENT,
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
    const ended = await run(["afl-fuzz", ...args], { env, limitMs: (seconds + 60) * 1000 });
    if (!ended.isOk) throw new Error(`afl-fuzz ${ended.how}: ${ended.output}`);
    last = statistics(out);
    tried = last.execs_done;
    if (last.saved_crashes + last.saved_hangs > 0) break;
  }
  return last;
}

/** Says how to replay what went wrong, as short as AFL++ makes it in a moment. */
async function explain(program, out) {
  for (const kind of ["crashes", "hangs"]) {
    const directory = join(out, "default", kind);
    const names = readdirSync(directory).filter((name) => name.startsWith("id:"));
    for (const name of names.slice(0, 5)) {
      const shorter = join(out, "shorter");
      const from = ["-i", join(directory, name), "-o", shorter, "-t", String(TIMEOUT_MS)];
      const cut = await run(["afl-tmin", ...from, "--", program], { limitMs: 20_000 });
      const file = kind === "crashes" && cut.isOk ? shorter : join(directory, name);
      const hex = readFileSync(file).toString("hex");
      console.error(`${kind}, seed ${seed}: shmap-proof-fuzz replay ${hex}`);
      const replayed = await run([program, "replay", hex], { limitMs: 10_000 });
      console.error(replayed.stderr.split("\n").slice(0, 30).join("\n"));
    }
  }
}

async function main() {
  const why = await missing();
  if (why) return say({ skipped: why });
  const directory = mkdtempSync(join(tmpdir(), `shmap-test-${process.pid}-`));
  try {
    const program = await build(directory);
    const seeds = join(directory, "seeds");
    mkdirSync(seeds);
    await must([program, "seeds", seeds]);
    const out = join(directory, "out");
    const { execs_done, saved_crashes, saved_hangs, edges_found, corpus_count } = await fuzz(
      program,
      seeds,
      out,
    );
    const found = saved_crashes + saved_hangs;
    if (found > 0) await explain(program, out);
    const least = Math.ceil(INPUTS * scale);
    const note = `${edges_found} edges covered by ${corpus_count} inputs kept`;
    say({ tried: execs_done, found, least, seed, note });
    if (found > 0 || execs_done < least) process.exitCode = 1;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

await main();
