/**
 * The backend for Bun: native libraries by `bun:ffi`. Bun has no permissions: all is allowed.
 *
 * `bun:ffi` comes from `process.getBuiltinModule`: an import of it would not load in Deno.
 */
import process from "node:process";
import type { Access, SymbolTable } from "./backend.ts";

/** The part of `bun:ffi` used here. */
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

/** Whether `shm_wake_wait` can be called: here it would block the isolate. */
export const canWait: boolean = false;

/** The engine under the runtime. */
export const engine = "JavaScriptCore";

/**
 * Whether an isolate has ended when another one comes to its thread: under the test runner, which
 * makes one after the other. Elsewhere a program may run several contexts of `node:vm`.
 */
export const hasOneRealm: boolean = isCurrent && process.env.NODE_ENV === "test";

/** Whether the runtime evaluates a module that has changed once more, in the same realm. */
export const evaluatesAgain: boolean = isCurrent && process.execArgv.includes("--hot");

/** The runtime does not tell when an isolate ends. */
export function atIsolateEnd(): void {}

/**
 * The types of the symbol table that have another name here. `ptr` takes views as fast as `buffer`
 * does, and null as well.
 */
const TYPES: Readonly<Record<string, string>> = { bytes: "ptr", size: "i64_fast" };

/** Opens the library at `path`: one function for each symbol. */
export function open(path: string, symbols: SymbolTable): Record<string, unknown> {
  const table: Record<string, { args: string[]; returns: string }> = {};
  for (const [symbol, { args, returns }] of Object.entries(symbols)) {
    table[symbol] = { args: args.map(typeName), returns: typeName(returns) };
  }
  const ffi = process.getBuiltinModule("bun:ffi") as unknown as Ffi;
  return ffi.dlopen(path, table).symbols;
}

function typeName(type: string): string {
  return TYPES[type] ?? type;
}

/** Whether the program may load the library at `path`. */
export function mayLoad(_path?: string): boolean {
  return true;
}

/** Whether the program may load any library. */
export function requestLoad(): boolean {
  return true;
}

/** Whether the program was granted this access to `path`. */
export function mayAccess(_path: string, _access: Access): boolean {
  return true;
}

/** An environment variable. */
export function readVariable(name: string): string | undefined {
  return process.env[name];
}
