/**
 * Isolates that end on threads that go on: programs that a runtime loads again when a file of
 * theirs changes, and test runners that go from file to file. Each generation leaves a lock held
 * and a map, a map without a name and a region open. The next one must be able to write, must find
 * the lock `recovered`, and nothing may pile up.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { executable } from "../support/platform.ts";
import type { Found } from "../support/reloaded.ts";
import {
  atEnd,
  freshDirectory,
  freshName,
  HERE,
  NEEDS,
  pause,
  ROOT,
  type Runtime,
  scaled,
  SUPPORT,
  type TestContext,
  testUnless,
  until,
} from "../support/support.ts";

/** Twenty at the size of \`npm test\`. */
const RELOADS = Math.max(3, scaled(100));
/** For the whole of a test: a generation that never comes ends it. */
const LIMIT = { timeout: 900_000 };
const PROGRAM = readFileSync(join(SUPPORT, "reloaded.ts"), "utf8");
const CONFIG = `--config=${join(ROOT, "deno.json")}`;
const MODULE = pathToFileURL(join(ROOT, "mod.ts")).href;
/** What a runtime itself may open or close from one generation to the next. */
const DESCRIPTORS_SLACK = 3;
/** How much memory of its own a runtime may keep besides, and for each generation. */
const OWN_SLACK_KIB = 32 * 1024;
const OWN_OF_GENERATION_KIB = 256;

/** A directory with a program that is loaded again, and what it wrote down so far. */
class Program {
  readonly directory: string;
  readonly #name: string;
  readonly #journal: string;
  #changes = 0;

  constructor(t: TestContext) {
    this.#name = freshName(t);
    this.directory = freshDirectory(t);
    this.#journal = join(this.directory, "journal");
  }

  /** Writes the program, or changes it. */
  write(file: string): string {
    const path = join(this.directory, file);
    this.#changes += 1;
    // A statement, not a comment: with `--watch-hmr` a change that does nothing is none.
    const change = `export const change = ${this.#changes};`;
    writeFileSync(path, `${PROGRAM.replace("../../mod.ts", MODULE)}\n${change}\n`);
    return path;
  }

  start(t: TestContext, runtime: Runtime, args: string[]): ChildProcess {
    const child = spawn(executable(runtime), args, {
      cwd: this.directory,
      stdio: "ignore",
      env: {
        ...process.env,
        NO_COLOR: "1",
        SHMAP_TEST_MAP: this.#name,
        SHMAP_TEST_JOURNAL: this.#journal,
      },
    });
    const ended = once(child, "exit");
    atEnd(t, async () => {
      child.kill("SIGKILL");
      await ended;
    });
    return child;
  }

  get found(): Found[] {
    if (!existsSync(this.#journal)) return [];
    const whole = readFileSync(this.#journal, "utf8").split("\n").slice(0, -1);
    return whole.map((line) => JSON.parse(line));
  }
}

/** Every generation wrote, and found the lock as a dead holder leaves it; nothing piled up. */
function assertFlat(found: readonly Found[], count: number): void {
  assert.deepEqual(found.filter(({ error }) => error !== undefined), []);
  assert.deepEqual(
    found.map(({ generation, recovered }) => [generation, recovered]),
    Array.from({ length: count }, (_, i) => [i + 1, i > 0]),
  );
  const [first, ...later] = found;
  for (const { generation, descriptors, mappings, shared, own } of later) {
    assert.ok(
      descriptors <= first.descriptors + DESCRIPTORS_SLACK,
      `${first.descriptors} descriptors have become ${descriptors}`,
    );
    assert.ok(mappings <= first.mappings, `${first.mappings} mappings have become ${mappings}`);
    assert.ok(shared <= first.shared, `${first.shared} KiB of shared memory have become ${shared}`);
    const most = first.own + OWN_SLACK_KIB + generation * OWN_OF_GENERATION_KIB;
    assert.ok(own <= most, `${first.own} KiB of its own memory have become ${own}`);
  }
}

const WATCHING: [Runtime, ...string[]][] = [
  ["deno", "run", CONFIG, "--no-check", "-A", "--watch"],
  ["deno", "run", CONFIG, "--no-check", "-A", "--watch-hmr"],
  ["bun", "--hot"],
  ["bun", "--watch"],
];

for (const [runtime, ...flags] of WATCHING.filter(([each]) => each === HERE)) {
  testUnless(
    NEEDS.proc,
    `${runtime} ${flags.at(-1)} loads a program again and again`,
    LIMIT,
    async (t) => {
      const program = new Program(t);
      const path = program.write("main.ts");
      const run = runtime === "deno" ? [...flags, path, "stay"] : [...flags, "run", path, "stay"];
      program.start(t, runtime, run);
      await until("the first generation", () => program.found.length > 0, 60_000);
      while (program.found.length < RELOADS) {
        const before = program.found.length;
        program.write("main.ts");
        // A runtime that was not watching yet misses a change: then there will be another.
        for (let waits = 0; waits < 100 && program.found.length === before; waits += 1) {
          await pause(20);
        }
      }
      const { found } = program;
      assertFlat(found, found.length);
      if (flags.at(-1) === "--watch" && runtime === "deno") {
        assert.ok(found.slice(1).every(({ heard }) => heard), "a listener could not write");
      }
    },
  );
}

const TESTING: [Runtime, ...string[]][] = [
  ["deno", "test", CONFIG, "--no-check", "-A"],
  ["bun", "test", "--isolate"],
];

for (const [runtime, ...flags] of TESTING.filter(([each]) => each === HERE)) {
  testUnless(
    NEEDS.proc,
    `${runtime} ${flags[0]} goes from one file of tests to the next`,
    LIMIT,
    async (t) => {
      const program = new Program(t);
      const names = Array.from({ length: RELOADS }, (_, i) => `file${i}_test.ts`);
      for (const name of names) program.write(name);
      const child = program.start(t, runtime, [...flags, ...names.map((name) => `./${name}`)]);
      await once(child, "exit");
      assertFlat(program.found, RELOADS);
    },
  );
}

/** Opens one map by two copies of the module, the second one while the first is in use. */
const TWO_COPIES = `
import { appendFileSync } from "node:fs";
import process from "node:process";
import { SharedMap } from "${MODULE}";
const { SHMAP_TEST_MAP, SHMAP_TEST_JOURNAL } = process.env;
const first = SharedMap.open(SHMAP_TEST_MAP);
const copy = await import("./copy/mod.ts");
const second = copy.SharedMap.open(SHMAP_TEST_MAP);
second.set("by", "second");
appendFileSync(SHMAP_TEST_JOURNAL, JSON.stringify({ first: first.get("by") }) + "\\n");
setInterval(() => {}, 1000);
`;

testUnless(
  HERE === "bun" ? NEEDS.links : "Deno has no --hot",
  "bun --hot leaves another copy of the module alone",
  LIMIT,
  async (t) => {
    const program = new Program(t);
    const path = join(program.directory, "main.ts");
    for (const part of ["mod.ts", "src", "zig-out", "package.json"]) {
      cpSync(join(ROOT, part), join(program.directory, "copy", part), { recursive: true });
    }
    symlinkSync(join(ROOT, "node_modules"), join(program.directory, "node_modules"));
    writeFileSync(path, TWO_COPIES);
    program.start(t, "bun", ["--hot", "run", path]);
    await until("a write by both copies", () => program.found.length > 0);
    assert.deepEqual(program.found, [{ first: "second" }]);
  },
);
