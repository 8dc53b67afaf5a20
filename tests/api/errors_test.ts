/** Every way to fail that can be provoked: its code, its words, and that nothing changed. */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { SharedMap, SharedMemoryError } from "../../mod.ts";
import { errnoName } from "../../src/errors.ts";
import { CODECS } from "../support/corpus.ts";
import {
  assertSound,
  content,
  freshAnonymous,
  freshDirectory,
  freshMap,
  freshName,
  NEEDS,
  NO_PERMISSIONS,
  ROOT,
  RUNTIMES,
  SHM,
  startChild,
  startWith,
  testUnless,
  THERE,
  thrown,
  until,
  untyped,
} from "../support/support.ts";

const LONG = { timeout: 60_000 };
// deno-fmt-ignore
const CODES = [
  "NotFound", "Exists", "PermissionDenied", "NoSpace", "TooLarge", "Timeout", "Locked", "Corrupt",
  "Incompatible", "Replaced", "Closed", "ReadOnly", "WriteOnly", "Unsupported", "LibraryLoad",
  "System",
];

test("SharedMemoryError is an Error with a name, a code and a message", (t) => {
  const error = thrown("NotFound", () => SharedMap.open(freshName(t), { mode: "attach" }));
  assert.ok(error instanceof Error && error instanceof SharedMemoryError);
  assert.equal(error.name, "SharedMemoryError");
  assert.ok(CODES.includes(error.code));
  assert.ok(`${error}`.startsWith("SharedMemoryError: "), `${error}`);
  assert.ok(error.stack!.includes("errors_test"), `${error.stack}`);
});

test("the errors of a system are named as that system does", () => {
  assert.equal(errnoName(0), undefined);
  assert.equal(errnoName(2, "linux"), "ENOENT");
  assert.equal(errnoName(54_321, "darwin"), "errno 54321");
  assert.equal(errnoName(5, "win32"), "ERROR_ACCESS_DENIED"); // 5 is EIO elsewhere
  assert.equal(errnoName(54_321, "win32"), "Windows error 54321");
});

test('SharedMemoryError "Incompatible" says what differs', (t) => {
  const map = freshMap(t, { maxBytes: 1 << 20 });
  const attempts: [Parameters<typeof SharedMap.open>[1], RegExp][] = [
    [{ codec: CODECS.json }, /codec/i],
    [{ maxBytes: 1 << 21 }, /maxBytes|1 MiB|1048576/],
  ];
  for (const [options, words] of attempts) {
    const error = thrown("Incompatible", () => SharedMap.open(map.name, options));
    assert.ok(error.message.includes(`"${map.name}"`), error.message);
    assert.match(error.message, words);
  }
  const directory = freshDirectory(t, SHM);
  writeFileSync(join(directory, "text"), "no segment");
  const error = thrown("Incompatible", () => SharedMap.open("text", { directory }));
  assert.ok(error.message.includes(`"text"`), error.message);
});

test('SharedMemoryError "Replaced" and "Closed" name the map', (t) => {
  const map = freshMap(t);
  const { name } = map;
  SharedMap.open(name, { mode: "exclusive" }).close();
  assert.ok(thrown("Replaced", () => map.get("a")).message.includes(`"${name}"`));
  map.close();
  assert.ok(thrown("Closed", () => map.get("a")).message.includes(`"${name}"`));
});

test('SharedMemoryError "NoSpace" at a ceiling gives the numbers, and nothing changed', (t) => {
  const map = freshMap<string>(t, { maxBytes: 512 * 1024 });
  for (let i = 0; i < 50; i += 1) map.set(`key ${i}`, `${i} `.repeat(500));
  const before = content(map);
  const calls: (() => unknown)[] = [
    () => map.set("key 1", "x".repeat(500_000)),
    () => map.set("new", "x".repeat(500_000)),
    () => map.add("new", "x".repeat(500_000)),
    () => map.getOrInsert("new", "x".repeat(500_000)),
    () => map.update("key 1", () => "x".repeat(500_000)),
    () => map.update("new", () => "x".repeat(500_000)),
    () => map.setMany([["new", "x".repeat(500_000)]]),
  ];
  for (const call of calls) {
    const error = thrown("NoSpace", call);
    assert.match(error.message, /^Cannot .*\d+(\.\d+)? [KM]iB/);
    assert.ok(error.message.includes(`"${map.name}"`), error.message);
    assert.deepEqual(content(map), before);
  }
  assert.equal(map.set("key 1", "short").get("key 1"), "short");
  assertSound(map);
});

// A value is an argument, but its limit is the segment's, so the error is of our own class.
test(
  'SharedMemoryError "TooLarge" comes with a value above 1 GiB, and nothing changed',
  LONG,
  (t) => {
    const map = freshMap<unknown>(t).set("key", "old");
    const large = new Uint8Array(2 ** 30 + 1); // untouched pages: it costs no memory
    const calls: (() => unknown)[] = [
      () => map.set("key", large),
      () => map.set("new", large),
      () => map.add("new", large),
      () => map.update("key", () => large),
      () => map.setMany([["a", 1], ["new", large]]),
    ];
    for (const call of calls) {
      const error = thrown("TooLarge", call);
      assert.match(error.message, /1 GiB|1,?073,?741,?824/);
      assert.deepEqual(content(map), [["key", "old"]]);
    }
  },
);

testUnless(
  NEEDS.stopping,
  'SharedMemoryError "Timeout" comes when a stopped process is inside a call',
  LONG,
  async (t) => {
    const map = freshMap<unknown>(t, { timeout: 150 }).set("steady", 1);
    const child = await startWith(t, THERE, map.name);
    child.send("setForever", { id: "map", key: "large", bytes: 64 << 20 });
    await until("the first large value", () => map.has("large"));
    let error: unknown;
    await until("the child to be stopped inside its call", () => {
      child.signalWith("SIGSTOP");
      try {
        map.delete("large");
      } catch (caught) {
        error = caught;
      }
      assert.equal(map.get("steady"), 1, "a reader waits for a stopped writer");
      child.signalWith("SIGCONT");
      return error !== undefined;
    }, 40_000);
    assert.ok(error instanceof SharedMemoryError, `${error}`);
    assert.equal(error.code, "Timeout");
    assert.match(error.message, /150/);
    assert.ok(error.message.includes(`"${map.name}"`), error.message);
    using patient = SharedMap.open(map.name);
    patient.set("stop", 1);
    await child.end();
    assert.equal(patient.delete("large"), true);
  },
);

test('SharedMemoryError "Locked" says that this thread itself is in the way', (t) => {
  const map = freshMap(t);
  using other = SharedMap.open(map.name);
  using _lock = map.lock();
  const why = "this thread holds its lock, by this handle or another, and waiting would not end";
  for (const [action, task] of [["write", () => other.set("a", 1)], ["lock", () => map.lock()]]) {
    const { message } = thrown("Locked", task as () => unknown);
    assert.equal(message, `Cannot ${action} map "${map.name}": ${why}`);
  }
});

/** A copy of the project's sources without its library, or with rubbish in its place. */
function copyOfSources(t: Parameters<typeof freshDirectory>[0], library?: string): string {
  const directory = freshDirectory(t);
  for (const entry of ["mod.ts", "src", "tests", "package.json", "deno.json"]) {
    cpSync(join(ROOT, entry), join(directory, entry), { recursive: true });
  }
  symlinkSync(join(ROOT, "node_modules"), join(directory, "node_modules"));
  if (library !== undefined) {
    mkdirSync(join(directory, "zig-out", "lib"), { recursive: true });
    writeFileSync(join(directory, "zig-out", "lib", "libshmap.so"), library);
  }
  return join(directory, "tests", "support", "child.ts");
}

for (const runtime of RUNTIMES) {
  for (const [what, library] of [["missing", undefined], ["rubbish", "no library"]] as const) {
    const title = `SharedMemoryError "LibraryLoad" comes with a ${what} library in ${runtime}`;
    testUnless(NEEDS.links, title, LONG, async (t) => {
      const file = copyOfSources(t, library);
      const child = await startChild(t, runtime, { file });
      const name = freshName(t);
      for (let i = 0; i < 2; i += 1) {
        const open = child.ask("open", { id: "map", name });
        await assert.rejects(open, { name: "SharedMemoryError", code: "LibraryLoad" });
      }
      await assert.rejects(child.ask("list"), { code: "LibraryLoad" });
      await child.end();
    });
  }

  testUnless(
    NEEDS.shell,
    `SharedMemoryError "System" names the errno when descriptors run out in ${runtime}`,
    LONG,
    async (t) => {
      const wrap = ["sh", "-c", 'ulimit -n 200 && exec "$@"', "sh"];
      const child = await startChild(t, runtime, { wrap });
      const opens = child.ask("openUntilError", {});
      const wanted = { name: "SharedMemoryError", code: "System", errno: "EMFILE" };
      await assert.rejects(opens, wanted);
      await assert.rejects(opens, { message: /EMFILE/ });
    },
  );
}

testUnless(
  NEEDS.bothRuntimes,
  'SharedMemoryError "PermissionDenied" comes with a directory Deno may not use',
  LONG,
  async (t) => {
    const directory = freshDirectory(t, SHM);
    const options = { directory };
    const refused = await startChild(t, "deno");
    const open = refused.ask("open", { id: "map", name: "name", options });
    await assert.rejects(open, { name: "SharedMemoryError", code: "PermissionDenied" });
    const calls = [
      refused.ask("unlinkName", { name: "name", options }),
      refused.ask("list", { options }),
      refused.ask("open", { id: "map", name: "name", options: { directory, readonly: true } }),
    ];
    for (const call of calls) await assert.rejects(call, { code: "PermissionDenied" });
    const permissions = ["--allow-ffi", `--allow-read=${directory}`, `--allow-write=${directory}`];
    const allowed = await startChild(t, "deno", { permissions });
    await allowed.ask("open", { id: "map", name: "name", options });
    await allowed.call("set", "a", 1);
    const half = await startChild(t, "deno", { permissions: permissions.slice(0, 2) });
    const halfOpen = half.ask("open", { id: "map", name: "name", options });
    await assert.rejects(halfOpen, { code: "PermissionDenied" });
    await half.ask("open", { id: "map", name: "name", options: { directory, readonly: true } });
    assert.equal(await half.call("get", "a"), 1);
  },
);

testUnless(
  NEEDS.bothRuntimes,
  "SharedMap works in Deno with --allow-ffi alone, and not without it",
  LONG,
  async (t) => {
    const name = freshName(t);
    const without = await startChild(t, "deno", { permissions: NO_PERMISSIONS });
    await assert.rejects(without.ask("open", { id: "map", name }), { code: "LibraryLoad" });
    const child = await startWith(t, "deno", name);
    await child.call("set", "a", { b: [1] });
    assert.deepEqual(await child.call("get", "a"), { b: [1] });
  },
);

const BAD_KEYS: [unknown, typeof TypeError | typeof RangeError][] = [
  ["", TypeError],
  ["\ud800", TypeError],
  ["a\udc00b", TypeError],
  ["\ude00\ud83d", TypeError],
  ["x".repeat(5000) + "\ud800", TypeError],
  [undefined, TypeError],
  [null, TypeError],
  [1, TypeError],
  [1n, TypeError],
  [true, TypeError],
  [Symbol("s"), TypeError],
  [["a"], TypeError],
  [{}, TypeError],
  [new String("a"), TypeError],
  ["x".repeat(65_536), RangeError],
  ["é".repeat(32_768), RangeError],
  ["☺".repeat(21_846), RangeError],
  ["😀".repeat(16_384), RangeError],
  ["x".repeat(10_000_000), RangeError],
];

const KEYED: Record<string, (map: SharedMap, key: string) => unknown> = {
  get: (map, key) => map.get(key),
  set: (map, key) => map.set(key, 1),
  add: (map, key) => map.add(key, 1),
  has: (map, key) => map.has(key),
  delete: (map, key) => map.delete(key),
  getOrInsert: (map, key) => map.getOrInsert(key, 1),
  getOrInsertComputed: (map, key) => map.getOrInsertComputed(key, () => assert.fail("computed")),
  update: (map, key) => map.update(key, () => assert.fail("called")),
  getMany: (map, key) => map.getMany(["good", key]),
  setMany: (map, key) => map.setMany([["good", 2], [key, 1]]),
};

for (const [method, call] of Object.entries(KEYED)) {
  test(`SharedMap.${method}() refuses bad keys and changes nothing`, (t) => {
    const map = freshMap(t).set("good", 1);
    for (const [key, kind] of BAD_KEYS) {
      assert.throws(() => call(map, untyped(key)), kind, String(key).slice(0, 20));
    }
    assert.deepEqual(content(map), [["good", 1]]);
  });
}

test("SharedMap's functions refuse what is no function, and change nothing", (t) => {
  const map = freshMap(t).set("a", 1);
  const empty = freshMap(t);
  for (const bad of [undefined, null, 1, "f", {}]) {
    const wanted = (what: string, kind: string) => ({
      name: "TypeError",
      message: new RegExp(`^Cannot use .+ as ${what}: it must be ${kind}$`),
    });
    assert.throws(() => map.update("a", untyped(bad)), wanted("fn", "a function"));
    const compute = wanted("compute", "a function");
    for (const key of ["a", "b"]) {
      assert.throws(() => map.getOrInsertComputed(key, untyped(bad)), compute);
    }
    assert.throws(() => map.forEach(untyped(bad)), wanted("fn", "a function"));
    assert.throws(() => empty.forEach(untyped(bad)), wanted("fn", "a function"));
    if (bad === "f") continue; // an iterable of its characters
    assert.throws(() => map.getMany(untyped(bad)), wanted("keys", "an iterable"));
    assert.throws(() => map.setMany(untyped(bad)), wanted("entries", "an iterable"));
  }
  assert.deepEqual(content(map), [["a", 1]]);
});

test("SharedMap.set() refuses a function by its name, if that is a string", (t) => {
  const map = freshMap(t);
  const named = (value: unknown) => Object.defineProperty(() => 1, "name", { value });
  assert.throws(() => map.set("f", named("go")), { message: 'Cannot store function "go"' });
  for (const name of ["", Symbol("s"), { toString: () => assert.fail("called") }, undefined, 7]) {
    assert.throws(() => map.set("f", named(name)), { message: "Cannot store a function" });
  }
});

test("SharedMap.anonymous() and attach() refuse options that make no sense", (t) => {
  const { token } = freshAnonymous(t);
  for (const options of [{ timeout: -1 }, { timeout: NaN }, { codec: {} }, { codec: "json" }]) {
    assert.throws(() => SharedMap.anonymous(untyped(options)), /Error/);
    assert.throws(() => SharedMap.attach(token, untyped(options)), /Error/);
  }
  for (const maxBytes of [0, -1, 1000, NaN, "x"]) {
    assert.throws(() => SharedMap.anonymous({ maxBytes: untyped(maxBytes) }), /Error/);
  }
});

test("SharedMap works through errors of all kinds in a row", (t) => {
  const map = freshMap<unknown>(t, { maxBytes: 512 * 1024 });
  for (let round = 0; round < 200; round += 1) {
    map.set(`key ${round % 10}`, round);
    assert.throws(() => map.set("", 1), TypeError);
    assert.throws(() => map.set("f", () => 1), TypeError);
    assert.throws(() => map.set("f", { f: () => 1 }), TypeError);
    assert.throws(() => map.set("large", "x".repeat(520_000)), SharedMemoryError);
    assert.throws(() =>
      map.update("key 1", () => {
        throw new Error("mine");
      }), /mine/);
    assert.equal(map.get(`key ${round % 10}`), round);
  }
  assert.equal(map.size, 10);
  assertSound(map);
});
