/**
 * How segments are opened: the options, and the checks of every argument before anything is made.
 */
import process from "node:process";
import { SharedMemoryError } from "../errors.ts";
import { flags, mayAccess } from "../ffi/native.ts";

/**
 * What turns structured values into bytes and back.
 *
 * @example
 * ```ts
 * import { type Codec, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * const json: Codec = {
 *   id: "json",
 *   encode: (value) => new TextEncoder().encode(JSON.stringify(value)),
 *   decode: (bytes) => JSON.parse(new TextDecoder().decode(bytes)),
 * };
 * using map = SharedMap.anonymous({ codec: json }).set("a", { list: [1] });
 * assert.deepEqual(map.get("a"), { list: [1] });
 * ```
 */
export interface Codec {
  /** Recorded in the segment, so that no other codec reads it: 1 to 63 ASCII characters. */
  readonly id: string;
  /** The bytes of a value. */
  encode(value: unknown): Uint8Array;
  /** The value of bytes that `encode` made; they are the codec's to keep. */
  decode(bytes: Uint8Array): unknown;
}

/**
 * How to open a segment by its name.
 *
 * @example
 * ```ts
 * import { type OpenOptions, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * const options: OpenOptions = { mode: "create", permissions: 0o640, maxBytes: 2 ** 20 };
 * using map = SharedMap.open("shmap-example-options", options);
 * assert.equal(map.stats().maxBytes, 2 ** 20);
 * map.unlink();
 * ```
 */
export interface OpenOptions {
  /**
   * `"shared"`, the default, creates or attaches; `"create"` fails with `"Exists"` when there is
   * one, `"attach"` with `"NotFound"` when there is none.
   *
   * `"exclusive"` makes a fresh one in any case and **displaces what was there**: whoever has that
   * open gets `"Replaced"` from every later call, and its data is gone with its last handle.
   */
  mode?: "shared" | "create" | "attach" | "exclusive";
  /** Only read: attaches, changes no byte, and every call that writes throws `"ReadOnly"`. */
  readonly?: boolean;
  /** Mode bits of a new segment, whatever the umask. Default 0o600. Without effect on Windows. */
  permissions?: number;
  /** Accept a segment that belongs to another user, other than root. Default false. */
  allowForeignOwner?: boolean;
  /** Where the segment lies. Default: `/dev/shm` on Linux, elsewhere a directory of the user. */
  directory?: string;
  /** The ceiling in bytes, recorded at creation: of a map as a whole, or of one encoded value. */
  maxBytes?: number;
  /**
   * `"kernel"` also works across PID namespaces and C libraries, and is slower. Default of a new
   * segment: `"robust"` on Linux, `"kernel"` elsewhere, where there is nothing else.
   */
  lock?: "robust" | "kernel";
  /** How long a call may wait for other processes, in milliseconds. Default 5000. */
  timeout?: number;
  /** For structured values, in place of MessagePack. Every process must name the same. */
  codec?: Codec;
}

/**
 * How to make a segment without a name.
 *
 * @example
 * ```ts
 * import { type AnonymousOptions, SharedValue } from "shmap";
 * import assert from "node:assert/strict";
 * const options: AnonymousOptions = { lock: "kernel", timeout: 100 };
 * using value = SharedValue.anonymous<string>(options);
 * assert.equal(value.stats().lock, "kernel");
 * ```
 */
export type AnonymousOptions = Pick<OpenOptions, "maxBytes" | "lock" | "timeout" | "codec">;

/**
 * How to attach by a token.
 *
 * @example
 * ```ts
 * import { type AttachOptions, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * const options: AttachOptions = { readonly: true };
 * using map = SharedMap.anonymous<number>();
 * using view = SharedMap.attach<number>(map.token, options);
 * map.set("a", 1);
 * assert.equal(view.get("a"), 1);
 * assert.throws(() => view.set("a", 2), { code: "ReadOnly" });
 * ```
 */
export type AttachOptions = Pick<
  OpenOptions,
  "readonly" | "allowForeignOwner" | "timeout" | "codec"
>;

/** What kinds of object there are on segments. */
export interface SegmentKind {
  /** As messages name it. */
  readonly noun: string;
  readonly flags: number;
  /** The least `maxBytes`. */
  readonly maxBytesLeast: number;
}

export const MAP: SegmentKind = { noun: "map", flags: 0, maxBytesLeast: 256 * 1024 };
export const VALUE: SegmentKind = { noun: "value", flags: flags.value, maxBytesLeast: 1 };

const LIMITS = { name: 200, codecId: 63, directory: 4096, token: 5000, permissions: 0o777 };
export const DEFAULT_TIMEOUT = 5000;

/** Where segments without a `directory` lie; elsewhere the platform has no path for it. */
const DEFAULT_DIRECTORY = process.platform === "linux" ? "/dev/shm" : "shared memory";

/** What an open asks for, checked and complete. */
export interface Asked {
  readonly name: string | undefined;
  readonly where: string;
  readonly directory: string | undefined;
  readonly mode: NonNullable<OpenOptions["mode"]>;
  readonly readonly: boolean;
  readonly permissions: number;
  readonly allowForeignOwner: boolean;
  readonly maxBytes: number;
  readonly lock: OpenOptions["lock"];
  readonly timeout: number;
  /** As it was given; undefined for the default one. */
  readonly codec: Codec | undefined;
  readonly codecId: string;
}

const TOKEN =
  /^(?:fd:\d{1,10}:\d{1,10}|file:[0-9a-f]{16}|name:(.+):([A-Za-z0-9._-]+)):[0-9a-f]{16}$/s;

/** What opening `name` asks for. `codecId` is recorded where no codec is given. */
export function askByName(
  kind: SegmentKind,
  name: string,
  options: OpenOptions,
  codecId: string,
): Asked {
  checkName(name);
  const asked = ask(kind, name, checkObject(options), codecId);
  checkAccess(asked.directory, asked.readonly ? ["read"] : ["read", "write"]);
  return asked;
}

/** What making a segment without a name asks for. */
export function askAnonymous(
  kind: SegmentKind,
  options: AnonymousOptions,
  codecId: string,
): Asked {
  const { maxBytes, lock, timeout, codec } = checkObject(options);
  return ask(kind, undefined, { maxBytes, lock, timeout, codec }, codecId);
}

/** What attaching by `token` asks for. */
export function askByToken(
  kind: SegmentKind,
  token: string,
  options: AttachOptions,
  codecId: string,
): Asked {
  const [, directory, name] = checkToken(token);
  const { readonly, allowForeignOwner, timeout, codec } = checkObject(options);
  const given = { readonly, allowForeignOwner, timeout, codec, mode: "attach", directory } as const;
  const asked = ask(kind, name, given, codecId);
  if (directory !== DEFAULT_DIRECTORY) {
    checkAccess(directory, asked.readonly ? ["read"] : ["read", "write"]);
  }
  return asked;
}

/** The parts of a token: all of it, then its directory and name if it has them. */
export function checkToken(token: string): RegExpExecArray {
  if (typeof token !== "string") throw wrongType("token", "a string", token);
  const parts = token.length <= LIMITS.token ? TOKEN.exec(token) : null;
  if (parts !== null) return parts;
  throw new TypeError(`Cannot attach to "${token.slice(0, 100)}": it is not a token`);
}

/** The directory of a call that needs no more than it, and how messages name that. */
export function askDirectory(
  options: { directory?: string },
  access: readonly ("read" | "write")[],
): { directory: string; where: string } {
  const directory = checkDirectory(checkObject(options).directory);
  checkAccess(directory, access);
  return { directory: directory ?? "", where: directory ?? DEFAULT_DIRECTORY };
}

/** Checks every option and fills in what was left out, reading each once. */
function ask(
  kind: SegmentKind,
  name: string | undefined,
  given: OpenOptions,
  codecId: string,
): Asked {
  const { readonly = false, allowForeignOwner = false, codec } = given;
  checkType("readonly", readonly, "boolean");
  checkType("allowForeignOwner", allowForeignOwner, "boolean");
  const timeout = checkTimeout(given.timeout, DEFAULT_TIMEOUT);
  const directory = checkDirectory(given.directory);
  return {
    name,
    where: name === undefined ? "memory" : directory ?? DEFAULT_DIRECTORY,
    directory,
    mode: checkMode(given.mode, readonly),
    readonly,
    permissions: checkInteger("permissions", given.permissions, 0, LIMITS.permissions) ?? 0o600,
    allowForeignOwner,
    maxBytes: checkInteger("maxBytes", given.maxBytes, kind.maxBytesLeast) ?? 0,
    lock: checkWord("lock", given.lock, ["robust", "kernel"]),
    timeout,
    codec,
    codecId: codec === undefined ? codecId : checkCodec(codec),
  };
}

/** Throws unless `name` may be a segment's. */
export function checkName(name: string): void {
  if (typeof name !== "string") throw wrongType("name", "a string", name);
  if (name.length > LIMITS.name) {
    const message = `Cannot use a name of ${name.length} characters: the limit is ${LIMITS.name}`;
    throw new RangeError(message);
  }
  if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]*$/.test(name)) {
    const rule = "letters, digits, '.', '_' and '-', and no '.' at the start";
    throw new TypeError(`Cannot use the name ${JSON.stringify(name)}: it may have ${rule}`);
  }
}

/** The options of a call. Throws unless they are an object or left out. */
export function checkObject<T extends object>(options: T | undefined): T {
  if (options === undefined) return {} as T;
  if (typeof options !== "object" || options === null) {
    throw wrongType("options", "an object", options);
  }
  return options;
}

/** Throws unless `value` is of this type or left out. */
export function checkType<Type>(option: string, value: Type | undefined, type: string): void {
  if (value !== undefined && typeof value !== type) throw wrongType(option, `a ${type}`, value);
}

/** Throws unless `fn` can be called. */
export function checkFunction(what: string, fn: unknown): void {
  if (typeof fn !== "function") throw wrongType(what, "a function", fn);
}

/** Throws unless `list` can be iterated over. */
export function checkIterable(what: string, list: Iterable<unknown>): void {
  if (typeof list?.[Symbol.iterator] !== "function") throw wrongType(what, "an iterable", list);
}

/** The milliseconds a call may wait: `timeout`, or `preset` where it was left out. */
export function checkTimeout(timeout: number | undefined, preset: number): number {
  checkType("timeout", timeout, "number");
  if (timeout === undefined || timeout >= 0) return timeout ?? preset;
  throw new RangeError(`Cannot use timeout ${timeout}: it is 0 to Infinity`);
}

/** Throws unless `value` is one of `words` or left out. */
export function checkWord<Word extends string>(
  option: string,
  value: Word | undefined,
  words: readonly Word[],
): Word | undefined {
  if (value === undefined || words.includes(value)) return value;
  throw wrongType(option, words.map((word) => `"${word}"`).join(" or "), value);
}

function checkMode(mode: OpenOptions["mode"], readonly: boolean): Asked["mode"] {
  const word = checkWord("mode", mode, ["shared", "create", "attach", "exclusive"]);
  if (!readonly) return word ?? "shared";
  if (word === undefined || word === "attach") return "attach";
  throw new TypeError(`Cannot open read-only in mode "${word}": readonly only attaches`);
}

/** Throws unless `value` is a whole number within these bounds or left out. */
export function checkInteger(
  option: string,
  value: number | undefined,
  least: number,
  most: number = Number.MAX_SAFE_INTEGER,
): number | undefined {
  checkType(option, value, "number");
  if (value === undefined) return value;
  if (Number.isInteger(value) && value >= least && value <= most) return value + 0; // never -0
  throw new RangeError(
    `Cannot use ${option} ${value}: it is a whole number from ${least} to ${most}`,
  );
}

function checkDirectory(directory: string | undefined): string | undefined {
  checkType("directory", directory, "string");
  if (directory === undefined) return directory;
  if (directory === "" || directory.includes("\0")) {
    throw new TypeError(`Cannot use the directory ${JSON.stringify(directory)}`);
  }
  if (directory.length <= LIMITS.directory) return directory;
  throw new RangeError(`Cannot use a directory of ${directory.length} characters`);
}

function checkCodec(codec: Codec): string {
  const isObject = typeof codec === "object" && codec !== null;
  const { id, encode, decode }: Partial<Codec> = isObject ? codec : {};
  if (typeof id !== "string" || typeof encode !== "function" || typeof decode !== "function") {
    throw wrongType("codec", "an object with id, encode and decode", codec);
  }
  if (!/^[\x20-\x7e]+$/.test(id)) {
    throw new TypeError(
      `Cannot use the codec id ${JSON.stringify(id)}: it is ASCII, and not empty`,
    );
  }
  if (id.length <= LIMITS.codecId) return id;
  throw new RangeError(
    `Cannot use a codec id of ${id.length} bytes: the limit is ${LIMITS.codecId}`,
  );
}

/** The error for `value` given as `what`. */
export function wrongType(what: string, wanted: string, value: unknown): TypeError {
  const found = typeof value === "string" ? `"${value}"` : value === null ? "null" : typeof value;
  return new TypeError(`Cannot use ${found} as ${what}: it must be ${wanted}`);
}

/** Full trust in the library aside, a directory is only used as the program's permissions say. */
function checkAccess(directory: string | undefined, access: readonly ("read" | "write")[]): void {
  const missing = access.find((kind) => directory !== undefined && !mayAccess(directory, kind));
  if (missing === undefined) return;
  const message =
    `Cannot use the directory "${directory}": run with --allow-${missing}=${directory}`;
  throw new SharedMemoryError("PermissionDenied", message);
}
