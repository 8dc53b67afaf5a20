/**
 * The UTF-8 of Perl's strings, which goes further than the standard: code points up to 2^63 - 1,
 * surrogates too, in one to seven or in thirteen bytes.
 */

const LONG_BYTES = 13;
const CODE_MAX = 2n ** 63n - 1n;
/** The first code points that need 2, 3, 4, 5, 6, 7 and 13 bytes. */
const LIMITS = [0x80, 0x800, 0x10000, 0x200000, 0x4000000, 2 ** 31, 2 ** 36];

/** How many bytes a character has, by its first byte. A stray continuation byte counts as one. */
export function characterBytes(lead: number): number {
  if (lead < 0xc0) return 1;
  return lead === 0xff ? LONG_BYTES : Math.clz32(~(lead << 24));
}

/** Whether a byte continues a character. */
export function isContinuation(byte: number): boolean {
  return (byte & 0xc0) === 0x80;
}

/** How many whole characters there are in `bytes` from `start` to `end`. */
export function countCharacters(bytes: Uint8Array, start: number, end: number): number {
  let count = 0;
  let at = start;
  for (; at < end; at += characterBytes(bytes[at])) count++;
  return at > end ? count - 1 : count;
}

/** The last offset up to `end` with a multiple of `unit` characters before it. */
export function alignedDown(bytes: Uint8Array, end: number, unit: number): number {
  let aligned = 0;
  let count = 0;
  for (let at = 0; at < end;) {
    at += characterBytes(bytes[at]);
    if (++count % unit === 0) aligned = at;
  }
  return aligned;
}

/** The bytes of the code point `code`. Assumes that it is below 2^63. */
export function encodeCharacter(code: number | bigint): number[] {
  if (code < 0x80) return [Number(code)];
  const size = encodedBytes(code);
  const bytes = new Array<number>(size);
  let rest = code;
  for (let index = size - 1; index > 0; index--) {
    bytes[index] = 0x80 | Number(BigInt.asUintN(6, BigInt(rest)));
    rest = typeof rest === "bigint" ? rest >> 6n : Math.floor(rest / 64);
  }
  bytes[0] = size > 7 ? 0xff : (0xff00 >> size) & 0xff | Number(rest);
  return bytes;
}

function encodedBytes(code: number | bigint): number {
  const index = LIMITS.findIndex((limit) => code < limit);
  return index < 0 ? LONG_BYTES : index + 1;
}

/** The character at `at`, or undefined if there is no well-formed one before `end`. */
export function decodeCharacter(
  bytes: Uint8Array,
  at: number,
  end: number,
): { code: number | bigint; size: number } | undefined {
  const lead = bytes[at];
  if (lead < 0x80) return { code: lead, size: 1 };
  const size = characterBytes(lead);
  if (size === 1 || at + size > end) return undefined;
  let code: number | bigint = size > 6 ? 0 : lead & (0xff >> (size + 1));
  for (let index = 1; index < size; index++) {
    const byte = bytes[at + index];
    if (!isContinuation(byte)) return undefined;
    if (size > 7) code = (BigInt(code) << 6n) | BigInt(byte & 0x3f);
    else code = (code as number) * 64 + (byte & 0x3f);
  }
  if (code > CODE_MAX || encodedBytes(code) !== size) return undefined;
  return { code: code <= Number.MAX_SAFE_INTEGER ? Number(code) : code, size };
}

/** The offset of the first malformed character of `bytes`, or -1. */
export function findMalformed(bytes: Uint8Array, end: number): number {
  let at = 0;
  while (at < end) {
    if (bytes[at] < 0x80) {
      at++;
      continue;
    }
    const character = decodeCharacter(bytes, at, end);
    if (!character) return at;
    at += character.size;
  }
  return -1;
}

/** How many bytes from `start` to `end` need two bytes as characters. */
export function countHigh(bytes: Uint8Array, start: number, end: number): number {
  let count = 0;
  for (let at = start; at < end; at++) count += bytes[at] >> 7;
  return count;
}

/** The UTF-8 of `bytes` up to `end`, each byte as the character of its code. */
export function bytesAsCharacters(bytes: Uint8Array, end = bytes.length): Uint8Array<ArrayBuffer> {
  const characters = new Uint8Array(end + countHigh(bytes, 0, end));
  let target = 0;
  for (let at = 0; at < end; at++) {
    const byte = bytes[at];
    if (byte >= 0x80) characters[target++] = 0xc0 | (byte >> 6);
    characters[target++] = byte < 0x80 ? byte : 0x80 | (byte & 0x3f);
  }
  return characters;
}
