/**
 * Every message that this module can throw, met and read: a table of calls that fail, with what
 * each says, and a look through the sources for texts that no message of the table has.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { type Literal, literalsOf } from "../support/literals.ts";
import { ARGUMENTS, REGIONS, type Row, STATES, STORED, VALUES } from "../support/message_rows.ts";
import { MADE } from "../support/message_rows_made.ts";
import { LOADING, PACKING } from "../support/message_rows_loading.ts";
import { ROOT, type TestContext, testUnless } from "../support/support.ts";

const TABLE = { ARGUMENTS, VALUES, STORED, STATES, REGIONS, MADE, PACKING, LOADING };
const isLinux = process.platform === "linux" ? undefined : "the table has the words of Linux";

/** Texts of more than one word that are in no message: each with what it is. */
const NO_MESSAGES: ReadonlySet<string> = new Set([
  "SharedMap {}",
  "SharedValue {}",
  "Mmap {}",
  "... ${…} more ${…}",
  "its file system",
  "call stack",
  "/memfd:${…} (deleted)",
  "[native code]",
  "a getter has stored a value",
]);
/**
 * In messages of other systems, of other users, or of Deno alone: `errors_test.ts`,
 * `cache_file_test.ts`, `lock_test.ts` and `library_test.ts` look at them.
 */
const OTHER_SYSTEMS: ReadonlySet<string> = new Set([
  "Windows error ${…}",
  "it was not built; set ${…} to the path of a build",
  "shared memory",
  "Cannot lock: the signal cannot be heard",
  "${…} belongs to another user",
  "${…} does not keep what is written to it",
]);

/**
 * Files of the codec whose texts no user meets: programs that it generates, and what a decoder says
 * of damaged bytes, which is the cause of a message of the table ("its bytes are no structure").
 */
const WITHOUT_MESSAGES: ReadonlySet<string> = new Set(
  ["generate", "general_decoder", "own", "plain_decoder"].map((name) =>
    join("values", `${name}.ts`)
  ),
);

const PLACES: Readonly<Record<string, string>> = {
  name: '[^" ]+',
  n: "-?\\d+",
  size: "[\\d.]+ (?:bytes|[KMGTP]iB)",
  any: "[^]+",
};

function patternOf(says: string): RegExp {
  const escaped = says.replace(/[.*+?^$()|[\]\\]|\{(?!(?:name|n|size|any)\})/g, "\\$&");
  return new RegExp(`^${escaped.replace(/\{(\w+)\}/g, (_, place) => PLACES[place])}$`);
}

/** The messages of errors that were met so far. */
const met = new Set<string>();

async function messageOf({ says, call }: Row, t: TestContext): Promise<string> {
  try {
    await call(t);
  } catch (error) {
    assert.ok(error instanceof Error, `${error}`);
    met.add(error.message);
    return error.message;
  }
  return assert.fail(`nothing was thrown: ${says}`);
}

for (const [table, rows] of Object.entries(TABLE)) {
  testUnless(isLinux, `every call of the table ${table} says what it must`, {}, async (t) => {
    const problems: unknown[] = [];
    for (const each of rows) {
      const message = await messageOf(each, t).catch((error) => `${error}`);
      if (!patternOf(each.says).test(message)) problems.push({ wanted: each.says, message });
    }
    assert.deepEqual(problems, []);
  });
}

/** The texts of a file that may be in messages, but are in none of `messages`. */
function unmet(literals: Literal[], messages: Iterable<string>): Literal[] {
  const all = [...messages];
  return literals.filter(({ text, pattern }) =>
    !NO_MESSAGES.has(text) && !OTHER_SYSTEMS.has(text) &&
    !all.some((message) => pattern.test(message))
  );
}

testUnless(isLinux, "every text of a message is in one of the table", {}, () => {
  const files = readdirSync(join(ROOT, "src"), { recursive: true }).map(String)
    .filter((path) => path.endsWith(".ts") && path !== join("ffi", "abi.ts"))
    .filter((path) => !WITHOUT_MESSAGES.has(path));
  const left = files.flatMap((path) =>
    unmet(literalsOf(readFileSync(join(ROOT, "src", path), "utf8")), met)
      .map(({ line, text }) => `${path}:${line}: ${text}`)
  );
  assert.deepEqual(left, []);
});

test("a text that no message has is found", () => {
  const source =
    'throw new Error(`Cannot fly ${a ? `to ${b} at once` : "at all"}: "wings"`); // a b';
  const texts = literalsOf(source).map(({ text }) => text);
  assert.deepEqual(texts, ["to ${…} at once", "at all", 'Cannot fly ${…}: "wings"']);
  const messages = ['Cannot fly to the moon at once: "wings"'];
  assert.deepEqual(unmet(literalsOf(source), messages).map(({ text }) => text), ["at all"]);
});
