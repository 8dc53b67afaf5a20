/**
 * `SharedMemoryError`, the error of every operation that fails, and the function that makes one
 * from the status and the fault record of a call of the library.
 *
 * @module
 */
import { constants, platform } from "node:os";
import { layoutVersion, reasons, records, statuses } from "./ffi/abi.ts";
import { offsetOf, readRecord } from "./ffi/fields.ts";

/**
 * How an operation can fail: a stable word to branch on.
 *
 * - `"NotFound"`, `"Exists"`: there is none, or there is one already.
 * - `"PermissionDenied"`: the system, the segment's owner or the runtime's permissions forbid it.
 * - `"NoSpace"`, `"TooLarge"`: there is no room for more, or one value is beyond its limit.
 * - `"Timeout"`, `"Locked"`: another process, or this isolate itself, holds what the call needs.
 * - `"Corrupt"`: the bytes are damaged. `"Incompatible"`: they are of another kind or version.
 * - `"Replaced"`: an exclusive open displaced this segment. `"Closed"`: this object was closed.
 * - `"ReadOnly"`, `"WriteOnly"`: opened for the other direction.
 * - `"Unsupported"`: not on this system. `"LibraryLoad"`: the native library does not load.
 * - `"System"`: a system call failed; `errno` names its error.
 *
 * @example
 * ```ts
 * import { type ErrorCode, SharedMap, SharedMemoryError } from "shmap";
 * import assert from "node:assert/strict";
 * const missing: ErrorCode = "NotFound";
 * const attach = () => SharedMap.open("shmap-example-none", { mode: "attach" });
 * assert.throws(attach, (error) => error instanceof SharedMemoryError && error.code === missing);
 * ```
 */
export type ErrorCode =
  | "NotFound"
  | "Exists"
  | "PermissionDenied"
  | "NoSpace"
  | "TooLarge"
  | "Timeout"
  | "Locked"
  | "Corrupt"
  | "Incompatible"
  | "Replaced"
  | "Closed"
  | "ReadOnly"
  | "WriteOnly"
  | "Unsupported"
  | "LibraryLoad"
  | "System";

/**
 * The error that every operation of this module throws when it fails. Arguments of the wrong type
 * or beyond a limit are a `TypeError` or a `RangeError` instead.
 *
 * @example Branch on the code
 * ```ts
 * import { SharedMap, SharedMemoryError } from "shmap";
 * import assert from "node:assert/strict";
 *
 * const map = SharedMap.anonymous();
 * map.close();
 * try {
 *   map.get("key");
 * } catch (error) {
 *   assert.ok(error instanceof SharedMemoryError);
 *   assert.equal(error.code, "Closed");
 * }
 * ```
 */
export class SharedMemoryError extends Error {
  /** Always `"SharedMemoryError"`. */
  override readonly name = "SharedMemoryError";
  /** What happened, as a stable word. */
  readonly code: ErrorCode;
  /** The name of the system's error that caused it, such as `"ENOSPC"` or `"ERROR_DISK_FULL"`. */
  declare readonly errno?: string;
  /** How many entries `setMany` had stored when it failed. */
  declare readonly stored?: number;

  /**
   * Makes an error.
   *
   * @param code What happened, as a stable word.
   * @param message What happened, for a person.
   * @param details The cause, the system's error and the number of entries stored, where known.
   */
  constructor(
    code: ErrorCode,
    message: string,
    details: {
      cause?: unknown;
      errno?: string | undefined;
      stored?: number | undefined;
    } = {},
  ) {
    super(message, "cause" in details ? { cause: details.cause } : undefined);
    this.code = code;
    if (details.errno !== undefined) this.errno = details.errno;
    if (details.stored !== undefined) this.stored = details.stored;
  }
}

/** What only the caller of the library knows about a failure, besides what was attempted. */
export interface FailureDetails {
  /** How long the call was willing to wait, in milliseconds. */
  readonly timeout?: number | undefined;
  /** The process that was waited for, where the fault record does not name it. */
  readonly holder?: Holder | undefined;
  /** The option that sets the limit of one value. */
  readonly limit?: string | undefined;
  /** How many entries of a bulk call were stored before the part that failed. */
  readonly stored?: number | undefined;
}

/** The process that holds a lock, by the number it has in its own PID namespace; 0 if unknown. */
export interface Holder {
  readonly pid: number;
  /** Whether no process of this PID namespace has that number. */
  readonly isElsewhere: boolean;
}

/** What was attempted when a call failed: the words of the message. */
export interface Attempt extends FailureDetails {
  /** The verb: "open", "write". */
  readonly action: string;
  /** Its object: `map "jobs"`. */
  readonly thing: string;
  /** The directory or file system it lies in. */
  readonly where: string;
  /** The user's file that was to be opened, as it was given. */
  readonly file?: string | undefined;
  /** Whether it makes what it does not find: then only the directory can be missing. */
  readonly makes?: boolean;
  /** What an open asked for, named in the message beside what it found. */
  readonly wanted?: {
    readonly kind: string;
    readonly codec?: string | undefined;
    readonly lock?: string | undefined;
    readonly maxBytes?: number | undefined;
    /** Whether a token with a name was to lead there. */
    readonly isNamed?: boolean | undefined;
    /** Whether one that is not there was not to be made. */
    readonly isThere?: boolean | undefined;
  };
}

/** The size of a fault record: the numbers that a failed call leaves, and a text after them. */
export const FAULT_BYTES: number = records.Fault.bytes;
const FAULT_TEXT_OFFSET = offsetOf("Fault", "text");

/** The process that holds what a failed call waited for, by its fault record. */
export function holderIn(record: Uint8Array): Holder {
  return holderOf(readFault(record));
}

function holderOf({ holder, reason }: Fault): Holder {
  return { pid: holder, isElsewhere: reason === reasons.holderElsewhere };
}

/** A fault record. */
interface Fault {
  readonly errno: string | undefined;
  readonly needed: number;
  readonly used: number;
  readonly ceiling: number;
  readonly holder: number;
  readonly stored: number;
  readonly reason: number;
  readonly found: number;
  readonly text: string;
}

/** The error for `status`, a negative result of the library, and its fault record. */
export function failure(status: number, attempt: Attempt, record: Uint8Array): Error {
  const fault = readFault(record);
  if (status === statuses.invalidArgument) {
    return new TypeError(`${cannot(attempt)}: the library refused an argument`);
  }
  const [code, describe] = ENDINGS.get(status) ?? SYSTEM;
  const stored = attempt.stored === undefined ? undefined : attempt.stored + fault.stored;
  const details = { errno: fault.errno, stored };
  return new SharedMemoryError(code, describe(attempt, fault), details);
}

/** `bytes` as a person reads sizes: `64 MiB`, `1.5 GiB`, `300 bytes`. */
export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} bytes`;
  const power = Math.min(Math.floor(Math.log2(bytes) / 10), 5);
  const amount = Math.round(bytes / 1024 ** power * 10) / 10;
  return `${amount} ${["", "KiB", "MiB", "GiB", "TiB", "PiB"][power]}`;
}

function readFault(record: Uint8Array): Fault {
  const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
  const fault = readRecord("Fault", view);
  const text = new TextDecoder().decode(record.subarray(FAULT_TEXT_OFFSET)).replace(/\0.*$/s, "");
  return {
    errno: errnoName(fault.errno),
    needed: fault.neededBytes,
    used: fault.usedBytes,
    ceiling: fault.ceilingBytes,
    holder: fault.holderPid,
    stored: fault.storedCount,
    reason: fault.reason,
    found: fault.found,
    text,
  };
}

/** The errors of Windows that calls of the library meet, by their names in Windows' headers. */
const WINDOWS_ERRORS: ReadonlyMap<number, string> = new Map([
  [1, "ERROR_INVALID_FUNCTION"],
  [2, "ERROR_FILE_NOT_FOUND"],
  [3, "ERROR_PATH_NOT_FOUND"],
  [4, "ERROR_TOO_MANY_OPEN_FILES"],
  [5, "ERROR_ACCESS_DENIED"],
  [6, "ERROR_INVALID_HANDLE"],
  [8, "ERROR_NOT_ENOUGH_MEMORY"],
  [14, "ERROR_OUTOFMEMORY"],
  [15, "ERROR_INVALID_DRIVE"],
  [19, "ERROR_WRITE_PROTECT"],
  [32, "ERROR_SHARING_VIOLATION"],
  [33, "ERROR_LOCK_VIOLATION"],
  [39, "ERROR_HANDLE_DISK_FULL"],
  [50, "ERROR_NOT_SUPPORTED"],
  [53, "ERROR_BAD_NETPATH"],
  [67, "ERROR_BAD_NET_NAME"],
  [80, "ERROR_FILE_EXISTS"],
  [87, "ERROR_INVALID_PARAMETER"],
  [112, "ERROR_DISK_FULL"],
  [123, "ERROR_INVALID_NAME"],
  [183, "ERROR_ALREADY_EXISTS"],
  [206, "ERROR_FILENAME_EXCED_RANGE"],
  [223, "ERROR_FILE_TOO_LARGE"],
  [303, "ERROR_DELETE_PENDING"],
  [487, "ERROR_INVALID_ADDRESS"],
  [998, "ERROR_NOACCESS"],
  [1224, "ERROR_USER_MAPPED_FILE"],
  [1295, "ERROR_DISK_QUOTA_EXCEEDED"],
  [1450, "ERROR_NO_SYSTEM_RESOURCES"],
  [1455, "ERROR_COMMITMENT_LIMIT"],
]);

/** The name of a system's error. Windows has numbers of its own, which are not those of `errno`. */
export function errnoName(errno: number, system: string = platform()): string | undefined {
  if (errno === 0) return undefined;
  if (system === "win32") return WINDOWS_ERRORS.get(errno) ?? `Windows error ${errno}`;
  const entry = Object.entries(constants.errno).find(([, number]) => number === errno);
  return entry?.[0] ?? `errno ${errno}`;
}

function cannot({ action, thing }: Attempt): string {
  return `Cannot ${action} ${thing}`;
}

/** The system's error in brackets, where there is one. */
function systemCause({ errno }: Fault): string {
  return errno === undefined ? "" : ` (${errno})`;
}

type Describe = (attempt: Attempt, fault: Fault) => string;

/** The message for a user's file that the system does not open. */
function cannotOpen(attempt: Attempt, { errno }: Fault): string {
  return `${cannot(attempt)}: Can't open ${attempt.file}: ${errno ?? "not allowed"}`;
}

function describeNotFound(attempt: Attempt, fault: Fault): string {
  if (attempt.file !== undefined) return cannotOpen(attempt, fault);
  if (fault.reason === reasons.nameGone) {
    return `${cannot(attempt)}: its name no longer leads to it, for its file was removed or ` +
      `replaced; open the name again`;
  }
  if (fault.reason === reasons.filesystem) return noDirectory(attempt, fault);
  if (attempt.action === "attach to") return `${cannot(attempt)}: ${tokenCause(attempt, fault)}`;
  const way = attempt.wanted?.isThere ? "; an open that may write, without mode, makes it" : "";
  return `${cannot(attempt)}: there is none in ${attempt.where}${way}`;
}

/** Why a token leads to nothing. */
function tokenCause({ wanted }: Attempt, { reason, found }: Fault): string {
  if (wanted?.isNamed) {
    return "its name leads to none, or to another one: it was unlinked, removed or replaced";
  }
  if (reason === reasons.noSuchProcess) {
    return `this PID namespace has no process ${found}, which gave the token: it has ended, or ` +
      `is in another PID namespace, to which only names lead`;
  }
  return "the process that gave the token has closed it or ended";
}

function noDirectory(attempt: Attempt, fault: Fault): string {
  const why = `there is no directory ${attempt.where}${systemCause(fault)}`;
  return `${cannot(attempt)}: ${why}; make it, or state another one`;
}

function describePermission(attempt: Attempt, fault: Fault): string {
  if (fault.reason === reasons.foreignOwner) {
    return `${
      cannot(attempt)
    }: it belongs to user ${fault.found}, and allowForeignOwner is not set`;
  }
  if (fault.reason === reasons.hiddenProcess) {
    return `${cannot(attempt)}: process ${fault.found}, which gave the token, is closed to this ` +
      `one${systemCause(fault)}: it has another user, or capabilities, or has changed its user ` +
      `since; make what is to be shared after that, or give it a name`;
  }
  if (attempt.file !== undefined) return cannotOpen(attempt, fault);
  const denied = `${cannot(attempt)}: permission denied${systemCause(fault)}`;
  return fault.errno === "EROFS"
    ? `${denied}; ${attempt.where} is mounted read-only; mount it to be written to, state ` +
      "another directory, or open what is there with readonly"
    : `${denied}; the mode and the owner of the file, or of ${attempt.where}, do not allow it`;
}

/** What else than a full file system can be in the way of a larger file. */
const SPACE_LIMITS: ReadonlyMap<string, string> = new Map([
  ["EFBIG", 'its file may not be larger for this process; raise "ulimit -f"'],
  ["EDQUOT", "the quota of this user is used up"],
]);

function describeNoSpace(attempt: Attempt, fault: Fault): string {
  const { needed, used, ceiling, reason } = fault;
  const isOpening = attempt.wanted !== undefined;
  const grow = isOpening ? cannot(attempt) : `Cannot grow ${attempt.thing}`;
  const more = needed > 0 ? `${formatBytes(needed)} more needed` : "no room for more";
  if (reason === reasons.addressSpace) return describeNoAddresses(attempt, fault);
  const limit = fault.errno === undefined ? undefined : SPACE_LIMITS.get(fault.errno);
  if (limit !== undefined) return `${grow}: ${limit}${systemCause(fault)}`;
  if (isOpening && reason === reasons.none && needed === 0 && used === 0) {
    return `${cannot(attempt)}: ${attempt.where} takes no more files${
      systemCause(fault)
    }; remove ` +
      `some, or give it more inodes`;
  }
  if (reason === reasons.fileSystemFull || ceiling === 0) {
    const full = `${attempt.where} is full, ${formatBytes(used)} used and ${more}`;
    const kind = attempt.thing.split(" ", 1)[0];
    const way = isOpening || attempt.where === "memory"
      ? ""
      : ` by this ${kind}; remove files there, or make it larger`;
    return `${grow}: ${full}${systemCause(fault)}${way}`;
  }
  return `${grow}: ${formatBytes(used)} of ${
    formatBytes(ceiling)
  } used in ${attempt.where}, ${more}; delete entries, or make a new one with a larger maxBytes`;
}

function describeNoAddresses(attempt: Attempt, fault: Fault): string {
  const amount = formatBytes(fault.needed);
  const cause = systemCause(fault);
  if (attempt.wanted?.kind === "a region") {
    return `${cannot(attempt)}: no room for ${amount} in the address space${cause}; ` +
      "a smaller length asks for less";
  }
  const limit = fault.found > 0 ? `, ulimit -v is ${formatBytes(fault.found)}` : "";
  return `${cannot(attempt)}: no room for ${amount} more in this process's address space` +
    `${limit}${cause}`;
}

function describeTooLarge(attempt: Attempt, { needed, ceiling }: Fault): string {
  const option = attempt.limit;
  if (option !== undefined) {
    return `${cannot(attempt)}: it needs ${needed} bytes, ${option} is ${ceiling}; ` +
      `try a ${option} of at least ${needed}`;
  }
  const limit = ceiling > 0 ? `, the limit is ${formatBytes(ceiling)}` : "";
  return needed > 0
    ? `${cannot(attempt)}: the value has ${formatBytes(needed)}${limit}`
    : `${cannot(attempt)}: the value is too large${limit}`;
}

function describeTimeout(attempt: Attempt, fault: Fault): string {
  const { pid, isElsewhere } = attempt.holder ?? holderOf(fault);
  const waited = attempt.timeout === undefined ? "" : `, waited ${attempt.timeout} ms`;
  const where = isElsewhere ? ", which has ended or lives in another PID namespace" : "";
  return pid > 0
    ? `${cannot(attempt)}: it is locked by process ${pid}${where}${waited}`
    : `${cannot(attempt)}: another process was in the way, inside a call of its own${waited}`;
}

/** What is damaged in a segment, by the library's reason. */
export function damageText(reason: number): string {
  return new Map<number, string>([
    [reasons.truncated, "its file is cut short"],
    [reasons.checksum, "its header does not match its checksum"],
    [reasons.tableDamaged, "its table is damaged; repair() drops what is lost"],
    [reasons.entryDamaged, "an entry is damaged; repair() drops what is lost"],
    [reasons.chunksDamaged, "its free space is damaged; repair() rebuilds it"],
  ]).get(reason) ?? "its bytes make no sense";
}

function describeCorrupt(attempt: Attempt, { reason }: Fault): string {
  return `${cannot(attempt)}: ${damageText(reason)}`;
}

const KINDS = ["a map", "a value", "a region"];
const LOCKS = ["robust", "kernel"];

function describeIncompatible(attempt: Attempt, fault: Fault): string {
  const { reason, found, text, used, needed } = fault;
  const { wanted } = attempt;
  const what = new Map<number, string>([
    [reasons.notASegment, `what is there, in ${attempt.where}, is not a segment`],
    [reasons.notRegularFile, `what is there, in ${attempt.where}, is not a regular file`],
    [reasons.tooShort, `specified file too small: ${used} bytes, ${needed} wanted`],
    [reasons.emptyFile, "the file is empty, and no length was given"],
    [
      reasons.layoutVersion,
      `it has layout ${found}, and this version of shmap reads layout ${layoutVersion}`,
    ],
    [reasons.otherKind, `it is ${KINDS[found] ?? "of another kind"}, wanted ${wanted?.kind}`],
    [
      reasons.otherCodec,
      `its codec is ${text ? `"${text}"` : "another one"}, wanted "${wanted?.codec}"`,
    ],
    [
      reasons.otherLock,
      `its lock is "${LOCKS[found] ?? found}", wanted "${wanted?.lock ?? "robust"}"`,
    ],
    [
      reasons.otherMaxBytes,
      `its maxBytes is ${found > 0 ? found : "unlimited"}, wanted ${wanted?.maxBytes}`,
    ],
    [
      reasons.otherLibc,
      'its writers use another C library; one created with lock: "kernel" takes both',
    ],
    [
      reasons.otherPidNamespace,
      'its writers live in another PID namespace; one created with lock: "kernel" takes both',
    ],
  ]).get(reason) ?? "it was made for something else";
  return `${cannot(attempt)}: ${what}`;
}

function describeUnsupported(attempt: Attempt, fault: Fault): string {
  const what = new Map<number, string>([
    [reasons.networkFileSystem, `${attempt.where} is on a network file system`],
    [
      reasons.filesystem,
      `the file system of ${attempt.where} writes each change to another place, ` +
      "and a full disk would end processes; use another directory",
    ],
    [
      reasons.noProc,
      "there is no /proc, by which this is found; mount one, or open it by a name or path",
    ],
    [
      reasons.noFacts,
      "/proc does not tell which processes can share its mutexes; " +
      'one created with lock: "kernel" has none',
    ],
  ]).get(fault.reason) ?? "this system cannot do it";
  return `${cannot(attempt)}: ${what}${systemCause(fault)}`;
}

const NO_DESCRIPTORS =
  'this process has as many files open as it may, and an open takes two; raise "ulimit -n", or ' +
  "close some";

/** What the system means, and the way out, for errors that are met. */
const SYSTEM_CAUSES: ReadonlyMap<string, string> = new Map([
  ["EMFILE", NO_DESCRIPTORS],
  ["ERROR_TOO_MANY_OPEN_FILES", NO_DESCRIPTORS],
  ["ENFILE", "this machine may open no more files"],
  ["ENAMETOOLONG", "the path is too long"],
  ["ENOMEM", "the kernel has no memory for it"],
]);

const SYSTEM: [ErrorCode, Describe] = [
  "System",
  (attempt, fault) => {
    const cause = fault.errno === undefined ? undefined : SYSTEM_CAUSES.get(fault.errno);
    return `${cannot(attempt)}: ${cause ?? "the system refused"}${systemCause(fault)}`;
  },
];

function plain(text: string): Describe {
  return (attempt) => `${cannot(attempt)}: ${text}`;
}

/** The code and the message of every status that means an error. */
const ENDINGS: ReadonlyMap<number, [ErrorCode, Describe]> = new Map([
  [statuses.notFound, ["NotFound", describeNotFound]],
  [statuses.exists, ["Exists", (a) => `${cannot(a)}: there is one already in ${a.where}`]],
  [statuses.permissionDenied, ["PermissionDenied", describePermission]],
  [statuses.noSpace, ["NoSpace", describeNoSpace]],
  [statuses.tooLarge, ["TooLarge", describeTooLarge]],
  [statuses.timeout, ["Timeout", describeTimeout]],
  [
    statuses.locked,
    [
      "Locked",
      plain("this thread holds its lock, by this handle or another, and waiting would not end"),
    ],
  ],
  [statuses.corrupt, ["Corrupt", describeCorrupt]],
  [statuses.incompatible, ["Incompatible", describeIncompatible]],
  [statuses.replaced, ["Replaced", plain("an exclusive open has replaced it; open it again")]],
  [statuses.closed, ["Closed", plain("it is closed")]],
  [statuses.readOnly, ["ReadOnly", plain("it was opened read-only")]],
  [statuses.writeOnly, ["WriteOnly", plain("it was opened write-only")]],
  [statuses.unsupported, ["Unsupported", describeUnsupported]],
  [statuses.system, SYSTEM],
]);
