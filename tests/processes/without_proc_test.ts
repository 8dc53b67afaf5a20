/** What works where no /proc is mounted, as in a bare mount namespace, and what the rest says. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import {
  type Child,
  CHILDREN,
  freshAnonymous,
  freshDirectory,
  freshMap,
  freshName,
  type Runtime,
  SHM,
  startChild,
  type TestContext,
  testUnless,
} from "../support/support.ts";
import { SharedMap } from "../../mod.ts";

const LONG = { timeout: 60_000 };

/** Why no process can be given a view of the machine without /proc here, or undefined. */
function procStays(): string | undefined {
  if (process.platform !== "linux") return "only Linux has a /proc";
  if (process.getuid?.() !== 0) return "only root can take /proc away";
  const command = "umount -l /proc && test ! -e /proc/self && command -v nsenter";
  const { status } = spawnSync("unshare", ["-m", "sh", "-c", command]);
  return status === 0 ? undefined : "no /proc can be taken away here";
}

/** A child that loses /proc once its runtime is up, which Bun cannot be without. */
async function startWithoutProc(t: TestContext, runtime: Runtime): Promise<Child> {
  const child = await startChild(t, runtime, { wrap: ["unshare", "-m"], permissions: ["-A"] });
  const args = ["-t", `${child.pid}`, "-m", "umount", "-l", "/proc"];
  const { status, stderr } = spawnSync("nsenter", args, { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  return child;
}

const noProc = { code: "Unsupported", message: /: there is no \/proc, / };
const noFacts = { code: "Unsupported", message: /\/proc does not tell .* lock: "kernel"/ };

for (const runtime of CHILDREN) {
  testUnless(
    procStays(),
    `without /proc a map of ${runtime} has kernel locks and a name, or the error says so`,
    LONG,
    async (t) => {
      const child = await startWithoutProc(t, runtime);
      const name = freshName(t);
      const robust = { lock: "robust" } as const;
      for (const mode of ["shared", "create", "exclusive"]) {
        await assert.rejects(child.ask("open", { name, options: { mode, ...robust } }), noFacts);
      }
      assert.equal(existsSync(join(SHM, name)), false);
      await child.ask("open", { id: "map", name, options: { lock: "kernel" } });
      await child.call("set", "a", 1);
      using map = SharedMap.open<number>(name);
      assert.equal(map.set("b", 2).get("a"), 1);
      assert.equal(await child.call("get", "b"), 2);
      await child.ask("lock");
      assert.equal(map.tryLock(), undefined);
      await child.ask("unlock");
      const exclusive = { mode: "exclusive", lock: "kernel" };
      await child.ask("open", { id: "fresh", name, options: exclusive });
      await assert.rejects(child.call("get", "b"), { code: "Replaced" });
      assert.deepEqual(readdirSync(SHM).filter((file) => file.includes(name)), [name]);
      await child.ask("attach", { id: "again", token: await child.ask("token", { id: "fresh" }) });

      // A map whose mutexes are shared can be read; to write would be to guess.
      const other = freshMap(t, robust).set("a", 1);
      await assert.rejects(child.ask("open", { name: other.name }), noFacts);
      await child.ask("open", { id: "map", name: other.name, options: { readonly: true } });
      assert.equal(await child.call("get", "a"), 1);

      await assert.rejects(child.ask("anonymous", { options: { lock: "kernel" } }), noProc);
      const unnamed = freshAnonymous(t, { lock: "kernel" });
      await assert.rejects(child.ask("attach", { token: unnamed.token }), noProc);
      await child.end();
    },
  );

  testUnless(
    procStays(),
    `without /proc a region of ${runtime} has a path, or the error says so`,
    LONG,
    async (t) => {
      const child = await startWithoutProc(t, runtime);
      const file = join(freshDirectory(t), "file");
      writeFileSync(file, "hello");
      const options = { length: 100_000, protection: "read-write" };
      assert.equal(await child.ask("regionOpen", { file, options }), 100_000);
      await child.ask("regionLock");
      assert.equal(await child.ask("regionText", { offset: 0, length: 5 }), "hello");
      await child.ask("regionUnlock");
      await assert.rejects(child.ask("regionOpen", { file: 0 }), noProc);
      await assert.rejects(child.ask("regionAnonymous", { length: 100 }), noProc);
      await child.end();
    },
  );
}
