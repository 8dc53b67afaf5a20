/**
 * What every step that tries another platform needs: a directory of its own, commands, and a word
 * for what cannot be tried here.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { ENVIRONMENT, ROOT } from "../check.mjs";

const TIMEOUT_MS = 15 * 60_000;

/** Where everything is made; removed at the end. */
export const work = mkdtempSync(join(tmpdir(), "shmap-platforms-"));
export const environment = { ...ENVIRONMENT, WINEDEBUG: "-all", WINEPREFIX: join(work, "wine") };
export const counts = { passed: 0, failed: 0, skipped: 0 };

/** Suites of which there is nothing to try elsewhere, and why. */
export const SUITES_OF_SOURCES = {
  tidy: "it reads the sources, which are the same here",
  run: "it tries the runner, which needs Node",
  seed_cases: "it reads the sources and a page, which are the same here",
  documents: "it reads the pages, which are the same here",
  versions: "it reads the sources, which are the same here",
};

/** The names of all suites. */
export function suites() {
  return readdirSync(join(ROOT, "tests")).sort()
    .map((file) => /^(\w+)_test\.ts$/.exec(file)?.[1]).filter(Boolean);
}

/** Lets every suite in a copy of `tests` have its `test` from where some are left out. */
export function replaceTest(directory) {
  for (const file of readdirSync(directory).filter((name) => /^_.*\.ts$|_test\.ts$/.test(name))) {
    if (file === "_emulated.ts") continue;
    const path = join(directory, file);
    const text = readFileSync(path, "utf8");
    writeFileSync(path, text.replace('from "node:test"', 'from "./emulated.ts"'));
  }
}

/** A test that was to be left out, and was not among what these suites skipped, is an error. */
export function checkLeftOut(leftOut, names, reasons) {
  for (const { suite, piece } of leftOut) {
    if (!names.includes(suite) || reasons.some((reason) => reason.includes(piece))) continue;
    throw new Error(`no test is called "${piece}"`);
  }
}

/** A step that found out that it cannot run here. */
export class Skipped extends Error {}

export function isInstalled(program) {
  return environment.PATH.split(delimiter).some((path) => {
    const found = spawnSync("test", ["-x", join(path, program)]);
    return found.status === 0;
  });
}

export function need(program) {
  if (!isInstalled(program)) throw new Skipped(`${program} is not installed`);
}

/** Runs a command to its end; whether that was a good one, and the output. */
export function attempt(program, args, { cwd = ROOT, env = {}, timeout = TIMEOUT_MS } = {}) {
  const options = { cwd, env: { ...environment, ...env }, encoding: "utf8", timeout };
  const ended = spawnSync(program, args, { ...options, maxBuffer: 1 << 28 });
  const output = `${ended.stdout ?? ""}${ended.stderr ?? ""}`.replaceAll("\r", "\n");
  return { how: ended.error?.message ?? ended.signal ?? ended.status, output };
}

/** Runs a command to its end; its output, or an error with the end of it. */
export function run(program, args, cwd = ROOT) {
  const { how, output } = attempt(program, args, { cwd });
  if (how === 0) return output;
  throw new Error(`${program} ${args[0]} ended with ${how}\n${output.slice(-4000)}`);
}

let libraries;

/** The path of the library for a platform, as it is shipped. */
export function shipped(platform, file = "libshmap.so") {
  if (!libraries) {
    libraries = join(work, "libraries");
    run("zig", ["build", "all", "--prefix", libraries]);
  }
  return join(libraries, "all", platform, file);
}
