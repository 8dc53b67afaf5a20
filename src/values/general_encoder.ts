/**
 * Writes structures of every kind that `structuredClone` keeps (`general_format.ts`), with the
 * identity of their objects. What would come back different is refused with the way to it.
 */
import { types } from "node:util";
import { bufferOf, builtInGetter, offsetOf } from "../arguments.ts";
import { Scratch } from "../ffi/scratch.ts";
import { className } from "./describe.ts";
import { isError, partsOf } from "./errors_kept.ts";
import * as tags from "./general_format.ts";
import { MAX_DEPTH, MAX_VALUE_BYTES, tooLarge } from "./limits.ts";
import {
  define,
  hasOnlyElements,
  hasOnlyNames,
  hasOwn,
  hasOwnCount,
  isArrayPrototype,
  isBareView,
  isBufferPrototype,
  isObjectPrototype,
  isPrototypeOf,
} from "./own.ts";
import { Trail } from "./trail.ts";

const { getPrototypeOf, keys } = Object;
const timeOf = Date.prototype.getTime;
const eachEntry = Map.prototype.forEach;
const eachMember = Set.prototype.forEach;
const sourceOf = builtInGetter<string>(RegExp.prototype, "source");
const flagsOf = builtInGetter<string>(RegExp.prototype, "flags");
const bufferLengthOf = builtInGetter<number>(ArrayBuffer.prototype, "byteLength");
const isResizable = builtInGetter<boolean>(ArrayBuffer.prototype, "resizable");
const viewLengthOf = builtInGetter<number>(DataView.prototype, "byteLength");
const viewOffsetOf = builtInGetter<number>(DataView.prototype, "byteOffset");
const viewBufferOf = builtInGetter<ArrayBuffer>(DataView.prototype, "buffer");
const TYPED_ARRAY: object = getPrototypeOf(Uint8Array.prototype);
const arrayBytesOf = builtInGetter<number>(TYPED_ARRAY, "byteLength");
const arrayLengthOf = builtInGetter<number>(TYPED_ARRAY, "length");
const kindOf = Object.getOwnPropertyDescriptor(TYPED_ARRAY, Symbol.toStringTag)!
  .get as (this: unknown) => string;

/** Memory of an encoder, kept for the next one; a call inside of a call has its own. */
let spare: Scratch | undefined;

/** Appends `value` to `target`. Throws for what cannot be stored. */
export function encodeGeneral(value: object, target: Scratch): void {
  const start = target.end;
  const memory = spare ?? new Scratch(16 * 1024);
  spare = undefined;
  memory.end = 0;
  try {
    new Encoder(memory).putItem(value, 0);
    target.end = start; // a nested call may have moved it
    target.reserve(memory.end);
    target.bytes.set(memory.bytes.subarray(0, memory.end), start);
    target.end = start + memory.end;
  } finally {
    memory.release();
    spare = memory;
  }
}

class Encoder {
  readonly #memory: Scratch;
  readonly #objects = new Map<object, number>();
  readonly #names = new Map<string, number>();
  readonly #trail = new Trail();

  constructor(memory: Scratch) {
    this.#memory = memory;
  }

  putItem(value: unknown, depth: number): void {
    switch (typeof value) {
      case "string":
        return this.#putString(value);
      case "number":
        return this.#putNumber(value);
      case "bigint":
        return this.#putBigint(value);
      case "boolean":
        return this.#putByte(value ? tags.TRUE : tags.FALSE);
      case "undefined":
        return this.#putByte(tags.UNDEFINED);
      case "object":
        return value === null ? this.#putByte(tags.NULL) : this.#putObject(value, depth);
      default:
        throw this.#trail.refusal(value);
    }
  }

  #putObject(value: object, depth: number): void {
    const seen = this.#objects.get(value);
    if (seen !== undefined) return this.#putTagged(tags.SEEN, seen);
    if (depth > MAX_DEPTH) throw this.#trail.refusal(`more than ${MAX_DEPTH} levels`);
    this.#objects.set(value, this.#objects.size);
    const prototype: object | null = getPrototypeOf(value);
    if (Array.isArray(value)) {
      if (prototype === null || !isArrayPrototype(prototype)) throw this.#trail.refusal(value);
      this.#putArray(value, depth);
    } else if (isError(value)) this.#putError(value, depth);
    else if (types.isDate(value)) {
      this.#check(value, prototype, "Date", 0);
      this.#putByte(tags.DATE);
      this.#putFloat(timeOf.call(value));
    } else if (types.isMap(value)) this.#putMap(value, prototype, depth);
    else if (types.isSet(value)) this.#putSet(value, prototype, depth);
    else if (types.isRegExp(value)) this.#putRegExp(value, prototype, depth);
    else if (types.isArrayBuffer(value)) this.#putBuffer(value, prototype);
    else if (ArrayBuffer.isView(value)) this.#putView(value, prototype);
    else if (types.isBoxedPrimitive(value)) this.#putBoxed(value, prototype, depth);
    else if (prototype === null || isObjectPrototype(prototype)) this.#putRecord(value, depth);
    else throw this.#trail.refusal(types.isProxy(value) ? "a proxy" : value);
  }

  /** Refuses an object of a subclass, and one with properties besides `count` of its own. */
  #check(value: object, prototype: object | null, name: string, count: number): void {
    if (prototype === null || !this.#isOf(prototype, name)) throw this.#trail.refusal(value);
    if (!hasOwnCount(value, count)) throw this.#hasMore(value);
  }

  #isOf(prototype: object, name: string): boolean {
    const own = (globalThis as unknown as Record<string, { prototype: object } | undefined>)[name];
    return prototype === own?.prototype || isPrototypeOf(prototype, name);
  }

  #hasMore(value: object): TypeError {
    return this.#trail.refusal(`a ${className(value)} with properties of its own`);
  }

  #putRecord(record: object, depth: number): void {
    const names = keys(record);
    if (!hasOnlyNames(record, names.length)) {
      throw this.#trail.refusal("an object with a symbol as a key, or with a hidden property");
    }
    this.#putByte(tags.OBJECT);
    this.#putMembers(record, names, depth);
  }

  /** The members of these names that are there when their turn comes, and before how many. */
  #putMembers(object: object, names: readonly string[], depth: number): void {
    const place = this.#memory.end;
    let count = 0;
    this.#putLength(0);
    for (const name of names) {
      if (!hasOwn(object, name)) continue; // a getter deleted it
      const value = (object as Record<string, unknown>)[name];
      this.#trail.enterMember(name);
      this.#putName(name);
      this.putItem(value, depth + 1);
      this.#trail.leave();
      count += 1;
    }
    this.#memory.view.setInt32(place, count, true);
  }

  #putArray(array: readonly unknown[], depth: number): void {
    const { length } = array;
    const isDense = hasOnlyElements(array) && this.#hasNoHoles(array);
    if (!isDense) {
      const names = keys(array);
      if (!hasOnlyNames(array, names.length + 1)) { // and its length
        throw this.#trail.refusal("an array with a symbol as a key, or with a hidden property");
      }
      this.#putTagged(tags.SPARSE_ARRAY, length);
      return this.#putMembers(array, names, depth);
    }
    this.#putTagged(tags.ARRAY, length);
    for (let i = 0; i < length; i += 1) {
      const value = array[i];
      this.#trail.enterMember(`${i}`);
      this.putItem(value, depth + 1);
      this.#trail.leave();
    }
  }

  #hasNoHoles(array: readonly unknown[]): boolean {
    for (let i = 0; i < array.length; i += 1) if (!hasOwn(array, i)) return false;
    return true;
  }

  #putMap(map: Map<unknown, unknown>, prototype: object | null, depth: number): void {
    this.#check(map, prototype, "Map", 0);
    const entries: [unknown, unknown][] = [];
    eachEntry.call(map, (value, key) => entries.push([key, value]));
    this.#putTagged(tags.MAP, entries.length);
    entries.forEach(([key, value], index) => {
      this.#trail.enterPlace("keys", index);
      this.putItem(key, depth + 1);
      this.#trail.leave();
      this.#trail.enterEntry(key);
      this.putItem(value, depth + 1);
      this.#trail.leave();
    });
  }

  #putSet(set: Set<unknown>, prototype: object | null, depth: number): void {
    this.#check(set, prototype, "Set", 0);
    const members: unknown[] = [];
    eachMember.call(set, (member) => members.push(member));
    this.#putTagged(tags.SET, members.length);
    members.forEach((member, index) => {
      this.#trail.enterPlace("values", index);
      this.putItem(member, depth + 1);
      this.#trail.leave();
    });
  }

  #putRegExp(value: RegExp, prototype: object | null, depth: number): void {
    this.#check(value, prototype, "RegExp", 1);
    if (value.lastIndex !== 0) throw this.#trail.refusal("a RegExp with a lastIndex");
    this.#putByte(tags.REGEXP);
    this.putItem(sourceOf.call(value), depth);
    this.putItem(flagsOf.call(value), depth);
  }

  #putBuffer(value: ArrayBuffer, prototype: object | null): void {
    this.#check(value, prototype, "ArrayBuffer", 0);
    if (isResizable.call(value)) throw this.#trail.refusal("a resizable ArrayBuffer");
    this.#putByte(tags.BUFFER);
    this.#putBytes(new Uint8Array(value, 0, bufferLengthOf.call(value)));
  }

  #putView(value: ArrayBufferView, prototype: object | null): void {
    const isDataView = types.isDataView(value);
    const name = isDataView ? "DataView" : kindOf.call(value);
    const kind = (tags.VIEWS as readonly string[]).indexOf(name);
    if (kind < 0 || prototype === null) throw this.#trail.refusal(value);
    if (!isBufferPrototype(prototype) && !this.#isOf(prototype, name)) {
      throw this.#trail.refusal(value);
    }
    const isBare = isDataView
      ? hasOwnCount(value, 0)
      : isBareView(value, arrayLengthOf.call(value));
    if (!isBare) throw this.#hasMore(value);
    const bytes = isDataView
      ? new Uint8Array(viewBufferOf.call(value), viewOffsetOf.call(value), viewLengthOf.call(value))
      : new Uint8Array(bufferOf.call(value), offsetOf.call(value), arrayBytesOf.call(value));
    this.#putByte(tags.VIEW);
    this.#putByte(kind);
    this.#putBytes(bytes);
  }

  #putBoxed(value: object, prototype: object | null, depth: number): void {
    const primitive: unknown = types.isStringObject(value)
      ? String.prototype.valueOf.call(value)
      : types.isNumberObject(value)
      ? Number.prototype.valueOf.call(value)
      : types.isBooleanObject(value)
      ? Boolean.prototype.valueOf.call(value)
      : types.isBigIntObject(value)
      ? BigInt.prototype.valueOf.call(value)
      : undefined;
    if (primitive === undefined) throw this.#trail.refusal(value);
    const own = typeof primitive === "string" ? primitive.length + 1 : 0;
    this.#check(value, prototype, className(value), own);
    if (!/^(?:String|Number|Boolean|BigInt)$/.test(className(value))) {
      throw this.#trail.refusal(value);
    }
    this.#putByte(tags.BOXED);
    this.putItem(primitive, depth);
  }

  #putError(error: Error, depth: number): void {
    const parts = partsOf(error, (what) => this.#trail.refusal(what));
    this.#putByte(tags.ERROR);
    this.#putByte(parts.kind);
    this.#putByte(parts.isNamed ? 1 : 0);
    for (const text of [parts.name, parts.message, parts.stack]) this.putItem(text, depth);
    for (const fields of [parts.hidden, parts.shown]) {
      const object = {};
      for (const [name, value] of fields) define(object, name, value);
      this.#putMembers(object, fields.map(([name]) => name), depth);
    }
  }

  #putName(name: string): void {
    const seen = this.#names.get(name);
    if (seen !== undefined) return this.#putTagged(tags.NAME_SEEN, seen);
    this.#names.set(name, this.#names.size);
    this.#putString(name);
  }

  #putString(value: string): void {
    const { length } = value;
    this.#reserve(5 + length);
    const { bytes, end } = this.#memory;
    let all = 0;
    for (let i = 0; i < length; i += 1) {
      const code = value.charCodeAt(i);
      all |= code;
      bytes[end + 5 + i] = code;
    }
    if (all > 255) return this.#putWide(value);
    this.#putTagged(tags.LATIN1, length);
    this.#memory.end += length;
  }

  #putWide(value: string): void {
    const { length } = value;
    this.#putTagged(tags.WIDE, length);
    this.#reserve(2 * length);
    const { view, end } = this.#memory;
    for (let i = 0; i < length; i += 1) view.setUint16(end + 2 * i, value.charCodeAt(i), true);
    this.#memory.end = end + 2 * length;
  }

  #putNumber(value: number): void {
    if (Object.is(value | 0, value)) return this.#putTagged(tags.INTEGER, value);
    this.#putByte(tags.NUMBER);
    this.#putFloat(value);
  }

  #putBigint(value: bigint): void {
    if (BigInt.asIntN(64, value) === value) {
      this.#putByte(tags.BIGINT);
      this.#reserve(8);
      this.#memory.view.setBigInt64(this.#memory.end, value, true);
      this.#memory.end += 8;
      return;
    }
    const digits = (value < 0n ? -value : value).toString(16);
    this.#putByte(value < 0n ? tags.NEGATIVE : tags.POSITIVE);
    this.#putBytes(Uint8Array.fromHex(digits.length % 2 === 0 ? digits : `0${digits}`));
  }

  #putByte(byte: number): void {
    this.#reserve(1);
    this.#memory.bytes[this.#memory.end] = byte;
    this.#memory.end += 1;
  }

  #putLength(length: number): void {
    this.#reserve(4);
    this.#memory.view.setInt32(this.#memory.end, length, true);
    this.#memory.end += 4;
  }

  #putTagged(tag: number, word: number): void {
    this.#putByte(tag);
    this.#putLength(word);
  }

  #putFloat(value: number): void {
    this.#reserve(8);
    this.#memory.view.setFloat64(this.#memory.end, value, true);
    this.#memory.end += 8;
  }

  /** Bytes after their length. */
  #putBytes(bytes: Uint8Array): void {
    const length = arrayBytesOf.call(bytes);
    this.#putLength(length);
    this.#reserve(length);
    this.#memory.bytes.set(bytes, this.#memory.end);
    this.#memory.end += length;
  }

  #reserve(length: number): void {
    const memory = this.#memory;
    if (memory.end + length <= memory.bytes.length) return;
    if (memory.end + length > MAX_VALUE_BYTES) throw tooLarge(memory.end + length);
    memory.reserve(length);
  }
}
