/**
 * The behaviour that the superseded modules have, collected as numbered cases: each is a test that
 * bears its number, or stands in `docs/coming-from-perl.md` with the reason why it does not apply.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { ROOT } from "../support/support.ts";

/** Where the suites of the seed lie. */
const HERE = join(ROOT, "tests", "perl");

/** Every number that was given; `A` the map, `B` the region, `C` the value. */
const CASES = [
  ...numbers("A", 1, 25),
  ...numbers("A", 30, 42),
  ...numbers("A", 50, 73),
  "A-57b",
  ...numbers("B", 1, 37),
  ...numbers("B", 40, 46),
  ...numbers("B", 50, 52),
  ...numbers("B", 60, 92),
  ...numbers("C", 1, 5),
  ...numbers("C", 10, 30),
  "C-25b",
];

function numbers(part: string, from: number, to: number): string[] {
  return Array.from({ length: to - from + 1 }, (_, i) => {
    return `${part}-${String(from + i).padStart(2, "0")}`;
  });
}

/** The case numbers a text names: `B-13`, `B-13 to B-17`, `B-13…17`, `B-13…B-17`. */
function casesIn(text: string): Set<string> {
  const found = new Set<string>();
  const pattern = /\b([ABC])-(\d\d)(b?)(?:(?:…| to )(?:\1-)?(\d\d))?/g;
  for (const [, part, from, letter, to] of text.matchAll(pattern)) {
    if (letter) found.add(`${part}-${from}${letter}`);
    else for (const one of numbers(part, Number(from), Number(to ?? from))) found.add(one);
  }
  return found;
}

/** The names of the tests in a file, which stand in quotes behind `test` and its like. */
function testNames(file: string): string {
  const text = readFileSync(join(HERE, file), "utf8");
  return [...text.matchAll(/(["'`])((?:\\.|(?!\1).)*\b[ABC]-\d\d(?:\\.|(?!\1).)*)\1/g)]
    .map((match) => match[2]).join("\n");
}

const files = readdirSync(HERE).filter((file) => /^seed_.*test\.ts$/.test(file))
  .filter((file) => file !== "seed_cases_test.ts");
const tested = casesIn(files.map(testNames).join("\n"));

/** The page for users of those modules: tables of what each case became, and why some did not. */
const [translated, excused] = readFileSync(join(ROOT, "docs", "coming-from-perl.md"), "utf8")
  .split("## Cases that do not apply");
const explained = casesIn(excused);

test("every case of the seed is a test, or its absence is explained", () => {
  assert.deepEqual(CASES.filter((one) => !tested.has(one) && !explained.has(one)), []);
});

test("no test bears the number of a case that there is not", () => {
  assert.deepEqual([...tested].filter((one) => !CASES.includes(one)), []);
});

test("docs/coming-from-perl.md names every case in its tables", () => {
  const named = casesIn(translated);
  assert.deepEqual(CASES.filter((one) => !named.has(one)), []);
});

test("the numbers of a text: the check finds what is missing", () => {
  assert.deepEqual([...casesIn("A-01, B-02 to B-04 C-25b C-10…12")], [
    "A-01",
    "B-02",
    "B-03",
    "B-04",
    "C-25b",
    "C-10",
    "C-11",
    "C-12",
  ]);
});
