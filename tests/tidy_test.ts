/**
 * The house style, as a test: who may import whom, sizes, names that stay in their place, openings,
 * leftovers. Every check also runs on a planted bad sample, so that it is known to be able to fail.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const GENERATED = "src/_abi.ts";
const COLUMNS_MAX = 100;
const FILE_LINES_MAX = 600;
const FUNCTION_LINES_MAX = 70;

/** The names that the module exports. */
const EXPORTED = new Set(
  [...readFileSync(join(ROOT, "mod.ts"), "utf8").matchAll(/^export (?:type )?\{([^}]*)\}/gm)]
    .flatMap(([, names]) => names.match(/\b(?!type\b)\w+/g) ?? []),
);

/** Which project files and packages each TypeScript module of the product may import. */
const TYPESCRIPT_IMPORTS: Record<string, string> = {
  "mod.ts": "shared_map shared_value mmap lock pack errors _shared_object",
  "src/shared_map.ts": "_shared_object _entries _segment _values errors",
  "src/shared_value.ts": "_shared_object _entries _segment _values errors",
  "src/mmap.ts": "_region lock pack",
  "src/lock.ts": "_native _options errors",
  "src/pack.ts": "_packer _unpacker _template",
  "src/errors.ts": "_abi",
  "src/_shared_object.ts": "_segment lock",
  "src/_entries.ts": "_records _segment _values errors",
  "src/_records.ts": "_segment _values",
  "src/_segment.ts": "_options _native lock errors",
  "src/_region.ts": "_options _native lock errors",
  "src/_options.ts": "_native errors",
  "src/_values.ts": "_structures errors",
  "src/_structures.ts": "msgpackr/pack",
  "src/_packer.ts": "_template _characters",
  "src/_unpacker.ts": "_template _characters",
  "src/_template.ts": "",
  "src/_characters.ts": "",
  "src/_native.ts": "_abi _backend _library _ffi_deno _ffi_bun errors",
  "src/_library.ts": "_abi _backend _cache_file _embedded _memory_file errors",
  "src/_embedded.ts": "",
  "src/_memory_file.ts": "_backend",
  "src/_cache_file.ts": "_backend",
  "src/_ffi_deno.ts": "_backend",
  "src/_ffi_bun.ts": "_backend",
  "src/_backend.ts": "",
  "src/_abi.ts": "",
};

/** Which files of the library each Zig file may import; the standard library is open to all. */
const ZIG_IMPORTS: Record<string, string> = {
  "zig/abi.zig": "boundary handles map put region gather inspect segment directory os status",
  "zig/boundary.zig":
    "handles lifetime map region inspect segment directory user_lock layout os status",
  "zig/handles.zig": "map region os status",
  "zig/lifetime.zig": "handles os",
  "zig/status.zig": "",
  "zig/map.zig": "operation put table hash space recovery segment user_lock layout crash os status",
  "zig/operation.zig":
    "map put table hash heap space recovery stripe_lock user_lock layout crash status",
  "zig/put.zig": "map operation table heap recovery stripe_lock layout crash",
  "zig/gather.zig": "map table layout crash os status",
  "zig/inspect.zig": "map gather recovery space pool segment range_lock layout crash os status",
  "zig/recovery.zig": "table hash heap pool layout crash",
  "zig/table.zig": "layout crash",
  "zig/hash.zig": "",
  "zig/heap.zig": "layout crash",
  "zig/pool.zig": "layout crash",
  "zig/space.zig": "heap hash pool recovery segment layout crash os status",
  "zig/directory.zig": "segment temporary range_lock layout crash os status",
  "zig/segment.zig": "stripe_lock range_lock temporary layout crash os status",
  "zig/region.zig": "segment raw_file user_lock range_lock temporary layout os status",
  "zig/temporary.zig": "range_lock os status",
  "zig/raw_file.zig": "os status",
  "zig/user_lock.zig": "range_lock layout crash os status",
  "zig/stripe_lock.zig": "range_lock layout os status",
  "zig/range_lock.zig": "os status",
  "zig/layout.zig": "",
  "zig/os.zig": "status os/common os/linux os/linux_process os/linux_region os/macos " +
    "os/macos_process os/macos_region os/windows os/windows_process os/windows_region",
  "zig/os/common.zig": "status",
  "zig/os/linux.zig": "os/common os/posix status",
  "zig/os/linux_process.zig": "os/common os/linux os/posix status",
  "zig/os/linux_region.zig": "os/common os/linux os/linux_process os/posix status",
  "zig/os/macos.zig": "os/common os/posix status",
  "zig/os/macos_process.zig": "os/common os/posix",
  "zig/os/macos_region.zig": "os/common os/macos os/posix status",
  "zig/os/posix.zig": "os/common status",
  "zig/os/windows.zig": "os/common os/windows_api os/windows_memory os/windows_owner status",
  "zig/os/windows_api.zig": "",
  "zig/os/windows_memory.zig": "os/common os/windows_api status",
  "zig/os/windows_owner.zig": "os/windows_api",
  "zig/os/windows_process.zig": "os/common os/windows_api os/windows_owner",
  "zig/os/windows_region.zig": "os/common os/windows os/windows_api os/windows_memory status",
  "zig/crash.zig": "",
  "zig/emit_abi.zig": "abi layout status",
  "zig/peer.zig": "abi",
};

const ZIG_TESTS = "zig/tests.zig";
/** What the benchmarks load in place of the library. */
const BENCH_LIBRARY = "bench/floor.zig";
/** What the proofs import the library by. */
const ZIG_INTERNALS = "zig/internals.zig";
const ROOTS = ["mod.ts", "zig/abi.zig", "zig/emit_abi.zig", "zig/peer.zig"];

const TOP_LEVEL = new Set(
  ("deno.json package.json package-lock.json mod.ts src zig build.zig build.zig.zon tests bench " +
    "examples tools docs README.md CHANGELOG.md CONTRIBUTING.md LICENSE .ci .git .github " +
    ".gitignore .npmrc node_modules zig-out .zig-cache").split(" "),
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
const isZigTest = (path: string) =>
  path === ZIG_TESTS || path === ZIG_INTERNALS || path.endsWith("_test.zig");
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

/** A Zig file as the tables name it: its path below `zig`, without the ending. */
function beside(path: string, name: string): string {
  const top = `/${path.split("/")[0]}/`;
  const { pathname } = new URL(name, `file:///${path}`);
  return pathname.replace(top, "").replace(/\.zig$/, "");
}

/** What a file imports: a bare name for a file beside it, the specifier for a package. */
function imports({ path, text }: Source): string[] {
  const code = withoutComments(text);
  if (isZig(path)) {
    const shipped = code.replace(/^test\b[^]*?^}$/gm, ""); // a test may use what it likes
    return [...shipped.matchAll(/@import\("([^"]+)"\)/g)].map((match) => match[1])
      .filter((name) => !["std", "builtin", "root"].includes(name))
      .map((name) => name.endsWith(".zig") ? beside(path, name) : name);
  }
  const specifier = /(?:\bfrom|\bimport|\bimport\() *["']([^"']+)["']/g;
  return [...code.matchAll(specifier)].map((match) => match[1])
    .filter((name) => !name.startsWith("node:"))
    .map((name) => name.replace(/^\.\/(?:src\/)?(.*)\.ts$/, "$1"));
}

function foreignImports(table: Record<string, string>, file: Source): string[] {
  if (!(file.path in table)) return ["has no row in the import table"];
  const allowed = table[file.path].split(" ");
  return imports(file).filter((name) => !allowed.includes(name))
    .map((name) => `may not import ${name}`);
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
  const kinds = path.startsWith("src/_") ? "class|interface|type" : "class|function|interface|type";
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
    name: "TypeScript modules import what their row allows",
    applies: (path) => isTypeScript(path) && isProduct(path),
    problems: (file) => foreignImports(TYPESCRIPT_IMPORTS, file),
    bad: { path: "src/errors.ts", text: 'import { native } from "./_native.ts";\n' },
  },
  {
    name: "Zig files import what their row allows",
    applies: (path) => isZig(path) && isProduct(path),
    problems: (file) => foreignImports(ZIG_IMPORTS, file),
    bad: { path: "zig/layout.zig", text: 'const map = @import("map.zig");\n' },
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
      path: "zig/map.zig",
      text: `    pub fn get(a: u32) !u32 {\n${"        _ = a;\n".repeat(70)}    }\n`,
    },
  },
  {
    name: "lines stay within 100 columns",
    applies: isCode,
    problems: longLines,
    bad: { path: "zig/map.zig", text: `//! ${"x".repeat(COLUMNS_MAX)}\n` },
  },
  {
    name: "only src/_ffi_*.ts names a runtime",
    applies: (path) => isProduct(path) && isTypeScript(path) && !path.startsWith("src/_ffi_"),
    problems: ({ text }) =>
      found(withoutComments(text), /\b(?:Deno|Bun)\b|\bbun:/g, "names a runtime"),
    bad: { path: "src/_library.ts", text: 'const os = Deno.build.os; // "\n' },
  },
  {
    name: "every store to shared memory goes through zig/crash.zig",
    applies: (path) => isZig(path) && isProduct(path) && path !== "zig/crash.zig",
    problems: ({ text }) =>
      found(
        withoutComments(text),
        /@(?:atomicStore|atomicRmw|cmpxchg\w+)\b.*|\bheader\(\)\.[\w.]+ = .*/g,
        "stores by itself",
      ),
    bad: { path: "zig/map.zig", text: "@atomicStore(u64, &stripe.live, 1, .release);\n" },
  },
  {
    name: "only zig/abi.zig exports functions",
    applies: (path) => isZig(path) && path !== "zig/abi.zig" && path !== BENCH_LIBRARY,
    problems: ({ text }) => found(text, /\bexport fn\b.*|@export\b.*/g, "exports"),
    bad: { path: "zig/map.zig", text: "pub export fn shm_map_get() i32 {\n" },
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
    bad: { path: "src/pack.ts", text: "/** Packs. */\nexport function pack(): void {}\n" },
  },
  {
    name: "nothing is left to do without an issue",
    applies: (path) => isCode(path) || isMarkdown(path),
    problems: ({ text }) => found(text, /\b(?:TOD[O](?!\(#\d+\))|FIXM[E]|XX[X])\b/g, "unfinished"),
    bad: { path: "zig/map.zig", text: `// ${"TO"}DO: repair\n` },
  },
  {
    name: "every test runs, or its name says why not",
    applies: (path) => path.startsWith("tests/"),
    problems: ({ path, text }) => [
      ...found(text, /\.(?:only|todo)\(|\b(?:only|todo): /g, "not the whole suite"),
      ...(["tests/_support.ts", "tests/_emulated.ts"].includes(path)
        ? []
        : found(text, /\bskip: .*|\.skip\(/g, "use testUnless()")),
    ],
    bad: { path: "tests/map_test.ts", text: `test${".only"}("get", () => {});\n` },
  },
  {
    name: "a page has one title",
    applies: isMarkdown,
    problems: ({ text }) => titles(text) === 1 ? [] : [`${titles(text)} titles`],
    bad: { path: "docs/design.md", text: "# One\n```sh\n# a comment\n```\n# Two\n" },
  },
  {
    name: "the product prints nothing",
    applies: (path) => isProduct(path) && path !== "zig/emit_abi.zig",
    problems: ({ text }) =>
      found(
        withoutComments(text),
        /\bconsole\.|\bdebugger\b|\bstd\.(?:debug\.print|log)\b/g,
        "prints",
      ),
    bad: { path: "src/lock.ts", text: 'console.log("here");\n' },
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
    for (const name of imports(file)) {
      queue.push(isZig(path) ? `zig/${name}.zig` : `src/${name}.ts`);
    }
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

test("the import tables have a row for existing files only", () => {
  const paths = new Set(FILES.map(({ path }) => path));
  const rows = [...Object.keys(TYPESCRIPT_IMPORTS), ...Object.keys(ZIG_IMPORTS)];
  assert.deepEqual(rows.filter((row) => !paths.has(row)), []);
});

test("every file of the product is used", () => {
  assert.deepEqual(unreferenced(FILES), []);
  const stray = { path: "zig/stray.zig", text: "" };
  assert.deepEqual(unreferenced([...FILES, stray]), [stray.path], "a planted stray file is found");
});

test("the Zig tests take in every file", () => {
  const tests = FILES.find(({ path }) => path === ZIG_TESTS);
  const files = FILES.filter(({ path }) => isZig(path) && path.startsWith("zig/"))
    .map(({ path }) => path.replace(/^zig\/(.*)\.zig$/, "$1"));
  const left = files.filter((name) => !imports(tests!).includes(name));
  assert.deepEqual(left.sort(), ["abi", "emit_abi", "internals", "peer", "tests"]);
});

test("the top level has what the house has, and nothing else", () => {
  assert.deepEqual(readdirSync(ROOT).filter((name) => !TOP_LEVEL.has(name)), []);
});
