/** Whose segments a process uses: its own and root's, another user's only when told to. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Mmap, SharedMap } from "../../mod.ts";
import {
  commandLine,
  content,
  freshDirectory,
  freshMap,
  HERE,
  RUNTIMES,
  SHM,
  startChild,
  testUnless,
  thrown,
} from "../support/support.ts";

const STRANGER = 12_345;
const LONG = { timeout: 60_000 };
const notRoot = process.getuid?.() === 0 ? undefined : "only root can give files away";

/** The words that make the command after them run as another user without any privilege. */
const AS_STRANGER = ["setpriv", `--reuid=${STRANGER}`, `--regid=${STRANGER}`, "--clear-groups"];

/** Why no other user can run the child script here, or undefined. */
function strangersCannotRun(): string | undefined {
  if (notRoot) return notRoot;
  const [command, ...args] = [...AS_STRANGER, ...commandLine(HERE)];
  const commands = JSON.stringify([{ request: 1, command: "ready" }]);
  const result = spawnSync(command, [...args, commands], { encoding: "utf8" });
  if (result.status === 0) return undefined;
  return `another user cannot run this: ${`${result.stderr || result.error}`.trim().slice(0, 80)}`;
}

testUnless(notRoot, 'SharedMap.open() of another user\'s map is "PermissionDenied"', LONG, (t) => {
  const { name } = freshMap(t).set("a", 1);
  const path = join(SHM, name);
  chownSync(path, STRANGER, STRANGER);
  const before = readFileSync(path);
  for (const options of [{}, { mode: "attach" }, { readonly: true }] as const) {
    const error = thrown("PermissionDenied", () => SharedMap.open(name, options));
    assert.ok(error.message.includes(name), error.message);
    assert.ok(error.message.includes(`${STRANGER}`), error.message);
  }
  thrown("Exists", () => SharedMap.open(name, { mode: "create" }));
  assert.deepEqual(readFileSync(path), before);
});

testUnless(
  notRoot,
  "SharedMap.open() in mode exclusive does not displace another user's map",
  LONG,
  (t) => {
    const map = freshMap(t).set("a", 1);
    const path = join(SHM, map.name);
    chownSync(path, STRANGER, STRANGER);
    const { ino } = statSync(path);
    thrown("PermissionDenied", () => SharedMap.open(map.name, { mode: "exclusive" }));
    assert.equal(statSync(path).ino, ino);
    assert.equal(map.get("a"), 1);
  },
);

testUnless(notRoot, "SharedMap.open() takes another user's map when allowed to", LONG, (t) => {
  const map = freshMap(t).set("a", 1);
  chownSync(join(SHM, map.name), STRANGER, STRANGER);
  using other = SharedMap.open(map.name, { allowForeignOwner: true });
  assert.equal(other.set("b", 2).get("a"), 1);
  using reader = SharedMap.open(map.name, { allowForeignOwner: true, readonly: true });
  assert.deepEqual(content(reader), [["a", 1], ["b", 2]]);
});

for (const runtime of RUNTIMES) {
  testUnless(
    strangersCannotRun(),
    `Mmap.attach() takes a region of another user, made in ${runtime}, only when allowed to`,
    LONG,
    async (t) => {
      const child = await startChild(t, runtime, { wrap: AS_STRANGER });
      await child.ask("regionAnonymous", { length: 100 });
      const token = await child.ask("regionToken");
      const error = thrown("PermissionDenied", () => Mmap.attach(token));
      assert.match(error.message, new RegExp(`user ${STRANGER}, and allowForeignOwner`));
      thrown("PermissionDenied", () => Mmap.attach(token, { allowForeignOwner: false }));
      using region = Mmap.attach(token, { allowForeignOwner: true });
      assert.equal(region.write("hello"), 5);
      const map = await child.ask("anonymous", { id: "map" });
      thrown("PermissionDenied", () => SharedMap.attach(map));
      using other = SharedMap.attach(map, { allowForeignOwner: true });
      assert.equal(other.size, 0);
    },
  );
}

testUnless(notRoot, "SharedMap.list() names the owner of each map", LONG, (t) => {
  const directory = freshDirectory(t, SHM);
  SharedMap.open("mine", { directory }).close();
  SharedMap.open("theirs", { directory }).close();
  chownSync(join(directory, "theirs"), STRANGER, STRANGER);
  const owners = SharedMap.list({ directory }).map((info) => `${info.name} ${info.owner}`).sort();
  assert.deepEqual(owners, ["mine 0", `theirs ${STRANGER}`]);
});

testUnless(
  strangersCannotRun(),
  "SharedMap.open() takes root's map that its permissions open to all",
  LONG,
  async (t) => {
    const map = freshMap(t, { permissions: 0o666 }).set("a", 1);
    const child = await startChild(t, HERE, { wrap: AS_STRANGER });
    await child.ask("open", { id: "map", name: map.name, options: { mode: "attach" } });
    assert.equal(await child.call("get", "a"), 1);
    await child.call("set", "b", 2);
    assert.equal(map.get("b"), 2);
  },
);

testUnless(
  strangersCannotRun(),
  'SharedMap.open() of a map its permissions close is "PermissionDenied"',
  LONG,
  async (t) => {
    const closed = freshMap(t).set("a", 1);
    const readable = freshMap(t, { permissions: 0o644 }).set("a", 1);
    const child = await startChild(t, HERE, { wrap: AS_STRANGER });
    const open = (name: string, options = {}) => child.ask("open", { id: "map", name, options });
    const denied = { code: "PermissionDenied" };
    await assert.rejects(open(closed.name), denied);
    await assert.rejects(open(closed.name, { readonly: true }), denied);
    await assert.rejects(open(closed.name, { mode: "exclusive" }), denied);
    await assert.rejects(child.ask("unlinkName", { name: closed.name }), denied);
    await assert.rejects(open(readable.name), denied);
    await open(readable.name, { readonly: true });
    assert.equal(await child.call("get", "a"), 1);
    assert.deepEqual([content(closed), content(readable)], [[["a", 1]], [["a", 1]]]);
  },
);

testUnless(
  strangersCannotRun(),
  'SharedMap.open() in a directory one may not write to is "PermissionDenied"',
  LONG,
  async (t) => {
    const directory = freshDirectory(t, SHM);
    chmodSync(directory, 0o755);
    const child = await startChild(t, HERE, { wrap: AS_STRANGER, permissions: ["-A"] });
    const open = child.ask("open", { id: "map", name: "name", options: { directory } });
    await assert.rejects(open, { code: "PermissionDenied" });
    assert.deepEqual(SharedMap.list({ directory }), []);
  },
);
