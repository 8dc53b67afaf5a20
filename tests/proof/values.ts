/**
 * Values: what is stored comes back exactly, in this runtime and in the other, and any bytes
 * are read are refused or are some value. Both runtimes together try at scale 20 four million
 * structures and twenty million damaged ones.
 *
 *     deno run -A tests/proof/values.ts [--scale <n>] [--seed <n>] [structures] [damage]
 */
import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { SharedMap } from "../../mod.ts";
import { readDamaged } from "../support/damage.ts";
import { assertAlike, checkStructures, structure, writeStructures } from "../support/structures.ts";
import { partArguments } from "./part.mjs";

const PART = 12;
const HERE = "Deno" in globalThis ? "Deno" : "Bun";
const OTHER = HERE === "Deno" ? ["bun"] : ["deno", "run", "-A", "--no-check"];
/** At scale 1, on one runtime. */
const LEAST = { structures: 100_000, damage: 500_000 };
const BATCH = 20_000;

interface Row {
  what: string;
  tried: number;
  found: number;
  least: number;
  seed: number;
}

function print(row: Row): void {
  console.log(JSON.stringify({ part: PART, ...row, what: `${row.what} on ${HERE}` }));
}

/** Counts what is wrong, and says of the first few what it is. */
class Findings {
  count = 0;

  /** What `task` gives; 0 if it throws. */
  try(what: string, task: () => number): number {
    try {
      return task();
    } catch (error) {
      this.count += 1;
      if (this.count <= 5) console.error(what, error);
      return 0;
    }
  }
}

/** Compares with `structuredClone` here, and has the other runtime read a part of it. */
function tryStructures(count: number, seed: number, findings: Findings): number {
  let tried = 0;
  for (let from = seed; from < seed + count; from += BATCH) {
    using map = SharedMap.anonymous<unknown>();
    const to = Math.min(from + BATCH, seed + count);
    tried += findings.try(`structures from ${from}`, () => {
      for (let number = from; number < to; number += 1) {
        const { given, expected, refusedAt, canClone } = structure(number);
        writeStructures(map, number, number + 1);
        if (refusedAt !== undefined) continue;
        assertAlike(map.get(`${number}`), expected, `value of ${number}`);
        if (canClone) assertAlike(structuredClone(given), expected, `clone of ${number}`);
      }
      readElsewhere(map.token, from, to);
      return to - from;
    });
  }
  return tried;
}

function readElsewhere(token: string, from: number, to: number): void {
  const [command, ...args] = OTHER;
  const program = [fileURLToPath(import.meta.url), "read", token, `${from}`, `${to}`];
  const { status, stderr } = spawnSync(command, [...args, ...program], { encoding: "utf8" });
  if (status !== 0) throw new Error(`the other runtime: ${stderr}`);
}

function main(): void {
  const [word, token, from, to] = process.argv.slice(2);
  if (word === "read") {
    using map = SharedMap.attach(token, { readonly: true });
    checkStructures(map, Number(from), Number(to));
    return;
  }
  const { scale, seed, words } = partArguments();
  const isAsked = (name: string) => words.length === 0 || words.includes(name);
  if (isAsked("structures")) {
    const least = Math.ceil(LEAST.structures * scale);
    const findings = new Findings();
    const tried = tryStructures(least, seed, findings);
    print({ what: "structures", tried, found: findings.count, least, seed });
  }
  if (isAsked("damage")) {
    const least = Math.ceil(LEAST.damage * scale);
    const findings = new Findings();
    let tried = 0;
    for (; tried < least; tried += BATCH) {
      findings.try("damage", () => readDamaged(Math.min(BATCH, least - tried), seed + tried));
    }
    print({ what: "damaged structures", tried, found: findings.count, least, seed });
  }
}

main();
