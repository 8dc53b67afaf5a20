/**
 * What every object on a segment shares: how it is opened and closed, its options, its token, its
 * failures, and the buffers through which all bytes cross.
 */
import { type Attempt, failure, SharedMemoryError } from "../errors.ts";
import { type Lockable, Locker } from "../lock/lock.ts";
import { CODEC, DATA, FAULT, flags, KEY, type Native, native, openNative } from "../ffi/native.ts";
import {
  type AnonymousOptions,
  askAnonymous,
  askByName,
  askByToken,
  askDirectory,
  type Asked,
  type AttachOptions,
  checkName,
  type Codec,
  DEFAULT_TIMEOUT,
  type OpenOptions,
  type SegmentKind,
} from "./options.ts";

export { DATA, flags, KEY, Scratch, statuses } from "../ffi/native.ts";
export { checkFunction, checkIterable, checkObject, checkType, MAP, VALUE } from "./options.ts";
export type { AnonymousOptions, AttachOptions, Codec, OpenOptions } from "./options.ts";

/**
 * One segment of a directory.
 *
 * @example
 * ```ts
 * import { type SegmentInfo, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.open("shmap-example-info").set("a", 1);
 * const isOurs = ({ name }: SegmentInfo) => name === "shmap-example-info";
 * assert.equal(SharedMap.list().find(isOurs)?.entries, 1);
 * map.unlink();
 * ```
 */
export interface SegmentInfo {
  /** Its name, which is the file's. */
  name: string;
  /** What it holds. */
  kind: "map" | "value" | "region";
  /** How many bytes of memory or disk it takes. */
  bytes: number;
  /** How many entries it has. */
  entries: number;
  /** Whether any process has it open. */
  inUse: boolean;
  /** Whether a process holds its lock. */
  locked: boolean;
  /** The user id of its owner. */
  owner: number;
  /** When it was created. */
  created: Date;
}

/**
 * What a segment says of itself, for people who look for the cause of a problem.
 *
 * @example
 * ```ts
 * import { type MapStats, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.anonymous().set("a", 1);
 * const { entries, state }: MapStats = map.stats();
 * assert.deepEqual([entries, state], [1, "live"]);
 * ```
 */
export interface MapStats {
  /** How many entries there are. */
  entries: number;
  /** Bytes of memory or disk that the file takes. */
  allocated: number;
  /** Bytes the segment may use without asking the system for more. */
  committed: number;
  /** Bytes up to which it can grow. */
  ceiling: number;
  /** The limit recorded at creation, if any. */
  maxBytes: number | undefined;
  /** Parts with a lock each. */
  stripes: number;
  /** Stripes that switched to a slower hash, because keys seemed chosen to collide. */
  hardenedStripes: number;
  /** Places for entries in the tables. */
  slots: number;
  /** Places that deleted entries still take. */
  tombstones: number;
  /** Bytes the stripes own, for entries and tables. */
  owned: number;
  /** Bytes of these that are free. */
  free: number;
  /** Free bytes that no stripe owns. */
  pooled: number;
  /** How often a stripe was repaired after the death of a process inside it. */
  recoveries: number;
  /** How many damaged entries repairs have dropped. */
  dropped: number;
  /** The kind of lock recorded at creation. */
  lock: "robust" | "kernel";
  /** When the segment was created. */
  created: Date;
  /** The user id of its owner. */
  owner: number;
  /** What has become of it: still found by its name, or not any more. */
  state: "live" | "replacing" | "replaced" | "unlinked";
  /** Whether other writing handles are attached. On Windows only a read-only one can tell. */
  hasOtherWriters: boolean;
}

/** What the message of a failure says besides what the library knows. */
type FailureDetails = Pick<Attempt, "timeout" | "holder" | "stored" | "limit">;

/** Closes what was forgotten. Held values are handles: a collected object has none to give. */
const forgotten = new FinalizationRegistry<number>((handle) => {
  native().shm_segment_close(handle);
});

/** One open handle. Public objects are thin faces over it, and everything that outlives them. */
export class Segment implements Lockable {
  readonly native: Native;
  readonly name: string | undefined;
  /** As messages name it: `map "jobs"`. */
  readonly label: string;
  readonly isReadonly: boolean;
  /** What was given in place of the default one. */
  readonly codec: Codec | undefined;
  /** How long calls wait for others unless they say otherwise, in milliseconds. */
  readonly timeout: number;
  readonly locker: Locker;
  /** Zero once closed, which the library refuses. */
  handle: number;
  /** Zero also when read-only: what writes need, in one look. */
  writeHandle: number;
  readonly #where: string;
  #token: string | undefined;
  #stripes: number | undefined;

  constructor(library: Native, handle: number, kind: SegmentKind, asked: Asked) {
    this.native = library;
    this.handle = handle;
    this.label = labelOf(kind, asked.name);
    this.name = asked.name;
    this.isReadonly = asked.readonly;
    this.codec = asked.codec;
    this.writeHandle = asked.readonly ? 0 : handle;
    this.#where = asked.where;
    this.timeout = asked.timeout;
    this.locker = new Locker(this);
    forgotten.register(this, handle, this);
  }

  /** The error for a negative result of a call that was to do `action`. */
  failure(status: number, action: string, details: FailureDetails = {}): Error {
    if (this.handle === 0) return this.#refusal("Closed", action);
    FAULT.bytes.fill(0);
    this.native.shm_fault(this.handle, FAULT.bytes);
    const attempt = { action, thing: this.label, where: this.#where, timeout: this.timeout };
    return openFailure(status, { ...attempt, ...details });
  }

  /** Throws unless open. */
  assertOpen(action: string): void {
    if (this.handle === 0) throw this.#refusal("Closed", action);
  }

  /** Throws unless open for writing. */
  assertWritable(action: string): void {
    this.assertOpen(action);
    if (this.isReadonly) throw this.#refusal("ReadOnly", action);
  }

  assertLockable(action: string): void {
    this.assertWritable(action);
  }

  #refusal(code: "Closed" | "ReadOnly", action: string): SharedMemoryError {
    const why = code === "Closed" ? "it is closed" : "it was opened read-only";
    return new SharedMemoryError(code, `Cannot ${action} ${this.label}: ${why}`);
  }

  /** What leads other processes here. */
  get token(): string {
    this.assertOpen("identify");
    return this.#token ??= this.#readToken();
  }

  #readToken(): string {
    DATA.end = 0;
    const length = this.native.shm_segment_token(this.handle, DATA.bytes, DATA.bytes.length);
    if (length < 0) throw this.failure(length, "identify");
    return DATA.text.utf8Slice(0, length);
  }

  /** How many stripes there are, which never changes. */
  get stripes(): number {
    return this.#stripes ??= this.stats().stripes;
  }

  stats(): MapStats {
    this.assertOpen("describe");
    const { native, handle } = this;
    const length = native.shm_segment_stats(handle, DATA.bytes, DATA.bytes.length);
    if (length < 0) throw this.failure(length, "describe");
    return readStats(DATA.view);
  }

  unlink(): boolean {
    this.assertWritable("unlink");
    const result = this.native.shm_segment_unlink(this.handle);
    if (result < 0) throw this.failure(result, "unlink");
    return result === 1;
  }

  close(): void {
    const { handle } = this;
    if (handle === 0) return;
    this.handle = 0;
    this.writeHandle = 0;
    forgotten.unregister(this);
    this.native.shm_segment_close(handle);
    this.locker.closed();
  }
}

function labelOf(kind: SegmentKind, name: string | undefined): string {
  return name === undefined ? `anonymous ${kind.noun}` : `${kind.noun} "${name}"`;
}

function readStats(view: DataView): MapStats {
  const at = (index: number) => view.getFloat64(index * 8, true);
  return {
    entries: at(0),
    allocated: at(1),
    committed: at(2),
    ceiling: at(3),
    maxBytes: at(12) || undefined,
    stripes: at(4),
    hardenedStripes: at(17),
    slots: at(5),
    tombstones: at(6),
    owned: at(7),
    free: at(8),
    pooled: at(9),
    recoveries: at(10),
    dropped: at(11),
    lock: at(13) === 1 ? "kernel" : "robust",
    created: new Date(at(14)),
    owner: at(15),
    state: (["live", "replacing", "replaced", "unlinked"] as const)[at(16) - 1] ?? "live",
    hasOtherWriters: at(18) === 1,
  };
}

/** Opens the segment `name`. `codecId` is the id of the codec used when none is given. */
export function openSegment(
  kind: SegmentKind,
  name: string,
  options: OpenOptions,
  codecId: string,
): Segment {
  const asked = askByName(kind, name, options, codecId);
  const library = openNative();
  const lengths = [DATA.write(asked.directory ?? ""), KEY.write(name), CODEC.write(asked.codecId)];
  const handle = library.shm_segment_open(
    DATA.bytes,
    lengths[0],
    KEY.bytes,
    lengths[1],
    CODEC.bytes,
    lengths[2],
    flagsOf(kind, asked),
    asked.permissions,
    asked.maxBytes,
    asked.timeout,
    FAULT.bytes,
  );
  return opened(library, handle, kind, asked, asked.mode === "create" ? "create" : "open");
}

/** Makes a segment that only its token leads to. */
export function anonymousSegment(
  kind: SegmentKind,
  options: AnonymousOptions,
  codecId: string,
): Segment {
  const asked = askAnonymous(kind, options, codecId);
  const library = openNative();
  const codecLength = CODEC.write(asked.codecId);
  const handle = library.shm_segment_anonymous(
    CODEC.bytes,
    codecLength,
    flagsOf(kind, asked),
    asked.maxBytes,
    asked.timeout,
    FAULT.bytes,
  );
  return opened(library, handle, kind, asked, "create");
}

/** Attaches to the segment `token` names. */
export function attachSegment(
  kind: SegmentKind,
  token: string,
  options: AttachOptions,
  codecId: string,
): Segment {
  const asked = askByToken(kind, token, options, codecId);
  const library = openNative();
  const lengths = [DATA.write(token), CODEC.write(asked.codecId)];
  const handle = library.shm_segment_attach(
    DATA.bytes,
    lengths[0],
    CODEC.bytes,
    lengths[1],
    flagsOf(kind, asked),
    asked.timeout,
    FAULT.bytes,
  );
  return opened(library, handle, kind, asked, "attach to");
}

/** Removes the name of a segment; false when there was none. */
export function unlinkSegment(
  kind: SegmentKind,
  name: string,
  options: { directory?: string },
): boolean {
  checkName(name);
  const { directory, where } = askDirectory(options, ["read", "write"]);
  const library = openNative();
  const lengths = [DATA.write(directory), KEY.write(name)];
  const result = library.shm_segment_unlink_name(
    DATA.bytes,
    lengths[0],
    KEY.bytes,
    lengths[1],
    kind.flags,
    DEFAULT_TIMEOUT,
    FAULT.bytes,
  );
  if (result >= 0) return result === 1;
  const wanted = { kind: `a ${kind.noun}` };
  throw openFailure(result, { action: "unlink", thing: labelOf(kind, name), where, wanted });
}

/** Every segment in a directory. */
export function listSegments(options: { directory?: string }): SegmentInfo[] {
  const { directory, where } = askDirectory(options, ["read"]);
  const library = openNative();
  const directoryLength = KEY.write(directory);
  for (;;) {
    const length = library.shm_segment_list(
      KEY.bytes,
      directoryLength,
      DATA.bytes,
      DATA.bytes.length,
      FAULT.bytes,
    );
    if (length < 0) throw openFailure(length, { action: "list", thing: "the segments", where });
    if (length <= DATA.bytes.length) return readList(length);
    DATA.end = 0;
    DATA.reserve(2 * length); // more than it says: others may add to it meanwhile
  }
}

const KINDS = ["map", "value", "region"] as const;
const LISTED_BYTES = 48;

function readList(length: number): SegmentInfo[] {
  const infos: SegmentInfo[] = [];
  const { view, text } = DATA;
  for (let at = 0; at < length;) {
    const nameEnd = at + LISTED_BYTES + view.getUint32(at, true);
    infos.push({
      name: text.utf8Slice(at + LISTED_BYTES, nameEnd),
      kind: KINDS[view.getUint32(at + 4, true)] ?? "region",
      bytes: view.getFloat64(at + 16, true),
      entries: view.getFloat64(at + 24, true),
      inUse: view.getUint32(at + 8, true) !== 0,
      locked: view.getUint32(at + 12, true) !== 0,
      owner: view.getFloat64(at + 32, true),
      created: new Date(view.getFloat64(at + 40, true)),
    });
    at = Math.ceil(nameEnd / 8) * 8;
  }
  DATA.release();
  return infos;
}

function opened(
  library: Native,
  handle: number,
  kind: SegmentKind,
  asked: Asked,
  action: string,
): Segment {
  if (handle > 0) return new Segment(library, handle, kind, asked);
  const { where, timeout, codecId, lock, maxBytes } = asked;
  const wanted = { kind: `a ${kind.noun}`, codec: codecId, lock, maxBytes };
  const thing = labelOf(kind, asked.name);
  throw openFailure(handle, { action, thing, where, timeout, wanted });
}

function openFailure(status: number, attempt: Attempt): Error {
  return failure(status, attempt, FAULT.bytes);
}

function flagsOf(kind: SegmentKind, asked: Asked): number {
  const modes = {
    shared: 0,
    create: flags.modeCreate,
    attach: flags.modeAttach,
    exclusive: flags.modeExclusive,
  };
  return kind.flags | modes[asked.mode] |
    (asked.readonly ? flags.readonly : 0) |
    (asked.allowForeignOwner ? flags.allowForeignOwner : 0) |
    (asked.lock === undefined ? 0 : flags.lockStated) |
    (asked.lock === "kernel" ? flags.lockKernel : 0);
}
