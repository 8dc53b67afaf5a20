/**
 * A worker of word_count.ts. It claims shares of a text, counts their words and publishes the
 * counts of each share as one value. Everything it needs is in the map:
 *
 *     deno run --allow-ffi examples/word_count_worker.ts <token of the map> <worker's name>
 *     bun run examples/word_count_worker.ts <token of the map> <worker's name>
 */
import process from "node:process";
import { SharedMap } from "shmap";

/** How often each word occurs. */
export type Counts = Map<string, number>;

/** The map holds for share n its `text:n`, the worker in `claim:n` and the result in `counts:n`. */
export type Shares = SharedMap<string | Counts>;

/** Adds the words of `text` to `counts`. */
export function countWords(text: string, counts: Counts = new Map()): Counts {
  for (const [word] of text.toLowerCase().matchAll(/\p{L}+/gu)) {
    counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return counts;
}

function work(token: string, worker: string): void {
  using map: Shares = SharedMap.attach(token);
  for (let share = 0; map.has(`text:${share}`); share++) {
    // The first to claim a share owns it. A replacement goes by the name of the worker it replaces,
    // so what that one had claimed belongs to it.
    const isMine = map.add(`claim:${share}`, worker) || map.get(`claim:${share}`) === worker;
    if (!isMine || map.has(`counts:${share}`)) continue;
    const counts = countWords(map.get(`text:${share}`) as string);
    map.set(`counts:${share}`, counts); // killed before or after this line, never inside it
  }
}

if (import.meta.main) work(process.argv[2], process.argv[3]);
