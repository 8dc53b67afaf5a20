/**
 * The buffers through which all bytes cross to and from the library, reused from call to call.
 */
import { Buffer } from "node:buffer";
import { FAULT_BYTES } from "../errors.ts";

/** Larger buffers are given back after use, so that one large value pins no memory. */
const SPARE_BYTES = 4 * 2 ** 20;

/** The methods of a `Buffer` that both runtimes have but do not publish in their types. */
interface TextSlices {
  latin1Slice(start: number, end: number): string;
  utf8Slice(start: number, end: number): string;
  ucs2Slice(start: number, end: number): string;
}

/** Memory with three views of it. It grows on demand and shrinks again. */
export class Scratch {
  bytes!: Uint8Array<ArrayBuffer>;
  view!: DataView;
  text!: TextSlices;
  /** Where encoders append. */
  end = 0;
  /** Counts the calls that used it: an encoder sees by it that a getter made one meanwhile. */
  uses = 0;
  readonly #least: number;

  constructor(size: number) {
    this.#least = size;
    this.#allocate(size);
  }

  /**
   * Makes room for `length` bytes after `end` and keeps what lies before. May replace the views.
   */
  reserve(length: number): void {
    const needed = this.end + length;
    if (needed <= this.bytes.length) return;
    const before = this.bytes;
    this.#allocate(Math.max(needed, Math.min(2 * before.length, needed + SPARE_BYTES)));
    this.bytes.set(before.subarray(0, this.end));
  }

  /** Empties the memory, and gives back what a large value made it grow by. */
  release(): void {
    this.end = 0;
    this.uses += 1;
    if (this.bytes.length > SPARE_BYTES) this.#allocate(this.#least);
  }

  /** Writes `text` to the start, in UTF-8, and returns its length. */
  write(text: string): number {
    this.end = 0;
    this.reserve(3 * text.length);
    return new TextEncoder().encodeInto(text, this.bytes).written;
  }

  #allocate(size: number): void {
    const buffer = new ArrayBuffer(size);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.text = Buffer.from(buffer) as unknown as TextSlices;
  }
}

/** The key of every call, or the name of an open. Never grows: keys have a limit. */
export const KEY: Scratch = new Scratch(64 * 1024);
/** The value that a call reads; the directory or the token of an open. */
export const DATA: Scratch = new Scratch(64 * 1024);
/** The value that a call stores. A getter or a codec may read meanwhile, which this outlasts. */
export const OUT: Scratch = new Scratch(64 * 1024);
/** The codec's id of an open. */
export const CODEC: Scratch = new Scratch(256);
/** The record of a failure. */
export const FAULT: Scratch = new Scratch(FAULT_BYTES);
