/**
 * The texts in the sources that are parts of messages, found without running anything: every string
 * and template literal of more than one word outside comments. A template becomes a pattern in
 * which each `${…}` stands for any text; literals inside it count by themselves.
 */

export interface Literal {
  /** Where it begins: the line. */
  line: number;
  /** The text, as it stands in the source. */
  text: string;
  /** What a message that has it matches. */
  pattern: RegExp;
}

/** The end of the quoted text that begins at `start`. */
function endOfQuote(source: string, start: number): number {
  let at = start + 1;
  while (source[at] !== source[start] && source[at] !== "\n") at += source[at] === "\\" ? 2 : 1;
  return at + 1;
}

/** The end of the comment or regular expression at `start`; `start` if there is neither. */
function endOfOther(source: string, start: number): number {
  if (source.startsWith("//", start)) return source.indexOf("\n", start);
  if (source.startsWith("/*", start)) return source.indexOf("*/", start) + 2;
  const isOperator = /[\w)\]}]\s*$/.test(source.slice(Math.max(0, start - 80), start));
  const regex = isOperator ? null : /^\/(?:\\.|\[(?:\\.|[^\]\n])*\]|[^/\n[])+\/[a-z]*/.exec(
    source.slice(start, start + 300),
  );
  return regex === null ? start : start + regex[0].length;
}

/** Reads code from `start` to `end`, or to the brace that closes a `${`; where it ended. */
function readCode(source: string, start: number, found: Literal[], inTemplate: boolean): number {
  let depth = 0;
  for (let at = start; at < source.length;) {
    const character = source[at];
    if (character === '"' || character === "'") {
      const end = endOfQuote(source, at);
      add(found, source, at, [source.slice(at + 1, end - 1)]);
      at = end;
    } else if (character === "`") {
      at = readTemplate(source, at, found);
    } else if (character === "/" && endOfOther(source, at) > at) {
      at = endOfOther(source, at);
    } else {
      if (character === "{") depth += 1;
      if (character === "}" && depth-- === 0 && inTemplate) return at + 1;
      at += 1;
    }
  }
  return source.length;
}

/** Reads the template at `start`; where it ended. */
function readTemplate(source: string, start: number, found: Literal[]): number {
  const parts = [""];
  for (let at = start + 1;;) {
    if (source[at] === "`") {
      add(found, source, start, parts);
      return at + 1;
    }
    if (source.startsWith("${", at)) {
      at = readCode(source, at + 2, found, true);
      parts.push("");
      continue;
    }
    const length = source[at] === "\\" ? 2 : 1;
    parts[parts.length - 1] += source.slice(at, at + length);
    at += length;
  }
}

function add(found: Literal[], source: string, start: number, parts: string[]): void {
  const line = source.slice(0, start).split("\n").length;
  const fixed = parts.map((part) => part.replace(/\\(["'`$\\])/g, "$1"));
  const escaped = fixed.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  found.push({ line, text: fixed.join("${…}"), pattern: new RegExp(escaped.join("[^]*?")) });
}

/** All literals of more than one word, but those that name a module. */
export function literalsOf(source: string): Literal[] {
  const found: Literal[] = [];
  readCode(source.replace(/^(?:import|export)\b[^;]*? from ".*";$/gm, ""), 0, found, false);
  return found.filter(({ text }) =>
    /[A-Za-z]{2,}[^A-Za-z]* \S|\S [^A-Za-z]*[A-Za-z]{2,}/.test(text)
  );
}
