/**
 * Plants a known bug in a copy of the library or of the module, builds what must notice it there,
 * and runs that. All builds are `Debug` ones: half of the time goes into compiling.
 */
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
import { filters } from "../left_out.mjs";
import { ROOT, run } from "../process.mjs";
import { PROGRAM_OF } from "../proof_programs.mjs";

const LIMIT_MS = 10 * 60_000;
const COPIED = ["zig", "tests/proof", "tools", "build.zig", "build.zig.zon"];
/** For the suites: the module, over the library that stands in the checkout. */
const COPIED_FOR_SUITES = [
  ...["src", "mod.ts", "deno.json", "package.json", "tests", "tools"],
  "bench/stage1_codec.ts",
];
const LINKED_FOR_SUITES = ["node_modules", "zig-out"];

function runIn(cwd, ...command) {
  return run(command, { cwd, limitMs: LIMIT_MS });
}

/**
 * The files of the library or of the module that a bug changes, by their paths: in each of them it
 * replaces the one place where its `from` stands. `read(path)` gives what a file holds.
 */
export function planted(mutant, read) {
  const files = new Map();
  for (const one of mutant.edits ?? [mutant]) {
    const { name, file, from, to } = { ...mutant, ...one };
    const path = file.startsWith("src/") ? file : join("zig", file);
    const source = files.get(path) ?? read(path);
    if (source.split(from).length !== 2) throw new Error(`no single place in ${path}: ${name}`);
    files.set(path, source.replace(from, () => to));
  }
  return files;
}

/** A copy of the library with the bug; it is gone when `use` has ended. */
async function withPlanted(mutant, use) {
  const copy = mkdtempSync(join(tmpdir(), "shmap-mutant-"));
  const paths = mutant.suite === undefined ? COPIED : COPIED_FOR_SUITES;
  try {
    for (const path of paths) cpSync(join(ROOT, path), join(copy, path), { recursive: true });
    const files = planted(mutant, (path) => readFileSync(join(copy, path), "utf8"));
    for (const [path, source] of files) writeFileSync(join(copy, path), source);
    return await use(copy);
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

/** Whether the Zig tests with `tests` (one of them) in their names fail with this bug planted. */
function failsTests(mutant) {
  return withPlanted(mutant, async (copy) => {
    const chosen = filters([mutant.tests].flat());
    const { isOk, output } = await runIn(copy, "zig", "test", "-lc", "zig/root.zig", ...chosen);
    const ran = /\d+ passed|tests passed|terminated|thread \d+ panic/.test(output);
    if (!ran) throw new Error(`does not compile: ${mutant.name}\n${output}`);
    return !isOk;
  });
}

/** Whether a suite, or the one test of it that is named, fails on Deno with this bug planted. */
function failsSuite(mutant) {
  return withPlanted(mutant, async (copy) => {
    for (const path of LINKED_FOR_SUITES) symlinkSync(join(ROOT, path), join(copy, path));
    const options = ["-A", "--no-check", ...(mutant.filter ? ["--filter", mutant.filter] : [])];
    const { isOk, output } = await runIn(copy, "deno", "test", ...options, mutant.suite);
    if (!/[1-9]\d* passed|[1-9]\d* failed/.test(output)) {
      throw new Error(`does not run: ${mutant.name}\n${output}`);
    }
    return !isOk;
  });
}

/** Whether the tests that must notice a bug do. Undefined: no tool of this machine could. */
function isCaughtBy(mutant) {
  if (mutant.tests) return failsTests(mutant);
  return mutant.suite ? failsSuite(mutant) : isFoundByProof(mutant);
}

/** The start of the command of a part of the proof, built in the copy if it is a native one. */
async function programOf(part, copy, name) {
  if (existsSync(join(copy, "tests", "proof", `${part}.mjs`))) {
    symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
    return ["node", join("tests", "proof", `${part}.mjs`)];
  }
  const root = ["--dep", "shmap", `-Mroot=tests/proof/${PROGRAM_OF[part]}.zig`];
  const modules = [...root, "-Mshmap=zig/root.zig", "-lc"];
  const built = await runIn(copy, "zig", "build-exe", ...modules, "--name", "part");
  if (!built.isOk) throw new Error(`does not compile: ${name}\n${built.output}`);
  return [join(copy, "part"), part];
}

/**
 * Whether a part of the proof, told `mutant.proof` as its command line, finds this bug: it reports
 * something found, or is ended by it. Undefined: this machine has no tool for that part.
 */
function isFoundByProof(mutant) {
  const [part, ...args] = mutant.proof.split(" ");
  return withPlanted(mutant, async (copy) => {
    const [program, ...first] = await programOf(part, copy, mutant.name);
    const { isOk, signal, stdout } = await runIn(copy, program, ...first, ...args);
    const rows = stdout.split("\n").filter((line) => line.startsWith("{")).map((line) =>
      JSON.parse(line)
    );
    if (rows.length > 0 && rows.every(({ skipped }) => skipped !== undefined)) return undefined;
    if (isOk) return false;
    // Ended before it could report, or reported something: not merely tried too little.
    return signal !== null || rows.length === 0 || rows.some((row) => row.found > 0);
  });
}

/** How it went with a bug: "caught", "MISSED", "not run" without the tool, or why it failed. */
export async function verdictOf(mutant) {
  try {
    const isCaught = await isCaughtBy(mutant);
    return isCaught === undefined ? "not run" : isCaught ? "caught" : "MISSED";
  } catch (error) {
    return `FAILED: ${error.message}`;
  }
}
