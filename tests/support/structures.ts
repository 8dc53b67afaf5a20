/**
 * Structures by number: the same number makes the same structure in every process. Each is made
 * twice, as it is given to `set` (with prototypes, realms, getters and proxies that must not
 * matter) and as it must come back.
 */
import assert from "node:assert/strict";
import { types } from "node:util";
import vm from "node:vm";
import type { SharedMap } from "../../mod.ts";
import { type Random, seededRandom } from "./random.ts";

/** A structure as given, and as it must come back. */
export interface Structure {
  readonly given: object;
  readonly expected: object;
  /** Where something lies that cannot be kept: `value.a[1]`. */
  readonly refusedAt: string | undefined;
  /** Whether `structuredClone` keeps all of it. It takes no proxy, and no fields of errors. */
  readonly canClone: boolean;
}

const realm = vm.createContext({});
const foreign = vm.runInContext(
  "({ Object, Array, Date, Map, Set, RegExp, Uint8Array, Error, RangeError })",
  realm,
) as typeof globalThis;

/** The structure of this number. Of each hundred, `refusedIn` have something that is refused. */
export function structure(number: number, refusedIn = 10): Structure {
  const given = new Maker(number, true, refusedIn);
  const expected = new Maker(number, false, refusedIn);
  return {
    given: given.make(),
    expected: expected.make(),
    refusedAt: given.refusedAt,
    canClone: given.canClone,
  };
}

// deno-fmt-ignore
const NAMES = ["id", "name", "x", "list", "a b", "", "0", "10", "é", "☺", "\ud800", "constructor",
  "toString", "__keys__", "then", "name_that_is_longer_than_sixty_three_characters_".repeat(2),
  "__proto__", "toJSON", "city", "state"];
// deno-fmt-ignore
const TEXTS = ["", "a", "hello world", "é", "ÿ".repeat(70), "☺", "日本語", "\ud800", "a\udc00b",
  "\ufeff", "x".repeat(63), "x".repeat(64), "x".repeat(129), "y".repeat(300), "\0", "Привет, мир",
  "😀".repeat(40)];
// deno-fmt-ignore
const NUMBERS = [0, -0, 1, 127, 128, 255, -1, 0.5, -1.25, 2 ** 31 - 1, 2 ** 31, -(2 ** 31), 1e300,
  NaN, Infinity, -Infinity, 2 ** 53, 1e-7];

class Point {
  x = 1;
}

/** What cannot be kept, a function each. */
const REFUSED: (() => unknown)[] = [
  () => () => 1,
  () => Symbol("s"),
  () => new Point(),
  () => Object.create({ inherited: 1 }),
  () => Promise.resolve(1),
  () => new WeakMap(),
  () => new (class Own extends Map {})(),
  () => new (class List extends Array {})(),
  () => ({ a: 1, [Symbol("s")]: 2 }),
  () => Object.defineProperty({ a: 1 }, "hidden", { value: 1 }),
  () => Object.assign([1, 2], { [Symbol("s")]: 1 }),
  () => Object.assign(Array.from({ length: 300 }, () => 1), { [Symbol("s")]: 1 }),
  () => Object.assign(new Date(5), { zone: "UTC" }),
  () => Object.assign(new Map([["a", 1]]), { name: "x" }),
  () => Object.assign(new Set([1]), { name: "x" }),
  () => Object.assign(new Uint8Array(3), { name: "x" }),
  () => Object.assign(new Float64Array(3000), { name: "x" }),
  () => Object.assign(/a/g, { lastIndex: 2 }),
  () => new ArrayBuffer(4, { maxByteLength: 8 }),
  () => new SharedArrayBuffer(4),
  () => new Proxy(new Map(), {}),
  () => new Proxy(new Date(), {}),
  () => (function* () {})(),
  () => new WeakRef({}),
  () => Object(Symbol("s")),
  () => Object.create(Array.prototype),
  () => Object.create(Date.prototype),
  () => new URL("https://example.org"),
];

class Maker {
  refusedAt: string | undefined;
  canClone = true;
  readonly #random: Random;
  readonly #isGiven: boolean;
  readonly #isPlain: boolean;
  /** After how many nodes the refused one comes; never, if there is none. */
  #left: number;
  readonly #hasRefused: boolean;
  readonly #made: object[] = [];
  readonly #path: string[] = [];
  #budget: number;

  constructor(number: number, isGiven: boolean, refusedIn: number) {
    this.#random = seededRandom(number);
    this.#isGiven = isGiven;
    this.#hasRefused = this.#random(100) < refusedIn;
    this.#isPlain = this.#random(10) < 6;
    this.#left = this.#hasRefused ? 1 + this.#random(8) : Infinity;
    this.#budget = 5 + this.#random(60);
  }

  make(): object {
    return this.#object(0);
  }

  #item(depth: number, step: string): unknown {
    this.#path.push(step);
    try {
      this.#left -= 1;
      this.#budget -= 1;
      if (this.#left === 0) {
        this.refusedAt = `value${this.#path.join("")}`;
        const refused = REFUSED[this.#random(REFUSED.length)];
        return this.#isGiven ? refused() : undefined;
      }
      return this.#budget > 0 && depth < 8 && this.#random(3) === 0
        ? this.#object(depth)
        : this.#primitive();
    } finally {
      this.#path.pop();
    }
  }

  #primitive(): unknown {
    const dice = this.#random(10);
    if (dice < 4) return NUMBERS[this.#random(NUMBERS.length)];
    if (dice < 8) return TEXTS[this.#random(TEXTS.length)];
    const big = [0n, -1n, 2n ** 63n - 1n, -(2n ** 63n)];
    const huge = this.#isPlain ? 7n : -(2n ** 70n);
    return [null, undefined, true, false, ...big, huge][this.#random(9)];
  }

  #object(depth: number): object {
    const { length } = this.#made;
    const repeat = this.#random(12);
    if (repeat === 0 && length > 0 && !this.#hasRefused) return this.#made[this.#random(length)];
    const dice = this.#random(this.#isPlain ? 9 : 20);
    if (dice < 5) return this.#record(depth);
    if (dice < 7) return this.#array(depth);
    if (dice === 7) return this.#floats();
    if (dice === 8) return this.#note(this.#of("Date")(this.#random(2 ** 31)));
    if (dice < 11) return this.#map(depth);
    if (dice < 13) return this.#set(depth);
    if (dice < 15) return this.#bytes();
    if (dice === 15) return this.#note(this.#of("RegExp")("a(b|c)☺?", "giu"));
    if (dice === 16) return this.#note(Object(this.#primitive() ?? 1));
    if (dice === 17) return this.#sparse(depth);
    return this.#error(depth);
  }

  #note<T extends object>(object: T): T {
    this.#made.push(object);
    return object;
  }

  /** Makes one of a class, of this realm or of another. */
  #of(name: "Date" | "RegExp" | "Map" | "Set"): (...args: unknown[]) => object {
    const isForeign = this.#random(4) === 0 && this.#isGiven;
    const Class = (isForeign ? foreign : globalThis)[name] as new (...args: unknown[]) => object;
    return (...args) => new Class(...args);
  }

  /** An object to be filled, and what stands for it. */
  #record(depth: number): object {
    const dice = this.#random(12);
    let object: object = {};
    if (this.#isGiven && dice === 0) object = Object.create(null);
    if (this.#isGiven && dice === 1) object = new foreign.Object();
    const isProxy = dice === 2;
    if (isProxy) this.canClone = false;
    const face = isProxy && this.#isGiven ? new Proxy(object, {}) : object;
    this.#note(face);
    const count = this.#random(7);
    const isCommon = this.#random(2) === 0;
    for (let i = 0; i < count; i += 1) {
      const name = isCommon ? `field${i}` : NAMES[this.#random(NAMES.length)];
      if (Object.hasOwn(object, name)) continue;
      const value = this.#item(depth + 1, stepTo(name));
      if (dice === 3 && this.#isGiven) {
        Object.defineProperty(object, name, {
          get: () => value,
          enumerable: true,
          configurable: true,
        });
      } else defineMember(object, name, value);
    }
    if (dice === 4 && this.#isGiven) Object.freeze(object);
    return face;
  }

  #array(depth: number): object {
    const dice = this.#random(12);
    const array = this.#note(this.#isGiven && dice === 0 ? new foreign.Array() : []);
    const count = this.#random(10) === 0 ? this.#random(50) : this.#random(5);
    for (let i = 0; i < count; i += 1) array[i] = this.#item(depth + 1, `[${i}]`);
    return array;
  }

  #floats(): object {
    const count = this.#random(3) === 0 ? this.#random(600) : this.#random(10);
    return this.#note(Array.from({ length: count }, () => this.#random(1000) / 8));
  }

  /** An array with holes or with other properties. */
  #sparse(depth: number): object {
    const array: unknown[] = this.#note([]);
    array.length = this.#random(400);
    const count = this.#random(4);
    for (let i = 0; i < count; i += 1) {
      const at = this.#random(300);
      // Not in a place that is taken: what must be refused there would be gone.
      if (at < array.length && !Object.hasOwn(array, at)) {
        array[at] = this.#item(depth + 1, `[${at}]`);
      }
    }
    defineMember(array, "total", this.#item(depth + 1, ".total"));
    return array;
  }

  #map(depth: number): object {
    const map = this.#note(this.#of("Map")()) as Map<unknown, unknown>;
    const count = this.#random(4);
    for (let i = 0; i < count; i += 1) {
      map.set(i, this.#item(depth + 1, `.get(${i})`));
    }
    return map;
  }

  #set(depth: number): object {
    const set = this.#note(this.#of("Set")()) as Set<unknown>;
    const count = this.#random(3);
    for (let i = 0; i < count; i += 1) {
      set.add({ i, x: this.#item(depth + 2, `.values()[${i}].x`) });
    }
    return set;
  }

  #bytes(): object {
    const length = 8 * (this.#random(5) === 0 ? this.#random(500) : this.#random(5));
    const bytes = Uint8Array.from({ length }, (_, i) => (i * 7 + length) & 255);
    const Class = [
      Uint8Array,
      Int16Array,
      Float64Array,
      BigInt64Array,
      DataView,
      Float32Array,
      Uint8ClampedArray,
    ][this.#random(7)];
    if (this.#random(4) === 0) return this.#note(bytes.buffer);
    return this.#note(Reflect.construct(Class, [bytes.buffer]));
  }

  #error(depth: number): object {
    const classes = [Error, RangeError, TypeError, SyntaxError];
    const Base = classes[this.#random(4)];
    const isOwn = this.#random(2) === 0;
    const Class = isOwn && this.#isGiven ? class Mine extends Base {} : Base;
    const error = this.#note(new Class(TEXTS[this.#random(TEXTS.length)]));
    error.stack = `Error: made\n    at number ${this.#random(1000)}`;
    if (isOwn) {
      Object.defineProperty(error, "name", { value: "Mine", configurable: true, writable: true });
    }
    if (this.#random(2) === 0) {
      const value = this.#item(depth + 1, ".cause");
      Object.defineProperty(error, "cause", { value, configurable: true, writable: true });
    }
    defineMember(error, "code", this.#item(depth + 1, ".code"));
    this.canClone = false;
    return error;
  }
}

function stepTo(name: string): string {
  if (/^[A-Za-z_$][\w$]*$/.test(name)) return `.${name}`;
  return /^\d+$/.test(name) ? `[${name}]` : `[${JSON.stringify(name)}]`;
}

function defineMember(object: object, name: string, value: unknown): void {
  Object.defineProperty(object, name, {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  });
}

/** What the runtimes give errors of their own accord. */
const OF_ERRORS = new Set(["line", "column", "sourceURL", "originalLine", "originalColumn"]);

/**
 * Asserts that two values are alike in everything that a program can see but their addresses, and
 * that within each the same objects are the same.
 */
export function assertAlike(actual: unknown, expected: unknown, where = "value"): void {
  compare(actual, expected, where, new Map(), new Map());
}

function compare(
  actual: unknown,
  expected: unknown,
  where: string,
  met: Map<object, object>,
  back: Map<object, object>,
): void {
  if (typeof expected !== "object" || expected === null) {
    if (!Object.is(actual, expected)) assert.fail(`${where}: ${String(actual)}`);
    return;
  }
  if (typeof actual !== "object" || actual === null) assert.fail(`${where} is no object`);
  if (met.has(expected) || back.has(actual)) {
    if (met.get(expected) !== actual || back.get(actual) !== expected) {
      assert.fail(`${where}: another object`);
    }
    return;
  }
  met.set(expected, actual);
  back.set(actual, expected);
  if (Object.getPrototypeOf(actual) !== Object.getPrototypeOf(expected)) {
    assert.fail(`${where}: another prototype`);
  }
  const visit = (a: unknown, b: unknown, step: string) => compare(a, b, where + step, met, back);
  if (types.isDate(expected)) visit(Number(actual), Number(expected), ".time");
  if (types.isRegExp(expected)) visit(String(actual), String(expected), ".text");
  if (types.isBoxedPrimitive(expected)) {
    visit(actual.valueOf(), expected.valueOf(), ".valueOf()");
  }
  if (types.isMap(expected)) visit([...actual as Map<unknown, unknown>], [...expected], ".entries");
  if (types.isSet(expected)) visit([...actual as Set<unknown>], [...expected], ".members");
  if (types.isAnyArrayBuffer(expected) || ArrayBuffer.isView(expected)) {
    return assert.deepEqual(actual, expected, where);
  }
  compareMembers(actual, expected, where, visit);
}

function compareMembers(
  actual: object,
  expected: object,
  where: string,
  visit: (a: unknown, b: unknown, step: string) => void,
): void {
  const isError = types.isNativeError(expected);
  if (isError !== types.isNativeError(actual)) assert.fail(`${where}: no error`);
  if (isError) visit((actual as Error).stack, (expected as Error).stack, ".stack");
  const [names, wanted] = [actual, expected].map((object) => {
    const keys = Reflect.ownKeys(object);
    if (!isError) return keys;
    return keys.filter((key) => key !== "stack" && !OF_ERRORS.has(String(key))).sort();
  });
  const isSame = names.length === wanted.length && names.every((key, i) => key === wanted[i]);
  if (!isSame) assert.fail(`${where} has ${names.map(String)} instead of ${wanted.map(String)}`);
  for (const key of names) {
    const [found, meant] = [actual, expected].map((object) =>
      Object.getOwnPropertyDescriptor(object, key)!
    );
    if (found.enumerable !== meant.enumerable) assert.fail(`${where}: ${String(key)} is hidden`);
    visit(found.value, meant.value, `.${String(key)}`);
  }
}

/** Stores the structures from one number to another; gives how many were refused, as they must. */
export function writeStructures(map: SharedMap, from: number, to: number): number {
  let refused = 0;
  for (let number = from; number < to; number += 1) {
    const { given, refusedAt } = structure(number);
    if (refusedAt === undefined) map.set(`${number}`, given);
    else {
      assert.throws(() => map.set(`${number}`, given), (error: unknown) => {
        const isRight = error instanceof TypeError && error.message.endsWith(` at ${refusedAt}`);
        return isRight || assert.fail(`${number}: ${error} instead of one at ${refusedAt}`);
      });
      refused += 1;
    }
  }
  return refused;
}

/** Compares what `writeStructures` has stored, perhaps elsewhere, and says how many there are. */
export function checkStructures(map: SharedMap, from: number, to: number): number {
  let count = 0;
  const numbers = Array.from({ length: to - from }, (_, i) => from + i);
  map.getMany(numbers.map(String)).forEach((found, i) => {
    const { expected, refusedAt } = structure(numbers[i]);
    if (refusedAt !== undefined) return assert.equal(found, undefined);
    assertAlike(found, expected, `value of ${numbers[i]}`);
    count += 1;
  });
  return count;
}
