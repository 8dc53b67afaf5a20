/** Limits of a process and of a file system, each told apart from a file system that is full. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import {
  CHILDREN,
  freshDirectory,
  NEEDS,
  refusesTmpfs,
  startChild,
  testUnless,
} from "../support/support.ts";

const LONG = { timeout: 120_000 };

/** The words that put a limit on the command after them. */
function limited(limit: string): string[] {
  return ["sh", "-c", `ulimit ${limit} && exec "$@"`, "sh"];
}

for (const runtime of CHILDREN) {
  testUnless(
    NEEDS.memoryFiles ?? NEEDS.shell,
    `a file that may not grow says so in ${runtime}`,
    LONG,
    async (t) => {
      const child = await startChild(t, runtime, {
        wrap: limited("-f 100000"),
        permissions: ["-A"],
      });
      await child.ask("anonymous", { id: "map" });
      await assert.rejects(child.ask("fill", { id: "map", to: 1e6 }), {
        code: "NoSpace",
        errno: "EFBIG",
        message: "Cannot grow anonymous map: its file may not be larger for this process; raise " +
          '"ulimit -f" (EFBIG)',
      });
    },
  );

  testUnless(
    NEEDS.memoryFiles ?? refusesTmpfs(),
    `a file system without inodes says so in ${runtime}`,
    LONG,
    async (t) => {
      const directory = freshDirectory(t);
      const script = `mount -t tmpfs -o size=4m,nr_inodes=2 shmap-test "$0" && exec "$@"`;
      const wrap = ["unshare", "-Urm", "sh", "-c", script, directory];
      const child = await startChild(t, runtime, { wrap, permissions: ["-A"] });
      await child.ask("open", { id: "map", name: "first", options: { directory } });
      await assert.rejects(child.ask("open", { name: "second", options: { directory } }), {
        code: "NoSpace",
        errno: "ENOSPC",
        message:
          `Cannot open map "second": ${directory} takes no more files (ENOSPC); remove some, ` +
          "or give it more inodes",
      });
    },
  );

  test(`a directory that is not there says so in ${runtime}`, LONG, async (t) => {
    const child = await startChild(t, runtime, { permissions: ["-A"] });
    const directory = join(freshDirectory(t), "none");
    await assert.rejects(child.ask("open", { name: "a", options: { directory } }), {
      code: "NotFound",
      errno: "ENOENT",
      message: `Cannot open map "a": there is no directory ${directory} (ENOENT); make it, or ` +
        "state another one",
    });
  });
}
