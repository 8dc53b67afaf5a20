/**
 * The runner's arithmetic: what it reads in the reports of suites, and what it calls a failure; and
 * how it runs a program.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { honest, junitCounts, plainCounts, sum, zigCounts } from "../../tools/counts.mjs";
import { run } from "../../tools/process.mjs";
import {
  executable,
  freshDirectory,
  isLiving,
  NEEDS,
  ROOT,
  RUNTIMES,
  testUnless,
  until,
} from "../support/support.ts";
import type { Runtime, TestContext } from "../support/support.ts";

const LONG = { timeout: 60_000 };

const REPORT = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="some tests" tests="4" failures="1" errors="0" time="0.032">
  <testsuite name="./tests/a_test.ts" tests="4" failures="1" errors="0" time="0.032">
    <testcase name="one" classname="./tests/a_test.ts" time="0.002" line="3" col="1">
    </testcase>
    <testcase name="two" classname="./tests/a_test.ts" time="0.007" line="4" col="1">
      <failure message="a &lt;skipped/&gt; b">at line 4</failure>
    </testcase>
    <testcase name="three (skipped: x &amp; &#34;y&#x22;)" time="0"><skipped /></testcase>
    <testcase name="four" time="0.001" assertions="0" />
  </testsuite>
</testsuites>
`;

/** A suite with a test of each kind, and what a runtime's report says of it. */
const SUITE = `import { test } from "node:test";
test("passes", () => {});
test("fails with <b> & \\"c\\"", () => { throw new Error("</testcase>"); });
test("left out (skipped: <a> & \\"b\\")", { ${"skip"}: true }, () => {});
`;

function reportOf(t: TestContext, runtime: Runtime, suite: string) {
  const parent = join(ROOT, ".zig-cache"); // where both runtimes look for tests
  mkdirSync(parent, { recursive: true });
  const directory = freshDirectory(t, parent);
  const file = join(directory, "planted_test.ts");
  const path = join(directory, "report.xml");
  writeFileSync(file, suite);
  const flags = runtime === "deno"
    ? ["-A", "--no-check", "--no-config", `--junit-path=${path}`]
    : ["--reporter=junit", `--reporter-outfile=${path}`];
  return run([executable(runtime), "test", ...flags, file], { cwd: directory })
    .then(({ isOk }) => {
      const report = existsSync(path) ? readFileSync(path, "utf8") : "";
      return { report, isOk, counts: honest(junitCounts(report), isOk) };
    });
}

test("junitCounts() adds up a report and names what was skipped", () => {
  assert.deepEqual(junitCounts(REPORT), {
    passed: 2,
    failed: 1,
    skipped: 1,
    reasons: ['three (skipped: x & "y")'],
  });
});

test("junitCounts() does not count a report that is cut short, empty, garbled or contradicts itself", () => {
  for (const end of [0, 1, 100, REPORT.indexOf('"four"'), REPORT.length - 4]) {
    assert.equal(junitCounts(REPORT.slice(0, end)), undefined, `cut at ${end}`);
  }
  assert.equal(junitCounts("ok | 3 passed | 0 failed (10ms)"), undefined);
  assert.equal(junitCounts(REPORT.replace('tests="4"', 'tests="5"')), undefined, "one is missing");
  assert.equal(junitCounts(REPORT.replace('failures="1"', 'failures="0"')), undefined);
  assert.equal(junitCounts(REPORT.replace("<failure", "<failed")), undefined);
  assert.equal(junitCounts(REPORT.replace("<testcase name=", "<testcas name=")), undefined);
});

for (const runtime of RUNTIMES) {
  test(`junitCounts() reads what ${runtime} reports`, LONG, async (t) => {
    const { counts, isOk } = await reportOf(t, runtime, SUITE);
    assert.equal(isOk, false);
    assert.deepEqual(counts, {
      passed: 1,
      failed: 1,
      skipped: 1,
      reasons: ['left out (skipped: <a> & "b")'],
    });
  });

  test(`a suite that crashes, ends early or has no test fails on ${runtime}`, LONG, async (t) => {
    const crash = 'test("crashes", () => process.kill(process.pid, "SIGKILL"));\n';
    const planted = [
      `import process from "node:process";\n${SUITE}${crash}`,
      `import process from "node:process";\n${SUITE}test("ends", () => process.exit(0));\n`,
      "export {};\n",
      'throw new Error("no suite");\n',
      "not TypeScript\n",
    ];
    for (const suite of planted) {
      const { counts, report } = await reportOf(t, runtime, suite);
      assert.ok(counts.failed > 0, `${suite}\n${report}`);
    }
  });
}

test("zigCounts() reads the last words of a program of tests", () => {
  const output = "1/3 map.test.one...OK\n2/3 map.test.two...SKIP\n3/3 map.test.three...FAIL (no)\n";
  assert.deepEqual(zigCounts(`${output}1 passed; 1 skipped; 1 failed.\n`), {
    passed: 1,
    failed: 1,
    skipped: 1,
    reasons: ["map.test.two"],
  });
  assert.equal(zigCounts("All 12 tests passed.\n")?.passed, 12);
  assert.equal(zigCounts(output), undefined, "it died before its end");
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

test("honest() counts a bad end, an empty run and an unreadable report as failures", () => {
  const passed = { passed: 2, failed: 0, skipped: 0, reasons: [] };
  assert.equal(honest(passed, true).failed, 0);
  assert.equal(honest(passed, false).failed, 1, "all passed, yet it ended badly");
  assert.equal(honest({ ...passed, passed: 0 }, true).failed, 1);
  assert.equal(honest({ ...passed, failed: 3 }, false).failed, 3);
  assert.equal(honest(undefined, true).failed, 1);
  assert.deepEqual(sum([passed, honest(undefined, true)]), { passed: 2, failed: 1, skipped: 0 });
});

test("run() says how a program ended and all that it said", async () => {
  const script = "console.log('out'); console.error('err'); process.exit(3)";
  const ended = await run([process.execPath, ...evaluate(script)]);
  const { isOk, status, stdout, stderr, how } = ended;
  assert.deepEqual({ isOk, status, stdout, stderr, how }, {
    isOk: false,
    status: 3,
    stdout: "out\n",
    stderr: "err\n",
    how: "ended with 3",
  });
  const missing = await run(["no-such-program-anywhere"]);
  assert.equal(missing.isOk, false);
  assert.match(missing.how, /cannot be started/);
  assert.equal((await run(["cat"], { input: "handed on" })).stdout, "handed on");
});

testUnless(
  NEEDS.shell,
  "run() ends a program that takes too long, with what it started",
  {},
  async () => {
    const script = "sleep 300 & echo $!; exec sleep 300";
    const ended = await run(["sh", "-c", script], { limitMs: 300 });
    assert.deepEqual([ended.isOk, ended.isLate], [false, true]);
    assert.match(ended.how, /stopped after 0.3 s/);
    await until("the end of what it started", () => !isLiving(Number(ended.stdout)));
  },
);

test("no tool imports anything of the tests", () => {
  const tools = readdirSync(join(ROOT, "tools"), { recursive: true }).map(String)
    .filter((file) => file.endsWith(".mjs"));
  assert.ok(tools.length > 5);
  for (const file of tools) {
    assert.doesNotMatch(
      readFileSync(join(ROOT, "tools", file), "utf8"),
      /from "[./]+\/tests\//,
      file,
    );
  }
});

/** The arguments with which this runtime runs a line of a program. */
function evaluate(script: string): string[] {
  const code = `import process from "node:process"; ${script}`;
  return "Deno" in globalThis ? ["eval", code] : ["-e", code];
}
