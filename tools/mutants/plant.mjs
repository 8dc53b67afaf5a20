/**
 * Plants a known bug in a copy of the library, builds what must notice it there, and runs that. All
 * builds are `Debug` ones: half of the time goes into compiling.
 */
import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ENVIRONMENT, ROOT } from "../check.mjs";

const MINUTES_MAX = 10;
const COPIED = ["zig", "tests/proof", "build.zig", "build.zig.zon"];

/** How many bugs are planted, built and run at once. */
const LANES = 2;

/** Calls `act` with each of the mutants, some at a time. */
export async function inLanes(mutants, act) {
  const waiting = [...mutants];
  await Promise.all(Array.from({ length: LANES }, async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await act(next);
  }));
}

/** Runs a command to its end; resolves with what it said and how it ended. */
export function runIn(directory, program, args) {
  return new Promise((resolve, reject) => {
    let output = "";
    const child = spawn(program, args, {
      cwd: directory,
      env: ENVIRONMENT,
      stdio: ["ignore", "pipe", "pipe"],
      timeout: MINUTES_MAX * 60_000,
      killSignal: "SIGKILL",
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => output += text);
    }
    child.on("error", reject);
    child.on("close", (status, signal) => resolve({ status, signal, output }));
  });
}

/** Replaces the one place where `from` stands in a file of the library. */
function edit(copy, { name, file, from, to }) {
  const path = join(copy, "zig", file);
  const source = readFileSync(path, "utf8");
  if (source.split(from).length !== 2) throw new Error(`no single place: ${name}`);
  writeFileSync(path, source.replace(from, () => to));
}

/** A copy of the library with the bug; it is gone when `use` has ended. */
async function withPlanted(mutant, use) {
  const copy = mkdtempSync(join(tmpdir(), "shmap-mutant-"));
  try {
    for (const path of COPIED) cpSync(join(ROOT, path), join(copy, path), { recursive: true });
    for (const one of mutant.edits ?? [mutant]) edit(copy, { ...mutant, ...one });
    return await use(copy);
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

/** Whether the Zig tests with `tests` in their names fail with this bug planted. */
export function failsTests(mutant) {
  return withPlanted(mutant, async (copy) => {
    const args = ["test", "-lc", "zig/root.zig", "--test-filter", mutant.tests];
    const { status, output } = await runIn(copy, "zig", args);
    const ran = /\d+ passed|tests passed|terminated|thread \d+ panic/.test(output);
    if (!ran) throw new Error(`does not compile: ${mutant.name}\n${output}`);
    return status !== 0;
  });
}

/** The program of a part of the proof, built in the copy if it is a native one. */
async function programOf(part, copy, name) {
  if (existsSync(join(copy, "tests", "proof", `${part}.mjs`))) {
    symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
    return ["node", join("tests", "proof", `${part}.mjs`)];
  }
  const root = ["--dep", "shmap", `-Mroot=tests/proof/${part}.zig`];
  const modules = [...root, "-Mshmap=zig/root.zig", "-lc"];
  const { status, output } = await runIn(copy, "zig", ["build-exe", ...modules, "--name", "part"]);
  if (status !== 0) throw new Error(`does not compile: ${name}\n${output}`);
  return [join(copy, "part")];
}

/**
 * Whether a part of the proof, told `mutant.proof` as its command line, finds this bug: it reports
 * something found, or is ended by it. Undefined: this machine has no tool for that part.
 */
export function isFoundByProof(mutant) {
  const [part, ...args] = mutant.proof.split(" ");
  return withPlanted(mutant, async (copy) => {
    const [program, ...first] = await programOf(part, copy, mutant.name);
    const { status, signal, output } = await runIn(copy, program, [...first, ...args]);
    const rows = output.split("\n").filter((line) => line.startsWith("{")).map((line) =>
      JSON.parse(line)
    );
    if (rows.length > 0 && rows.every(({ skipped }) => skipped !== undefined)) return undefined;
    if (status === 0) return false;
    // Ended before it could report, or reported something: not merely tried too little.
    return signal !== null || rows.length === 0 || rows.some((row) => row.found > 0);
  });
}
