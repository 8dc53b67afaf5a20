/**
 * Regions, the raw bytes behind an `Mmap`: opening one over a file, in memory or by a token, and
 * copying bytes in and out.
 */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import {
  bufferOf,
  checkInteger,
  checkOptions,
  checkType,
  checkWord,
  lengthOf,
  offsetOf,
} from "../arguments.ts";
import { flags } from "../ffi/abi.ts";
import type { Access } from "../ffi/backend.ts";
import { checkAccess, type Native, openNative } from "../ffi/native.ts";
import { DATA, FAULT } from "../ffi/scratch.ts";
import { checkOpened, Handle, type HandleCalls, type Subject } from "./handle.ts";
import { type AttachOptions, checkToken } from "./options.ts";

/**
 * How to map a file.
 *
 * @example
 * ```ts
 * import { Mmap, type MmapOptions } from "shmap";
 * import assert from "node:assert/strict";
 * import { rmSync } from "node:fs";
 * const options: MmapOptions = { length: 100, protection: "read-write", sharing: "shared" };
 * using region = Mmap.open("/tmp/shmap-example-mmap-options", options);
 * assert.equal(region.length, 100);
 * rmSync("/tmp/shmap-example-mmap-options");
 * ```
 */
export interface MmapOptions {
  /**
   * How many bytes, from the start of the file. Default, and the meaning of 0: the whole file. If
   * the region writes to the file, a shorter file is made longer, and a missing one is created.
   */
  length?: number | undefined;
  /** What the region is for. Default: `"read"`. */
  protection?: "read" | "write" | "read-write" | undefined;
  /** Whether writes reach the file and other processes, or stay in this region. */
  sharing?: "shared" | "private" | undefined;
}

/** Larger copies are made in pieces, for lengths cross as 32 bits. */
const PIECE_BYTES = 2 ** 28;
const DESCRIPTOR_MAX = 2 ** 31 - 1;

/** What a region maps, and what it may do with it. */
interface Source {
  readonly subject: Subject;
  /** The path of the file as it was given; undefined for a descriptor, and in memory. */
  readonly filename: string | undefined;
  readonly canRead: boolean;
  readonly canWrite: boolean;
  /** Whether writes reach the file: whether it was opened for writing. */
  readonly isWritten: boolean;
}

const CALLS: HandleCalls = { close: "shm_region_close", token: "shm_region_token" };

/** One open region. */
export class Region extends Handle {
  readonly source: Source;
  readonly length: number;

  constructor(library: Native, handle: number, source: Source) {
    super(library, handle, CALLS, source.subject, !source.isWritten);
    this.source = source;
    this.length = library.shm_region_length(handle);
  }

  /** Throws unless open for reading. */
  assertReadable(): void {
    this.assertOpen("read");
    if (this.source.canRead) return;
    throw this.refusal("WriteOnly", "read", "Invalid access on write-only region");
  }

  /** Throws unless open for writing. */
  assertWritable(): void {
    this.assertOpen("write");
    if (this.source.canWrite) return;
    throw this.refusal("ReadOnly", "write", "Invalid access on read-only region");
  }

  override assertLockable(action: string, shared: number): void {
    this.assertOpen(action);
    if (shared === 1 || this.source.isWritten) return;
    const why = "Invalid access on read-only region; only a shared lock can be had";
    throw this.refusal("ReadOnly", action, why);
  }

  /** The token of a region in memory. Throws "Unsupported" for a region over a file. */
  override get token(): string {
    this.assertOpen("identify");
    if (this.source === MEMORY) return super.token;
    const why = "it is over a file, and only regions in memory have a token";
    throw this.refusal("Unsupported", "identify", why);
  }

  /** A descriptor of the file that is the caller's to use and to close; undefined in memory. */
  get descriptor(): number | undefined {
    this.assertOpen("describe");
    if (this.source === MEMORY) return undefined;
    const result = this.native.shm_region_descriptor(this.handle);
    if (result < 0) throw this.failure(result, "describe");
    return result;
  }

  /** How many of `length` bytes the region has from `offset` on. Throws for an offset outside. */
  room(action: "read" | "write", offset: number, length = Number.MAX_SAFE_INTEGER): number {
    checkType("offset", offset, "number");
    checkType("length", length, "number");
    const cannot = `Cannot ${action} ${this.label}`;
    if (!Number.isSafeInteger(offset) || offset < 0) {
      throw new RangeError(`${cannot} at offset ${offset}: it is a whole number from 0`);
    }
    if (!Number.isSafeInteger(length) || length < 0) {
      throw new RangeError(`${cannot}: its length ${length} is a whole number from 0`);
    }
    if (offset < this.length) return Math.min(length, this.length - offset);
    const why = `offset exceeds region length ${this.length}`;
    throw new RangeError(`${cannot} at offset ${offset}: ${action} failed: ${why}`);
  }

  /** Copies out what `room` and `target` allow. Less if the file is shorter by now. */
  read(target: Uint8Array, offset: number, room: number): number {
    return this.#inPieces("read", target, room, (piece, done, size) => {
      return this.native.shm_region_read(this.handle, offset + done, piece, size);
    });
  }

  /** Copies in what `room` and `bytes` allow. Less if the file is shorter by now. */
  write(bytes: Uint8Array, offset: number, room: number): number {
    return this.#inPieces("write", bytes, room, (piece, done, size) => {
      return this.native.shm_region_write(this.handle, offset + done, piece, size);
    });
  }

  /** As `write`, for a string in UTF-8. */
  writeText(text: string, offset: number, room: number): number {
    // One code unit more, so that a surrogate pair at the end is not cut in two.
    const length = DATA.write(text.slice(0, room + 1));
    try {
      return this.write(DATA.bytes, offset, Math.min(room, length));
    } finally {
      DATA.release();
    }
  }

  /** Calls `copy` for one piece after the other, until one is copied in part or not at all. */
  #inPieces(
    action: string,
    bytes: Uint8Array,
    room: number,
    copy: (piece: Uint8Array, done: number, size: number) => number,
  ): number {
    const length = Math.min(room, lengthOf.call(bytes));
    let done = 0;
    while (done < length) {
      const size = Math.min(length - done, PIECE_BYTES);
      const copied = copy(done === 0 ? bytes : pieceOf(bytes, done, size), done, size);
      if (copied < 0 && done === 0) throw this.failure(copied, action);
      if (copied > 0) done += copied;
      if (copied < size) break;
    }
    return done;
  }

  flush(): void {
    this.assertOpen("flush");
    const result = this.native.shm_region_flush(this.handle);
    if (result < 0) throw this.failure(result, "flush");
  }
}

function pieceOf(bytes: Uint8Array, start: number, length: number): Uint8Array {
  return new Uint8Array(bufferOf.call(bytes), offsetOf.call(bytes) + start, length);
}

/** What messages say an open looked for. */
const WANTED = { kind: "a region" };

/** Memory without a file: it may be read and written, and no name leads to it. */
const MEMORY: Source = {
  subject: { thing: "anonymous region", where: "memory", wanted: WANTED },
  filename: undefined,
  canRead: true,
  canWrite: true,
  isWritten: true,
};

/** Opens a region over a file. */
export function openRegion(file: string | URL | number, options: MmapOptions): Region {
  const names: (keyof MmapOptions)[] = ["length", "protection", "sharing"];
  const { length, protection = "read", sharing = "shared" } = checkOptions(options, names);
  const bytes = checkInteger("length", length, 0) ?? 0;
  checkWord("protection", protection, ["read", "write", "read-write"]);
  checkWord("sharing", sharing, ["shared", "private"]);
  const target = typeof file === "number" ? targetOfDescriptor(file) : targetOfPath(file);
  const { subject, filename } = target;
  const canRead = protection !== "write";
  const canWrite = protection !== "read";
  const isWritten = canWrite && sharing === "shared";
  if (filename !== undefined) {
    const access: Access[] = [];
    if (canRead || !isWritten) access.push("read");
    if (isWritten) access.push("write");
    checkAccess(filename, access, `Cannot open ${subject.thing}: Can't open ${filename}`);
  }
  const library = openNative();
  const pathLength = DATA.write(filename ?? "");
  const handle = library.shm_region_open(
    DATA.bytes,
    pathLength,
    target.descriptor,
    bytes,
    (canRead ? flags.regionRead : 0) | (canWrite ? flags.regionWrite : 0) |
      (sharing === "private" ? flags.regionPrivate : 0) |
      (filename === undefined ? flags.regionDescriptor : 0),
    FAULT.bytes,
  );
  DATA.release();
  return opened(library, handle, { subject, filename, canRead, canWrite, isWritten }, "open");
}

/** Makes a region in memory. */
export function anonymousRegion(length: number): Region {
  const missing = "Cannot create anonymous region: MAP_ANON specified, but no length specified";
  if (length === undefined) throw new TypeError(missing);
  if (length === 0) throw new RangeError(missing);
  checkInteger("length", length, 1);
  const library = openNative();
  return opened(library, library.shm_region_anonymous(length, FAULT.bytes), MEMORY, "create");
}

/** Attaches to a region in memory. */
export function attachRegion(
  token: string,
  options: Pick<AttachOptions, "allowForeignOwner">,
): Region {
  checkToken(token);
  const { allowForeignOwner = false } = checkOptions(options, ["allowForeignOwner"]);
  checkType("allowForeignOwner", allowForeignOwner, "boolean");
  const library = openNative();
  const length = DATA.write(token);
  const bits = allowForeignOwner ? flags.allowForeignOwner : 0;
  const handle = library.shm_region_attach(DATA.bytes, length, bits, FAULT.bytes);
  return opened(library, handle, MEMORY, "attach to");
}

function opened(library: Native, handle: number, source: Source, action: string): Region {
  return new Region(library, checkOpened(handle, action, source.subject), source);
}

/** What is to be mapped: a path, or a descriptor, which is 0 for a path. */
interface Target {
  readonly subject: Subject;
  readonly filename: string | undefined;
  readonly descriptor: number;
}

function targetOfDescriptor(descriptor: number): Target {
  if (!Number.isInteger(descriptor) || descriptor < 0 || descriptor > DESCRIPTOR_MAX) {
    throw new RangeError(`Cannot open region: ${descriptor} is no file descriptor`);
  }
  const file = `descriptor ${descriptor}`;
  const subject = { thing: `region over ${file}`, where: "its file system", file, wanted: WANTED };
  return { subject, filename: undefined, descriptor: descriptor + 0 }; // never -0
}

function targetOfPath(file: string | URL): Target {
  const path = file instanceof URL ? fileURLToPath(file) : file;
  if (typeof path !== "string" || path === "") {
    throw new TypeError("Cannot open region: No filename or filehandle provided.");
  }
  if (path.includes("\0") || !path.isWellFormed()) {
    throw new TypeError(`Cannot open region: ${JSON.stringify(path)} cannot be a path`);
  }
  const subject = { thing: `region "${path}"`, where: dirname(path), file: path, wanted: WANTED };
  return { subject, filename: path, descriptor: 0 };
}
