/**
 * The options for opening segments, and the checks of them: every argument of an open is checked
 * before the library is loaded.
 */
import process from "node:process";
import {
  checkInteger,
  checkOptions,
  checkTimeout,
  checkType,
  checkWord,
  wrongType,
} from "../arguments.ts";
import { flags } from "../ffi/abi.ts";
import type { Access } from "../ffi/backend.ts";
import { checkAccess } from "../ffi/native.ts";
import { type Codec, DEFAULT_CODEC_ID } from "../values/kinds.ts";

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
   * `"exclusive"` always makes a new segment and **displaces the old one of that name**: every
   * later call on an open handle of the old one throws `"Replaced"`, and its data is gone with its
   * last handle.
   */
  mode?: "shared" | "create" | "attach" | "exclusive" | undefined;
  /** Only attach and read. Every call that writes throws `"ReadOnly"`. */
  readonly?: boolean | undefined;
  /**
   * Mode bits of a new segment, independent of the umask. Default 0o600. Without effect on Windows.
   */
  permissions?: number | undefined;
  /** Accept a segment that belongs to another user, other than root. Default false. */
  allowForeignOwner?: boolean | undefined;
  /** Where the segment lies. Default: `/dev/shm` on Linux, else a directory of the user. */
  directory?: string | undefined;
  /** The ceiling in bytes, recorded at creation: of a map as a whole, or of one encoded value. */
  maxBytes?: number | undefined;
  /**
   * `"kernel"` also works across PID namespaces and C libraries, and is slower. Default of a new
   * segment: `"robust"` on Linux; on other systems `"kernel"`, the only one there.
   */
  lock?: "robust" | "kernel" | undefined;
  /** How long a call may wait for other processes, in milliseconds. Default 5000. */
  timeout?: number | undefined;
  /** For structured values, in place of the built-in one. Every process must give the same one. */
  codec?: Codec | undefined;
  /**
   * Have `get` return one deeply frozen object for as long as the value stays the same, instead of
   * a copy each time. This holds for structures of plain objects, arrays and primitives, and in a
   * map for as many as there is room for. What has anything else in it, and a byte array, is a copy
   * each time all the same. Default false.
   */
  frozen?: boolean | undefined;
  /**
   * Of a map: milliseconds after which the entries end that this handle stores without saying when
   * they end. Default: never.
   */
  ttl?: number | undefined;
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
export type AnonymousOptions = Pick<
  OpenOptions,
  "maxBytes" | "lock" | "timeout" | "codec" | "frozen" | "ttl"
>;

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
  "readonly" | "allowForeignOwner" | "timeout" | "codec" | "frozen" | "ttl"
>;

/** A kind of object that lies in a segment. */
export interface SegmentKind {
  /** How messages name it. */
  readonly noun: string;
  readonly flags: number;
  /** The smallest `maxBytes`. */
  readonly maxBytesLeast: number;
}

export const MAP: SegmentKind = { noun: "map", flags: 0, maxBytesLeast: 256 * 1024 };
export const VALUE: SegmentKind = { noun: "value", flags: flags.value, maxBytesLeast: 1 };

/** The options of each call, in the order in which messages name them. */
const ATTACH_NAMES: readonly (keyof AttachOptions)[] = [
  "readonly",
  "allowForeignOwner",
  "timeout",
  "codec",
  "frozen",
];
const ANONYMOUS_NAMES: readonly (keyof AnonymousOptions)[] = [
  "maxBytes",
  "lock",
  "timeout",
  "codec",
  "frozen",
];
const OPEN_NAMES: readonly (keyof OpenOptions)[] = [
  "mode",
  "readonly",
  "permissions",
  "allowForeignOwner",
  "directory",
  "maxBytes",
  "lock",
  "timeout",
  "codec",
  "frozen",
];

/** The options that a kind has: of a value, nothing ends. */
function namesFor(kind: SegmentKind, names: readonly string[]): readonly string[] {
  return kind === MAP ? [...names, "ttl"] : names;
}

/** How messages name a segment: `map "jobs"`. */
export function labelOf(kind: SegmentKind, name: string | undefined): string {
  return name === undefined ? `anonymous ${kind.noun}` : `${kind.noun} "${name}"`;
}

const LIMITS = { name: 200, codecId: 63, directory: 4096, token: 5000, permissions: 0o777 };
/** How long calls wait by default, in milliseconds. */
export const DEFAULT_TIMEOUT = 5000;

/** How messages name the default directory. Only on Linux is it the same for every user. */
const DEFAULT_DIRECTORY = process.platform === "linux" ? "/dev/shm" : "shared memory";

/** The arguments of an open, checked and complete. */
export interface OpenRequest {
  readonly kind: SegmentKind;
  readonly name: string | undefined;
  /** As messages name the directory. */
  readonly where: string;
  readonly directory: string | undefined;
  readonly mode: NonNullable<OpenOptions["mode"]>;
  readonly readonly: boolean;
  readonly permissions: number;
  readonly allowForeignOwner: boolean;
  readonly maxBytes: number;
  readonly lock: OpenOptions["lock"];
  readonly timeout: number;
  /** The codec that was given; undefined for the default one. */
  readonly codec: Codec | undefined;
  readonly codecId: string;
}

const TOKEN =
  /^(?:fd:\d{1,10}:\d{1,10}|file:[0-9a-f]{16}|name:(.+):([A-Za-z0-9._-]+)):[0-9a-f]{16}$/s;

/** The request to open `name`. */
export function requestByName(kind: SegmentKind, name: string, options: OpenOptions): OpenRequest {
  checkName(name);
  const request = completeRequest(
    kind,
    name,
    checkOptions(options, namesFor(kind, OPEN_NAMES)),
  );
  checkDirectoryAccess(request.directory, accessOf(request));
  return request;
}

/** The request for a new segment without a name. */
export function requestAnonymous(kind: SegmentKind, options: AnonymousOptions): OpenRequest {
  const { maxBytes, lock, timeout, codec } = checkOptions(
    options,
    namesFor(kind, ANONYMOUS_NAMES),
  );
  return completeRequest(kind, undefined, { maxBytes, lock, timeout, codec });
}

/** The request to attach by `token`. */
export function requestByToken(
  kind: SegmentKind,
  token: string,
  options: AttachOptions,
): OpenRequest {
  const [, directory, name] = checkToken(token);
  const { readonly, allowForeignOwner, timeout, codec } = checkOptions(
    options,
    namesFor(kind, ATTACH_NAMES),
  );
  const given = { readonly, allowForeignOwner, timeout, codec, mode: "attach", directory } as const;
  const request = completeRequest(kind, name, given);
  if (directory !== DEFAULT_DIRECTORY) checkDirectoryAccess(directory, accessOf(request));
  return request;
}

/** The parts of a token: all of it, then its directory and name if it has them. */
export function checkToken(token: string): RegExpExecArray {
  if (typeof token !== "string") throw wrongType("token", "a string", token);
  const parts = token.length <= LIMITS.token ? TOKEN.exec(token) : null;
  if (parts !== null) return parts;
  throw new TypeError(`Cannot attach to "${token.slice(0, 100)}": it is not a token`);
}

/** The directory of a call that opens no segment, and how messages name it. */
export function requestDirectory(
  options: { directory?: string | undefined },
  access: readonly Access[],
): { directory: string; where: string } {
  const directory = checkDirectory(checkOptions(options, ["directory"]).directory);
  checkDirectoryAccess(directory, access);
  return { directory: directory ?? "", where: directory ?? DEFAULT_DIRECTORY };
}

/** Checks every option, reading each once, and fills in those that were left out. */
function completeRequest(
  kind: SegmentKind,
  name: string | undefined,
  given: OpenOptions,
): OpenRequest {
  const { readonly = false, allowForeignOwner = false, codec } = given;
  checkType("readonly", readonly, "boolean");
  checkType("allowForeignOwner", allowForeignOwner, "boolean");
  const timeout = checkTimeout(given.timeout, DEFAULT_TIMEOUT);
  const directory = checkDirectory(given.directory);
  return {
    kind,
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
    codecId: codec === undefined ? DEFAULT_CODEC_ID : checkCodec(codec),
  };
}

/** Whether `get` shall return frozen objects. */
export function frozenIn(options: { frozen?: boolean | undefined }): boolean {
  const { frozen = false }: { frozen?: boolean | undefined } = options ?? {}; // null is refused
  checkType("frozen", frozen, "boolean");
  return frozen;
}

function accessOf(request: OpenRequest): readonly Access[] {
  return request.readonly ? ["read"] : ["read", "write"];
}

function checkDirectoryAccess(directory: string | undefined, access: readonly Access[]): void {
  if (directory === undefined) return;
  checkAccess(directory, access, `Cannot use the directory "${directory}"`);
}

/** Throws unless `name` can be the name of a segment. */
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

function checkMode(mode: OpenOptions["mode"], readonly: boolean): OpenRequest["mode"] {
  const word = checkWord("mode", mode, ["shared", "create", "attach", "exclusive"]);
  if (!readonly) return word ?? "shared";
  if (word === undefined || word === "attach") return "attach";
  throw new TypeError(`Cannot open read-only in mode "${word}": readonly only attaches`);
}

function checkDirectory(directory: string | undefined): string | undefined {
  checkType("directory", directory, "string");
  if (directory === undefined) return directory;
  if (directory.length > LIMITS.directory) {
    const { length } = directory;
    const limit = LIMITS.directory;
    throw new RangeError(`Cannot use a directory of ${length} characters: the limit is ${limit}`);
  }
  if (directory !== "" && !directory.includes("\0")) return directory;
  const found = JSON.stringify(directory);
  throw new TypeError(`Cannot use ${found} as directory: it has no character, or a zero one`);
}

/** The id of a codec. Throws unless it is one. */
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
