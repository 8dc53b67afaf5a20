/** How segments appear, are found, replaced, listed and removed; who may; and what stays behind. */
import assert from "node:assert/strict";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { SharedMap, SharedValue } from "../../mod.ts";
import { CODECS } from "../support/corpus.ts";
import {
  assertSound,
  atEnd,
  content,
  freshDirectory,
  freshMap,
  freshName,
  IS_WINDOWS,
  isArgumentError,
  NEEDS,
  RUNTIMES,
  scaled,
  SHM,
  startChild,
  startWith,
  temporaries,
  testUnless,
  THERE,
  thrown,
  until,
  untyped,
} from "../support/support.ts";

const LONG = { timeout: 60_000 };

test('SharedMap.open() in mode create makes a map, and "Exists" when there is one', (t) => {
  const name = freshName(t);
  using first = SharedMap.open(name, { mode: "create" });
  first.set("a", 1);
  const { message } = thrown("Exists", () => SharedMap.open(name, { mode: "create" }));
  assert.match(message, /^Cannot (open|create)/);
  assert.ok(message.includes(`"${name}"`), message);
  assert.deepEqual(content(first), [["a", 1]]);
  assert.deepEqual(temporaries(name), []);
});

test('SharedMap.open() in mode attach finds a map, and "NotFound" when there is none', (t) => {
  const name = freshName(t);
  const { message } = thrown("NotFound", () => SharedMap.open(name, { mode: "attach" }));
  assert.match(message, /^Cannot (open|attach)/);
  assert.ok(message.includes(`"${name}"`), message);
  assert.equal(existsSync(join(SHM, name)), false);
  using first = SharedMap.open(name);
  using second = SharedMap.open(name, { mode: "attach" });
  assert.equal(first.set("a", 1).size, second.size);
});

test("SharedMap.open() in mode exclusive displaces a map, and its handles notice", (t) => {
  const name = freshName(t);
  using old = SharedMap.open(name);
  old.set("a", 1);
  using reader = SharedMap.open(name, { readonly: true });
  const iterator = old.keys();
  using fresh = SharedMap.open(name, { mode: "exclusive" });
  assert.equal(fresh.size, 0);
  const calls: (() => unknown)[] = [
    () => old.get("a"),
    () => old.has("a"),
    () => old.size,
    () => old.set("a", 2),
    () => old.add("b", 2),
    () => old.update("a", () => 2),
    () => old.delete("a"),
    () => old.clear(),
    () => old.getMany(["a"]),
    () => old.setMany([["a", 2]]),
    () => [...old],
    () => [...iterator],
    () => old.toObject(),
    () => reader.get("a"),
    () => [...reader],
  ];
  for (const call of calls) {
    const error = thrown("Replaced", call);
    assert.ok(error.message.includes(name), error.message);
  }
  assert.deepEqual(content(fresh), []);
  assert.deepEqual(temporaries(name), []);
});

test("SharedMap.open() in mode exclusive leaves other maps alone", (t) => {
  const [one, two] = [freshMap(t), freshMap(t)];
  one.set("a", 1);
  using _fresh = SharedMap.open(two.name, { mode: "exclusive" });
  assert.equal(one.get("a"), 1);
});

const isDisplaced = (file: string) =>
  /^\.name\.~(?!2{16}|0{15}[0-3]|0{14}ff|0123456789abcdef)[0-9a-f]{16}$/.test(file);

/** The temporary names that every open knows, and some of those that only a listing finds. */
const KNOWN = [0, 1, 2, 3].map((number) => `${number}`.padStart(16, "0"));
const RANDOM = ["0123456789abcdef", "00000000000000ff", "1111111111111111", "2222222222222222"];

/** Ways to come across what a killed process left under a temporary name. */
const REAPERS: [string, string[], (directory: string) => void][] = [
  ["open()", KNOWN, (directory) => SharedMap.open("name", { directory }).close()],
  [
    "open() in mode exclusive",
    KNOWN,
    (directory) => SharedMap.open("name", { directory, mode: "exclusive" }).close(),
  ],
  ["list()", KNOWN, (directory) => void SharedMap.list({ directory })],
  ["list(), of random names,", RANDOM, (directory) => void SharedMap.list({ directory })],
];

for (const [call, names, reap] of REAPERS) {
  test(`SharedMap.${call} removes what killed processes left, and nothing else`, (t) => {
    const [complete, empty, displaced, foreign] = names.map((name) => `.name.~${name}`);
    const directory = freshDirectory(t, SHM);
    const at = (file: string) => join(directory, file);
    SharedMap.open("name", { directory }).set("a", 1).close();
    copyFileSync(at("name"), at(complete));
    writeFileSync(at(empty), "");
    SharedMap.open("used", { directory, mode: "create" }).close();
    using used = SharedMap.open("used", { directory });
    renameSync(at("used"), at(displaced));
    const others = [".name.~0123456789ABCDEE", ".name.~01", ".other.swp", ".~0123456789abcdef"];
    for (const file of others) writeFileSync(at(file), "");
    writeFileSync(at(foreign), "a user's work");
    reap(directory);
    const left = [...others, foreign, "name"];
    // Windows removes no file in use, so a displaced one keeps such a name until it is idle.
    const found = readdirSync(directory).filter((file) => !IS_WINDOWS || !isDisplaced(file));
    assert.deepEqual(found.sort(), left.sort());
    thrown("Replaced", () => used.get("a"));
  });
}

/** Makes the time of the last read old enough for the next one to be noted, and gives it. */
function forgetReads(directory: string): number {
  utimesSync(directory, 1, statSync(directory).mtimeMs / 1000);
  return statSync(directory).atimeMs;
}

testUnless(
  NEEDS.accessTimes,
  "SharedMap.open() reads no directory, however many files lie beside",
  {},
  (t) => {
    const directory = freshDirectory(t, SHM);
    for (let i = 0; i < 1000; i += 1) writeFileSync(join(directory, `beside ${i}`), "");
    forgetReads(directory);
    assert.deepEqual(SharedMap.list({ directory }), []);
    assert.ok(statSync(directory).atimeMs > 2000, "a list is a read");
    const calls: (() => void)[] = [
      () => SharedMap.open("name", { directory }).close(),
      () => SharedMap.open("name", { directory, mode: "attach" }).close(),
      () => SharedMap.open("name", { directory, readonly: true }).close(),
      () => void thrown("Exists", () => SharedMap.open("name", { directory, mode: "create" })),
      () => SharedMap.attach(SharedMap.open("name", { directory }).token).close(),
      () => void SharedMap.unlink("name", { directory }),
      () => void thrown("NotFound", () => SharedMap.open("name", { directory, mode: "attach" })),
      () => void SharedMap.open("name", { directory, mode: "exclusive" }).unlink(),
      () => SharedValue.open("name", { directory }).close(),
    ];
    for (const call of calls) {
      const before = forgetReads(directory);
      call();
      assert.equal(statSync(directory).atimeMs, before, `${call}`);
    }
  },
);

test("SharedMap.open() may be repeated in mode exclusive as often as one likes", (t) => {
  const name = freshName(t);
  let last: SharedMap | undefined;
  for (let i = 0; i < 50; i += 1) {
    const map = SharedMap.open(name, { mode: "exclusive" }).set("i", i);
    if (last) thrown("Replaced", () => last!.get("i"));
    last?.close();
    last = map;
  }
  assert.equal(last!.get("i"), 49);
  last!.close();
  assert.deepEqual(temporaries(name), []);
});

test("SharedMap.unlink() removes the name and says whether there was one", (t) => {
  const map = freshMap(t).set("a", 1);
  assert.equal(SharedMap.unlink(map.name), true);
  assert.equal(existsSync(join(SHM, map.name)), false);
  assert.equal(SharedMap.unlink(map.name), false);
  thrown("NotFound", () => SharedMap.open(map.name, { mode: "attach" }));
});

test("SharedMap.unlink() leaves attached handles at work on the old memory", (t) => {
  const map = freshMap(t).set("a", 1);
  using other = SharedMap.open(map.name);
  using reader = SharedMap.open(map.name, { readonly: true });
  assert.equal(map.unlink(), true);
  assert.equal(map.unlink(), false);
  for (let i = 0; i < 3000; i += 1) map.set(`key ${i}`, i);
  assert.deepEqual([other.size, reader.get("key 2999")], [3001, 2999]);
  using fresh = SharedMap.open(map.name, { mode: "create" });
  assert.equal(fresh.size, 0);
  other.set("a", 2);
  assert.deepEqual([map.get("a"), fresh.has("a")], [2, false]);
  assert.equal(other.unlink(), false, "the name leads to another map by now");
  assert.equal(fresh.unlink(), true);
});

test("SharedMap.unlink() of an anonymous map is false", () => {
  using map = SharedMap.anonymous();
  assert.equal(map.unlink(), false);
  assert.equal(map.set("a", 1).get("a"), 1);
});

test("SharedMap.unlink() by one runtime is seen by the other", LONG, async (t) => {
  const map = freshMap(t).set("a", 1);
  const child = await startWith(t, THERE, map.name);
  assert.equal(await child.ask("unlinkName", { name: map.name }), true);
  assert.equal(await child.call("get", "a"), 1);
  await child.call("set", "b", 2);
  assert.equal(map.get("b"), 2);
  assert.equal(SharedMap.unlink(map.name), false);
});

test("SharedMap.list() describes the segments of a directory and nothing else", LONG, async (t) => {
  const directory = freshDirectory(t, SHM);
  const before = Date.now();
  using used = SharedMap.open("used", { directory });
  used.set("a", 1).set("b", 2);
  SharedMap.open("idle", { directory }).close();
  writeFileSync(join(directory, "foreign"), "not a segment".repeat(1000));
  writeFileSync(join(directory, "empty"), "");
  mkdirSync(join(directory, "folder"));
  if (!NEEDS.links) symlinkSync("used", join(directory, "link"));
  if (!NEEDS.fifos) spawnSync("mkfifo", [join(directory, "pipe")]);
  const infos = SharedMap.list({ directory }).sort((a, b) => a.name < b.name ? -1 : 1);
  assert.deepEqual(infos.map((info) => info.name), ["idle", "used"]);
  const [idle, info] = infos;
  assert.deepEqual([info.kind, info.entries, info.inUse, info.locked], ["map", 2, true, false]);
  assert.deepEqual([idle.kind, idle.entries, idle.inUse, idle.locked], ["map", 0, false, false]);
  if (process.getuid) assert.equal(info.owner, process.getuid());
  assert.ok(info.created instanceof Date);
  assert.ok(info.created.getTime() >= before - 2000 && info.created.getTime() <= Date.now() + 2000);
  assert.ok(info.bytes >= 4096 && info.bytes <= 262_144, `${info.bytes}`);
  const options = { directory, readonly: true };
  const reader = await startChild(t, THERE, { permissions: ["-A"] });
  await reader.ask("open", { id: "map", name: "idle", options });
  assert.equal(SharedMap.list({ directory }).every((one) => one.inUse), true);
  await reader.kill();
  assert.equal(SharedMap.list({ directory }).find((one) => one.name === "idle")!.inUse, false);
});

test("SharedMap.list() of the default directory finds a map by its name", (t) => {
  const name = freshName(t);
  const map = SharedMap.open(name);
  const found = () => SharedMap.list().filter((info) => info.name === name);
  assert.deepEqual(found().map((info) => info.inUse), [true]);
  map.close();
  assert.deepEqual(found().map((info) => info.inUse), [false]);
  SharedMap.unlink(name);
  assert.deepEqual(found(), []);
});

for (const umask of [0o000, 0o022, 0o077, 0o777, 0o123]) {
  testUnless(
    NEEDS.modes,
    `SharedMap.open() sets permissions exactly under umask 0o${umask.toString(8)}`,
    {},
    (t) => {
      const before = process.umask(umask);
      try {
        for (const permissions of [undefined, 0o600, 0o640, 0o666, 0o644, 0o620]) {
          for (const mode of ["create", "exclusive"] as const) {
            using map = freshMap(t, { mode, permissions });
            const bits = statSync(join(SHM, map.name)).mode & 0o7777;
            assert.equal(bits.toString(8), (permissions ?? 0o600).toString(8));
          }
        }
      } finally {
        process.umask(before);
      }
    },
  );
}

testUnless(NEEDS.modes, "SharedMap.open() attaches without touching the permissions", {}, (t) => {
  const map = freshMap(t, { permissions: 0o640 });
  using _second = SharedMap.open(map.name, { permissions: 0o600 });
  assert.equal(statSync(join(SHM, map.name)).mode & 0o777, 0o640);
});

test("SharedMap.open() takes names of the rule, and the file has exactly that name", (t) => {
  const stem = freshName(t);
  for (const end of ["", "A", ".z", "_", "-", "..", "9", "~".replace("~", ".x-y_Z")]) {
    const name = stem + end;
    atEnd(t, () => SharedMap.unlink(name));
    using map = SharedMap.open(name, { mode: "create" });
    assert.equal(map.name, name);
    assert.ok(existsSync(join(SHM, name)), name);
  }
  const longest = stem.padEnd(200, "x");
  atEnd(t, () => SharedMap.unlink(longest));
  using map = SharedMap.open(longest, { mode: "create" });
  assert.equal(map.set("a", 1).name, longest);
});

test("SharedMap.open() refuses names against the rule, before anything is created", (t) => {
  const directory = freshDirectory(t);
  const names = [
    "",
    ".",
    "..",
    ".x",
    "a b",
    "a/b",
    "/a",
    "é",
    "a\0b",
    "a~",
    "a:b",
    "x".repeat(201),
    "\ud800",
  ];
  for (const name of [...names, 7, null, undefined, {}, ["a"]]) {
    for (const mode of ["shared", "create", "attach", "exclusive"] as const) {
      assert.throws(() => SharedMap.open(untyped(name), { mode, directory }), isArgumentError);
    }
    assert.throws(() => SharedMap.unlink(untyped(name), { directory }), isArgumentError);
  }
  assert.deepEqual(readdirSync(directory), []);
});

test("SharedMap.open() refuses options that make no sense, before anything is created", (t) => {
  const directory = freshDirectory(t);
  const bad: Record<string, unknown>[] = [
    { readonly: true, mode: "create" },
    { readonly: true, mode: "exclusive" },
    { readonly: true, mode: "shared" },
    { permissions: -1 },
    { permissions: 1.5 },
    { permissions: "600" },
    { permissions: 0o200000 },
    { timeout: -1 },
    { timeout: NaN },
    { timeout: "5" },
    { maxBytes: 0 },
    { maxBytes: -1 },
    { maxBytes: 256 * 1024 - 1 },
    { maxBytes: NaN },
    { maxBytes: "1" },
    { maxBytes: 300_000.5 },
    { lock: "other" },
    { codec: {} },
    { codec: "json" },
    { codec: { ...CODECS.json, id: 7 } },
    { codec: { ...CODECS.json, encode: 1 } },
    { directory: 7 },
  ];
  for (const options of bad) {
    const call = () => SharedMap.open("name", { directory, ...untyped(options) });
    assert.throws(call, isArgumentError, JSON.stringify(options));
  }
  assert.deepEqual(readdirSync(directory), []);
});

test('SharedMap.open() read-only of a missing name is "NotFound" and creates nothing', (t) => {
  const name = freshName(t);
  thrown("NotFound", () => SharedMap.open(name, { readonly: true }));
  assert.equal(existsSync(join(SHM, name)), false);
  const map = freshMap(t).set("a", 1);
  using reader = SharedMap.open(map.name, { readonly: true, mode: "attach" });
  assert.equal(reader.get("a"), 1);
});

test("SharedMap.open() read-only needs no write permission and changes no byte", (t) => {
  const directory = freshDirectory(t, SHM);
  const path = join(directory, "name");
  using map = SharedMap.open("name", { directory });
  map.setMany(Array.from({ length: 500 }, (_, i) => [`key ${i}`, i]));
  map.close();
  chmodSync(path, 0o400);
  const before = readFileSync(path);
  {
    using reader = SharedMap.open("name", { directory, readonly: true });
    assert.deepEqual([reader.size, reader.get("key 7"), [...reader].length], [500, 7, 500]);
    assert.equal(Object.keys(reader.toObject()).length, 500);
    assertSound(reader);
  }
  assert.deepEqual(readFileSync(path), before);
});

for (const parent of [undefined, SHM]) {
  test(`SharedMap.open() keeps a map in a directory ${parent ? "in memory" : "on disk"}`, (t) => {
    const directory = freshDirectory(t, parent);
    const other = freshDirectory(t, parent);
    {
      using map = SharedMap.open("name", { directory, mode: "create" });
      for (let i = 0; i < 5000; i += 1) map.set(`key ${i}`, `value ${i}`);
    }
    assert.deepEqual(readdirSync(directory), ["name"]);
    renameSync(join(directory, "name"), join(other, "moved"));
    using moved = SharedMap.open("moved", { directory: other, mode: "attach" });
    assert.deepEqual([moved.size, moved.get("key 4999")], [5000, "value 4999"]);
    thrown("NotFound", () => SharedMap.open("name", { directory, mode: "attach" }));
    moved.close();
    assert.equal(SharedMap.unlink("moved", { directory: other }), true);
    assert.deepEqual(readdirSync(other), []);
  });
}

test('SharedMap.open() in a missing directory is "NotFound" and makes none', (t) => {
  const directory = join(freshDirectory(t), "missing");
  for (const mode of ["shared", "create", "attach", "exclusive"] as const) {
    const { message } = thrown("NotFound", () => SharedMap.open("name", { directory, mode }));
    assert.ok(message.includes(`: there is no directory ${directory} `), message);
  }
  assert.equal(existsSync(directory), false);
});

test("SharedMap.open() of one name in two directories gives two maps", (t) => {
  const directory = freshDirectory(t, SHM);
  const map = freshMap(t);
  using other = SharedMap.open(map.name, { directory });
  map.set("a", 1);
  assert.equal(other.size, 0);
});

testUnless(
  NEEDS.proc,
  "SharedMap.open() leaves no trace of handles that were closed",
  LONG,
  (t) => {
    const name = freshName(t);
    const traces = () => ({
      descriptors: readdirSync("/proc/self/fd").length,
      mappings:
        readFileSync("/proc/self/maps", "utf8").split("\n").filter((line) => line.includes(SHM))
          .length,
    });
    using kept = SharedMap.open(name);
    const cycle = () => {
      SharedMap.open(name).set("a", 1).close();
      SharedMap.open(name, { readonly: true }).close();
      SharedMap.anonymous().set("a", 1).close();
      assert.throws(() => SharedMap.open(name, { mode: "create" }));
      assert.throws(() => SharedMap.open(name, { codec: CODECS.json }));
    };
    for (let i = 0; i < 5; i += 1) cycle();
    const before = traces();
    for (let i = 0; i < Math.max(100, scaled(1000)); i += 1) cycle();
    const { descriptors, mappings } = traces();
    assert.ok(descriptors <= before.descriptors, `${before.descriptors}, then ${descriptors}`);
    assert.ok(mappings <= before.mappings, `${before.mappings}, then ${mappings}`);
    assert.equal(kept.get("a"), 1);
  },
);

test("SharedMap.open() works with many handles at once in one process", LONG, (t) => {
  const name = freshName(t);
  const maps = Array.from({ length: 100 }, () => SharedMap.open<number>(name));
  maps.forEach((map, i) => map.set(`key ${i}`, i));
  assert.ok(maps.every((map) => map.size === 100));
  maps.filter((_, i) => i % 2).forEach((map) => map.close());
  assert.ok(maps.filter((_, i) => i % 2 === 0).every((map) => map.get("key 99") === 99));
  for (const map of maps) map.close();
});

testUnless(
  NEEDS.proc,
  "SharedMap closes handles that were forgotten when they are collected",
  LONG,
  async (t) => {
    const name = freshName(t);
    using kept = SharedMap.open<number>(name);
    const count = () => readdirSync("/proc/self/fd").length;
    const before = count();
    for (let i = 0; i < 100; i += 1) SharedMap.open<number>(name).set(`key ${i}`, i);
    assert.ok(count() > before);
    await until("a collection", () => {
      Array.from({ length: 50 }, () => new Array(50_000).fill({}));
      return count() <= before + 10;
    }, 40_000);
    assert.equal(kept.size, 100);
  },
);

test("SharedMap.list() shows that a killed process no longer uses its map", LONG, async (t) => {
  await Promise.all(RUNTIMES.map(async (runtime) => {
    const name = freshName(t);
    const child = await startWith(t, runtime, name);
    const inUse = () => SharedMap.list().find((info) => info.name === name)!.inUse;
    assert.equal(inUse(), true);
    await child.kill();
    assert.equal(inUse(), false);
  }));
});

testUnless(
  NEEDS.removal,
  "a map whose file another program removed says so, in stats(), unlink() and token",
  {},
  (t) => {
    const map = freshMap(t).set("a", 1);
    using reader = SharedMap.open(map.name!, { readonly: true });
    const value = SharedValue.open(freshName(t, "value"));
    t.after(() => value.close());
    const all = [map, reader, value];
    assert.deepEqual(all.map((each) => each.stats().state), ["live", "live", "live"]);
    for (const each of [map, value]) rmSync(join(SHM, each.name!));
    for (const each of all) {
      assert.equal(each.stats().state, "unlinked");
      const { message } = thrown("NotFound", () => each.token);
      assert.match(message, /its name no longer leads to it, for its file was removed or replaced/);
    }
    using fresh = SharedMap.open<unknown>(map.name!);
    fresh.set("a", "of another map");
    assert.deepEqual([map.get("a"), reader.get("a")], [1, 1]);
    assert.deepEqual([map, reader, fresh].map((each) => each.stats().state), [
      "unlinked",
      "unlinked",
      "live",
    ]);
    assert.deepEqual([map.unlink(), value.unlink()], [false, false]);
    assert.equal(SharedMap.attach(fresh.token).get("a"), "of another map");
    const listed = SharedMap.list().filter(({ name }) => name === map.name);
    assert.deepEqual(listed.map(({ entries }) => entries), [1]);
    assert.equal(fresh.unlink(), true);
    assert.equal(fresh.stats().state, "unlinked");
    thrown("NotFound", () => fresh.token);
    map.set("b", 2); // it goes on
    assert.equal(reader.get("b"), 2);
  },
);

test("a map that was replaced has no token to give", (t) => {
  const map = freshMap(t);
  using fresh = SharedMap.open(map.name!, { mode: "exclusive" });
  thrown("NotFound", () => map.token);
  thrown("Replaced", () => map.stats());
  assert.equal(fresh.stats().state, "live");
});
