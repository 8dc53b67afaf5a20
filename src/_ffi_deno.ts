/**
 * The library in the words of `Deno.dlopen`, and what else only Deno can answer.
 *
 * Bytes cross as views. Pointers taken beforehand would save some nanoseconds a call, but only a
 * program with `--allow-ffi` for every path may take them, and nothing would check them.
 */
import { symbols } from "./_abi.ts";

interface Permission {
  name: string;
  path?: string;
  variable?: string;
}

/** What is used of the runtime, so that this file needs none of its types. */
interface Runtime {
  dlopen(
    path: string,
    table: Record<string, { parameters: string[]; result: string }>,
  ): { symbols: Record<string, unknown> };
  permissions: { querySync(permission: Permission): { state: string } };
  env: { get(name: string): string | undefined };
}

const runtime = (globalThis as unknown as { Deno: Runtime }).Deno;

/** Whether this is the runtime the module runs in. */
export const isCurrent: boolean = "Deno" in globalThis;

/** Opens the library at `path`: one function for each symbol. */
export function open(path: string): Record<string, unknown> {
  const table: Record<string, { parameters: string[]; result: string }> = {};
  for (const [name, { args, returns }] of Object.entries(symbols)) {
    table[name] = { parameters: args.map(word), result: returns };
  }
  return runtime.dlopen(path, table).symbols;
}

function word(abiWord: string): string {
  return abiWord === "bytes" ? "buffer" : abiWord;
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
