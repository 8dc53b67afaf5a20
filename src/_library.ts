/**
 * Where the native library for this machine is: the file that `SHMAP_LIBRARY` names, else the build
 * of the source checkout this module lies in.
 */
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The environment variable that names another library, say of a distribution's package. */
export const LIBRARY_VARIABLE = "SHMAP_LIBRARY";

/** Where a build leaves the library, seen from this file. */
const BUILDS: Readonly<Record<string, string>> = {
  darwin: "../zig-out/lib/libshmap.dylib",
  win32: "../zig-out/bin/shmap.dll",
};
const ELF_BUILD = "../zig-out/lib/libshmap.so";

/**
 * The path of the library, which need not exist: only opening it can tell without a permission to
 * read files. Undefined when this module has no place in a file system and none was named.
 */
export function libraryPath(
  readVariable: (name: string) => string | undefined,
): string | undefined {
  const named = readVariable(LIBRARY_VARIABLE);
  if (named) return named;
  const build = new URL(BUILDS[process.platform] ?? ELF_BUILD, import.meta.url);
  return build.protocol === "file:" ? fileURLToPath(build) : undefined;
}
