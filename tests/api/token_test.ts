/** Tokens: one process hands a map to another as a string, however that was started. */
import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import { CODECS } from "../support/corpus.ts";
import {
  CHILD,
  type Child,
  commandLine,
  freshAnonymous,
  freshMap,
  HERE,
  isOfProcess,
  NEEDS,
  otherThan,
  type Runtime,
  RUNTIMES,
  startChild,
  testUnless,
  thrown,
} from "../support/support.ts";

const LONG = { timeout: 60_000 };
const APIS: Record<Runtime, string[]> = {
  deno: ["Deno.Command", "node:child_process"],
  bun: ["Bun.spawn", "node:child_process"],
};

/** Commands for a grandchild, which takes them as one argument. */
function leaf(runtime: Runtime, commands: Record<string, unknown>[], permissions?: string[]) {
  const numbered = commands.map((command, request) => ({ request, ...command }));
  return [...commandLine(runtime, CHILD, permissions), JSON.stringify(numbered)];
}

/** Starts a process that may start others, with a map of its own. */
async function startParent(
  t: Parameters<typeof startChild>[0],
  runtime: Runtime,
  how: Record<string, unknown>,
): Promise<{ parent: Child; token: string }> {
  const parent = await startChild(t, runtime, { permissions: ["-A"] });
  const token = await parent.ask(String(how.command), { id: "map", ...how });
  return { parent, token };
}

test("SharedMap.token is the same for one handle, and leads to the same map", (t) => {
  for (const map of [freshMap(t), freshAnonymous(t)]) {
    assert.equal(map.token, map.token);
    using other = SharedMap.attach(map.token);
    map.set("a", 1);
    assert.equal(other.get("a"), 1);
    other.set("b", [2]);
    assert.deepEqual(map.get("b"), [2]);
    assert.equal(other.name, map.name);
  }
});

test("SharedMap.token fits an environment variable and a command line", (t) => {
  for (const map of [freshMap(t), freshAnonymous(t)]) {
    assert.match(map.token, /^[\x21-\x7e]{8,1000}$/);
  }
});

test("SharedMap.name of an anonymous map is undefined, and none of its files shows", (t) => {
  const map = freshAnonymous(t).set("a", 1);
  assert.equal(map.name, undefined);
  using other = SharedMap.attach(map.token);
  assert.equal(other.name, undefined);
});

test("SharedMap.attach() opens read-only and with the recorded codec", (t) => {
  const map = freshAnonymous(t, { codec: CODECS.json }).set("a", { b: 1 });
  thrown("Incompatible", () => SharedMap.attach(map.token));
  using reader = SharedMap.attach(map.token, { codec: CODECS.json, readonly: true });
  assert.deepEqual(reader.get("a"), { b: 1 });
  thrown("ReadOnly", () => reader.set("a", 1));
});

for (const parent of RUNTIMES) {
  for (const child of RUNTIMES) {
    for (const api of APIS[parent]) {
      const what = `by ${api} in ${parent} to a child in ${child}`;
      test(`SharedMap.token of any map is handed ${what}`, LONG, async (t) => {
        await handOver(t, { parent, child, api });
      });
    }
  }
}

interface HandOver {
  parent: Runtime;
  child: Runtime;
  api: string;
}

/**
 * A parent stores in a map without a name and in one with a name; its child reads and answers, with
 * --allow-ffi alone.
 */
async function handOver(t: Parameters<typeof startChild>[0], how: HandOver): Promise<void> {
  const { parent, token } = await startParent(t, how.parent, { command: "anonymous" });
  const named = await parent.ask("open", { id: "named", name: freshMap(t).name });
  const ids = ["map", "named"];
  const inParent = (id: string, method: string, ...args: unknown[]) =>
    parent.ask("call", { id, method, args });
  for (const id of ids) await inParent(id, "set", "question", { n: 6 });
  const byArgument = [token, named].flatMap((token, i) => {
    const call = (method: string, ...args: unknown[]) => ({
      command: "call",
      id: ids[i],
      method,
      args,
    });
    return [
      { command: "attach", id: ids[i], token },
      call("get", "question"),
      call("set", "answer", 42),
      call("toObject"),
    ];
  });
  const permissions = ["--allow-ffi"];
  const nested = await parent.ask("nest", {
    api: how.api,
    line: leaf(how.child, byArgument, permissions),
  });
  assert.equal(nested.code, 0, nested.stderr);
  const errors = nested.replies.filter((reply: { error?: unknown }) => reply.error);
  assert.deepEqual(errors, []);
  for (const [i, id] of ids.entries()) {
    assert.deepEqual(nested.replies[4 * i + 1].value, { n: 6 });
    assert.deepEqual(nested.replies[4 * i + 3].value, { question: { n: 6 }, answer: 42 });
    assert.equal(await inParent(id, "get", "answer"), 42);
  }
}

for (const runtime of RUNTIMES) {
  test(`SharedMap.token reaches ${runtime} through the environment`, LONG, async (t) => {
    const map = freshAnonymous(t).set("a", 1);
    const permissions = ["--allow-ffi", "--allow-env=SHMAP_TOKEN"];
    const child = await startChild(t, runtime, { env: { SHMAP_TOKEN: map.token }, permissions });
    await child.ask("attachEnvironment", { id: "map", variable: "SHMAP_TOKEN" });
    assert.equal(await child.call("get", "a"), 1);
    await child.call("set", "b", 2);
    assert.equal(map.get("b"), 2);
  });

  test(`SharedMap.token of a child in ${runtime} outlives the creator`, LONG, async (t) => {
    const [creator, heir, grandchild] = await Promise.all(
      [HERE, runtime, otherThan(runtime)].map((each) => startChild(t, each)),
    );
    const first = await creator.ask("anonymous", { id: "map" });
    await creator.call("set", "a", { kept: true });
    const second = await heir.ask("attach", { id: "map", token: first });
    assert.equal(second === first, !isOfProcess(first));
    await creator.kill();
    const stale = grandchild.ask("attach", { id: "map", token: first });
    if (isOfProcess(first)) {
      await assert.rejects(stale, { name: "SharedMemoryError", code: "NotFound" });
    }
    await grandchild.ask("attach", { id: "map", token: second });
    assert.deepEqual(await grandchild.call("get", "a"), { kept: true });
    await grandchild.call("set", "b", 2);
    assert.equal(await heir.call("get", "b"), 2);
    const third = await grandchild.ask("token", { id: "map" });
    await heir.kill();
    using map = SharedMap.attach(third);
    assert.deepEqual([map.size, map.get("b")], [2, 2]);
  });

  const title = `SharedMap leaks no descriptor to a child that ${runtime} starts`;
  testUnless(NEEDS.proc, title, LONG, async (t) => {
    const { name } = freshMap(t);
    const { parent } = await startParent(t, runtime, { command: "open", name });
    await parent.ask("anonymous", { id: "anonymous" });
    await parent.ask("open", { id: "reader", name, options: { readonly: true } });
    const ways = RUNTIMES.flatMap((child) => APIS[runtime].map((api) => ({ child, api })));
    await Promise.all(ways.map(async ({ child, api }) => {
      const line = leaf(child, [{ command: "descriptors" }], ["-A"]);
      const nested = await parent.ask("nest", { api, line });
      assert.equal(nested.code, 0, nested.stderr);
      const links: string[] = nested.replies[0].value;
      assert.ok(links.length >= 3, `${links}`);
      // Not by "shmap": Deno's own cache may lie in a directory of that name.
      const ours = links.filter((link) => /libshmap|memfd|\/dev\/shm|\(deleted\)/.test(link));
      assert.deepEqual(ours, [], `a child in ${child} by ${api}`);
    }));
    const own: string[] = await parent.ask("descriptors");
    assert.ok(own.some((link) => link.includes(name)), "the check would not have seen ours");
  });
}

test('SharedMap.attach() of a token whose handle was closed is "NotFound"', (t) => {
  const map = SharedMap.anonymous().set("a", 1);
  const { token } = map;
  const second = SharedMap.attach(token);
  const last = second.token;
  map.close();
  if (isOfProcess(token)) thrown("NotFound", () => SharedMap.attach(token));
  const third = SharedMap.attach(last);
  assert.equal(third.get("a"), 1);
  third.close();
  second.close();
  for (const each of [token, last]) thrown("NotFound", () => SharedMap.attach(each));
  const named = freshMap(t);
  SharedMap.unlink(named.name);
  thrown("NotFound", () => SharedMap.attach(named.token));
});

test('SharedMap.attach() of a named map that was replaced is "NotFound"', (t) => {
  const map = freshMap(t);
  const { token } = map;
  using fresh = SharedMap.open(map.name, { mode: "exclusive" });
  fresh.set("a", 1);
  thrown("NotFound", () => SharedMap.attach(token));
  using same = SharedMap.attach(fresh.token);
  assert.equal(same.get("a"), 1);
});

test('SharedMap.attach() of another segment\'s id is "NotFound"', (t) => {
  const [named, anonymous] = [freshMap(t), freshAnonymous(t)];
  for (const { token } of [named, anonymous]) {
    const cut = token.lastIndexOf(":") + 1;
    const digits = [...token.slice(cut)];
    for (const at of [0, digits.length - 1]) {
      const other = [...digits];
      other[at] = other[at] === "1" ? "2" : "1";
      thrown("NotFound", () => SharedMap.attach(token.slice(0, cut) + other.join("")));
    }
  }
});

/** Whether the system shows us what a process has open. */
function mayLookInto(pid: number): boolean {
  try {
    readdirSync(`/proc/${pid}/fd`);
    readlinkSync(`/proc/${pid}/cwd`); // the first alone may be allowed
    return true;
  } catch {
    return false;
  }
}

testUnless(
  NEEDS.memoryFiles,
  'SharedMap.attach() of what is not ours is "NotFound", or "PermissionDenied" to look',
  {},
  (t) => {
    const [, pid, fd, id] = freshAnonymous(t).token.split(":");
    assert.equal(Number(pid), process.pid);
    for (const other of [`fd:${pid}:0:${id}`, `fd:${pid}:99999:${id}`]) {
      thrown("NotFound", () => SharedMap.attach(other));
    }
    const init = `fd:1:${fd}:${id}`;
    thrown(mayLookInto(1) ? "NotFound" : "PermissionDenied", () => SharedMap.attach(init));
  },
);

test("SharedMap.attach() of what is no token is a TypeError", (t) => {
  const [named, anonymous] = [freshMap(t).token, freshAnonymous(t).token];
  const bad: unknown[] = [
    "",
    "x",
    "fd",
    "fd:",
    "fd:::",
    "fd:1:2",
    "fd:x:y:z",
    "fd:-1:2:0123456789abcdef",
    "name:",
    "name:::",
    "other:1:2:3",
    ` ${anonymous}`,
    `${anonymous} `,
    `${anonymous}:1`,
    anonymous.slice(0, -1),
    named.slice(0, -1),
    named.toUpperCase(),
    "x".repeat(100_000),
    `${named}\0`,
    7,
    null,
    undefined,
    {},
  ];
  for (const token of bad) {
    assert.throws(() => SharedMap.attach(token as string), TypeError, `${token}`);
  }
});
