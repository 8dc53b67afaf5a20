/**
 * Random templates with fitting values and bytes for the comparison of `pack` and `unpack` with
 * Perl's own.
 */
import { pack, type PackValue } from "../../src/pack/pack.ts";
import type { Random } from "./random.ts";

export interface Case {
  template: string;
  values: PackValue[];
  bytes: Uint8Array;
}

/** A part of a template, and values for one round of it. */
interface Part {
  text: string;
  values: () => PackValue[];
}

const NUMBERS = "c C s S l L q Q j J i I n N v V f d w U W s! S! i! I! l! L! n! N! v! V!".split(
  " ",
);
const ORDERED = /^[sSiIlLqQjJfd]/;
const SOUP = "aAZbBhHcCWUsSlLqQjJiInNvVfdwxX@()(())<>!**[]0123/ #,\nUU00C0ek";
const BLANKS = ["", "", "", " ", "\n", " # a comment (\n", "\t\v", ","];

/** A template that is well formed, with its values, and with any bytes to unpack. */
export function soundCase(random: Random): Case {
  const maker = new Maker(random, false);
  const parts = maker.list(3, true, random(4) === 0 ? (random(2) === 0 ? "<" : ">") : "");
  const prefix = random(6) === 0 ? ["U0", "C0", "U", "W", "U0C0"][random(5)] : "";
  const first = prefix === "U" || prefix === "W" ? [maker.code()] : [];
  const template = prefix + parts.text;
  return { template, values: [...first, ...parts.values()], bytes: bytesFor(template, maker) };
}

/** A template that only moves forward, with its values, and with the bytes these make. */
export function recordCase(random: Random): Case {
  const maker = new Maker(random, true);
  for (;;) {
    const parts = maker.list(3, true, "");
    const values = parts.values();
    try {
      return { template: parts.text, values, bytes: pack(parts.text, ...values) };
    } catch (error) {
      if (!(error instanceof RangeError)) throw error; // a number that the letter cannot hold
    }
  }
}

/** Letters and signs in any order, with values that suit every letter. */
export function soupCase(random: Random): Case {
  const maker = new Maker(random, false);
  const length = 1 + random(12);
  let template = "";
  for (let n = 0; n < length; n++) template += SOUP[random(SOUP.length)];
  // In a group Perl loses its way after a length that is not there, and a group as often as the
  // data says could keep it busy for ever.
  const beforeGroup = template.split("(", 1)[0].length;
  template = template.slice(0, beforeGroup).replace(/\/(?=(?:\s|#[^\n]*\n|#[^\n]*$|,)*$)/g, "/a") +
    template.slice(beforeGroup).replaceAll("/", "");
  const values = Array.from({ length: 40 }, () => ["7", "65", "300", "0", "2", "233"][random(6)]);
  return { template, values, bytes: bytesFor(template, maker) };
}

/** Bytes to unpack; where Perl would make up the rest of a number cut short, only low ones. */
function bytesFor(template: string, maker: Maker): Uint8Array {
  const bytes = maker.bytes();
  const isAtRisk = /^U|U0/.test(template) && /[sSlLqQjJiInNvVfd]/.test(template);
  return isAtRisk ? bytes.map((byte) => byte & 0x7f) : bytes;
}

class Maker {
  readonly #random: Random;
  /** Whether the bytes will be what the values make, so that no length can be missing. */
  readonly #isRecord: boolean;

  constructor(random: Random, isRecord: boolean) {
    this.#random = random;
    this.#isRecord = isRecord;
  }

  #pick<T>(from: ArrayLike<T>): T {
    return from[this.#random(from.length)];
  }

  #chance(of: number): boolean {
    return this.#random(of) === 0;
  }

  /** A few parts; only the last of the whole template may take all the values left. */
  list(depth: number, isLast: boolean, order: string): Part {
    const parts = Array.from({ length: 1 + this.#random(4) }, () => this.#part(depth, order));
    if (isLast && this.#chance(3)) parts.push(this.#tail(order));
    // Right after a group Perl's pack does not see a "/"; x0 comes between.
    const texts = parts.map(({ text }, index) =>
      (text.includes("/") && parts[index - 1]?.text.startsWith("(") ? "x0" : "") + text
    );
    return {
      text: texts.map((text) => text + this.#pick(BLANKS)).join(""),
      values: () => parts.flatMap(({ values }) => values()),
    };
  }

  #part(depth: number, order: string): Part {
    switch (this.#random(depth > 0 ? 12 : 9)) {
      case 0:
      case 1:
        return this.#text();
      case 2:
        return this.#digits();
      case 3:
      case 4:
      case 5:
        return this.#number(order);
      case 6:
        return this.#isRecord ? this.#counted(depth, order) : this.#move();
      case 7:
        return this.#counted(depth, order);
      case 8:
        return !this.#isRecord && this.#chance(3)
          ? { text: this.#pick(["U0", "C0"]), values: () => [] }
          : this.#number(order);
      default:
        return this.#group(depth, order);
    }
  }

  #count(): string {
    const count = this.#random(5);
    return this.#pick([`${count}`, `[${count}]`, `${count + 1}`]);
  }

  /** A count, and how many it is. */
  #times(): [string, number] {
    const count = this.#random(5);
    const plain: [string, number] = ["", 1];
    const written: [string, number] = [this.#pick([`${count}`, `[${count}]`]), count];
    return this.#pick([plain, plain, plain, written, written, ["[sC]", 3], ["[b3xX]", 1]]);
  }

  #text(): Part {
    const letter = this.#pick("aAZ");
    const all = this.#isRecord ? "" : "*";
    const count = this.#pick(["", all, all, this.#count(), "7", "[sl]", "[n/a3]"]);
    return { text: letter + count, values: () => [this.#textValue()] };
  }

  #digits(): Part {
    const letter = this.#pick("bBhH");
    const all = this.#isRecord ? "" : "*";
    const count = this.#pick(["", all, all, this.#count(), "9", "17"]);
    return {
      text: letter + count,
      values:
        () => [this.#chance(4) ? this.#textValue() : this.#pick(["01101", "beef1", "xYz", ""])],
    };
  }

  #letter(order: string): string {
    const letter = this.#pick(NUMBERS);
    if (this.#isRecord && /[UW]/.test(letter)) return "C";
    if (!ORDERED.test(letter) || !this.#chance(2)) return letter;
    const own = order || this.#pick("<>");
    return this.#chance(3) ? letter[0] + own + letter.slice(1) : letter + own;
  }

  #number(order: string): Part {
    const letter = this.#letter(order);
    const [text, count] = this.#times();
    return {
      text: letter + text,
      values: () => Array.from({ length: count }, () => this.#numberFor(letter[0])),
    };
  }

  #move(): Part {
    const text = this.#pick(["x", "X", "@", "x!", "X!", "@!"]) +
      this.#pick(["", "0", "1", "2", "4"]);
    return { text, values: () => [] };
  }

  #group(depth: number, order: string): Part {
    const own = order || (this.#chance(4) ? this.#pick("<>") : "");
    const inner = this.list(depth - 1, false, own);
    const count = this.#random(4);
    const written = this.#pick([`${count}`, `[${count}]`]);
    return {
      text: `(${inner.text})${order ? "" : own}${count === 1 ? "" : written}`,
      values: () => Array.from({ length: count }, () => inner.values()).flat(),
    };
  }

  /** A length before a text. */
  #counted(depth: number, order: string): Part {
    const numbers = ["C", "n", "v", "N", "s", "q", "w"];
    const texts = ["a2", "A3", "a*", "H4"];
    const lengths = depth < 3 ? texts : [...numbers, ...texts, "U", "W", "d", "x"];
    const length = this.#pick(this.#isRecord ? numbers : lengths);
    const inner = this.#isRecord
      ? this.#pick(["a*", "A*", "Z*", "a", "Z"])
      : this.#pick(["a*", "A*", "Z*", "a", "Z", this.#pick(["a3", "Z2", "n2", "n0"])]);
    const blank = this.#pick(["", "", " ", " # /\n"]);
    const values = () =>
      inner[0] === "n"
        ? Array.from({ length: Number(inner[1]) }, () => this.#numberFor("n"))
        : [this.#textValue()];
    return {
      text: `${length + (ORDERED.test(length) ? order : "")}${blank}/${blank}${inner}`,
      values,
    };
  }

  /** What takes all the values that are left. */
  #tail(order: string): Part {
    const count = this.#random(5);
    const letter = this.#letter(order);
    const numbers = () => Array.from({ length: count }, () => this.#numberFor(letter[0]));
    const texts = () => Array.from({ length: count }, () => this.#textValue());
    // What is not there, or large, would send Perl round and round.
    const length = this.#isRecord ? this.#pick(["C", "n", "w"]) : "a2";
    switch (this.#random(8)) {
      case 0:
        return { text: `${length}/${letter}9`, values: numbers };
      case 6:
        return { text: `${letter}*`, values: numbers };
      case 1:
        return { text: `(${letter}x)*`, values: numbers };
      case 2:
        return { text: `${length}/${letter}*`, values: numbers };
      case 3:
        return { text: `${length}/(${letter} x)`, values: numbers };
      case 4:
        return { text: `${length}/(${length}/a* @4)`, values: texts };
      case 5:
        return { text: `${length}/(a3)*`, values: texts };
      default: // at least one: in Perl such a group must not start at the end
        return { text: `(${length}/A* x!4)*`, values: () => [this.#textValue(), ...texts()] };
    }
  }

  #textValue(): PackValue {
    const length = this.#random(this.#chance(4) ? 40 : 6);
    const codes = Array.from({ length }, () => this.#byte());
    return this.#chance(5) ? Uint8Array.from(codes) : String.fromCharCode(...codes);
  }

  #byte(): number {
    switch (this.#random(6)) {
      case 0:
        return this.#random(256);
      case 1:
        return this.#pick([0, 0x20, 0x0a, 0x0b, 0x85, 0xa0, 0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xff]);
      case 2:
        return 0x30 + this.#random(10);
      case 3:
        return this.#random(6);
      default:
        return 0x61 + this.#random(26);
    }
  }

  bytes(): Uint8Array {
    const length = this.#random(this.#chance(5) ? 60 : 16);
    const bytes = Uint8Array.from({ length }, () => this.#byte());
    if (!this.#chance(4)) return bytes;
    const text = Array.from({ length: length / 2 }, () => String.fromCodePoint(this.code()));
    return new TextEncoder().encode(text.join(""));
  }

  /** A code point that Unicode has. */
  code(): number {
    return this.#pick([65, 233, 0x20ac, 0x1f600, this.#random(0xd800), this.#random(0x100)]);
  }

  #numberFor(letter: string): PackValue {
    if (letter === "U" || letter === "W") return this.#anyCode();
    const value = this.#anyNumber();
    if (letter === "w" && Number(value) < 0 && !this.#chance(50)) {
      return typeof value === "string" ? value.replace("-", "") : -value;
    }
    return value;
  }

  #anyCode(): PackValue {
    switch (this.#random(40)) {
      case 0:
        return this.#pick([-1, 2 ** 63, "18446744073709551615", 2n ** 63n - 1n, 0xd800]);
      case 1:
        return this.#pick([2 ** 21, 2 ** 26, 2 ** 31, 2 ** 36, 2 ** 62, 2 ** 36 - 1]);
      default:
        return this.code() + (this.#chance(9) ? 0.5 : 0);
    }
  }

  #anyNumber(): number | bigint | string {
    const sign = this.#chance(3) ? -1 : 1;
    const edge = 2 ** this.#pick([7, 8, 15, 16, 31, 32, 53, 63, 64, 70]);
    switch (this.#random(12)) {
      case 0:
      case 1:
        return sign * this.#random(300);
      case 2:
        return sign * (edge + this.#random(3) - 1);
      case 3:
        return sign * this.#random(2 ** 32) / 2 ** this.#random(40);
      case 4:
        return sign * this.#random(2 ** 32) * 2 ** this.#random(60);
      case 5:
        return BigInt(sign) * (BigInt(edge) + BigInt(this.#random(3)) - 1n);
      case 6:
        return BigInt(sign) * BigInt(this.#random(2 ** 32)) ** BigInt(this.#random(4));
      case 7:
        return this.#pick(["12", " -7", "+3 ", "1e3", "-0", "0", ".5", "6.", "-1.75E2"]);
      case 8:
        return `${BigInt(sign) * (BigInt(edge) + BigInt(this.#random(3)) - 1n)}`;
      case 9:
        return this.#chance(6) ? this.#pick([NaN, Infinity, -Infinity, "inf", "-Infinity"]) : -0;
      case 10:
        return this.#pick([1e20, -1e20, 1e300, 5e-324, 3.4e38, 3.5e38, 1 / 3]);
      default:
        return this.#random(2 ** 16);
    }
  }
}
