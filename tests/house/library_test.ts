/**
 * What is shipped: a package that carries the library opens it from memory, or from a cache file
 * that no other user can change, with no more permissions than it takes; and says what to do when
 * it cannot. Every test runs a package that was staged as it is published, with this machine's
 * build.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { spawnSync, type SpawnSyncReturns } from "node:child_process";
import * as fs from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { embeddedModule, machineOf, stage } from "../../tools/package/embed.mjs";
import { fingerprint } from "../../src/ffi/abi.ts";
import {
  commandLine,
  divided,
  freshAnonymous,
  freshDirectory,
  HERE,
  NO_PERMISSIONS,
  ROOT,
  type Runtime,
  SUPPORT,
  type TestContext,
  testUnless,
} from "../support/support.ts";

const LIBRARY = fs.readFileSync(join(ROOT, "zig-out", "lib", "libshmap.so"));
const MACHINE = `linux-${process.arch}`;
const PROGRAMS = ["loading.ts", "loading_worker.ts", "memory_files.ts"];

/** A package as it is published, with these libraries, and the programs of this suite. */
function stagePackage(directory: string, libraries = new Map([[MACHINE, LIBRARY]])): string {
  stage(directory, libraries);
  const programs = join(directory, "tests", "support");
  fs.mkdirSync(programs, { recursive: true });
  for (const file of PROGRAMS) fs.copyFileSync(join(SUPPORT, file), join(programs, file));
  return directory;
}

fs.mkdirSync(join(ROOT, ".zig-cache"), { recursive: true });
/** Made anew by each run, in the same place. */
const PACKAGE = stagePackage(join(ROOT, ".zig-cache", `package-${HERE}`));

interface Options {
  runtime?: Runtime;
  permissions?: string[];
  env?: Record<string, string>;
  directory?: string;
  wrap?: string[];
}

/** Runs the program in one of its ways, without anything of our environment but what is given. */
function start(way: string[], options: Options): SpawnSyncReturns<string> {
  const { runtime = HERE, permissions, env = {}, directory = PACKAGE, wrap = [] } = options;
  const [command, ...args] = [
    ...wrap,
    ...commandLine(runtime, join(directory, "tests", "support", "loading.ts"), permissions),
    ...way,
  ];
  return spawnSync(command, args, {
    encoding: "utf8",
    env: { PATH: process.env.PATH!, DENO_DIR: DENO_CACHE, NO_COLOR: "1", ...env },
  });
}

const DENO_CACHE = join(PACKAGE, "deno");

// deno-lint-ignore no-explicit-any
type Json = any;

/** What it printed: `value`, or `error`. */
function load(way: string[], options: Options = {}): Json {
  const { stdout, stderr, status, signal } = start(way, options);
  assert.equal(signal ?? status, 0, stderr);
  return JSON.parse(stdout);
}

/** The message of the "LibraryLoad" that it printed. */
function refusal(way: string[], options: Options = {}): string {
  const { error } = load(way, options);
  assert.equal(error?.code, "LibraryLoad", JSON.stringify(error));
  assert.equal(error.name, "SharedMemoryError");
  return error.message;
}

test("a package opens its library from memory, with --allow-ffi alone, and writes nothing", (t) => {
  const home = freshDirectory(t);
  const own = { BUN_RUNTIME_TRANSPILER_CACHE_PATH: "0" }; // what Bun itself would write
  const env = { HOME: home, XDG_CACHE_HOME: join(home, "cache"), TMPDIR: home, ...own };
  for (const runtime of ["deno", "bun"] as const) {
    assert.equal(load(["use"], { runtime, env }).value, "stored");
  }
  assert.deepEqual(fs.readdirSync(home), []);
  const { files, mapped } = load(["files"], { permissions: ["-A"] }).value;
  assert.equal(files.length, 1);
  assert.ok(mapped > 0);
});

test("a package does not open what lies in the place of a checkout's build", (t) => {
  const directory = stagePackage(freshDirectory(t, join(ROOT, ".zig-cache")));
  fs.mkdirSync(join(directory, "zig-out", "lib"), { recursive: true });
  fs.writeFileSync(join(directory, "zig-out", "lib", "libshmap.so"), "not a library");
  assert.equal(load(["use"], { directory }).value, "stored");
});

test("another library that was loaded at the same descriptor is not taken for ours", (t) => {
  const other = join(freshDirectory(t), "other.so");
  const bytes = new Uint8Array(LIBRARY);
  const view = new DataView(bytes.buffer);
  // An instruction of arm64 has 16 bits of a number, 5 from its end: this one moves them to w0.
  const [from, to] = process.arch === "arm64"
    ? [fingerprint, fingerprint ^ 1].map((number) => 0x52800000 | (number & 0xffff) << 5)
    : [fingerprint, fingerprint ^ 1];
  for (let at = 0; at + 4 <= bytes.length; at++) {
    if (view.getUint32(at, true) === from) view.setUint32(at, to, true);
  }
  fs.writeFileSync(other, bytes);
  const { value } = load(["reuse", other], { permissions: ["-A"] });
  assert.equal(value.fingerprint >>> 0, (fingerprint ^ 1) >>> 0, "the other one was loaded");
  assert.deepEqual(value.files, [value.file], "ours got the descriptor that was closed");
  assert.equal(value.value, "stored");
});

test("a memory file of our name is used only if it is sealed and its bytes are right", () => {
  const name = /sha256: string = "(.{32})/.exec(embeddedModule(MACHINE, LIBRARY))![1];
  const { value } = load(["planted", `shmap-${name}`], { permissions: ["-A"] });
  assert.equal(value.value, "stored");
  assert.equal(value.files.length, value.planted.length + 1, "the planted ones, and ours");
});

test("two versions of the package in one process have a library each, and share a map", (t) => {
  // The same to the linker, with another hash.
  const changed = Buffer.concat([LIBRARY, new Uint8Array(1)]);
  const libraries = new Map([[MACHINE, changed]]);
  const directory = stagePackage(freshDirectory(t, join(ROOT, ".zig-cache")), libraries);
  const { value } = load(["both", join(directory, "mod.ts")], { permissions: ["-A"] });
  assert.equal(value.found, "from the other");
  assert.equal(value.other, "from this one");
  assert.equal(value.files.length, 2);
});

test("Workers that load at once, and many more, share what the process has", () => {
  const atOnce = 8;
  const rounds = divided(25);
  const { first, last } = load(["workers", `${atOnce}`, `${rounds}`], {
    permissions: ["-A"],
  }).value;
  assert.ok(first.files >= 1 && first.files <= atOnce, `${first.files} descriptors`);
  assert.deepEqual(last, first, `${atOnce * rounds} Workers left something`);
});

test("a process that ends by an error while a thread waits in the library does not crash", (t) => {
  const map = freshAnonymous(t);
  using _lock = map.lock();
  for (let round = 0; round < divided(8); round++) {
    const { status, signal, stderr } = start(["crash", map.token], {});
    assert.equal(signal ?? status, 1, stderr);
    assert.match(stderr, /planted/);
  }
});

test("a list of --allow-ffi that does not have what it takes is an error that says so", () => {
  const message = refusal(["use"], { runtime: "deno", permissions: ["--allow-ffi=/some/path"] });
  assert.match(message, /run with --allow-ffi/);
  assert.match(message, /SHMAP_LIBRARY/);
});

test("a list of --allow-ffi with the C library and /proc is enough", () => {
  const permissions = ["--allow-ffi=/lib,/lib64,/usr/lib,/usr/lib64,/proc"];
  assert.equal(load(["use"], { runtime: "deno", permissions }).value, "stored");
});

test("a list of --allow-ffi with the cache alone uses the cache", (t) => {
  const home = freshDirectory(t);
  const cache = join(home, ".cache", "shmap");
  const permissions = ["ffi", "read", "write"].map((kind) => `--allow-${kind}=${cache}`);
  const env = { HOME: home };
  // Deno makes no directory above the one that it may write to.
  fs.mkdirSync(join(home, ".cache"));
  const options: Options = { runtime: "deno", permissions, env };
  assert.match(refusal(["use"], options), /--allow-env/);
  permissions.push("--allow-env=HOME,XDG_CACHE_HOME");
  for (let round = 0; round < 2; round++) assert.equal(load(["use"], options).value, "stored");
  const [file, ...others] = fs.readdirSync(cache);
  assert.deepEqual(others, []);
  assert.deepEqual(fs.readFileSync(join(cache, file)), LIBRARY);
});

test("without a permission to load anything the error says --allow-ffi", () => {
  const message = refusal(["use"], { runtime: "deno", permissions: [...NO_PERMISSIONS] });
  assert.match(message, /run with --allow-ffi/);
});

test("SHMAP_LIBRARY comes before what a package carries, and a library named so must load", (t) => {
  const env = { SHMAP_LIBRARY: join(freshDirectory(t), "libnone.so") };
  const permissions = ["--allow-ffi", "--allow-env=SHMAP_LIBRARY"];
  assert.match(refusal(["use"], { env, permissions }), /libnone\.so/);
  fs.writeFileSync(env.SHMAP_LIBRARY, LIBRARY);
  assert.equal(load(["use"], { env, permissions }).value, "stored");
  const alone = [`--allow-ffi=${env.SHMAP_LIBRARY}`, "--allow-env=SHMAP_LIBRARY"];
  assert.equal(load(["use"], { env, permissions: alone }).value, "stored");
});

/** A package whose only library is what `change` makes of the module that carries it. */
function changedPackage(t: TestContext, change: (module: string) => string): string {
  const directory = stagePackage(freshDirectory(t, join(ROOT, ".zig-cache")));
  const path = join(directory, "src", "ffi", "embedded", `${MACHINE.replace("-", "_")}.ts`);
  fs.writeFileSync(path, change(fs.readFileSync(path, "utf8")));
  return directory;
}

test("a library whose hash is not the packed one is not loaded", (t) => {
  const other = embeddedModule(MACHINE, LIBRARY.subarray(0, -1)).split("\n").at(-2)!;
  const directory = changedPackage(t, (module) => module.replace(/^export const data.*/m, other));
  const message = refusal(["use"], { directory });
  assert.equal(message.match(/[0-9a-f]{64}/g)?.length, 2, message);
  assert.match(message, /install it again/);
});

test("a library that does not decompress is not loaded", (t) => {
  const directory = changedPackage(t, (module) => module.replace(/(data.*").{99}/, "$1"));
  assert.match(refusal(["use"], { directory }), /damaged.*install it again/);
});

test("a package without a library for this machine says so", (t) => {
  const libraries = new Map([["linux-riscv64", LIBRARY]]);
  const directory = stagePackage(freshDirectory(t, join(ROOT, ".zig-cache")), libraries);
  const message = refusal(["use"], { directory });
  assert.match(message, new RegExp(MACHINE));
  assert.match(message, /SHMAP_LIBRARY/);
});

test("packages call machines what the runtimes do", () => {
  assert.equal(machineOf("linux-x64"), "linux-x64");
  assert.equal(machineOf("macos-arm64"), "darwin-arm64");
  assert.equal(machineOf("windows-x64"), "win32-x64");
});

/** The words that make memory files refused that could be executed, in a namespace of its own. */
const NOEXEC = [
  "unshare",
  "-Urpf",
  "--mount-proc",
  "sh",
  "-c",
  'echo 2 >/proc/sys/vm/memfd_noexec && exec "$@"',
  "sh",
];
const refusesNoexec = spawnSync(NOEXEC[0], [...NOEXEC.slice(1), "true"]).status === 0
  ? undefined
  : "no namespace with a vm.memfd_noexec of its own";

testUnless(refusesNoexec, "a system that makes no executable memory files will do", {}, () => {
  assert.equal(load(["use"], { wrap: NOEXEC }).value, "stored");
});
