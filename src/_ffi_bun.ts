/**
 * The library in the words of `bun:ffi`, and what else only Bun can answer.
 *
 * The module comes from `process.getBuiltinModule`, which is synchronous and, unlike an import,
 * loads in every runtime.
 */
import process from "node:process";
import { symbols } from "./_abi.ts";

/** What is used of `bun:ffi`. */
interface Ffi {
  dlopen(
    path: string,
    table: Record<string, { args: string[]; returns: string }>,
  ): { symbols: Record<string, unknown> };
}

/** Whether this is the runtime the module runs in. */
export const isCurrent: boolean = "Bun" in globalThis;

/** Whether `shm_bell_wait` can be called: it would block the isolate here. */
export const canWait: boolean = false;

/** Opens the library at `path`: one function for each symbol. */
export function open(path: string): Record<string, unknown> {
  const table: Record<string, { args: string[]; returns: string }> = {};
  for (const [name, { args, returns }] of Object.entries(symbols)) {
    table[name] = { args: args.map(word), returns };
  }
  const ffi = process.getBuiltinModule("bun:ffi") as unknown as Ffi;
  return ffi.dlopen(path, table).symbols;
}

/** `ptr` takes a view as fast as `buffer` does, and null besides. */
function word(abiWord: string): string {
  return abiWord === "bytes" ? "ptr" : abiWord;
}

/** Whether the program was granted this access to `path`: there is nobody to refuse it. */
export function mayAccess(_path: string, _access: "read" | "write"): boolean {
  return true;
}

/** An environment variable. */
export function readVariable(name: string): string | undefined {
  return process.env[name];
}
