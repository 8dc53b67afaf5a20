/**
 * Finds and opens the native library: the file that `SHMAP_LIBRARY` names; else the library that
 * the package carries, from a memory file or a cache file; else, in a source checkout, its own
 * build.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";
import { symbols } from "./abi.ts";
import { SharedMemoryError } from "../errors.ts";
import type { Backend } from "./backend.ts";
import { libraries } from "./embedded.ts";
import { cacheFile } from "./load_cache.ts";
import { memoryFile } from "./load_memfd.ts";

/** The environment variable that names another library, such as one of a distribution. */
const LIBRARY_VARIABLE = "SHMAP_LIBRARY";

/** Where `npm run build` leaves the library, relative to this file. */
const BUILDS: Readonly<Record<string, string>> = {
  darwin: "../../zig-out/lib/libshmap.dylib",
  win32: "../../zig-out/lib/shmap.dll",
};
const ELF_BUILD = "../../zig-out/lib/libshmap.so";

type Embedded = (typeof libraries)[string];

/** An open library: its functions, and what to call it in a message. */
export interface Library {
  readonly functions: Record<string, unknown>;
  readonly origin: string;
}

/** Opens the library. Throws "LibraryLoad", with what the user can do, where it cannot. */
export function openLibrary(backend: Backend): Library {
  const named = backend.readVariable(LIBRARY_VARIABLE);
  if (named) return openFile(backend, named);
  // Only a checkout has a build. A package must not open a file that others put at that path.
  if (Object.keys(libraries).length === 0) return openFile(backend, buildPath());
  const machine = `${process.platform}-${process.arch}`;
  const embedded = libraries[machine];
  if (embedded === undefined) {
    throw loadError(
      `there is none for ${machine} in this package; ${LIBRARY_VARIABLE} can name a build of yours`,
    );
  }
  return openEmbedded(backend, embedded, machine);
}

/** The error "LibraryLoad" with this reason. */
export function loadError(reason: string, cause?: unknown): SharedMemoryError {
  return new SharedMemoryError("LibraryLoad", `Cannot load the native library: ${reason}`, {
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The path of a build. Whether it exists shows only on opening it: looking needs a permission. */
function buildPath(): string {
  const build = new URL(BUILDS[process.platform] ?? ELF_BUILD, import.meta.url);
  if (build.protocol === "file:") return fileURLToPath(build);
  throw loadError(`it was not built; set ${LIBRARY_VARIABLE} to the path of a build`);
}

function openFile(backend: Backend, path: string): Library {
  try {
    return { functions: backend.open(path, symbols), origin: `"${path}"` };
  } catch (cause) {
    if (cause instanceof Error && cause.name === "NotCapable") {
      throw loadError(`"${path}" may not be loaded; run with --allow-ffi`, cause);
    }
    throw loadError(
      `"${path}" does not load; run "npm run build", or set ${LIBRARY_VARIABLE} to the path of a ` +
        `build`,
      cause,
    );
  }
}

/**
 * What gives the linker a file with the embedded library; each is tried if the one before fails.
 */
const loaders: readonly { name: string; path: typeof memoryFile }[] = [
  { name: "memory", path: memoryFile },
  { name: "a cache file", path: (backend, hash, decode) => cacheFile(backend, hash, decode()) },
];

function openEmbedded(backend: Backend, embedded: Embedded, machine: string): Library {
  const failures = new Set<string>();
  let functions = tryLoaders(backend, embedded, machine, failures);
  // Ask the user only now: the program may have been granted just the paths that were needed.
  if (functions === undefined && !backend.mayLoad() && backend.requestLoad()) {
    functions = tryLoaders(backend, embedded, machine, failures);
  }
  if (functions !== undefined) return { functions, origin: `the one for ${machine}` };
  const allow = backend.mayLoad() ? "" : "run with --allow-ffi, or ";
  const advice = `${allow}set ${LIBRARY_VARIABLE} to the path of a copy of it`;
  throw loadError([...failures, advice].join("; "));
}

/** The functions, by the first loader that succeeds; undefined, with `failures`, if none does. */
function tryLoaders(
  backend: Backend,
  embedded: Embedded,
  machine: string,
  failures: Set<string>,
): Record<string, unknown> | undefined {
  const usable = process.platform === "linux" ? loaders : loaders.slice(1);
  for (const { name, path } of usable) {
    try {
      const file = path(backend, embedded.sha256, () => decode(embedded, machine));
      return backend.open(file, symbols);
    } catch (error) {
      if (error instanceof SharedMemoryError) throw error; // the embedded library is damaged
      failures.add(`from ${name}, ${error instanceof Error ? error.message : error}`);
    }
  }
  return undefined;
}

/** The bytes of an embedded library. Throws unless their hash is the recorded one. */
function decode({ data, sha256 }: Embedded, machine: string): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = brotliDecompressSync(Buffer.from(data, "base64"));
  } catch (cause) {
    throw loadError(`the one for ${machine} is damaged in this package; install it again`, cause);
  }
  const found = createHash("sha256").update(bytes).digest("hex");
  if (found === sha256) return bytes;
  throw loadError(
    `the one for ${machine} is damaged in this package, its hash is ${found}, ` +
      `expected ${sha256}; install it again`,
  );
}
