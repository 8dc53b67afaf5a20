/**
 * The other process: takes commands as JSON lines on stdin, or as one JSON list in its first
 * argument, and answers each with a JSON line. Ends with its stdin.
 */
import { spawn } from "node:child_process";
import { readdirSync, readlinkSync, statfsSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { type Lock, SharedMap, SharedValue } from "../../mod.ts";
import "./lock_mode.ts";
import { checkCorpus, CODECS, writeCorpus } from "./corpus.ts";
import { beginLifetime } from "./lifetime.ts";
import { LOCK_TASKS, VALUE_TASKS } from "./lock_tasks.ts";
import { REGION_COMMANDS } from "./region_tasks.ts";
import { say } from "./say.ts";
import { checkStructures, writeStructures } from "./structures.ts";
import { churn, TASKS } from "./tasks.ts";

// deno-lint-ignore no-explicit-any
type Json = any;
type Commands = Record<string, (args: Json) => unknown>;

interface Deno {
  Command: new (command: string, options: unknown) => {
    output(): Promise<{ code: number; stdout: Uint8Array; stderr: Uint8Array }>;
  };
}
interface Bun {
  gc(force: boolean): void;
  spawn(command: string[], options: unknown): {
    stdout: ReadableStream;
    stderr: ReadableStream;
    exited: Promise<number>;
  };
}
const { Deno, Bun } = globalThis as unknown as { Deno?: Deno; Bun?: Bun };

const objects = new Map<string, SharedMap | SharedValue>();
const locks = new Map<string, Lock>();
const zeros = new Map<number, Uint8Array>();
const inLine = new Map<string, Promise<Lock>>();
const KINDS = { map: SharedMap, value: SharedValue };

/** What was opened as `id`: a map, unless the command opened something else. */
function opened(id = "map"): Json {
  const object = objects.get(id);
  if (!object) throw new Error(`nothing was opened as "${id}"`);
  return object;
}

function keep(id = "map", object: SharedMap | SharedValue): string {
  objects.set(id, object);
  return object.token;
}

/** Keeps a lock for a later `unlock`; tells whether it was had, and if so what it says. */
function keepLock(as = "lock", lock: Lock | undefined): Json {
  if (lock === undefined) return null;
  locks.set(as, lock);
  return { recovered: lock.recovered };
}

function kindOf({ kind = "map" }: Json): typeof SharedMap | typeof SharedValue {
  return KINDS[kind as keyof typeof KINDS];
}

/** Options as JSON has them, with the codec by its name and "Infinity" as a word. */
function optionsFrom(options: Json = {}): Json {
  const found = { ...options };
  if (found.codec) found.codec = CODECS[found.codec];
  if (found.timeout === "Infinity") found.timeout = Infinity;
  return found;
}

const COMMANDS: Commands = {
  ready: () => {
    beginLifetime();
    return process.pid;
  },
  /** Forgets all that this process has, for the next test; whether nothing can come of it later. */
  reset: () => {
    for (const object of objects.values()) object.close();
    for (const held of [objects, locks]) held.clear();
    return inLine.size === 0;
  },
  becomeUser: ({ user }) => {
    process.setgid!(user);
    process.setuid!(user);
  },
  open: (args) => keep(args.id, kindOf(args).open(args.name, optionsFrom(args.options))),
  anonymous: (args) => keep(args.id, kindOf(args).anonymous(optionsFrom(args.options))),
  attach: (args) => keep(args.id, kindOf(args).attach(args.token, optionsFrom(args.options))),
  close: ({ id }) => opened(id).close(),
  forget: ({ id }) => objects.delete(id),
  collect: () => collect(),
  lock: ({ id, as, options }) => keepLock(as, opened(id).lock(optionsFrom(options))),
  tryLock: ({ id, as }) => keepLock(as, opened(id).tryLock()),
  lockAsync: async ({ id, as, options }) => {
    return keepLock(as, await opened(id).lockAsync(optionsFrom(options)));
  },
  /** As lockAsync, in two commands, with others in between. */
  joinLine: ({ id, as = "lock", options }) => {
    inLine.set(as, opened(id).lockAsync(optionsFrom(options)));
  },
  leaveLine: async ({ as = "lock" }) => keepLock(as, await inLine.get(as)),
  unlock: ({ as = "lock" }) => locks.get(as)!.unlock(),
  forgetLock: ({ as = "lock" }) => locks.delete(as),
  unlinkName: ({ name, options }) => SharedMap.unlink(name, options),
  list: ({ options }) => SharedMap.list(options),
  call: ({ id, method, args }) => {
    const result = opened(id)[method](...args);
    return result instanceof SharedMap ? true : result;
  },
  property: ({ id, property }) => opened(id)[property],
  content: ({ id }) => [...opened(id)],
  token: ({ id }) => opened(id).token,
  writeCorpus: ({ id }) => writeCorpus(opened(id)),
  checkCorpus: ({ id }) => checkCorpus(opened(id)),
  writeStructures: ({ id, from, to }) => writeStructures(opened(id), from, to),
  checkStructures: ({ id, from, to }) => checkStructures(opened(id), from, to),
  descriptors: () =>
    readdirSync("/proc/self/fd").flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)];
      } catch {
        return []; // the descriptor of the listing itself
      }
    }),
  environment: ({ variable }) => process.env[variable],
  attachEnvironment: ({ id, variable }) => keep(id, SharedMap.attach(process.env[variable]!)),
  openUntilError: ({ options }) => {
    try {
      for (let count = 0; count < 100_000; count += 1) {
        objects.set(`many-${count}`, SharedMap.anonymous(optionsFrom(options)));
      }
    } catch (error) {
      opened("many-0").close(); // Deno itself fails where no descriptor is left
      throw error;
    }
    return "never";
  },
  /** Many maps at once, each with one entry; the first ones have other options. */
  openMany: ({ count, options, plain = count }) => {
    for (let i = 0; i < count; i += 1) {
      const map = SharedMap.anonymous(i < plain ? {} : options);
      objects.set(`many-${i}`, map.set("number", i));
    }
  },
  /** How many of those have their entry, and take another one. */
  checkMany: ({ count }) => {
    let good = 0;
    for (let i = 0; i < count; i += 1) {
      const map = opened(`many-${i}`);
      if (map.get("number") === i && map.set("again", i).size === 2) good += 1;
    }
    return good;
  },
  closeMany: ({ count }) => {
    for (let i = 0; i < count; i += 1) opened(`many-${i}`).close();
  },
  setBytes: ({ id, key, bytes }) => {
    // One array for all: where address space is short, garbage would take it.
    zeros.set(bytes, zeros.get(bytes) ?? new Uint8Array(bytes));
    opened(id).set(key, zeros.get(bytes));
  },
  lengthOf: ({ id, key }) => opened(id).get(key)?.length,
  freeBytes: ({ path }) => {
    const { bfree, bsize } = statfsSync(path);
    return bfree * bsize;
  },
  churn: (args) => churn(args, say),
  nest: (args) => nest(args),
  ...REGION_COMMANDS,
};

/** Collects garbage; Deno must have been started with --v8-flags=--expose-gc. */
async function collect(): Promise<void> {
  const { gc } = globalThis as unknown as { gc?: () => void };
  for (let i = 0; i < 4; i += 1) {
    if (Bun) Bun.gc(true);
    else gc!();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Starts a grandchild with one of the three ways to spawn; gives what it printed. */
async function nest({ api, line, env }: Json): Promise<Json> {
  const wholeEnv = { ...process.env, ...env };
  const { code, stdout, stderr } = await SPAWNERS[api](line, wholeEnv);
  return { code, stderr, replies: stdout.split("\n").filter(Boolean).map((l) => JSON.parse(l)) };
}

interface Output {
  code: number | null;
  stdout: string;
  stderr: string;
}

const SPAWNERS: Record<string, (command: string[], env: Json) => Promise<Output>> = {
  async "Deno.Command"(command, env) {
    const options = { args: command.slice(1), env, stdin: "null", stdout: "piped" };
    const output = await new Deno!.Command(command[0], { ...options, stderr: "piped" }).output();
    const [stdout, stderr] = [output.stdout, output.stderr].map((b) => new TextDecoder().decode(b));
    return { code: output.code, stdout, stderr };
  },
  async "Bun.spawn"(command, env) {
    const child = Bun!.spawn(command, { env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    const [stdout, stderr] = await Promise.all(
      [child.stdout, child.stderr].map((stream) => new Response(stream).text()),
    );
    return { code: await child.exited, stdout, stderr };
  },
  "node:child_process"(command, env) {
    const child = spawn(command[0], command.slice(1), { env, stdio: ["ignore", "pipe", "pipe"] });
    const output: Output = { code: null, stdout: "", stderr: "" };
    child.stdout.on("data", (bytes) => output.stdout += bytes);
    child.stderr.on("data", (bytes) => output.stderr += bytes);
    return new Promise((resolve) => {
      child.on("close", (code) => resolve({ ...output, code }));
    });
  },
};

function describeError(error: unknown): Json {
  if (!(error instanceof Error)) return { name: typeof error, message: String(error) };
  const { name, message, stack, code, errno, stored } = error as Json;
  const hasCode = code !== undefined;
  return { name, message: hasCode ? message : `${message}\n${stack}`, code, errno, stored };
}

/** Carries out one command and writes the answer. */
async function answer({ request, command, ...args }: Json): Promise<void> {
  try {
    const task = TASKS[command] ?? LOCK_TASKS[command] ?? VALUE_TASKS[command];
    const value = task ? await task(opened(args.id), args, say) : await COMMANDS[command](args);
    say(JSON.stringify({ request, value }) + "\n");
  } catch (error) {
    say(JSON.stringify({ request, error: describeError(error) }) + "\n");
  }
}

const listed = process.argv[2];
if (listed) {
  for (const command of JSON.parse(listed)) await answer(command);
} else {
  for await (const line of createInterface({ input: process.stdin })) {
    await answer(JSON.parse(line));
  }
}
for (const object of objects.values()) object.close();
process.exit(0);
