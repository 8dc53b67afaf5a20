/**
 * Makes the packages and uses them as a stranger would: installs them with npm, Bun and Deno into
 * empty directories, runs the README's first example from there on both runtimes, and runs a
 * compiled executable with nothing around it. Nothing outside this machine is asked.
 *
 * Its last line is `N passed, N failed, N skipped`.
 */
import assert from "node:assert/strict";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { BUILT, builtLibraries, machineOf, manifest } from "./embed.mjs";
import { startRegistries } from "./registry.mjs";
import { inWords } from "../counts.mjs";
import { ENVIRONMENT, must, ROOT } from "../process.mjs";

const PACKAGES = join(ROOT, "zig-out", "package");
const JSR = join(PACKAGES, "jsr");
const TARBALL_BYTES_MAX = 2 ** 20;
/** Linux, macOS and Windows, on two processors each. */
const LIBRARY_COUNT = 6;
const TIMEOUT_MS = 5 * 60_000;
const TEMPORARY = fs.mkdtempSync(join(tmpdir(), "shmap-package-"));
fs.chmodSync(TEMPORARY, 0o755); // the executable is also run as another user
const { name: NAME, version: VERSION } = manifest("package.json");
const TARBALL = join(PACKAGES, `${NAME}-${VERSION}.tgz`);
const SEGMENT = `shmap-test-${process.pid}-hits`;

/** No registry of the world is asked, and no cache or setting of this user is used. */
const CLEAN = {
  PATH: ENVIRONMENT.PATH,
  HOME: join(TEMPORARY, "home"),
  NO_COLOR: "1",
  DENO_NO_UPDATE_CHECK: "1",
  DENO_DIR: join(TEMPORARY, "deno"),
  BUN_INSTALL_CACHE_DIR: join(TEMPORARY, "bun"),
  npm_config_cache: join(TEMPORARY, "npm"),
  npm_config_update_notifier: "false",
};
const NOWHERE = "http://127.0.0.1:1/";
const OFFLINE = { ...CLEAN, ...registriesAt({ npm: NOWHERE, jsr: NOWHERE }) };

function registriesAt({ npm, jsr }) {
  return { NPM_CONFIG_REGISTRY: npm, BUN_CONFIG_REGISTRY: npm, JSR_URL: jsr };
}

function run(command, options) {
  return must(command, { limitMs: TIMEOUT_MS, ...options });
}

/** A directory with the README's first example, and what else it is to have. */
function project(name, files = {}) {
  const directory = join(TEMPORARY, name);
  fs.mkdirSync(directory, { recursive: true });
  const readme = fs.readFileSync(join(ROOT, "README.md"), "utf8");
  const [, example] = /^```ts\n(\/\/ hits\.ts\n[^]*?)^```$/m.exec(readme);
  const own = `${example}SharedMap.unlink("hits");\n`.replaceAll('"hits"', `"${SEGMENT}"`);
  fs.writeFileSync(join(directory, "hits.ts"), own);
  for (const [file, text] of Object.entries(files)) fs.writeFileSync(join(directory, file), text);
  return directory;
}

const ON_DENO = ["deno", "run", "--no-prompt", "--allow-ffi", "hits.ts"];
const ON_BUN = ["bun", "run", "hits.ts"];

/** The example counts, alone, offline, on a map that was not there before. */
async function assertRuns(command, options) {
  assert.match(await run(command, { env: OFFLINE, ...options }), /^10000 hits by 1 processes$/m);
}

let registries;
let online;

/** Why a check cannot be tried here. */
class Skipped extends Error {}

/** What must hold, in this order: the later ones use what the earlier ones made. */
const CHECKS = {
  "npm run pack makes both packages": () => run(["npm", "run", "pack"]),

  "neither npm nor Bun packs the checkout, which carries no library": async () => {
    for (const command of [["npm", "pack"], ["npm", "publish"], ["bun", "pm", "pack"]]) {
      const refused = /`npm run pack` makes the package|EPRIVATE|marked as private/;
      await assert.rejects(run([...command, "--dry-run"]), refused);
    }
  },

  "every library that is built is carried, under what the runtimes call its machine": () => {
    const table = fs.readFileSync(join(JSR, "src", "ffi", "embedded.ts"), "utf8");
    const carried = [...table.matchAll(/^ {2}"(.*)":/gm)].map((match) => match[1]);
    assert.deepEqual(carried, [...builtLibraries().keys()].map(machineOf));
    assert.ok(carried.includes(`${process.platform}-${process.arch}`), "not even this machine's");
  },

  "two builds in two directories are the same, byte for byte": async () => {
    const elsewhere = join(TEMPORARY, "elsewhere", "deeper");
    for (const path of ["build.zig", "build.zig.zon", "zig", "src"]) {
      fs.cpSync(join(ROOT, path), join(elsewhere, path), { recursive: true });
    }
    const env = { ...ENVIRONMENT, ZIG_GLOBAL_CACHE_DIR: join(TEMPORARY, "zig") };
    // With less of the work the other build makes the library of this machine alone.
    const machine = `${process.platform}-${process.arch}`;
    const own = [...builtLibraries().keys()].find((name) => machineOf(name) === machine);
    const wanted = Number(process.env.SHMAP_TEST_SCALE ?? 1) < 1 ? `all-${own}` : "all";
    await run(["zig", "build", wanted], { cwd: elsewhere, env });
    const [here, there] = [BUILT, join(elsewhere, "zig-out", "all")].map(builtLibraries);
    assert.equal(here.size, LIBRARY_COUNT);
    assert.deepEqual([...there.keys()], wanted === "all" ? [...here.keys()] : [own]);
    for (const [name, bytes] of here) {
      for (const place of [ROOT, TEMPORARY]) assert.ok(!bytes.includes(place), `${name}: ${place}`);
    }
    for (const [name, bytes] of there) assert.ok(bytes.equals(here.get(name)), name);
  },

  "the tarball is small, runs nothing when it is installed, and has what users need": async () => {
    const size = fs.statSync(TARBALL).size;
    assert.ok(size < TARBALL_BYTES_MAX, `${size} bytes`);
    const paths = (await run(["tar", "-tzf", TARBALL])).trim().split("\n");
    const needed =
      /^package\/(?:(?:mod|src\/(?:\w+\/)*\w+)\.(?:js|d\.ts)|package\.json|[A-Z]+(?:\.md)?)$/;
    assert.deepEqual(paths.filter((path) => !needed.test(path)), []);
    for (const path of ["mod.js", "mod.d.ts", "package.json", "README.md", "LICENSE"]) {
      assert.ok(paths.includes(`package/${path}`), path);
    }
    const described = JSON.parse(await run(["tar", "-xzOf", TARBALL, "package/package.json"]));
    assert.equal(described.scripts, undefined);
    assert.equal(described.version, VERSION);
    for (const field of ["homepage", "repository", "bugs"]) {
      assert.deepEqual(described[field], manifest("package.json")[field], field);
      assert.ok(described[field], field);
    }
    assert.deepEqual(described.dependencies, manifest("package.json").dependencies);
  },

  "deno publish accepts the package, with its libraries": async () => {
    const output = await run(["deno", "publish", "--dry-run", "--allow-dirty"], { cwd: JSR });
    for (const name of builtLibraries().keys()) {
      assert.ok(output.includes(`/src/ffi/embedded/${name.replace("-", "_")}.ts`), name);
    }
    assert.doesNotMatch(output, /^(?:warning|error)|missing-explicit/im);
    assert.doesNotMatch(output, /node_modules|\/tests\/|\.zig\b/);
  },

  "registries on this machine have what was made": async () => {
    const dependency = join(ROOT, "node_modules", "msgpackr");
    const pack = ["npm", "pack", "--ignore-scripts", "--loglevel=error", dependency];
    const made = (await run(pack, { cwd: TEMPORARY, env: CLEAN })).trim().split("\n").at(-1);
    const tarball = (directory, path) => ({
      manifest: JSON.parse(fs.readFileSync(join(directory, "package.json"), "utf8")),
      bytes: fs.readFileSync(path),
    });
    const tarballs = [
      tarball(join(PACKAGES, "npm"), TARBALL),
      tarball(dependency, join(TEMPORARY, made)),
    ];
    registries = await startRegistries({ tarballs, jsr: JSR });
    online = { ...CLEAN, ...registriesAt(registries) };
  },

  "npm install of the tarball": async () => {
    const cwd = project("npm", { "package.json": "{}" });
    await run(["npm", "install", TARBALL], { cwd, env: online });
    const tree = fs.readdirSync(join(cwd, "node_modules")).filter((name) => name[0] !== ".");
    assert.deepEqual(tree.sort(), ["msgpackr", NAME]);
  },
  "from npm, on Deno": () => assertRuns(ON_DENO, { cwd: join(TEMPORARY, "npm") }),
  "from npm, on Bun": () => assertRuns(ON_BUN, { cwd: join(TEMPORARY, "npm") }),

  "bun add of the tarball": () =>
    run(["bun", "add", TARBALL], { cwd: project("bun", { "package.json": "{}" }), env: online }),
  "from bun add, on Bun": () => assertRuns(ON_BUN, { cwd: join(TEMPORARY, "bun") }),
  "from bun add, on Deno": () => assertRuns(ON_DENO, { cwd: join(TEMPORARY, "bun") }),

  "deno add npm:": () => run(["deno", "add", `npm:${NAME}`], { cwd: project("deno"), env: online }),
  "from deno add npm:, on Deno": () => assertRuns(ON_DENO, { cwd: join(TEMPORARY, "deno") }),

  "deno add jsr:": () =>
    run(["deno", "add", `${NAME}@jsr:@${NAME}/${NAME}`], { cwd: project("jsr"), env: online }),
  "all of it is fetched at once": () =>
    run(["deno", "install", "--entrypoint", "hits.ts"], {
      cwd: join(TEMPORARY, "jsr"),
      env: online,
    }),
  "from deno add jsr:, on Deno": () =>
    assertRuns(["deno", "run", "--no-prompt", "--cached-only", ...ON_DENO.slice(3)], {
      cwd: join(TEMPORARY, "jsr"),
      // Where a module came from is part of its name.
      env: { ...OFFLINE, JSR_URL: registries.jsr },
    }),

  "its types are there": async () => {
    const cwd = project("types", {
      "package.json": JSON.stringify({ type: "module" }),
      "use.ts": `import { Mmap, type OpenOptions, pack, SharedMap, SharedValue } from "${NAME}";
const options: OpenOptions = { maxBytes: 2 ** 20 };
const map: SharedMap<number> = SharedMap.anonymous<number>(options);
const found: number | undefined = map.get("key");
// @ts-expect-error a map of numbers takes no text
map.set("key", "text");
const value: Date | undefined = SharedValue.anonymous<Date>().get();
const bytes: Uint8Array = pack("N", Mmap.anonymous(4096).length);
export { bytes, found, value };
`,
    });
    await run(["npm", "install", TARBALL], { cwd, env: online });
    await run(["deno", "check", "use.ts"], { cwd, env: OFFLINE });
  },

  "an import in Node succeeds, and the first use says what is missing": async () => {
    const program = `const { SharedMap } = await import("${NAME}");
      try { SharedMap.anonymous(); } catch ({ code, message }) { console.log(code, message); }`;
    const command = [process.execPath, "--input-type=module", "--eval", program];
    const output = await run(command, { cwd: join(TEMPORARY, "npm"), env: OFFLINE });
    assert.match(output, /^LibraryLoad .*Deno or Bun/);
  },

  "bun build --compile": async () => {
    const cwd = join(TEMPORARY, "bun");
    await run(["bun", "build", "--compile", "hits.ts", "--outfile", "hits"], { cwd, env: OFFLINE });
    fs.chmodSync(join(cwd, "hits"), 0o755);
  },
  "the executable, alone in an empty directory, without an environment, reading only": async () => {
    const alone = join(TEMPORARY, "alone");
    fs.mkdirSync(alone);
    fs.renameSync(join(TEMPORARY, "bun", "hits"), join(alone, "hits"));
    fs.rmSync(join(TEMPORARY, "bun"), { recursive: true });
    fs.chmodSync(alone, 0o555);
    const user = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
    await assertRuns([join(alone, "hits")], { cwd: alone, env: {}, ...user });
    assert.deepEqual(fs.readdirSync(alone), ["hits"]);
  },
  "the executable, on a system that can only be read": async () => {
    const alone = ["sh", "-c", 'mount -o remount,bind,ro / && exec "$0"'];
    const command = ["unshare", "-rm", ...alone];
    const refused = await run([...command, "true"]).then(() => undefined, (error) => error);
    if (refused) throw new Skipped("no namespace with a read-only root");
    await assertRuns([...command, join(TEMPORARY, "alone", "hits")], { env: CLEAN });
  },

  "deno compile": async () => {
    const cwd = join(TEMPORARY, "deno");
    const command = ["deno", "compile", "--allow-ffi", "--output", "hits", "hits.ts"];
    try {
      await run(command, { cwd, env: { ...OFFLINE, DENO_DIR: CLEAN.DENO_DIR } });
    } catch (error) {
      if (/denort|dns error|error sending request|dl\.deno\.land/i.test(error.message)) {
        throw new Skipped("the runtime that deno compile appends to cannot be had here");
      }
      throw error;
    }
    await assertRuns([join(cwd, "hits")], { cwd: "/", env: {} });
  },
};

/** Runs one check; says how it ended, and what that counts as. */
async function outcome(name, check) {
  try {
    await check();
    console.log(`ok      ${name}`);
    return "passed";
  } catch (error) {
    if (error instanceof Skipped) {
      console.log(`skipped ${name}: ${error.message}`);
      return "skipped";
    }
    console.log(`FAILED  ${name}\n${`${error?.message ?? error}`.replace(/^/gm, "    ")}`);
    return "failed";
  }
}

const counts = { passed: 0, failed: 0, skipped: 0 };
try {
  for (const [name, check] of Object.entries(CHECKS)) counts[await outcome(name, check)] += 1;
} finally {
  registries?.stop();
  fs.rmSync(TEMPORARY, { recursive: true, force: true });
}
console.log(inWords(counts));
process.exitCode = counts.failed === 0 ? 0 : 1;
