/**
 * The backend for Deno: native libraries by `Deno.dlopen`, and Deno's answers about permissions.
 *
 * Bytes cross as views. Pointers taken beforehand would save some nanoseconds a call, but only a
 * program with `--allow-ffi` for every path may take them, and the runtime would not check them.
 */
import process from "node:process";
import type { Access, SymbolTable } from "./backend.ts";

interface Permission {
  name: string;
  path?: string;
  variable?: string;
}

/** The part of the runtime used here, so that this file needs none of its types. */
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

/** The one call that only waits. It runs on a thread of the runtime's pool: it gives a promise. */
const WAITING = "shm_wake_wait";

/** Whether `shm_wake_wait` can be called: here it does not block the isolate. */
export const canWait: boolean = true;

/** Whether an isolate has ended when another one comes to its thread: no program can make two. */
export const hasOneRealm: boolean = true;

/** Whether the runtime evaluates a module that has changed once more, in the same realm. */
export const evaluatesAgain: boolean = false;

/** Does this when the isolate ends, after what the program does then. */
export function atIsolateEnd(task: () => void): void {
  addEventListener("unload", () => {
    // Other listeners may still write, and some of them come after this one. Behind the last one of
    // a file of tests microtasks run; behind that of a program none does, but `exit` is emitted.
    queueMicrotask(task);
    process.once("exit", task);
  });
}
/** The engine under the runtime. */
export const engine = "V8";

/** The types of the symbol table that have another name here. */
const TYPES: Readonly<Record<string, string>> = { bytes: "buffer", size: "isize" };

/** Opens the library at `path`: one function for each symbol. */
export function open(path: string, symbols: SymbolTable): Record<string, unknown> {
  const table: Parameters<Runtime["dlopen"]>[1] = {};
  for (const [symbol, { args, returns }] of Object.entries(symbols)) {
    table[symbol] = {
      parameters: args.map(typeName),
      result: typeName(returns),
      nonblocking: symbol === WAITING,
    };
  }
  return runtime.dlopen(path, table).symbols;
}

function typeName(type: string): string {
  return TYPES[type] ?? type;
}

/** Whether the program may load the library at `path`, or any without a path. Never asks. */
export function mayLoad(path?: string): boolean {
  return isGranted(path === undefined ? { name: "ffi" } : { name: "ffi", path });
}

/** Whether the program may load any library. At a terminal the runtime asks the user, once. */
export function requestLoad(): boolean {
  return runtime.permissions.requestSync({ name: "ffi" }).state === "granted";
}

/** Whether the program was granted this access to `path`. Never asks the user. */
export function mayAccess(path: string, access: Access): boolean {
  return isGranted({ name: access, path });
}

/** An environment variable; undefined also if the program may not read it. Never asks. */
export function readVariable(name: string): string | undefined {
  return isGranted({ name: "env", variable: name }) ? runtime.env.get(name) : undefined;
}

function isGranted(permission: Permission): boolean {
  return runtime.permissions.querySync(permission).state === "granted";
}
