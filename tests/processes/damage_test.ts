/** What of a damaged map is found, and what is not: the table of docs/map.md, row by row. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import { freshDirectory, SHM, type TestContext, thrown } from "../support/support.ts";

const TEXT = "a text of more than a few letters";

/** A map in whose file these bytes were replaced by others of their length. */
function damaged(t: TestContext, from: Uint8Array | string, to: Uint8Array | string): SharedMap {
  const directory = freshDirectory(t, SHM);
  using map = SharedMap.open("damaged", { directory });
  map.set("a key of some length", TEXT).set("list", ["one", "two", "three"]);
  map.close();
  const path = join(directory, "damaged");
  const bytes = readFileSync(path);
  const at = bytes.indexOf(from);
  assert.ok(at > 0 && bytes.indexOf(from, at + 1) < 0, "the bytes are there once");
  bytes.set(typeof to === "string" ? new TextEncoder().encode(to) : to, at);
  writeFileSync(path, bytes);
  const again = SharedMap.open("damaged", { directory });
  t.after(() => again.close());
  return again;
}

test("a changed byte of a value is returned as the value, and verify() says ok", (t) => {
  const map = damaged(t, TEXT, "A");
  assert.equal(map.get("a key of some length"), `A${TEXT.slice(1)}`);
  assert.deepEqual([map.verify().ok, map.verify().problems], [true, 0]);
  assert.equal(map.repair().dropped, 0);
});

test("a changed byte of a key: get() finds nothing, and verify() finds it", (t) => {
  const map = damaged(t, "a key of some length", "A");
  assert.equal(map.get("a key of some length"), undefined);
  assert.equal(map.get("A key of some length"), undefined);
  const { ok, first } = map.verify();
  assert.equal(ok, false);
  assert.match(first!.what, /damaged; repair\(\) drops what is lost/);
  assert.equal(map.repair().dropped, 1);
  assert.equal(map.verify().ok, true);
  assert.deepEqual([...map.keys()], ["list"]);
});

test('a structure that no longer decodes is "Corrupt" from get(), and verify() says ok', (t) => {
  const map = damaged(t, Uint8Array.of(0xd3, 0x83, 0x6f), Uint8Array.of(0xff, 0xff, 0xff));
  assert.match(thrown("Corrupt", () => map.get("list")).message, /"list" in map "damaged": /);
  assert.equal(map.verify().ok, true);
  assert.equal(map.get("a key of some length"), TEXT);
});
