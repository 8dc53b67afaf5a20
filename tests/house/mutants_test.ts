/** The known bugs that `npm run mutants` plants. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ALL_MUTANTS, misplaced } from "../../tools/mutants/all.mjs";

test("every known bug has its one place in the source, and a name of its own", () => {
  assert.deepEqual(misplaced(ALL_MUTANTS), []);
  assert.equal(new Set(ALL_MUTANTS.map(({ name }) => name)).size, ALL_MUTANTS.length);
});

test("a bug without a place, or with two, is found", () => {
  const mutant = { name: "none", file: "layout.zig", from: "no such text", to: "" };
  const twice = { ...mutant, name: "twice", from: "pub const " };
  const wanted = ["none", "twice"].map((name) => `no single place in zig/layout.zig: ${name}`);
  assert.deepEqual(misplaced([mutant, twice]), wanted);
});
