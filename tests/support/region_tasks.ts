/** Work on raw regions, done by a child process or a Worker on a single command. */
import { truncateSync } from "node:fs";
import type { Lock } from "../../mod.ts";
import { Mmap, type MmapOptions } from "../../mod.ts";

// deno-lint-ignore no-explicit-any
type Json = any;
type Commands = Record<string, (args: Json) => unknown>;

const regions = new Map<string, Mmap>();
const locks = new Map<string, Lock>();

interface OpenArgs {
  id?: string;
  file: string;
  options?: MmapOptions;
}

function region(id = "region"): Mmap {
  const found = regions.get(id);
  if (!found) throw new Error(`no region was opened as "${id}"`);
  return found;
}

function keep(id = "region", opened: Mmap): number {
  regions.set(id, opened);
  return opened.length;
}

function keepLock(id = "region", lock: Lock | undefined): Json {
  if (lock === undefined) return null;
  locks.set(id, lock);
  return { recovered: lock.recovered };
}

/** What a call ends with: its result, or the code or name of its error. */
function ending(call: () => unknown): unknown {
  try {
    return call();
  } catch (error) {
    return (error as { code?: string }).code ?? (error as Error).name;
  }
}

/** Everything that touches the region's memory from `offset` on. */
function touchAll({ id, offset, length }: Json): Json {
  const mmap = region(id);
  return {
    read: ending(() => mmap.read(offset, length).length),
    readInto: ending(() => mmap.readInto(new Uint8Array(length), offset)),
    write: ending(() => mmap.write(new Uint8Array(length).fill(1), offset)),
    text: ending(() => mmap.write("x".repeat(length), offset)),
    pack: ending(() => mmap.pack(offset, "a*", "x".repeat(length))),
    unpack: ending(() => String(mmap.unpack(offset, length, "a*")[0]).length),
    flush: ending(() => mmap.flush()),
  };
}

export const REGION_COMMANDS: Commands = {
  regionOpen: ({ id, file, options }: OpenArgs) => keep(id, Mmap.open(file, options)),
  regionAnonymous: ({ id, length }) => keep(id, Mmap.anonymous(length)),
  regionAttach: ({ id, token }) => keep(id, Mmap.attach(token)),
  regionToken: ({ id }) => region(id).token,
  regionCall: ({ id, method, args }) => (region(id) as Json)[method](...args),
  regionText: ({ id, offset, length }) =>
    new TextDecoder("latin1").decode(region(id).read(offset, length)),
  regionLock: ({ id, options }) => keepLock(id, region(id).lock(options)),
  regionTryLock: ({ id, options }) => keepLock(id, region(id).tryLock(options)),
  regionLocked: ({ id }) => region(id).locked,
  regionUnlock: ({ id = "region" }) => locks.get(id)!.unlock(),
  regionForget: ({ id = "region" }) => regions.delete(id) && locks.delete(id),
  regionTouchAll: touchAll,
  regionTruncate: ({ file, length }) => truncateSync(file, length),
  /** Cuts a file short and makes it as long again, over and over. */
  regionCut: ({ file, length, times }) => {
    for (let i = 0; i < times; i += 1) {
      truncateSync(file, (i * 977) % length);
      truncateSync(file, length);
    }
  },
  /** Counts in the first four bytes under the lock; gives how often a dead holder was noticed. */
  regionCount: ({ id, times }) => {
    let recovered = 0;
    for (let i = 0; i < times; i += 1) {
      using lock = region(id).lock({ timeout: 60_000 });
      if (lock.recovered) recovered += 1;
      region(id).pack(0, "L", region(id).unpack(0, 4, "L")[0] as number + 1);
    }
    return recovered;
  },
};
