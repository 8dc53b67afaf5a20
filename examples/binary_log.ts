/**
 * A binary log in a file that two processes have mapped: one packs records into it, the other
 * unpacks them as they come, both under the lock of the region.
 *
 *     deno run -R=/tmp -W=/tmp --allow-env --allow-ffi --allow-run examples/binary_log.ts
 *     bun run examples/binary_log.ts
 *
 * The file begins with four bytes that say where the log ends. A record has two bytes for its
 * length, and then what `RECORD` says: when it was written, its level, and the text.
 */
import { spawn } from "node:child_process";
import { rmSync } from "node:fs";
import process from "node:process";
import { setTimeout as pause } from "node:timers/promises";
import { Mmap, pack } from "shmap";

const RECORD = "d C a*";
const LEVELS = ["debug", "info", "error"];
/** Where the first record begins. */
const FIRST = 4;
const LENGTH = 64 * 1024;
const RECORDS = 1000;

/** Where the log ends. In a new file there are zeros. */
function endOf(log: Mmap): number {
  const [end] = log.unpack(0, 4, "L") as [number];
  return Math.max(end, FIRST);
}

function append(log: Mmap, level: number, text: string): void {
  const record = pack(RECORD, Date.now(), level, text);
  using _lock = log.lock();
  const end = endOf(log);
  if (end + 2 + record.length > log.length) throw new RangeError("the log is full");
  const length = log.pack(end, "n/a*", record);
  // Last of all: a process that dies before this line has written nothing.
  log.pack(0, "L", end + length);
}

/** The records from `start` on, and where they end. */
function readFrom(log: Mmap, start: number): { records: string[]; end: number } {
  using _lock = log.lock(); // shared with other readers, for this region cannot write
  const end = endOf(log);
  const records: string[] = [];
  for (let at = start; at < end;) {
    const [length] = log.unpack(at, 2, "n") as [number];
    const [time, level, text] = log.unpack(at + 2, length, RECORD) as [number, number, string];
    records.push(`${new Date(time).toISOString()} ${LEVELS[level]}: ${text}`);
    at += 2 + length;
  }
  return { records, end };
}

/** The process that writes. */
async function write(file: string): Promise<void> {
  using log = Mmap.open(file, { protection: "read-write" });
  for (let i = 1; i <= RECORDS; i++) {
    append(log, i % LEVELS.length, `record ${i}`);
    if (i % 100 === 0) await pause(2);
  }
}

/** Reads what another process writes, until everything is there. */
async function follow(file: string): Promise<string[]> {
  using log = Mmap.open(file);
  const options = "Deno" in globalThis ? [`-R=${file}`, `-W=${file}`, "--allow-ffi"] : [];
  const args = ["run", ...options, import.meta.filename!, file];
  const writer = spawn(process.execPath, args, { stdio: "inherit" });

  const all: string[] = [];
  const deadline = performance.now() + 30_000;
  for (let start = FIRST; all.length < RECORDS && performance.now() < deadline;) {
    const { records, end } = readFrom(log, start);
    if (records.length > 0) console.log(`read ${records.length} records, up to byte ${end}`);
    all.push(...records);
    start = end;
    await pause(1);
  }
  writer.kill(); // if it has not ended by itself
  return all;
}

async function main(): Promise<void> {
  const file = `/tmp/shmap-log-${process.pid}.bin`;
  try {
    Mmap.open(file, { length: LENGTH, protection: "read-write" }).close(); // now there is a file
    const records = await follow(file);
    console.log(records.at(-1));
    const isWhole = records.length === RECORDS &&
      records.every((record, i) => record.endsWith(`: record ${i + 1}`));
    console.log(isWhole ? "every record came, in order" : "records are MISSING");
    process.exitCode = isWhole ? 0 : 1;
  } finally {
    rmSync(file, { force: true });
  }
}

const file = process.argv[2];
await (file === undefined ? main() : write(file));
