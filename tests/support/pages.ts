/**
 * What the pages of the project hold that can be tried: the programs in their `ts` blocks, the
 * commands in their `sh` blocks and in their sentences, and their links.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { ROOT, type Runtime } from "./platform.ts";

export interface Page {
  readonly path: string;
  readonly text: string;
}

/** A `ts` block. The comments at its head name its file and the commands that start it. */
export interface Program {
  readonly page: string;
  readonly file: string;
  readonly code: string;
  /** The arguments with which each runtime starts it. */
  readonly args: Record<Runtime, string[]>;
  /** The program of the same page that starts this one, if one does. */
  readonly starter: string | undefined;
  /** The lines that it says it prints: the comments behind its calls of `console.log`. */
  readonly prints: readonly string[];
}

/** One command, or the lines of one `sh` block, which are run together. */
export interface Script {
  readonly page: string;
  readonly commands: readonly string[];
}

/** The pages whose programs and commands are tried. */
export function readPages(): Page[] {
  const paths = [
    ...["README.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md"],
    ...readdirSync(join(ROOT, "docs")).filter((file) => file.endsWith(".md")).sort()
      .map((file) => `docs/${file}`),
  ];
  return paths.map((path) => ({ path, text: readFileSync(join(ROOT, path), "utf8") }));
}

export function programsOf({ path, text }: Page): Program[] {
  return [...text.matchAll(/^```ts\n([^]*?)^```$/gm)].map(([, code], index) => {
    const head = (pattern: string) => new RegExp(`^// ${pattern}$`, "m").exec(code)?.[1];
    const file = head("(\\w+\\.ts)") ?? `block_${index + 1}.ts`;
    return {
      page: path,
      file,
      code,
      args: {
        deno: (head("deno (.*)") ?? `run --allow-ffi ${file}`).split(" "),
        bun: (head("bun (.*)") ?? `run ${file}`).split(" "),
      },
      starter: head("(\\w+\\.ts) starts it"),
      prints: [...code.matchAll(/^ *console\.log\(.*\); \/\/ (.+)$/gm)].map(([, line]) => line),
    };
  });
}

/** The programs with names of their own for the segments they open, made by `rename`. */
export function withOwnNames(programs: Program[], rename: (name: string) => string): Program[] {
  const opening = /\bShared(?:Map|Value)\.(?:open(?:<.*?>)?|unlink)\(\s*"([^"]+)"/g;
  const names = new Set(
    programs.flatMap(({ code }) => [...code.matchAll(opening)].map((match) => match[1])),
  );
  const changed = new Map([...names].map((name) => [JSON.stringify(name), rename(name)]));
  return programs.map((program) => {
    let { code } = program;
    for (const [name, own] of changed) code = code.replaceAll(name, JSON.stringify(own));
    return { ...program, code };
  });
}

const TOOLS =
  "npm npx node deno bun bunx zig docker kubectl loginctl systemctl mount df ls rm sh \\.ci/run";
const COMMAND = new RegExp(`^(?:[A-Z_]+=\\S+ )*(?:${TOOLS.replaceAll(" ", "|")})(?= |$)`);
/** Says what it does without a word more. */
const COMPLETE = /^(?:npm (?:start|test|ci)|\.ci\/run)$/;

/** Whether code in a sentence is a command; `deno task` and `bun run --hot` only name a feature. */
function isCommand(code: string): boolean {
  if (!COMMAND.test(code)) return false;
  const words = code.replace(/^(?:[A-Z_]+=\S+ )*/, "").split(" ");
  return COMPLETE.test(words.join(" ")) || /^(?:npx|node)$/.test(words[0]) && words.length > 1 ||
    words.slice(2).some((word) => !word.startsWith("-"));
}

/** What a reader of a page may run: its `sh` blocks, and the commands in its sentences. */
export function scriptsOf({ path, text }: Page): Script[] {
  const blocks = [...text.matchAll(/^```sh\n([^]*?)^```$/gm)].map(([, block]) =>
    block.replaceAll("\\\n", " ").split("\n")
      .map((line) => line.replace(/ +/g, " ").trim())
      .filter((line) => line !== "" && !line.startsWith("#"))
  );
  const sentences = text.replace(/^```[^]*?^```$/gm, "");
  const inline = [...sentences.matchAll(/`([^`]+)`/g)]
    .map(([, code]) => code.replace(/\s+/g, " ").trim()).filter(isCommand);
  const scripts = [...blocks, ...inline.map((command) => [command])];
  const distinct = new Map(scripts.map((commands) => [commands.join("\n"), commands]));
  return [...distinct.values()].map((commands) => ({ page: path, commands }));
}

/** The npm scripts that a command names. */
export function namedScripts(command: string): string[] {
  const pattern = /\b(?:npm run|deno task|bun run)(?: --?\w[\w-]*)* ([\w:-]+)(?![\w./:-])/g;
  const named = [...command.matchAll(pattern)].map((match) => match[1]);
  const short = /\bnpm (start|test)\b/.exec(command)?.[1];
  return short === undefined ? named : [...named, short];
}

/** The files of this project that a command names. */
export function namedFiles(command: string): string[] {
  return command.split(/[ &|;"']+/).filter((word) =>
    /^[\w./-]+\.(?:ts|mjs)$/.test(word) || word === ".ci/run"
  );
}

/** Where the links of a page lead that stay in the project: a path and a heading. */
export function linksOf({ path, text }: Page): { file: string; heading: string | undefined }[] {
  const prose = text.replace(/^```[^]*?^```$/gm, "").replace(/`[^`]*`/g, "code");
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1])
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => {
      const [file, heading] = target.split("#");
      return { file: file === "" ? path : normalize(join(dirname(path), file)), heading };
    });
}

/** The names by which links find the headings of a page. */
export function headingsOf(text: string): string[] {
  const prose = text.replace(/^```[^]*?^```$/gm, "");
  return [...prose.matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
    title.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").replace(/ /g, "-")
  );
}
