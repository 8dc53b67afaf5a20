/**
 * Reads what `general_encoder.ts` writes. The bytes are input: reading any bytes ends, and
 * throws for what no structure has.
 */
import type { Scratch } from "../ffi/scratch.ts";
import { defineHidden, errorOf } from "./errors_kept.ts";
import * as tags from "./general_format.ts";
import { MAX_DEPTH } from "./limits.ts";
import { define } from "./own.ts";

type View = new (buffer: ArrayBuffer) => ArrayBufferView;
const scope = globalThis as unknown as Record<string, View | undefined>;
const setEntry = Map.prototype.set;
const addMember = Set.prototype.add;

/** The structure between `from` and `to`. Throws any error for bytes that are none. */
export function decodeGeneral(memory: Scratch, from: number, to: number): unknown {
  const decoder = new Decoder(memory, from, to);
  const value = decoder.item(0);
  decoder.finish();
  return value;
}

function damaged(what: string): never {
  throw new Error(`damaged: ${what}`);
}

class Decoder {
  readonly #memory: Scratch;
  #at: number;
  readonly #end: number;
  readonly #objects: object[] = [];
  readonly #names: string[] = [];

  constructor(memory: Scratch, from: number, to: number) {
    this.#memory = memory;
    this.#at = from;
    this.#end = to;
  }

  finish(): void {
    if (this.#at !== this.#end) damaged("more than a structure");
  }

  item(depth: number): unknown {
    const tag = this.#byte();
    switch (tag) {
      case tags.SEEN:
        return this.#objects[this.#length()] ?? damaged("an object that did not begin");
      case tags.UNDEFINED:
        return undefined;
      case tags.NULL:
        return null;
      case tags.TRUE:
        return true;
      case tags.FALSE:
        return false;
      case tags.NUMBER:
        return this.#float();
      case tags.INTEGER:
        return this.#memory.view.getInt32(this.#skip(4), true);
      case tags.LATIN1:
      case tags.WIDE:
        return this.#string(tag);
      case tags.BIGINT:
        return this.#memory.view.getBigInt64(this.#skip(8), true);
      case tags.POSITIVE:
        return this.#magnitude();
      case tags.NEGATIVE:
        return -this.#magnitude();
      default:
        if (depth > MAX_DEPTH) damaged("too many levels");
        return this.#object(tag, depth);
    }
  }

  #object(tag: number, depth: number): object {
    switch (tag) {
      case tags.OBJECT:
        return this.#members(this.#begun({}), depth, define);
      case tags.ARRAY:
        return this.#array(depth);
      case tags.SPARSE_ARRAY:
        return this.#sparseArray(depth);
      case tags.DATE:
        return this.#begun(new Date(this.#float()));
      case tags.MAP:
        return this.#map(depth);
      case tags.SET:
        return this.#set(depth);
      case tags.REGEXP:
        return this.#regExp();
      case tags.BUFFER:
        return this.#begun(this.#bytes().buffer);
      case tags.VIEW:
        return this.#view();
      case tags.ERROR:
        return this.#error(depth);
      case tags.BOXED:
        return this.#boxed(depth);
    }
    return damaged(`tag ${tag}`);
  }

  /** Numbers an object, whose members may lead back to it. */
  #begun<T extends object>(object: T): T {
    this.#objects.push(object);
    return object;
  }

  #members<T extends object>(
    object: T,
    depth: number,
    make: (object: object, name: string, value: unknown) => void,
  ): T {
    const count = this.#count(2);
    for (let i = 0; i < count; i += 1) {
      const name = this.#name();
      make(object, name, this.item(depth + 1));
    }
    return object;
  }

  #array(depth: number): object {
    const length = this.#count(1);
    const array = this.#begun(new Array(length));
    for (let i = 0; i < length; i += 1) define(array, i, this.item(depth + 1));
    return array;
  }

  #sparseArray(depth: number): object {
    const array: unknown[] = this.#begun([]);
    array.length = this.#memory.view.getInt32(this.#skip(4), true) >>> 0;
    return this.#members(array, depth, define);
  }

  #map(depth: number): object {
    const map = this.#begun(new Map());
    const count = this.#count(2);
    for (let i = 0; i < count; i += 1) {
      const key = this.item(depth + 1);
      setEntry.call(map, key, this.item(depth + 1));
    }
    return map;
  }

  #set(depth: number): object {
    const set = this.#begun(new Set());
    const count = this.#count(1);
    for (let i = 0; i < count; i += 1) addMember.call(set, this.item(depth + 1));
    return set;
  }

  #regExp(): object {
    const source = this.#text();
    const flags = this.#text();
    if (source === undefined || flags === undefined) damaged("no expression");
    return this.#begun(new RegExp(source, flags));
  }

  #view(): object {
    const View = scope[tags.VIEWS[this.#byte()] ?? damaged("no kind of view")];
    if (View === undefined) damaged("a kind of view that this runtime does not have");
    return this.#begun(new View(this.#bytes().buffer));
  }

  #error(depth: number): object {
    const kind = this.#byte();
    const isNamed = this.#byte() === 1;
    const name = this.#text() ?? damaged("an error without a name");
    const error = this.#begun(errorOf(kind, name, isNamed, this.#text(), this.#text()));
    this.#members(error, depth, defineHidden);
    return this.#members(error, depth, define);
  }

  #boxed(depth: number): object {
    const place = this.#objects.length;
    this.#objects.push({}); // its number comes before its primitive, which has none
    const primitive = this.item(depth + 1);
    if (typeof primitive === "object" || primitive === undefined) damaged("no primitive");
    return this.#objects[place] = Object(primitive);
  }

  #name(): string {
    const tag = this.#byte();
    if (tag === tags.NAME_SEEN) return this.#names[this.#length()] ?? damaged("no name");
    const name = this.#string(tag);
    this.#names.push(name);
    return name;
  }

  /** A string or nothing. */
  #text(): string | undefined {
    const tag = this.#byte();
    return tag === tags.UNDEFINED ? undefined : this.#string(tag);
  }

  #string(tag: number): string {
    const length = this.#length();
    const { text } = this.#memory;
    if (tag === tags.LATIN1) {
      const at = this.#skip(length);
      return text.latin1Slice(at, at + length);
    }
    if (tag !== tags.WIDE) damaged("no string");
    const at = this.#skip(2 * length);
    return text.ucs2Slice(at, at + 2 * length);
  }

  #magnitude(): bigint {
    return BigInt(`0x0${this.#bytes().toHex()}`);
  }

  /** A copy of bytes that stand after their length. */
  #bytes(): Uint8Array<ArrayBuffer> {
    const length = this.#length();
    const at = this.#skip(length);
    return this.#memory.bytes.slice(at, at + length);
  }

  #float(): number {
    return this.#memory.view.getFloat64(this.#skip(8), true);
  }

  #byte(): number {
    return this.#memory.bytes[this.#skip(1)];
  }

  /** How many follow that take so many bytes each, at least. */
  #count(least: number): number {
    const count = this.#length();
    if (count > (this.#end - this.#at) / least) damaged("a count");
    return count;
  }

  #length(): number {
    const length = this.#memory.view.getInt32(this.#skip(4), true);
    if (length < 0) damaged("a length");
    return length;
  }

  /** Where the next `length` bytes begin; they are there. */
  #skip(length: number): number {
    const at = this.#at;
    if (length > this.#end - at) damaged("cut short");
    this.#at = at + length;
    return at;
  }
}
