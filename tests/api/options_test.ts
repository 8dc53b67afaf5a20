/** Options that a call does not have: a TypeError that names the nearest one; nothing is done. */
import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Mmap, SharedMap, SharedValue } from "../../mod.ts";
import { freshAnonymous, freshDirectory, freshMap, freshName } from "../support/support.ts";

type Options = Record<string, unknown>;

interface Call {
  what: string;
  /** All options that it has. */
  has: string[];
  call: (options: Options) => unknown;
}

const OPEN = [
  ...["mode", "readonly", "permissions", "allowForeignOwner", "directory", "maxBytes", "lock"],
  ...["timeout", "codec", "frozen"],
];
const ANONYMOUS = ["maxBytes", "lock", "timeout", "codec", "frozen"];
const ATTACH = ["readonly", "allowForeignOwner", "timeout", "codec", "frozen"];

/** The options of a call that opens a map: of a value, nothing ends. */
const ofMap = (names: string[]) => [...names, "ttl"];
const EXPIRY = ["ttl", "expires"];

/** Every call that takes an object of options. */
function allCalls(t: TestContext): Call[] {
  const map = freshMap(t);
  const anonymous = freshAnonymous(t);
  const value = SharedValue.anonymous();
  const file = join(freshDirectory(t), "file");
  writeFileSync(file, "bytes");
  const region = Mmap.open(file);
  const memory = Mmap.anonymous(100);
  t.after(() => {
    value.close();
    region.close();
    memory.close();
  });
  const name = freshName(t);
  return [
    { what: "SharedMap.open", has: ofMap(OPEN), call: (o) => SharedMap.open(name, o) },
    { what: "SharedMap.anonymous", has: ofMap(ANONYMOUS), call: (o) => SharedMap.anonymous(o) },
    {
      what: "SharedMap.attach",
      has: ofMap(ATTACH),
      call: (o) => SharedMap.attach(anonymous.token, o),
    },
    { what: "SharedMap.unlink", has: ["directory"], call: (o) => SharedMap.unlink(map.name!, o) },
    { what: "SharedMap.list", has: ["directory"], call: (o) => SharedMap.list(o) },
    {
      what: "SharedValue.open",
      has: OPEN,
      call: (o) => SharedValue.open(freshName(t, "value"), o),
    },
    {
      what: "SharedValue.anonymous",
      has: ANONYMOUS,
      call: (o) => SharedValue.anonymous(o),
    },
    {
      what: "SharedValue.attach",
      has: ATTACH,
      call: (o) => SharedValue.attach(value.token, o),
    },
    {
      what: "SharedValue.unlink",
      has: ["directory"],
      call: (o) => SharedValue.unlink(map.name!, o),
    },
    { what: "SharedValue.list", has: ["directory"], call: (o) => SharedValue.list(o) },
    { what: "map.lock", has: ["timeout"], call: (o) => map.lock(o) },
    { what: "value.lock", has: ["timeout"], call: (o) => value.lock(o) },
    { what: "map.lockAsync", has: ["timeout", "signal"], call: (o) => map.lockAsync(o) },
    ...callsOfEntries(map),
    {
      what: "Mmap.open",
      has: ["length", "protection", "sharing"],
      call: (o) => Mmap.open(file, o),
    },
    {
      what: "Mmap.attach",
      has: ["allowForeignOwner"],
      call: (o) => Mmap.attach(memory.token, o),
    },
    { what: "region.lock", has: ["timeout", "shared"], call: (o) => region.lock(o) },
    { what: "region.tryLock", has: ["shared"], call: (o) => region.tryLock(o) },
    {
      what: "region.lockAsync",
      has: ["timeout", "signal", "shared"],
      call: (o) => region.lockAsync(o),
    },
  ];
}

/** The calls of a map that take options, but for those of its lock. */
function callsOfEntries(map: SharedMap): Call[] {
  return [
    { what: "map.set", has: EXPIRY, call: (o) => void map.set("k", 1, o) },
    { what: "map.add", has: EXPIRY, call: (o) => map.add("k", 1, o) },
    { what: "map.swap", has: EXPIRY, call: (o) => map.swap("k", 1, o) },
    { what: "map.update", has: EXPIRY, call: (o) => map.update("k", () => 1, o) },
    { what: "map.replace", has: [...EXPIRY, "ifVersion"], call: (o) => map.replace("k", 1, o) },
    { what: "map.delete", has: ["ifVersion"], call: (o) => map.delete("gone", o) },
    {
      what: "map.increment",
      has: ["initial", ...EXPIRY],
      call: (o) => map.increment("n", 1, o),
    },
    { what: "map.incrementEntry", has: ["initial", ...EXPIRY], call: (o) => count(map, o) },
    { what: "map.keys", has: ["prefix"], call: (o) => map.keys(o) },
    { what: "map.values", has: ["prefix"], call: (o) => map.values(o) },
    { what: "map.entries", has: ["prefix"], call: (o) => map.entries(o) },
    { what: "map.clear", has: ["prefix"], call: (o) => map.clear(o) },
    { what: "map.scan", has: ["prefix", "cursor", "limit"], call: (o) => map.scan(o) },
  ];
}

function count(map: SharedMap, options: Options): unknown {
  return map.incrementEntry("n", 1, options);
}

/** What the error says; fails unless it is a TypeError. */
async function refusal({ what, call }: Call, options: Options): Promise<string> {
  try {
    await call(options);
  } catch (error) {
    assert.ok(error instanceof TypeError, `${what}: ${error}`);
    return error.message;
  }
  return assert.fail(`${what} takes ${JSON.stringify(options)}`);
}

/** A word with two letters exchanged, one missing, one more, or another one. */
function misspelt(word: string): string[] {
  return [
    `${word[1]}${word[0]}${word.slice(2)}`,
    `${word.slice(0, 2)}${word.slice(3)}`,
    `${word}s`,
    `x${word.slice(1)}`,
    word.toUpperCase(),
  ].filter((other) => other !== word); // two letters may be the same
}

test("every option that a call does not have is a TypeError that names the nearest one", async (t) => {
  for (const each of allCalls(t)) {
    for (const known of each.has) {
      for (const name of misspelt(known)) {
        const rest = each.has.length > 1 ? `, of ${each.has.join(", ")}` : "";
        assert.equal(
          await refusal(each, { [name]: undefined }),
          `Cannot use an option "${name}": the nearest here is "${known}"${rest}`,
          each.what,
        );
      }
    }
  }
});

test("an option that only other calls have is a TypeError that names all of this call", async (t) => {
  const all = [...new Set(allCalls(t).flatMap(({ has }) => has))];
  for (const each of allCalls(t)) {
    for (const name of all.filter((other) => !each.has.includes(other))) {
      const message = await refusal(each, { [name]: undefined });
      assert.ok(message.startsWith(`Cannot use an option "${name}": the nearest here is "`));
      assert.ok(each.has.every((known) => message.includes(known)), message);
    }
  }
});

test("options that a call has are taken, also undefined ones", async (t) => {
  for (const { what, has, call } of allCalls(t)) {
    const options = Object.fromEntries(has.map((name) => [name, undefined]));
    const result = await call(options) as { close?(): void; unlock?(): void } | boolean;
    if (typeof result !== "object") continue;
    result.unlock?.();
    result.close?.();
    assert.ok(result, what);
  }
});

test("a call with an unknown option does nothing", (t) => {
  const name = freshName(t);
  const wrong = { mdoe: "create" } as object;
  assert.throws(() => SharedMap.open(name, wrong), {
    name: "TypeError",
    message: /^Cannot use an option "mdoe": the nearest here is "mode", of /,
  });
  assert.equal(SharedMap.unlink(name), false);
  const map = freshMap(t);
  assert.throws(() => map.lock({ shared: true } as object), TypeError);
  assert.equal(map.locked, false);
  const file = join(freshDirectory(t), "file");
  const read = { protection: "read-write", lenght: 10 } as object;
  assert.throws(() => Mmap.open(file, read), /the nearest here is "length"/);
  assert.equal(existsSync(file), false);
});

test("options of a long name and options on Object.prototype do no harm", (t) => {
  const name = freshName(t);
  assert.throws(() => SharedMap.open(name, { ["x".repeat(1e6)]: 1 } as object), (error: Error) => {
    assert.ok(error instanceof TypeError && error.message.length < 300, error.message);
    return true;
  });
  const prototype = Object.prototype as unknown as Record<string, unknown>;
  prototype.surprise = 1;
  try {
    SharedMap.open(name, {}).close();
  } finally {
    delete prototype.surprise;
  }
});
