/**
 * Makes what is published, in `zig-out/package`:
 *
 *     node tools/package/build.mjs build    the library for every machine, and the package of JSR
 *     node tools/package/build.mjs pack     and the tarball for npm
 *
 * Both run by `npm run`, which brings Deno and the Zig compiler. Deno does not run TypeScript from
 * below `node_modules`, so npm gets JavaScript and declarations, as `deno pack` makes them.
 */
import { createHash } from "node:crypto";
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { BUILT, builtLibraries, manifest, npmManifest, stage } from "./embed.mjs";
import { ENVIRONMENT, must, ROOT } from "../process.mjs";

const PACKAGES = join(ROOT, "zig-out", "package");
/** What is published with `deno publish`, from there. */
const JSR = join(PACKAGES, "jsr");
/** What the tarball holds. */
const NPM = join(PACKAGES, "npm");

function run(command, cwd) {
  // Without a part of npm's own environment: it would go on as if inside the checkout's script.
  const env = Object.entries(ENVIRONMENT).filter(([name]) => !name.startsWith("npm_package"));
  return must(command, { cwd, env: Object.fromEntries(env) });
}

/** Builds from nothing, so that no library of an earlier table of machines stays. */
async function build() {
  rmSync(BUILT, { recursive: true, force: true });
  await run(["zig", "build", "all"], ROOT);
  const libraries = builtLibraries();
  stage(JSR, libraries);
  for (const [name, bytes] of libraries) {
    const hash = createHash("sha256").update(bytes).digest("hex");
    console.log(`${name}: ${bytes.length} bytes, SHA-256 ${hash}`);
  }
  console.log(`for JSR: ${JSR}`);
}

async function pack() {
  const tarball = join(PACKAGES, `${manifest("package.json").name}.tgz`);
  await run(["deno", "pack", "--allow-dirty", "--no-source-maps", "--output", tarball], JSR);
  rmSync(NPM, { recursive: true, force: true });
  mkdirSync(NPM, { recursive: true });
  await run(["tar", "-xzf", tarball, "-C", NPM, "--strip-components=1"], PACKAGES);
  rmSync(tarball);
  writeFileSync(join(NPM, "package.json"), npmManifest());
  const packing = ["npm", "pack", "--pack-destination", PACKAGES, "--loglevel=error"];
  const name = (await run(packing, NPM)).trim().split("\n").at(-1);
  const path = join(PACKAGES, name);
  console.log(`for npm: ${path}, ${statSync(path).size} bytes`);
}

/** npm runs `prepack` before it packs the checkout, and also before the script called `pack`. */
function refuse() {
  if (/^run\b/.test(process.env.npm_command ?? "")) return;
  console.error("The checkout carries no library: `npm run pack` makes the package.");
  process.exitCode = 1;
}

const TASKS = {
  build,
  pack: async () => {
    await build();
    await pack();
  },
  refuse,
};

const [task] = parseArgs({ allowPositionals: true }).positionals;
if (!(task in TASKS)) throw new RangeError(`there is: ${Object.keys(TASKS).join(", ")}`);
await TASKS[task]();
