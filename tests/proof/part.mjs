/** What a part of the proof in JavaScript is told: `[--scale <n>] [--seed <n>] [words …]`. */
import { dirname } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** What is left of the command line. */
export const words = process.argv.slice(2);

/** A multiple of the sizes of `npm run proof`. */
export const scale = Number(option("--scale") ?? 1);
export const seed = Number(option("--seed") ?? Math.floor(Math.random() * 2 ** 31));

/** Takes an option and its value out of the command line. */
function option(name) {
  const at = words.indexOf(name);
  return at < 0 ? undefined : words.splice(at, 2)[1];
}
