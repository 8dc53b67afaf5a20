/**
 * Opens and closes, and opens without a close, in a process of its own:
 *
 *     opens.ts <seed> <opens> <prefix> <directory on a disk>
 *
 * The last line on standard output is a report. What was closed, or forgotten and collected, may
 * leave no descriptor and no mapping.
 */
import { closeSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Mmap, SharedMap, SharedMemoryError, SharedValue } from "../../../mod.ts";
import { type Random, seededRandom } from "../../support/random.ts";
import type { Report } from "./workers.ts";
import { collect, compared, growth, measure } from "./resources.ts";

/** What all the objects can do. */
interface Open {
  close(): void;
  [Symbol.dispose](): void;
  lock(): { unlock(): void };
}

const WARM_UP = 500;
const REST = 200;
const SETTLE_LIMIT_MS = 15_000;

/** The ways to open something; some of them are to fail. */
function ways(prefix: string, directory: string, random: Random): (() => Open)[] {
  const file = join(directory, "opened");
  writeFileSync(file, new Uint8Array(5000));
  const name = (kind: string) => `${prefix}${kind}${random(5)}`;
  const [map, value, region] = [
    SharedMap.anonymous().set("a", 1),
    SharedValue.anonymous(),
    Mmap.anonymous(100),
  ];
  const codec = { id: "other", encode: () => new Uint8Array(1), decode: () => 1 };
  return [
    () => SharedMap.open(name("map")).set(`k${random(9)}`, random(100)),
    () => SharedMap.open(name("map"), { mode: "exclusive" }),
    () => SharedMap.open(name("map"), { readonly: true }),
    () => SharedMap.open(name("kernel"), { lock: "kernel" }),
    () => SharedMap.anonymous().set("a", { b: 1 }),
    () => SharedMap.attach(map.token),
    () => SharedMap.attach(map.token, { readonly: true }),
    () => SharedValue.open(name("value")),
    () => SharedValue.anonymous({ maxBytes: 100 }),
    () => SharedValue.attach(value.token),
    () => Mmap.anonymous(1 + random(10_000)),
    () => Mmap.attach(region.token),
    () => Mmap.open(file, { protection: "read-write", sharing: random(2) ? "shared" : "private" }),
    () => throughDescriptor(file),
    () => SharedMap.open(name("map"), { mode: "create" }),
    () => SharedMap.open(name("value")),
    () => SharedMap.open(name("map"), { codec }),
    () => SharedMap.attach(value.token),
    () => SharedMap.attach(map.token.slice(0, -1) + "g0"),
    () => SharedMap.attach(`${map.token.slice(0, -4)}0000`),
    () => Mmap.attach(map.token),
    () => Mmap.open(directory),
    () => Mmap.open(file, { length: 9000 }),
    () => Mmap.open(file, { length: 2 ** 50, protection: "read-write" }),
  ];
}

function throughDescriptor(file: string): Mmap {
  const descriptor = openSync(file, "r");
  try {
    return Mmap.open(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Opens something in one of the ways, and ends it in one of three. */
function openOne(ways: (() => Open)[], random: Random): string {
  let object: Open;
  try {
    object = ways[random(ways.length)]();
  } catch (error) {
    const isExpected = error instanceof SharedMemoryError || error instanceof TypeError;
    if (!isExpected) throw error;
    return "refused";
  }
  const dice = random(10);
  if (dice < 2) return "forgotten";
  if (dice < 4) tryLock(object);
  if (dice % 2 === 0) object.close();
  else object[Symbol.dispose]();
  return "closed";
}

/** The lock goes with the object; a read-only one has none. */
function tryLock(object: Open): void {
  try {
    object.lock();
  } catch (error) {
    if (!(error instanceof SharedMemoryError)) throw error;
  }
}

async function run([seed, count, prefix, directory]: string[]): Promise<Report> {
  const random = seededRandom(Number(seed));
  const all = ways(prefix, directory, random);
  const endings: Record<string, number> = {};
  let before = measure();
  for (let i = 1; i <= Number(count); i += 1) {
    const ending = openOne(all, random);
    endings[ending] = (endings[ending] ?? 0) + 1;
    if (i % REST === 0) {
      collect();
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    if (i === WARM_UP) before = (await growth(before, 2000)).now;
  }
  const { now, grown } = await growth(before, SETTLE_LIMIT_MS);
  const problems = grown.map((what) => `after ${count} opens: ${what}`);
  const gc = collect() ? "" : "; nothing here asks for a collection";
  const note = `${compared(before, now)}; ${JSON.stringify(endings)}${gc}`;
  return { tried: Number(count), problems, note };
}

if (import.meta.main) console.log(JSON.stringify(await run(process.argv.slice(2))));
