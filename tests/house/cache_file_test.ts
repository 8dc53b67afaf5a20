/**
 * The cache file, which is how the library is opened where it cannot be from memory: only intact
 * bytes in a place that is the user's own are ever given to the linker.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import type { Backend } from "../../src/ffi/backend.ts";
import { CACHE_VARIABLES, cacheFile } from "../../src/ffi/load_cache.ts";
import { freshDirectory, NEEDS, type TestContext, testUnless } from "../support/support.ts";
import { testBackend } from "../support/test_backend.ts";

const BYTES = new Uint8Array(100_000).map((_, index) => index % 251);
const HASH = createHash("sha256").update(BYTES).digest("hex");
const ENDINGS: Record<string, string> = { darwin: "dylib", win32: "dll" };
const FILE = `${HASH}.${ENDINGS[process.platform] ?? "so"}`;
/** The variables that are asked first and second. */
const [FIRST, SECOND] = CACHE_VARIABLES;

/** Where the cache lies when `variable` names the directory `base`. */
function cacheIn(variable: string, base: string): string {
  if (variable !== "HOME") return join(base, "shmap");
  const below = process.platform === "darwin" ? ["Library", "Caches"] : [".cache"];
  return join(base, ...below, "shmap");
}

/** A runtime with these variables, and every permission but those to the paths of `refused`. */
function backendOf(variables: Record<string, string>, refused: string[] = []): Backend {
  return testBackend({
    open: () => assert.fail("it opens nothing by itself"),
    requestLoad: () => assert.fail("it asks for no permission"),
    mayAccess: (path) => !refused.some((prefix) => path.startsWith(prefix)),
    readVariable: (name) => variables[name],
  });
}

/** A cache in a directory of its own, and how to ask it for a file. */
function freshCache(t: TestContext): { directory: string; ask: () => string } {
  const base = freshDirectory(t);
  const backend = backendOf({ [FIRST]: base });
  const directory = cacheIn(FIRST, base);
  fs.mkdirSync(dirname(directory), { recursive: true });
  return { directory, ask: () => cacheFile(backend, HASH, BYTES) };
}

function assertIntact(path: string): void {
  assert.deepEqual(new Uint8Array(fs.readFileSync(path)), BYTES);
  assert.ok(fs.lstatSync(path).isFile());
  if (NEEDS.modes) return;
  assert.equal(fs.lstatSync(path).mode & 0o022, 0, "others may write to it");
}

test("cacheFile() writes the file once, where only its user can change it", (t) => {
  const { directory, ask } = freshCache(t);
  const path = ask();
  assertIntact(path);
  if (!NEEDS.modes) assert.equal(fs.lstatSync(directory).mode & 0o777, 0o700);
  assert.deepEqual(fs.readdirSync(directory), [FILE], "nothing else is left");
  const { ino } = fs.statSync(path);
  assert.equal(ask(), path);
  assert.equal(fs.statSync(path).ino, ino, "it was written again");
});

const TAMPERING: Record<string, (path: string) => void> = {
  "one other byte": (path) => fs.writeFileSync(path, BYTES.with(50_000, 255)),
  "its end cut off": (path) => fs.truncateSync(path, 1000),
  "more behind its end": (path) => fs.appendFileSync(path, "more"),
  "nothing in it": (path) => fs.truncateSync(path, 0),
  "a link in its place": (path) => {
    fs.renameSync(path, `${path}.moved`);
    fs.symlinkSync(`${path}.moved`, path);
  },
  "write permission for others": (path) => fs.chmodSync(path, 0o666),
};

const NEEDED: Record<string, string | undefined> = {
  "a link in its place": NEEDS.links,
  "write permission for others": NEEDS.modes,
};

for (const [what, tamper] of Object.entries(TAMPERING)) {
  testUnless(NEEDED[what], `cacheFile() replaces a file with ${what}`, {}, (t) => {
    const { ask } = freshCache(t);
    const path = ask();
    fs.chmodSync(path, 0o600);
    tamper(path);
    assert.equal(ask(), path);
    assertIntact(path);
  });
}

test("cacheFile() never gives a path whose file it cannot replace", (t) => {
  const { directory, ask } = freshCache(t);
  fs.mkdirSync(join(directory, FILE, "below"), { recursive: true });
  fs.chmodSync(directory, 0o700);
  assert.throws(ask);
  assert.deepEqual(fs.readdirSync(directory), [FILE], "a temporary file is left");
});

testUnless(NEEDS.modes, "cacheFile() refuses a directory that others can write to", {}, (t) => {
  const { directory, ask } = freshCache(t);
  fs.mkdirSync(directory);
  fs.chmodSync(directory, 0o777);
  assert.throws(ask, /can be changed by others/);
});

testUnless(NEEDS.links, "cacheFile() refuses a link in place of the directory", {}, (t) => {
  const { directory, ask } = freshCache(t);
  fs.symlinkSync(freshDirectory(t), directory);
  assert.throws(ask, /is not a directory/);
});

const needsRoot = process.getuid?.() === 0 ? undefined : "only root gives files away";

testUnless(needsRoot, "cacheFile() refuses a directory of another user", {}, (t) => {
  const { directory, ask } = freshCache(t);
  ask();
  fs.chownSync(directory, 65_534, 65_534);
  assert.throws(ask, /belongs to another user/);
});

test("cacheFile() goes on to the next place when one does not do", (t) => {
  const [file, home] = [join(freshDirectory(t), "file"), freshDirectory(t)];
  fs.writeFileSync(file, "");
  const path = cacheFile(backendOf({ [FIRST]: file, [SECOND]: home }), HASH, BYTES);
  assert.equal(path, join(cacheIn(SECOND, home), FILE));
  assertIntact(path);
});

test("cacheFile() tells which permissions are missing, and touches nothing without them", (t) => {
  const base = freshDirectory(t);
  const backend = backendOf({ [SECOND]: base }, [base]);
  const directory = cacheIn(SECOND, base);
  assert.throws(
    () => cacheFile(backend, HASH, BYTES),
    ({ message }: Error) =>
      message.includes(`--allow-read=${directory}`) &&
      message.includes(`--allow-write=${directory}`),
  );
  assert.deepEqual(fs.readdirSync(base), []);
});

test("cacheFile() takes no place that depends on the working directory", () => {
  assert.throws(
    () => cacheFile(backendOf({ [FIRST]: "here" }), HASH, BYTES),
    RegExp(`none of .*${FIRST}`),
  );
  assert.ok(!fs.existsSync("here"));
});

test("cacheFile() names the variables of which it needs one", () => {
  assert.throws(
    () => cacheFile(backendOf({}), HASH, BYTES),
    RegExp(`${FIRST}.*${SECOND}.*--allow-env`),
  );
});

test("cacheFile() of many threads at once gives each an intact file", async (t) => {
  const base = freshDirectory(t);
  const module = new URL("../../src/ffi/load_cache.ts", import.meta.url).href;
  const script = join(base, "thread.mjs");
  fs.writeFileSync(
    script,
    `import { parentPort } from "node:worker_threads";
    import { createHash } from "node:crypto";
    import { readFileSync } from "node:fs";
    import { CACHE_VARIABLES, cacheFile } from ${JSON.stringify(module)};
    const bytes = new Uint8Array(100_000).map((_, index) => index % 251);
    const hash = createHash("sha256").update(bytes).digest("hex");
    const backend = {
      mayLoad: () => true,
      mayAccess: () => true,
      readVariable: (name) => name === ${JSON.stringify(SECOND)} ? ${
      JSON.stringify(base)
    } : undefined,
    };
    const found = readFileSync(cacheFile(backend, hash, bytes));
    parentPort.postMessage(createHash("sha256").update(found).digest("hex"));`,
  );
  const threads = Array.from({ length: 4 }, () => new Worker(script));
  const hashes = await Promise.all(threads.map((thread) =>
    new Promise((resolve, reject) => {
      thread.on("message", resolve);
      thread.on("error", reject);
    })
  ));
  await Promise.all(threads.map((thread) => thread.terminate()));
  assert.deepEqual(hashes, Array(4).fill(HASH));
  assert.deepEqual(fs.readdirSync(cacheIn(SECOND, base)), [FILE]);
});
