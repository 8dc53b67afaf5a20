/**
 * Values that are handed out again for as long as they stay the same, because no caller can change
 * them.
 */

/** A value with the version that it was read with. */
export interface Kept {
  readonly hash: number;
  readonly key: string;
  readonly version: number;
  readonly value: object;
}

/** As many objects are kept: in each set those of four keys that the hash leads there. */
const PLACES = 4096;
const WAYS = 4;
/** So far a hash is shifted to become the number of a set. */
const SET_SHIFT = 22;

/** The frozen objects of one map. No key has to be looked for, and no object made room for. */
export class FrozenTable {
  /** Whether a codec of the user makes the objects. */
  readonly #isOfUser: boolean;
  readonly #places: (Kept | undefined)[] = new Array(PLACES).fill(undefined);
  /** Which of a full set gives way next. */
  #turn = 0;

  constructor(isOfUser: boolean) {
    this.#isOfUser = isOfUser;
  }

  /** What leads a key of `length` bytes to its set. */
  hashOf(bytes: Uint8Array, length: number): number {
    let hash = length;
    for (let i = 0; i < length; i += 1) hash = Math.imul(hash ^ bytes[i], 0x01000193);
    return Math.imul(hash ^ hash >>> 15, 0x9e3779b1);
  }

  /** What is kept of a key. */
  find(hash: number, key: string): Kept | undefined {
    const first = (hash >>> SET_SHIFT) * WAYS;
    for (let place = first; place < first + WAYS; place += 1) {
      const kept = this.#places[place];
      if (kept !== undefined && kept.hash === hash && kept.key === key) return kept;
    }
    return undefined;
  }

  /** Keeps an object that was just read, if it can be frozen, in place of the one before. */
  keep(hash: number, key: string, version: number, value: unknown): void {
    const isKept = typeof value === "object" && value !== null &&
      freeze(value, this.#isOfUser);
    this.#places[this.#placeFor(hash, key)] = isKept ? { hash, key, version, value } : undefined;
  }

  #placeFor(hash: number, key: string): number {
    const first = (hash >>> SET_SHIFT) * WAYS;
    let free = -1;
    for (let place = first; place < first + WAYS; place += 1) {
      const kept = this.#places[place];
      if (kept === undefined) free = place;
      else if (kept.hash === hash && kept.key === key) return place;
    }
    this.#turn = this.#turn + 1 & WAYS - 1;
    return free >= 0 ? free : first + this.#turn;
  }
}

/** As many objects are looked at without noting which; in more there may be cycles. */
const SMALL = 1000;
let left = 0;

/**
 * Freezes a structure of plain objects, arrays and primitives, which may have cycles. Freezes
 * nothing and returns false if it contains anything else: a frozen Map, say, can still be changed.
 * What a codec of the user made may have functions, symbols and hidden properties besides.
 */
export function freeze(structure: object, isOfUser: boolean): boolean {
  left = SMALL;
  const answer = isOfUser ? undefined : isPlain(structure);
  if (answer === undefined) return freezeAny(structure);
  if (answer) freezeAll(structure);
  return answer;
}

/** Whether a small structure can be frozen; undefined: it is not small, or has cycles. */
function isPlain(object: object): boolean | undefined {
  left -= 1;
  if (left < 0) return undefined;
  if (!hasPlainPrototype(object)) return false;
  const record = object as Record<string, unknown>;
  for (const name in record) {
    const member = record[name];
    if (typeof member !== "object" || member === null) continue;
    const answer = isPlain(member);
    if (answer !== true) return answer;
  }
  return true;
}

/** Freezes the objects of a small structure; those that are frozen were met before. */
function freezeAll(object: object): void {
  Object.freeze(object);
  const record = object as Record<string, unknown>;
  for (const name in record) {
    const member = record[name];
    if (typeof member === "object" && member !== null && !Object.isFrozen(member)) {
      freezeAll(member);
    }
  }
}

function hasPlainPrototype(object: object): boolean {
  const prototype = Object.getPrototypeOf(object);
  return prototype === Object.prototype || prototype === Array.prototype;
}

function freezeAny(structure: object): boolean {
  const found = new Set<object>([structure]);
  for (const object of found) { // the loop also visits what it adds
    if (!hasPlainPrototype(object)) return false;
    for (const key of Reflect.ownKeys(object)) {
      const member = (object as Record<PropertyKey, unknown>)[key];
      if (typeof member === "function") return false;
      if (typeof member === "object" && member !== null) found.add(member);
    }
  }
  for (const object of found) Object.freeze(object);
  return true;
}
