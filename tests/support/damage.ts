/** Damage to the bytes of values, as a bit that fell over or another writer leaves it. */
import assert from "node:assert/strict";
import { Scratch } from "../../src/ffi/scratch.ts";
import { decode, encode, Undecodable } from "../../src/values/kinds.ts";
import { type Random, seededRandom } from "./random.ts";
import { structure } from "./structures.ts";

/** Up to three damages, of which each is a byte, a bit, a cut, a piece in another place, a run. */
function damaged(bytes: Uint8Array, random: Random): Uint8Array {
  const copy = bytes.slice();
  const times = 1 + random(3);
  for (let i = 0; i < times && copy.length > 0; i += 1) {
    const at = random(copy.length);
    const dice = random(5);
    if (dice === 0) copy[at] = random(256);
    else if (dice === 1) copy[at] ^= 1 << random(8);
    else if (dice === 2) return copy.slice(0, at);
    else if (dice === 3) copy.copyWithin(at, random(copy.length), random(copy.length) + 1);
    else copy.fill([0, 255, 128, 0xc0, 0xe8][random(5)], at, at + 1 + random(4));
  }
  return copy;
}

/** The names at every level of a structure, in lists; those of `lists` are added. */
function nameLists(value: unknown, lists = new Set<string>(), seen = new Set<object>()) {
  if (typeof value !== "object" || value === null || seen.has(value)) return lists;
  seen.add(value);
  if (value instanceof Map || value instanceof Set) {
    for (const member of value) nameLists(member, lists, seen);
  } else if (!ArrayBuffer.isView(value) && !(value instanceof Date)) {
    if (!Array.isArray(value)) lists.add(JSON.stringify(Object.keys(value)));
    for (const member of Object.values(value)) nameLists(member, lists, seen);
  }
  return lists;
}

/**
 * Reads so many damaged structures: each is refused as `Undecodable`, or read as one whose plain
 * objects have only names that the sound one has. How many were read.
 */
export function readDamaged(count: number, seed: number): number {
  const random = seededRandom(seed);
  const memory = new Scratch(4096);
  let read = 0;
  for (let i = 0; i < count;) {
    const { given } = structure(random(2 ** 30), 0);
    memory.end = 0;
    const kind = encode(given, undefined, memory);
    const bytes = memory.bytes.slice(0, memory.end);
    const names = nameLists(decode(memory, 0, bytes.length, kind, undefined));
    for (let k = 0; k < 20; k += 1, i += 1) {
      const changed = damaged(bytes, random);
      const place = new Scratch(changed.length + 40);
      place.bytes.fill(random(256));
      place.bytes.set(changed, 3);
      try {
        const value = decode(place, 3, changed.length, kind, undefined);
        assert.ok(typeof value === "object" && value !== null);
        read += 1;
        // Names of plain structures are checked; in others they are among what cannot be seen.
        if (kind !== 15) continue;
        for (const list of nameLists(value)) assert.ok(names.has(list), `${list} of another shape`);
      } catch (error) {
        if (!(error instanceof Undecodable)) throw new Error(`${i} of ${seed}`, { cause: error });
      }
    }
  }
  return read;
}
