/** Installs what the checkout needs and does not have: the locked packages, Deno and Bun. */
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { MODULES, ROOT, run } from "./process.mjs";

/** Direct dependencies whose installed version is not the locked one. */
function missingPackages() {
  const lock = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")).packages;
  const { dependencies, devDependencies } = lock[""];
  return Object.keys({ ...dependencies, ...devDependencies }).filter((name) => {
    const manifest = join(MODULES, name, "package.json");
    if (!existsSync(manifest)) return true;
    const { version } = JSON.parse(readFileSync(manifest, "utf8"));
    return version !== lock[`node_modules/${name}`].version;
  });
}

/** Installs what is missing. npm may have been told to run no install scripts: then we run them. */
export async function install() {
  if (missingPackages().length > 0) {
    console.log("installing the locked packages with npm ci");
    const { isOk, output } = await run(["npm", "ci", "--no-audit", "--no-fund"]);
    if (!isOk) return { isOk, output };
  }
  if (!(await run(["bun", "--version"])).isOk) {
    const { isOk, output } = await run(["node", "node_modules/bun/install.js"]);
    if (!isOk) return { isOk, output };
  }
  if (realpathSync(join(MODULES, ".bin", "deno")).endsWith(".cjs")) {
    return run(["node", "node_modules/deno/install.cjs"]);
  }
  return { isOk: true, output: "" };
}
