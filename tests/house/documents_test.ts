/**
 * What the pages of the project must be, without running anything: short where a reader begins,
 * with commands, files and links that exist. Every check also finds a planted fault.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  headingsOf,
  linksOf,
  namedFiles,
  namedScripts,
  type Page,
  programsOf,
  readPages,
  scriptsOf,
} from "../support/pages.ts";
import { ROOT } from "../support/platform.ts";

const README_LINES_MAX = 250;

const PAGES = readPages();
const MANIFEST = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));

function commandsOf(page: Page): string[] {
  return scriptsOf(page).flatMap(({ commands }) => commands);
}

function tooLong({ text }: Page): string[] {
  const count = text.split("\n").length - 1;
  return count > README_LINES_MAX ? [`${count} lines`] : [];
}

function missingScripts(page: Page): string[] {
  const files = programsOf(page).map(({ file }) => file);
  return commandsOf(page).flatMap(namedScripts)
    .filter((name) => !(name in MANIFEST.scripts) && !files.includes(`${name}.ts`))
    .map((name) => `no script ${name}`);
}

/** Files a page names that neither the project has nor the programs of the page are. */
function missingFiles(page: Page): string[] {
  const own = programsOf(page).map(({ file }) => file);
  const readme = programsOf(PAGES[0]).map(({ file }) => file);
  return commandsOf(page).flatMap(namedFiles)
    .filter((file) => ![...own, ...readme].includes(file) && !existsSync(join(ROOT, file)))
    .map((file) => `no file ${file}`);
}

function brokenLinks(page: Page): string[] {
  return linksOf(page).flatMap(({ file, heading }) => {
    const path = join(ROOT, file);
    if (!existsSync(path)) return [`no ${file}`];
    if (heading === undefined) return [];
    const text = file === page.path ? page.text : readFileSync(path, "utf8");
    return headingsOf(text).includes(heading) ? [] : [`no heading #${heading} in ${file}`];
  });
}

/** Programs that nothing runs: the one that they say starts them does not. */
function orphans(page: Page): string[] {
  const programs = programsOf(page);
  return programs.filter(({ starter }) => starter !== undefined)
    .filter(({ file, starter }) =>
      !programs.some((other) => other.file === starter && other.code.includes(file))
    ).map(({ file, starter }) => `${starter} does not start ${file}`);
}

const CHECKS = [
  {
    name: `the README has ${README_LINES_MAX} lines at most`,
    applies: (path: string) => path === "README.md",
    problems: tooLong,
    bad: "\n".repeat(README_LINES_MAX + 1),
  },
  {
    name: "a sentence names its actor",
    applies: () => true,
    problems: ({ text }: Page): string[] =>
      [...text.matchAll(/\b(?:who|what)ever\b|\b(?:no|some)body\b/gi)].map(([word]) => word),
    bad: `Some${"body"} else holds it.\n`,
  },
  {
    name: "a page names only scripts that package.json has",
    applies: () => true,
    problems: missingScripts,
    bad: "Run `npm run\nunheard-of` first.\n",
  },
  {
    name: "a page names only files that there are, in commands",
    applies: () => true,
    problems: missingFiles,
    bad: "```sh\nnode tools/unheard_of.mjs --all\n```\n",
  },
  {
    name: "a link leads to a page and a heading that there are",
    applies: () => true,
    problems: brokenLinks,
    bad: "# Title\nSee [this](#unheard-of).\n",
  },
  {
    name: "a program that another one starts is started by it",
    applies: () => true,
    problems: orphans,
    bad: "```ts\n// child.ts\n// parent.ts starts it\n```\n",
  },
];

for (const { name, applies, problems, bad } of CHECKS) {
  test(name, () => {
    const all = PAGES.filter(({ path }) => applies(path))
      .flatMap((page) => problems(page).map((problem) => `${page.path}: ${problem}`));
    assert.deepEqual(all, []);
  });

  test(`${name}: the check finds a planted fault`, () => {
    assert.notDeepEqual(problems({ path: "README.md", text: bad }), []);
  });
}

/** The pages that no chain of links leads to from the README. */
function unreachable(pages: readonly Page[]): string[] {
  const left = new Map(pages.map((page) => [page.path, page]));
  const queue = ["README.md"];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const page = left.get(path);
    if (page === undefined) continue;
    left.delete(path);
    queue.push(...linksOf(page).map(({ file }) => file));
  }
  return [...left.keys()];
}

test("the README leads to every page", () => {
  assert.deepEqual(unreachable(PAGES), []);
  const stray = { path: "docs/stray.md", text: "# Stray\n" };
  assert.deepEqual(unreachable([...PAGES, stray]), [stray.path], "a planted page is found");
});

test("the first screen of the README says how to try it", () => {
  const screen = PAGES[0].text.split("\n").slice(0, 25).join("\n");
  for (const command of ["npm start", "npm test"]) assert.ok(screen.includes(command), command);
});
