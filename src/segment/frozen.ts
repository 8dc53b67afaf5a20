/**
 * Values that are handed out again for as long as they stay the same, because no caller can change
 * them.
 */

/** A value with the version that it was read with. */
export interface Kept {
  readonly key: string;
  readonly version: number;
  readonly value: object;
}

/** As many are kept; which, is decided by their keys alone, so that none has to be looked for. */
const PLACES = 4096;

/** The frozen objects of one map. */
export class FrozenTable {
  readonly #places: (Kept | undefined)[] = new Array(PLACES).fill(undefined);

  /** Where the key of `length` bytes belongs. */
  placeOf(bytes: Uint8Array, length: number): number {
    let hash = length;
    for (let i = 0; i < length; i += 1) hash = Math.imul(hash ^ bytes[i], 0x01000193);
    return (hash ^ hash >>> 12) & PLACES - 1;
  }

  /** What is kept of `key`, whose place this is. */
  at(place: number, key: string): Kept | undefined {
    const kept = this.#places[place];
    return kept !== undefined && kept.key === key ? kept : undefined;
  }

  /** Keeps an object that was just read, if it can be frozen; in any case lets go of another. */
  put(place: number, key: string, version: number, value: unknown): void {
    const isKept = typeof value === "object" && value !== null && freeze(value);
    this.#places[place] = isKept ? { key, version, value } : undefined;
  }

  /** Lets go of what is kept there. */
  drop(place: number): void {
    this.#places[place] = undefined;
  }
}

/**
 * Freezes a structure of plain objects, arrays and primitives, which may have cycles. Freezes
 * nothing and returns false if it contains anything else: a frozen Map, say, can still be changed.
 */
export function freeze(structure: object): boolean {
  const found = new Set<object>([structure]);
  for (const object of found) { // the loop also visits what it adds
    const prototype = Object.getPrototypeOf(object);
    if (prototype !== Object.prototype && prototype !== Array.prototype) return false;
    for (const key of Reflect.ownKeys(object)) {
      const member = (object as Record<PropertyKey, unknown>)[key];
      if (typeof member === "function") return false;
      if (typeof member === "object" && member !== null) found.add(member);
    }
  }
  for (const object of found) Object.freeze(object);
  return true;
}
