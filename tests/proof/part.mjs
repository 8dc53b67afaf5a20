/** What a part of the proof in JavaScript is told: `[--scale <n>] [--seed <n>] [words …]`. */
import { parseArgs } from "node:util";

/**
 * The command line of a part: `scale` is a multiple of the sizes of `npm run proof`, `words` is
 * what is left, and `more` are the numbers that only this part takes.
 *
 * @param {string[]} more
 */
export function partArguments(more = []) {
  const names = ["scale", "seed", ...more];
  const options = Object.fromEntries(names.map((name) => [name, { type: "string" }]));
  const { values, positionals: words } = parseArgs({ options, allowPositionals: true });
  const told = Object.fromEntries(
    Object.entries(values).map(([name, text]) => [name, number(name, text)]),
  );
  const seed = told.seed ?? Math.floor(Math.random() * 2 ** 31);
  return { ...told, scale: told.scale ?? 1, seed, words };
}

/** A number of the command line; what is none, or below zero, is an error. */
function number(name, text) {
  const value = text.trim() === "" ? NaN : Number(text);
  if (value >= 0) return value;
  throw new TypeError(`--${name} takes a number, not "${text}"`);
}
