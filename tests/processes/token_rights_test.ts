/**
 * Tokens of processes whose descriptors are closed to others: with capabilities of their own or of
 * their file, after a change of the user, of another user, in another PID namespace.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, constants, copyFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import {
  type Child,
  type ChildOptions,
  CHILDREN,
  commandLine,
  executable,
  freshDirectory,
  HERE,
  NEEDS,
  otherThan,
  type Runtime,
  SHM,
  startChild,
  type TestContext,
  testUnless,
  until,
} from "../support/support.ts";

const LONG = { timeout: 120_000 };
const USER = 12_345;
const AS_USER = ["setpriv", `--reuid=${USER}`, `--regid=${USER}`, "--clear-groups"];
const CAPABLE = [...AS_USER, "--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"];
const APART = ["unshare", "-Urpf", "--mount-proc", "--kill-child=SIGKILL"];
const ALL: ChildOptions = { permissions: ["-A"] };

/** Why the words do not make the command after them run, or undefined. */
function refused(wrap: readonly string[], what: string): string | undefined {
  if (NEEDS.memoryFiles) return NEEDS.memoryFiles;
  const [command, ...args] = [...wrap, "true"];
  const { status, stderr, error } = spawnSync(command, args, { encoding: "utf8" });
  return status === 0 ? undefined : `${what}: ${`${stderr || error}`.trim().slice(0, 80)}`;
}

/** Why no other user can run the child script here, or undefined. */
function strangersCannotRun(): string | undefined {
  const [command, ...args] = [...AS_USER, ...commandLine(HERE)];
  const commands = JSON.stringify([{ request: 1, command: "ready" }]);
  const { status, stderr } = spawnSync(command, [...args, commands], { encoding: "utf8" });
  return status === 0 ? undefined : `another user cannot run this: ${stderr.trim().slice(0, 80)}`;
}

const noUser = process.getuid?.() === 0
  ? refused(AS_USER, "no other user") ?? strangersCannotRun()
  : "only root can become another user";
const noCapabilities = noUser ?? refused(CAPABLE, "no capabilities can be given");
const noNamespace = refused(APART, "no PID namespace");

/** A copy of the runtime with a capability of its file, started as another user. */
function withFileCapability(t: TestContext, runtime: Runtime): string[] {
  const directory = freshDirectory(t);
  chmodSync(directory, 0o755);
  const copy = join(directory, runtime);
  copyFileSync(executable(runtime), copy, constants.COPYFILE_FICLONE);
  chmodSync(copy, 0o755);
  const { status, stderr } = spawnSync("setcap", ["cap_net_bind_service=ep", copy]);
  assert.equal(status, 0, `${stderr}`);
  return ["sh", "-c", `copy=$0; shift; exec ${AS_USER.join(" ")} "$copy" "$@"`, copy];
}

function noFileCapabilities(): string | undefined {
  if (noUser) return noUser;
  const { error } = spawnSync("setcap", ["-h"]);
  return error ? "no setcap" : undefined;
}

/** The processes that others may not look into, and how each of them comes to be. */
const GIVERS: [string, string | undefined, (t: TestContext, runtime: Runtime) => Promise<Child>][] =
  [
    [
      "with capabilities",
      noCapabilities,
      (t, runtime) => startChild(t, runtime, { ...ALL, wrap: CAPABLE }),
    ],
    [
      "with capabilities of its file",
      noFileCapabilities(),
      (t, runtime) => startChild(t, runtime, { ...ALL, wrap: withFileCapability(t, runtime) }),
    ],
    ["that gave up root", noUser, async (t, runtime) => {
      const child = await startChild(t, runtime, ALL);
      await child.ask("becomeUser", { user: USER });
      return child;
    }],
  ];

/** The file that a token leads to. */
function fileOf(token: string): string {
  const [kind, number] = token.split(":");
  assert.equal(kind, "file", token);
  return join(SHM, `.~${number}`);
}

for (const runtime of CHILDREN) {
  for (const [what, reason, start] of GIVERS) {
    testUnless(reason, `a token of ${runtime} ${what} leads its user there`, LONG, async (t) => {
      const giver = await start(t, runtime);
      const token = await giver.ask("anonymous", { id: "map" });
      await giver.call("set", "a", { b: [1] });
      const length = 100;
      await giver.ask("regionAnonymous", { length });
      await giver.ask("regionCall", { method: "write", args: ["hello"] });
      const regionToken = await giver.ask("regionToken", {});
      const files = [token, regionToken].map(fileOf);
      const taker = await startChild(t, otherThan(runtime), { ...ALL, wrap: AS_USER });
      const taken = await taker.ask("attach", { id: "map", token });
      assert.equal(taken, token);
      assert.deepEqual(await taker.call("get", "a"), { b: [1] });
      assert.equal(await taker.ask("regionAttach", { token: regionToken }), length);
      assert.equal(await taker.ask("regionText", { offset: 0, length: 5 }), "hello");
      await taker.call("set", "c", 1);
      assert.equal(await giver.call("get", "c"), 1);
      await giver.kill();
      assert.deepEqual(files.map((file) => existsSync(file)), [true, true]);
      const third = await startChild(t, runtime, { ...ALL, wrap: AS_USER });
      await third.ask("attach", { id: "map", token });
      await taker.kill();
      assert.deepEqual(await third.call("get", "a"), { b: [1] });
      await third.ask("close", { id: "map" });
      assert.equal(existsSync(files[0]), false, "the last handle removes the name");
      assert.equal(existsSync(files[1]), true, "a killed one does not");
      await third.ask("list");
      await until("a list to remove it", () => !existsSync(files[1]));
    });
  }

  testUnless(noUser, `a map of ${runtime} made before it gave up root says so`, LONG, async (t) => {
    const giver = await startChild(t, runtime, ALL);
    const token = await giver.ask("anonymous", { id: "map" });
    await giver.ask("becomeUser", { user: USER });
    const taker = await startChild(t, otherThan(runtime), { wrap: AS_USER });
    await assertClosed(taker, token, giver);
    await giver.ask("anonymous", { id: "later" });
    await taker.ask("attach", { token: await giver.ask("token", { id: "later" }) });
    await giver.ask("close", { id: "later" });
    await taker.ask("close", { id: "map" });
  });

  testUnless(noUser, `a token of another user's ${runtime} says so`, LONG, async (t) => {
    const giver = await startChild(t, runtime);
    const token = await giver.ask("anonymous", { id: "map" });
    const taker = await startChild(t, otherThan(runtime), { wrap: AS_USER });
    await assertClosed(taker, token, giver);
  });

  testUnless(
    noNamespace,
    `a token in another PID namespace than that of ${runtime} says so`,
    LONG,
    async (t) => {
      const giver = await startChild(t, runtime);
      const token = await giver.ask("anonymous", { id: "map" });
      const taker = await startChild(t, otherThan(runtime), { wrap: APART });
      await assert.rejects(taker.ask("attach", { token }), {
        code: "NotFound",
        message:
          `Cannot attach to anonymous map: this PID namespace has no process ${giver.pid}, ` +
          "which gave the token: it has ended, or is in another PID namespace, to which only names " +
          "lead",
      });
    },
  );
}

async function assertClosed(taker: Child, token: string, giver: Child): Promise<void> {
  await assert.rejects(taker.ask("attach", { token }), {
    code: "PermissionDenied",
    errno: "EACCES",
    message: `Cannot attach to anonymous map: process ${giver.pid}, which gave the token, is ` +
      "closed to this one (EACCES): it has another user, or capabilities, or has changed its user " +
      "since; make what is to be shared after that, or give it a name",
  });
}
