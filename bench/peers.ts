/**
 * The systems that are measured beside shmap, as candidates of `bench/map.ts`. Settings are the
 * fastest with which several processes may share the data.
 *
 * Packages are loaded from `bench/peers` when they are needed, so that nothing else depends on
 * them.
 */
import { Buffer } from "node:buffer";
import { statSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { openBunRedis, openNpmRedis } from "./redis.ts";
import {
  direct,
  fill,
  fillInLots,
  type Get,
  inTransactions,
  type Operation,
  type Put,
  type Store,
  Unavailable,
  type ValueKind,
  type Work,
} from "./work.ts";

const isBun = "Bun" in globalThis;
const fromPeers = createRequire(new URL("./peers/package.json", import.meta.url));
/** More than any database grows to: preset, so that it is mapped once. */
const LMDB_BYTES = 4 * 2 ** 30;
const SQLITE_MAPPED_BYTES = 2 ** 30;
/** What `stat` counts in. */
const BLOCK_BYTES = 512;

/** A package of `bench/peers`. */
function peer(name: string): unknown {
  try {
    return fromPeers(name);
  } catch (error) {
    if ((error as { code?: string }).code !== "MODULE_NOT_FOUND") throw error;
    throw new Unavailable(`${name} is not in bench/peers/node_modules`);
  }
}

interface Lmdb {
  get(key: string): unknown;
  put(key: string, value: unknown): unknown;
  putSync(key: string, value: unknown): unknown;
  transactionSync(body: () => void): void;
  close(): Promise<void>;
}

/** All other values are msgpack. */
const LMDB_ENCODINGS: Partial<Record<ValueKind, string>> = { string: "string", bytes: "binary" };

/** What is measured of a database: transactions leave it another one for what comes after. */
export type Part = "single" | "transactions" | "single sets";

/** lmdb with these `options` besides. */
export function openLmdb(who: string, work: Work, part: Part, options: object = {}): Store {
  const { open } = peer("lmdb") as { open(options: object): Lmdb };
  const path = join(work.task.directory, work.task.candidate);
  const file = join(path, "data.mdb");
  const database = open({
    path,
    noSync: true,
    mapSize: LMDB_BYTES,
    encoding: LMDB_ENCODINGS[work.task.value] ?? "msgpack",
    // The names of an object's fields are then stored once.
    ...(typeof work.values[0] === "object" && work.task.value !== "bytes"
      ? { sharedStructuresKey: Symbol.for("structures") }
      : {}),
    ...options,
  });
  const put: Put = (key, value) => database.put(key, value);
  const within = (body: () => void) => database.transactionSync(body);
  within(() => fill(work, put));
  const read: Get = (key) => database.get(key);
  const singles = () => direct(who, work, read, (key, value) => database.putSync(key, value));
  return {
    operations: operationsOf(part, singles, () => inTransactions(who, put, within)),
    read,
    ...(part === "single" ? { allocated: () => BLOCK_BYTES * statSync(file).blocks } : {}),
    close: () => database.close(),
  };
}

function operationsOf(
  part: Part,
  singles: () => Operation[],
  transactions: () => Operation,
): Operation[] {
  if (part === "transactions") return [transactions()];
  return part === "single" ? singles() : singles().filter((each) => each.case === "set");
}

interface Sqlite {
  exec(sql: string): unknown;
  prepare(sql: string): { get(key: string): unknown; run(...values: unknown[]): unknown };
  close(): void;
}

/** The database of the runtime itself, in this process and in others at once. */
export async function openSqlite(work: Work, part: Part): Promise<Store> {
  const name = isBun ? "bun:sqlite" : "node:sqlite";
  const module = await import(name);
  const path = join(work.task.directory, work.task.candidate);
  const database: Sqlite = new (isBun ? module.Database : module.DatabaseSync)(path);
  const pragmas = ["journal_mode=WAL", "synchronous=OFF", `mmap_size=${SQLITE_MAPPED_BYTES}`];
  for (const pragma of pragmas) database.exec(`PRAGMA ${pragma}`);
  // Rows of their own are faster where a value fills a good part of a page.
  const rows = work.task.value === "bytes" ? "" : "WITHOUT ROWID";
  database.exec(`CREATE TABLE map (key TEXT PRIMARY KEY, value ANY) ${rows}`);
  const select = database.prepare("SELECT value FROM map WHERE key = ?");
  const upsert = database.prepare(
    "INSERT INTO map VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
  );
  const { encode, decode } = TEXT_OR_BYTES[work.task.value] ?? json;
  const set: Put = (key, value) => upsert.run(key, encode(value));
  const read: Get = (key) => {
    const row = select.get(key) as { value: string } | null | undefined;
    return row ? decode(row.value) : undefined;
  };
  const within = (body: () => void) => {
    database.exec("BEGIN");
    body();
    database.exec("COMMIT");
  };
  within(() => fill(work, set));
  const who = "SQLite";
  return {
    operations: operationsOf(
      part,
      () => direct(who, work, read, set),
      () => inTransactions(who, set, within),
    ),
    read,
    close: () => database.close(),
  };
}

interface Code {
  encode(value: unknown): unknown;
  decode(stored: string): unknown;
}

const itself = (value: unknown) => value;
const json: Code = { encode: JSON.stringify, decode: JSON.parse };

/** Values as SQLite stores them. */
const TEXT_OR_BYTES: Partial<Record<ValueKind, Code>> = {
  string: { encode: itself, decode: itself },
  number: { encode: itself, decode: itself },
  bytes: { encode: itself, decode: itself },
};

/** Values as Redis stores them. */
const TEXT: Partial<Record<ValueKind, Code>> = {
  ...TEXT_OR_BYTES,
  number: { encode: String, decode: Number },
  bytes: { encode: (value) => Buffer.from((value as Uint8Array).buffer), decode: itself },
};

/** The server is the one that `bench/map.ts` started. */
export async function openRedis(work: Work): Promise<Store> {
  const { redis: socket, value } = work.task;
  if (socket === undefined) throw new Unavailable("redis-server is not installed");
  const isBytes = value === "bytes";
  const redis = isBun
    ? openBunRedis(socket, isBytes)
    : openNpmRedis(peer("ioredis"), socket, isBytes);
  const { encode, decode } = TEXT[value] ?? json;
  await redis.clear();
  const setMany = (keys: string[], values: unknown[]) => redis.setMany(keys, values.map(encode));
  await fillInLots(work, setMany);
  const weigh = (found: unknown) => work.weigh(decode(found as string));
  const stored = { weight: 1, weigh: (answer: unknown) => answer === "OK" ? 1 : 0 };
  const who = "Redis";
  const pipelined = "Redis, pipelined";
  return {
    operations: [
      { who, case: "get", awaited: (key) => redis.get(key), weigh },
      { who, case: "set", ...stored, awaited: (key, value) => redis.set(key, encode(value)) },
      { who: pipelined, case: "get", many: (keys) => redis.getMany(keys), weigh },
      { who: pipelined, case: "set", ...stored, many: setMany },
    ],
    read: async (key) => {
      const found = await redis.get(key);
      return found === null ? undefined : decode(found as string);
    },
    close: () => redis.close(),
  };
}

interface DenoKv {
  get(key: string[]): Promise<{ value: unknown }>;
  set(key: string[], value: unknown): Promise<{ ok: boolean }>;
  atomic(): { set(key: string[], value: unknown): unknown; commit(): Promise<unknown> };
  close(): void;
}

/** Deno's own, over a file. */
export async function openDenoKv(work: Work): Promise<Store> {
  const { Deno } = globalThis as unknown as {
    Deno?: { openKv?(path: string): Promise<DenoKv> };
  };
  if (Deno === undefined) throw new Unavailable("this runtime is not Deno");
  if (Deno.openKv === undefined) throw new Unavailable("it needs --unstable-kv");
  const kv = await Deno.openKv(join(work.task.directory, "deno-kv.db"));
  await fillInLots(work, (keys, values) => {
    const atomic = kv.atomic();
    keys.forEach((key, n) => atomic.set([key], values[n]));
    return atomic.commit();
  });
  const who = "Deno KV";
  return {
    operations: [
      {
        who,
        case: "get",
        awaited: (key) => kv.get([key]),
        weigh: (entry) => work.weigh((entry as { value: unknown }).value),
      },
      {
        who,
        case: "set",
        awaited: (key, value) => kv.set([key], value),
        weight: 1,
        weigh: (result) => (result as { ok: boolean }).ok ? 1 : 0,
      },
    ],
    read: async (key) => (await kv.get([key])).value ?? undefined,
    close: () => kv.close(),
  };
}
