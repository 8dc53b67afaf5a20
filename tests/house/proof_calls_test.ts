/**
 * The proof's table of calls, as far as it can be judged without running the proof: each exported
 * function has its row, and each part is named in it or has its reason.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { exported, faultsOf, misses, TABLE } from "../proof/calls.mjs";

test("every exported function has its row in the proof's table of calls", () => {
  assert.ok(exported().length > 40, "the symbol table was not read");
  assert.deepEqual(faultsOf(TABLE, exported()), []);
});

test("the table of calls: what is missing, too much or left out is found", () => {
  const row = { by: "api", not: {} };
  assert.deepEqual(faultsOf({}, ["shm_new"]), ["shm_new: no row"]);
  const found = faultsOf({ shm_gone: row }, []);
  assert.equal(found[0], "shm_gone: there is no such function");
  assert.equal(found.length, 7, "six parts are neither named nor have a reason");
});

test("the table of calls: a part that never called a function is found", () => {
  const table = { shm_map_get: { by: "storm api", on: "robust kernel", not: {} } };
  const storm = { shm_map_get: { robust: 3 } };
  assert.deepEqual(misses(table, { storm, api: {} }, ["storm", "api"]), [
    "shm_map_get: never called by api",
    "shm_map_get: never called on kernel",
  ]);
  const api = { shm_map_get: { kernel: 1 } };
  assert.deepEqual(misses(table, { storm, api }, ["storm", "api"]), []);
});
