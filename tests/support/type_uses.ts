/**
 * Uses of the public types that must compile as they stand, with `exactOptionalPropertyTypes` too,
 * and that must not. `deno check` reads this file as it reads all of them;
 * `tests/api/map_like_test.ts` has TypeScript's own compiler read it, and runs what it does.
 */
import {
  type AnonymousOptions,
  type AsyncLockOptions,
  type AttachOptions,
  type FrozenOption,
  type LockOptions,
  Mmap,
  type MmapOptions,
  type OpenOptions,
  type RegionLockOptions,
  SharedMap,
  SharedMemoryError,
  SharedValue,
} from "../../mod.ts";

/** A function of a library that knows nothing of us. */
function total(map: ReadonlyMap<string, number>): number {
  return map.values().reduce((sum, value) => sum + value, 0);
}

/** Another one, which changes what it gets. */
function addOne(map: Map<string, number>): Map<string, number> {
  map.forEach((value, key, same) => same.set(key, value + 1));
  return map.set("one", 1);
}

/** What these uses come to; the test says what they must. */
export function mapUses(map: SharedMap<number>): unknown[] {
  const readonly: ReadonlyMap<string, number> = map;
  const plain: Map<string, number> = map;
  const keys: MapIterator<string> = map.keys();
  const values: MapIterator<number> = map.values();
  const entries: MapIterator<[string, number]> = map[Symbol.iterator]();
  const tag: string = map[Symbol.toStringTag];
  const text: SharedMap<string> = SharedMap.anonymous();
  // @ts-expect-error: its values are no numbers
  const wrong: ReadonlyMap<string, number> = text;
  text.close();
  return [
    readonly === plain && plain === map && wrong !== map,
    keys.map((key) => key.length).toArray().sort(),
    values.filter((value) => value > 1).toArray(),
    entries.take(1).toArray().length,
    tag,
    total(map),
    addOne(map) === map,
    total(map),
    ["one"].map(map.get, map),
    ["one"].forEach(map.delete, map),
    map.has("one"),
  ];
}

/** A caller that hands on what it was given, and so writes `undefined` where nothing was. */
export function optionUses(given: { timeout?: number }): number {
  const { timeout } = given;
  const open: OpenOptions = {
    mode: undefined,
    readonly: undefined,
    permissions: undefined,
    allowForeignOwner: undefined,
    directory: undefined,
    maxBytes: undefined,
    lock: undefined,
    timeout,
    codec: undefined,
  };
  const anonymous: AnonymousOptions & FrozenOption = { maxBytes: undefined, frozen: undefined };
  const attach: AttachOptions = { allowForeignOwner: undefined, timeout };
  const lock: LockOptions = { timeout };
  const lockAsync: AsyncLockOptions = { timeout, signal: undefined };
  const region: RegionLockOptions = { shared: undefined };
  const mmap: MmapOptions = { length: undefined, protection: undefined, sharing: undefined };
  using value = SharedValue.anonymous<number>(anonymous);
  using same = SharedValue.attach<number>(value.token, attach);
  using memory = Mmap.anonymous(1);
  same.lock(lock).unlock();
  memory.lock({ ...lock, ...region }).unlock();
  const error = new SharedMemoryError("System", "text", { errno: undefined, stored: undefined });
  SharedMap.list({ directory: undefined });
  const all = [open, lockAsync, mmap, error];
  return all.length;
}
