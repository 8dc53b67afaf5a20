/**
 * The README's examples, run as a reader would run them: every `ts` block is a program, the
 * comments at its head name its file and the commands that start it.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { executable, freshDirectory, freshName, HERE, ROOT, THERE } from "../support/support.ts";
import type { Runtime, TestContext } from "../support/support.ts";

interface Program {
  file: string;
  code: string;
  /** The arguments with which each runtime starts it. */
  args: Record<Runtime, string[]>;
}

/** The programs in the `ts` blocks of a page. */
export function programs(page: string): Program[] {
  return [...page.matchAll(/^```ts\n([^]*?)^```$/gm)].map(([, code], index) => {
    const file = /^\/\/ (\w+\.ts)$/m.exec(code)?.[1] ?? `block_${index + 1}.ts`;
    const stated = (runtime: Runtime) =>
      new RegExp(`^// ${runtime} (.*)$`, "m").exec(code)?.[1].split(" ");
    const deno = stated("deno") ?? ["run", "--allow-ffi", file];
    return { file, code, args: { deno, bun: stated("bun") ?? ["run", file] } };
  });
}

const PROGRAMS = programs(readFileSync(join(ROOT, "README.md"), "utf8"));

/** The programs in a directory of this checkout, where `shmap` is known by its name. */
function unpack(t: TestContext, change = (code: string) => code): string {
  const parent = join(ROOT, ".zig-cache");
  mkdirSync(parent, { recursive: true });
  const directory = freshDirectory(t, parent);
  for (const { file, code } of PROGRAMS) writeFileSync(join(directory, file), change(code));
  return directory;
}

/** Runs one program to its end and returns what it printed. */
function run(runtime: Runtime, file: string, directory: string): Promise<string> {
  const program = PROGRAMS.find((each) => each.file === file);
  assert.ok(program, `the README has no ${file}`);
  return new Promise((resolve, reject) => {
    let output = "";
    const [command, ...args] = program.args[runtime];
    const checked = runtime === "deno"
      ? [command, "--check", "--quiet", ...args]
      : [command, ...args];
    const child = spawn(executable(runtime), checked, {
      cwd: directory,
      env: { ...process.env, NO_COLOR: "1" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.stdout.setEncoding("utf8").on("data", (text: string) => output += text);
    child.stderr.setEncoding("utf8").on("data", (text: string) => output += text);
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code === 0) resolve(output);
      else reject(new Error(`${file} on ${runtime} ended with ${code ?? signal}:\n${output}`));
    });
  });
}

test("README: hits.ts counts exactly in a Deno and a Bun process at once", async (t) => {
  const name = freshName(t);
  const directory = unpack(t, (code) => code.replaceAll('"hits"', JSON.stringify(name)));
  const outputs = await Promise.all([HERE, THERE].map((each) => run(each, "hits.ts", directory)));
  assert.match(outputs.join(""), /^20000 hits by 2 processes$/m);
});

test("README: parent.ts gets its answer from child.ts", async (t) => {
  assert.equal((await run(HERE, "parent.ts", unpack(t))).trim(), "stressed");
});

const IN_COMPANY = ["hits.ts", "parent.ts", "child.ts"];

for (const { file } of PROGRAMS.filter((program) => !IN_COMPANY.includes(program.file))) {
  test(`README: ${file} runs to its end`, async (t) => {
    assert.notEqual(await run(HERE, file, unpack(t)), "");
  });
}

test("README: an example that fails is noticed", async (t) => {
  const directory = unpack(t, () => 'throw new Error("planted");\n');
  await assert.rejects(run(HERE, "hits.ts", directory), /planted/);
});
