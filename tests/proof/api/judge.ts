/**
 * How a call of the public API may end: with a value of its type, or with an error that the
 * documentation names. Words of the engine's own are let through only where the caller's argument
 * is to blame and no check of ours could say more.
 */
import { SharedMemoryError } from "../../../mod.ts";

// deno-fmt-ignore
const CODES = new Set<string>([
  "NotFound", "Exists", "PermissionDenied", "NoSpace", "TooLarge", "Timeout", "Locked", "Corrupt",
  "Incompatible", "Replaced", "Closed", "ReadOnly", "WriteOnly", "Unsupported", "System",
]);

const VERBS = [
  "use|store|attach to|construct|open|create|unlink|list|write|read|set|update|lock|unlock|identify",
  "describe|clear|compact|verify|add|repair|prune|iterate over|flush|pack|unpack|encode|grow",
].join("|");
const OURS = new RegExp(`^Cannot (?:${VERBS}):? (?!propert|private|'in')`);
/** What every argument should have been refused before. */
const TOO_LATE = /the library refused an argument/;

/** The engine's words for what an argument does or lacks by itself, in V8 and in JavaScriptCore. */
const ENGINES: Record<string, RegExp> = {
  "a revoked proxy": /revoked/i,
  "an object of another class":
    /private (?:member|field)|[Ii]llegal invocation|invoked without 'new'|without \|?'?new/,
  "what is no real byte array": /incompatible receiver|should be a typed array|not a typed array/,
  "a detached buffer": /detached|out[- ]of[- ]bounds/i,
  "an endless recursion": /call stack/i,
  "a running generator": /already (?:running|executing)/,
  "an iterator that is none": /[Ii]terator (?:result|value)|is not an object$/,
  "a URL that is no file's": /scheme file|must be of type string|File URL/,
};

/** What is known of the call besides its end. */
export interface Circumstances {
  /** Everything the caller's own code has thrown since the call began. */
  readonly thrown: readonly unknown[];
  /** Whether the target, or a thing it depends on, may be closed. */
  readonly mayBeClosed: boolean;
  /** Whether it may have been replaced by an exclusive open. */
  readonly mayBeReplaced: boolean;
  /** Whether what it holds may make no sense: its codec is the caller's. */
  readonly mayBeCorrupt: boolean;
  /** Whether the target may be no object of ours at all. */
  readonly isForeign: boolean;
  /** Whether it reads a template. */
  readonly hasTemplate: boolean;
  /** Whether an argument is a proxy. */
  readonly isProxied: boolean;
}

/** What is wrong with this error; undefined when it is one a user was told of. */
export function judge(error: unknown, about: Circumstances): string | undefined {
  if (about.thrown.some((thrown) => Object.is(thrown, error))) return undefined;
  if (error instanceof SharedMemoryError) return judgeOurs(error, about);
  if (!(error instanceof Error)) return `it threw ${typeof error}, which no callback planted`;
  const { constructor, message } = error;
  const isArgument = constructor === TypeError || constructor === RangeError;
  if (!isArgument && !(constructor === SyntaxError && about.hasTemplate)) {
    // The runtime's own classes for its own arguments are made from these two.
    const isNodes = error instanceof TypeError && "code" in error;
    if (!isNodes) return `it threw ${constructor?.name}: ${message}`;
  }
  if (TOO_LATE.test(message)) return `it came as far as the library: ${message}`;
  if (OURS.test(message) || (about.isForeign && constructor === TypeError)) return undefined;
  if (Object.values(ENGINES).some((words) => words.test(message))) return undefined;
  if (constructor === RangeError && /allocat|array length|out of memory/i.test(message)) {
    return undefined;
  }
  return `it threw words of the engine: ${constructor.name}: ${message}`;
}

function judgeOurs(error: SharedMemoryError, about: Circumstances): string | undefined {
  const { code, message } = error;
  const wrong = `it threw ${code}: ${message}`;
  if (!CODES.has(code)) return `${wrong}: no code for this call`;
  if (!OURS.test(message)) return `${wrong}: names no action`;
  if (/undefined|\[object/.test(message.replace(/"[^]*?"/g, ""))) return `${wrong}: its words`;
  if (code === "Closed" && !about.mayBeClosed) return `${wrong}: no call closed it`;
  if (code === "Replaced" && !about.mayBeReplaced) return `${wrong}: no call replaced it`;
  if (code === "Corrupt" && !about.mayBeCorrupt) return `${wrong}: no call damaged it`;
  if (code === "System" && error.errno === undefined) return `${wrong}: of which system call?`;
  return undefined;
}
