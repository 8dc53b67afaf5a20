/**
 * The boundary: the symbol table is the library's own, a foreign library is refused, and the
 * library is opened at the first use, with one permission.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { statuses, symbols } from "../../src/ffi/abi.ts";
import { native } from "../../src/ffi/native.ts";
import {
  ChildError,
  freshDirectory,
  HERE,
  NEEDS,
  ROOT,
  startChild,
  type TestContext,
  testUnless,
} from "../support/support.ts";

const LIBRARY = join(ROOT, "zig-out", "lib", "libshmap.so");
const SECTION_DYNSYM = 11;
const SEGMENT_LOAD = 1;
const SYMBOL_FUNCTION = 2;

interface Symbol {
  name: string;
  address: number;
}

/** The functions a 64-bit little-endian ELF library defines for others. */
function exportedFunctions(file: DataView): Symbol[] {
  const sections = table(file, 0x28, 0x3a, 0x3c);
  const dynsym = sections.find((at) => file.getUint32(at + 4, true) === SECTION_DYNSYM);
  assert.ok(dynsym !== undefined, "the library has no dynamic symbols");
  const strings = word(file, sections[file.getUint32(dynsym + 0x28, true)] + 0x18);
  const start = word(file, dynsym + 0x18);
  const count = word(file, dynsym + 0x20) / 24;
  return Array.from({ length: count }, (_, index) => start + index * 24)
    .filter((at) => (file.getUint8(at + 4) & 15) === SYMBOL_FUNCTION)
    .filter((at) => file.getUint16(at + 6, true) !== 0) // 0: defined in another library
    .map((at) => ({
      name: text(file, strings + file.getUint32(at, true)),
      address: word(file, at + 8),
    }));
}

/** Where each header of a table lies whose place, entry size and length stand at these offsets. */
function table(file: DataView, place: number, size: number, count: number): number[] {
  const [start, bytes] = [word(file, place), file.getUint16(size, true)];
  return Array.from({ length: file.getUint16(count, true) }, (_, index) => start + index * bytes);
}

function word(file: DataView, at: number): number {
  return Number(file.getBigUint64(at, true));
}

function text(file: DataView, at: number): string {
  let end = at;
  while (file.getUint8(end) !== 0) end += 1;
  return new TextDecoder().decode(new Uint8Array(file.buffer, file.byteOffset + at, end - at));
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** A copy of the library that differs in the number its `shm_fingerprint` returns. */
function foreignLibrary(t: TestContext): string {
  const bytes = new Uint8Array(readFileSync(LIBRARY));
  const file = viewOf(bytes);
  const function_ = exportedFunctions(file).find(({ name }) => name === "shm_fingerprint")!;
  const load = table(file, 0x20, 0x36, 0x38).find((at) => {
    const offset = function_.address - word(file, at + 0x10);
    return file.getUint32(at, true) === SEGMENT_LOAD && offset >= 0 &&
      offset < word(file, at + 0x20);
  })!;
  const start = function_.address - word(file, load + 0x10) + word(file, load + 8);
  const constant = native().shm_fingerprint() >>> 0;
  // On arm64 the lower half stands in an instruction by itself, `mov w0, #…`.
  const [code, lowest] = process.arch === "arm64"
    ? [0x52800000 + ((constant & 0xffff) << 5), 1 << 5]
    : [constant, 1];
  const place = Array.from({ length: 32 }, (_, index) => start + index)
    .find((at) => file.getUint32(at, true) === code);
  assert.ok(place !== undefined, "shm_fingerprint() does not contain its constant");
  file.setUint32(place, code ^ lowest, true);
  const path = join(freshDirectory(t), "libforeign.so");
  writeFileSync(path, bytes);
  return path;
}

/** What a child says that is made to open a map with this library. */
async function refusal(t: TestContext, path: string): Promise<ChildError> {
  const child = await startChild(t, HERE, {
    permissions: ["--allow-ffi", "--allow-env"],
    env: { SHMAP_LIBRARY: path },
  });
  const error = await child.ask("anonymous").catch((error) => error);
  assert.ok(error instanceof ChildError, "the library was not refused");
  assert.equal(error.code, "LibraryLoad");
  return error;
}

testUnless(
  NEEDS.elf,
  "src/ffi/abi.ts lists the shm_* functions of the library, and no others",
  {},
  () => {
    const exported = exportedFunctions(viewOf(readFileSync(LIBRARY)))
      .map(({ name }) => name).filter((name) => name.startsWith("shm_"));
    assert.deepEqual(exported.sort(), Object.keys(symbols).sort());
  },
);

test("every symbol can be called, and refuses a handle that was never given", async () => {
  type Call = (...args: unknown[]) => number | Promise<number>;
  const library = native() as unknown as Record<string, Call>;
  const bytes = new Uint8Array(65_536);
  for (const [name, { args, returns }] of Object.entries(symbols)) {
    const takesHandle = args.length > 0 && (args as readonly string[])[0] === "u32";
    const result = await library[name](...args.map((kind) => kind === "bytes" ? bytes : 0));
    if (returns as string === "void") continue;
    assert.equal(typeof result, "number", name);
    if (takesHandle) assert.equal(result, statuses.closed, name);
    else if (name === "shm_segment_anonymous") library.shm_segment_close(result);
  }
});

testUnless(
  NEEDS.elf,
  "a library with another fingerprint is refused with both numbers",
  {},
  async (t) => {
    const error = await refusal(t, foreignLibrary(t));
    const numbers = error.message.match(/0x[0-9a-f]{8}/g);
    assert.equal(numbers?.length, 2, error.message);
    assert.notEqual(numbers[0], numbers[1]);
  },
);

testUnless(
  NEEDS.elf,
  "a library whose records have a field more is refused",
  { timeout: 300_000 },
  async (t) => {
    const directory = freshDirectory(t);
    for (const entry of ["zig", "build.zig", "build.zig.zon", "src", "bench", "tests"]) {
      cpSync(join(ROOT, entry), join(directory, entry), { recursive: true });
    }
    const path = join(directory, "zig", "map", "stats.zig");
    const source = readFileSync(path, "utf8");
    const field = "    allocated_bytes: f64 = 0,\n";
    assert.equal(source.split(field).length, 2, "there is no such field");
    writeFileSync(path, source.replace(field, `    planted: f64 = 0,\n${field}`));
    const zig = join(ROOT, "node_modules", ".bin", "zig");
    // Of no use to programs, but built in no time; and what builds it is there already.
    const how = ["-Doptimize=Debug", "--cache-dir", join(ROOT, ".zig-cache")];
    const built = spawnSync(zig, ["build", ...how], { cwd: directory, encoding: "utf8" });
    assert.equal(built.status, 0, built.stderr);
    const error = await refusal(t, join(directory, "zig-out", "lib", "libshmap.so"));
    assert.equal(error.message.match(/0x[0-9a-f]{8}/g)?.length, 2, error.message);
  },
);

test("a file that is no library is refused", async (t) => {
  const path = join(freshDirectory(t), "libtext.so");
  copyFileSync(join(ROOT, "LICENSE"), path);
  assert.match((await refusal(t, path)).message, /libtext\.so/);
});

test("a missing library says what to do", async (t) => {
  const path = join(freshDirectory(t), "libnone.so");
  const { message } = await refusal(t, path);
  assert.match(message, /libnone\.so/);
  assert.match(message, /npm run build/);
});

test("a checkout without a build can be imported; the first use says what to do", async (t) => {
  const parent = join(ROOT, ".zig-cache");
  mkdirSync(parent, { recursive: true });
  const directory = freshDirectory(t, parent);
  for (const name of ["mod.ts", "src", "tests"]) {
    cpSync(join(ROOT, name), join(directory, name), { recursive: true });
  }
  const child = await startChild(t, HERE, {
    file: join(directory, "tests", "support", "child.ts"),
  });
  const error = await child.ask("open", { name: "never-made" }).catch((error) => error);
  assert.ok(error instanceof ChildError, "a library was found where there is none");
  assert.equal(error.code, "LibraryLoad");
  assert.match(error.message, /npm run build/);
});

testUnless(NEEDS.bothRuntimes, "--allow-ffi is the only permission a map needs", {}, async (t) => {
  const child = await startChild(t, "deno", { permissions: ["--allow-ffi"] });
  await child.ask("anonymous");
  await child.call("set", "key", { nested: [1, 2, 3] });
  assert.deepEqual(await child.call("get", "key"), { nested: [1, 2, 3] });
  await child.end();
});

testUnless(NEEDS.bothRuntimes, "without --allow-ffi the error names it", {}, async (t) => {
  // Deno grants a child without any permission flag everything its parent has.
  const child = await startChild(t, "deno", { permissions: ["--allow-env"] });
  const error = await child.ask("anonymous").catch((error) => error);
  assert.equal((error as ChildError).code, "LibraryLoad", `${error}`);
  assert.match((error as ChildError).message, /--allow-ffi/);
});
