/**
 * Errors as values: what is kept of one, and making one of it. The stack is the writer's: it says
 * where the error happened. A subclass, or an error of the system, comes back as the built-in class
 * that it extends, under its own name and with its own fields.
 */
import { types } from "node:util";
import { define, ownData } from "./own.ts";

type Fields = readonly (readonly [name: string, value: unknown])[];

/** What is kept of an error. */
export interface ErrorParts {
  /** The built-in class: an index of `CLASSES`. */
  readonly kind: number;
  readonly name: string;
  /** Whether the name is a field of its own. */
  readonly isNamed: boolean;
  /** Undefined, if it has none of its own. */
  readonly message: string | undefined;
  readonly stack: string | undefined;
  /** Fields of its own: those that a loop over its names does not show, such as the cause. */
  readonly hidden: Fields;
  readonly shown: Fields;
}

/** Stable: values name a class by its place in this list. */
const CLASSES = [
  "Error",
  "EvalError",
  "RangeError",
  "ReferenceError",
  "SyntaxError",
  "TypeError",
  "URIError",
  "AggregateError",
  "SuppressedError",
] as const;
const DOM_EXCEPTION = CLASSES.length;

/** What the runtimes add to errors of their own accord. */
const ADDED = new Set([
  "name",
  "message",
  "stack",
  "line",
  "column",
  "sourceURL",
  "originalLine",
  "originalColumn",
]);

type ErrorClass = new (message?: string, name?: string) => Error;
const scope = globalThis as unknown as Record<string, ErrorClass | undefined>;
const DomException = scope.DOMException;

/** Whether `value` is an error, of any realm or class. */
export function isError(value: object): value is Error {
  return types.isNativeError(value) || isDomException(value);
}

const domName = DomException === undefined
  ? undefined
  : Object.getOwnPropertyDescriptor(DomException.prototype, "name")?.get;

function isDomException(value: object): boolean {
  try {
    return domName !== undefined && typeof domName.call(value) === "string";
  } catch {
    return false;
  }
}

/**
 * What is kept of an error. Throws what its getters throw, and `refuse` for a field that has a
 * symbol in place of a name.
 */
export function partsOf(error: Error, refuse: (what: string) => Error): ErrorParts {
  const name: unknown = error.name;
  const message: unknown = error.message;
  const stack: unknown = error.stack;
  if (typeof name !== "string") throw refuse("an error whose name is no string");
  if (typeof message !== "string") throw refuse("an error whose message is no string");
  const isDom = isDomException(error);
  const hidden: [string, unknown][] = [];
  const shown: [string, unknown][] = [];
  for (const key of Reflect.ownKeys(error)) {
    const descriptor = Object.getOwnPropertyDescriptor(error, key);
    if (descriptor === undefined) continue; // a getter deleted it
    if (typeof key === "symbol") {
      // Those of the platform's own errors are marks of the runtime.
      if (descriptor.enumerable && !isDom) throw refuse("an error with a symbol as a key");
    } else if (!ADDED.has(key)) {
      const value = (error as unknown as Record<string, unknown>)[key];
      (descriptor.enumerable ? shown : hidden).push([key, value]);
    }
  }
  return {
    kind: isDom ? DOM_EXCEPTION : kindOf(error),
    name,
    isNamed: Object.getOwnPropertyDescriptor(error, "name")?.enumerable === true,
    message: Object.hasOwn(error, "message") || message !== "" ? message : undefined,
    stack: typeof stack === "string" ? stack : undefined,
    hidden,
    shown,
  };
}

/** The built-in class that an error's class extends. */
function kindOf(error: object): number {
  for (
    let at: object | null = Object.getPrototypeOf(error);
    at !== null && !types.isProxy(at);
    at = Object.getPrototypeOf(at)
  ) {
    const constructor = ownData(at, "constructor");
    if (typeof constructor !== "function" || !isNative(constructor)) continue;
    const kind = (CLASSES as readonly unknown[]).indexOf(ownData(constructor, "name"));
    if (kind >= 0) return kind;
  }
  return 0;
}

const textOf = Function.prototype.toString;

function isNative(constructor: object): boolean {
  return !types.isProxy(constructor) && textOf.call(constructor).includes("[native code]");
}

/** An error of these parts, as yet without its fields, which may lead back to it. */
export function errorOf(
  kind: number,
  name: string,
  isNamed: boolean,
  message: string | undefined,
  stack: string | undefined,
): Error {
  const error = kind === DOM_EXCEPTION && DomException !== undefined
    ? new DomException(message, name)
    : plainError(kind, message);
  if (stack !== undefined) defineHidden(error, "stack", stack);
  if (error.name !== name || isNamed) (isNamed ? define : defineHidden)(error, "name", name);
  return error;
}

function plainError(kind: number, message: string | undefined): Error {
  const name = CLASSES[kind] ?? "Error";
  const Class = scope[name] ?? Error;
  const text = message === undefined ? [] : [message];
  // The fields that these two make come with the others.
  if (name === "AggregateError") return new AggregateError([], ...text);
  if (name === "SuppressedError") return Reflect.construct(Class, [undefined, undefined, ...text]);
  return new Class(...text);
}

/** Makes a property that a loop over the names does not show. */
export function defineHidden(object: object, name: string, value: unknown): void {
  Object.defineProperty(object, name, {
    value,
    writable: true,
    enumerable: false,
    configurable: true,
  });
}
