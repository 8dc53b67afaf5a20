/**
 * The candidates of `bench/map.ts`: each opens what it is named after, stores every key, and says
 * what can be measured.
 */
import { SharedMap, SharedValue } from "../mod.ts";
import { stage1Codec } from "./stage1_codec.ts";
import { openDenoKv, openLmdb, openRedis, openSqlite } from "./peers.ts";
import { direct, fill, type Get, type Operation, type Put, type Store, type Work } from "./work.ts";

/** Faster, but its maintainers advise against it. */
const WRITE_MAP = { useWritemap: true };

/** Every candidate by its name in a task. */
export const candidates: Record<string, (work: Work) => Promise<Store> | Store> = {
  shmap: openShmap,
  floor: openFloor,
  value: openValue,
  frozen: openFrozen,
  stage1: (work) => openWith("shmap, codec of stage 1", work, { codec: stage1Codec }),
  json: openJson,
  map: openMap,
  lmdb: (work) => openLmdb("lmdb (npm)", work, "single"),
  "lmdb-transactions": (work) => openLmdb("lmdb (npm)", work, "transactions"),
  "lmdb-write-map": (work) => openLmdb("lmdb (npm), write map", work, "single sets", WRITE_MAP),
  sqlite: (work) => openSqlite(work, "single"),
  "sqlite-transactions": (work) => openSqlite(work, "transactions"),
  redis: openRedis,
  "deno-kv": openDenoKv,
};

function openShmap(work: Work): Store {
  const map = SharedMap.anonymous<unknown>();
  const set: Put = (key, value) => map.set(key, value);
  fill(work, set);
  const read: Get = (key) => map.get(key);
  const who = "shmap, 100 at a time";
  const getMany: Operation = { who, case: "get", many: (keys) => map.getMany(keys) };
  const setMany: Operation = {
    who,
    case: "set",
    weight: 1,
    weigh: () => 1,
    many(keys, values) {
      map.setMany(keys.map((key, n) => [key, values[n]] as const));
      return keys;
    },
  };
  const many = work.task.value === "number" || work.task.value === "bytes"
    ? []
    : [getMany, setMany];
  const into = work.task.value === "bytes" ? [intoOf(map)] : [];
  return {
    operations: [...direct("shmap", work, read, set), ...many, ...into],
    read,
    allocated: () => map.stats().allocated,
    close: () => map.close(),
  };
}

function intoOf(map: SharedMap<unknown>): Operation {
  const target = new Uint8Array(2048);
  const once = (key: string) => map.getInto(key, target)!;
  return { who: "shmap", case: "getInto", once };
}

/** A map with these options, and the calls that every map has. */
function openWith(
  who: string,
  work: Work,
  options: Parameters<typeof SharedMap.anonymous>[0],
): Store {
  const map = SharedMap.anonymous<unknown>(options);
  const set: Put = (key, value) => map.set(key, value);
  fill(work, set);
  const read: Get = (key) => map.get(key);
  return {
    operations: direct(who, work, read, set),
    read,
    allocated: () => map.stats().allocated,
    close: () => map.close(),
  };
}

/** Objects that are handed out again for as long as they stay the same. */
function openFrozen(work: Work): Store {
  const store = openWith("shmap, frozen", work, { frozen: true });
  return { ...store, operations: store.operations.filter((each) => each.case === "get") };
}

/** Structures as the user's own text. What JSON cannot say is lost, so nothing is compared. */
function openJson(work: Work): Store {
  const map = SharedMap.anonymous<string>();
  const set: Put = (key, value) => map.set(key, JSON.stringify(value));
  fill(work, set);
  const operations = direct("shmap, JSON text", work, (key) => JSON.parse(map.get(key)!), set);
  return { operations, allocated: () => map.stats().allocated, close: () => map.close() };
}

/** Over the library of `bench/floor.zig`, which has one value for every key. */
function openFloor(work: Work): Store {
  const map = SharedMap.anonymous<unknown>();
  const set: Put = (key, value) => map.set(key, value);
  const operations = direct("floor", work, (key) => map.get(key), set);
  return {
    operations: operations.filter((each) => each.case !== "miss"),
    close: () => map.close(),
  };
}

/** A value that no process changes. */
function openValue({ values, weigh, task }: Work): Store {
  const writer = SharedValue.anonymous<unknown>();
  const value = SharedValue.attach<unknown>(writer.token, { frozen: task.value === "object" });
  writer.set(values[1]);
  return {
    operations: [{ who: "shmap", case: "SharedValue.get", once: () => weigh(value.get()) }],
    close() {
      value.close();
      writer.close();
    },
  };
}

/** The ceiling: no process shares it, and what is stored is not copied. */
function openMap(work: Work): Store {
  const map = new Map<string, unknown>();
  const set: Put = (key, value) => map.set(key, value);
  fill(work, set);
  const read: Get = (key) => map.get(key);
  return { operations: direct("Map", work, read, set), read, close() {} };
}
