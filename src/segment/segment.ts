/**
 * Segments, in which maps and values lie: opening one by its name, without a name, or by a token,
 * and what can be asked of it while it is open.
 */
import { flags } from "../ffi/abi.ts";
import { type Native, openNative } from "../ffi/native.ts";
import { readRecord } from "../ffi/fields.ts";
import { CODEC, DATA, FAULT, KEY } from "../ffi/scratch.ts";
import type { Codec } from "../values/kinds.ts";
import { checkOpened, Handle, type HandleCalls } from "./handle.ts";
import {
  type AnonymousOptions,
  type AttachOptions,
  labelOf,
  type OpenOptions,
  type OpenRequest,
  requestAnonymous,
  requestByName,
  requestByToken,
  type SegmentKind,
} from "./options.ts";
import { stopSweeping } from "./sweeper.ts";

/**
 * Figures of an open map or value, for people who look for the cause of a problem.
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
  /** Bytes the segment may use without asking the system for more, without holes of its file. */
  committed: number;
  /** Bytes up to which a map can grow: its `maxBytes`. Undefined: what its file system has. */
  ceiling: number | undefined;
  /** The limit recorded at creation, if any. */
  maxBytes: number | undefined;
  /** Parts with a lock each. */
  stripes: number;
  /** Stripes that switched to a slower hash, because keys seemed chosen to collide. */
  hardenedStripes: number;
  /** Places for entries in the tables. */
  slots: number;
  /** Slots that deleted entries still take. */
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
  /** How many entries have an end, those that have ended and are still stored among them. */
  expiring: number;
  /** How many entries were removed because they had ended. */
  expirations: number;
  /** How many changes were made, since the segment was created; more than the calls that wrote. */
  writes: number;
  /** The kind of lock recorded at creation. */
  lock: "robust" | "kernel";
  /** When the segment was created. */
  created: Date;
  /** The user id of its owner. */
  owner: number;
  /**
   * Whether its name still leads to it (`"live"`), and why not: another process is about to replace
   * it or has done so, or the name was unlinked, or its file was removed by another program.
   */
  state: "live" | "replacing" | "replaced" | "unlinked";
  /** Whether other writing handles are attached. On Windows only a read-only one can tell. */
  hasOtherWriters: boolean;
}

const CALLS: HandleCalls = { close: "shm_segment_close", token: "shm_segment_token" };

/** One open segment. */
export class Segment extends Handle {
  readonly name: string | undefined;
  readonly isReadonly: boolean;
  /** The codec that was given; undefined for the default one. */
  readonly codec: Codec | undefined;
  /** As `handle`, but zero also if read-only: writes need to look at no more than this. */
  writeHandle: number;
  #stripes: number | undefined;

  constructor(library: Native, handle: number, request: OpenRequest) {
    const { kind, name, where, timeout } = request;
    super(library, handle, CALLS, { thing: labelOf(kind, name), where, timeout });
    this.name = name;
    this.isReadonly = request.readonly;
    this.codec = request.codec;
    this.writeHandle = request.readonly ? 0 : handle;
  }

  /** Throws unless open for writing. */
  assertWritable(action: string): void {
    this.assertOpen(action);
    if (this.isReadonly) throw this.refusal("ReadOnly", action, "it was opened read-only");
  }

  override assertLockable(action: string): void {
    this.assertWritable(action);
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

  /** Removes the name, if it still leads here; says whether it did. */
  unlink(): boolean {
    this.assertWritable("unlink");
    const result = this.native.shm_segment_unlink(this.handle);
    if (result < 0) throw this.failure(result, "unlink");
    return result === 1;
  }

  override close(): void {
    this.writeHandle = 0;
    stopSweeping(this.handle);
    super.close();
  }
}

const STATES = ["live", "replacing", "replaced", "unlinked"] as const;

function readStats(view: DataView): MapStats {
  const stats = readRecord("Stats", view);
  return {
    entries: stats.entries,
    allocated: stats.allocatedBytes,
    committed: stats.committedBytes,
    ceiling: stats.ceilingBytes || undefined,
    maxBytes: stats.maxBytes || undefined,
    stripes: stats.stripes,
    hardenedStripes: stats.hardenedStripes,
    slots: stats.tableSlots,
    tombstones: stats.tombstones,
    owned: stats.ownedBytes,
    free: stats.freeBytes,
    pooled: stats.poolFreeBytes,
    recoveries: stats.recoveries,
    dropped: stats.dropped,
    expiring: stats.expiring,
    expirations: stats.expirations,
    writes: stats.writes,
    lock: stats.lockKind === 1 ? "kernel" : "robust",
    created: new Date(stats.createdMs),
    owner: stats.owner,
    state: STATES[stats.state - 1] ?? "live",
    hasOtherWriters: stats.otherWriters === 1,
  };
}

/** Opens the segment `name`. */
export function openSegment(kind: SegmentKind, name: string, options: OpenOptions): Segment {
  const request = requestByName(kind, name, options);
  const library = openNative();
  const directoryLength = DATA.write(request.directory ?? "");
  const nameLength = KEY.write(name);
  const codecLength = CODEC.write(request.codecId);
  const handle = library.shm_segment_open(
    DATA.bytes,
    directoryLength,
    KEY.bytes,
    nameLength,
    CODEC.bytes,
    codecLength,
    flagsOf(request),
    request.permissions,
    request.maxBytes,
    request.timeout,
    FAULT.bytes,
  );
  return opened(library, handle, request, request.mode === "create" ? "create" : "open");
}

/** Makes a segment without a name, which only its token leads to. */
export function anonymousSegment(kind: SegmentKind, options: AnonymousOptions): Segment {
  const request = requestAnonymous(kind, options);
  const library = openNative();
  const codecLength = CODEC.write(request.codecId);
  const handle = library.shm_segment_anonymous(
    CODEC.bytes,
    codecLength,
    flagsOf(request),
    request.maxBytes,
    request.timeout,
    FAULT.bytes,
  );
  return opened(library, handle, request, "create");
}

/** Attaches to the segment that `token` leads to. */
export function attachSegment(kind: SegmentKind, token: string, options: AttachOptions): Segment {
  const request = requestByToken(kind, token, options);
  const library = openNative();
  const tokenLength = DATA.write(token);
  const codecLength = CODEC.write(request.codecId);
  const handle = library.shm_segment_attach(
    DATA.bytes,
    tokenLength,
    CODEC.bytes,
    codecLength,
    flagsOf(request),
    request.timeout,
    FAULT.bytes,
  );
  return opened(library, handle, request, "attach to");
}

function opened(library: Native, handle: number, request: OpenRequest, action: string): Segment {
  const { kind, name, where, timeout, codecId, lock, maxBytes, mode } = request;
  const isThere = mode === "attach";
  const isNamed = name !== undefined;
  const wanted = { kind: `a ${kind.noun}`, codec: codecId, lock, maxBytes, isThere, isNamed };
  checkOpened(handle, action, { thing: labelOf(kind, name), where, timeout, wanted });
  return new Segment(library, handle, request);
}

function flagsOf(request: OpenRequest): number {
  const modes = {
    shared: 0,
    create: flags.modeCreate,
    attach: flags.modeAttach,
    exclusive: flags.modeExclusive,
  };
  return request.kind.flags | modes[request.mode] |
    (request.readonly ? flags.readonly : 0) |
    (request.allowForeignOwner ? flags.allowForeignOwner : 0) |
    (request.lock === undefined ? 0 : flags.lockStated) |
    (request.lock === "kernel" ? flags.lockKernel : 0);
}
