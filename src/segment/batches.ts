/**
 * Many keys in one crossing: `getMany`, `setMany`, `hasMany`, `deleteMany`.
 *
 * Keys and values are written one behind another into memory that is used again, those that are
 * short and ASCII without a call. The library answers into such memory, and text among the answers
 * is cut out of longer stretches.
 */
import { records } from "../ffi/abi.ts";
import { offsetOf } from "../ffi/fields.ts";
import { Scratch } from "../ffi/scratch.ts";
import { ASCII_KIND, encode, KEY_ROOM_BYTES, writeKey } from "../values/kinds.ts";
import { STRETCH_BYTES, STRETCHED_MOST } from "../values/limits.ts";
import { endOf, type Expiry, NEVER } from "./expiry.ts";
import { padded } from "./records.ts";
import type { Segment } from "./segment.ts";
import { noteEnds } from "./sweeper.ts";

const RECORD_BYTES = records.Record.bytes;
const KEY_LENGTH = offsetOf("Record", "keyLen");
const VALUE_LENGTH = offsetOf("Record", "valueLen");
const KIND = offsetOf("Record", "kind");
const EXPIRES = offsetOf("Record", "expires");
const ANSWER_BYTES = records.Answer.bytes;
const ANSWER_LENGTH = offsetOf("Answer", "valueLen");
const ANSWER_KIND = offsetOf("Answer", "kind");
/** The length in an answer that means: the key is missing. */
const MISSING = -1;
/** The kind in an answer that means: the value did not fit, and must be read by itself. */
const LEFT_OUT = 256;

/** The memory of one crossing. */
const CROSSING_BYTES = 64 * 1024;
/** Entries are sent in pieces of about this size. */
const PIECE_BYTES = 2 ** 20;
/** Up to this length a loop over the code units is the fastest encoder. */
const SHORT = 40;
/** Memory that is used again, unless a call is made from inside of another. */
class Pool {
  #spare: Scratch | undefined;

  take(): Scratch {
    const memory = this.#spare ?? new Scratch(CROSSING_BYTES);
    this.#spare = undefined;
    memory.end = 0;
    return memory;
  }

  give(memory: Scratch): void {
    memory.release();
    this.#spare = memory;
  }
}

const keyMemory = new Pool();
const answerMemory = new Pool();
const pieceMemory = new Pool();

/** As many strings are asked for before the first of them is read. */
const TOUCHED = 16;
let touched = 0;

/** Has the processor fetch strings from memory, all at once, and not one after the other. */
function touch(strings: readonly unknown[], from: number): void {
  const to = Math.min(from + TOUCHED, strings.length);
  let sum = 0;
  for (let i = from; i < to; i += 1) {
    const text = strings[i];
    if (typeof text === "string" && text.length > 0) sum ^= text.charCodeAt(0);
  }
  touched ^= sum; // so that the loop is not left out
}

/** As `touch`, for the keys and values of entries. */
function touchEntries(entries: readonly unknown[], from: number): void {
  const strings: unknown[] = [];
  for (const entry of entries.slice(from, from + TOUCHED)) {
    if (Array.isArray(entry)) strings.push(entry[0], entry[1]);
  }
  touch(strings, 0);
  touch(strings, TOUCHED);
}

/** Writes short ASCII text at `at`, where there is room. Where it ends; -1: it is none. */
function writeShort(text: unknown, bytes: Uint8Array, at: number): number {
  if (typeof text !== "string" || text.length > SHORT) return -1;
  let all = 0;
  let end = at;
  for (let i = 0; i < text.length; i += 1) {
    const code = text.charCodeAt(i);
    all |= code;
    bytes[end++] = code;
  }
  return all < 128 ? end : -1;
}

/** Writes any key behind `memory.end + head` and moves the end there. Its length. */
function appendKey(key: string, memory: Scratch, head: number): number {
  const start = memory.end + head;
  const end = memory.bytes.length - start > SHORT ? writeShort(key, memory.bytes, start) : -1;
  if (end > start) {
    memory.end = end;
    return end - start;
  }
  memory.reserve(head + KEY_ROOM_BYTES);
  const length = writeKey(key, memory.bytes, start);
  memory.end = start + length;
  return length;
}

/**
 * Writes keys from `first` on, each after its length, as many as one crossing takes. How many.
 */
function writeKeys(keys: readonly string[], first: number, memory: Scratch): number {
  memory.end = 0;
  let count = 0;
  for (let i = first; i < keys.length; i += 1) {
    if (count % TOUCHED === 0) touch(keys, i);
    const key = keys[i];
    const at = memory.end;
    const isShort = typeof key === "string" && key.length <= SHORT;
    const room = 4 + (isShort ? SHORT + 1 : KEY_ROOM_BYTES);
    if (at > 0 && at + room > memory.bytes.length) break;
    const length = appendKey(key, memory, 4);
    memory.view.setInt32(at, length, true);
    count += 1;
  }
  return count;
}

/** What is done with the answers, in the order of the keys. */
export interface Answered {
  missing(index: number): void;
  text(index: number, text: string): void;
  /** A value of any other kind, in `length` bytes at `at`. */
  value(index: number, memory: Scratch, at: number, length: number, kind: number): void;
  leftOut(index: number): void;
}

/** Asks for the values of all keys. */
export function askMany(segment: Segment, keys: readonly string[], answered: Answered): void {
  const memory = keyMemory.take();
  const answers = answerMemory.take();
  try {
    for (let next = 0; next < keys.length;) {
      const count = writeKeys(keys, next, memory);
      const { native, handle } = segment;
      const { bytes } = answers;
      const done = native.shm_map_get_batch(
        handle,
        memory.bytes,
        memory.end,
        count,
        bytes,
        bytes.length,
      );
      if (done < 0) throw segment.failure(done, "read");
      readAnswers(answers, next, done, answered);
      next += done;
    }
    if (keys.length === 0) segment.assertOpen("read");
  } finally {
    keyMemory.give(memory);
    answerMemory.give(answers);
  }
}

function readAnswers(memory: Scratch, first: number, count: number, answered: Answered): void {
  const { view, text: slices, bytes } = memory;
  let at = 0;
  let text = "";
  let from = 0;
  let to = 0;
  for (let index = first; index < first + count; index += 1) {
    const length = view.getInt32(at + ANSWER_LENGTH, true);
    const kind = view.getInt32(at + ANSWER_KIND, true);
    at += ANSWER_BYTES;
    if (length === MISSING) {
      answered.missing(index);
      continue;
    }
    if (kind === LEFT_OUT) {
      answered.leftOut(index);
      continue;
    }
    if (kind === ASCII_KIND && length <= STRETCHED_MOST) {
      if (at + length > to) {
        from = at;
        to = Math.min(at + STRETCH_BYTES, bytes.length);
        text = slices.latin1Slice(from, to);
      }
      answered.text(index, text.substring(at - from, at - from + length));
    } else answered.value(index, memory, at, length, kind);
    at += length;
  }
}

/** What the library does with many keys, and answers with a byte for each. */
type KeysCall = "shm_map_has_many" | "shm_map_delete_many";

/** Does this for all keys, which are checked before the first of them is sent. */
export function markMany(
  segment: Segment,
  keys: readonly string[],
  call: KeysCall,
  action: string,
): boolean[] {
  const found: boolean[] = [];
  const answers = answerMemory.take();
  try {
    for (const { memory, count } of encodeKeys(keys)) {
      if (call === "shm_map_delete_many") segment.locker.assertFree(action);
      const { native, handle } = segment;
      answers.end = 0;
      answers.reserve(count);
      const { bytes } = answers;
      const done = native[call](handle, memory.bytes, memory.end, count, bytes, bytes.length);
      if (done < 0) throw segment.failure(done, action);
      for (let i = 0; i < count; i += 1) found.push(bytes[i] === 1);
    }
    return found;
  } finally {
    answerMemory.give(answers);
  }
}

function encodeKeys(keys: readonly string[]): Piece[] {
  const pieces: Piece[] = [];
  for (let next = 0; next < keys.length;) {
    const memory = new Scratch(CROSSING_BYTES);
    const count = writeKeys(keys, next, memory);
    pieces.push({ memory, count });
    next += count;
  }
  return pieces;
}

/** Records for the library, in pieces that are sent one after the other. */
interface Piece {
  memory: Scratch;
  count: number;
  hasEnds?: boolean;
}

/** Stores all entries: every one is checked and encoded before the first is sent. */
export function putMany(
  segment: Segment,
  entries: Iterable<readonly [string, unknown, Expiry?]>,
  handleTtl: number,
): void {
  const first = pieceMemory.take();
  try {
    let stored = 0;
    let continues = 0; // all pieces are one call, with one deadline
    for (const { memory, count, hasEnds } of encodeAll(segment, entries, first, handleTtl)) {
      segment.locker.assertFree("write", { stored });
      const { native, writeHandle } = segment;
      const { bytes, end } = memory;
      const result = native.shm_map_put_many(writeHandle, bytes, end, count, continues);
      if (result < 0) throw segment.failure(result, "write", { stored });
      if (hasEnds) noteEnds(segment);
      stored += count;
      continues = 1;
    }
  } finally {
    pieceMemory.give(first);
  }
}

function encodeAll(
  segment: Segment,
  entries: Iterable<readonly [string, unknown, Expiry?]>,
  first: Scratch,
  handleTtl: number,
): Piece[] {
  const pieces: Piece[] = [{ memory: first, count: 0 }];
  let piece = pieces[0];
  let index = 0;
  for (const entry of entries) {
    if (index % TOUCHED === 0 && Array.isArray(entries)) touchEntries(entries, index);
    index += 1;
    if (typeof entry !== "object" || entry === null) {
      throw new TypeError(`Cannot store ${String(entry)}: an entry is a key and a value`);
    }
    if (piece.memory.end >= PIECE_BYTES) {
      pieces.push(piece = { memory: new Scratch(CROSSING_BYTES), count: 0 });
    }
    const end = endOf(entry.length > 2 ? entry[2] : undefined, handleTtl);
    appendRecord(entry[0], entry[1], end, segment, piece.memory);
    piece.count += 1;
    if (end !== NEVER) piece.hasEnds = true;
  }
  return pieces.filter(({ count }) => count > 0);
}

/** Checks, encodes and appends one entry. */
function appendRecord(
  key: string,
  value: unknown,
  end: number,
  segment: Segment,
  memory: Scratch,
): void {
  const start = memory.end;
  memory.reserve(RECORD_BYTES + 2 * SHORT + 8);
  const keyLength = appendKey(key, memory, RECORD_BYTES);
  const valueStart = memory.end;
  let kind = ASCII_KIND;
  const valueEnd = memory.bytes.length - valueStart > SHORT
    ? writeShort(value, memory.bytes, valueStart)
    : -1;
  if (valueEnd >= 0) memory.end = valueEnd;
  else kind = encode(value, segment.codec, memory);
  const { view } = memory;
  view.setUint16(start + KEY_LENGTH, keyLength, true);
  view.setInt32(start + VALUE_LENGTH, memory.end - valueStart, true);
  view.setUint16(start + KIND, kind, true);
  view.setFloat64(start + EXPIRES, end, true);
  memory.reserve(8);
  memory.end = start + padded(memory.end - start);
}
