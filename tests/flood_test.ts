/**
 * Keys that all collide, chosen by somebody who knows the secrets of a segment: the stripe they
 * fall into changes its hash, and everything stays fast.
 */
import assert from "node:assert/strict";
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { SharedMap } from "../mod.ts";
import { freshName, SHM } from "./_support.ts";

/** Words of the header that `zig/layout.zig` draws: the second secret, and the check of all before it. */
const SECRET_WORD = 8;
const CHECKSUM_WORD = 22;
const MASK = (1n << 64n) - 1n;

/** As `checksum` in `zig/layout.zig`. */
function checksum(words: BigUint64Array): bigint {
  let sum = 0xcbf29ce484222325n;
  for (const word of words.subarray(0, CHECKSUM_WORD)) {
    sum = (sum ^ word) * 0x100000001b3n & MASK;
    sum ^= sum >> 29n;
  }
  return sum;
}

/** Makes the second secret of an unattached segment the text "abcdefgh". */
function plantSecret(name: string): void {
  const file = openSync(join(SHM, name), "r+");
  const words = new BigUint64Array(CHECKSUM_WORD + 1);
  readSync(file, words, 0, words.byteLength, 0);
  assert.equal(checksum(words), words[CHECKSUM_WORD], "the layout has moved");
  words[SECRET_WORD] = new BigUint64Array(new TextEncoder().encode("abcdefgh").buffer)[0];
  words[CHECKSUM_WORD] = checksum(words);
  writeSync(file, words, 0, words.byteLength, 0);
  closeSync(file);
}

/** A key of 16 bytes whose hash is a product with zero under that secret, whatever `n` is. */
function collidingKey(n: number): string {
  const digits = n.toString(36).padStart(8, "0");
  return `efgh${digits.slice(0, 4)}abcd${digits.slice(4)}`;
}

test("SharedMap.set() and get() survive a flood of colliding keys", { timeout: 120_000 }, (t) => {
  const name = freshName(t, "flood");
  SharedMap.open(name).close();
  plantSecret(name);
  using map = SharedMap.open<number>(name);
  // Quadratic probing work at this size would take minutes.
  const count = 200_000;
  for (let n = 0; n < count; n += 1) map.set(collidingKey(n), n);
  assert.equal(map.size, count);
  for (let n = 0; n < count; n += 1) {
    if (map.get(collidingKey(n)) !== n) assert.fail(`key ${n} is ${map.get(collidingKey(n))}`);
  }
  assert.equal(map.stats().hardenedStripes, 1, "the keys did not collide, or nobody noticed");
  for (let n = 0; n < count; n += 1) assert.ok(map.delete(collidingKey(n)));
  assert.equal(map.size, 0);
  assert.ok(map.verify().ok);
});
