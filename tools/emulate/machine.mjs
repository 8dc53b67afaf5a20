/**
 * What every step that tries another platform needs: a directory of its own, commands, and a word
 * for what cannot be tried here.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative, sep } from "node:path";
import { junitCounts } from "../counts.mjs";
import * as programs from "../process.mjs";

const { ENVIRONMENT, ROOT } = programs;
const TIMEOUT_MS = 15 * 60_000;
const OUTPUT_END = 4000;

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

/** The path of every suite, by its name. */
const SUITES = new Map(
  readdirSync(join(ROOT, "tests"), { recursive: true }).sort().flatMap((file) => {
    const name = /(\w+)_test\.ts$/.exec(file)?.[1];
    return name ? [[name, `./tests/${file.split(sep).join("/")}`]] : [];
  }),
);

/** The names of all suites. */
export function suites() {
  return [...SUITES.keys()];
}

export function pathOf(suite) {
  const path = SUITES.get(suite);
  if (!path) throw new Error(`no suite "${suite}"`);
  return path;
}

/** Lets all that lies in a copy of `tests` have its `test` from where some are left out. */
export function replaceTest(directory) {
  const stand = join(directory, "support", "emulated.ts");
  for (const file of readdirSync(directory, { recursive: true })) {
    const path = join(directory, file);
    if (!file.endsWith(".ts") || path === stand) continue;
    const way = relative(dirname(path), stand).split(sep).join("/");
    const text = readFileSync(path, "utf8");
    const specifier = way.startsWith(".") ? way : `./${way}`;
    writeFileSync(path, text.replace('from "node:test"', `from "${specifier}"`));
  }
}

/** A test that was to be left out, and was not among what these suites skipped, is an error. */
export function checkLeftOut(leftOut, names, reasons) {
  for (const { suite, piece } of leftOut) {
    if (!names.includes(suite) || reasons.some((reason) => reason.includes(piece))) continue;
    throw new Error(`no test is called "${piece}"`);
  }
}

/** What the report at this path counts; undefined if there is none, or it is not whole. */
export function countsAt(path) {
  return existsSync(path) ? junitCounts(readFileSync(path, "utf8")) : undefined;
}

/** A step that found out that it cannot run here. */
export class Skipped extends Error {}

export function need(program) {
  if (!programs.isInstalled(program)) throw new Skipped(`${program} is not installed`);
}

/** Runs a command to its end; how that was and what it said. */
export async function attempt(program, args, { cwd = ROOT, env = {}, limitMs = TIMEOUT_MS } = {}) {
  const options = { cwd, env: { ...environment, ...env }, limitMs };
  const { how, output } = await programs.run([program, ...args], options);
  return { how, output: output.replaceAll("\r", "\n") };
}

/** Runs a command to its end; its output, or an error with the end of it. */
export async function run(program, args, cwd = ROOT) {
  const { how, output } = await attempt(program, args, { cwd });
  if (how === "") return output;
  throw new Error(`${program} ${args[0]} ${how}\n${output.slice(-OUTPUT_END)}`);
}

let libraries;

/** The path of the library for a platform, as it is shipped. */
export async function shipped(platform, file = "libshmap.so") {
  const place = join(work, "libraries");
  libraries ??= run("zig", ["build", "all", "--prefix", place]);
  await libraries;
  return join(place, "all", platform, file);
}
