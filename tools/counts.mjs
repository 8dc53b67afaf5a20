/**
 * What a suite, a program of tests or one of our own scripts counted, from its own report. A report
 * that is missing, cut short or at odds with itself counts for nothing, and so as a failure.
 *
 * @typedef {{ passed: number, failed: number, skipped: number, reasons: string[] }} Counts
 *   `reasons` are the names of what was skipped, which say why
 */

/** Attributes hold no quote, and text no `<`, but as entities. */
const CASE = /<testcase\b((?:\s+[\w:-]+="[^"]*")*)\s*(?:\/>|>([^]*?)<\/testcase>)/g;
const ENTITIES = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };

/** Adds up a report in JUnit's format, as Deno and Bun write it; undefined if it is not whole. */
export function junitCounts(xml) {
  const [, head] = /^<\?xml[^>]*\?>\s*<testsuites\b([^>]*)>[^]*<\/testsuites>\s*$/.exec(xml) ?? [];
  if (head === undefined) return undefined;
  const counts = { passed: 0, failed: 0, skipped: 0, reasons: [] };
  for (const [, attributes, body = ""] of xml.matchAll(CASE)) {
    const kind = /<(?:failure|error)\b/.test(body)
      ? "failed"
      : /<skipped\b/.test(body)
      ? "skipped"
      : "passed";
    counts[kind] += 1;
    if (kind === "skipped") counts.reasons.push(plain(attribute(attributes, "name")));
  }
  const { passed, failed, skipped } = counts;
  const declared = ["failures", "errors"].map((name) => Number(attribute(head, name) ?? 0));
  const isWhole = Number(attribute(head, "tests")) === passed + failed + skipped &&
    declared[0] + declared[1] === failed;
  return isWhole ? counts : undefined;
}

function attribute(text, name) {
  return new RegExp(`(?:^|\\s)${name}="([^"]*)"`).exec(text)?.[1];
}

/** A name as it was before it stood in XML. */
function plain(text = "") {
  return text.replaceAll(
    /&(?:#(x?)([\da-f]+)|(\w+));/gi,
    (all, hex, code, name) =>
      name ? ENTITIES[name] ?? all : String.fromCodePoint(Number.parseInt(code, hex ? 16 : 10)),
  );
}

/** Counts in the last words of a program of Zig tests: `9 passed; 1 skipped; 0 failed.` */
export function zigCounts(output) {
  const all = /^All (\d+) tests passed\.$/m.exec(output);
  const some = /^(\d+) passed; (\d+) skipped; (\d+) failed\.$/m.exec(output);
  if (!all && !some) return undefined;
  const [passed, skipped, failed] = all ? [all[1], 0, 0] : some.slice(1);
  return {
    passed: Number(passed),
    failed: Number(failed),
    skipped: Number(skipped),
    reasons: matches(output, /^\d+\/\d+ (.*)\.\.\.SKIP$/gm),
  };
}

/** Counts in the last line of our own scripts: `3 passed, 0 failed, 1 skipped`. */
export function plainCounts(output) {
  const summary = /^(\d+) passed, (\d+) failed, (\d+) skipped$/.exec(
    output.trimEnd().split("\n").at(-1),
  );
  if (!summary) return undefined;
  const [passed, failed, skipped] = summary.slice(1).map(Number);
  return { passed, failed, skipped, reasons: matches(output, /^skipped:? (.*)$/gm) };
}

function matches(text, pattern) {
  return [...text.matchAll(pattern)].map((match) => match[1]);
}

/**
 * Counts made honest: a run that ended badly, that ran nothing or whose counts could not be read
 * has at least one failure.
 *
 * @param {Counts | undefined} counts
 * @param {boolean} isOk whether it ended well
 * @returns {Counts}
 */
export function honest(counts, isOk) {
  const read = counts ?? { passed: 0, failed: 0, skipped: 0, reasons: [] };
  const isEmpty = read.passed + read.failed === 0;
  return { ...read, failed: read.failed === 0 && (isEmpty || !isOk) ? 1 : read.failed };
}

/** As the last line of every script that counts. */
export function inWords({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/** The sum of counts, without what was skipped by name. */
export function sum(all) {
  const total = { passed: 0, failed: 0, skipped: 0 };
  for (const counts of all) {
    for (const kind of Object.keys(total)) total[kind] += counts[kind];
  }
  return total;
}
