/**
 * What happens when two versions meet: on one segment, and what the files of this one say it is.
 * That a library and a module of two versions do not go together is in `abi_test.ts`.
 */
import assert from "node:assert/strict";
import {
  closeSync,
  existsSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Mmap, SharedMap, SharedValue } from "../../mod.ts";
import { layoutVersion } from "../../src/ffi/abi.ts";
import { WORD } from "../support/header.ts";
import {
  atEnd,
  freshDirectory,
  NEEDS,
  ROOT,
  SHM,
  type TestContext,
  testUnless,
  thrown,
} from "../support/support.ts";

/** Where the header has the version of the layout: in every layout there will ever be. */
const VERSION_OFFSET = 8;
const CHECKSUM_OFFSET = WORD.checksum * 8;
const OTHERS = [1, layoutVersion - 1, layoutVersion + 1, 2 ** 32 - 1];

/** A segment as another version leaves it, as far as this one can tell; its path and bytes. */
function foreignSegment(
  t: TestContext,
  open: (name: string, options: { directory: string }) => { close(): void },
  version: number,
): { directory: string; path: string; bytes: Uint8Array } {
  const directory = freshDirectory(t, SHM);
  const path = join(directory, "name");
  open("name", { directory }).close();
  const bytes = readFileSync(path);
  assert.equal(bytes.readUInt32LE(VERSION_OFFSET), layoutVersion);
  bytes.writeUInt32LE(version, VERSION_OFFSET);
  writeFileSync(path, bytes);
  return { directory, path, bytes };
}

for (const kind of [SharedMap, SharedValue] as const) {
  test(`${kind.name}.open() of another layout is "Incompatible", and says both numbers`, (t) => {
    for (const other of OTHERS) {
      const { directory, path, bytes } = foreignSegment(t, kind.open, other);
      const modes = [{ mode: "shared" }, { mode: "attach" }, { readonly: true }] as const;
      for (const options of modes) {
        const error = thrown("Incompatible", () => kind.open("name", { ...options, directory }));
        assert.match(error.message, new RegExp(`layout ${other}\\b.*layout ${layoutVersion}\\b`));
      }
      assert.deepEqual(new Uint8Array(readFileSync(path)), new Uint8Array(bytes), "it was changed");
    }
  });
}

/** What changes a file into one that nothing may be stored to. */
const STRANGERS: Record<string, { at: number; word: number }> = {
  "another layout": { at: VERSION_OFFSET, word: layoutVersion + 1 },
  "a damaged header": { at: CHECKSUM_OFFSET, word: 0x5eed },
};

for (const kind of [SharedMap, SharedValue] as const) {
  for (const [what, { at, word }] of Object.entries(STRANGERS)) {
    testUnless(
      NEEDS.removal,
      `displacing, unlinking and clearing away store nothing into ${what} of a ${kind.name}`,
      {},
      (t) => {
        const directory = freshDirectory(t, SHM);
        const [path, link, left] = ["name", "link", `.name.~${"0".repeat(16)}`]
          .map((name) => join(directory, name));
        const ways: (() => void)[] = [
          () => kind.open("name", { directory, mode: "exclusive" }).close(),
          () => assert.equal(kind.unlink("name", { directory }), true),
          () => {
            renameSync(path, left);
            kind.open("name", { directory }).close();
            assert.equal(existsSync(left), false);
          },
          () => {
            renameSync(path, left);
            kind.list({ directory });
            assert.equal(existsSync(left), false);
          },
        ];
        for (const way of ways) {
          kind.open("name", { directory }).close();
          linkSync(path, link);
          const bytes = readFileSync(link);
          bytes.writeUInt32LE(word, at);
          writeFileSync(link, bytes);
          way();
          assert.deepEqual(readFileSync(link), bytes, `${way}`);
          rmSync(link);
          rmSync(path, { force: true });
        }
      },
    );
  }
}

testUnless(
  NEEDS.memoryFiles,
  "a region of another layout is Incompatible, and nothing is stored to it",
  {},
  (t) => {
    const region = Mmap.anonymous(1000);
    atEnd(t, () => region.close());
    const { token } = region;
    const path = `/proc/${token.split(":")[1]}/fd/${token.split(":")[2]}`;
    const file = openSync(path, "r+");
    atEnd(t, () => closeSync(file));
    for (const other of OTHERS) {
      writeSync(file, new Uint32Array([other]), 0, 4, VERSION_OFFSET);
      const bytes = readFileSync(path);
      thrown("Incompatible", () => Mmap.attach(token));
      assert.deepEqual(readFileSync(path), bytes);
    }
    writeSync(file, new Uint32Array([layoutVersion]), 0, 4, VERSION_OFFSET);
    Mmap.attach(token).close();
  },
);

test('a segment of another layout makes way for "exclusive" and unlink()', (t) => {
  for (const other of OTHERS) {
    const { directory, path, bytes } = foreignSegment(t, SharedMap.open, other);
    assert.deepEqual(SharedMap.list({ directory }), []);
    assert.equal(SharedMap.unlink("name", { directory }), true);
    writeFileSync(path, bytes);
    const map = SharedMap.open<number>("name", { directory, mode: "exclusive" });
    assert.equal(map.set("key", 1).get("key"), 1);
    map.close();
    rmSync(path);
  }
});

test("every file that states the version of the package states the same", () => {
  const read = (file: string) => readFileSync(join(ROOT, file), "utf8");
  const { version } = JSON.parse(read("package.json"));
  assert.equal(JSON.parse(read("deno.json")).version, version);
  assert.equal(JSON.parse(read("package-lock.json")).version, version);
  assert.equal(/\.version = "(.*)"/.exec(read("build.zig.zon"))?.[1], version);
  const released = /^## (\d+\.\d+\.\d+),/m.exec(read("CHANGELOG.md"))?.[1];
  assert.equal(released, version, "the changelog's last release");
});

test("the packages for both registries depend on the same versions", () => {
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  const { imports } = JSON.parse(readFileSync(join(ROOT, "deno.json"), "utf8"));
  const stated = Object.values(imports as Record<string, string>)
    .flatMap((specifier) => /^npm:(.+)@([^/]+)/.exec(specifier)?.slice(1, 3).join("@") ?? []);
  assert.deepEqual(stated, Object.entries(dependencies).map(([name, range]) => `${name}@${range}`));
});
