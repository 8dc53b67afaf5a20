/**
 * `Mmap`: a raw region of bytes that processes share, over a file or in memory.
 *
 * @module
 */
import { types } from "node:util";
import { wrongType } from "./arguments.ts";
import type { AsyncLockOptions, Lock, LockOptions, RegionLockOptions } from "./lock/lock.ts";
import { pack, type PackValue, unpack } from "./pack/pack.ts";
import type { AttachOptions } from "./segment/options.ts";
import { headOf, orReason, printBy } from "./segment/printing.ts";
import {
  anonymousRegion,
  attachRegion,
  type MmapOptions,
  openRegion,
  Region,
} from "./segment/region.ts";

/**
 * A raw region of bytes that processes share: a file mapped into memory, or memory without a file.
 * The bytes have no structure. All regions over the same file or memory have one `lock` in common,
 * which protects changes that belong together.
 *
 * Reading and writing copies bytes. Offsets and lengths are whole numbers: an offset outside the
 * region is a `RangeError`, a length beyond its end is cut.
 *
 * Other processes may shorten a file while it is mapped. A copy then ends early or throws
 * `"Corrupt"`; a write into a hole of a file may throw `"NoSpace"`. Neither ends the process.
 *
 * @example Share a file
 * ```ts
 * import { Mmap } from "shmap";
 * import assert from "node:assert/strict";
 * import { rmSync } from "node:fs";
 *
 * const file = "/tmp/shmap-example-mmap";
 * using region = Mmap.open(file, { length: 10_000, protection: "read-write" });
 * using other = Mmap.open(file); // in any process
 * assert.equal(region.write("hello", 100), 5);
 * assert.equal(new TextDecoder().decode(other.read(100, 5)), "hello");
 * rmSync(file);
 * ```
 */
export class Mmap implements Disposable {
  readonly #region: Region;

  static {
    printBy(this.prototype, (object) => {
      if (!(#region in object)) return "Mmap {}"; // the prototype itself
      return orReason("Mmap", () => `${headOf("Mmap", object.length, object.filename)} {}`);
    });
  }

  private constructor(region: Region) {
    if (!(region instanceof Region)) {
      throw new TypeError("Cannot construct Mmap: use open, anonymous or attach");
    }
    this.#region = region;
  }

  /**
   * Maps a file.
   *
   * @param file Its path, its URL, or a file descriptor of this process. The file of a descriptor
   *   is opened once more, so that the descriptor may be closed.
   * @param options How to map it.
   * @returns The region, to be closed after use.
   * @throws {TypeError | RangeError} For a file or an option that is not valid.
   * @throws {SharedMemoryError} `"NotFound"`, `"PermissionDenied"`, `"NoSpace"`; `"Incompatible"`
   *   if it is not a regular file, is empty, or is too short and not written to; `"Unsupported"`
   *   for a descriptor on Windows.
   *
   * @example
   * ```ts
   * import { Mmap } from "shmap";
   * import assert from "node:assert/strict";
   * import { rmSync, writeFileSync } from "node:fs";
   * writeFileSync("/tmp/shmap-example-open", "hello");
   * using region = Mmap.open("/tmp/shmap-example-open");
   * assert.equal(region.length, 5);
   * rmSync("/tmp/shmap-example-open");
   * ```
   */
  static open(file: string | URL | number, options: MmapOptions = {}): Mmap {
    return new Mmap(openRegion(file, options));
  }

  /**
   * Makes a region of zeros in memory, which lives as long as any process has it open.
   *
   * @param length How many bytes.
   * @returns The region; its `token` leads other processes to it.
   * @throws {TypeError | RangeError} For a length that is not valid.
   * @throws {SharedMemoryError} `"NoSpace"` if there is not enough memory.
   *
   * @example
   * ```ts
   * import { Mmap } from "shmap";
   * import assert from "node:assert/strict";
   * using region = Mmap.anonymous(4);
   * assert.deepEqual(region.read(), new Uint8Array(4));
   * ```
   */
  static anonymous(length: number): Mmap {
    return new Mmap(anonymousRegion(length));
  }

  /**
   * Attaches to an anonymous region by its token.
   *
   * @param token The `token` of an open region of this or another process.
   * @param options Whether to accept a region of another user, other than root. Default: no.
   * @returns The region, to be closed after use.
   * @throws {TypeError} If `token` is not a token.
   * @throws {SharedMemoryError} `"NotFound"` if the region it was for is gone, `"Incompatible"` if
   *   it is of a map or a value, `"PermissionDenied"` if it belongs to another user.
   *
   * @example
   * ```ts
   * import { Mmap } from "shmap";
   * import assert from "node:assert/strict";
   * using region = Mmap.anonymous(100);
   * using other = Mmap.attach(region.token); // in any process
   * other.write("hello");
   * assert.equal(new TextDecoder().decode(region.read(0, 5)), "hello");
   * ```
   */
  static attach(token: string, options: Pick<AttachOptions, "allowForeignOwner"> = {}): Mmap {
    return new Mmap(attachRegion(token, options));
  }

  /** A string for `attach`, for as long as this region is open. Only regions in memory have one. */
  get token(): string {
    return this.#region.token;
  }

  /** How many bytes there are. */
  get length(): number {
    this.#region.assertOpen("describe");
    return this.#region.length;
  }

  /** The path of the file as it was given; undefined for a descriptor and in memory. */
  get filename(): string | undefined {
    this.#region.assertOpen("describe");
    return this.#region.source.filename;
  }

  /**
   * A descriptor of the file, for other programs and modules; undefined in memory. The region does
   * not use it: it may be closed at any time, and the next read then opens the file once more.
   * What is still open of it is closed with the region. It is a descriptor of the system: Deno's
   * file functions take only those that Deno has opened.
   */
  get fd(): number | undefined {
    return this.#region.descriptor;
  }

  /** Whether any region over the same bytes holds the lock, this one included. */
  get locked(): boolean {
    this.#region.assertOpen("describe");
    return this.#region.locker.locked;
  }

  /**
   * Copies bytes out.
   *
   * @param offset Where to begin.
   * @param length How many at most. Default: up to the end.
   * @returns The bytes; fewer if the region, or a file that was shortened, ends before.
   * @throws {TypeError | RangeError} For an offset outside the region or a length that is not
   *   valid.
   * @throws {SharedMemoryError} `"WriteOnly"`; `"Corrupt"` if the file ends before `offset`.
   *
   * @example
   * ```ts
   * import { Mmap } from "shmap";
   * import assert from "node:assert/strict";
   * using region = Mmap.anonymous(10);
   * assert.equal(region.read(7).length, 3);
   * assert.throws(() => region.read(10), RangeError);
   * ```
   */
  read(offset: number = 0, length?: number): Uint8Array<ArrayBuffer> {
    const region = this.#region;
    region.assertReadable();
    const room = region.room("read", offset, length);
    const bytes = new Uint8Array(room);
    const copied = region.read(bytes, offset, room);
    return copied === room ? bytes : bytes.slice(0, copied);
  }

  /**
   * Copies bytes out, into an array of the caller.
   *
   * @param target Is filled, as far as there are bytes.
   * @param offset Where to begin in the region.
   * @returns How many bytes; fewer if the region, or a file that was shortened, ends before.
   * @throws {TypeError | RangeError} For an offset outside the region.
   * @throws {SharedMemoryError} `"WriteOnly"`; `"Corrupt"` if the file ends before `offset`.
   *
   * @example
   * ```ts
   * import { Mmap } from "shmap";
   * import assert from "node:assert/strict";
   * using region = Mmap.anonymous(10);
   * assert.equal(region.readInto(new Uint8Array(8), 5), 5);
   * ```
   */
  readInto(target: Uint8Array, offset: number = 0): number {
    const region = this.#region;
    region.assertReadable();
    if (!types.isUint8Array(target)) throw wrongType("target", "a Uint8Array", target);
    return region.read(target, offset, region.room("read", offset));
  }

  /**
   * Copies bytes in.
   *
   * @param data The bytes; a string is written in UTF-8.
   * @param offset Where to begin in the region.
   * @param length How many bytes at most. Default: all.
   * @returns How many bytes; fewer if the region, or a file that was shortened, ends before.
   * @throws {TypeError | RangeError} For an offset outside the region or a length that is not
   *   valid.
   * @throws {SharedMemoryError} `"ReadOnly"`; `"Corrupt"` if the file ends before `offset`;
   *   `"NoSpace"` if the file has a hole there and the disk is full.
   *
   * @example
   * ```ts
   * import { Mmap } from "shmap";
   * import assert from "node:assert/strict";
   * using region = Mmap.anonymous(10);
   * assert.equal(region.write("sixteen bytes...", 5), 5);
   * assert.equal(region.write(new Uint8Array([1, 2, 3]), 0, 2), 2);
   * ```
   */
  write(data: Uint8Array | string, offset: number = 0, length?: number): number {
    const region = this.#region;
    region.assertWritable();
    const room = region.room("write", offset, length);
    if (types.isUint8Array(data)) return region.write(data, offset, room);
    if (typeof data !== "string") throw wrongType("data", "a string or a Uint8Array", data);
    return region.writeText(data, offset, room);
  }

  /**
   * Packs values by a template, as the function `pack`, and writes them.
   *
   * @param offset Where to begin in the region.
   * @param template How to pack each value.
   * @param values The values.
   * @returns How many bytes; fewer than the template makes if the region ends before.
   * @throws {SyntaxError | TypeError | RangeError} For a template or values that are not valid.
   * @throws {SharedMemoryError} As `write`.
   *
   * @example
   * ```ts
   * import { Mmap } from "shmap";
   * import assert from "node:assert/strict";
   * using region = Mmap.anonymous(100);
   * assert.equal(region.pack(10, "l n a4", -1, 513, "text"), 10);
   * assert.deepEqual(region.unpack(10, 10, "l n a4"), [-1, 513, "text"]);
   * ```
   */
  pack(offset: number, template: string, ...values: PackValue[]): number {
    const region = this.#region;
    region.assertWritable();
    const room = region.room("write", offset);
    return region.write(pack(template, ...values), offset, room);
  }

  /**
   * Reads bytes and unpacks them by a template, as the function `unpack`.
   *
   * @param offset Where to begin in the region.
   * @param length How many bytes at most.
   * @param template How to unpack them.
   * @returns The values.
   * @throws {SyntaxError | TypeError | RangeError} For a template that is not valid.
   * @throws {SharedMemoryError} As `read`.
   *
   * @example
   * ```ts
   * import { Mmap } from "shmap";
   * import assert from "node:assert/strict";
   * using region = Mmap.anonymous(100);
   * region.write(new Uint8Array([1, 2, 0, 0]));
   * assert.deepEqual(region.unpack(0, 4, "C n x"), [1, 512]);
   * ```
   */
  unpack(offset: number, length: number, template: string): (string | number | bigint)[] {
    return unpack(template, this.read(offset, length));
  }

  /**
   * Waits for the lock, blocking this thread. All regions over the same file or memory, in all
   * processes, have one lock in common. It keeps them from locking, not from reading and writing.
   *
   * @param options How to wait, and for which lock.
   * @returns The lock. Over a user's file its `recovered` is always false.
   * @throws {SharedMemoryError} `"Timeout"`; `"Locked"` if this isolate itself has it; `"ReadOnly"`
   *   for an exclusive lock of a region that does not write to its file.
   *
   * @example
   * ```ts
   * import { Mmap } from "shmap";
   * import assert from "node:assert/strict";
   * using region = Mmap.anonymous(8);
   * {
   *   using _lock = region.lock({ timeout: 1000 });
   *   const [count] = region.unpack(0, 4, "L") as [number];
   *   region.pack(0, "L", count + 1); // no other process counts in between
   * }
   * assert.equal(region.locked, false);
   * ```
   */
  lock(options: LockOptions & RegionLockOptions = {}): Lock {
    return this.#region.locker.lock(options);
  }

  /**
   * Takes the lock if it is free and no task of this isolate waits for it.
   *
   * @param options Which lock.
   * @returns The lock, or undefined.
   * @throws {SharedMemoryError} `"ReadOnly"` as for `lock`.
   *
   * @example
   * ```ts
   * import { Mmap } from "shmap";
   * import assert from "node:assert/strict";
   * using region = Mmap.anonymous(8);
   * using lock = region.tryLock();
   * assert.ok(lock);
   * assert.equal(region.tryLock(), undefined);
   * ```
   */
  tryLock(options: RegionLockOptions = {}): Lock | undefined {
    return this.#region.locker.tryLock(options);
  }

  /**
   * Waits for the lock without blocking.
   *
   * @param options How to wait, and for which lock.
   * @returns A promise of the lock, which fails as `lock` does, or with the signal's reason.
   *
   * @example
   * ```ts
   * import { Mmap } from "shmap";
   * import assert from "node:assert/strict";
   * using region = Mmap.anonymous(8);
   * using lock = await region.lockAsync({ timeout: 1000 });
   * assert.equal(lock.recovered, false);
   * ```
   */
  lockAsync(options: AsyncLockOptions & RegionLockOptions = {}): Promise<Lock> {
    return this.#region.locker.lockAsync(options);
  }

  /**
   * Returns when all that was written so far has reached the disk. Other processes see it without
   * this.
   *
   * @throws {SharedMemoryError} `"Corrupt"` if the file was shortened.
   */
  flush(): void {
    this.#region.flush();
  }

  /**
   * Closes this region and releases its lock. Every later call throws `"Closed"`; closing twice
   * does nothing.
   */
  unmap(): void {
    this.#region.close();
  }

  /** The same as `unmap`. */
  close(): void {
    this.#region.close();
  }

  /** Closes this region at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.#region.close();
  }
}
