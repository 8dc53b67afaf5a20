/**
 * Makes what is published, in `zig-out/package`:
 *
 *     node tools/package/build.mjs build    the library for every machine, and the package of JSR
 *     node tools/package/build.mjs pack     and the tarball for npm
 *
 * Both run by `npm run`, which brings Deno and the Zig compiler. Deno does not run TypeScript from
 * below `node_modules`, so npm gets JavaScript and declarations, as `deno pack` makes them.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { BUILT, builtLibraries, manifest, npmManifest, ROOT, stage } from "./embed.mjs";

const PACKAGES = join(ROOT, "zig-out", "package");
/** What is published with `deno publish`, from there. */
const JSR = join(PACKAGES, "jsr");
/** What the tarball holds. */
const NPM = join(PACKAGES, "npm");

function run(command, cwd) {
  const [program, ...args] = command;
  // A part of npm's own environment: it would go on as if it were inside the checkout's script.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith("npm_package")),
  );
  const { status, error, stdout, stderr } = spawnSync(program, args, {
    cwd,
    env,
    encoding: "utf8",
    shell: process.platform === "win32", // npm is a script there
  });
  if (status === 0) return stdout;
  throw new Error(`${command.join(" ")}: ${error?.message ?? ""}${stdout}${stderr}`);
}

/** Builds from nothing, so that no library of an earlier table of machines stays. */
function build() {
  rmSync(BUILT, { recursive: true, force: true });
  run(["zig", "build", "all"], ROOT);
  const libraries = builtLibraries();
  stage(JSR, libraries);
  for (const [name, bytes] of libraries) {
    const hash = createHash("sha256").update(bytes).digest("hex");
    console.log(`${name}: ${bytes.length} bytes, SHA-256 ${hash}`);
  }
  console.log(`for JSR: ${JSR}`);
}

function pack() {
  const tarball = join(PACKAGES, `${manifest("package.json").name}.tgz`);
  run(["deno", "pack", "--allow-dirty", "--no-source-maps", "--output", tarball], JSR);
  rmSync(NPM, { recursive: true, force: true });
  mkdirSync(NPM, { recursive: true });
  run(["tar", "-xzf", tarball, "-C", NPM, "--strip-components=1"], PACKAGES);
  rmSync(tarball);
  writeFileSync(join(NPM, "package.json"), npmManifest());
  const name = run(["npm", "pack", "--pack-destination", PACKAGES, "--loglevel=error"], NPM).trim();
  const path = join(PACKAGES, name.split("\n").at(-1));
  console.log(`for npm: ${path}, ${statSync(path).size} bytes`);
}

const [task] = process.argv.slice(2);
if (task === "refuse") {
  // The script `prepack`: npm runs it before it packs the checkout, which must fail, and before a
  // script that is named `pack`, which is the way to the package.
  if (!process.env.npm_command?.startsWith("run")) {
    console.error("The checkout carries no library: `npm run pack` makes the package.");
    process.exitCode = 1;
  }
} else {
  build();
  if (task === "pack") pack();
}
