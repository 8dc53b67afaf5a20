/**
 * Plants known bugs in a copy of the library, one at a time, and expects the Zig tests, a suite or
 * a part of the proof to catch each. A test that no bug can fail proves nothing.
 *
 *     node tools/mutants/run.mjs                    every bug
 *     node tools/mutants/run.mjs snapshot           those whose names have one of these words
 *     node tools/mutants/run.mjs --drawn            those in files changed since the last release,
 *                                                   and a third of the others
 *     node tools/mutants/run.mjs --drawn --minutes 6   ends in about so many minutes
 *
 * What is drawn, and in which order, follows from the hash of the commit. A bug whose turn does not
 * come counts as skipped, as does one for whose part this machine has no tool.
 */
import { createHash } from "node:crypto";
import process from "node:process";
import { parseArgs } from "node:util";
import { inWords } from "../counts.mjs";
import { install } from "../install.mjs";
import { inLanes, run } from "../process.mjs";
import { ALL_MUTANTS } from "./all.mjs";
import { verdictOf } from "./plant.mjs";

/** How many bugs are planted, built and run at once. */
const LANES = 2;

async function git(...args) {
  const { isOk, stdout } = await run(["git", ...args]);
  return isOk ? stdout.trim() : "";
}

/** The files of library and module that changed since the newest tag, or since the last version. */
async function changedFiles() {
  const tag = await git("describe", "--tags", "--abbrev=0");
  const release = tag || await git("log", "-1", "--format=%H", '-G"version"', "--", "package.json");
  if (!release) console.log("no release is known here: the draw is from all bugs");
  const names = release ? await git("diff", "--name-only", release, "--", "zig", "src") : "";
  return new Set(names.split("\n").map((name) => name.replace(/^zig\//, "")));
}

/** The bugs that this commit draws: first those of changed files, then a third of the others. */
async function drawn(mutants) {
  const commit = await git("rev-parse", "HEAD");
  const lot = ({ name }) => createHash("sha256").update(`${commit} ${name}`).digest("hex");
  const shuffled = mutants.toSorted((a, b) => lot(a) < lot(b) ? -1 : 1);
  const changed = await changedFiles();
  const isChanged = ({ file, edits }) =>
    [file, ...(edits ?? []).map((edit) => edit.file)].some((name) => changed.has(name));
  const others = shuffled.filter((mutant) => !isChanged(mutant));
  const first = shuffled.filter(isChanged);
  const third = others.slice(0, Math.ceil(others.length / 3));
  console.log(
    `drawn: ${first.length} in changed files, ${third.length} of the other ${others.length}`,
  );
  return [...first, ...third];
}

/** What must find nothing without a bug, or being caught would mean nothing. */
const SOUND = { name: "no bug at all", edits: [], isSound: true };

/** The bugs in their order; behind the first of each part or suite, that one without a bug. */
function queueOf(mutants) {
  const whole = new Set(mutants.flatMap(({ proof, suite }) => proof ?? suite ?? []));
  return mutants.flatMap((mutant) => {
    const { proof, suite } = mutant;
    if (!whole.delete(proof ?? suite)) return [mutant];
    const filters = mutants.filter((each) => each.suite === suite).map(({ filter }) => filter);
    const filter = suite && `/${[...new Set(filters)].join("|")}/`;
    return [mutant, { ...SOUND, proof, suite, filter }];
  });
}

/** Tries one and counts it; how many milliseconds that took. */
async function take(mutant, counts) {
  const { name, tests, proof, suite, isSound } = mutant;
  const by = proof ?? suite ?? `Zig tests: ${[tests].flat().join(", ")}`;
  const start = performance.now();
  const verdict = await verdictOf(mutant);
  const took = performance.now() - start;
  const seconds = (took / 1000).toFixed(0);
  const isGood = verdict === (isSound ? "MISSED" : "caught");
  counts[isGood ? "passed" : verdict === "not run" ? "skipped" : "failed"] += 1;
  const word = isGood && isSound ? "sound" : verdict;
  console.log(`${word === "not run" ? "skipped" : word}: ${name} (${by}; ${seconds} s)`);
  return took;
}

async function main() {
  const options = { drawn: { type: "boolean" }, minutes: { type: "string", default: "Infinity" } };
  const { values, positionals: words } = parseArgs({ options, allowPositionals: true });
  const deadline = performance.now() + Number(values.minutes) * 60_000;
  if (!(deadline > 0)) throw new TypeError(`--minutes takes a number: ${values.minutes}`);
  const { isOk, output } = await install();
  if (!isOk) throw new Error(output);
  const all = ALL_MUTANTS.filter(({ name }) =>
    words.length === 0 || words.some((word) => name.includes(word))
  );
  if (all.length === 0) throw new RangeError(`no bug is called ${words.join(" or ")}`);
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const tried = new Set();
  // There must be time for the bugs that are being tried when the last one begins, and at the end
  // for the Zig tests without a bug: together about as long as three bugs take.
  const times = [];
  const reserved = () => 3 * times.reduce((sum, ms) => sum + ms, 0) / Math.max(1, times.length);
  await inLanes(LANES, queueOf(values.drawn ? await drawn(all) : all), async (mutant) => {
    if (performance.now() + reserved() < deadline) {
      for (const tests of [mutant.tests ?? []].flat()) tried.add(tests);
      times.push(await take(mutant, counts));
      return;
    }
    if (mutant.isSound) return;
    counts.skipped += 1;
    console.log(`skipped: ${mutant.name}: its turn did not come in ${values.minutes} minutes`);
  });
  // The Zig tests that were asked for bugs, and no others: all of them would take minutes.
  if (tried.size > 0) await take({ ...SOUND, tests: [...tried] }, counts);
  console.log(inWords(counts));
  return counts.failed === 0;
}

process.exitCode = await main() ? 0 : 1;
