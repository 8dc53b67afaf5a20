/**
 * Keys that all collide, chosen by an attacker who knows the secrets of a segment: the stripe they
 * fall into changes its hash, and everything stays fast.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { SharedMap } from "../../mod.ts";
import { editHeader, WORD } from "../support/header.ts";
import { freshName, scaled, SHM } from "../support/support.ts";

/** Makes the second secret of an unattached segment the text "abcdefgh". */
function plantSecret(name: string): void {
  const [secret] = new BigUint64Array(new TextEncoder().encode("abcdefgh").buffer);
  editHeader(join(SHM, name), WORD.secret, () => secret);
}

/** A key of 16 bytes whose hash is a product with zero under that secret, for every `n`. */
function collidingKey(n: number): string {
  const digits = n.toString(36).padStart(8, "0");
  return `efgh${digits.slice(0, 4)}abcd${digits.slice(4)}`;
}

test("SharedMap.set() and get() survive a flood of colliding keys", { timeout: 120_000 }, (t) => {
  const name = freshName(t, "flood");
  SharedMap.open(name).close();
  plantSecret(name);
  using map = SharedMap.open<number>(name);
  // Where the work grew with the square of the keys, this many would take minutes.
  const count = Math.max(100_000, scaled(200_000));
  for (let n = 0; n < count; n += 1) map.set(collidingKey(n), n);
  assert.equal(map.size, count);
  for (let n = 0; n < count; n += 1) {
    if (map.get(collidingKey(n)) !== n) assert.fail(`key ${n} is ${map.get(collidingKey(n))}`);
  }
  assert.equal(map.stats().hardenedStripes, 1, "the keys did not collide, or no writer noticed");
  for (let n = 0; n < count; n += 1) assert.ok(map.delete(collidingKey(n)));
  assert.equal(map.size, 0);
  assert.ok(map.verify().ok);
});
