/**
 * Records, in which many entries cross to or from the library in one call: `setMany` sends them
 * (`batches.ts`), iteration and snapshots receive them.
 *
 * A record is a header of this name (`ffi/abi.ts`), the key and the value, padded to a multiple of
 * eight bytes.
 */
import { records } from "../ffi/abi.ts";
import { offsetOf } from "../ffi/fields.ts";
import { Scratch } from "../ffi/scratch.ts";
import { ASCII_KIND, type Codec, decode, readKey } from "../values/kinds.ts";
import { STRETCH_BYTES, STRETCHED_MOST } from "../values/limits.ts";
import type { Segment } from "./segment.ts";

const HEADER_BYTES = records.Record.bytes;
const KEY_LENGTH = offsetOf("Record", "keyLen");
const VALUE_LENGTH = offsetOf("Record", "valueLen");
const KIND = offsetOf("Record", "kind");
/** A flag beside the kind of a gathered record: its value was too large to be gathered. */
const LEFT_OUT = 256;
/** The most bytes that one call copies out. */
const COPY_BYTES = 2 ** 30;

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
  /** A stretch of the memory as text. */
  #text = "";
  #textFrom = 0;
  #textTo = 0;

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
    this.#textFrom = this.#textTo = 0;
  }

  /** Moves to the next record of a stripe or a snapshot; false after the last. */
  next(): boolean {
    if (this.#next >= this.#end) return false;
    const { view } = this.#memory;
    const at = this.#next;
    this.#keyStart = at + HEADER_BYTES;
    this.#keyLength = view.getUint16(at + KEY_LENGTH, true);
    this.#valueStart = this.#keyStart + this.#keyLength;
    this.#kind = view.getUint16(at + KIND, true);
    this.#valueLength = this.isLeftOut ? 0 : view.getInt32(at + VALUE_LENGTH, true);
    this.#next = padded(this.#valueStart + this.#valueLength);
    return true;
  }

  get key(): string {
    return this.#shortText(this.#keyStart, this.#keyLength) ??
      readKey(this.#memory, this.#keyStart, this.#keyLength);
  }

  /** Text of ASCII, cut out of a stretch; undefined if it is long, or other text. */
  #shortText(at: number, length: number): string | undefined {
    if (length > STRETCHED_MOST) return undefined;
    const { bytes, text } = this.#memory;
    for (let i = at; i < at + length; i += 1) if (bytes[i] > 127) return undefined;
    if (at < this.#textFrom || at + length > this.#textTo) {
      this.#textFrom = at;
      this.#textTo = Math.min(at + STRETCH_BYTES, this.#end);
      this.#text = text.latin1Slice(at, this.#textTo);
    }
    return this.#text.substring(at - this.#textFrom, at - this.#textFrom + length);
  }

  /** Whether the value was not gathered and must be read by itself. */
  get isLeftOut(): boolean {
    return this.#kind >= LEFT_OUT;
  }

  /** The value. Throws `Undecodable` if its bytes are no value. */
  value(codec: Codec | undefined): unknown {
    if (this.#kind === ASCII_KIND) {
      const text = this.#shortText(this.#valueStart, this.#valueLength);
      if (text !== undefined) return text;
    }
    return decode(this.#memory, this.#valueStart, this.#valueLength, this.#kind, codec);
  }
}

/** Whole numbers up to here can be masked. */
const MASKED_MOST = 2 ** 30;

/** The next multiple of eight, to which the library pads records. */
export function padded(offset: number): number {
  return offset > MASKED_MOST ? Math.ceil(offset / 8) * 8 : offset + 7 & ~7;
}
