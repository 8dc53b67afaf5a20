/**
 * Records, in which many entries cross to or from the library in one call: those that `setMany`
 * sends, and those that `getMany`, iteration and snapshots receive.
 *
 * A record is a header of this name (`ffi/abi.ts`), the key and the value, zero-padded to a
 * multiple of eight bytes.
 */
import { records } from "../ffi/abi.ts";
import { offsetOf } from "../ffi/fields.ts";
import { Scratch } from "../ffi/scratch.ts";
import { type Codec, decode, encode, KEY_ROOM_BYTES, readKey, writeKey } from "../values/kinds.ts";
import type { Segment } from "./segment.ts";

const HEADER_BYTES = records.Record.bytes;
const KEY_LENGTH = offsetOf("Record", "keyLen");
const VALUE_LENGTH = offsetOf("Record", "valueLen");
const KIND = offsetOf("Record", "kind");
const ANSWER_BYTES = records.Answer.bytes;
const ANSWER_LENGTH = offsetOf("Answer", "valueLen");
const ANSWER_KIND = offsetOf("Answer", "kind");
/** A flag beside the kind of a gathered record: its value was too large to be gathered. */
const LEFT_OUT = 256;
/** Entries are sent in batches of about this size. */
const BATCH_BYTES = 8 * 2 ** 20;
/** The most bytes that one call copies out. */
const COPY_BYTES = 2 ** 30;
/** The value length in an answer of `getMany` that means: the key is missing. */
const MISSING = -1;

/** Writes records for a map. */
export class RecordWriter extends Scratch {
  /** How many records there are. */
  count = 0;

  /** Checks, encodes and appends one entry. */
  append(key: string, value: unknown, codec: Codec | undefined): void {
    const start = this.end;
    this.reserve(HEADER_BYTES + keyRoom(key));
    const keyLength = writeKey(key, this.bytes, start + HEADER_BYTES);
    const valueStart = start + HEADER_BYTES + keyLength;
    this.end = valueStart;
    const kind = encode(value, codec, this);
    const { view } = this;
    this.bytes.fill(0, start, start + HEADER_BYTES);
    view.setUint32(start + KEY_LENGTH, keyLength, true);
    view.setUint32(start + VALUE_LENGTH, this.end - valueStart, true);
    view.setUint32(start + KIND, kind, true);
    this.reserve(8);
    while (this.end % 8 !== 0) this.bytes[this.end++] = 0;
    this.count += 1;
  }
}

/** All entries as batches of records: every one is checked and encoded before one is sent. */
export function encodeEntries(
  entries: Iterable<readonly [string, unknown]>,
  codec: Codec | undefined,
): RecordWriter[] {
  const batches: RecordWriter[] = [];
  for (const entry of entries) {
    if (typeof entry !== "object" || entry === null) {
      throw new TypeError(`Cannot store ${String(entry)}: an entry is a key and a value`);
    }
    let batch = batches.at(-1);
    if (batch === undefined || batch.end >= BATCH_BYTES) {
      batches.push(batch = new RecordWriter(4096));
    }
    batch.append(entry[0], entry[1], codec);
  }
  return batches;
}

/** Writes the keys of a `getMany`, each after its length. */
export function encodeKeys(keys: readonly string[], target: Scratch): void {
  target.end = 0;
  for (const key of keys) {
    target.reserve(4 + keyRoom(key));
    const length = writeKey(key, target.bytes, target.end + 4);
    target.view.setUint32(target.end, length, true);
    target.end += 4 + length;
  }
}

function keyRoom(key: string): number {
  return typeof key === "string" ? Math.min(3 * key.length, KEY_ROOM_BYTES) : 0;
}

/** Reads what the library has gathered, one record at a time, from a copy of its own. */
export class Records {
  readonly #memory = new Scratch(4096);
  #end = 0;
  #next = 0;
  #keyStart = 0;
  #keyLength = 0;
  #valueStart = 0;
  #valueLength = 0;
  #kind = 0;

  /** Copies what a call has gathered. `length` is the result of that call. */
  take(segment: Segment, length: number): void {
    if (length < 0) throw segment.failure(length, "read");
    const memory = this.#memory;
    memory.end = 0;
    memory.reserve(length);
    for (let offset = 0; offset < length;) {
      const size = Math.min(length - offset, COPY_BYTES);
      const target = offset === 0 ? memory.bytes : memory.bytes.subarray(offset);
      const copied = segment.native.shm_map_gathered(segment.handle, offset, target, size);
      if (copied <= 0) throw segment.failure(copied, "read");
      offset += copied;
    }
    this.#end = length;
    this.#next = 0;
  }

  /** Moves to the next record of a stripe or a snapshot; false after the last. */
  next(): boolean {
    if (this.#next >= this.#end) return false;
    const { view } = this.#memory;
    const at = this.#next;
    this.#keyStart = at + HEADER_BYTES;
    this.#keyLength = view.getInt32(at + KEY_LENGTH, true);
    this.#valueStart = this.#keyStart + this.#keyLength;
    this.#kind = view.getInt32(at + KIND, true);
    this.#valueLength = this.isLeftOut ? 0 : view.getInt32(at + VALUE_LENGTH, true);
    this.#next = padded(this.#valueStart + this.#valueLength);
    return true;
  }

  /** Moves to the next answer of `getMany`; false if the key is missing. */
  nextAnswer(): boolean {
    const { view } = this.#memory;
    const at = this.#next;
    const length = view.getInt32(at + ANSWER_LENGTH, true);
    this.#kind = view.getInt32(at + ANSWER_KIND, true);
    this.#valueStart = at + ANSWER_BYTES;
    this.#valueLength = length === MISSING ? 0 : length;
    this.#next = padded(this.#valueStart + this.#valueLength);
    return length !== MISSING;
  }

  get key(): string {
    return readKey(this.#memory, this.#keyStart, this.#keyLength);
  }

  /** Whether the value was not gathered and must be read by itself. */
  get isLeftOut(): boolean {
    return this.#kind >= LEFT_OUT;
  }

  /** The value. Throws `Undecodable` if its bytes are no value. */
  value(codec: Codec | undefined): unknown {
    return decode(this.#memory, this.#valueStart, this.#valueLength, this.#kind, codec);
  }
}

/** The next multiple of eight, to which the library pads records. */
export function padded(offset: number): number {
  return Math.ceil(offset / 8) * 8;
}
