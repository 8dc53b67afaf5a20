/**
 * What is behind an `Mmap`: how a region is opened and closed, its checks, its copies, and its
 * failures.
 */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { type Attempt, failure, SharedMemoryError } from "../errors.ts";
import { type Lockable, Locker } from "../lock/lock.ts";
import { DATA, FAULT, flags, mayAccess, type Native, native, openNative } from "../ffi/native.ts";
import {
  checkInteger,
  checkObject,
  checkToken,
  checkType,
  checkWord,
  DEFAULT_TIMEOUT,
} from "./options.ts";

export { wrongType } from "./options.ts";

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
   * How many bytes, from the start of the file. Default, and the meaning of 0: as many as it has. A
   * shorter file is made longer if the region writes to it; a missing one is created then.
   */
  length?: number;
  /** What the region is for. Default: `"read"`. */
  protection?: "read" | "write" | "read-write";
  /** Whether writes reach the file and others, or are seen by this region only. */
  sharing?: "shared" | "private";
}

/** The getters of every typed array: an object made to deceive has its own `length` besides. */
const VIEW = Object.getPrototypeOf(Uint8Array.prototype);
const [bufferOf, offsetOf, lengthOf] = ["buffer", "byteOffset", "byteLength"].map((name) =>
  Object.getOwnPropertyDescriptor(VIEW, name)!.get!
);

/** Larger copies are made in pieces, for lengths cross as 32 bits. */
const PIECE_BYTES = 2 ** 28;
const DESCRIPTOR_MAX = 2 ** 31 - 1;

/** What the message of a failure says besides what the library knows. */
type FailureDetails = Pick<Attempt, "timeout" | "holder">;

/** Closes what was forgotten. Held values are handles: a collected object has none to give. */
const forgotten = new FinalizationRegistry<number>((handle) => {
  native().shm_region_close(handle);
});

/** What is mapped, and for what. */
interface Source {
  /** As messages name it: `region "data.bin"`. */
  readonly label: string;
  /** The directory, where it is known. */
  readonly where: string;
  /** The path, or the descriptor in words; undefined in memory. */
  readonly file: string | undefined;
  /** The path as it was given. */
  readonly filename: string | undefined;
  readonly canRead: boolean;
  readonly canWrite: boolean;
  /** Whether the file itself was opened for writing. */
  readonly isWritten: boolean;
}

/** One open handle, and everything that outlives the public object. */
export class Region implements Lockable {
  readonly native: Native;
  readonly source: Source;
  readonly length: number;
  readonly timeout = DEFAULT_TIMEOUT;
  readonly locker: Locker;
  /** Zero once closed, which the library refuses. */
  handle: number;

  constructor(library: Native, handle: number, source: Source) {
    this.native = library;
    this.handle = handle;
    this.source = source;
    this.length = library.shm_region_length(handle);
    this.locker = new Locker(this, !source.isWritten);
    forgotten.register(this, handle, this);
  }

  /** The error for a negative result of a call that was to do `action`. */
  failure(status: number, action: string, details: FailureDetails = {}): Error {
    if (this.handle === 0) return this.#refusal("Closed", action, "it is closed");
    FAULT.bytes.fill(0);
    this.native.shm_fault(this.handle, FAULT.bytes);
    return openFailure(status, this.source, { action, ...details });
  }

  assertOpen(action: string): void {
    if (this.handle === 0) throw this.#refusal("Closed", action, "it is closed");
  }

  assertReadable(): void {
    this.assertOpen("read");
    if (this.source.canRead) return;
    throw this.#refusal("WriteOnly", "read", "Invalid access on write-only region");
  }

  assertWritable(): void {
    this.assertOpen("write");
    if (this.source.canWrite) return;
    throw this.#refusal("ReadOnly", "write", "Invalid access on read-only region");
  }

  assertLockable(action: string, shared: number): void {
    this.assertOpen(action);
    if (shared === 1 || this.source.isWritten) return;
    const why = "Invalid access on read-only region; only a shared lock can be had";
    throw this.#refusal("ReadOnly", action, why);
  }

  #refusal(code: "Closed" | "ReadOnly" | "WriteOnly", action: string, why: string): Error {
    return new SharedMemoryError(code, `Cannot ${action} ${this.source.label}: ${why}`);
  }

  get token(): string {
    this.assertOpen("identify");
    if (this.source.file !== undefined) {
      const why = "it is over a file, and only regions in memory have a token";
      throw new SharedMemoryError("Unsupported", `Cannot identify ${this.source.label}: ${why}`);
    }
    const length = this.native.shm_region_token(this.handle, DATA.bytes, DATA.bytes.length);
    if (length < 0) throw this.failure(length, "identify");
    return DATA.text.latin1Slice(0, length);
  }

  get descriptor(): number | undefined {
    this.assertOpen("describe");
    if (this.source.file === undefined) return undefined;
    return this.native.shm_region_descriptor(this.handle);
  }

  /** How many of `length` bytes there are from `offset` on. Throws unless that is in the region. */
  room(action: "read" | "write", offset: number, length = Number.MAX_SAFE_INTEGER): number {
    checkType("offset", offset, "number");
    checkType("length", length, "number");
    const cannot = `Cannot ${action} ${this.source.label}`;
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

  /** Copies out as much as `room` allows and `target` has; less if its file is shorter by now. */
  read(target: Uint8Array, offset: number, room: number): number {
    return this.#inPieces("read", target, room, (piece, done, size) => {
      return this.native.shm_region_read(this.handle, offset + done, piece, size);
    });
  }

  /** Copies in as much as `room` allows and `bytes` has; less if its file is shorter by now. */
  write(bytes: Uint8Array, offset: number, room: number): number {
    return this.#inPieces("write", bytes, room, (piece, done, size) => {
      return this.native.shm_region_write(this.handle, offset + done, piece, size);
    });
  }

  /** As `write`, for a string in UTF-8. */
  writeText(text: string, offset: number, room: number): number {
    // A character more, for the last one may be half of two that belong together.
    const length = DATA.write(text.slice(0, room + 1));
    try {
      return this.write(DATA.bytes, offset, Math.min(room, length));
    } finally {
      DATA.release();
    }
  }

  /** Calls `copy` for one piece after the other until one is short. */
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

  close(): void {
    const { handle } = this;
    if (handle === 0) return;
    this.handle = 0;
    forgotten.unregister(this);
    this.native.shm_region_close(handle);
    this.locker.closed();
  }
}

function pieceOf(bytes: Uint8Array, start: number, length: number): Uint8Array {
  return new Uint8Array(bufferOf.call(bytes), offsetOf.call(bytes) + start, length);
}

/** A region in memory: it may do everything, and there is nothing to name it by. */
const MEMORY: Source = {
  label: "anonymous region",
  where: "memory",
  file: undefined,
  filename: undefined,
  canRead: true,
  canWrite: true,
  isWritten: true,
};

/** Maps a file. */
export function openRegion(file: string | URL | number, options: MmapOptions): Region {
  const { length, protection = "read", sharing = "shared" } = checkObject(options);
  const bytes = checkInteger("length", length, 0) ?? 0;
  checkWord("protection", protection, ["read", "write", "read-write"]);
  checkWord("sharing", sharing, ["shared", "private"]);
  const place = typeof file === "number" ? descriptorPlace(file) : pathPlace(file);
  const canRead = protection !== "write";
  const canWrite = protection !== "read";
  const isWritten = canWrite && sharing === "shared";
  const source = { ...place, canRead, canWrite, isWritten };
  if (place.filename !== undefined) checkAccess(source);
  const library = openNative();
  const pathLength = DATA.write(place.filename ?? "");
  const handle = library.shm_region_open(
    DATA.bytes,
    pathLength,
    place.descriptor,
    bytes,
    (canRead ? flags.regionRead : 0) | (canWrite ? flags.regionWrite : 0) |
      (sharing === "private" ? flags.regionPrivate : 0) |
      (place.filename === undefined ? flags.regionDescriptor : 0),
    FAULT.bytes,
  );
  DATA.release();
  return opened(library, handle, source, "open");
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
export function attachRegion(token: string): Region {
  checkToken(token);
  const library = openNative();
  const length = DATA.write(token);
  const handle = library.shm_region_attach(DATA.bytes, length, FAULT.bytes);
  return opened(library, handle, MEMORY, "attach to");
}

function opened(library: Native, handle: number, source: Source, action: string): Region {
  if (handle > 0) return new Region(library, handle, source);
  throw openFailure(handle, source, { action });
}

function openFailure(
  status: number,
  { label, where, file }: Source,
  details: FailureDetails & { action: string },
): Error {
  const attempt = { thing: label, where, file, wanted: { kind: "a region" }, ...details };
  return failure(status, attempt, FAULT.bytes);
}

type Place = Pick<Source, "label" | "where" | "file" | "filename"> & { descriptor: number };

function descriptorPlace(descriptor: number): Place {
  if (!Number.isInteger(descriptor) || descriptor < 0 || descriptor > DESCRIPTOR_MAX) {
    throw new RangeError(`Cannot open region: ${descriptor} is no file descriptor`);
  }
  const file = `descriptor ${descriptor}`;
  const where = "its file system";
  const label = `region over ${file}`;
  return { label, where, file, filename: undefined, descriptor: descriptor + 0 }; // never -0
}

function pathPlace(file: string | URL): Place {
  const path = file instanceof URL ? fileURLToPath(file) : file;
  if (typeof path !== "string" || path === "") {
    throw new TypeError("Cannot open region: No filename or filehandle provided.");
  }
  if (path.includes("\0") || !path.isWellFormed()) {
    throw new TypeError(`Cannot open region: ${JSON.stringify(path)} cannot be a path`);
  }
  const label = `region "${path}"`;
  return { label, where: dirname(path), file: path, filename: path, descriptor: 0 };
}

/** Full trust in the library aside, a path is only used as the program's permissions say. */
function checkAccess({ label, filename, canRead, isWritten }: Source): void {
  const access = [...(canRead || !isWritten ? ["read"] : []), ...(isWritten ? ["write"] : [])];
  const missing = (access as ("read" | "write")[]).find((kind) => !mayAccess(filename!, kind));
  if (missing === undefined) return;
  throw new SharedMemoryError(
    "PermissionDenied",
    `Cannot open ${label}: Can't open ${filename}: run with --allow-${missing}=${filename}`,
  );
}
