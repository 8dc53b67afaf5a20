/**
 * Native libraries in the words of `bun:ffi`, and what else only Bun can answer.
 *
 * The module comes from `process.getBuiltinModule`, which is synchronous and, unlike an import,
 * loads in every runtime.
 */
import process from "node:process";
import type { SymbolTable } from "./backend.ts";

/** What is used of `bun:ffi`. */
interface Ffi {
  dlopen(
    path: string,
    table: Record<string, { args: string[]; returns: string }>,
  ): { symbols: Record<string, unknown> };
}

/** What the runtime is called. */
export const name: string = "Bun";

/** Whether this is the runtime the module runs in. */
export const isCurrent: boolean = "Bun" in globalThis;

/** Whether `shm_bell_wait` can be called: it would block the isolate here. */
export const canWait: boolean = false;

/** What the words that differ are called here; `ptr` takes views as fast as `buffer`, and null. */
const WORDS: Readonly<Record<string, string>> = { bytes: "ptr", size: "i64_fast" };

/** Opens the library at `path`: one function for each symbol. */
export function open(path: string, symbols: SymbolTable): Record<string, unknown> {
  const table: Record<string, { args: string[]; returns: string }> = {};
  for (const [symbol, { args, returns }] of Object.entries(symbols)) {
    table[symbol] = { args: args.map(word), returns: word(returns) };
  }
  const ffi = process.getBuiltinModule("bun:ffi") as unknown as Ffi;
  return ffi.dlopen(path, table).symbols;
}

function word(ofTable: string): string {
  return WORDS[ofTable] ?? ofTable;
}

/** Whether the program may load the library at `path`: there is nobody to refuse it. */
export function mayLoad(_path?: string): boolean {
  return true;
}

/** Whether the program may load any library. */
export function requestLoad(): boolean {
  return true;
}

/** Whether the program was granted this access to `path`: there is nobody to refuse it. */
export function mayAccess(_path: string, _access: "read" | "write"): boolean {
  return true;
}

/** An environment variable. */
export function readVariable(name: string): string | undefined {
  return process.env[name];
}
