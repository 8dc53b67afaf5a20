/**
 * How the lock goes between two processes that wait for it without blocking: the time for a grant,
 * and how evenly they are shared. `zig build bench-locks` measures everything else about locks.
 *
 *     deno run -A bench/locks.ts
 */
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { SharedMap } from "../mod.ts";

const ROUND_MS = 1500;
const BIN = join(dirname(dirname(fileURLToPath(import.meta.url))), "node_modules", ".bin");
const COMMANDS: Record<string, string[]> = {
  deno: [join(BIN, "deno"), "run", "--allow-ffi"],
  bun: [join(BIN, "bun"), "run"],
};

/** Locks again and again until told to stop, giving other tasks a turn in between. */
async function work(token: string): Promise<void> {
  using map = SharedMap.attach<number>(token, { timeout: 60_000 });
  const me = `grants of ${process.pid}`;
  for (let grants = 1; !map.has("stop"); grants += 1) {
    using _lock = await map.lockAsync();
    map.set(me, grants);
    await Promise.resolve();
  }
}

async function round(runtimes: string[]): Promise<void> {
  using map = SharedMap.anonymous<number>();
  const children = runtimes.map((runtime) => {
    const [command, ...args] = COMMANDS[runtime];
    const file = fileURLToPath(import.meta.url);
    return spawn(command, [...args, file, map.token], { stdio: "inherit" });
  });
  const ends = children.map((child) => new Promise((resolve) => child.on("close", resolve)));
  while (map.size < runtimes.length) await new Promise((resolve) => setTimeout(resolve, 5));
  const before = counts(map);
  await new Promise((resolve) => setTimeout(resolve, ROUND_MS));
  const after = counts(map);
  map.set("stop", 1);
  await Promise.all(ends);
  const grants = after.map((count, i) => count - before[i]).sort((a, b) => a - b);
  const total = grants.reduce((sum, count) => sum + count);
  const share = (100 * grants[0] / total).toFixed(0);
  const each = (1000 * ROUND_MS / total).toFixed(1);
  console.log(
    `${runtimes.join(" + ").padEnd(12)} ${
      each.padStart(8)
    } µs a grant, the smaller share ${share} %`,
  );
}

function counts(map: SharedMap<number>): number[] {
  return Object.entries(map.toObject()).sort().map(([, count]) => count);
}

const token = process.argv[2];
if (token) await work(token);
else {
  const rounds = [["deno"], ["bun"], ["deno", "deno"], ["bun", "bun"], ["deno", "bun"]];
  for (const runtimes of rounds) await round(runtimes);
}
