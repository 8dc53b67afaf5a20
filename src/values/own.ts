/**
 * What an object has of its own, and what it is an instance of: asked in the way that each runtime
 * answers quickest, and of the built-in functions as they were when this module was loaded.
 */
import { Buffer } from "node:buffer";
import process from "node:process";
import { inspect, types } from "node:util";
import { isJavaScriptCore } from "../ffi/native.ts";

const { getOwnPropertyNames, getOwnPropertySymbols, getPrototypeOf, hasOwn, keys, values } = Object;
const { ownKeys } = Reflect;

export const OBJECT_PROTOTYPE: object = Object.prototype;
export const ARRAY_PROTOTYPE: object = Array.prototype;
export const DATE_PROTOTYPE: object = Date.prototype;

/** Whether `count` names that can be enumerated are all that an object has of its own. */
export const hasOnlyNames: (object: object, count: number) => boolean = isJavaScriptCore
  ? (object, count) => ownKeys(object).length === count
  : (object, count) =>
    getOwnPropertyNames(object).length === count && getOwnPropertySymbols(object).length === 0;

/** The properties of an object but for its elements: strings and symbols, shown or not. */
type NamesBesideElements = (object: object, filter: 0) => PropertyKey[];

/**
 * V8's own answer, which takes no longer the more elements there are. Only what Node.js calls an
 * internal binding gives it, so it is tried before it is relied on; JavaScriptCore has none.
 */
const namesBesideElements = isJavaScriptCore ? undefined : foundNamesBesideElements();

function foundNamesBesideElements(): NamesBesideElements | undefined {
  try {
    const { binding } = process as unknown as {
      binding(name: "util"): { getOwnNonIndexProperties: NamesBesideElements };
    };
    const { getOwnNonIndexProperties } = binding("util");
    const hidden = Symbol("hidden");
    const array = Object.defineProperties([1, 2], {
      shown: { value: 3, enumerable: true },
      "4294967295": { value: 4, enumerable: true }, // one more than the last index
      kept: { value: 5 },
      [hidden]: { value: 6 },
    });
    const names = getOwnNonIndexProperties(array, 0);
    const wanted = ["length", "shown", "4294967295", "kept", hidden];
    const isRight = names.length === wanted.length && wanted.every((name) => names.includes(name));
    return isRight ? getOwnNonIndexProperties : undefined;
  } catch {
    return undefined;
  }
}

/** Up to here the keys of an array are listed to count them. */
const LISTED_MOST = isJavaScriptCore ? 8 : 256;
/** Up to here they are even if there is a quicker answer for long arrays. */
const LISTED_LEAST = 8;

/**
 * Whether elements are all that a loop over an array's names would show, and it has no symbols;
 * there may be holes all the same. Properties that no loop shows are looked for where that costs
 * nothing; it may take ten times as long.
 */
export function hasOnlyElements(array: readonly unknown[]): boolean {
  const { length } = array;
  const isOfFractions = looksFractional(array);
  if (namesBesideElements !== undefined && length > (isOfFractions ? LISTED_LEAST : LISTED_MOST)) {
    return namesBesideElements(array, 0).length === 1 && arraysInheritNoNames(); // its length
  }
  // With its length. For JavaScriptCore one list is quicker than symbols and keys.
  if (isJavaScriptCore && length <= LISTED_MOST) return ownKeys(array).length === length + 1;
  if (getOwnPropertySymbols(array).length > 0) return false;
  if (length > LISTED_MOST && looksBare(array) && arraysInheritNoNames()) return true;
  // V8 lists values quicker than keys, but would make an object of every fraction among them.
  const list = isJavaScriptCore || isOfFractions ? keys(array) : values(array);
  return list.length === length;
}

/**
 * Whether an array is likely to be one of numbers that are not all integers of 32 bits: some of
 * its first two and its last is none.
 */
export function looksFractional(array: readonly unknown[]): boolean {
  const { length } = array;
  return length > 1 &&
    (isFraction(array[0]) || isFraction(array[1]) || isFraction(array[length - 1]));
}

function isFraction(value: unknown): boolean {
  return typeof value === "number" && (value | 0) !== value;
}

/** On one line: to fit lines takes JavaScriptCore longer than to describe. */
const BARE = {
  maxArrayLength: 0,
  depth: 0,
  customInspect: false,
  compact: true,
  breakLength: Infinity,
} as const;

/**
 * Whether a long array is described as one without other properties, which takes no longer the
 * more elements it has. False says nothing.
 */
function looksBare(array: object & { readonly length: number }): boolean {
  const { length } = array;
  try {
    return inspect(array, BARE) === `[ ... ${length} more items ]`;
  } catch {
    return false; // of some other property's making
  }
}

/** Whether a typed array has no properties but its elements. */
export function isBareView(view: object, length: number): boolean {
  if (length <= LISTED_MOST) return ownKeys(view).length === length;
  if (getOwnPropertySymbols(view).length > 0) return false;
  try {
    const text = inspect(view, BARE);
    if (text.endsWith(`(${length}) [ ... ${length} more items ]`)) return true;
  } catch {
    // The keys decide.
  }
  return ownKeys(view).length === length;
}

/** Whether `object` has exactly `count` properties of its own. */
export function hasOwnCount(object: object, count: number): boolean {
  return ownKeys(object).length === count;
}

/** As with 0. V8 needs half the time for the two questions that it needs for one of both. */
export const hasNothingOwn: (object: object) => boolean = isJavaScriptCore
  ? (object) => ownKeys(object).length === 0
  : (object) =>
    getOwnPropertyNames(object).length === 0 && getOwnPropertySymbols(object).length === 0;

/** Prototypes of other realms that were found to be what they look like. */
const foreign = new Map<string, WeakSet<object>>();
const textOf = Function.prototype.toString;

/** Whether `prototype` is the prototype of the built-in class `name` in this realm or another. */
export function isPrototypeOf(prototype: object, name: string): boolean {
  let known = foreign.get(name);
  if (known === undefined) foreign.set(name, known = new WeakSet());
  if (known.has(prototype)) return true;
  const constructor = ownData(prototype, "constructor");
  if (typeof constructor !== "function" || types.isProxy(constructor)) return false;
  if (ownData(constructor, "name") !== name) return false;
  if (ownData(constructor, "prototype") !== prototype) return false;
  const text = textOf.call(constructor).replace(/\s+/g, " ");
  if (text !== `function ${name}() { [native code] }`) return false;
  known.add(prototype);
  return true;
}

/** Whether `prototype` is the `Object.prototype` of some realm. */
export function isObjectPrototype(prototype: object): boolean {
  return prototype === OBJECT_PROTOTYPE ||
    !types.isProxy(prototype) && getPrototypeOf(prototype) === null &&
      isPrototypeOf(prototype, "Object");
}

/** Whether `prototype` is the `Array.prototype` of some realm. */
export function isArrayPrototype(prototype: object): boolean {
  return prototype === ARRAY_PROTOTYPE || isPrototypeOf(prototype, "Array");
}

/** Whether `prototype` is that of a Node.js Buffer, which is stored as the bytes it has. */
export function isBufferPrototype(prototype: object): boolean {
  return prototype === Buffer.prototype;
}

/** The value of a property of its own, unless that is a getter. */
export function ownData(object: object, name: PropertyKey): unknown {
  return Object.getOwnPropertyDescriptor(object, name)?.value;
}

/** Whether an own or an inherited property would keep an assignment from making a new one. */
export function isInherited(name: string): boolean {
  return name in OBJECT_PROTOTYPE;
}

/** Makes a property like those of a literal, also where the prototype has one of that name. */
export function define(object: object, name: PropertyKey, value: unknown): void {
  Object.defineProperty(object, name, {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  });
}

/** Whether no object inherits a name that a loop over its names would give. */
export function inheritsNoNames(): boolean {
  for (const _name in OBJECT_PROTOTYPE) return false;
  return true;
}

/** The same of arrays: an index that they inherit would stand for the element in a hole. */
function arraysInheritNoNames(): boolean {
  for (const _name in ARRAY_PROTOTYPE) return false;
  return true;
}

export { hasOwn };
