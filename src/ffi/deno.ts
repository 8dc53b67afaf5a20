/**
 * Native libraries in the words of `Deno.dlopen`, and what else only Deno can answer.
 *
 * Bytes cross as views. Pointers taken beforehand would save some nanoseconds a call, but only a
 * program with `--allow-ffi` for every path may take them, and nothing would check them.
 */
import type { SymbolTable } from "./backend.ts";

interface Permission {
  name: string;
  path?: string;
  variable?: string;
}

/** What is used of the runtime, so that this file needs none of its types. */
interface Runtime {
  dlopen(
    path: string,
    table: Record<string, { parameters: string[]; result: string; nonblocking: boolean }>,
  ): { symbols: Record<string, unknown> };
  permissions: {
    querySync(permission: Permission): { state: string };
    requestSync(permission: Permission): { state: string };
  };
  env: { get(name: string): string | undefined };
}

const runtime = (globalThis as unknown as { Deno: Runtime }).Deno;

/** What the runtime is called. */
export const name: string = "Deno";

/** Whether this is the runtime the module runs in. */
export const isCurrent: boolean = "Deno" in globalThis;

/** The one call that only waits: it runs on a thread of the runtime's pool and gives a promise. */
const WAITING = "shm_bell_wait";

/** Whether that call can be made: it does not block the isolate here. */
export const canWait: boolean = true;

/** What the words that differ are called here. */
const WORDS: Readonly<Record<string, string>> = { bytes: "buffer", size: "isize" };

/** Opens the library at `path`: one function for each symbol. */
export function open(path: string, symbols: SymbolTable): Record<string, unknown> {
  const table: Parameters<Runtime["dlopen"]>[1] = {};
  for (const [symbol, { args, returns }] of Object.entries(symbols)) {
    table[symbol] = {
      parameters: args.map(word),
      result: word(returns),
      nonblocking: symbol === WAITING,
    };
  }
  return runtime.dlopen(path, table).symbols;
}

function word(ofTable: string): string {
  return WORDS[ofTable] ?? ofTable;
}

/** Whether the program may load the library at `path`; without a path, any. Never asks. */
export function mayLoad(path?: string): boolean {
  return isGranted(path === undefined ? { name: "ffi" } : { name: "ffi", path });
}

/** Whether the program may load any library. At a terminal the runtime asks the user, once. */
export function requestLoad(): boolean {
  return runtime.permissions.requestSync({ name: "ffi" }).state === "granted";
}

/** Whether the program was granted this access to `path`. Never asks the user. */
export function mayAccess(path: string, access: "read" | "write"): boolean {
  return isGranted({ name: access, path });
}

/** An environment variable; undefined as well when the program may not read it. Never asks. */
export function readVariable(name: string): string | undefined {
  return isGranted({ name: "env", variable: name }) ? runtime.env.get(name) : undefined;
}

function isGranted(permission: Permission): boolean {
  return runtime.permissions.querySync(permission).state === "granted";
}
