/**
 * What befalls the file under a raw region: links, rights, a full disk, others who make it longer,
 * cut it short or take its name away.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Mmap } from "../../mod.ts";
import {
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
  freshDirectory,
  HERE,
  inSmallTmpfs,
  NEEDS,
  pause,
  refusesTmpfs,
  runtimeOf,
  RUNTIMES,
  scaled,
  startChild,
  testUnless,
  THERE,
  thrown,
} from "../support/support.ts";

const LONG = { timeout: 120_000 };

testUnless(NEEDS.proc, "fd is a descriptor of the file, good until close()", {}, (t) => {
  const file = freshFile(t);
  writeFileSync(file, "0123456789");
  const given = openSync(file, "r+");
  const region = opened(t, given, { length: 20, ...READ_WRITE });
  closeSync(given);
  const link = `/proc/self/fd/${region.fd}`; // Deno's own functions know its own descriptors only
  assert.equal(region.fd, region.fd);
  assert.equal(readlinkSync(link), file);
  assert.equal(statSync(link).size, 20);
  region.close();
  assert.equal(existsSync(link), false);
});

interface DenoLibraries {
  dlopen(path: string, table: unknown): {
    symbols: { close(fd: number): number; open(path: Uint8Array, flags: number): number };
  };
}

/** Closes descriptors and opens files as another part of the program does, by the system itself. */
function systemFiles(): { close(fd: number): void; open(file: string): number } {
  if (HERE === "bun") return { close: closeSync, open: (file) => openSync(file, "r+") };
  const { Deno } = globalThis as unknown as { Deno: DenoLibraries };
  const { symbols } = Deno.dlopen("libc.so.6", {
    close: { parameters: ["i32"], result: "i32" },
    open: { parameters: ["buffer", "i32"], result: "i32" },
  });
  return {
    close: (fd) => assert.equal(symbols.close(fd), 0),
    open: (file) => symbols.open(new TextEncoder().encode(`${file}\0`), 2),
  };
}

testUnless(
  NEEDS.proc,
  "closing fd harms nothing, also where another file gets its number next",
  {},
  (t) => {
    const { close, open } = systemFiles();
    const [file, other] = [freshFile(t), freshFile(t, "other")];
    writeFileSync(file, "our bytes");
    writeFileSync(other, "the bytes of another file");
    for (const next of [other, file]) {
      const region = opened(t, file, READ_WRITE);
      const lock = region.lock();
      const fd = region.fd!;
      close(fd);
      const taker = open(next);
      assert.equal(taker, fd, "the number was not given out again");
      assert.equal(text(region, 0, 9), "our bytes");
      assert.equal(region.write("our"), 3);
      region.flush();
      assert.equal(opened(t, file).locked, true);
      lock.unlock();
      assert.equal(readFileSync(other, "utf8"), "the bytes of another file");
      const second = region.fd!;
      assert.notEqual(second, fd);
      assert.equal(readlinkSync(`/proc/self/fd/${second}`), file);
      region.close();
      assert.equal(existsSync(`/proc/self/fd/${second}`), false);
      assert.equal(
        readlinkSync(`/proc/self/fd/${taker}`),
        next,
        "close() closed what is another's",
      );
      close(taker);
    }
  },
);

testUnless(
  NEEDS.descriptors,
  "open() by a descriptor gives no more rights than the descriptor has",
  {},
  (t) => {
    const file = freshFile(t);
    writeFileSync(file, "0123456789");
    for (
      const [flags, options, allowed] of [
        ["r", {}, true],
        ["r", READ_WRITE, false],
        ["r", { sharing: "private", ...READ_WRITE }, true],
        ["a", {}, false],
        ["a", { protection: "write" }, true],
        ["r+", READ_WRITE, true],
      ] as const
    ) {
      const fd = openSync(file, flags);
      if (allowed) opened(t, fd, options).close();
      else assert.equal(thrown("PermissionDenied", () => Mmap.open(fd, options)).errno, "EACCES");
      closeSync(fd);
    }
  },
);

testUnless(NEEDS.links, "open() follows links, and refuses what is no regular file", {}, (t) => {
  const directory = freshDirectory(t);
  const [file, link, fifo] = ["file", "link", "fifo"].map((name) => join(directory, name));
  symlinkSync(file, link);
  assert.equal(opened(t, link, { length: 10, ...READ_WRITE }).write("linked"), 6);
  assert.equal(readFileSync(file, "latin1"), "linked\0\0\0\0");
  spawnSync("mkfifo", [fifo]);
  for (const path of [directory, fifo, "/dev/null", "/dev/zero"]) {
    for (const options of [{}, { length: 10, ...READ_WRITE }]) {
      const error = thrown("Incompatible", () => Mmap.open(path, options));
      assert.match(error.message, /is not a regular file$/);
    }
  }
});

testUnless(NEEDS.holes, "open() that fails leaves nothing behind and nothing longer", {}, (t) => {
  const file = freshFile(t);
  const tooLong = { length: 2 ** 45, ...READ_WRITE };
  assert.equal(thrown("NoSpace", () => Mmap.open(file, tooLong)).errno, "ENOSPC");
  assert.equal(existsSync(file), false);
  writeFileSync(file, "kept");
  thrown("NoSpace", () => Mmap.open(file, tooLong));
  assert.equal(readFileSync(file, "latin1"), "kept");
  assert.match(thrown("NoSpace", () => Mmap.anonymous(2 ** 50)).message, /memory is full/);
  const wide = thrown("NoSpace", () => Mmap.open(sparseFile(t, 2 ** 48)));
  assert.match(
    wide.message,
    /no room for 256 TiB in the address space \(ENOMEM\); a smaller length/,
  );
});

testUnless(
  NEEDS.proc,
  'open() of a file that may not be written to is "PermissionDenied"',
  {},
  () => {
    const file = "/proc/sys/kernel/ostype"; // root may not either
    const error = thrown("PermissionDenied", () => Mmap.open(file, { length: 10, ...READ_WRITE }));
    assert.match(error.message, /: Can't open \/proc\/sys\/kernel\/ostype: E(?:ACCES|ROFS)$/);
  },
);

for (const runtime of RUNTIMES) {
  for (const sharing of ["shared", "private"] as const) {
    testUnless(
      NEEDS.cutting,
      `a ${sharing} region survives in ${runtime} that its file is cut short`,
      LONG,
      async (t) => {
        const file = freshFile(t);
        writeFileSync(file, new Uint8Array(100_000).fill(7));
        const child = await childWith(t, runtime, file, { sharing, ...READ_WRITE });
        const touch = (offset: number) => child.ask("regionTouchAll", { offset, length: 20_000 });
        const all = (ending: unknown) => ({
          read: ending,
          readInto: ending,
          write: ending,
          text: ending,
          pack: ending,
          unpack: ending,
        });
        assert.deepEqual(await touch(1000), all(20_000));
        truncateSync(file, 10_000);
        // What is private reaches to the end of its page.
        const rest = sharing === "private" ? 12_288 - 1000 : 9000;
        assert.deepEqual(await touch(1000), { ...all(rest), flush: "Corrupt" });
        assert.deepEqual(await touch(50_000), { ...all("Corrupt"), flush: "Corrupt" });
        truncateSync(file, 0);
        assert.deepEqual(await touch(0), { ...all("Corrupt"), flush: "Corrupt" });
        assert.equal(statSync(file).size, 0, "no copy has made the file longer");
        truncateSync(file, 100_000);
        assert.deepEqual(await touch(1000), all(20_000));
        await child.end();
      },
    );
  }
}

testUnless(
  NEEDS.cutting,
  "copies race with a process that cuts the file short, and neither process dies",
  LONG,
  async (t) => {
    const file = freshFile(t);
    const length = 400_000;
    const regions = [
      opened(t, file, { length, ...READ_WRITE }),
      opened(t, file, { length, sharing: "private", ...READ_WRITE }),
    ];
    const child = await fileChild(t, THERE);
    const bytes = new Uint8Array(200_000);
    const endings = new Map<string, number>();
    const copyAll = () => {
      for (const region of regions) {
        for (const copy of [region.readInto(bytes, 100_000), region.write(bytes, 100_000)]) {
          const ending = copy === bytes.length ? "whole" : "short";
          endings.set(ending, (endings.get(ending) ?? 0) + 1);
        }
      }
    };
    let isOver = false;
    const cut = child.ask("regionCut", { file, length, times: scaled(5000) });
    cut.finally(() => isOver = true);
    while (!isOver) {
      try {
        for (let i = 0; i < 10; i += 1) copyAll();
      } catch (error) {
        assert.equal((error as { code: string }).code, "Corrupt");
        endings.set("Corrupt", (endings.get("Corrupt") ?? 0) + 1);
      }
      await pause(0);
    }
    await cut;
    copyAll();
    assert.ok(endings.get("whole")! > 0);
    assert.ok(
      (endings.get("short") ?? 0) + (endings.get("Corrupt") ?? 0) > 0,
      "the race took place",
    );
  },
);

const noTmpfs = refusesTmpfs();

for (const runtime of RUNTIMES) {
  testUnless(noTmpfs, `a full file system is an error in ${runtime}`, LONG, async (t) => {
    const directory = freshDirectory(t);
    const wrap = inSmallTmpfs(directory, "1m");
    const permissions = ["--allow-ffi", "--allow-read", "--allow-write"];
    const child = await startChild(t, runtime, { permissions, wrap });
    const file = join(directory, "file");
    const options = { length: 8 * 2 ** 20, ...READ_WRITE };
    await assert.rejects(child.ask("regionOpen", { file, options }), {
      code: "NoSpace",
      errno: "ENOSPC",
      message: /^Cannot open region ".*": .* is full, 0 bytes used and 8 MiB more needed/,
    });
    await assert.rejects(child.ask("regionOpen", { file }), { code: "NotFound" });
    await child.ask("regionOpen", { file, options: { length: 4096, ...READ_WRITE } });
    await child.ask("regionTruncate", { file, length: 8 * 2 ** 20 }); // mostly a hole
    await child.ask("regionOpen", { file, options: READ_WRITE });
    const whole = { offset: 0, length: 8 * 2 ** 20 };
    const { write, text, pack, ...others } = await child.ask("regionTouchAll", whole);
    for (const count of [write, text, pack]) assert.ok(count > 900_000 && count <= 2 ** 20, count);
    assert.deepEqual(others, { read: 8 * 2 ** 20, readInto: 8 * 2 ** 20, unpack: 8 * 2 ** 20 });
    const hole = { offset: 7 * 2 ** 20, length: 5000 };
    const endings = await child.ask("regionTouchAll", hole);
    assert.deepEqual(endings, {
      read: 5000,
      readInto: 5000,
      write: "NoSpace",
      text: "NoSpace",
      pack: "NoSpace",
      unpack: 5000,
    });
    const call = { method: "write", args: ["x", hole.offset] };
    const message = /^Cannot write region ".*": .* is full, 1 MiB used and 1 bytes? more needed/;
    await assert.rejects(child.ask("regionCall", call), { code: "NoSpace", message });
    await child.end();
  });
}

test("processes that make one file longer at once all get their length", LONG, async (t) => {
  for (let round = 0; round < scaled(5); round += 1) {
    const file = freshFile(t);
    const children = await Promise.all(
      [0, 1, 2, 3].map((turn) => fileChild(t, runtimeOf(turn))),
    );
    const lengths = children.map((_, index) => 3_000_000 * (index + 1) + 1);
    const found = await Promise.all(
      children.map((child, index) =>
        child.ask("regionOpen", { file, options: { length: lengths[index], ...READ_WRITE } })
      ),
    );
    assert.deepEqual(found, lengths);
    assert.equal(statSync(file).size, Math.max(...lengths));
    await Promise.all(children.map((child) => child.end()));
  }
});

for (const runtime of RUNTIMES) {
  test(`what a program appends stays while ${runtime} makes the file longer`, LONG, async (t) => {
    const file = freshFile(t);
    writeFileSync(file, "");
    const child = await fileChild(t, runtime);
    let isOver = false;
    const work = (async () => {
      for (let round = 1; round <= scaled(60); round += 1) {
        const options = { length: round * 1_000_000, ...READ_WRITE };
        await child.ask("regionOpen", { file, options });
        const far = { length: 2 ** 52, ...READ_WRITE };
        await assert.rejects(child.ask("regionOpen", { file, options: far }), { code: "NoSpace" });
      }
    })().finally(() => isOver = true);
    let count = 0;
    while (!isOver) {
      count += 1;
      appendFileSync(file, `<${count}>`);
      await pause(0);
    }
    await work;
    const found = [...readFileSync(file, "latin1").matchAll(/<(\d+)>/g)].map((match) => +match[1]);
    assert.deepEqual(found, Array.from({ length: count }, (_, i) => i + 1));
    await child.end();
  });
}

testUnless(NEEDS.removal, "a region goes on with its file when its name is gone", {}, (t) => {
  const region = suite(t);
  rmSync(region.filename!);
  assert.equal(region.write("still there"), 11);
  assert.equal(text(region, 0, 11), "still there");
  region.flush();
});

testUnless(NEEDS.shell, "a relative path is meant from the working directory", LONG, async (t) => {
  const directory = freshDirectory(t);
  mkdirSync(join(directory, "below"));
  writeFileSync(join(directory, "below", "file"), "here");
  for (const runtime of RUNTIMES) {
    const wrap = ["sh", "-c", 'cd "$0"; exec "$@"', directory];
    const permissions = ["--allow-ffi", "--allow-read=below"];
    const child = await startChild(t, runtime, { wrap, permissions });
    assert.equal(await child.ask("regionOpen", { file: "below/file" }), 4);
  }
});
