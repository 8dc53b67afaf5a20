/**
 * A program that its runtime loads again and again. At its top level it opens a map and takes the
 * map's lock, never to unlock it, and writes down what it found. The tests copy this file
 * to a directory where they can change it; the environment says which map, and where to write.
 */
import { appendFileSync, readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { Mmap, SharedMap } from "../../mod.ts";

const { SHMAP_TEST_MAP: NAME = "", SHMAP_TEST_JOURNAL: JOURNAL = "" } = process.env;

/** What one generation of the program found. */
export interface Found {
  /** Counted in the map, so that a generation whose write did not happen is missed. */
  readonly generation: number;
  readonly recovered: boolean;
  /** Whether the listener of the generation before could write while that ended. */
  readonly heard: boolean;
  readonly descriptors: number;
  readonly mappings: number;
  /** How much of memory that is shared the process has touched and holds, in KiB. */
  readonly shared: number;
  /** The same of its own memory, in KiB. */
  readonly own: number;
  readonly error?: string;
}

function note(found: Partial<Found>): void {
  const descriptors = readdirSync("/proc/self/fd").length;
  const maps = readFileSync("/proc/self/maps", "latin1").split("\n");
  const mappings = maps.filter((line) => /\/dev\/shm\/|memfd:shmap /.test(line)).length;
  const status = readFileSync("/proc/self/status", "latin1");
  const kibOf = (name: string) => Number(status.match(`${name}:\\s+(\\d+) kB`)?.[1]);
  const counted = { descriptors, mappings, shared: kibOf("RssShmem"), own: kibOf("RssAnon") };
  appendFileSync(JOURNAL, `${JSON.stringify({ ...found, ...counted })}\n`);
}

if (process.argv.includes("stay")) setInterval(() => {}, 1000);
try {
  const map = SharedMap.open<number | boolean>(NAME, { timeout: 20_000 });
  const value = SharedMap.anonymous<number>().set("kept", 1);
  const region = Mmap.anonymous(100);
  const lock = map.lock();
  const generation = 1 + ((map.get("generation") as number | undefined) ?? 0);
  const heard = map.get("heard") === generation - 1;
  map.set("generation", generation);
  // Comes after the module's own listener, and still writes.
  if ("Deno" in globalThis) addEventListener("unload", () => void map.set("heard", generation));
  note({ generation, recovered: lock.recovered, heard });
  Object.assign(globalThis, { [`kept by ${generation}`]: [map, value, region, lock] });
} catch (error) {
  note({ error: `${error}` });
}
