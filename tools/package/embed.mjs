/**
 * What the packages are made of: the sources, with a module for each built library and, in place of
 * `src/ffi/embedded.ts`, one that knows them all. Written into a directory of its own, so that the
 * checkout never has a library in its sources that its next change makes stale.
 */
import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants } from "node:zlib";
import { ROOT } from "../process.mjs";

/** Where `zig build all` leaves a directory for each machine, with one file in it. */
export const BUILT = join(ROOT, "zig-out", "all");

/** What the runtimes call the systems that `build.zig` calls otherwise. */
const SYSTEMS = { macos: "darwin", windows: "win32" };
const SHIPPED = ["mod.ts", "src", "README.md", "CHANGELOG.md", "LICENSE"];

/** The libraries below a directory, as `zig build all` leaves them: bytes by name, in order. */
export function builtLibraries(directory = BUILT) {
  const names = existsSync(directory) ? readdirSync(directory).sort() : [];
  return new Map(names.map((name) => {
    const [file] = readdirSync(join(directory, name));
    return [name, readFileSync(join(directory, name, file))];
  }));
}

/** What `process.platform` and `process.arch` are on the machine of this name. */
export function machineOf(name) {
  const [system, processor] = name.split("-");
  return `${SYSTEMS[system] ?? system}-${processor}`;
}

/** What was compressed already, by its hash: it takes seconds, and tests stage a package often. */
const compressed = new Map();

function compress(bytes, sha256) {
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
    [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
  };
  const data = compressed.get(sha256) ?? brotliCompressSync(bytes, { params }).toString("base64");
  compressed.set(sha256, data);
  return data;
}

/** The module that carries one library. */
export function embeddedModule(name, bytes) {
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const data = compress(bytes, sha256);
  return `/** The library for ${name}, of ${bytes.length} bytes. Written by tools/package. */
export const sha256: string = "${sha256}";
/** Its bytes, compressed by brotli, in base64. */
export const data: string = "${data}";
`;
}

/** The module that knows them all, in the place of the checkout's own, which knows none. */
function tableModule(names) {
  const variable = (name) => name.replace("-", "_");
  const imports = names.map((name) =>
    `import * as ${variable(name)} from "./embedded/${variable(name)}.ts";\n`
  );
  const rows = names.map((name) => `  "${machineOf(name)}": ${variable(name)},\n`);
  return `/** The libraries that this package carries, by machine. Written by tools/package. */
${imports.join("")}
export const libraries: Readonly<
  Record<string, { readonly data: string; readonly sha256: string }>
> = {
${rows.join("")}};
`;
}

/** The package of JSR, and the sources of the other: a module tree with these libraries. */
export function stage(directory, libraries) {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(join(directory, "src", "ffi", "embedded"), { recursive: true });
  for (const name of SHIPPED) cpSync(join(ROOT, name), join(directory, name), { recursive: true });
  writeFileSync(join(directory, "src", "ffi", "embedded.ts"), tableModule([...libraries.keys()]));
  for (const [name, bytes] of libraries) {
    const path = join(directory, "src", "ffi", "embedded", `${name.replace("-", "_")}.ts`);
    writeFileSync(path, embeddedModule(name, bytes));
  }
  writeFileSync(join(directory, "deno.json"), denoManifest());
  // What it depends on, for checking and transpiling; neither registry is sent this.
  symlinkSync(join(ROOT, "node_modules"), join(directory, "node_modules"), "junction");
}

/** The package's manifest for JSR: the checkout's own, without what serves the checkout alone. */
function denoManifest() {
  const { name, version, license, exports, imports, nodeModulesDir, lock } = manifest("deno.json");
  delete imports.shmap;
  // It lies in a directory that git ignores, and is to be published all the same.
  const publish = { include: [...SHIPPED, "deno.json"], exclude: ["!."] };
  return text({ name, version, license, exports, imports, nodeModulesDir, lock, publish });
}

/** The package's manifest for npm. */
export function npmManifest() {
  const own = manifest("package.json");
  const { name, version, description, keywords, license, homepage, repository, bugs } = own;
  const { type, engines, dependencies } = own;
  const exports = { ".": { types: "./mod.d.ts", default: "./mod.js" } };
  return text({
    name,
    version,
    description,
    keywords,
    license,
    homepage,
    repository,
    bugs,
    type,
    exports,
    sideEffects: false,
    engines,
    dependencies,
  });
}

/** A manifest of the checkout. */
export function manifest(name) {
  return JSON.parse(readFileSync(join(ROOT, name), "utf8"));
}

function text(object) {
  return JSON.stringify(object, null, 2) + "\n";
}
