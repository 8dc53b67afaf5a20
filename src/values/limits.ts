/**
 * How large values may be, and how much text is made at once, for every codec.
 */
import { formatBytes, SharedMemoryError } from "../errors.ts";
import { isJavaScriptCore } from "../ffi/native.ts";

export const MAX_VALUE_BYTES: number = 2 ** 30;

/** Deeper structures could overflow the stack here or in the runtime that reads them. */
export const MAX_DEPTH = 500;

/**
 * Short strings are cut out of longer stretches of text, of so many bytes: that is quicker than to
 * make each by itself. A stretch lives as long as any of its strings, so a string that is kept
 * holds no more than this besides itself. JavaScriptCore needs more for each.
 */
export const STRETCH_BYTES: number = isJavaScriptCore ? 160 : 224;
/** Longer strings are made by themselves. */
export const STRETCHED_MOST: number = STRETCH_BYTES / 2;

/** The error for a value of `length` bytes, which are too many. */
export function tooLarge(length: number): SharedMemoryError {
  const limit = formatBytes(MAX_VALUE_BYTES);
  return new SharedMemoryError(
    "TooLarge",
    `Cannot store a value of ${length} bytes: the limit is ${limit}`,
  );
}
