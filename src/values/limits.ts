/**
 * How large a value may be, for every codec.
 */
import { formatBytes, SharedMemoryError } from "../errors.ts";

export const MAX_VALUE_BYTES: number = 2 ** 30;

/** Deeper structures could overflow the stack here or in the runtime that reads them. */
export const MAX_DEPTH = 500;

/** The error for a value of `length` bytes, which are too many. */
export function tooLarge(length: number): SharedMemoryError {
  const limit = formatBytes(MAX_VALUE_BYTES);
  return new SharedMemoryError(
    "TooLarge",
    `Cannot store a value of ${length} bytes: the limit is ${limit}`,
  );
}
