/**
 * Packs values by a template. The result grows as a string of Perl does: as bytes, or, after U0 or
 * a character beyond a byte, as UTF-8, in which each byte is the character of its code.
 */
import { types } from "node:util";
import {
  alignedDown,
  bytesAsCharacters,
  characterBytes,
  countCharacters,
  countHigh,
  encodeCharacter,
  findMalformed,
  isContinuation,
} from "./perl_utf8.ts";
import { Account, BYTES_MAX, type Item, message, type NumberForm, ROUND_COST } from "./template.ts";
import type { Template } from "./template.ts";

/**
 * What `pack` takes: text and `Uint8Array` for `a A Z b B h H`; numbers, bigint and numeric strings
 * for all other letters.
 *
 * @example
 * ```ts
 * import { pack, type PackValue } from "shmap";
 * import assert from "node:assert/strict";
 * const values: PackValue[] = [1, 2n, "text", Uint8Array.of(3)];
 * assert.equal(pack("C Q> a4 a1", ...values).length, 1 + 8 + 4 + 1);
 * ```
 */
export type PackValue = string | number | bigint | Uint8Array;

/** Where a group started in the result, and the group around it. */
interface Level {
  start: number;
  readonly outer: Level | undefined;
}

const SPACE = 0x20;
const UNSIGNED_END = 2n ** 64n;
const SIGNED_MIN = -(2n ** 63n);
const WHOLE = /^\s*[+-]?\d+\s*$/;
const DECIMAL = /^\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*$/;
const NO_NUMBER = /^\s*([+-]?)(?:(inf(?:inity)?)|nan)\s*$/i;
const NO_BYTES = new Uint8Array(0);

/** The bytes of `values`, laid out by `template`. */
export function packValues(template: Template, values: readonly PackValue[]): Uint8Array {
  return new Packer(template, values).pack();
}

/** The result while it grows. */
class Output {
  bytes = new Uint8Array(64);
  view = new DataView(this.bytes.buffer);
  length = 0;
  /** Whether the bytes are UTF-8, as they are after U0 or a character beyond a byte. */
  isEncoded = false;
  /** The end of the bytes that were ever written: behind it the buffer is zero. */
  #highest = 0;

  /** Makes room for `count` more bytes. */
  reserve(count: number): void {
    const needed = this.length + count;
    if (needed > this.bytes.length) this.replace(Math.max(needed, this.bytes.length * 2));
  }

  /** Moves to a buffer of `size` bytes. */
  replace(size: number): void {
    const larger = new Uint8Array(size);
    larger.set(this.bytes.subarray(0, this.length));
    this.#use(larger);
  }

  /** Adds bytes, in character mode each of them as a character. */
  put(bytes: Uint8Array, asCharacters: boolean): void {
    const added = asCharacters ? bytesAsCharacters(bytes) : bytes;
    this.reserve(added.length);
    this.bytes.set(added, this.length);
    this.length += added.length;
  }

  fill(count: number, byte: number): void {
    this.reserve(count);
    const isFresh = this.length >= this.#highest; // zero already; untouched pages take no memory
    if (byte !== 0 || !isFresh) this.bytes.fill(byte, this.length, this.length + count);
    this.length += count;
  }

  /** Cuts the result. */
  cut(length: number): void {
    this.#highest = Math.max(this.#highest, this.length);
    this.length = length;
  }

  /** Makes the result UTF-8: its bytes become characters, and the starts of groups move. */
  encode(level: Level): void {
    if (this.isEncoded) return;
    for (let group: Level | undefined = level; group; group = group.outer) {
      group.start += countHigh(this.bytes, 0, group.start);
    }
    this.#use(bytesAsCharacters(this.bytes, this.length));
    this.length = this.bytes.length;
    this.isEncoded = true;
  }

  /** Cuts the result. Groups that started behind the cut start there. */
  cutGroups(length: number, level: Level): void {
    this.cut(length);
    for (let group: Level | undefined = level; group; group = group.outer) {
      group.start = Math.min(group.start, length);
    }
  }

  #use(bytes: Uint8Array<ArrayBuffer>): void {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer);
    this.#highest = 0;
  }

  finish(): Uint8Array {
    return this.bytes.length === this.length ? this.bytes : this.bytes.slice(0, this.length);
  }
}

class Packer {
  readonly #template: Template;
  readonly #values: readonly PackValue[];
  readonly #account: Account;
  readonly #out = new Output();
  /** Inside an item before `/`: the length of the item after it, to write in place of a value. */
  #length: number | undefined;
  #next = 0;

  constructor(template: Template, values: readonly PackValue[]) {
    this.#template = template;
    this.#values = values;
    this.#account = new Account(template, BYTES_MAX);
  }

  pack(): Uint8Array {
    const { items } = this.#template;
    const level: Level = { start: 0, outer: undefined };
    if (items[0]?.letter === "U") this.#out.encode(level);
    this.#run(items, level, false);
    const malformed = this.#out.isEncoded ? findMalformed(this.#out.bytes, this.#out.length) : -1;
    if (malformed >= 0) {
      const what = `malformed UTF-8 in the result at ${malformed}`;
      throw new RangeError(message(this.#template, what, items[0].position));
    }
    return this.#out.finish();
  }

  #fail(what: string, item: Item): never {
    throw new RangeError(message(this.#template, what, item.position));
  }

  /** Packs the items once. `asCharacters` is the mode they start in. */
  #run(items: readonly Item[], level: Level, asCharacters: boolean): void {
    let given: number | undefined; // the count that "/" gives the next item
    let mode = asCharacters;
    items.forEach((item, index) => {
      const isAll = item.repeat === "all" && given === undefined;
      const left = this.#values.length - this.#next;
      const all = "@xX".includes(item.letter) ? 0 : left;
      const count = given ?? (isAll ? all : item.count);
      given = item.isLength ? this.#lengthOf(items[index + 1], left) : undefined;
      this.#length = given;
      mode = this.#put(item, isAll, count, level, mode);
    });
    this.#length = undefined;
  }

  /** The number to write before `/`: the length of a text, or the count of the next item. */
  #lengthOf(next: Item, left: number): number {
    if (!"aAZ".includes(next.letter)) {
      return next.repeat === "count" ? Math.min(next.count, left) : left;
    }
    if (next.repeat === "count") return next.count;
    const value = this.#values[this.#next];
    const isText = typeof value === "string" || types.isUint8Array(value);
    return (isText ? value.length : 0) + (next.letter === "Z" ? 1 : 0);
  }

  /** Packs one item `count` times and returns the mode that holds after it. */
  #put(item: Item, isAll: boolean, count: number, level: Level, asCharacters: boolean): boolean {
    switch (item.letter) {
      case "(":
        return this.#group(item, count, level, asCharacters);
      case "a":
      case "A":
      case "Z":
        this.#text(item, isAll, count, asCharacters);
        return asCharacters;
      case "b":
      case "B":
      case "h":
      case "H":
        this.#digits(item, isAll, count, asCharacters);
        return asCharacters;
      case "x":
      case "X":
      case "@":
        this.#move(item, count, level, asCharacters);
        return asCharacters;
      case "w":
        for (let n = 0; n < count; n++) this.#compressed(item, asCharacters);
        return asCharacters;
      case "W":
        return this.#wide(item, count, level, asCharacters);
      case "U":
        return this.#unicode(item, count, level, asCharacters);
      case "C":
        if (count === 0) return this.#out.isEncoded;
        this.#numbers(item, count, asCharacters);
        return asCharacters;
      default:
        this.#numbers(item, count, asCharacters);
        return asCharacters;
    }
  }

  #group(item: Item, count: number, outer: Level, asCharacters: boolean): boolean {
    const wasEncoded = this.#out.isEncoded;
    for (let round = 0; round < count; round++) {
      this.#account.spend(ROUND_COST, item);
      const level = { start: this.#out.length, outer };
      this.#run(item.items, level, asCharacters || this.#out.isEncoded !== wasEncoded);
      if (item.repeat === "all" && this.#next >= this.#values.length) break;
    }
    return asCharacters || this.#out.isEncoded !== wasEncoded;
  }

  /** The next value, or the length to pack in its place. */
  #value(item: Item): PackValue {
    if (this.#length !== undefined) return this.#length;
    if (this.#next >= this.#values.length) {
      const what = `no value for '${item.letter}', there are ${this.#values.length}`;
      throw new TypeError(message(this.#template, what, item.position));
    }
    return this.#values[this.#next++];
  }

  /** Throws, before memory is reserved, if there are not `count` values left. */
  #expect(item: Item, count: number): void {
    if (this.#length !== undefined || count <= this.#values.length - this.#next) return;
    this.#next = this.#values.length;
    this.#value(item);
  }

  #wrongKind(item: Item, value: unknown, wanted: string): never {
    const kind = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
    const text = typeof value === "string" ? ` ${JSON.stringify(value.slice(0, 40))}` : "";
    const what = `'${item.letter}' takes ${wanted}, not ${kind}${text}`;
    throw new TypeError(message(this.#template, what, item.position));
  }

  /** The next value as bytes, one for each character. */
  #bytes(item: Item): Uint8Array {
    const value = this.#value(item);
    if (types.isUint8Array(value)) return value;
    const text = this.#length === undefined ? value : String(value);
    if (typeof text !== "string") this.#wrongKind(item, text, "a string or a Uint8Array");
    if (text === "") return NO_BYTES;
    const bytes = new Uint8Array(text.length);
    for (let index = 0; index < text.length; index++) {
      const code = text.charCodeAt(index);
      if (code > 0xff) {
        const hex = code.toString(16).toUpperCase().padStart(4, "0");
        this.#fail(`'${item.letter}' takes codes up to 255, not U+${hex} at ${index}`, item);
      }
      bytes[index] = code;
    }
    return bytes;
  }

  #text(item: Item, isAll: boolean, count: number, asCharacters: boolean): void {
    const text = this.#bytes(item);
    const isEnded = item.letter === "Z";
    const width = isAll ? text.length + (isEnded ? 1 : 0) : count;
    this.#account.spend(width, item);
    let taken = text.length;
    if (width <= taken) taken = isEnded && width > 0 ? width - 1 : width;
    this.#out.put(taken === text.length ? text : text.subarray(0, taken), asCharacters);
    this.#out.fill(width - taken, item.letter === "A" ? SPACE : 0);
  }

  /** Bits or hexadecimal digits, the rest of the field zero. */
  #digits(item: Item, isAll: boolean, count: number, asCharacters: boolean): void {
    const text = this.#bytes(item);
    const isBits = item.letter === "b" || item.letter === "B";
    const perByte = isBits ? 8 : 2;
    const width = Math.ceil((isAll ? text.length : count) / perByte);
    this.#account.spend(width, item);
    const taken = Math.min(isAll ? text.length : count, text.length);
    const packed = new Uint8Array(Math.ceil(taken / perByte));
    const isHighFirst = item.letter === "B" || item.letter === "H";
    for (let index = 0; index < taken; index++) {
      const place = isHighFirst ? perByte - 1 - index % perByte : index % perByte;
      const digit = isBits ? text[index] & 1 : hexDigit(text[index]);
      packed[Math.floor(index / perByte)] |= digit << (isBits ? place : place * 4);
    }
    this.#out.put(packed, asCharacters);
    this.#out.fill(width - packed.length, 0);
  }

  /** `x`, `X` and `@`: zero bytes, back, or to a place of the group. */
  #move(item: Item, count: number, level: Level, asCharacters: boolean): void {
    const out = this.#out;
    if (item.letter === "@") {
      this.#moveTo(item, count, level, asCharacters && !item.isMarked);
      return;
    }
    if (item.letter === "x") {
      this.#grow(item, item.isMarked ? this.#gap(item, count, asCharacters) : count);
    } else if (!item.isMarked) out.cutGroups(this.#back(item, count, asCharacters), level);
    else if (!asCharacters) out.cutGroups(out.length - out.length % Math.max(count, 1), level);
    else {
      this.#account.spend(out.length, item);
      const length = alignedDown(out.bytes, out.length, Math.max(count, 1));
      if (length > out.length) this.#fail("malformed UTF-8 string", item);
      out.cut(length); // Perl leaves the groups alone here
    }
  }

  #grow(item: Item, count: number): void {
    this.#account.spend(count, item);
    this.#out.fill(count, 0);
  }

  /** How far it is to a multiple of `unit`, in bytes or in characters. */
  #gap(item: Item, unit: number, asCharacters: boolean): number {
    const { bytes, length } = this.#out;
    if (asCharacters) this.#account.spend(length, item);
    const place = asCharacters ? countCharacters(bytes, 0, length) : length;
    return unit === 0 ? 0 : (unit - place % unit) % unit;
  }

  #moveTo(item: Item, count: number, level: Level, asCharacters: boolean): void {
    const out = this.#out;
    let target = level.start;
    let missing = count;
    if (asCharacters) {
      for (; missing > 0 && target < out.length; missing--) {
        target += characterBytes(out.bytes[target]);
      }
      if (target > out.length) this.#fail("malformed UTF-8 string", item);
      this.#account.spend(target - level.start, item);
    } else {
      target = Math.min(level.start + count, out.length);
      missing = level.start + count - target;
    }
    if (missing > 0) this.#grow(item, missing);
    else out.cutGroups(target, level);
  }

  /** Where the end is after going back `count` bytes or characters. */
  #back(item: Item, count: number, asCharacters: boolean): number {
    const { bytes, length } = this.#out;
    let at = length;
    if (!asCharacters) at -= count;
    else {
      for (let left = count; left > 0 && at >= 0; left--) {
        for (at--; at >= 0 && isContinuation(bytes[at]); at--);
      }
    }
    if (at < 0) this.#fail("'X' outside of string", item);
    return at;
  }

  #numbers(item: Item, count: number, asCharacters: boolean): void {
    const form = item.form!;
    this.#expect(item, count);
    this.#account.spend(count * form.bytes, item);
    const out = this.#out;
    if (!asCharacters) out.reserve(count * form.bytes);
    const scratch = asCharacters ? new DataView(new ArrayBuffer(form.bytes)) : undefined;
    for (let n = 0; n < count; n++) {
      if (scratch) {
        this.#number(scratch, 0, form, item);
        out.put(new Uint8Array(scratch.buffer), true);
      } else {
        this.#number(out.view, out.length, form, item);
        out.length += form.bytes;
      }
    }
  }

  #number(view: DataView, at: number, form: NumberForm, item: Item): void {
    const isLittle = !form.isBig;
    if (form.isFloat) {
      const value = this.#float(item);
      if (form.bytes === 4) view.setFloat32(at, value, isLittle);
      else view.setFloat64(at, value, isLittle);
      return;
    }
    const value = this.#integer(item);
    switch (form.bytes) {
      case 1:
        return view.setInt8(at, lowBits(value));
      case 2:
        return view.setInt16(at, lowBits(value), isLittle);
      case 4:
        return view.setInt32(at, lowBits(value), isLittle);
      case 8:
        return view.setBigUint64(at, allBits(value), isLittle);
    }
  }

  /** The next value as a float. */
  #float(item: Item): number {
    const value = this.#value(item);
    if (typeof value === "number") return value;
    if (typeof value === "bigint") return Number(value);
    if (typeof value !== "string") return this.#wrongKind(item, value, "a number");
    const number = Number(this.#parse(item, value));
    return Object.is(number, 0) && /^\s*-/.test(value) ? -0 : number;
  }

  /** The next value as a finite number or a bigint. */
  #integer(item: Item): number | bigint {
    const value = this.#value(item);
    const number = typeof value === "string" ? this.#parse(item, value) : value;
    if (typeof number === "bigint") return number;
    if (typeof number !== "number") return this.#wrongKind(item, number, "a number");
    if (Number.isFinite(number)) return number;
    const name = Number.isNaN(number) ? "NaN" : number > 0 ? "Inf" : "-Inf";
    const verb = item.letter === "w" ? "compress" : "pack";
    return this.#fail(`cannot ${verb} ${name} with '${item.letter}'`, item);
  }

  #parse(item: Item, text: string): number | bigint {
    if (WHOLE.test(text)) return BigInt(text);
    if (DECIMAL.test(text)) return Number(text);
    const special = NO_NUMBER.exec(text);
    if (!special) return this.#wrongKind(item, text, "a number");
    return special[2] ? Number(`${special[1]}Infinity`) : NaN;
  }

  /** A number of seven bits a byte, all but the last with the high bit set. */
  #compressed(item: Item, asCharacters: boolean): void {
    const number = this.#integer(item);
    if (number < 0) this.#fail("cannot compress negative numbers", item);
    const whole = BigInt(typeof number === "number" ? Math.floor(number) : number);
    const digits = whole.toString(2); // all at once: a digit at a time is slow for a long number
    const length = Math.ceil(digits.length / 7);
    this.#account.spend(length, item);
    const padded = digits.padStart(7 * length, "0");
    const bytes = Uint8Array.from({ length }, (_, index) => {
      return parseInt(padded.slice(7 * index, 7 * index + 7), 2) | 0x80;
    });
    bytes[length - 1] &= 0x7f;
    this.#out.put(bytes, asCharacters);
  }

  /** The next value as a code point, which in Perl has 64 bits. */
  #code(item: Item): number | bigint {
    const value = this.#integer(item);
    return value >= 0 && value <= Number.MAX_SAFE_INTEGER
      ? Math.floor(Number(value))
      : allBits(value);
  }

  #encoded(item: Item, code: number | bigint): Uint8Array {
    if (code >= 2 ** 63) {
      const hex = code.toString(16).toUpperCase();
      this.#fail(`code point 0x${hex} is more than 0x7FFFFFFFFFFFFFFF`, item);
    }
    const bytes = Uint8Array.from(encodeCharacter(code));
    this.#account.spend(bytes.length, item);
    return bytes;
  }

  #wide(item: Item, count: number, level: Level, asCharacters: boolean): boolean {
    this.#expect(item, count);
    let mode = asCharacters;
    for (let n = 0; n < count; n++) {
      const code = this.#code(item);
      if (!mode && code > 0xff && !this.#out.isEncoded) {
        this.#out.encode(level);
        mode = true;
      }
      if (mode) this.#out.put(this.#encoded(item, code), false);
      else this.#out.fill(1, Number(BigInt(code) & 0xffn));
    }
    return mode;
  }

  #unicode(item: Item, count: number, level: Level, asCharacters: boolean): boolean {
    if (count === 0) {
      this.#out.encode(level);
      return false;
    }
    this.#expect(item, count);
    for (let n = 0; n < count; n++) {
      this.#out.put(this.#encoded(item, this.#code(item)), asCharacters);
    }
    return asCharacters;
  }
}

/** The value of a hexadecimal digit. As in Perl, any other byte has a value too. */
function hexDigit(byte: number): number {
  const letter = byte | 0x20;
  return (letter >= 0x61 && letter <= 0x7a ? byte + 9 : byte) & 0xf;
}

/** The low 32 bits of `allBits(value)`. */
function lowBits(value: number | bigint): number {
  if (typeof value === "bigint") return Number(BigInt.asIntN(32, allBits(value)));
  if (value >= 2 ** 64) return -1;
  return value < -(2 ** 63) ? 0 : value | 0;
}

/** A number as 64 bits, cut towards zero; beyond them, the largest or smallest that fits. */
function allBits(value: number | bigint): bigint {
  const whole = typeof value === "bigint" ? value : BigInt(Math.trunc(value));
  if (whole >= UNSIGNED_END) return UNSIGNED_END - 1n;
  return BigInt.asUintN(64, whole < SIGNED_MIN ? SIGNED_MIN : whole);
}
