/**
 * `pack` and `unpack`: convert values to bytes and back, by the templates of Perl.
 *
 * @module
 */
import { types } from "node:util";
import { type PackValue, packValues } from "./packer.ts";
import { readTemplate } from "./template.ts";
import { unpackBytes, type UnpackedValue } from "./unpacker.ts";

export type { PackValue, UnpackedValue };

/**
 * Packs values into bytes by a template, as Perl's `pack` does.
 *
 * | letter | packs |
 * | --- | --- |
 * | `a` `A` `Z` | text, padded with zeros, spaces, or zeros and always one at the end |
 * | `b` `B` | a string of bits, the lowest or the highest of each byte first |
 * | `h` `H` | a string of hexadecimal digits, the low or the high one of each byte first |
 * | `c` `C` | 8 bits, signed and unsigned |
 * | `s` `S`, `l` `L`, `q` `Q` | 16, 32 and 64 bits |
 * | `i` `I`, `j` `J` | an `int` of C, 32 bits, and an integer of Perl, 64 bits |
 * | `n` `N`, `v` `V` | 16 and 32 bits, big-endian and little-endian |
 * | `f` `d` | a float and a double |
 * | `w` | an integer of any size, seven bits a byte |
 * | `U` `W` | a character, by its code point |
 * | `x` `X` `@` | zero bytes; bytes back; zeros or a cut up to a place in the group |
 *
 * After a letter or a group may stand: `<` or `>`, the byte order, for `s S i I l L q Q j J f d`
 * and groups; `!` for the sizes of C (`l!` and `L!` have 64 bits), for alignment (`x!8`), for
 * signed `n N v V` and for an `@` in bytes; then a count, which is a number, `*` for all there is,
 * or `[template]` for the size of that. `(...)` is a group; `n/a*` and `n/(...)` put a count before
 * what is counted. White space, commas, and comments from `#` to the end of the line are ignored.
 * Without `<` and `>` the order is the machine's, which is little-endian wherever this module runs.
 *
 * Text is a string of codes 0 to 255, or a `Uint8Array`. Numbers are numbers, bigint or strings
 * that contain only a number. They are cut towards zero; beyond 64 bits they become the largest or
 * the smallest number of 64 bits; then their low bits are taken.
 *
 * In Perl a template that starts with `U`, has a `U0`, or packs a character above 255 with `W`
 * makes a string of characters. The bytes given here are the UTF-8 of that string: `U` and 233 make
 * two bytes, and so do `W` and 233 after `W` and 300. `U0` and `C0` switch as in Perl between bytes
 * of that UTF-8 and bytes that become a character each.
 *
 * Perl packs an empty value, with a warning, for a missing one, and converts any text to a number
 * and any number to text; here these are errors. Values left over are ignored, as in Perl. The
 * whole template is checked before the first value is packed. `/` also counts right after a group,
 * which Perl gets wrong.
 *
 * @param template How to pack each value.
 * @param values The values, in the order of the template.
 * @returns The bytes.
 * @throws {SyntaxError} For a template that is not valid.
 * @throws {TypeError} For a value that is missing or of the wrong kind.
 * @throws {RangeError} For a value that the letter cannot hold: `NaN` and infinities in an integer,
 * negative numbers in `w`, codes above 255 in text; for `X` before the start; and for a result of
 * 2 GiB or more.
 *
 * @example Pack a record
 * ```ts
 * import { pack } from "shmap";
 * import assert from "node:assert/strict";
 *
 * assert.deepEqual(pack("n C/a* x!4 l<", 513, "abc", -2), new Uint8Array([
 *   2, 1, 3, 0x61, 0x62, 0x63, 0, 0, 0xfe, 0xff, 0xff, 0xff,
 * ]));
 * ```
 */
export function pack(template: string, ...values: PackValue[]): Uint8Array {
  return packValues(readTemplate("pack", template), values);
}

/**
 * Unpacks values from bytes by a template, as Perl's `unpack` does. The letters are those of
 * `pack`.
 *
 * `a` gives text as it is, `A` without spaces and zeros at its end, `Z` up to the first zero; `b B
 * h H` give digits. Text is a string of codes 0 to 255. Letters of 64 bits, `q Q j J l! L!`, give
 * bigint; `w` and `U` give a number, and bigint where a number would not be exact; all others give
 * numbers.
 *
 * If the bytes end early there are fewer values. A count `*` takes all that is left. Perl stops, or
 * invents bytes, if `U`, a length before `/` in a group, or a number in character mode meets the
 * end; here there are fewer values then, too.
 *
 * `C` and `W` give the codes of bytes, `U` the code points of UTF-8. A template that starts with
 * `U`, or has a `U0` somewhere, reads each byte as a character first: `U*` gives the codes of the
 * bytes, `C0U*` decodes UTF-8, and `U0` shows the UTF-8 of those characters. Perl reads malformed
 * UTF-8 under `U` as 0, with a warning; here that is an error.
 *
 * @param template How to unpack the values.
 * @param bytes The bytes to unpack.
 * @returns The values.
 * @throws {SyntaxError} For a template that is not valid.
 * @throws {TypeError} If `bytes` is not a `Uint8Array`.
 * @throws {RangeError} If `x`, `X` or `@` leave the bytes, `w` or UTF-8 is malformed, a count
 * before `/` is negative, or there would be too many values.
 *
 * @example Unpack a record
 * ```ts
 * import { pack, unpack } from "shmap";
 * import assert from "node:assert/strict";
 *
 * const bytes = pack("n C/a* x!4 l<", 513, "abc", -2);
 * assert.deepEqual(unpack("n C/a* x!4 l<", bytes), [513, "abc", -2]);
 * ```
 */
export function unpack(template: string, bytes: Uint8Array): UnpackedValue[] {
  const items = readTemplate("unpack", template);
  if (!types.isUint8Array(bytes)) {
    throw new TypeError("Cannot unpack: the bytes are no Uint8Array");
  }
  return unpackBytes(items, bytes);
}
