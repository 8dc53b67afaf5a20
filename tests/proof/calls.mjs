/**
 * Which parts of the proof call which exported functions, counted while the proof runs. An exported
 * function without its row fails, and so does a row that names a part which never called it, or a
 * part that is neither named nor has its reason: so the proof grows with the API.
 *
 * A row: the parts that call the function, and why the others do not. Of those that take the handle
 * of a map or a value, `on` says what they are called on: usual ("robust") and kernel locks, and
 * reading handles.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../../tools/process.mjs";

/** The parts that are asked, by the names of `run.mjs`; "api" is both runtimes together. */
export const PARTS = ["enumerate", "step", "storm", "history", "corrupt", "faults", "api"];

const ON_ALL = "robust kernel reading";

const READS = "it stores nothing in the segment, so a kill inside leaves nothing to look at";
const SAME_ORDER = "its order is that of get, which history looks at";
const BELOW = "this part opens by the same code below the boundary; life kills it at every store";
const ONE_HANDLE = "it asks a handle of this process, and touches no segment";
const PRIVATE = "it copies memory that is private to the handle";
const REGION = "a region has no structure of ours to recover";
const LOCK = "the user's lock is killed at every store by life";
const WAITS = "waiting for a lock is tried by life, by storm and by the suites of processes";
const VALUE = "a value is one entry of a map: these parts put and get that";
const TRIED = "the case is tried with another function of the same code";
const ENDS = "it closes and abandons by the code of a thread's end; the suite of reloads calls it";
const KILLED = "the suite of processes kills those that store and touch what ends";
const OWN = "it is called by what every file of this part shares, and counted where it is exported";

/** Reasons for several parts: `because("step storm", READS)`. */
const because = (parts, why) => Object.fromEntries(parts.split(" ").map((part) => [part, why]));

/** What opens, names and closes segments. */
const opening = {
  ...because("enumerate step storm history", BELOW),
};
const asking = {
  ...because("enumerate step history", ONE_HANDLE),
};
const regions = {
  ...because("enumerate step storm history corrupt", REGION),
};

export const TABLE = {
  shm_fingerprint: { by: "api", not: because("enumerate step storm history corrupt faults", OWN) },
  shm_segment_open: { by: "faults api", not: { ...opening, corrupt: BELOW } },
  shm_segment_anonymous: { by: "faults api", not: { ...opening, corrupt: BELOW } },
  shm_segment_attach: { by: "faults api", not: { ...opening, corrupt: BELOW } },
  shm_segment_unlink_name: { by: "faults api", not: { ...opening, corrupt: BELOW } },
  shm_segment_list: {
    by: "corrupt faults api",
    not: because("enumerate step storm history", READS),
  },
  shm_segment_unlink: {
    by: "storm corrupt faults api",
    on: "robust kernel",
    not: because("enumerate step history", BELOW),
  },
  shm_segment_close: { by: "corrupt faults api", on: ON_ALL, not: opening },
  shm_segment_token: {
    by: "corrupt faults api",
    on: ON_ALL,
    not: { ...asking, storm: ONE_HANDLE },
  },
  shm_segment_stats: {
    by: "storm corrupt api",
    on: ON_ALL,
    not: { ...because("enumerate step history", READS), faults: TRIED },
  },
  shm_map_get: {
    by: "enumerate corrupt faults api",
    on: ON_ALL,
    not: { step: READS, ...because("storm history", "they read with versions, by the same code") },
  },
  shm_map_get_version: {
    by: "enumerate step storm history corrupt api",
    on: ON_ALL,
    not: { faults: TRIED },
  },
  shm_map_put: {
    by: "enumerate step storm history corrupt faults api",
    on: "robust kernel",
    not: {},
  },
  shm_map_put_version: {
    by: "enumerate step storm history corrupt api",
    on: "robust kernel",
    not: { faults: TRIED },
  },
  shm_map_has: {
    by: "enumerate corrupt api",
    on: ON_ALL,
    not: { step: READS, ...because("storm history", SAME_ORDER), faults: TRIED },
  },
  shm_map_delete: {
    by: "enumerate step storm history corrupt faults api",
    on: "robust kernel",
    not: {},
  },
  shm_map_clear: {
    by: "enumerate step storm history corrupt faults api",
    on: "robust kernel",
    not: {},
  },
  shm_map_compact: {
    by: "enumerate corrupt api",
    on: "robust kernel",
    not: {
      step: "its stores are those of a recovery",
      ...because("storm history", "parked extents give back their blocks in each of these parts"),
      faults: TRIED,
    },
  },
  shm_map_put_until: {
    by: "enumerate storm corrupt api",
    on: "robust kernel",
    not: { step: "its stores are those of a put", ...because("history faults", KILLED) },
  },
  shm_map_touch: {
    by: "enumerate storm corrupt api",
    on: "robust kernel",
    not: { step: "its commit is one store", ...because("history faults", KILLED) },
  },
  shm_map_prune: {
    by: "enumerate storm corrupt api",
    on: "robust kernel",
    not: because("step history faults", "to remove an entry that has ended is a delete"),
  },
  shm_map_sweep: {
    by: "enumerate corrupt api",
    on: "robust kernel",
    not: because("step storm history faults", "to remove an entry that has ended is a delete"),
  },
  shm_map_clear_prefix: {
    by: "enumerate corrupt api",
    on: "robust kernel",
    not: because("step storm history faults", "it deletes key by key, which is tried there"),
  },
  shm_map_get_entry: {
    by: "corrupt api",
    on: ON_ALL,
    not: {
      ...because("enumerate step", READS),
      ...because("storm history", SAME_ORDER),
      faults: TRIED,
    },
  },
  shm_map_take: {
    by: "enumerate step storm history corrupt api",
    on: "robust kernel",
    not: { faults: TRIED },
  },
  shm_map_swap: {
    by: "enumerate step storm history corrupt api",
    on: "robust kernel",
    not: { faults: TRIED },
  },
  shm_map_replace: {
    by: "enumerate step storm history corrupt api",
    on: "robust kernel",
    not: { faults: TRIED },
  },
  shm_map_delete_version: {
    by: "enumerate step corrupt api",
    on: "robust kernel",
    not: because("storm history faults", TRIED),
  },
  shm_map_increment: {
    by: "enumerate step history corrupt api",
    on: "robust kernel",
    not: because("storm faults", TRIED),
  },
  shm_map_increment_big: {
    by: "enumerate corrupt api",
    on: "robust kernel",
    not: because("step storm history faults", "its commit is that of an increment"),
  },
  shm_map_scan: {
    by: "corrupt api",
    on: ON_ALL,
    not: {
      ...because("enumerate step", READS),
      ...because("storm history faults", "it walks by the code of a gather"),
    },
  },
  shm_map_size: {
    by: "enumerate storm history corrupt faults api",
    on: ON_ALL,
    not: { step: READS },
  },
  shm_map_get_batch: {
    by: "enumerate corrupt api",
    on: ON_ALL,
    not: {
      step: READS,
      ...because("storm history", SAME_ORDER),
      faults: TRIED,
    },
  },
  shm_map_get_into: {
    by: "corrupt api",
    on: ON_ALL,
    not: { ...because("enumerate step", READS), ...because("storm history faults", TRIED) },
  },
  shm_map_has_many: {
    by: "corrupt api",
    on: ON_ALL,
    not: { ...because("enumerate step", READS), ...because("storm history faults", TRIED) },
  },
  shm_map_delete_many: {
    by: "api",
    on: "robust",
    not: because("enumerate step storm history corrupt faults", TRIED),
  },
  shm_map_get_unless: {
    by: "corrupt api",
    on: ON_ALL,
    not: {
      ...because("enumerate step", READS),
      ...because("storm history", SAME_ORDER),
      faults: TRIED,
    },
  },
  shm_map_put_many: {
    by: "enumerate step history corrupt api",
    on: "robust kernel",
    not: because("storm faults", TRIED),
  },
  shm_map_gather: {
    by: "enumerate corrupt api",
    on: ON_ALL,
    not: { step: READS, ...because("storm history faults", TRIED) },
  },
  shm_map_snapshot: {
    by: "enumerate storm history corrupt faults api",
    on: ON_ALL,
    not: { step: READS },
  },
  shm_map_gathered: {
    by: "enumerate corrupt api",
    on: ON_ALL,
    not: because("step storm history faults", PRIVATE),
  },
  shm_map_verify: {
    by: "enumerate step storm history corrupt faults api",
    on: ON_ALL,
    not: {},
  },
  shm_value_get: {
    by: "faults api",
    on: "robust kernel",
    not: because("enumerate step storm history corrupt", VALUE),
  },
  shm_value_put: {
    by: "step faults api",
    on: "robust kernel",
    not: because("enumerate storm history corrupt", VALUE),
  },
  shm_value_version: {
    by: "api",
    on: "robust",
    not: because("enumerate step storm history corrupt faults", VALUE),
  },
  shm_lock_acquire: {
    by: "enumerate step history corrupt faults api",
    on: "robust kernel",
    not: { storm: "it locks by the same code below the boundary, to see when a grant is near" },
  },
  shm_lock_try: {
    by: "corrupt api",
    on: "robust kernel",
    not: because("enumerate step storm history faults", LOCK),
  },
  shm_lock_wake_seq: {
    by: "api",
    on: "robust",
    not: because("enumerate step storm history corrupt faults", WAITS),
  },
  shm_wake_wait: {
    by: "",
    not: because("enumerate step storm history corrupt faults api", WAITS),
  },
  shm_lock_cancel: {
    by: "api",
    on: "robust",
    not: because("enumerate step storm history corrupt faults", WAITS),
  },
  shm_lock_release: {
    by: "enumerate step storm history corrupt faults api",
    on: "robust kernel",
    not: {},
  },
  shm_lock_held: {
    by: "corrupt api",
    on: ON_ALL,
    not: because("enumerate step storm history faults", READS),
  },
  shm_lock_identity: {
    by: "api",
    on: "robust",
    not: because("enumerate step storm history corrupt faults", ONE_HANDLE),
  },
  shm_fault: {
    by: "faults api",
    on: "robust kernel",
    not: because("enumerate step storm history corrupt", ONE_HANDLE),
  },
  shm_realm_enter: {
    by: "api",
    not: because("enumerate step storm history corrupt faults", OWN),
  },
  shm_realm_abandon: {
    by: "",
    not: because("enumerate step storm history corrupt faults api", ENDS),
  },
  shm_region_open: { by: "faults api", not: regions },
  shm_region_anonymous: { by: "faults api", not: regions },
  shm_region_attach: {
    by: "api",
    not: { ...regions, faults: "its calls are those of an attach to a segment" },
  },
  shm_region_close: { by: "faults api", not: regions },
  shm_region_length: { by: "api", not: { ...regions, faults: ONE_HANDLE } },
  shm_region_descriptor: { by: "api", not: { ...regions, faults: ONE_HANDLE } },
  shm_region_token: { by: "api", not: { ...regions, faults: ONE_HANDLE } },
  shm_region_read: { by: "faults api", not: regions },
  shm_region_write: { by: "faults api", not: regions },
  shm_region_flush: { by: "faults api", not: regions },
};

/** The exported functions, as the symbol table lists them. */
export function exported() {
  const text = readFileSync(join(ROOT, "src", "ffi", "abi.ts"), "utf8");
  return [...text.matchAll(/^ {2}(shm_\w+): \{ args/gm)].map(([, name]) => name);
}

/** What is wrong with a table by itself: rows and parts that are missing or too many. */
export function faultsOf(table, functions) {
  const faults = [];
  for (const name of functions.filter((name) => !(name in table))) faults.push(`${name}: no row`);
  for (const [name, { by, not }] of Object.entries(table)) {
    if (!functions.includes(name)) faults.push(`${name}: there is no such function`);
    const parts = by.split(" ").filter(Boolean);
    for (const part of PARTS) {
      const isSaidOnce = parts.includes(part) !== part in not;
      if (!isSaidOnce) faults.push(`${name}: ${part} must be named, or have its reason`);
    }
    for (const part of [...parts, ...Object.keys(not)]) {
      if (!PARTS.includes(part)) faults.push(`${name}: ${part} is no part`);
    }
  }
  return faults;
}

/**
 * What was counted, against the table: by part, function, and what it was called on. The last is
 * judged only where all `parts` were counted.
 */
export function misses(table, counted, parts = PARTS) {
  const sum = (counts = {}) => Object.values(counts).reduce((all, count) => all + count, 0);
  const found = [];
  for (const [name, { by, on }] of Object.entries(table)) {
    for (const part of by.split(" ").filter((part) => part in counted)) {
      if (sum(counted[part][name]) === 0) found.push(`${name}: never called by ${part}`);
    }
    if (!parts.every((part) => part in counted)) continue;
    for (const kind of on?.split(" ") ?? []) {
      const isCalled = Object.values(counted).some((calls) => calls[name]?.[kind] > 0);
      if (!isCalled) found.push(`${name}: never called on ${kind}`);
    }
  }
  return found;
}

/** The row of the proof's table for what its parts have called, by their names in `run.mjs`. */
export function judgeCalls(byPart) {
  const counted = {};
  for (const [name, calls] of Object.entries(byPart)) {
    if (Object.keys(calls).length === 0) continue; // it counts nothing, or could not run here
    const part = name.split(" ")[0];
    const into = counted[part] ??= {};
    for (const [function_, counts] of Object.entries(calls)) {
      const sum = into[function_] ??= {};
      for (const [on, count] of Object.entries(counts)) sum[on] = (sum[on] ?? 0) + count;
    }
  }
  const functions = exported();
  const problems = [...faultsOf(TABLE, functions), ...misses(TABLE, counted)];
  for (const problem of problems) console.log(problem);
  return [{
    part: 11,
    what: "exported functions called by the parts of their rows",
    tried: functions.length,
    found: problems.length,
    least: functions.length,
    note: `counted in ${Object.keys(counted).join(", ")}`,
  }];
}
