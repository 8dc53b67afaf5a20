/**
 * What a runtime must bring along: the calls of a native library, and its word on permissions.
 * `deno.ts` and `bun.ts` are the two that do.
 */

/**
 * The functions of a library: for each, what goes in and what comes out, in the words of `abi.ts`.
 * The system's own functions need one word more, `size`: a signed integer as wide as a pointer,
 * which comes back as a number or a bigint.
 */
export type SymbolTable = Readonly<
  Record<string, { readonly args: readonly string[]; readonly returns: string }>
>;

/** A runtime with a foreign function interface. */
export interface Backend {
  /** What the runtime is called. */
  readonly name: string;
  /** Whether this is the runtime the module runs in. */
  readonly isCurrent: boolean;
  /** Whether `shm_bell_wait` leaves the isolate free; else it must not be called. */
  readonly canWait: boolean;
  /** Opens the library at `path`: one function for each symbol. Throws when it does not load. */
  open(path: string, table: SymbolTable): Record<string, unknown>;
  /** Whether the program may load the library at `path`; without a path, any. Never asks. */
  mayLoad(path?: string): boolean;
  /** Whether the program may load any library, after asking the user if that can be. */
  requestLoad(): boolean;
  /** Whether the program was granted this access to `path`. Never asks. */
  mayAccess(path: string, access: "read" | "write"): boolean;
  /** An environment variable; undefined as well when the program may not read it. Never asks. */
  readVariable(name: string): string | undefined;
}
