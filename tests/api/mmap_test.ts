/**
 * Raw regions beyond what IPC::Mmap did: beyond 4 GiB, by token, under permissions, and counted by
 * several processes at once.
 */
import assert from "node:assert/strict";
import {
  closeSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { test } from "node:test";
import { Mmap, SharedMap } from "../../mod.ts";
import {
  anonymous,
  childWith,
  fileChild,
  freshFile,
  opened,
  READ_WRITE,
  sparseFile,
  suite,
  text,
} from "../support/regions.ts";
import {
  atEnd,
  freshAnonymous,
  freshMap,
  isOfProcess,
  NEEDS,
  runtimeOf,
  RUNTIMES,
  scaled,
  startChild,
  testUnless,
  THERE,
  thrown,
  untyped,
  withSeed,
} from "../support/support.ts";
import { Thread } from "../support/thread.ts";

const LONG = { timeout: 120_000 };
const GIB = 2 ** 30;

test("new Mmap() is refused", () => {
  assert.throws(() => new (untyped(Mmap))(), TypeError);
});

for (const [name, make] of Object.entries({ "over a file": suite, "in memory": anonymous })) {
  test(`a region ${name} does with random calls what an array does`, (t) =>
    withSeed((random) => {
      const model = new Uint8Array(10_000);
      const region = make(t);
      using twin = region.filename ? Mmap.open(region.filename) : Mmap.attach(region.token);
      for (let i = 0; i < scaled(2000); i += 1) {
        const offset = random(model.length);
        const bytes = Uint8Array.from({ length: random(300) }, () => random(256));
        const room = Math.min(bytes.length, model.length - offset);
        model.set(bytes.subarray(0, room), offset);
        const isText = random(4) === 0;
        const target = new Uint8Array(random(300) + 1);
        if (isText) model.fill(0x41, offset, offset + room);
        const written = region.write(isText ? "A".repeat(bytes.length) : bytes, offset);
        assert.equal(written, room);
        const from = random(model.length);
        const count = twin.readInto(target, from);
        assert.equal(count, Math.min(target.length, model.length - from));
        assert.deepEqual(target.subarray(0, count), model.subarray(from, from + count));
      }
      assert.deepEqual(twin.read(), model);
    }));
}

test("read() gives a copy of the caller's own", (t) => {
  const region = anonymous(t, 4);
  region.read().fill(1);
  assert.deepEqual(region.read(), new Uint8Array(4));
});

test("write() of a string writes UTF-8, and cuts it at any byte", (t) => {
  const region = anonymous(t, 10);
  assert.equal(region.write("é☺😀"), 9);
  assert.deepEqual([...region.read(0, 9)], [...new TextEncoder().encode("é☺😀")]);
  assert.equal(region.write("é", 9), 1);
  assert.equal(region.read(9)[0], 0xc3);
  assert.equal(region.write("\ud800"), 3, "a lone surrogate is replaced, as by TextEncoder");
});

test("write() of a string far larger than any buffer", LONG, (t) => {
  const region = anonymous(t, 9_000_000);
  assert.equal(region.write("ab".repeat(4_499_999), 1), 8_999_998);
  assert.equal(text(region, 8_999_997), "ab\0");
});

test("write() of a long string encodes no more than it writes", LONG, (t) => {
  const region = anonymous(t, 3);
  const long = `é${"😀".repeat(30_000_000)}`;
  const started = performance.now();
  for (let length = 0; length < 400; length += 1) region.write(long, 0, length);
  assert.deepEqual([...region.read()], [0xc3, 0xa9, 0xf0]);
  assert.ok(performance.now() - started < 5000);
});

test("readInto() and write() take any view of bytes", (t) => {
  const region = anonymous(t, 8);
  const whole = new Uint8Array([1, 2, 3, 4, 5, 6]);
  assert.equal(region.write(whole.subarray(2, 5), 1), 3);
  const target = new Uint8Array(6).fill(9);
  assert.equal(region.readInto(target.subarray(1, 5)), 4);
  assert.deepEqual([...target], [9, 0, 3, 4, 5, 9]);
  const shared = new Uint8Array(new SharedArrayBuffer(3));
  assert.equal(region.readInto(shared, 1), 3);
  assert.deepEqual([...shared], [3, 4, 5]);
  assert.equal(region.write(shared, 5), 3);
  assert.deepEqual([...region.read(5)], [3, 4, 5]);
  const fakes = [Object.create(Uint8Array.prototype), new Proxy(target, {})];
  const views = [new ArrayBuffer(2), new Uint16Array(2), new DataView(target.buffer)];
  for (const wrong of [[1, 2], ...views, ...fakes, undefined, null, 1]) {
    assert.throws(() => region.readInto(untyped(wrong)), /^TypeError: Cannot use .* as target/);
    assert.throws(() => region.write(untyped(wrong)), /^TypeError: Cannot use .* as data/);
  }
});

test("an array that lies about its length is taken for what it is", (t) => {
  const region = anonymous(t, 100);
  const liar = Object.defineProperty(new Uint8Array([1, 2, 3]), "length", { value: 100 });
  assert.equal(region.write(liar, 10), 3);
  assert.equal(region.readInto(liar, 11), 3);
  assert.deepEqual([liar[0], liar[1], liar[2]], [2, 3, 0]);
  class Liar extends Uint8Array {
    override get byteLength(): number {
      return 100;
    }
  }
  assert.equal(region.write(new Liar(3), 10), 3);
});

test("a region of 5 GiB takes and gives bytes beyond 4 GiB", LONG, (t) => {
  const region = opened(t, sparseFile(t, 5 * GIB), READ_WRITE);
  assert.equal(region.length, 5 * GIB);
  for (const offset of [4 * GIB - 3, 4 * GIB, 5 * GIB - 6]) {
    assert.equal(region.write("beyond", offset), 6);
    assert.equal(text(region, offset, 6), "beyond");
    assert.equal(region.pack(offset, "L n", 4_000_000_000, 513), 6);
    assert.deepEqual(region.unpack(offset, 6, "L n"), [4_000_000_000, 513]);
  }
  assert.equal(region.write("beyond", 5 * GIB - 2), 2);
  assert.equal(region.read(5 * GIB - 2).length, 2);
  assert.throws(() => region.read(5 * GIB), RangeError);
  assert.equal(text(region, 0, 6), "\0".repeat(6), "no offset was cut to 32 bits");
  region.flush();
});

test("a copy in several pieces is whole", LONG, (t) => {
  const region = opened(t, sparseFile(t, 5 * GIB), READ_WRITE);
  const piece = GIB / 4;
  const bytes = new Uint8Array(piece + 100);
  const seams = [0, piece - 1, piece, piece + 99];
  seams.forEach((at, index) => bytes[at] = index + 1);
  const start = 4 * GIB - 17;
  assert.equal(region.write(bytes, start), bytes.length);
  bytes.fill(0);
  assert.equal(region.readInto(bytes, start), bytes.length);
  assert.deepEqual(seams.map((at) => bytes[at]), [1, 2, 3, 4]);
  assert.equal(region.readInto(bytes, 5 * GIB - piece - 1), piece + 1);
});

for (const runtime of RUNTIMES) {
  test(`a token leads a ${runtime} process to the same memory`, LONG, async (t) => {
    const region = anonymous(t);
    const child = await startChild(t, runtime);
    assert.equal(await child.ask("regionAttach", { token: region.token }), 10_000);
    region.write("from here");
    assert.equal(await child.ask("regionText", { offset: 0, length: 9 }), "from here");
    await child.ask("regionCall", { method: "write", args: ["from there", 9000] });
    assert.equal(text(region, 9000, 10), "from there");
    const token = await child.ask("regionToken");
    assert.equal(token === region.token, !isOfProcess(token));
    region.close();
    using again = Mmap.attach(token);
    assert.equal(text(again, 9000, 10), "from there", "it lives as long as a process has it open");
    await child.kill();
    if (!isOfProcess(token)) {
      again.close();
      SharedMap.list(); // a call that lists removes what the killed process left
    }
    thrown("NotFound", () => Mmap.attach(token));
  });
}

test('a token of another kind is "Incompatible", and no token is a TypeError', (t) => {
  const region = anonymous(t);
  for (const map of [freshAnonymous(t), freshMap(t)]) {
    const error = thrown("Incompatible", () => Mmap.attach(map.token));
    assert.match(error.message, /^Cannot attach to anonymous region: it is .*, wanted a region$/);
  }
  const error = thrown("Incompatible", () => SharedMap.attach(region.token));
  assert.match(error.message, /it is a region, wanted a map$/);
  for (const wrong of ["", "fd:1:2", `${region.token}0`, "fd:1:2:xyz", 5, undefined, null, {}]) {
    assert.throws(() => Mmap.attach(untyped(wrong)), TypeError);
  }
  const { token } = region;
  region.close();
  thrown("NotFound", () => Mmap.attach(token));
  const foreign = isOfProcess(token) ? "NotFound" : "Unsupported";
  thrown(foreign, () => Mmap.attach("fd:4999999:1:0123456789abcdef"));
});

testUnless(NEEDS.memoryFiles, "no process can cut an anonymous region short", {}, (t) => {
  const region = anonymous(t);
  const fd = openSync(`/proc/self/fd/${region.token.split(":")[2]}`, "r+");
  atEnd(t, () => closeSync(fd));
  assert.throws(() => ftruncateSync(fd, 0), /EPERM|permitted/);
  region.write("still there");
  assert.equal(text(region, 0, 11), "still there");
});

testUnless(
  NEEDS.shell ?? NEEDS.bothRuntimes,
  "Deno asks its permissions for a path, not for a descriptor",
  LONG,
  async (t) => {
    const file = freshFile(t);
    writeFileSync(file, "0123456789");
    const wrap = ["sh", "-c", 'exec 9<>"$0"; exec "$@"', file];
    const child = await startChild(t, "deno", {
      permissions: ["--allow-ffi", `--allow-read`],
      wrap,
    });
    assert.equal(await child.ask("regionOpen", { file }), 10);
    const options = { sharing: "private", ...READ_WRITE };
    assert.equal(await child.ask("regionOpen", { file, options }), 10);
    for (const protection of ["write", "read-write"]) {
      await assert.rejects(child.ask("regionOpen", { file, options: { protection } }), {
        code: "PermissionDenied",
        message: `Cannot open region "${file}": Can't open ${file}: run with --allow-write=${file}`,
      });
    }
    assert.equal(await child.ask("regionOpen", { file: 9, options: READ_WRITE }), 10);
    const none = await startChild(t, "deno", { wrap });
    for (const protection of ["read", "read-write"]) {
      await assert.rejects(none.ask("regionOpen", { file, options: { protection } }), {
        code: "PermissionDenied",
      });
    }
    await assert.rejects(none.ask("regionOpen", { file: `${file}.new` }), {
      code: "PermissionDenied",
    });
    assert.equal(await none.ask("regionOpen", { file: 9, options: READ_WRITE }), 10);
    assert.equal(await none.ask("regionAnonymous", { length: 10 }), 10);
  },
);

for (const kind of ["a file", "memory"]) {
  test(`processes that count under the lock of ${kind} lose nothing`, LONG, async (t) => {
    const file = freshFile(t);
    const region = kind === "memory"
      ? anonymous(t)
      : opened(t, file, { length: 100, ...READ_WRITE });
    const times = scaled(2000);
    const children = await Promise.all([0, 1, 2, 3].map(async (turn) => {
      const child = await fileChild(t, runtimeOf(turn));
      if (kind === "memory") await child.ask("regionAttach", { token: region.token });
      else await child.ask("regionOpen", { file, options: READ_WRITE });
      return child;
    }));
    await Promise.all(children.map((child) => child.ask("regionCount", { times })));
    assert.equal(region.unpack(0, 4, "L")[0], 4 * times);
  });
}

test("the lock of a Worker that ended goes to the next locker, as recovered", LONG, async (t) => {
  const region = anonymous(t);
  const worker = new Thread(t);
  await worker.ask("regionAttach", { token: region.token });
  await worker.ask("regionLock");
  assert.equal(region.tryLock(), undefined);
  worker.terminate();
  using lock = await region.lockAsync({ timeout: 20_000 });
  assert.equal(lock.recovered, true);
});

test("over a user's file no locker sees a dead holder, but the lock is free", LONG, async (t) => {
  const region = suite(t);
  const child = await childWith(t, THERE, region.filename!);
  await child.ask("regionLock");
  thrown("Timeout", () => region.lock({ timeout: 20 }));
  assert.equal(region.locked, true);
  await child.kill();
  using lock = region.lock({ timeout: 20_000 });
  assert.equal(lock.recovered, false);
});

testUnless(
  NEEDS.links ?? NEEDS.descriptors,
  "lock() excludes by file, not by the path or descriptor that leads there",
  {},
  async (t) => {
    const region = suite(t);
    const link = `${region.filename}.link`;
    symlinkSync(region.filename!, link);
    const others = [opened(t, link, READ_WRITE), opened(t, region.fd!, READ_WRITE)];
    const lock = region.lock();
    for (const other of others) {
      assert.equal(other.locked, true);
      assert.equal(other.tryLock(), undefined);
      thrown("Locked", () => other.lock());
    }
    const waiting = others[0].lockAsync();
    lock.unlock();
    (await waiting).unlock();
    assert.equal(region.locked, false);
  },
);

for (const runtime of RUNTIMES) {
  testUnless(
    NEEDS.proc,
    `${runtime} closes forgotten regions, but for those whose lock is held`,
    LONG,
    async (t) => {
      const region = suite(t);
      const permissions = ["-A", "--v8-flags=--expose-gc"];
      const child = await startChild(t, runtime, { permissions });
      const options = { file: region.filename, options: READ_WRITE };
      const count = async () => {
        const paths: string[] = await child.ask("descriptors");
        return paths.filter((path) => path === region.filename).length;
      };
      for (let i = 0; i < 50; i += 1) await child.ask("regionOpen", { id: `${i}`, ...options });
      assert.equal(await count(), 100);
      await child.ask("regionLock", { id: "7" });
      for (let i = 0; i < 50; i += 1) await child.ask("regionForget", { id: `${i}` });
      for (let i = 0; i < 20 && await count() > 2; i += 1) await child.ask("collect");
      assert.equal(await count(), 2);
      assert.equal(region.tryLock(), undefined);
    },
  );
}

testUnless(
  NEEDS.proc,
  "opening and closing, and failing to open, leave no descriptor and no mapping",
  {},
  (t) => {
    const file = freshFile(t);
    const empty = freshFile(t, "empty");
    writeFileSync(empty, "");
    const traces = () => [
      readdirSync("/proc/self/fd").length,
      readFileSync("/proc/self/maps", "latin1").split("\n").filter((line) =>
        /ipc_mmap|memfd:shmap|empty/.test(line)
      ).length,
    ];
    const cycle = () => {
      Mmap.open(file, { length: 10_000, ...READ_WRITE }).close();
      using region = Mmap.anonymous(10_000);
      Mmap.attach(region.token).close();
      for (const fails of [empty, "/dev/null", `${file}.missing`]) {
        assert.throws(() => Mmap.open(fails));
      }
      assert.throws(() => Mmap.open(file, { length: 2 ** 52, ...READ_WRITE }));
      assert.throws(() => Mmap.open(file, { length: 20_000 }));
      assert.throws(() => Mmap.attach(`${region.token.slice(0, -16)}${"0".repeat(16)}`));
    };
    cycle();
    const before = traces();
    for (let i = 0; i < 100; i += 1) cycle();
    assert.deepEqual(traces(), before);
  },
);

test("flush() is allowed on every region", (t) => {
  const region = suite(t);
  const file = region.filename!;
  const regions = [
    region,
    anonymous(t),
    opened(t, file),
    opened(t, file, { protection: "write" }),
    opened(t, file, { sharing: "private", ...READ_WRITE }),
  ];
  for (const each of regions) assert.equal(each.flush(), undefined);
});
