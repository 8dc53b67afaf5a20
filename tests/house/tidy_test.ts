/**
 * The house style, as a test: who may import whom, sizes, names that stay in their place, openings,
 * leftovers. Every check also runs on a planted bad sample, so that it is known to be able to fail.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const GENERATED = "src/ffi/abi.ts";
/** Words in place of an actor, of whom a reader would have to guess who it is. */
const RIDDLES = /\b(?:who|what)ever\b|\b(?:no|some)body\b/gi;
const COLUMNS_MAX = 100;
const FILE_LINES_MAX = 600;
const FUNCTION_LINES_MAX = 70;

/** The names that the module exports. */
const EXPORTED = new Set(
  [...readFileSync(join(ROOT, "mod.ts"), "utf8").matchAll(/^export (?:type )?\{([^}]*)\}/gm)]
    .flatMap(([, names]) => names.match(/\b(?!type\b)\w+/g) ?? []),
);

/**
 * The rooms of the product and, for each, the other rooms and the packages that its files may
 * import. A room is a folder, or a file named here by itself.
 */
const ROOMS: Record<string, string> = {
  "mod.ts": "src src/errors.ts src/lock src/pack src/segment src/values",
  "src": "src/arguments.ts src/lock src/pack src/segment",
  "src/segment":
    "src/arguments.ts src/errors.ts src/ffi src/ffi/abi.ts src/ffi/fields.ts src/lock src/values",
  "src/lock": "src/arguments.ts src/errors.ts src/ffi src/ffi/abi.ts src/ffi/fields.ts",
  "src/values": "src/arguments.ts src/errors.ts src/ffi msgpackr/pack",
  "src/pack": "",
  "src/ffi": "src/errors.ts src/ffi/abi.ts",
  "src/errors.ts": "src/ffi/abi.ts src/ffi/fields.ts",
  "src/arguments.ts": "",
  "src/ffi/abi.ts": "",
  "src/ffi/fields.ts": "src/ffi/abi.ts",

  "zig/root.zig": "zig zig/abi zig/map zig/stripe zig/segment zig/lock zig/region zig/os " +
    "zig/testing",
  "zig": "",
  "zig/abi": "zig zig/map zig/stripe zig/segment zig/lock zig/region zig/os shmap",
  "zig/map": "zig zig/stripe zig/segment zig/lock zig/os",
  "zig/stripe": "zig zig/segment zig/os",
  "zig/segment": "zig zig/lock zig/os",
  "zig/region": "zig zig/segment zig/lock zig/os",
  "zig/lock": "zig zig/os",
  "zig/os": "zig",
};

const ZIG_ROOT = "zig/root.zig";
/** What tests and proofs share: no part of the product. */
const ZIG_TESTING = "zig/testing/";
/** What the benchmarks load in place of the library. */
const BENCH_LIBRARY = "bench/floor.zig";
/** What prints the TypeScript side of the boundary. */
const ZIG_EMIT = "zig/abi/emit.zig";
const ROOTS = ["mod.ts", ZIG_ROOT, ZIG_EMIT];

const TOP_LEVEL = new Set(
  ("deno.json package.json package-lock.json mod.ts src zig build.zig build.zig.zon tests bench " +
    "examples tools docs README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE .ci .git " +
    ".github .gitignore .npmrc node_modules zig-out .zig-cache").split(" "),
);

interface Source {
  path: string;
  text: string;
}

interface Check {
  name: string;
  applies: (path: string) => boolean;
  /** What is wrong with one file. */
  problems: (file: Source) => string[];
  /** A file in which it must find something. */
  bad: Source;
}

const isTypeScript = (path: string) => /\.(ts|mjs)$/.test(path);
const isZig = (path: string) => path.endsWith(".zig");
const isCode = (path: string) => (isTypeScript(path) || isZig(path)) && path !== GENERATED;
const isZigTest = (path: string) => path.startsWith(ZIG_TESTING) || path.endsWith("_test.zig");
const isProduct = (path: string) => /^(mod\.ts$|src\/|zig\/)/.test(path) && !isZigTest(path);
const isMarkdown = (path: string) => path.endsWith(".md");

/** The problem, with its line, wherever `pattern` matches. */
function found(text: string, pattern: RegExp, problem: string): string[] {
  return [...text.matchAll(pattern)].map(({ index, 0: match }) =>
    `${text.slice(0, index).split("\n").length}: ${problem}: ${match.trim()}`
  );
}

/** The text with its comments blanked; strings, where `//` may stand, are kept. */
function withoutComments(text: string): string {
  const token =
    /("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|\/\/[^\n]*|\/\*[^]*?\*\//g;
  return text.replace(token, (match, kept) => kept ?? match.replace(/[^\n]/g, " "));
}

/** What a file imports: paths of the project's own files, the specifier for a package. */
function imports({ path, text }: Source): string[] {
  const code = withoutComments(text).replace(/^test\b[^]*?^}$/gm, ""); // a test uses what it likes
  const specifier = isZig(path)
    ? /@import\("([^"]+)"\)/g
    : /(?:\bfrom|\bimport|\bimport\() *["']([^"']+)["']/g;
  return [...code.matchAll(specifier)].map((match) => match[1])
    .filter((name) => !/^(?:std|builtin|root|node:.*)$/.test(name))
    .map((name) => /\.(?:ts|zig)$/.test(name) ? join(dirname(path), name) : name);
}

/** The room that a file belongs to, or the package of that name. */
function roomOf(path: string): string {
  return path in ROOMS || !path.includes("/") ? path : dirname(path);
}

function foreignImports(file: Source): string[] {
  const room = roomOf(file.path);
  if (!(room in ROOMS)) return [`lies in ${room}, which is no room of the product`];
  const allowed = [room, ...ROOMS[room].split(" ")];
  const isAllowed = (name: string) =>
    // A name that leads out of the rooms is a package.
    allowed.includes(name.includes("/pack") && !name.startsWith("src/") ? name : roomOf(name));
  return imports(file).filter((name) => !isAllowed(name)).map((name) => `may not import ${name}`);
}

/** The files that each file imports. */
function fileArrows(files: Source[]): Map<string, string[]> {
  return new Map(files.map((file) => [file.path, imports(file)]));
}

/** The other rooms that the files of each room import. */
function roomArrows(files: Source[]): Map<string, string[]> {
  const arrows = new Map<string, string[]>();
  for (const file of files) {
    const room = roomOf(file.path);
    const others = imports(file).map(roomOf).filter((other) => other !== room);
    arrows.set(room, [...arrows.get(room) ?? [], ...others]);
  }
  return arrows;
}

/** Those that import each other in a circle, of which one is named with its way round. */
function circles(arrows: Map<string, string[]>): string[] {
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (path: string, way: string[]) => {
    if (way.includes(path)) found.push([...way.slice(way.indexOf(path)), path].join(" -> "));
    if (way.includes(path) || done.has(path)) return;
    for (const next of arrows.get(path) ?? []) visit(next, [...way, path]);
    done.add(path);
  };
  for (const path of arrows.keys()) visit(path, []);
  return found;
}

/**
 * Functions beyond the limit. Formatted code ends one at its own indentation. A Zig function that
 * returns a type holds functions of its own, which count by themselves.
 */
function longFunctions({ path, text }: Source): string[] {
  const opening = isZig(path)
    ? /^(?:(?:pub |export |inline )*fn .*|\)[^;]*|test .*)\{$/
    : /^(?:.*\bfunction\b.*|.*=> |\).*|(?!if|for|while|switch|else|try|catch)[\w #*]+\(.*\).*)\{$/;
  const lines = text.split("\n");
  return lines.flatMap((line, start) => {
    const indent = line.length - line.trimStart().length;
    if (!opening.test(line.trimStart()) || /\) type \{$/.test(line)) return [];
    const end = lines.findIndex((other, index) =>
      index > start && other.startsWith(`${" ".repeat(indent)}}`)
    );
    const length = end - start + 1;
    return length > FUNCTION_LINES_MAX ? [`${start + 1}: a function of ${length} lines`] : [];
  });
}

/** What the module exports whose docstring shows no use. No private file has its functions. */
function exportsWithoutExample({ path, text }: Source): string[] {
  const kinds =
    dirname(path) !== "src" && path !== "src/lock/lock.ts" && path !== "src/pack/pack.ts"
      ? "class|interface|type"
      : "class|function|interface|type";
  const declaration = new RegExp(`^export (?:abstract )?(?:${kinds}) (\\w+)`, "gm");
  return [...text.matchAll(declaration)].flatMap(({ index, 1: name }) => {
    const before = text.slice(0, index);
    const docstring = before.endsWith(" */\n") ? before.slice(before.lastIndexOf("/**")) : "";
    const isShown = !EXPORTED.has(name) || docstring.includes("@example");
    return isShown ? [] : [`${name} has no example`];
  });
}

/** Long lines, but for the title of a test, which is a sentence. */
function longLines({ text }: Source): string[] {
  return text.split("\n").flatMap((line, index) =>
    [...line].length > COLUMNS_MAX && !/^ *(?:test\()?"/.test(line)
      ? [`${index + 1}: more than ${COLUMNS_MAX} columns`]
      : []
  );
}

/** Top headings outside fenced code. */
function titles(text: string): number {
  return [...text.replace(/^```[^]*?^```/gm, "").matchAll(/^# /gm)].length;
}

const CHECKS: Check[] = [
  {
    name: "a TypeScript file imports what the row of its room allows",
    applies: (path) => isTypeScript(path) && isProduct(path),
    problems: foreignImports,
    bad: { path: "src/ffi/native.ts", text: 'import { Mmap } from "../mmap.ts";\n' },
  },
  {
    name: "a Zig file imports what the row of its room allows",
    applies: (path) => isZig(path) && isProduct(path),
    problems: foreignImports,
    bad: { path: "zig/stripe/heap.zig", text: 'const map = @import("../map/map.zig");\n' },
  },
  {
    name: "files stay under 600 lines",
    applies: isCode,
    problems: ({ text }) => {
      const count = text.split("\n").length - 1;
      return count > FILE_LINES_MAX ? [`${count} lines`] : [];
    },
    bad: { path: "src/errors.ts", text: "\n".repeat(FILE_LINES_MAX + 1) },
  },
  {
    name: "functions stay under 70 lines",
    applies: isCode,
    problems: longFunctions,
    bad: {
      path: "src/errors.ts",
      text: `  static #open(\n    a: number,\n  ): void {\n${"    a;\n".repeat(70)}  }\n`,
    },
  },
  {
    name: "functions in Zig stay under 70 lines",
    applies: isZig,
    problems: longFunctions,
    bad: {
      path: "zig/map/map.zig",
      text: `    pub fn get(a: u32) !u32 {\n${"        _ = a;\n".repeat(70)}    }\n`,
    },
  },
  {
    name: "lines stay within 100 columns",
    applies: isCode,
    problems: longLines,
    bad: { path: "zig/map/map.zig", text: `//! ${"x".repeat(COLUMNS_MAX)}\n` },
  },
  {
    name: "a sentence names its actor",
    applies: () => true,
    problems: ({ text }) => found(text, RIDDLES, "does not say which process, handle or caller"),
    bad: { path: "zig/map/map.zig", text: `//! Some${"body"} else stores it.\n` },
  },
  {
    name: "only src/ffi/deno.ts and src/ffi/bun.ts name a runtime",
    applies: (path) =>
      isProduct(path) && isTypeScript(path) && !/^src\/ffi\/(?:deno|bun)\.ts$/.test(path),
    problems: ({ text }) =>
      found(withoutComments(text), /\b(?:Deno|Bun)\b|\bbun:/g, "names a runtime"),
    bad: { path: "src/ffi/load.ts", text: 'const os = Deno.build.os; // "\n' },
  },
  {
    name: "every store to shared memory goes through zig/atomics.zig",
    applies: (path) => isZig(path) && isProduct(path) && path !== "zig/atomics.zig",
    problems: ({ text }) =>
      found(
        withoutComments(text),
        /@(?:atomicStore|atomicRmw|cmpxchg\w+)\b.*|\bheader\(\)\.[\w.]+ = .*/g,
        "stores by itself",
      ),
    bad: { path: "zig/map/map.zig", text: "@atomicStore(u64, &stripe.live, 1, .release);\n" },
  },
  {
    // JavaScriptCore takes such a number for a float, and with it every index that it is added to.
    name: "no length is read as an unsigned word",
    applies: (path) => /^(?:mod\.ts|src\/|bench\/)/.test(path) && isTypeScript(path),
    problems: ({ text }) => found(withoutComments(text), /\bgetUint32\b.*/g, "reads unsigned"),
    bad: { path: "src/segment/records.ts", text: "const length = view.getUint32(at, true);\n" },
  },
  {
    name: "only zig/abi exports functions",
    applies: (path) => isZig(path) && !path.startsWith("zig/abi/") && path !== BENCH_LIBRARY,
    problems: ({ text }) => found(text, /\bexport fn\b.*|@export\b.*/g, "exports"),
    bad: { path: "zig/map/map.zig", text: "pub export fn shm_map_get() i32 {\n" },
  },
  {
    name: "a file opens with what it is for",
    applies: isCode,
    problems: ({ path, text }) => {
      const start = isZig(path) ? "//! " : "/** ";
      return /^(?:\/\/! |\/\*\*[ \n])/.test(text) ? [] : [`does not open with ${start}`];
    },
    bad: { path: "src/errors.ts", text: "// Errors.\n" },
  },
  {
    name: "what the module exports has an example, which `deno test --doc` runs",
    applies: (path) => path.startsWith("src/"),
    problems: exportsWithoutExample,
    bad: { path: "src/pack/pack.ts", text: "/** Packs. */\nexport function pack(): void {}\n" },
  },
  {
    name: "nothing is left to do without an issue",
    applies: (path) => isCode(path) || isMarkdown(path),
    problems: ({ text }) => found(text, /\b(?:TOD[O](?!\(#\d+\))|FIXM[E]|XX[X])\b/g, "unfinished"),
    bad: { path: "zig/map/map.zig", text: `// ${"TO"}DO: repair\n` },
  },
  {
    name: "every test runs, or its name says why not",
    applies: (path) => path.startsWith("tests/"),
    problems: ({ path, text }) => [
      ...found(text, /\.(?:only|todo)\(|\b(?:only|todo): /g, "not the whole suite"),
      ...(["tests/support/support.ts", "tests/support/emulated.ts"].includes(path)
        ? []
        : found(text, /\bskip: .*|\.skip\(/g, "use testUnless()")),
    ],
    bad: { path: "tests/api/map_test.ts", text: `test${".only"}("get", () => {});\n` },
  },
  {
    name: "a page has one title",
    applies: isMarkdown,
    problems: ({ text }) => titles(text) === 1 ? [] : [`${titles(text)} titles`],
    bad: { path: "docs/design.md", text: "# One\n```sh\n# a comment\n```\n# Two\n" },
  },
  {
    name: "the product prints nothing",
    applies: (path) => isProduct(path) && path !== ZIG_EMIT,
    problems: ({ text }) =>
      found(
        withoutComments(text),
        /\bconsole\.|\bdebugger\b|\bstd\.(?:debug\.print|log)\b/g,
        "prints",
      ),
    bad: { path: "src/lock/lock.ts", text: 'console.log("here");\n' },
  },
  {
    name: "no host of a registry and no path of one machine is written down",
    applies: () => true,
    problems: ({ text }) =>
      found(
        text,
        /registry\.[\w-]+\.\w+|(?<![\w.~/-])\/(?:work|home|root)\/[\w.-]+/g,
        "names a place",
      ),
    bad: { path: ".npmrc", text: `registry=https://${"registry"}.example.org/\n` },
  },
  {
    name: "file names are words in lower case",
    applies: (path) => isCode(path),
    problems: ({ path }) => /\/_?[a-z][a-z0-9_]*\.\w+$|^\w+\.\w+$/.test(path) ? [] : ["its name"],
    bad: { path: "src/SharedMap.ts", text: "" },
  },
];

/** Every file of the project, without what is installed, built or kept by git. */
function projectFiles(): Source[] {
  const entries = readdirSync(ROOT, { withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => entry.name)
    .filter((name) => name !== ".git"); // a file in a work tree of its own
  for (const entry of entries) {
    if (!entry.isDirectory() || /^(?:\.git|\.zig-cache|zig-out|node_modules)$/.test(entry.name)) {
      continue;
    }
    for (
      const below of readdirSync(join(ROOT, entry.name), { recursive: true, withFileTypes: true })
    ) {
      if (!below.isFile() || below.parentPath.includes("node_modules")) continue;
      paths.push(join(below.parentPath, below.name).slice(ROOT.length + 1));
    }
  }
  return paths.sort().map((path) => ({ path, text: readFileSync(join(ROOT, path), "utf8") }));
}

/** The files of the product that nothing leads to from the roots. */
function unreferenced(files: Source[]): string[] {
  const left = new Map(
    files.filter(({ path }) => isProduct(path)).map((file) => [file.path, file]),
  );
  const queue = [...ROOTS];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const file = left.get(path);
    if (!file) continue;
    left.delete(path);
    queue.push(...imports(file));
  }
  return [...left.keys()];
}

const FILES = projectFiles();

for (const { name, applies, problems, bad } of CHECKS) {
  test(`${name}`, () => {
    const all = FILES.filter(({ path }) => applies(path))
      .flatMap((file) => problems(file).map((problem) => `${file.path}: ${problem}`));
    assert.deepEqual(all, []);
  });

  test(`${name}: the check finds a planted fault`, () => {
    assert.ok(applies(bad.path), "it would not look at the sample");
    assert.notDeepEqual(problems(bad), []);
  });
}

test("every room of the table has files", () => {
  const rooms = new Set(FILES.map(({ path }) => roomOf(path)));
  assert.deepEqual(Object.keys(ROOMS).filter((room) => !rooms.has(room)), []);
});

test("no files import each other in a circle", () => {
  const product = FILES.filter(({ path }) =>
    isProduct(path) && (isZig(path) || isTypeScript(path))
  );
  assert.deepEqual(circles(fileArrows(product)), []);
  const back = { path: "src/errors.ts", text: 'import { Mmap } from "./mmap.ts";\n' };
  const planted = product.map((file) => file.path === back.path ? back : file);
  assert.notDeepEqual(circles(fileArrows(planted)), [], "a planted circle is found");
});

test("no rooms of the TypeScript side import each other in a circle", () => {
  const product = FILES.filter(({ path }) => isProduct(path) && isTypeScript(path));
  assert.deepEqual(circles(roomArrows(product)), []);
  const back = { path: "src/lock/lock.ts", text: 'import { MAP } from "../segment/options.ts";\n' };
  const planted = product.map((file) => file.path === back.path ? back : file);
  assert.deepEqual(circles(fileArrows(planted)), [], "the files of the sample make no circle");
  assert.notDeepEqual(circles(roomArrows(planted)), [], "a planted circle of rooms is found");
});

test("every file of the product is used", () => {
  assert.deepEqual(unreferenced(FILES), []);
  const stray = { path: "zig/stray.zig", text: "" };
  assert.deepEqual(unreferenced([...FILES, stray]), [stray.path], "a planted stray file is found");
});

test("the Zig tests take in every file", () => {
  const root = FILES.find(({ path }) => path === ZIG_ROOT)!;
  const taken = [...root.text.matchAll(/@import\("([^"]+)"\)/g)].map(([, name]) => `zig/${name}`);
  const files = FILES.map(({ path }) => path)
    .filter((path) => isZig(path) && path.startsWith("zig/"));
  const left = files.filter((path) => !taken.includes(path));
  assert.deepEqual(left.sort(), [ZIG_EMIT, ZIG_ROOT]);
});

test("the top level has what the house has, and nothing else", () => {
  assert.deepEqual(readdirSync(ROOT).filter((name) => !TOP_LEVEL.has(name)), []);
});
