/**
 * What `faults.mjs` disturbs in a real runtime: a map is opened, filled so that it grows, replaced
 * by another, filled, and closed. Each step is one line of JSON on standard output; one that fails
 * is made once more.
 *
 *     bun tests/proof/act.ts <directory>
 */
import { writeSync } from "node:fs";
import process from "node:process";
import { SharedMap, SharedMemoryError } from "../../mod.ts";

const directory = process.argv[2];
const LARGE = "x".repeat(300_000);

/** Runs a step; what it threw is said, and whether the same step then succeeds. */
function step<T>(name: string, task: () => T): T | undefined {
  let failed: string | undefined;
  for (let time = 0; time < 2; time += 1) {
    try {
      const result = task();
      writeSync(1, `${JSON.stringify({ name, failed })}\n`);
      return result;
    } catch (error) {
      const code = error instanceof SharedMemoryError ? error.code : `${error}`;
      if (failed) writeSync(1, `${JSON.stringify({ name, failed, again: code })}\n`);
      failed = code;
    }
  }
  return undefined;
}

function fill(map: SharedMap<unknown>, label: string): void {
  step(`${label}: set`, () => map.set("small", label));
  step(`${label}: grow`, () => map.set("large", LARGE));
  step(`${label}: replace`, () => map.set("small", `${label} again`));
  step(`${label}: read`, () => {
    if (map.get("small") !== `${label} again`) throw new Error("another small value");
    if (map.get("large") !== LARGE) throw new Error("another large value");
  });
}

const first = step("open", () => SharedMap.open("map", { directory }));
if (first) {
  fill(first, "first");
  step("delete", () => {
    if (!first.delete("large")) throw new Error("nothing to delete");
  });
  const second = step("exclusive", () => SharedMap.open("map", { directory, mode: "exclusive" }));
  if (second) {
    fill(second, "second");
    step("close", () => second.close());
  }
  step("close the first", () => first.close());
}
