/**
 * A program that loads the library in some way, run from a staged package: its first argument says
 * how, and what it prints is JSON. Its permissions are part of the tests.
 */
import { once } from "node:events";
import process from "node:process";
import { Worker } from "node:worker_threads";
import { SharedMap } from "../../mod.ts";
import type { Backend } from "../../src/ffi/backend.ts";
import * as bun from "../../src/ffi/bun.ts";
import * as deno from "../../src/ffi/deno.ts";
import { errorOf, mapped, memoryFiles } from "./memory_files.ts";

const backend: Backend = deno.isCurrent ? deno : bun;

const CALLS = {
  close: { args: ["i32"], returns: "i32" },
  dup2: { args: ["i32", "i32"], returns: "i32" },
  fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
  memfd_create: { args: ["bytes", "u32"], returns: "i32" },
  write: { args: ["i32", "bytes", "size"], returns: "size" },
} as const;
type Libc = Record<keyof typeof CALLS, (...args: (number | Uint8Array)[]) => number>;

/** A memory file made with this name, as our own are made. */
function plant(libc: Libc, name: string, bytes: Uint8Array): number {
  const file = libc.memfd_create(new TextEncoder().encode(`${name}\0`), 3);
  libc.write(file, bytes, bytes.length);
  libc.fcntl(file, 1033, 0xf);
  return file;
}

function useMap(): string {
  using map = SharedMap.anonymous<string>();
  return map.set("key", "stored").get("key")!;
}

/** Starts this many Workers at once, each of which uses a map, and waits until all have ended. */
async function useWorkers(count: number): Promise<void> {
  const workers = Array.from(
    { length: count },
    () => new Worker(new URL("./loading_worker.ts", import.meta.url)),
  );
  const answers = await Promise.all(workers.map((worker) => once(worker, "message")));
  for (const [answer] of answers) if (answer !== "stored") throw new Error(`${answer}`);
  await Promise.all(workers.map((worker) => worker.terminate()));
}

const WAYS: Record<string, (...args: string[]) => unknown> = {
  /** Uses a map. */
  use: () => useMap(),

  /** Uses a map; says by what the library is known to the process, and what files it has. */
  files: () => ({ value: useMap(), files: memoryFiles(), mapped: mapped() }),

  /** Has loaded and closed another library at the descriptor that ours will get. */
  reuse: async (other: string) => {
    const libc = backend.open("libc.so.6", CALLS) as Libc;
    const { readFileSync } = await import("node:fs");
    const file = plant(libc, "other", readFileSync(other));
    const { shm_fingerprint } = backend.open(`/proc/self/fd/${file}`, {
      shm_fingerprint: { args: [], returns: "u32" },
    }) as { shm_fingerprint(): number };
    const fingerprint = shm_fingerprint();
    libc.close(file);
    return { fingerprint, file, value: useMap(), files: memoryFiles() };
  },

  /** Has a memory file of the right name and the wrong bytes, and one that is not sealed. */
  planted: (name: string) => {
    const libc = backend.open("libc.so.6", CALLS) as Libc;
    const files = [plant(libc, name, new Uint8Array(1000).fill(7))];
    files.push(libc.memfd_create(new TextEncoder().encode(`${name}\0`), 3));
    return { planted: files, value: useMap(), files: memoryFiles() };
  },

  /** Uses a map through this package and another one, of another build, at once. */
  both: async (other: string) => {
    using map = SharedMap.anonymous<string>();
    const { SharedMap: OtherMap } = await import(other);
    using same = OtherMap.attach(map.token);
    same.set("key", "from the other");
    const found = map.get("key");
    map.set("key", "from this one");
    return { found, other: same.get("key"), files: memoryFiles() };
  },

  /** Many Workers at once before any has loaded the library, then many more of them. */
  workers: async (atOnce: string, rounds: string) => {
    await useWorkers(Number(atOnce));
    const first = { files: memoryFiles().length, mapped: mapped() };
    for (let round = 0; round < Number(rounds); round++) await useWorkers(Number(atOnce));
    return { first, last: { files: memoryFiles().length, mapped: mapped() } };
  },

  /** Ends by an error that nothing catches, while a thread waits in the library. */
  crash: async (token: string) => {
    const map = SharedMap.attach(token);
    map.lockAsync({ timeout: Infinity }).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 20));
    throw new Error("planted");
  },
};

const [way, ...args] = process.argv.slice(2);
try {
  console.log(JSON.stringify({ value: await WAYS[way](...args) }));
} catch (error) {
  if (way === "crash") throw error;
  console.log(JSON.stringify({ error: errorOf(error) }));
}
