/** A SharedMap beside a `Map`: its types, its iterators, how it prints. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { inspect } from "node:util";
import { Mmap, SharedMap, SharedValue } from "../../mod.ts";
import {
  executable,
  freshAnonymous,
  freshMap,
  freshName,
  leftTo,
  ROOT,
  type Runtime,
  RUNTIMES,
  testUnless,
} from "../support/support.ts";
import { mapUses, optionUses } from "../support/type_uses.ts";

const LONG = { timeout: 120_000 };

test("SharedMap does for functions that want a Map what a Map does", (t) => {
  const map = freshAnonymous<number>(t).set("one", 1).set("three", 3);
  assert.deepEqual(mapUses(map), [
    true,
    [3, 5],
    [3],
    1,
    "SharedMap",
    4,
    true,
    5, // "three" has 4 now, and "one" was set anew
    [1],
    undefined,
    false,
  ]);
  assert.equal(optionUses({}), 4);
});

const TYPES = "SharedMap's types compile with tsc and exactOptionalPropertyTypes";

testUnless(leftTo("bun"), TYPES, LONG, (t) => {
  const directory = mkdtempSync(join(tmpdir(), "shmap-tsc-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const compilerOptions = {
    strict: true,
    exactOptionalPropertyTypes: true,
    noEmit: true,
    target: "esnext",
    module: "nodenext",
    lib: ["esnext", "dom"],
    allowImportingTsExtensions: true,
    types: ["node"],
    typeRoots: [join(ROOT, "node_modules/@types")],
    skipLibCheck: true,
  };
  const files = [join(ROOT, "tests/support/type_uses.ts")];
  const project = join(directory, "tsconfig.json");
  writeFileSync(project, JSON.stringify({ compilerOptions, files }));
  const compiler = join(ROOT, "node_modules/typescript/lib/tsc.js");
  const { status, stdout, stderr } = spawnSync("node", [compiler, "-p", project], {
    encoding: "utf8",
  });
  assert.equal(status, 0, `${stdout}${stderr}`);
});

test("SharedMap.entries and [Symbol.iterator] are one function, as in Map", (t) => {
  const map = freshAnonymous(t);
  assert.equal(map.entries, map[Symbol.iterator]);
  const { writable, enumerable, configurable } = Object.getOwnPropertyDescriptor(
    SharedMap.prototype,
    Symbol.iterator,
  )!;
  assert.deepEqual([writable, enumerable, configurable], [true, false, true]);
});

test("SharedMap's iterators have the methods of iterators", (t) => {
  const map = freshAnonymous<number>(t).set("a", 1).set("b", 2);
  assert.deepEqual(map.keys().map((key) => key + key).toArray().sort(), ["aa", "bb"]);
  assert.equal(map.values().reduce((sum, value) => sum + value), 3);
  assert.deepEqual(map.entries().drop(1).toArray().length, 1);
  assert.ok(map[Symbol.iterator]().some(([key]) => key === "b"));
  assert.ok(map.keys() instanceof Iterator);
});

test("SharedMap is called by its name, and shows none of its insides", (t) => {
  const map = freshAnonymous(t);
  assert.equal(Object.prototype.toString.call(map), "[object SharedMap]");
  assert.equal(`${map}`, "[object SharedMap]");
  assert.deepEqual(Reflect.ownKeys(map), []);
  assert.deepEqual({ ...map }, {});
});

test("SharedMap.delete() takes no notice of what follows the key", (t) => {
  const map = freshAnonymous<number>(t).set("a", 1).set("b", 2).set("c", 3);
  ["a", "b", "none"].forEach(map.delete, map);
  assert.deepEqual([...map], [["c", 3]]);
});

test("SharedMap shows a key that is deleted while it iterates, or not, and fails never", (t) => {
  const map = freshAnonymous<number>(t);
  for (let i = 0; i < 1000; i += 1) map.set(`key ${i}`, i);
  const seen = new Set<string>();
  for (const [key, value] of map) {
    assert.equal(key, `key ${value}`);
    assert.ok(!seen.has(key), key);
    seen.add(key);
    map.clear();
  }
  assert.ok(seen.size >= 1 && seen.size <= 1000, `${seen.size}`);
});

test("SharedMap prints its name, its size and its first entries", (t) => {
  const map = freshMap<unknown>(t);
  const head = (size: number) => `SharedMap(${size}) "${map.name}"`;
  assert.equal(inspect(map), `${head(0)} {}`);
  map.set("a", { b: [1] });
  assert.equal(inspect(map), `${head(1)} { 'a' => { b: [ 1 ] } }`);
  assert.match(inspect({ deep: { map } }), /SharedMap\(1\) "[^"]+" \{ 'a' => (?:\{|\[Object)/);
  for (let i = 0; i < 11; i += 1) map.set(`key ${i}`, "x".repeat(20));
  const text = inspect(map);
  assert.ok(text.startsWith(`${head(12)} {\n  `), text);
  assert.ok(text.endsWith(",\n  ... 2 more items\n}"), text);
  assert.equal(text.match(/ => /g)!.length, 10);
  assert.equal(inspect(freshAnonymous(t).set("a", 1)), "SharedMap(1) { 'a' => 1 }");
  assert.equal(inspect(SharedMap.prototype).includes("{}"), true);
});

test("SharedMap prints why it has nothing to show", (t) => {
  const map = freshMap(t);
  SharedMap.open(map.name!, { mode: "exclusive" }).close();
  assert.equal(inspect(map), "SharedMap (Replaced)");
  map.close();
  assert.equal(inspect(map), "SharedMap (Closed)");
});

test("SharedValue and Mmap print as what they are", (t) => {
  using value = SharedValue.open<unknown>(freshName(t, "value"));
  assert.equal(inspect(value), `SharedValue "${value.name}" { value: undefined }`);
  value.set([1]);
  assert.equal(inspect(value), `SharedValue "${value.name}" { value: [ 1 ] }`);
  using region = Mmap.anonymous(7);
  assert.equal(inspect(region), "Mmap(7) {}");
  value.close();
  region.close();
  assert.deepEqual([inspect(value), inspect(region)], ["SharedValue (Closed)", "Mmap (Closed)"]);
});

/** A program that prints a map. */
const PRINTS = `
  import { SharedMap } from ${JSON.stringify(join(ROOT, "mod.ts"))};
  console.log(SharedMap.anonymous().set("a", 1), { in: SharedMap.anonymous() });
`;

for (const runtime of RUNTIMES) {
  test(`SharedMap prints as itself in console.log of ${runtime}`, LONG, () => {
    const line = evaluate(runtime);
    const { stdout, stderr } = spawnSync(line[0], line.slice(1), {
      encoding: "utf8",
      cwd: ROOT,
      env: { ...process.env, NO_COLOR: "1" },
    });
    const shown = stdout.replace(/\s+/g, " ").replace(", }", " }").trim();
    assert.equal(shown, "SharedMap(1) { 'a' => 1 } { in: SharedMap(0) {} }", stderr);
  });
}

function evaluate(runtime: Runtime): string[] {
  const flags = runtime === "deno" ? ["eval", "--ext=ts", "--no-check"] : ["-e"];
  return [executable(runtime), ...flags, PRINTS];
}
