/** What a process has open: to see that it does not become more and more. */
import { readdirSync, readFileSync } from "node:fs";

/** Counts of what a leak would add to. */
export interface Resources {
  descriptors: number;
  /** All mappings, and those of segments, regions and the library. */
  mappings: number;
  ours: number;
  threads: number;
}

const OURS = /memfd:shmap|shmap-test-|libshmap/;
/** What may come and go: threads of the runtime, and what a collection has not found yet. */
const SLACK: Resources = { descriptors: 16, mappings: 200, ours: 16, threads: 6 };
const POLL_MS = 50;

/** What this process has now. */
export function measure(): Resources {
  const lines = readFileSync("/proc/self/maps", "utf8").split("\n");
  return {
    descriptors: readdirSync("/proc/self/fd").length,
    mappings: lines.length,
    ours: lines.filter((line) => OURS.test(line)).length,
    threads: readdirSync("/proc/self/task").length,
  };
}

/** Collects what is not used any more; true where the runtime lets a program ask for that. */
export function collect(): boolean {
  const { gc, Bun } = globalThis as unknown as {
    gc?: () => void;
    Bun?: { gc(force: boolean): void };
  };
  if (Bun !== undefined) Bun.gc(true);
  else gc?.();
  return Bun !== undefined || gc !== undefined;
}

/**
 * Waits until there is no more than at `before`, and says what there is more at the end. The
 * runtimes' own mappings may grow with each of `rounds`; each of ours is in `ours`, too.
 */
export async function growth(
  before: Resources,
  limit: number,
  rounds = 0,
): Promise<{ now: Resources; grown: string[] }> {
  const end = Date.now() + limit;
  for (;;) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    const now = measure();
    const slack = { ...SLACK, mappings: SLACK.mappings + rounds };
    const names = Object.keys(slack) as (keyof Resources)[];
    const grown = names.filter((name) => now[name] > before[name] + slack[name])
      .map((name) => `${now[name]} ${name}, ${before[name]} before`);
    if (grown.length === 0 || Date.now() > end) return { now, grown };
  }
}

/** Both as a person reads them. */
export function compared(before: Resources, now: Resources): string {
  const names = Object.keys(now) as (keyof Resources)[];
  return names.map((name) => `${name} ${before[name]} -> ${now[name]}`).join(", ");
}
