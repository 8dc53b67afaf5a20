/**
 * The bytes of a plain structure (`docs/design.md`, Values): a head, a stream with one item, and
 * behind it the names of all objects, an entry each.
 *
 *     value  = head stream entry*
 *     head   = i32: length of head and stream; bit 31 is set if no string is a byte a character
 *     entry  = 1, u32 sum, u16 length, names (u8 length, UTF-8 each): a shape
 *            | 0, u32 sum, u32 length, u32 count, names (a string item each): of one object alone
 *
 * Numbers are little-endian. An item is a tag and what the tag says. An older library meets the
 * kind of such a value and calls it "Corrupt"; so does this one with a tag it does not know.
 */

/** 0 to 127: the integer itself. */
export const STRING = 0x80; // and its length, up to 63: a byte a character
export const STRING_MOST = 63;
export const OBJECT = 0xc0; // and four bits of the index of its names, eight more behind
export const ARRAY = 0xd0; // and its length, up to 15
export const ARRAY_MOST = 15;
export const NULL = 0xe0;
export const UNDEFINED = 0xe1;
export const TRUE = 0xe2;
export const FALSE = 0xe3;
export const FLOAT = 0xe4; // f64
export const INTEGER = 0xe5; // i32
export const LATIN1 = 0xe6; // u32 length, a byte a character
export const WIDE = 0xe7; // u32 length, code units
export const LONG_ARRAY = 0xe8; // u32 length, items
export const DATE = 0xe9; // f64
export const BIGINT = 0xea; // i64
export const FLOATS = 0xeb; // u32 length, f64 each: an array of numbers

/** Beside the length in the head: no string is read from the stream as text. */
export const NO_TEXT: number = -(2 ** 31);

export const SHAPE_ENTRY = 1;
export const NAMES_ENTRY = 0;
/** What stands before the names of an entry. */
export const SHAPE_HEAD = 7;
export const NAMES_HEAD = 13;
/** What an object's index has room for. */
export const ENTRIES_MOST = 4096;

/** Tells damage of names; nothing else depends on it. FNV-1a, mixed. */
export function sumOf(bytes: Uint8Array, from: number, to: number): number {
  let sum = 0x811c9dc5 | 0;
  for (let at = from; at < to; at += 1) sum = Math.imul(sum ^ bytes[at], 0x01000193);
  return sum ^ sum >>> 15;
}
