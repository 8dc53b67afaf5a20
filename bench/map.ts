/**
 * What calls of the public API cost on Deno and on Bun, beside other systems that do the same work:
 * one JSON line a figure.
 *
 *     deno run -A bench/map.ts [--smoke] [--structures]
 *     bun run bench/map.ts [--smoke] [--structures]
 *
 * Every candidate has a process of its own (`candidates.ts`), a new one for each kind of value and
 * number of keys. All of them take turns, a pass of one operation after the other, so that the
 * moods of the machine hit all alike; while one works, the others wait for their standard input.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { candidates } from "./candidates.ts";
import { startRedis } from "./redis.ts";
import { STRUCTURES } from "./structures.ts";
import { countsGarbage, garbageOf, passesOf, prepare, verify } from "./work.ts";
import { type Task, Unavailable, type ValueKind } from "./work.ts";

const SHARED_MEMORY = "/dev/shm";
const FLOOR = fileURLToPath(new URL("../zig-out/lib/libshmap-floor.so", import.meta.url));
const given = process.argv.slice(2);
const bench = given.includes("--structures") ? "structures" : "map";
const runtime = "Bun" in globalThis ? "bun" : "deno";

/** One set of candidates over the same keys and values. */
interface Round {
  value: ValueKind;
  /** Undefined: keys do not matter. */
  keys?: number;
  candidates: string[];
}

interface Extent {
  passes: number;
  /** How long a pass takes at least. */
  passMs: number;
  /** How long the same is done before at most, without counting. */
  settleMs: number;
  /** How long before the first pass, to have it compiled. */
  warmMs: number;
  transaction: number;
  rounds: Round[];
}

/** Arrays of bytes that were read are collected every 100 ms or so: a pass must be no shorter. */
const LONGER = { bytes: 4 } as Record<ValueKind, number>;

const OURS = ["shmap", "map"];
const DATABASES = ["lmdb", "sqlite"];
const TRANSACTIONS = ["lmdb-transactions", "sqlite-transactions"];
const SERVERS = ["redis", "deno-kv"];

function roundsOf(counts: number[]): Round[] {
  return counts.flatMap((keys): Round[] => {
    const all = [...OURS, ...DATABASES, ...TRANSACTIONS, ...SERVERS];
    return [
      { value: "string", keys, candidates: [...all, "floor", "lmdb-write-map"] },
      { value: "number", keys, candidates: [...OURS, ...DATABASES] },
      { value: "bytes", keys, candidates: [...OURS, ...DATABASES] },
      { value: "object", keys, candidates: all },
    ];
  });
}

/** Structures of every kind, beside what else could be done with them. */
function structureRounds(counts: number[]): Round[] {
  const all = ["shmap", "stage1", "json", "lmdb", "lmdb-transactions"];
  return counts.flatMap((keys): Round[] => [
    { value: "object", keys, candidates: ["shmap", "frozen", ...all.slice(1)] },
    ...(keys > 100_000 ? [] : STRUCTURES.map((value): Round => ({ value, keys, candidates: all }))),
  ]);
}

const VALUES: Round[] = [
  { value: "number", candidates: ["value"] },
  { value: "object", candidates: ["value"] },
];

const FULL: Extent = {
  passes: 5,
  passMs: 25,
  settleMs: 60,
  warmMs: 70,
  transaction: 50_000,
  rounds: [
    ...roundsOf([1000, 100_000]),
    { value: "string", keys: 1_000_000, candidates: [...OURS, "lmdb", "lmdb-transactions"] },
    ...VALUES,
  ],
};
const SMOKE: Extent = {
  passes: 2,
  passMs: 1,
  settleMs: 1,
  warmMs: 1,
  transaction: 100,
  rounds: [...roundsOf([100]), ...VALUES],
};

/** A process with one candidate, as it answers. */
interface Child {
  readonly operations: { who: string; case: string }[];
  readonly skipped: string | undefined;
  /** Bytes of memory or disk for all entries, if it can say. */
  readonly allocated: number | undefined;
  /** A `Pass` of an operation. */
  pass(operation: number, ms: number, settleMs: number): Promise<number>;
  /** What a call of an operation leaves to be collected, in bytes. Null: it cannot be said. */
  garbage(operation: number): Promise<number | null>;
  end(): Promise<void>;
}

/** Where databases lie, and the socket of the Redis server if there is one. */
type Place = Pick<Task, "directory" | "redis">;

/** What is still to be ended, however this ends. */
const running = new Set<ChildProcess>();

async function start(task: Task): Promise<Child> {
  const options = runtime === "bun" ? ["run"] : ["run", "-A", "--unstable-kv"];
  const child = spawn(
    process.execPath,
    [...options, fileURLToPath(import.meta.url), JSON.stringify(task)],
    {
      stdio: ["pipe", "pipe", "inherit"],
      env: task.candidate === "floor" ? { ...process.env, SHMAP_LIBRARY: FLOOR } : process.env,
    },
  );
  running.add(child);
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  ended.then(() => running.delete(child));
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const answer = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`${task.candidate} ended with ${await ended}`);
    return JSON.parse(value);
  };
  const { operations = [], skipped, allocated } = await answer();
  return {
    operations,
    skipped,
    allocated,
    async garbage(operation) {
      child.stdin!.write(`${operation} garbage\n`);
      return await answer();
    },
    async pass(operation, ms, settleMs) {
      child.stdin!.write(`${operation} ${ms} ${settleMs}\n`);
      return await answer();
    },
    async end() {
      child.stdin!.end();
      const code = await ended;
      if (code !== 0) throw new Error(`${task.candidate} ended with ${code}`);
    },
  };
}

/** The other end: a candidate that does what it is told, until it is told no more. */
async function serve(task: Task): Promise<void> {
  const work = prepare(task);
  let store;
  try {
    store = await candidates[task.candidate](work);
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    console.log(JSON.stringify({ skipped: error.message }));
    return;
  }
  await verify(store, work);
  const passes = passesOf(store, work);
  const operations = store.operations.map(({ who, case: name }) => ({ who, case: name }));
  console.log(JSON.stringify({ operations, allocated: store.allocated?.() }));
  for await (const line of createInterface({ input: process.stdin })) {
    const [operation, what, settleMs] = line.split(" ");
    const figure = what === "garbage"
      ? garbageOf(work, store.operations[+operation]) ?? null
      : await passes[+operation](+what, +settleMs);
    console.log(JSON.stringify(figure));
  }
  await verify(store, work); // the sets have stored what they should
  await store.close();
}

type Row = Record<string, string | number>;

function print(row: Row): void {
  console.log(JSON.stringify({ bench, runtime, ...row }));
}

async function measure(round: Round, extent: Extent, place: Place): Promise<void> {
  const directory = mkdtempSync(join(place.directory, "round-"));
  const parameters = { value: round.value, ...(round.keys ? { keys: round.keys } : {}) };
  const rest = { keys: round.keys ?? 1, value: round.value, transaction: extent.transaction };
  const names = round.candidates.filter((name) => isPossible(name, parameters));
  const children = await Promise.all(
    names.map((candidate) => start({ candidate, directory, redis: place.redis, ...rest })),
  );
  names.forEach((candidate, n) => {
    const { skipped } = children[n];
    if (skipped !== undefined) print({ case: "all", who: candidate, ...parameters, skipped });
  });
  const extended = { ...extent, passMs: extent.passMs * (LONGER[round.value] ?? 1) };
  for (const { who, case: name, times } of await takeTurns(children, extended)) {
    const [best, median] = [times[0], times[times.length >> 1]].map((ns) => +ns.toFixed(1));
    const figures = { unit: "ns", median, best, passes: times.length };
    print({ case: name, who, ...parameters, ...figures });
  }
  if (bench === "structures") await measureBytes(children, parameters);
  await Promise.all(children.filter((child) => !child.skipped).map((child) => child.end()));
  rmSync(directory, { recursive: true, force: true });
}

/** What an entry takes in the map, and what a call leaves on the heap. */
async function measureBytes(children: Child[], parameters: Row): Promise<void> {
  const unit = "B";
  for (const child of children) {
    const { operations, allocated } = child;
    if (allocated !== undefined) {
      const median = Math.round(allocated / Number(parameters.keys));
      print({ case: "allocated", who: operations[0].who, ...parameters, unit, median });
    }
    for (const [index, { who, case: name }] of operations.entries()) {
      const median = await child.garbage(index);
      if (median === null || !["get", "set"].includes(name)) continue;
      print({ case: `${name}, garbage`, who, ...parameters, unit, median: Math.round(median) });
    }
  }
  if (countsGarbage) return;
  const skipped = "Bun counts its heap only when it collects";
  print({ case: "garbage", who: "all", ...parameters, skipped });
}

/** Whether a candidate can run at all; says so if not. */
function isPossible(candidate: string, parameters: Row): boolean {
  if (candidate === "deno-kv" && runtime !== "deno") return false;
  if (candidate !== "floor" || existsSync(FLOOR)) return true;
  print({ case: "all", who: "floor", ...parameters, skipped: `${FLOOR} was not built` });
  return false;
}

/** The sorted times of every operation of every child, pass by pass. */
async function takeTurns(children: Child[], { passes, passMs, settleMs, warmMs }: Extent) {
  const turns = children.flatMap((child) =>
    child.operations.map((operation, index) => ({ ...operation, child, index, times: [0] }))
  );
  for (const turn of turns) {
    await turn.child.pass(turn.index, warmMs, 0);
    turn.times = [];
  }
  for (let pass = 0; pass < passes; pass += 1) {
    for (const { child, index, times } of turns) {
      times.push(await child.pass(index, passMs, settleMs));
    }
  }
  for (const { times } of turns) times.sort((a, b) => a - b);
  return turns;
}

async function main(extent: Extent): Promise<void> {
  const directory = mkdtempSync(join(SHARED_MEMORY, "shmap-bench-"));
  const redis = await startRedis(directory);
  process.on("exit", () => {
    for (const child of running) child.kill("SIGKILL");
    redis?.process.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  });
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));
  try {
    const place = { directory, redis: redis?.socket };
    for (const round of extent.rounds) await measure(round, extent, place);
  } finally {
    await redis?.stop();
  }
}

if (given[0]?.startsWith("{")) await serve(JSON.parse(given[0]));
else {
  const isSmoke = given.includes("--smoke");
  const extent = isSmoke ? SMOKE : FULL;
  const counts = isSmoke ? [100] : [1000, 100_000, 1_000_000];
  const rounds = bench === "structures" ? structureRounds(counts) : extent.rounds;
  await main({ ...extent, rounds });
}
