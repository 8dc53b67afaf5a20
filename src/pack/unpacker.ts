/**
 * Unpacks bytes by a template. A template that starts with U, or has a U0, first makes a character
 * of each byte, in UTF-8. Character mode then reads the original bytes, U0 mode those of the UTF-8.
 */
import {
  alignedDown,
  bytesAsCharacters,
  characterBytes,
  countCharacters,
  decodeCharacter,
  isContinuation,
} from "./perl_utf8.ts";
import { Account, type Item, message, ROUND_COST, type Template, VALUE_COST } from "./template.ts";

/**
 * What `unpack` returns.
 *
 * @example
 * ```ts
 * import { unpack, type UnpackedValue } from "shmap";
 * import assert from "node:assert/strict";
 * const values: UnpackedValue[] = unpack("C n", Uint8Array.of(1, 2, 3));
 * assert.deepEqual(values, [1, 0x0203]);
 * ```
 */
export type UnpackedValue = string | number | bigint;

/** The state in which one item is unpacked. */
interface Step {
  count: number;
  /** Whether the count is `*`. After `/` it is still that of the length, as in Perl. */
  readonly isAll: boolean;
  /** Whether the count comes from the template, not from the data. */
  isWritten: boolean;
  /** Where the group started. */
  readonly start: number;
  /** Whether this is character mode, which reads characters, each for one byte. */
  asCharacters: boolean;
}

/** The work one call may do, and what each byte of the data and the template adds to it. */
const WORK_FREE = 2 ** 26;
const WORK_PER_BYTE = 512;
const CHUNK = 8192;
const SPACES = new Set([0, 0x20, 0x09, 0x0a, 0x0b, 0x0c, 0x0d]);
const PREFIX = /^[ \t-\r]*([+-]?)(?:(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|(inf))?/i;
const BITS = Array.from({ length: 256 }, (_, byte) => byte.toString(2).padStart(8, "0"));
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
/** The digits of each byte, by letter. */
const DIGITS: Record<string, readonly string[]> = {
  B: BITS,
  H: HEX,
  b: BITS.map(reversed),
  h: HEX.map(reversed),
};

/** The values of `template` in `bytes`. */
export function unpackBytes(template: Template, bytes: Uint8Array): UnpackedValue[] {
  return new Unpacker(template, bytes).unpack();
}

class Unpacker {
  readonly #template: Template;
  readonly #account: Account;
  readonly #values: UnpackedValue[] = [];
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #end: number;
  readonly #scratch = new DataView(new ArrayBuffer(8));
  /** Whether the bytes were made UTF-8, as the template asks. */
  readonly #isEncoded: boolean;
  #at = 0;

  constructor(template: Template, bytes: Uint8Array) {
    this.#template = template;
    this.#account = new Account(
      template,
      WORK_FREE + WORK_PER_BYTE * (bytes.length + template.text.length),
    );
    this.#isEncoded = readsEncoded(template.text);
    this.#bytes = this.#isEncoded ? bytesAsCharacters(bytes) : bytes;
    const { buffer, byteOffset, byteLength } = this.#bytes;
    this.#view = new DataView(buffer, byteOffset, byteLength);
    this.#end = byteLength;
  }

  unpack(): UnpackedValue[] {
    this.#run(this.#template.items, this.#isEncoded && !startsWithUnicode(this.#template.text));
    return this.#values;
  }

  #fail(what: string, item: Item): never {
    throw new RangeError(message(this.#template, what, item.position));
  }

  /** Unpacks the items once. `asCharacters` is the mode they start in. */
  #run(items: readonly Item[], asCharacters: boolean): void {
    const start = this.#at;
    const firstValue = this.#values.length;
    let mode = asCharacters;
    for (let index = 0; index < items.length; index++) {
      let item = items[index];
      const isAll = item.repeat === "all";
      const count = isAll ? this.#end : item.count;
      const step: Step = { count, isAll, isWritten: true, start, asCharacters: mode };
      for (;;) {
        const isBeyond = this.#at >= this.#end;
        this.#take(item, step);
        if (!item.isLength) break;
        if (this.#values.length <= firstValue) return; // the bytes ended before the length
        if (isBeyond) this.#fail("length/code after end of string", item);
        step.count = Number(lengthFrom(this.#values.pop()!));
        if (step.count < 0) this.#fail("negative '/' count", item);
        step.isWritten = false;
        item = items[++index];
      }
      mode = step.asCharacters;
    }
  }

  #push(value: UnpackedValue, item: Item): void {
    this.#account.spend(VALUE_COST, item);
    this.#values.push(value);
  }

  #take(item: Item, step: Step): void {
    switch (item.letter) {
      case "(":
        return this.#group(item, step);
      case "a":
      case "A":
      case "Z":
        return this.#text(item, step);
      case "b":
      case "B":
        return this.#digits(item, step, 8);
      case "h":
      case "H":
        return this.#digits(item, step, 2);
      case "x":
        return this.#forward(item, step);
      case "X":
        return this.#back(item, step);
      case "@":
        return this.#moveTo(item, step);
      case "w":
        return this.#compressed(item, step);
      case "W":
        return this.#wide(item, step);
      case "U":
        return this.#unicode(item, step);
      default:
        return this.#numbers(item, step);
    }
  }

  #group(item: Item, { count, asCharacters }: Step): void {
    for (let round = 0; round < count; round++) {
      this.#account.spend(ROUND_COST, item);
      this.#run(item.items, asCharacters);
      if (this.#at === this.#end && item.repeat === "all") break;
    }
  }

  /** How many numbers of `size` bytes are left, at most `count`. */
  #available(count: number, size = 1): number {
    return Math.min(count, Math.max(0, Math.floor((this.#end - this.#at) / size)));
  }

  /** The next byte, or in character mode the next character, as a byte; undefined at the end. */
  #byte(item: Item, asCharacters: boolean): number | undefined {
    if (this.#at >= this.#end) return undefined;
    if (!asCharacters) return this.#bytes[this.#at++];
    const character = decodeCharacter(this.#bytes, this.#at, this.#end);
    if (!character) this.#fail(`malformed UTF-8 at byte ${this.#at}`, item);
    this.#at += character.size;
    return Number(character.code);
  }

  /** The next `count` bytes, fewer at the end. They must not be changed. */
  #slice(item: Item, count: number, asCharacters: boolean): Uint8Array {
    const bytes = Math.min(count, this.#end - this.#at);
    this.#account.spend(bytes, item);
    if (!asCharacters) return this.#bytes.subarray(this.#at, this.#at += bytes);
    const taken = new Uint8Array(bytes);
    let length = 0;
    while (length < bytes) {
      const byte = this.#byte(item, true);
      if (byte === undefined) break;
      taken[length++] = byte;
    }
    return taken.subarray(0, length);
  }

  #text(item: Item, { count, isAll, asCharacters }: Step): void {
    const before = this.#at;
    let text = this.#slice(item, count, asCharacters);
    if (item.letter === "Z") {
      const end = text.indexOf(0);
      if (end >= 0) text = text.subarray(0, end);
      if (isAll) {
        this.#at = before;
        this.#slice(item, text.length, asCharacters);
        if (this.#at < this.#end) this.#at++; // past the zero
      }
    } else if (item.letter === "A") {
      let end = text.length;
      while (end > 0 && SPACES.has(text[end - 1])) end--;
      text = text.subarray(0, end);
    }
    this.#push(latin1(text), item);
  }

  /** Bits or hexadecimal digits, `perByte` of them in each byte. */
  #digits(item: Item, { count, isAll, asCharacters }: Step, perByte: 2 | 8): void {
    const all = (this.#end - this.#at) * perByte;
    const wanted = isAll ? all : Math.min(count, all);
    const bytes = this.#slice(item, Math.ceil(wanted / perByte), asCharacters);
    const length = Math.min(wanted, bytes.length * perByte);
    this.#account.spend(length, item);
    const table = DIGITS[item.letter];
    let text = "";
    for (const byte of bytes) text += table[byte];
    this.#push(text.slice(0, length), item);
  }

  #forward(item: Item, { count, asCharacters }: Step): void {
    let left = count;
    if (item.isMarked) {
      const unit = Math.max(count, 1);
      left = (unit - this.#place(item, asCharacters) % unit) % unit;
    }
    this.#skip(item, left, asCharacters);
  }

  /** Skips `count` bytes or characters. */
  #skip(item: Item, count: number, asCharacters: boolean): void {
    if (!asCharacters) this.#at += count;
    else {
      this.#account.spend(Math.min(count, this.#end), item);
      for (let left = count; left > 0 && this.#at <= this.#end; left--) {
        this.#at = this.#at < this.#end
          ? this.#at + characterBytes(this.#bytes[this.#at])
          : this.#end + 1;
      }
    }
    if (this.#at > this.#end) this.#fail(`'${item.letter}' outside of string`, item);
  }

  /** The current offset, in bytes or in characters. */
  #place(item: Item, asCharacters: boolean): number {
    if (!asCharacters) return this.#at;
    this.#account.spend(this.#at, item);
    return countCharacters(this.#bytes, 0, this.#at);
  }

  #back(item: Item, { count, asCharacters }: Step): void {
    const unit = Math.max(count, 1);
    if (asCharacters && item.isMarked) {
      this.#account.spend(this.#at, item);
      const aligned = alignedDown(this.#bytes, this.#at, unit);
      if (aligned > this.#at) this.#fail("malformed UTF-8 string", item);
      this.#at = aligned;
      return;
    }
    const left = item.isMarked ? this.#at % unit : count;
    if (!asCharacters) this.#at -= left;
    else {
      this.#account.spend(Math.min(left, this.#end), item);
      for (let n = 0; n < left && this.#at >= 0; n++) {
        for (this.#at--; this.#at >= 0 && isContinuation(this.#bytes[this.#at]); this.#at--);
      }
    }
    if (this.#at < 0) this.#fail("'X' outside of string", item);
  }

  #moveTo(item: Item, { count, start, asCharacters }: Step): void {
    this.#at = start;
    this.#skip(item, count, asCharacters && !item.isMarked);
  }

  #numbers(item: Item, step: Step): void {
    const { bytes } = item.form!;
    const count = this.#available(step.count, bytes);
    if (count === 0 && item.letter === "C") {
      // C0, and as in Perl also a C that finds nothing left.
      if (step.isWritten) step.asCharacters = this.#isEncoded;
      return;
    }
    for (let n = 0; n < count; n++) {
      if (step.asCharacters) {
        if (!this.#fillScratch(item, bytes)) return;
        this.#push(this.#number(this.#scratch, 0, item), item);
      } else {
        this.#push(this.#number(this.#view, this.#at, item), item);
        this.#at += bytes;
      }
    }
  }

  /** Reads `count` characters into the scratch, or none if fewer are left. */
  #fillScratch(item: Item, count: number): boolean {
    const before = this.#at;
    for (let index = 0; index < count; index++) {
      const byte = this.#byte(item, true);
      if (byte === undefined) {
        this.#at = before;
        return false;
      }
      this.#scratch.setUint8(index, byte);
    }
    return true;
  }

  #number(view: DataView, at: number, item: Item): number | bigint {
    const { bytes, isSigned, isFloat, isBig } = item.form!;
    const isLittle = !isBig;
    if (isFloat) {
      return bytes === 4 ? view.getFloat32(at, isLittle) : view.getFloat64(at, isLittle);
    }
    switch (bytes) {
      case 1:
        return isSigned ? view.getInt8(at) : view.getUint8(at);
      case 2:
        return isSigned ? view.getInt16(at, isLittle) : view.getUint16(at, isLittle);
      case 4:
        return isSigned ? view.getInt32(at, isLittle) : view.getInt32(at, isLittle) >>> 0;
      case 8:
        return isSigned ? view.getBigInt64(at, isLittle) : view.getBigUint64(at, isLittle);
    }
  }

  #compressed(item: Item, { count, asCharacters }: Step): void {
    for (let n = 0; n < count && this.#at < this.#end; n++) {
      const digits: string[] = []; // of seven bits; joined once: adding up is slow for many
      for (let byte = 0x80; byte >= 0x80;) {
        const next = this.#byte(item, asCharacters);
        if (next === undefined) this.#fail("unterminated compressed integer", item);
        this.#account.spend(1, item);
        digits.push(BITS[next & 0x7f].slice(1));
        byte = next;
      }
      this.#push(smallest(BigInt(`0b${digits.join("")}`)), item);
    }
  }

  #wide(item: Item, { count, asCharacters }: Step): void {
    const available = this.#available(count);
    for (let n = 0; n < available; n++) {
      const code = this.#byte(item, asCharacters);
      if (code === undefined) return;
      this.#push(code, item);
    }
  }

  #unicode(item: Item, step: Step): void {
    const count = this.#available(step.count);
    if (count === 0) {
      // U0, and as in Perl also a U that finds nothing left.
      if (step.isWritten) step.asCharacters = false;
      return;
    }
    for (let n = 0; n < count && this.#at < this.#end; n++) {
      const code = step.asCharacters ? this.#twiceEncoded(item) : this.#onceEncoded(item);
      if (code === undefined) return;
      this.#push(code, item);
    }
  }

  #onceEncoded(item: Item): number | bigint {
    const character = decodeCharacter(this.#bytes, this.#at, this.#end);
    if (!character) this.#fail(`malformed UTF-8 at byte ${this.#at}`, item);
    this.#at += character.size;
    return character.code;
  }

  /** The character whose UTF-8 is the next few characters, taken as bytes. */
  #twiceEncoded(item: Item): number | bigint | undefined {
    const before = this.#at;
    const lead = this.#byte(item, true)!;
    const bytes = [lead];
    for (let left = characterBytes(lead) - 1; left > 0; left--) {
      const byte = this.#byte(item, true);
      if (byte === undefined) {
        this.#at = before;
        return undefined;
      }
      bytes.push(byte);
    }
    const character = decodeCharacter(Uint8Array.from(bytes), 0, bytes.length);
    if (!character) this.#fail(`malformed UTF-8 at byte ${before}`, item);
    return character.code;
  }
}

/** Whether the template makes its bytes UTF-8: it starts with U, or has a U0. */
function readsEncoded(text: string): boolean {
  return startsWithUnicode(text) || text.replace(/#[^\n]*/g, "").includes("U0");
}

/** Whether the template starts with U. As in Perl only comments may stand before it. */
function startsWithUnicode(text: string): boolean {
  return /^(?:#[^\n]*\n)*U/.test(text);
}

/** The count that a value before `/` gives: the number, or the one its text starts with. */
function lengthFrom(value: UnpackedValue): bigint {
  let number = value;
  if (typeof number === "string") {
    const [, sign, digits, exponent, infinite] = PREFIX.exec(number)!;
    if (infinite) number = sign === "-" ? -Infinity : Infinity;
    else if (digits === undefined) number = 0;
    else if (/^\d+$/.test(digits) && !exponent) number = BigInt(sign + digits);
    else number = Number(sign + digits + (exponent ?? ""));
  }
  if (Number.isNaN(number)) return 0n;
  if (number >= 2 ** 64) return -1n;
  if (number < -(2 ** 63)) return -1n;
  return BigInt.asIntN(64, typeof number === "number" ? BigInt(Math.trunc(number)) : number);
}

function smallest(value: bigint): number | bigint {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}

function reversed(text: string): string {
  return [...text].reverse().join("");
}

/** The string whose codes are these bytes. */
function latin1(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += CHUNK) {
    text += String.fromCharCode(...bytes.subarray(at, at + CHUNK));
  }
  return text;
}
