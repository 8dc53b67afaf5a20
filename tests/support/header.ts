/** Edits the identity of a segment that is not open, as a foreign or broken program would. */
import assert from "node:assert/strict";
import { closeSync, openSync, readSync, writeSync } from "node:fs";

/** Words of the header that `zig/layout.zig` draws: the second secret is the one of the tables. */
export const WORD = { version: 1, shape: 2, secret: 8, checksum: 22 };

const MASK = (1n << 64n) - 1n;

/** As `checksum` in `zig/layout.zig`. */
function checksum(words: BigUint64Array): bigint {
  let sum = 0xcbf29ce484222325n;
  for (const word of words.subarray(0, WORD.checksum)) {
    sum = (sum ^ word) * 0x100000001b3n & MASK;
    sum ^= sum >> 29n;
  }
  return sum;
}

/** Replaces one word of the header at `path`, and makes the checksum true again unless it is it. */
export function editHeader(path: string, word: number, edit: (before: bigint) => bigint): void {
  const file = openSync(path, "r+");
  const words = new BigUint64Array(WORD.checksum + 1);
  readSync(file, words, 0, words.byteLength, 0);
  assert.equal(checksum(words), words[WORD.checksum], "the layout has moved");
  words[word] = edit(words[word]);
  if (word !== WORD.checksum) words[WORD.checksum] = checksum(words);
  writeSync(file, words, 0, words.byteLength, 0);
  closeSync(file);
}
