/**
 * What the documentation and the source of the Perl module IPC::Mmap say, case by case, by the
 * numbers of the list these cases were collected in; its own suite is in `seed_mmap_test.ts`.
 */
import assert from "node:assert/strict";
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import * as shmap from "../../mod.ts";
import { Mmap } from "../../mod.ts";
import {
  anonymous,
  childWith,
  freshFile,
  opened,
  READ_WRITE,
  readOnly,
  suite,
  TEMPLATE,
  text,
  VALUES,
} from "../support/regions.ts";
import {
  atEnd,
  HERE,
  isArgumentError,
  NEEDS,
  RUNTIMES,
  startChild,
  testUnless,
  THERE,
  thrown,
  untyped,
} from "../support/support.ts";

const LONG = { timeout: 60_000 };

test("B-60 open() without options is all of the file, to read, shared", (t) => {
  const file = freshFile(t);
  writeFileSync(file, "0123456789");
  const region = opened(t, file);
  assert.equal(region.length, 10);
  thrown("ReadOnly", () => region.write("x"));
  opened(t, file, READ_WRITE).write("x");
  assert.equal(text(region), "x123456789");
});

// Unlike the seed, nothing is created where nothing can be written to it.
test("B-61 open() creates a missing file when it writes and has a length", (t) => {
  const file = freshFile(t);
  for (
    const options of [
      {},
      { length: 10 },
      READ_WRITE,
      { length: 10, sharing: "private", ...READ_WRITE } as const,
    ]
  ) {
    thrown("NotFound", () => Mmap.open(file, options));
    assert.equal(existsSync(file), false);
  }
  assert.equal(text(opened(t, file, { length: 10, ...READ_WRITE })), "\0".repeat(10));
  assert.equal(readFileSync(file).length, 10);
});

test("B-62 open() makes a short file longer, with zeros", (t) => {
  const file = freshFile(t);
  writeFileSync(file, "abc");
  const region = opened(t, file, { length: 10_000, ...READ_WRITE });
  assert.equal(text(region), `abc${"\0".repeat(9997)}`);
  assert.equal(statSync(file).size, 10_000);
});

test("B-63 open() of a short file to read is an error with both lengths", (t) => {
  const file = freshFile(t);
  writeFileSync(file, "0123456789");
  for (const options of [{}, { sharing: "private", ...READ_WRITE } as const]) {
    const error = thrown("Incompatible", () => Mmap.open(file, { length: 10_000, ...options }));
    assert.match(error.message, /specified file too small: 10 bytes, 10000 wanted$/);
  }
  assert.equal(statSync(file).size, 10);
});

test("B-64 open() without a file is a TypeError", () => {
  const message = /No filename or filehandle provided\.$/;
  for (const nothing of [undefined, null, ""]) {
    assert.throws(() => Mmap.open(untyped(nothing)), { name: "TypeError", message });
  }
});

testUnless(
  NEEDS.descriptors,
  "B-65 open() takes a path, a URL and a descriptor, and nothing else",
  {},
  (t) => {
    const file = freshFile(t, "a name #1");
    writeFileSync(file, "0123456789");
    const byUrl = opened(t, pathToFileURL(file));
    assert.deepEqual([text(byUrl), byUrl.filename], ["0123456789", file]);
    const fd = openSync(file, "r");
    const byDescriptor = opened(t, fd);
    closeSync(fd);
    assert.deepEqual([text(byDescriptor), byDescriptor.filename], ["0123456789", undefined]);
    for (const nothing of [{}, [], true, 1n, Symbol("file"), () => 1, new URL("https://a.b/c")]) {
      assert.throws(() => Mmap.open(untyped(nothing)), TypeError);
    }
    for (const path of [`${file}\0`, `${file}\ud800`]) {
      assert.throws(() => Mmap.open(path), TypeError);
    }
    for (const number of [-1, 1.5, NaN, Infinity, 2 ** 31]) {
      assert.throws(() => Mmap.open(number), RangeError);
    }
  },
);

testUnless(
  NEEDS.descriptors,
  "B-66 open() of what cannot be opened says so, with the system's error",
  {},
  (t) => {
    const file = freshFile(t);
    const missing = thrown("NotFound", () => Mmap.open(file));
    assert.equal(missing.message, `Cannot open region "${file}": Can't open ${file}: ENOENT`);
    assert.equal(missing.errno, "ENOENT");
    assert.equal(thrown("NotFound", () => Mmap.open(join(file, "below"))).errno, "ENOENT");
    assert.equal(thrown("NotFound", () => Mmap.open(999_999)).errno, "EBADF");
    symlinkSync(file, `${file}.loop`);
    symlinkSync(`${file}.loop`, file);
    assert.equal(thrown("System", () => Mmap.open(file)).errno, "ELOOP");
    assert.equal(thrown("System", () => Mmap.open("x".repeat(5000))).errno, "ENAMETOOLONG");
  },
);

test("B-67 and B-88 anonymous() without a length is an argument error: there is no default", () => {
  const message = /MAP_ANON specified, but no length specified$/;
  assert.throws(() => Mmap.anonymous(untyped(undefined)), { name: "TypeError", message });
  assert.throws(() => Mmap.anonymous(0), { name: "RangeError", message });
  for (const length of [-1, 1.5, NaN, Infinity, 2 ** 53, "1", null, {}]) {
    assert.throws(() => Mmap.anonymous(untyped(length)), isArgumentError);
  }
});

test("B-68 anonymous() needs no file at all", (t) => {
  const region = anonymous(t);
  assert.deepEqual([region.length, region.filename], [10_000, undefined]);
  assert.equal(text(region), "\0".repeat(10_000));
});

test("B-69 read() without arguments reads everything", (t) => {
  const region = suite(t);
  region.write("first");
  assert.equal(text(region), `first${"\0".repeat(9995)}`);
});

test("B-70 a length of 0 is 0 bytes", (t) => {
  for (const region of [suite(t), anonymous(t)]) {
    assert.equal(region.read(100, 0).length, 0);
    assert.equal(region.write("data", 100, 0), 0);
    assert.equal(region.write("", 100), 0);
    assert.equal(region.write(new Uint8Array(), 100), 0);
    assert.equal(region.readInto(new Uint8Array(), 100), 0);
    assert.equal(text(region), "\0".repeat(10_000));
  }
});

test("B-71 the last byte can be read, and the one after it not", (t) => {
  for (const region of [suite(t), anonymous(t)]) {
    assert.equal(region.read(9999).length, 1);
    assert.throws(() => region.read(10_000), RangeError);
    assert.throws(() => region.read(10_000, 0), RangeError);
  }
});

const NO_OFFSETS = [-1, -(2 ** 31), -(2 ** 53), 10_000, 2 ** 32, 2 ** 53 - 1];
const NO_NUMBERS = [NaN, 1.5, 2 ** 53, 2 ** 64, Infinity, -Infinity];

for (const [number, numbers] of [["B-72", NO_OFFSETS], ["B-74", NO_NUMBERS]] as const) {
  test(`${number} an offset like ${numbers[0]} is a RangeError and touches nothing`, (t) => {
    for (const region of [suite(t), anonymous(t)]) {
      for (const offset of numbers) {
        assert.throws(() => region.read(offset), RangeError);
        assert.throws(() => region.readInto(new Uint8Array(9), offset), RangeError);
        assert.throws(() => region.write("data", offset), RangeError);
        assert.throws(() => region.write(new Uint8Array(9), offset), RangeError);
        assert.throws(() => region.pack(offset, "a4", "data"), RangeError);
        assert.throws(() => region.unpack(offset, 4, "a4"), RangeError);
      }
      assert.equal(text(region), "\0".repeat(10_000));
    }
  });
}

test("B-73 a negative or broken length is a RangeError", (t) => {
  for (const region of [suite(t), anonymous(t)]) {
    for (const length of [-5, -1, ...NO_NUMBERS]) {
      assert.throws(() => region.write("data", 0, length), RangeError);
      assert.throws(() => region.read(0, length), RangeError);
      assert.throws(() => region.unpack(0, length, "a4"), RangeError);
    }
    for (const wrong of ["0", null, 1n, {}]) {
      assert.throws(() => region.read(untyped(wrong)), TypeError);
      assert.throws(() => region.read(0, untyped(wrong)), TypeError);
      assert.throws(() => region.write("data", untyped(wrong)), TypeError);
      assert.throws(() => region.write("data", 0, untyped(wrong)), TypeError);
    }
    assert.equal(text(region), "\0".repeat(10_000));
  }
});

test("B-75 pack() past the end writes what fits and gives its length", (t) => {
  for (const region of [suite(t), anonymous(t)]) {
    assert.equal(region.pack(9980, TEMPLATE, ...VALUES), 20);
    assert.equal(text(region, 9996), "ZZZZ");
  }
});

test("B-76 unpack() that fails throws", (t) => {
  const region = suite(t);
  assert.throws(() => region.unpack(0, 4, "y"), SyntaxError);
  assert.throws(() => region.unpack(10_000, 4, "L"), RangeError);
  assert.throws(() => region.unpack(0, 4, untyped(undefined)), TypeError);
});

test("B-77 unpack() ignores bytes that the template does not ask for", (t) => {
  const region = suite(t);
  const values = [1, -2, 0.5, 4];
  assert.equal(region.pack(0, "lldV", ...values), 20);
  assert.deepEqual(region.unpack(0, 24, "lldV"), values);
});

test("B-78 lock() is shared for a read-only region and exclusive for others", (t) => {
  const reader = readOnly(t);
  const file = reader.filename!;
  const [second, writer] = [opened(t, file), opened(t, file, READ_WRITE)];
  {
    using _first = reader.lock();
    using shared = second.tryLock();
    assert.ok(shared, "two shared locks at once");
    assert.equal(writer.tryLock(), undefined);
    using third = writer.tryLock({ shared: true });
    assert.ok(third, "a shared lock of a region that could have another");
  }
  using _exclusive = writer.lock();
  assert.equal(reader.tryLock(), undefined);
  thrown("ReadOnly", () => reader.lock({ shared: false }));
});

test("B-79 lock() with an offset and a length is a TypeError", (t) => {
  const region = suite(t);
  assert.throws(() => untyped(region).lock(0, 100), TypeError);
  assert.throws(() => untyped(region).tryLock(0, 100), TypeError);
  assert.equal(region.locked, false);
});

test("B-80 two processes with one anonymous region have one lock", LONG, async (t) => {
  const region = anonymous(t);
  const child = await startChild(t, THERE);
  await child.ask("regionAttach", { token: region.token });
  const lock = region.lock();
  assert.equal(await child.ask("regionTryLock"), null);
  lock.unlock();
  assert.deepEqual(await child.ask("regionTryLock"), { recovered: false });
  assert.equal(region.tryLock(), undefined);
});

for (const victim of RUNTIMES) {
  test(`B-81 the lock of a ${victim} process that was killed goes to the next`, LONG, async (t) => {
    const region = anonymous(t);
    const child = await startChild(t, victim);
    await child.ask("regionAttach", { token: region.token });
    await child.ask("regionLock");
    await child.kill();
    using lock = region.lock({ timeout: 20_000 });
    assert.equal(lock.recovered, true);
  });
}

test("B-82 there is no unlocking without a lock, and unlocking twice gives nothing away", (t) => {
  const region = anonymous(t);
  const other = Mmap.attach(region.token);
  atEnd(t, () => other.close());
  assert.equal(untyped(region).unlock, undefined);
  const first = region.lock();
  first.unlock();
  using _second = other.lock();
  first.unlock();
  assert.equal(region.tryLock(), undefined);
});

test("B-83 a process that ends takes nothing from the others", LONG, async (t) => {
  const region = anonymous(t);
  const [first, second] = await Promise.all([HERE, THERE].map((each) => startChild(t, each)));
  for (const child of [first, second]) await child.ask("regionAttach", { token: region.token });
  await first.end();
  assert.equal(first.stderr, "");
  region.lock();
  assert.equal(await second.ask("regionTryLock"), null);
});

test("B-84 unmap() is the same as close()", (t) => {
  for (const method of ["unmap", "close", Symbol.dispose] as const) {
    const region = suite(t);
    region[method]();
    thrown("Closed", () => region.read());
  }
});

test('B-85 every call after close is "Closed"; a second close does nothing', (t) => {
  for (const region of [suite(t), anonymous(t)]) {
    const lock = region.lock();
    region.close();
    region.close();
    region.unmap();
    lock.unlock();
    const calls: (() => unknown)[] = [
      () => region.read(),
      () => region.read(20_000),
      () => region.readInto(new Uint8Array(1)),
      () => region.write("x"),
      () => region.pack(0, "a", "x"),
      () => region.unpack(0, 1, "a"),
      () => region.lock(),
      () => region.tryLock(),
      () => region.flush(),
      () => region.token,
      () => region.length,
      () => region.filename,
      () => region.fd,
      () => region.locked,
    ];
    for (const call of calls) assert.match(thrown("Closed", call).message, /it is closed$/);
  }
});

test('B-85 lockAsync() after close rejects with "Closed"', async (t) => {
  const region = anonymous(t);
  region.close();
  await assert.rejects(region.lockAsync(), { code: "Closed" });
});

test("B-86 open() of an empty file without a length is an error", (t) => {
  const file = freshFile(t);
  writeFileSync(file, "");
  for (const options of [{}, READ_WRITE, { length: 0 }]) {
    const error = thrown("Incompatible", () => Mmap.open(file, options));
    assert.match(error.message, /the file is empty, and no length was given$/);
  }
});

// B-87 to B-89 are about another system. There a descriptor would not do, and a mapping without a
// file would have a default length and a name. Here a descriptor does, and memory has a token.
testUnless(
  NEEDS.descriptors,
  "B-87 a descriptor is a file here, and a name is needed by neither it nor memory",
  {},
  (t) => {
    const region = suite(t);
    assert.equal(opened(t, region.fd!).length, 10_000);
    assert.equal(anonymous(t).filename, undefined);
  },
);

test("B-89 and B-92 open() maps a file, anonymous() memory without a descriptor", (t) => {
  assert.equal(typeof suite(t).fd, "number");
  thrown("Unsupported", () => suite(t).token);
  const region = anonymous(t);
  assert.equal(region.fd, undefined);
  assert.equal(typeof region.token, "string");
});

test("B-90 words take the place of the constants", (t) => {
  const names = Object.keys(shmap).filter((name) => /^(?:MAP|PROT)_/.test(name));
  assert.deepEqual(names, []);
  const { filename } = suite(t);
  for (
    const options of [{ protection: 3 }, { sharing: 1 }, { protection: "exec" }, { length: "1" }]
  ) {
    assert.throws(() => Mmap.open(filename!, untyped(options)), TypeError);
  }
});

for (const runtime of RUNTIMES) {
  test(`B-91 writes to a private region are seen by it alone, from ${runtime}`, LONG, async (t) => {
    const shared = suite(t);
    shared.write("before");
    const options = { sharing: "private", ...READ_WRITE } as const;
    const region = opened(t, shared.filename!, options);
    assert.equal(region.write("inside", 0), 6);
    const child = await childWith(t, runtime, shared.filename!, options);
    assert.equal(await child.ask("regionText", { offset: 0, length: 6 }), "before");
    assert.equal(await child.ask("regionCall", { method: "write", args: ["child!", 0] }), 6);
    assert.deepEqual([text(region, 0, 6), text(shared, 0, 6)], ["inside", "before"]);
    assert.equal(await child.ask("regionText", { offset: 0, length: 6 }), "child!");
    region.flush();
    assert.equal(readFileSync(shared.filename!).toString("latin1", 0, 6), "before");
  });
}
