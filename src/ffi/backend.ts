/**
 * What this module needs of a runtime: a foreign function interface, and answers about permissions.
 * `deno.ts` and `bun.ts` implement it.
 */

/**
 * The functions of a library: for each, the types of its arguments and of its result, as `abi.ts`
 * names them. Functions of the system need one type more, `size`: a signed integer as wide as a
 * pointer, which the runtime returns as a number or a bigint.
 */
export type SymbolTable = Readonly<
  Record<string, { readonly args: readonly string[]; readonly returns: string }>
>;

/** What a program may be granted for a path. */
export type Access = "read" | "write";

/** A runtime with a foreign function interface. */
export interface Backend {
  /** What the runtime is called. */
  readonly name: string;
  /** Whether this is the runtime the module runs in. */
  readonly isCurrent: boolean;
  /** Whether `shm_wake_wait` leaves the isolate free. Where it does not, it must not be called. */
  readonly canWait: boolean;
  /** Whether an isolate has ended when another one comes to its thread. */
  readonly hasOneRealm: boolean;
  /** Whether the runtime evaluates a module that has changed once more, in the same realm. */
  readonly evaluatesAgain: boolean;
  /** Does this when the isolate ends, after what the program does then, if the runtime tells. */
  atIsolateEnd(task: () => void): void;
  /** The engine under the runtime, where one way is quicker in one and another in the other. */
  readonly engine: "V8" | "JavaScriptCore";
  /** Opens the library at `path`: one function for each symbol. Throws when it does not load. */
  open(path: string, table: SymbolTable): Record<string, unknown>;
  /** Whether the program may load the library at `path`, or any without a path. Never asks. */
  mayLoad(path?: string): boolean;
  /** Whether the program may load any library. Asks the user where the runtime can ask. */
  requestLoad(): boolean;
  /** Whether the program was granted this access to `path`. Never asks. */
  mayAccess(path: string, access: Access): boolean;
  /** An environment variable; undefined also if the program may not read it. Never asks. */
  readVariable(name: string): string | undefined;
}
