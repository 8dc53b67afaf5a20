/**
 * Counts the calls of the library's exported functions that a process makes, for the proof's table
 * of calls. It stands between the module and the function that opens a library, so that the module
 * itself knows nothing of it: call `countCalls` before the first use of a map.
 */
import process from "node:process";
import { flags, symbols } from "../../../src/ffi/abi.ts";

/** What a call was made on. */
type On = "none" | "robust" | "kernel" | "reading";
export type CallCounts = Record<string, Partial<Record<On, number>>>;

type Function_ = (...args: unknown[]) => unknown;
type Opener = (path: string, table: unknown) => { symbols: Record<string, Function_> };

/** Where the flags stand among the arguments of the functions that open a segment. */
const FLAGS_AT: Readonly<Record<string, number>> = {
  shm_segment_open: 6,
  shm_segment_anonymous: 2,
  shm_segment_attach: 4,
};

/** How often each function was called. */
export const counts: CallCounts = {};
const kinds = new Map<number, On>();

/** Notes what kind of handle an open gave. What a token leads to has the lock of its maker. */
function noteOpened(name: string, args: unknown[], handle: unknown): void {
  const at = FLAGS_AT[name];
  if (at === undefined || typeof handle !== "number" || handle <= 0) return;
  const given = args[at] as number;
  const kind = given & flags.readonly ? "reading" : given & flags.lockKernel ? "kernel" : "robust";
  kinds.set(handle, kind);
}

function counting(name: string, call: Function_): Function_ {
  const takesHandle = (symbols as Record<string, { args: readonly string[] }>)[name].args[0] ===
    "u32";
  const own: Partial<Record<On, number>> = counts[name] ??= {};
  return (...args) => {
    const on = takesHandle ? kinds.get(args[0] as number) ?? "none" : "none";
    own[on] = (own[on] ?? 0) + 1;
    const result = call(...args);
    noteOpened(name, args, result);
    return result;
  };
}

function countingLibrary(open: Opener): Opener {
  return (path, table) => {
    const library = open(path, table);
    const entries = Object.keys(symbols).map((name) => {
      return [name, counting(name, library.symbols[name])];
    });
    return { symbols: Object.fromEntries(entries) };
  };
}

/** From here on the runtime opens libraries whose functions count their calls. */
export function countCalls(): void {
  const { Deno: runtime } = globalThis as unknown as { Deno?: { dlopen: Opener } };
  if (runtime !== undefined) {
    runtime.dlopen = countingLibrary(runtime.dlopen);
    return;
  }
  const original = process.getBuiltinModule;
  const ffi = original("bun:ffi") as unknown as { dlopen: Opener };
  const replaced = { ...ffi, dlopen: countingLibrary(ffi.dlopen) };
  process.getBuiltinModule =
    ((id: string) => id === "bun:ffi" ? replaced : original(id)) as typeof original;
}

/** Adds what another process counted. */
export function addCounts(sum: CallCounts, more: CallCounts = {}): void {
  for (const [name, own] of Object.entries(more)) {
    const to = sum[name] ??= {};
    for (const [on, count] of Object.entries(own)) to[on as On] = (to[on as On] ?? 0) + count;
  }
}
