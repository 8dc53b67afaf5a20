/**
 * The native library: its functions, typed from the symbol table, opened at the first use and
 * checked to be the one this module was made for; and the buffers through which all bytes cross.
 *
 * `native()` gives the runtime's own functions, without a wrapper around any of them.
 */
import { Buffer } from "node:buffer";
import { fingerprint, type symbols } from "./abi.ts";
import type { Backend } from "./backend.ts";
import { FAULT_BYTES } from "../errors.ts";
import * as bun from "./bun.ts";
import * as deno from "./deno.ts";
import { loadError, openLibrary } from "./load.ts";

export { flags, statuses } from "./abi.ts";

/** What each word of the symbol table is in TypeScript. */
interface Words {
  u32: number;
  i32: number;
  f64: number;
  bytes: Uint8Array | null;
  void: void;
}

type Arguments<List extends readonly (keyof Words)[]> = {
  [Index in keyof List]: Words[List[Index]];
};

/** The library's functions. */
export type Native = {
  readonly [Name in keyof typeof symbols]: (
    ...args: Arguments<typeof symbols[Name]["args"]>
  ) => Result<Name>;
};

/** The one that waits gives a promise, where it can be called at all. */
type Result<Name extends keyof typeof symbols> = Name extends "shm_bell_wait" ? Promise<number>
  : Words[typeof symbols[Name]["returns"]];

const backends: readonly Backend[] = [deno, bun];
const backend = backends.find(({ isCurrent }) => isCurrent);

/** Whether `shm_bell_wait` leaves the isolate free; else it must not be called. */
export const canWait: boolean = backend?.canWait ?? false;

let library: Native | undefined;

/** The library, opened by the first call. Throws "LibraryLoad" when it cannot be. */
export function native(): Native {
  return library ??= load();
}

/** The library, ready for a call that tells of its failure in `FAULT`. */
export function openNative(): Native {
  FAULT.bytes.fill(0); // a call that fails early leaves it as it was
  return native();
}

/** Whether the program was granted this access to `path`. Never asks the user. */
export function mayAccess(path: string, access: "read" | "write"): boolean {
  return current().mayAccess(path, access);
}

function current(): Backend {
  if (backend !== undefined) return backend;
  throw loadError(`run this with ${backends.map(({ name }) => name).join(" or ")}`);
}

function load(): Native {
  const { functions, origin } = openLibrary(current());
  const opened = functions as unknown as Native;
  const found = opened.shm_fingerprint();
  if (found === fingerprint) return opened;
  throw loadError(
    `${origin} has fingerprint ${hex(found)}, expected ${hex(fingerprint)}; a build of this very ` +
      `version is needed, in a checkout "npm run build"`,
  );
}

function hex(word: number): string {
  return `0x${word.toString(16).padStart(8, "0")}`;
}

/** Buffers larger than this are given back after use, so that one large value pins no memory. */
const SPARE_BYTES = 4 * 2 ** 20;

/** What buffers can do, in both runtimes, beyond their published types. */
interface TextSlices {
  latin1Slice(start: number, end: number): string;
  utf8Slice(start: number, end: number): string;
  ucs2Slice(start: number, end: number): string;
}

/** Memory through which bytes cross, reused from call to call; it grows and shrinks again. */
export class Scratch {
  bytes!: Uint8Array<ArrayBuffer>;
  view!: DataView;
  text!: TextSlices;
  /** Where encoders append. */
  end = 0;
  readonly #least: number;

  constructor(size: number) {
    this.#least = size;
    this.#allocate(size);
  }

  /** Makes room for `length` bytes after `end`; what lies before is kept. */
  reserve(length: number): void {
    const needed = this.end + length;
    if (needed <= this.bytes.length) return;
    const before = this.bytes;
    this.#allocate(Math.max(needed, Math.min(2 * before.length, needed + SPARE_BYTES)));
    this.bytes.set(before.subarray(0, this.end));
  }

  /** Gives back what a large value made it grow by. */
  release(): void {
    this.end = 0;
    if (this.bytes.length > SPARE_BYTES) this.#allocate(this.#least);
  }

  /** Puts `text` at the start and returns its length. */
  write(text: string): number {
    this.end = 0;
    this.reserve(3 * text.length);
    return new TextEncoder().encodeInto(text, this.bytes).written;
  }

  #allocate(size: number): void {
    const buffer = new ArrayBuffer(size);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.text = Buffer.from(buffer) as unknown as TextSlices;
  }
}

/** The key of every call, or the name or token of an open. Never grows: keys have a limit. */
export const KEY: Scratch = new Scratch(64 * 1024);
/** The value of every call, in or out. */
export const DATA: Scratch = new Scratch(64 * 1024);
/** The codec's id of an open. */
export const CODEC: Scratch = new Scratch(256);
/** The record of a failure. */
export const FAULT: Scratch = new Scratch(FAULT_BYTES);
