/**
 * What the pages of the project show, tried as a reader would: every `ts` block is a program that
 * must run to its end and print what it says; every command is run, unless the list below excuses
 * it. What is excused counts as skipped, with its reason.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import {
  namedScripts,
  type Page,
  type Program,
  programsOf,
  readPages,
  type Script,
  scriptsOf,
  withOwnNames,
} from "../support/pages.ts";
import {
  executable,
  freshDirectory,
  freshName,
  HERE,
  NEEDS,
  PATIENCE,
  ROOT,
  testUnless,
} from "../support/support.ts";
import type { TestContext } from "../support/support.ts";

const LONG = { timeout: 120_000 * PATIENCE };
/** How long a program or command may take that should take seconds. */
const END_MS = 60_000 * PATIENCE;

const MINUTES = "takes minutes";
const CHANGES = "changes the checkout";
const REGISTRY = "needs a registry; tools/package/try.mjs does it with one of its own";
const OTHER_MACHINE = "needs another machine or its administrator";

/** The npm scripts that a page may name without this test running them, and why. */
const EXCUSED_SCRIPTS: Record<string, string> = {
  "test": "runs this test",
  "test:full": "runs this test",
  "start": "is a step of `npm test`, which looks at what it says",
  "quick": "takes a minute",
  "check": "takes a minute, and is the first part of `npm test`",
  "proof": MINUTES,
  "proof:long": MINUTES,
  "mutants": MINUTES,
  "platforms": MINUTES,
  "bench": MINUTES,
  "instructions": MINUTES,
  "pack": "takes a minute; tools/package/try.mjs runs it",
  "build:all": "is the first half of `npm run pack`, which tools/package/try.mjs runs",
  "build": "is what `npm run setup` ends with, which is run",
  "abi": CHANGES,
  "fmt": CHANGES,
};

/** How a command begins that is not run here, and why. */
const EXCUSED_COMMANDS: Record<string, string> = {
  ".ci/run": MINUTES,
  "node tools/check.mjs": MINUTES,
  "node tools/emulate/platforms.mjs": MINUTES,
  "node tools/package/try.mjs": MINUTES,
  "npx zig build bench": MINUTES,
  "npx zig build test": MINUTES,
  "npx zig build bench-locks": MINUTES,
  "npx deno run -A bench/locks.ts": MINUTES,
  "deno add": REGISTRY,
  "bun add": REGISTRY,
  "npm install": REGISTRY,
  "docker": "needs docker and images from the network",
  "kubectl": "needs a cluster",
  "loginctl": OTHER_MACHINE,
  "mount": OTHER_MACHINE,
};

/** Why a command is not run here; undefined if it is. */
function excuseOf(command: string): string | undefined {
  const start = Object.keys(EXCUSED_COMMANDS)
    .find((each) => command === each || command.startsWith(`${each} `));
  if (start !== undefined) return EXCUSED_COMMANDS[start];
  const reason = namedScripts(command).map((name) => EXCUSED_SCRIPTS[name]).find(Boolean);
  if (reason !== undefined || !/^np[mx] /.test(command)) return reason;
  if (process.env.SHMAP_TEST_RUNTIMES) return "npm is not emulated";
  return HERE === "deno" ? undefined : "this test runs it on Deno";
}

/** Why these commands are not run here; undefined if they are. They are run together or not. */
function excuse({ commands }: Script): string | undefined {
  const reasons = commands.map(excuseOf);
  const reason = reasons.find((each) => each !== undefined);
  assert.ok(
    reason === undefined || reasons.every((each) => each !== undefined),
    `a block is run as a whole or not at all: ${commands.join("; ")}`,
  );
  return reason;
}

const PAGES = readPages();
const [README] = PAGES;

/** The programs of a page in a directory of this checkout, where `shmap` is known by its name. */
function unpack(t: TestContext, page: Page, planted?: string): Unpacked {
  const parent = join(ROOT, ".zig-cache");
  mkdirSync(parent, { recursive: true });
  const directory = freshDirectory(t, parent);
  const own = new Map<string, string>();
  const programs = withOwnNames(programsOf(page), (name) => {
    own.set(name, own.get(name) ?? freshName(t, "page"));
    return own.get(name)!;
  });
  for (const { file, code } of programs) writeFileSync(join(directory, file), planted ?? code);
  return { directory, programs };
}

interface Unpacked {
  directory: string;
  programs: Program[];
}

/** Runs a command to its end and resolves with what it printed. */
function run(command: readonly string[], cwd: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let output = "";
    const bin = join(ROOT, "node_modules", ".bin");
    const child = spawn(command[0], command.slice(1), {
      cwd,
      env: { ...process.env, NO_COLOR: "1", PATH: `${bin}${delimiter}${process.env.PATH}` },
      stdio: ["ignore", "pipe", "pipe"],
      timeout: END_MS,
      killSignal: "SIGKILL",
    });
    child.stdout.setEncoding("utf8").on("data", (text: string) => output += text);
    child.stderr.setEncoding("utf8").on("data", (text: string) => output += text);
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code === 0) resolve(output);
      else reject(new Error(`${command.join(" ")} ended with ${code ?? signal}:\n${output}`));
    });
  });
}

/** Runs one program of a page, which must print what it says. */
async function runProgram({ directory, programs }: Unpacked, file: string): Promise<void> {
  const { args, prints } = programs.find((program) => program.file === file)!;
  const [verb, ...rest] = args[HERE];
  // Types are checked for all programs at once.
  const quick = HERE === "deno" ? [verb, "--no-check", "--no-prompt", "--quiet"] : [verb];
  const output = await run([executable(HERE), ...quick, ...rest], directory);
  let from = 0;
  const lines = output.split("\n").map((line) => line.trim());
  for (const line of prints) {
    const at = lines.indexOf(line, from);
    assert.ok(at >= 0, `${file} should print ${line}, and printed:\n${output}`);
    from = at + 1;
  }
  assert.notEqual(output, "", `${file} shows nothing`);
}

/** Runs the commands of a page where the programs are that they name, or in the checkout. */
function runScript(t: TestContext, page: Page, { commands }: Script): Promise<string> {
  const text = commands.join("\n");
  // Other pages name the programs of the README, too.
  const places = [page, README].map((each) => unpack(t, each));
  const place = places.find(({ programs }) => programs.some(({ file }) => text.includes(file)));
  return run(["sh", "-ec", text], place?.directory ?? ROOT);
}

for (const page of PAGES) {
  for (const { file, starter } of programsOf(page)) {
    if (starter !== undefined) continue;
    test(`${page.path}: ${file} runs to its end, and prints what it says`, LONG, async (t) => {
      await runProgram(unpack(t, page), file);
    });
  }
}

/** The commands that were met, each of which is run for the page that has it first. */
const met = new Set<string>();

for (const page of PAGES) {
  for (const script of scriptsOf(page)) {
    const text = script.commands.join("; ");
    if (met.has(text)) continue;
    met.add(text);
    const reason = excuse(script) ?? NEEDS.shell;
    testUnless(reason, `${page.path}: ${text} ends well`, LONG, async (t) => {
      await runScript(t, page, script);
    });
  }
}

testUnless(
  HERE === "deno" ? undefined : "Deno checks the types, when it runs this test",
  "every program has the right types",
  LONG,
  async (t) => {
    const pages = PAGES.filter((page) => programsOf(page).length > 0).map((page) =>
      unpack(t, page)
    );
    const files = pages.flatMap(({ directory, programs }) =>
      programs.map(({ file }) => join(directory, file))
    );
    await run([executable("deno"), "check", "--quiet", ...files], ROOT);
  },
);

testUnless(
  NEEDS.bothRuntimes ?? NEEDS.shell,
  "README: hits.ts counts exactly in a Deno and a Bun process at once",
  LONG,
  async (t) => {
    const script = scriptsOf(README).find(({ commands }) => commands.join().includes("hits.ts"));
    assert.ok(script, "the README does not say how to run it");
    assert.match(await runScript(t, README, script), /^20000 hits by 2 processes$/m);
  },
);

test("a program that fails, or prints something else, is noticed", async (t) => {
  const failing = unpack(t, README, 'throw new Error("planted");\n');
  await assert.rejects(runProgram(failing, "hits.ts"), /planted/);
  const text = "```ts\n// wrong.ts\nconsole.log(1 + 1); // 3\n```\n";
  await assert.rejects(runProgram(unpack(t, { path: "planted.md", text }), "wrong.ts"), /print 3/);
});

testUnless(NEEDS.shell, "a command that does not exist is noticed", {}, async (t) => {
  const page = { path: "planted.md", text: "Run `node no.mjs`, then `deno unheard of.ts`.\n" };
  const scripts = scriptsOf(page);
  assert.equal(scripts.length, 2);
  for (const script of scripts) {
    assert.equal(excuse(script), undefined);
    await assert.rejects(runScript(t, page, script), /ended with/);
  }
});

test("a block of which one command is excused and one is not is refused", () => {
  assert.throws(() => excuse({ page: "", commands: ["npm test", "ls"] }), /as a whole/);
});
