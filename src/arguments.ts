/**
 * Checks of arguments, for every public call: a value of the wrong type is a `TypeError`, one
 * beyond its limits a `RangeError`, and the message names the argument.
 */

/**
 * The options of a call. Throws unless they are an object, with no other options than the `known`
 * ones, or left out. A misspelt option would have no effect, which is found out too late.
 */
export function checkOptions<T extends object>(
  options: T | undefined,
  known: readonly string[],
): T {
  if (options === undefined) return {} as T;
  if (typeof options !== "object" || options === null) {
    throw wrongType("options", "an object", options);
  }
  // Only the object's own: a program may have put others on `Object.prototype`.
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) throw unknownOption(name, known);
  }
  return options;
}

function unknownOption(name: string, known: readonly string[]): TypeError {
  const short = name.slice(0, 30);
  const nearest = known.toSorted((a, b) => distance(short, a) - distance(short, b))[0];
  const all = known.length > 1 ? `, of ${known.join(", ")}` : "";
  return new TypeError(
    `Cannot use an option "${short}": the nearest here is "${nearest}"${all}`,
  );
}

/**
 * How many letters must be added, dropped, changed or exchanged with their neighbour to make one
 * word the other; a capital letter counts as the small one.
 */
function distance(one: string, other: string): number {
  const [a, b] = [one.toLowerCase(), other.toLowerCase()];
  const rows = [Array.from({ length: b.length + 1 }, (_, column) => column)];
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const isSame = a[i - 1] === b[j - 1];
      row[j] = Math.min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + (isSame ? 0 : 1));
      const isExchanged = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (isExchanged) row[j] = Math.min(row[j], rows[i - 2][j - 2] + 1);
    }
    rows.push(row);
  }
  return rows[a.length][b.length];
}

/** Throws unless `value` is of this type or left out. */
export function checkType<Type>(option: string, value: Type | undefined, type: string): void {
  if (value !== undefined && typeof value !== type) throw wrongType(option, `a ${type}`, value);
}

/** Throws unless `fn` can be called. */
export function checkFunction(what: string, fn: unknown): void {
  if (typeof fn !== "function") throw wrongType(what, "a function", fn);
}

/** Throws unless `list` can be iterated over. */
export function checkIterable(what: string, list: Iterable<unknown>): void {
  if (typeof list?.[Symbol.iterator] !== "function") throw wrongType(what, "an iterable", list);
}

/** The milliseconds a call may wait: `timeout`, or `preset` where it was left out. */
export function checkTimeout(timeout: number | undefined, preset: number): number {
  checkType("timeout", timeout, "number");
  if (timeout === undefined || timeout >= 0) return timeout ?? preset;
  throw new RangeError(`Cannot use timeout ${timeout}: it is 0 to Infinity`);
}

/** Throws unless `value` is one of `words` or left out. */
export function checkWord<Word extends string>(
  option: string,
  value: Word | undefined,
  words: readonly Word[],
): Word | undefined {
  if (value === undefined || words.includes(value)) return value;
  throw wrongType(option, words.map((word) => `"${word}"`).join(" or "), value);
}

/** Throws unless `value` is a whole number within these bounds or left out. */
export function checkInteger(
  option: string,
  value: number | undefined,
  least: number,
  most: number = Number.MAX_SAFE_INTEGER,
): number | undefined {
  checkType(option, value, "number");
  if (value === undefined) return value;
  if (Number.isInteger(value) && value >= least && value <= most) return value + 0; // never -0
  throw new RangeError(
    `Cannot use ${option} ${value}: it is a whole number from ${least} to ${most}`,
  );
}

/** The error for `value` given as `what`. */
export function wrongType(what: string, wanted: string, value: unknown): TypeError {
  return new TypeError(`Cannot use ${shown(value)} as ${what}: it must be ${wanted}`);
}

/** A value as messages show it: whole where it is short, else what it is. */
function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 100));
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object" && value !== null) return "an object";
  if (typeof value === "function" || typeof value === "symbol") return `a ${typeof value}`;
  if (typeof value === "bigint") return `${value.toString().slice(0, 100)}n`;
  return String(value);
}

/**
 * The getter `name` of a built-in prototype. Calling it reads the true value: a hostile object may
 * have a property of that name itself, with another value or one that throws.
 */
export function builtInGetter<Result>(prototype: object, name: string): (this: unknown) => Result {
  return Object.getOwnPropertyDescriptor(prototype, name)!.get!;
}

const TYPED_ARRAY: object = Object.getPrototypeOf(Uint8Array.prototype);

/** How many elements a typed array has. */
export const lengthOf: (this: unknown) => number = builtInGetter(TYPED_ARRAY, "length");
/** The buffer under a typed array. */
export const bufferOf: (this: unknown) => ArrayBuffer = builtInGetter(TYPED_ARRAY, "buffer");
/** Where a typed array begins in its buffer. */
export const offsetOf: (this: unknown) => number = builtInGetter(TYPED_ARRAY, "byteOffset");
