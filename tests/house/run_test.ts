/** The runner's arithmetic: what it reads in the summaries, and what it calls a failure. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { bunCounts, denoCounts, plainCounts, worth, zigCounts } from "../../tools/check.mjs";

const DENO = `
running 2 tests from ./tests/a_test.ts
one ... ok (1ms)
two (skipped: needs a second user) ... ignored (0ms)

ok | 11 passed (2 steps) | 0 failed | 2 ignored (15ms)
`;

const BUN = `
tests/a_test.ts:
(pass) one [0.77ms]
(skip) two (skipped: needs a second user)
(skip) three [0.04ms]

 11 pass
 2 skip
 0 fail
Ran 13 tests across 1 file. [64.00ms]
`;

const ZIG = `
Build Summary: 3/5 steps succeeded (1 failed); 9/12 tests passed (1 skipped, 1 failed, 1 crashed)
test transitive failure
`;

test("denoCounts() reads the summary and names what was skipped", () => {
  assert.deepEqual(denoCounts(DENO), {
    passed: 11,
    failed: 0,
    skipped: 2,
    reasons: ["two (skipped: needs a second user)"],
  });
  assert.equal(denoCounts("FAILED | 3 passed | 4 failed (15ms)")?.failed, 4);
  assert.equal(denoCounts("error: Type checking failed."), undefined);
});

test("bunCounts() reads the summary and names what was skipped", () => {
  assert.deepEqual(bunCounts(BUN), {
    passed: 11,
    failed: 0,
    skipped: 2,
    reasons: ["two (skipped: needs a second user)", "three"],
  });
  assert.equal(bunCounts(" 1 pass\n 2 fail\n 1 error\nRan 3 tests across 2 files.")?.failed, 3);
  assert.equal(bunCounts(" 1 pass\n 0 fail\n"), undefined, "it died before it had run all files");
});

test("zigCounts() takes every test that neither passed nor was skipped for a failure", () => {
  const { passed, failed, skipped } = zigCounts(ZIG)!;
  assert.deepEqual({ passed, failed, skipped }, { passed: 9, failed: 2, skipped: 1 });
  assert.equal(
    zigCounts("Build Summary: 3/3 steps succeeded; 12/12 tests passed")?.failed,
    0,
  );
  assert.equal(zigCounts("Build Summary: 3/3 steps succeeded"), undefined);
});

test("plainCounts() reads the last line of our own scripts", () => {
  const output = "ok      one\nskipped two: no tool\n9 passed, 9 failed, 9 skipped?\n";
  assert.deepEqual(plainCounts(`${output}1 passed, 2 failed, 3 skipped\n`), {
    passed: 1,
    failed: 2,
    skipped: 3,
    reasons: ["two: no tool"],
  });
  assert.equal(plainCounts(output), undefined);
});

test("worth() counts a crash, an empty run and an unreadable summary as failures", () => {
  assert.equal(worth(denoCounts, true, DENO).failed, 0);
  assert.equal(worth(denoCounts, false, DENO).failed, 1, "all passed, yet it ended badly");
  assert.equal(worth(denoCounts, true, "ok | 0 passed | 0 failed (0ms)").failed, 1);
  assert.equal(worth(bunCounts, true, "nothing to read").failed, 1);
  assert.equal(worth(undefined, true, "").passed, 1);
  assert.equal(worth(undefined, false, "").failed, 1);
});
