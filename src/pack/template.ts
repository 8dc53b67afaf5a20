/**
 * Reads a template of `pack` or `unpack`, as a whole and once. Every error of the template is found
 * here: packing and unpacking meet errors of values and of data only.
 */

/** The verb of every message. */
export type Action = "pack" | "unpack";

/** The layout of one number. */
export interface NumberForm {
  readonly bytes: 1 | 2 | 4 | 8;
  readonly isSigned: boolean;
  readonly isBig: boolean;
  readonly isFloat: boolean;
}

/** One letter or group, with its modifiers and its count. */
export interface Item {
  /** The letter; `(` for a group. */
  readonly letter: string;
  /** Whether `!` follows. */
  readonly isMarked: boolean;
  /** Whether it has no count, a number, or `*`. */
  readonly repeat: "once" | "count" | "all";
  /** The number; 1 without one. */
  readonly count: number;
  /** Whether `/` follows: then it is the count of the next item. */
  readonly isLength: boolean;
  /** The layout, if the letter stands for a number of fixed size. */
  readonly form: NumberForm | undefined;
  /** The items of a group. */
  readonly items: readonly Item[];
  /** Its offset in the template. */
  readonly position: number;
}

/** A template that has been read. */
export interface Template {
  readonly action: Action;
  readonly text: string;
  readonly items: readonly Item[];
}

/** The most bytes that one call may make, and the largest count. */
export const BYTES_MAX = 2 ** 31 - 1;
/** The cost of a value and of a round of a group, in bytes of work. */
export const VALUE_COST = 16;
export const ROUND_COST = 64;

const DEPTH_MAX = 100;
const CACHE_MAX = 64;
const QUOTED_MAX = 80;

const TEXT_LETTERS = "aAZbBhH";
const OTHER_LETTERS = "wUWxX@(";
const MARKED_LETTERS = "sSiIlLxXnNvV@";
const ORDERED_LETTERS = "sSiIlLqQjJfd(";

/** The bytes of each number by its letter, and by letter and `!` where that changes them. */
const NUMBER_BYTES: Record<string, 1 | 2 | 4 | 8> = {
  ...{ c: 1, C: 1, s: 2, S: 2, i: 4, I: 4, l: 4, L: 4, q: 8, Q: 8, j: 8, J: 8 },
  ...{ n: 2, N: 4, v: 2, V: 4, f: 4, d: 8 },
  ...{ "l!": 8, "L!": 8 },
};

type Order = "" | "<" | ">";

/** The surroundings of an item: inherited byte order, depth, whether it stands in `[]`. */
interface Surroundings {
  readonly order: Order;
  readonly depth: number;
  readonly isMeasured: boolean;
}

const caches: Record<Action, Map<string, Template>> = { pack: new Map(), unpack: new Map() };

/** The template `text`, from the cache if it was read before. */
export function readTemplate(action: Action, text: string): Template {
  const cache = caches[action];
  const known = cache.get(text);
  if (known) return known;
  if (typeof text !== "string") throw new TypeError(`Cannot ${action}: the template is no string`);
  const items = new Reader(action, text).items();
  const template = { action, text, items };
  if (cache.size >= CACHE_MAX) cache.clear();
  cache.set(text, template);
  return template;
}

/** The text of an error: the action, the template, what is wrong, and where. */
export function message(
  { action, text }: Pick<Template, "action" | "text">,
  what: string,
  position: number,
): string {
  const quoted = JSON.stringify(text.length > QUOTED_MAX ? `${text.slice(0, QUOTED_MAX)}…` : text);
  return `Cannot ${action} ${quoted}: ${what}, at ${position}`;
}

/** Bounds the work of one call: nested counts multiply. */
export class Account {
  readonly #template: Template;
  readonly #limit: number;
  #spent = 0;

  constructor(template: Template, limit: number) {
    this.#template = template;
    this.#limit = limit;
  }

  /** Counts `amount` bytes of work. */
  spend(amount: number, item: Item): void {
    this.#spent += amount;
    if (this.#spent <= this.#limit) return;
    const what = `it would take more than ${this.#limit} bytes`;
    throw new RangeError(message(this.#template, what, item.position));
  }
}

/** Reads one template from left to right. */
class Reader {
  readonly #action: Action;
  readonly #text: string;
  #at = 0;

  constructor(action: Action, text: string) {
    this.#action = action;
    this.#text = text;
  }

  items(): Item[] {
    return this.#list(this.#text.length, { order: "", depth: 0, isMeasured: false });
  }

  #fail(what: string, position: number): never {
    const template = { action: this.#action, text: this.#text };
    throw new SyntaxError(message(template, what, position));
  }

  /** The items up to `end`. */
  #list(end: number, around: Surroundings): Item[] {
    const items: Item[] = [];
    for (this.#skipBlanks(end, true); this.#at < end; this.#skipBlanks(end, true)) {
      items.push(this.#item(end, around));
    }
    if (around.isMeasured) return items;
    items.forEach(({ isLength, position }, index) => {
      if (!isLength) return;
      const next = items[index + 1];
      if (!next) this.#fail("code missing after '/'", position);
      if (this.#action === "unpack" && next.repeat === "count") {
        this.#fail("count after length/code", next.position);
      }
    });
    return items;
  }

  /** Skips white space, comments and, between items, commas. */
  #skipBlanks(end: number, withCommas: boolean): void {
    for (; this.#at < end; this.#at++) {
      const char = this.#text[this.#at];
      if (char === "#") {
        const line = this.#text.indexOf("\n", this.#at);
        this.#at = line < 0 || line > end ? end - 1 : line;
      } else if (!(withCommas && char === ",") && !isSpace(char)) return;
    }
  }

  #item(end: number, around: Surroundings): Item {
    const position = this.#at;
    const letter = this.#text[this.#at++];
    const isGroup = letter === "(";
    if (letter === "/") this.#fail("'/' must follow a numeric type", position);
    if (!isGroup && !isLetter(letter)) this.#fail(`invalid type '${letter}'`, position);
    const inside = this.#at;
    if (isGroup) this.#at = this.#groupStart(end, around, position) + 1;
    const insideEnd = this.#at - 1;
    const { isMarked, order } = this.#modifiers(letter, end, around);
    const { repeat, count } = this.#count(end, around);
    const isLength = this.#slash(end);
    let items: Item[] = [];
    if (isGroup) {
      const after = this.#at;
      this.#at = inside;
      items = this.#list(insideEnd, { ...around, order, depth: around.depth + 1 });
      this.#at = after;
    }
    const form = numberForm(letter, isMarked, order);
    return { letter, isMarked, repeat, count, isLength, form, items, position };
  }

  /** Checks the start of a group and returns the offset of its end. */
  #groupStart(end: number, { depth }: Surroundings, position: number): number {
    if (/[\d*[]/.test(this.#text[this.#at] ?? "") && this.#at < end) {
      this.#fail("()-group starts with a count", position);
    }
    if (depth >= DEPTH_MAX) this.#fail("too deeply nested ()-groups", position);
    return this.#closing(")", end, position);
  }

  /** The offset of the bracket that closes the one just before the current offset. */
  #closing(bracket: string, end: number, position: number): number {
    const open = [bracket];
    for (let at = this.#at; at < end; at++) {
      const char = this.#text[at];
      if (char === open.at(-1)) {
        open.pop();
        if (open.length === 0) return at;
      } else if (char === "(") open.push(")");
      else if (char === "[") open.push("]");
      else if (char === "#") {
        const line = this.#text.indexOf("\n", at);
        at = line < 0 ? end : line;
      }
    }
    this.#fail(`no group ending character '${open.at(-1)}' found`, position);
  }

  /** Reads `!`, `<` and `>`; returns them as the marking and the byte order of the item. */
  #modifiers(
    letter: string,
    end: number,
    around: Surroundings,
  ): { isMarked: boolean; order: Order } {
    let isMarked = false;
    let own: Order = "";
    for (; this.#at < end; this.#at++) {
      const char = this.#text[this.#at];
      if (char === "!") {
        this.#allow(char, letter, MARKED_LETTERS);
        isMarked = true;
      } else if (char === "<" || char === ">") {
        this.#allow(char, letter, ORDERED_LETTERS);
        if (own && own !== char) {
          this.#fail(`cannot use both '<' and '>' after type '${letter}'`, this.#at);
        }
        if (around.order && around.order !== char) {
          this.#fail(`cannot use '${char}' in a group with different byte order`, this.#at);
        }
        own = char;
      } else break;
    }
    return { isMarked, order: ORDERED_LETTERS.includes(letter) ? own || around.order : "" };
  }

  #allow(modifier: string, letter: string, letters: string): void {
    if (letters.includes(letter)) return;
    this.#fail(`'${modifier}' allowed only after types ${letters}`, this.#at);
  }

  /** Reads a count: a number, `*`, `[number]`, `[template]`, or nothing. */
  #count(end: number, around: Surroundings): Pick<Item, "repeat" | "count"> {
    const char = this.#at < end ? this.#text[this.#at] : "";
    if (isDigit(char)) return { repeat: "count", count: this.#number(end) };
    if (char === "*") {
      this.#at++;
      return { repeat: "all", count: 1 };
    }
    if (char !== "[") return { repeat: "once", count: 1 };
    const position = this.#at++;
    if (around.depth >= DEPTH_MAX) this.#fail("too deeply nested []", position);
    const close = this.#closing("]", end, position);
    const count = this.#lengthInBrackets(close, around);
    this.#at = close + 1;
    return { repeat: "count", count };
  }

  #lengthInBrackets(close: number, around: Surroundings): number {
    if (isDigit(this.#text[this.#at])) {
      const count = this.#number(close);
      if (this.#at !== close) this.#fail("malformed integer in []", this.#at);
      return count;
    }
    const depth = around.depth + 1;
    return this.#measure(this.#list(close, { order: around.order, depth, isMeasured: true }));
  }

  #number(end: number): number {
    const start = this.#at;
    while (this.#at < end && isDigit(this.#text[this.#at])) this.#at++;
    return this.#limited(Number(this.#text.slice(start, this.#at)), start);
  }

  #limited(count: number, position: number): number {
    if (count <= BYTES_MAX) return count;
    const template = { action: this.#action, text: this.#text };
    const what = `repeat count overflow: more than ${BYTES_MAX}`;
    throw new RangeError(message(template, what, position));
  }

  #slash(end: number): boolean {
    const start = this.#at;
    this.#skipBlanks(end, false);
    if (this.#at >= end || this.#text[this.#at] !== "/") {
      this.#at = start;
      return false;
    }
    this.#at++;
    if (this.#at < end && /[\d*[]/.test(this.#text[this.#at])) {
      this.#fail("'/' does not take a repeat count", this.#at - 1);
    }
    return true;
  }

  /** How many bytes the items of a `[template]` take. */
  #measure(items: readonly Item[]): number {
    let total = 0;
    for (const item of items) {
      if (item.repeat === "all") this.#fail("within []-length '*' not allowed", item.position);
      const size = this.#measureOne(item, total);
      if (total + size < 0) this.#fail("'X' outside of string", item.position);
      total = this.#limited(total + size, item.position);
    }
    return total;
  }

  #measureOne(item: Item, total: number): number {
    const { letter, count, form, isMarked } = item;
    if (form) return count * form.bytes;
    const unit = Math.max(count, 1);
    switch (letter) {
      case "@":
        return this.#fail("within []-length '@' not allowed", item.position);
      case "(":
        return count * this.#measure(item.items);
      case "b":
      case "B":
        return Math.ceil(count / 8);
      case "h":
      case "H":
        return Math.ceil(count / 2);
      case "X":
        return isMarked ? -(total % unit) : -count;
      case "x":
        return isMarked ? (unit - total % unit) % unit : count;
      default: // a A Z; and w U W, which count as one byte each
        return count;
    }
  }
}

function isSpace(char: string): boolean {
  return char === " " || (char >= "\t" && char <= "\r");
}

function isDigit(char: string): boolean {
  return char >= "0" && char <= "9";
}

function isLetter(char: string): boolean {
  return char in NUMBER_BYTES || TEXT_LETTERS.includes(char) || OTHER_LETTERS.includes(char);
}

/** The layout of a number: `n` and `N` are big-endian, others only with `>`. */
function numberForm(letter: string, isMarked: boolean, order: Order): NumberForm | undefined {
  const bytes = (isMarked ? NUMBER_BYTES[`${letter}!`] : undefined) ?? NUMBER_BYTES[letter];
  if (bytes === undefined) return undefined;
  const isNetwork = letter === "n" || letter === "N";
  return {
    bytes,
    isSigned: "csilqj".includes(letter) || (isMarked && "nNvV".includes(letter)),
    isBig: isNetwork || order === ">",
    isFloat: letter === "f" || letter === "d",
  };
}
