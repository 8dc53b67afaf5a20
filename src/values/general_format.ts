/**
 * The bytes of a structure that is not plain: one item. An item is a tag and what the tag says;
 * lengths and counts are u32, all little-endian. Objects are numbered in the order in which they
 * begin, names in the order in which they first appear.
 */
export const SEEN = 0; // u32: an object that began before
export const UNDEFINED = 1;
export const NULL = 2;
export const TRUE = 3;
export const FALSE = 4;
export const NUMBER = 5; // f64
export const INTEGER = 6; // i32
export const LATIN1 = 7; // length, a byte a character
export const WIDE = 8; // length, code units
export const BIGINT = 9; // i64
export const POSITIVE = 10; // length, magnitude, most significant byte first
export const NEGATIVE = 11;
export const OBJECT = 12; // members
export const ARRAY = 13; // length, items
export const SPARSE_ARRAY = 14; // length, members: with holes, or with other properties
export const DATE = 15; // f64
export const MAP = 16; // count, two items each
export const SET = 17; // count, items
export const REGEXP = 18; // two strings: source and flags
export const BUFFER = 19; // length, bytes
export const VIEW = 20; // u8 index of `VIEWS`, length, bytes
export const ERROR = 21; // u8 class, u8, name, message, stack, hidden members, members
export const BOXED = 22; // an item: the primitive that an object stands for
export const NAME_SEEN = 23; // u32: a name that appeared before

/** Stable: values name a kind of view by its place in this list. */
export const VIEWS = [
  "Int8Array",
  "Uint8Array",
  "Uint8ClampedArray",
  "Int16Array",
  "Uint16Array",
  "Int32Array",
  "Uint32Array",
  "Float32Array",
  "Float64Array",
  "BigInt64Array",
  "BigUint64Array",
  "DataView",
  "Float16Array",
] as const;
