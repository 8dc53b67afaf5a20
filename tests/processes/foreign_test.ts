/** What lies at a name and is no sound map: it is an error, and stays as it is. */
import assert from "node:assert/strict";
import { LOCK } from "../support/lock_mode.ts";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import { CODECS } from "../support/corpus.ts";
import { editHeader, WORD } from "../support/header.ts";
import {
  freshDirectory,
  freshMap,
  IS_WINDOWS,
  NEEDS,
  SHM,
  testUnless,
  thrown,
  untyped,
} from "../support/support.ts";

/** Things that are no segment, made at a path. */
const FOREIGN: [string, (path: string) => void, reason?: string][] = [
  ["an empty file", (path) => writeFileSync(path, "")],
  ["a short file", (path) => writeFileSync(path, "x")],
  ["a file of text", (path) => writeFileSync(path, "a user's work\n".repeat(10_000))],
  ["a file of zeros", (path) => writeFileSync(path, new Uint8Array(300_000))],
  ["a directory", (path) => mkdirSync(path)],
  ["a fifo", (path) => spawnSync("mkfifo", [path]), NEEDS.fifos],
  ["a symbolic link to nothing", (path) => symlinkSync("nowhere", path), NEEDS.links],
];

for (const [what, make, reason] of FOREIGN) {
  testUnless(reason, `SharedMap.open() never touches ${what} at its name`, {}, (t) => {
    const directory = freshDirectory(t, SHM);
    const path = join(directory, "name");
    make(path);
    const isFile = what.includes("file");
    const before = isFile ? readFileSync(path) : undefined;
    for (const mode of ["shared", "create", "attach", "exclusive"] as const) {
      const code = mode === "create" ? /^(Exists|Incompatible)$/ : /^Incompatible$/;
      assert.throws(
        () => SharedMap.open("name", { mode, directory, timeout: 300 }),
        (error) => error instanceof Error && code.test(`${untyped(error).code}`),
        `${mode}`,
      );
    }
    thrown("Incompatible", () => SharedMap.open("name", { readonly: true, directory }));
    thrown("Incompatible", () => SharedMap.unlink("name", { directory }));
    assert.deepEqual(SharedMap.list({ directory }), []);
    assert.deepEqual(readdirSync(directory), ["name"]);
    if (before) assert.deepEqual(readFileSync(path), before);
  });
}

testUnless(NEEDS.links, "SharedMap.open() does not follow a symbolic link to a map", {}, (t) => {
  const directory = freshDirectory(t, SHM);
  using map = SharedMap.open("real", { directory });
  map.set("a", 1);
  symlinkSync("real", join(directory, "link"));
  for (const mode of ["shared", "attach", "exclusive"] as const) {
    thrown("Incompatible", () => SharedMap.open("link", { mode, directory, timeout: 300 }));
  }
  thrown("Incompatible", () => SharedMap.unlink("link", { directory }));
  assert.equal(readlinkSync(join(directory, "link")), "real");
  assert.equal(map.get("a"), 1);
});

test("SharedMap.open() of a map cut short is an error, and the file stays as it is", (t) => {
  const directory = freshDirectory(t, SHM);
  const path = join(directory, "name");
  using map = SharedMap.open("name", { directory });
  for (let i = 0; i < 5000; i += 1) map.set(`key ${i}`, "x".repeat(100));
  map.close();
  const whole = readFileSync(path);
  const piece = IS_WINDOWS ? 65_536 : 4096; // of which there, more than is used was made
  for (const length of [1, 63, 64, 512, 4095, 4096, 65_536, whole.length - piece]) {
    writeFileSync(path, whole);
    truncateSync(path, length);
    for (const mode of ["shared", "attach"] as const) {
      assert.throws(
        () => SharedMap.open("name", { mode, directory }),
        (error) => /^(Corrupt|Incompatible)$/.test(untyped(error).code),
        `${length} bytes`,
      );
    }
    assert.deepEqual(readFileSync(path), whole.subarray(0, length));
  }
});

test('SharedMap.open() of a segment of another kind is "Incompatible" and leaves it alone', (t) => {
  const directory = freshDirectory(t, SHM);
  const path = join(directory, "name");
  SharedMap.open("name", { directory }).close();
  editHeader(path, WORD.shape, (shape) => shape | 1n);
  const bytes = readFileSync(path);
  for (const mode of ["shared", "attach", "exclusive"] as const) {
    thrown("Incompatible", () => SharedMap.open("name", { directory, mode }));
  }
  thrown("Incompatible", () => SharedMap.open("name", { directory, readonly: true }));
  thrown("Incompatible", () => SharedMap.unlink("name", { directory }));
  assert.deepEqual(SharedMap.list({ directory }).map((info) => info.kind), ["value"]);
  assert.deepEqual(readFileSync(path), bytes);
});

test('SharedMap.open() of a header that does not match its checksum is "Corrupt"', (t) => {
  const directory = freshDirectory(t, SHM);
  const path = join(directory, "name");
  SharedMap.open("name", { directory }).close();
  editHeader(path, WORD.checksum, (sum) => sum ^ 1n);
  const bytes = readFileSync(path);
  for (const options of [{}, { mode: "attach" }, { readonly: true }] as const) {
    thrown("Corrupt", () => SharedMap.open("name", { directory, ...options }));
  }
  assert.deepEqual(readFileSync(path), bytes);
  using fresh = SharedMap.open("name", { directory, mode: "exclusive" });
  assert.equal(fresh.set("a", 1).size, 1);
});

test("SharedMap.open() takes the maxBytes a map has, or none stated, and no other", (t) => {
  const limited = freshMap(t, { maxBytes: 1 << 20 }).set("a", 1);
  thrown("Incompatible", () => SharedMap.open(limited.name, { maxBytes: 1 << 21 }));
  using same = SharedMap.open(limited.name, { maxBytes: 1 << 20 });
  using unstated = SharedMap.open(limited.name);
  assert.deepEqual([same.get("a"), unstated.get("a")], [1, 1]);
  const open = freshMap(t).set("a", 1);
  thrown("Incompatible", () => SharedMap.open(open.name, { maxBytes: 1 << 20 }));
  using robust = SharedMap.open(open.name, { lock: LOCK });
  assert.equal(robust.get("a"), 1);
});

test("SharedMap.open() in mode exclusive may change codec and maxBytes", (t) => {
  const map = freshMap(t, { codec: CODECS.json, maxBytes: 1 << 20 });
  using fresh = SharedMap.open(map.name, { mode: "exclusive", maxBytes: 1 << 21 });
  assert.deepEqual(fresh.set("a", new Date(0)).get("a"), new Date(0));
});
