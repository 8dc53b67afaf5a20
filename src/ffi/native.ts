/**
 * The native library: its functions, typed from the symbol table. It is opened at the first use and
 * checked to be the build this module was made for.
 *
 * `native()` gives the runtime's own functions, without a wrapper around any of them.
 */
import { SharedMemoryError } from "../errors.ts";
import { fingerprint, type symbols } from "./abi.ts";
import type { Access, Backend } from "./backend.ts";
import * as bun from "./bun.ts";
import * as deno from "./deno.ts";
import { loadError, openLibrary } from "./load.ts";
import { FAULT } from "./scratch.ts";

/** The TypeScript type of each type in the symbol table. */
interface NativeTypes {
  u32: number;
  i32: number;
  f64: number;
  bytes: Uint8Array | null;
  void: void;
}

type Arguments<List extends readonly (keyof NativeTypes)[]> = {
  [Index in keyof List]: NativeTypes[List[Index]];
};

/** The library's functions. */
export type Native = {
  readonly [Name in keyof typeof symbols]: (
    ...args: Arguments<typeof symbols[Name]["args"]>
  ) => Result<Name>;
};

/** `shm_wake_wait` returns a promise, where it can be called at all. */
type Result<Name extends keyof typeof symbols> = Name extends "shm_wake_wait" ? Promise<number>
  : NativeTypes[typeof symbols[Name]["returns"]];

const backends: readonly Backend[] = [deno, bun];
const backend = backends.find(({ isCurrent }) => isCurrent);

/** Whether `shm_wake_wait` leaves the isolate free. Where it does not, it must not be called. */
export const canWait: boolean = backend?.canWait ?? false;

/** Whether the runtime evaluates a module that has changed once more, in the same realm. */
export const evaluatesAgain: boolean = backend?.evaluatesAgain ?? false;

/** Does this when the isolate ends, after what the program does then, if the runtime tells. */
export function atIsolateEnd(task: () => void): void {
  backend?.atIsolateEnd(task);
}
/** Whether this runs on JavaScriptCore, where other ways are quick than on V8. */
export const isJavaScriptCore: boolean = backend?.engine === "JavaScriptCore";

let library: Native | undefined;

/** The library, opened by the first call. Throws "LibraryLoad" when it cannot be. */
export function native(): Native {
  return library ??= load();
}

/** The library, ready for a call that describes its failure in `FAULT`. */
export function openNative(): Native {
  FAULT.bytes.fill(0); // a call that fails early does not write it
  return native();
}

/**
 * Throws unless the program was granted this access to `path`. `cannot` is what the message says
 * cannot be done. The library itself could open any path; it must not widen what the user allowed.
 */
export function checkAccess(path: string, access: readonly Access[], cannot: string): void {
  const missing = access.find((kind) => !current().mayAccess(path, kind));
  if (missing === undefined) return;
  throw notGranted(path, missing, cannot);
}

/** The error for a path to which the program was not granted this access. */
export function notGranted(path: string, access: Access, cannot: string): SharedMemoryError {
  const message = `${cannot}: run with --allow-${access}=${path}`;
  return new SharedMemoryError("PermissionDenied", message);
}

function current(): Backend {
  if (backend !== undefined) return backend;
  throw wrongRuntime();
}

/** The error where no backend is that of this runtime. */
export function wrongRuntime(): SharedMemoryError {
  return loadError(`run this with ${backends.map(({ name }) => name).join(" or ")}`);
}

function load(): Native {
  const { functions, origin } = openLibrary(current());
  const opened = functions as unknown as Native;
  const found = opened.shm_fingerprint();
  if (found === fingerprint) return enterRealm(opened);
  throw wrongBuild(origin, found);
}

/** The error for a library whose boundary is another one. */
export function wrongBuild(origin: string, found: number): SharedMemoryError {
  return loadError(
    `${origin} has fingerprint ${hex(found)}, expected ${hex(fingerprint)}; a build of this very ` +
      `version is needed, in a checkout "npm run build"`,
  );
}

const REALM = Symbol.for("shmap.realm");

/**
 * Names this realm to the library, by a number that all copies of this module in it share. What an
 * isolate before this one left open on this thread is closed then.
 */
function enterRealm(opened: Native): Native {
  const realm = globalThis as { [REALM]?: number };
  realm[REALM] ??= 1 + Math.floor(Math.random() * (2 ** 32 - 1));
  opened.shm_realm_enter(realm[REALM], current().hasOneRealm ? 1 : 0);
  return opened;
}

function hex(word: number): string {
  return `0x${word.toString(16).padStart(8, "0")}`;
}
