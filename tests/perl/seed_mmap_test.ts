/**
 * The suite of the Perl module IPC::Mmap, case by case, by the numbers of the list these cases
 * were collected in: `new(file, length, PROT_…, MAP_…)` is `Mmap.open(file, options)`, MAP_ANON
 * is `Mmap.anonymous(length)`, `getLength` and `getFilename` are properties. Where the module gave
 * undef for a bad offset or a forbidden access, there is an error with the text it meant to give.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Lock, Mmap } from "../../mod.ts";
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
  writeOnly,
} from "../support/regions.ts";
import { HERE, THERE, thrown, untyped } from "../support/support.ts";
import { Thread } from "../support/thread.ts";

const LONG = { timeout: 60_000 };

test("B-01 mod.ts has Mmap", () => assert.equal(typeof Mmap.open, "function"));

test("B-02 open() of a new file with a length gives a region", (t) => {
  assert.ok(suite(t) instanceof Mmap);
});

// B-03 asks for the address. No address leaves the library; what leads to memory is its token.
test("B-03 no property of a region shows where it is mapped", (t) => {
  assert.deepEqual(Object.keys(suite(t)), []);
  assert.equal(untyped(suite(t)).getAddress, undefined);
  assert.match(anonymous(t).token, /^(?:fd:\d+:\d+|file:[0-9a-f]{16}):[0-9a-f]{16}$/);
});

test("B-04 length is the length that was asked for", (t) => assert.equal(suite(t).length, 10_000));

test("B-05 write() without a length writes everything", (t) => {
  const region = suite(t);
  assert.equal(region.write("A".repeat(2000), 100), 2000);
  assert.equal(text(region, 99, 2002), `\0${"A".repeat(2000)}\0`);
});

test("B-06 write() with a length writes no more than that", (t) => {
  const region = suite(t);
  assert.equal(region.write("B".repeat(2000), 100, 30), 30);
  assert.equal(text(region, 100, 31), `${"B".repeat(30)}\0`);
});

test("B-07 write() with a length beyond the data writes the data", (t) => {
  const region = suite(t);
  assert.equal(region.write("C".repeat(2000), 100, 300_000), 2000);
  assert.equal(text(region, 100, 2001), `${"C".repeat(2000)}\0`);
});

test("B-08 write() of more than there is room for writes what fits", (t) => {
  const region = suite(t);
  assert.equal(region.write("D".repeat(20_000), 100), 9900);
  assert.equal(text(region), "\0".repeat(100) + "D".repeat(9900));
});

test("B-09 write() beyond the end is a RangeError, and writes nothing", (t) => {
  const region = suite(t);
  const message = /write failed: offset exceeds region length 10000$/;
  assert.throws(() => region.write("E".repeat(200), 200_000), { name: "RangeError", message });
  assert.equal(text(region), "\0".repeat(10_000));
});

for (const [number, open] of [["B-10", suite], ["B-27", readOnly]] as const) {
  test(`${number} read() without a length reads to the end`, (t) => {
    assert.equal(open(t).read(100).length, 9900);
  });
}

for (const [number, open] of [["B-11", suite], ["B-28", readOnly]] as const) {
  test(`${number} read() with a length reads as much`, (t) => {
    assert.equal(open(t).read(100, 30).length, 30);
  });
}

for (const [number, open] of [["B-12", suite], ["B-29", readOnly]] as const) {
  test(`${number} read() with a length beyond the end reads to the end`, (t) => {
    assert.equal(open(t).read(100, 300_000).length, 9900);
  });
}

for (const [number, open] of [["B-13", suite], ["B-30", readOnly]] as const) {
  test(`${number} read() beyond the end is a RangeError`, (t) => {
    const message = /^Cannot read region ".*" at offset 200000: read failed: offset exceeds region/;
    assert.throws(() => open(t).read(200_000), { name: "RangeError", message });
  });
}

test("B-14 pack() packs by the template of the suite, 36 bytes", (t) => {
  const region = suite(t);
  assert.equal(region.pack(1000, TEMPLATE, ...VALUES), 36);
  const hex = [...region.read(1000, 36)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  assert.equal(hex, `40e20100092938150b0bee073cdd5e40${"5a".repeat(20)}`);
});

test("B-15 unpack() gives as many values as were packed", (t) => {
  const region = suite(t);
  region.pack(1000, TEMPLATE, ...VALUES);
  assert.equal(region.unpack(1000, 36, TEMPLATE).length, 5);
});

["B-16", "B-17", "B-18", "B-19", "B-20"].forEach((number, index) => {
  test(`${number} unpack() gives value ${index + 1} as it was packed`, (t) => {
    const region = suite(t);
    region.pack(1000, TEMPLATE, ...VALUES);
    assert.equal(region.unpack(1000, 36, TEMPLATE)[index], VALUES[index]);
  });
});

for (
  const [number, open] of [["B-21", suite], ["B-32", readOnly], ["B-37", writeOnly]] as const
) {
  test(`${number} leaving the scope unmaps, and unlocks, without an error`, (t) => {
    const file = open(t).filename!;
    let region;
    {
      using inner = Mmap.open(file);
      inner.lock();
      region = inner;
    }
    thrown("Closed", () => region.read());
    assert.equal(opened(t, file, READ_WRITE).locked, false);
  });
}

test("B-22 and B-25 open() with length 0 maps as much as the file has, and says so", (t) => {
  assert.equal(readOnly(t).length, 10_000);
});

test("B-23 lock() of a read-only region gives a lock", (t) => {
  const region = readOnly(t);
  assert.ok(region.lock() instanceof Lock);
  assert.equal(region.locked, true);
});

test('B-24 write() on a read-only region is "ReadOnly" and writes nothing', (t) => {
  const region = readOnly(t);
  const before = text(region);
  const error = thrown("ReadOnly", () => region.write("A".repeat(2000), 100));
  assert.match(error.message, /Invalid access on read-only region$/);
  thrown("ReadOnly", () => region.pack(100, TEMPLATE, ...VALUES));
  thrown("ReadOnly", () => region.write("A", 200_000));
  assert.equal(text(region), before);
});

test("B-26 filename is the path as it was given", (t) => {
  const file = freshFile(t);
  assert.equal(opened(t, file, { length: 10, ...READ_WRITE }).filename, file);
});

test("B-31 unlock() of a read-only region's lock unlocks", (t) => {
  const region = readOnly(t);
  const lock = region.lock();
  assert.equal(lock.unlock(), undefined);
  assert.equal(region.locked, false);
});

test("B-33 open() for writing only gives a region", (t) => assert.ok(writeOnly(t)));

test("B-34 lock() of a write-only region gives a lock, and an exclusive one", (t) => {
  const region = writeOnly(t);
  assert.ok(region.lock() instanceof Lock);
  assert.equal(opened(t, region.filename!).tryLock({ shared: true }), undefined);
});

test("B-35 write() on a write-only region writes", (t) => {
  const region = writeOnly(t);
  assert.equal(region.write("A".repeat(2000), 100), 2000);
  assert.equal(text(opened(t, region.filename!), 100, 2000), "A".repeat(2000));
});

test('B-36 read() of a write-only region is "WriteOnly"', (t) => {
  const region = writeOnly(t);
  const error = thrown("WriteOnly", () => region.read(100));
  assert.match(error.message, /Invalid access on write-only region$/);
  thrown("WriteOnly", () => region.readInto(new Uint8Array(10)));
  thrown("WriteOnly", () => region.unpack(100, 4, "L"));
  thrown("WriteOnly", () => region.read(200_000));
});

test("B-40 to B-46 two threads share a region under its lock", LONG, async (t) => {
  const region = suite(t);
  const reader = new Thread(t);
  await reader.ask("regionOpen", { file: region.filename, options: READ_WRITE });
  const first = region.lock();
  assert.ok(first instanceof Lock);
  assert.equal(await reader.ask("regionTryLock"), null, "the other thread is kept out");
  assert.equal(region.write("A".repeat(2000), 100), 2000);
  first.unlock();
  assert.deepEqual(await reader.ask("regionLock"), { recovered: false });
  assert.equal(await reader.ask("regionText", { offset: 100, length: 2000 }), "A".repeat(2000));
  const waiting = region.lockAsync();
  await reader.ask("regionUnlock");
  using lock = await waiting;
  assert.equal(lock.recovered, false);
  assert.equal(region.pack(1000, TEMPLATE, ...VALUES), 36);
  const args = { method: "unpack", args: [1000, 36, TEMPLATE] };
  assert.deepEqual(await reader.ask("regionCall", args), VALUES);
});

test("B-50 to B-52 a parent and two processes take turns by the lock", LONG, async (t) => {
  const region = suite(t);
  const file = region.filename!;
  const lock = region.lock();
  const [writer, reader] = await Promise.all([childWith(t, THERE, file), childWith(t, HERE, file)]);
  let isWriting = false;
  const locked = writer.ask("regionLock", { options: { timeout: 30_000 } });
  locked.then(() => isWriting = true);
  assert.equal(await reader.ask("regionTryLock"), null);
  assert.equal(isWriting, false, "the writer waits for the parent");
  lock.unlock();
  assert.deepEqual(await locked, { recovered: false });
  assert.equal(await reader.ask("regionTryLock"), null);
  const written = { method: "write", args: ["K".repeat(2000), 100] };
  assert.equal(await writer.ask("regionCall", written), 2000);
  await writer.ask("regionUnlock");
  await reader.ask("regionLock");
  assert.equal(await reader.ask("regionText", { offset: 100, length: 2000 }), "K".repeat(2000));
  await reader.ask("regionUnlock");
  await writer.ask("regionLock");
  const packed = { method: "pack", args: [1000, TEMPLATE, ...VALUES] };
  assert.equal(await writer.ask("regionCall", packed), 36);
  await writer.ask("regionUnlock");
  await reader.ask("regionLock");
  const unpacked = { method: "unpack", args: [1000, 36, TEMPLATE] };
  assert.deepEqual(await reader.ask("regionCall", unpacked), VALUES);
});
