/**
 * How the public objects print in `console.log` of both runtimes: as what they share, in place of
 * private fields. Printing must neither throw nor show more than a screen can take.
 */
import { inspect, type InspectOptions } from "node:util";
import { SharedMemoryError } from "../errors.ts";

/** How many entries of a map are shown. */
const SHOWN_ENTRIES = 10;

/** How a value inside prints, with the reader's colours and depth. */
type Show = (value: unknown) => string;

/**
 * Has objects with this prototype printed by `print`. The method is defined here and not in the
 * class, so that it is no part of the public types.
 */
export function printBy<T extends object>(
  prototype: T,
  print: (object: T, show: Show) => string,
): void {
  Object.defineProperty(prototype, inspect.custom, {
    value(this: T, depth: number | null, options?: InspectOptions): string {
      const colors = options?.colors === true;
      return print(this, (value) => inspect(value, { colors, depth }));
    },
    writable: true,
    configurable: true,
  });
}

/** What an open map, value or region is called: `SharedMap(2) "jobs"`. */
export function headOf(className: string, count?: number, name?: string): string {
  const counted = count === undefined ? className : `${className}(${count})`;
  return name === undefined ? counted : `${counted} ${JSON.stringify(name)}`;
}

/** What `print` makes, or why it cannot be made: `SharedMap (Closed)`. */
export function orReason(className: string, print: () => string): string {
  try {
    return print();
  } catch (error) {
    const reason = error instanceof SharedMemoryError ? error.code : `${error}`;
    return `${className} (${reason})`;
  }
}

/** The first entries in braces, as a `Map` prints them, and how many more of `size` there are. */
export function shownEntries(
  entries: Iterable<[string, unknown]>,
  size: number,
  show: Show,
): string {
  const first = new Map<string, unknown>();
  for (const [key, value] of entries) {
    if (first.size === SHOWN_ENTRIES) break;
    first.set(key, value);
  }
  const shown = show(first).replace(/^Map\(\d+\) /, "");
  const more = size - first.size;
  if (more <= 0 || first.size === 0) return shown;
  const rest = `... ${more} more ${more === 1 ? "item" : "items"}`;
  const separator = shown.includes("\n") ? "\n" : " ";
  return shown.replace(/\s*\}$/, `,${separator}${separator === "\n" ? "  " : ""}${rest}$&`);
}
