/**
 * A library in a file that exists in memory only, on Linux: nothing is written to a disk, so that
 * the permission to load libraries is the only one it takes, and a read-only system will do.
 *
 * The file has a descriptor and no name. It is found again by what the kernel says it was made as,
 * trusted when it is sealed and its bytes are right, and never closed: the linker takes two
 * libraries of one path for the same, so no other file may ever come by this descriptor's path.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import process from "node:process";
import type { Backend } from "./backend.ts";

/** What is used of the C library. */
const LIBC = {
  close: { args: ["i32"], returns: "i32" },
  fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
  memfd_create: { args: ["bytes", "u32"], returns: "i32" },
  openat: { args: ["i32", "bytes", "i32"], returns: "i32" },
  pread: { args: ["i32", "bytes", "size", "size"], returns: "size" },
  readlink: { args: ["bytes", "bytes", "size"], returns: "size" },
  syscall: { args: ["size", "size", "bytes", "size"], returns: "size" },
  write: { args: ["i32", "bytes", "size"], returns: "size" },
} as const;

type Libc = Record<keyof typeof LIBC, (...args: (number | Uint8Array)[]) => number | bigint>;

/**
 * Where the C library may be. The first is found by the linker, also under musl, whose linker takes
 * any such name for itself; but Deno takes it for a file of the working directory, unless the
 * program may load everything. The others are for programs that may load some paths only.
 */
const LIBC_PATHS: readonly string[] = [
  "libc.so.6",
  "/lib/x86_64-linux-gnu/libc.so.6",
  "/lib/aarch64-linux-gnu/libc.so.6",
  "/lib64/libc.so.6",
  "/usr/lib64/libc.so.6",
  "/usr/lib/libc.so.6",
  "/lib/libc.so.6",
  "/lib/ld-musl-x86_64.so.1",
  "/lib/ld-musl-aarch64.so.1",
];

/** Numbers of the kernel, the same on both processors unless said otherwise. */
const AT_FDCWD = -100;
const O_CLOEXEC = 0o2000000;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_NOEXEC_SEAL = 8;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
/** Against more seals, shrinking, growing and writing. */
const SEALS = 0xf;
const SYS_GETDENTS64: Readonly<Record<string, number>> = { x64: 217, arm64: 61 };

const CHUNK_BYTES = 32 * 1024;
const DESCRIPTORS = "/proc/self/fd";

/**
 * The path of a memory file that holds the library of this hash: one that this process has, be it
 * another Worker's, or else a new one of the bytes that `decode` gives. Throws when none can be.
 */
export function memoryFile(backend: Backend, sha256: string, decode: () => Uint8Array): string {
  const libc = openLibc(backend);
  const name = `shmap-${sha256.slice(0, 32)}`;
  const file = find(libc, name, sha256) ?? create(libc, name, sha256, decode());
  return pathOf(libc, name, file);
}

function openLibc(backend: Backend): Libc {
  let reason: unknown = "the program may not load the C library";
  for (const path of LIBC_PATHS) {
    if (!(path.startsWith("/") ? backend.mayLoad(path) : backend.mayLoad())) continue;
    try {
      return backend.open(path, LIBC) as Libc;
    } catch (error) {
      reason = error;
    }
  }
  throw reason instanceof Error ? reason : new Error(`${reason}`);
}

/** A finished memory file of this process, the one with the lowest descriptor. */
function find(libc: Libc, name: string, sha256: string): number | undefined {
  return descriptors(libc).sort((a, b) => a - b).find((file) =>
    leadsTo(libc, `${DESCRIPTORS}/${file}`, name) && isSealed(libc, file) &&
    hashOf(libc, file) === sha256
  );
}

/** The numbers of all open descriptors. */
function descriptors(libc: Libc): number[] {
  const directory = Number(libc.openat(AT_FDCWD, text(DESCRIPTORS), O_CLOEXEC));
  if (directory < 0) throw new Error(`there is no ${DESCRIPTORS}`);
  const found: number[] = [];
  const chunk = Buffer.alloc(CHUNK_BYTES);
  for (;;) {
    const length = Number(
      libc.syscall(SYS_GETDENTS64[process.arch], directory, chunk, CHUNK_BYTES),
    );
    if (length <= 0) break;
    // Each entry: inode and position, 8 bytes each, its length in 2, its type in 1, its name.
    for (let at = 0; at < length; at += chunk.readUInt16LE(at + 16)) {
      const file = chunk.toString("latin1", at + 19, chunk.indexOf(0, at + 19));
      if (/^\d+$/.test(file)) found.push(Number(file));
    }
  }
  libc.close(directory);
  return found;
}

/** Whether `path` is a link to a memory file made with this name. */
function leadsTo(libc: Libc, path: string, name: string): boolean {
  const target = Buffer.alloc(128);
  const length = Number(libc.readlink(text(path), target, target.length));
  return length > 0 && target.toString("latin1", 0, length) === `/memfd:${name} (deleted)`;
}

/** Whether nobody can change the file any more. */
function isSealed(libc: Libc, file: number): boolean {
  const seals = Number(libc.fcntl(file, F_GET_SEALS, 0));
  return seals > 0 && (seals & SEALS) === SEALS;
}

function hashOf(libc: Libc, file: number): string {
  const hash = createHash("sha256");
  const chunk = Buffer.alloc(CHUNK_BYTES);
  for (let offset = 0;;) {
    const length = Number(libc.pread(file, chunk, chunk.length, offset));
    if (length <= 0) return hash.digest("hex");
    hash.update(chunk.subarray(0, length));
    offset += length;
  }
}

function create(libc: Libc, name: string, sha256: string, bytes: Uint8Array): number {
  const flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  // Some systems make none that could be executed as a program; older ones do not know the word.
  let file = Number(libc.memfd_create(text(name), flags | MFD_NOEXEC_SEAL));
  if (file < 0) file = Number(libc.memfd_create(text(name), flags));
  if (file < 0) throw new Error("the system makes no memory file");
  try {
    for (let offset = 0; offset < bytes.length;) {
      const written = Number(libc.write(file, bytes.subarray(offset), bytes.length - offset));
      if (written <= 0) throw new Error("the system has no room for a memory file");
      offset += written;
    }
    // Another Worker may have been faster. Once this file is sealed others rely on it, so that it
    // stays: those that are sealed at the same instant all do, which costs memory and no more.
    const earlier = find(libc, name, sha256);
    if (earlier !== undefined) {
      libc.close(file);
      return earlier;
    }
    if (Number(libc.fcntl(file, F_ADD_SEALS, SEALS)) < 0) throw new Error("it cannot be sealed");
    return file;
  } catch (error) {
    libc.close(file);
    throw error;
  }
}

/**
 * The path by which the linker knows the file. With the number of the process, because a program
 * may have loaded, and closed, another library as descriptor of the same number of "self".
 */
function pathOf(libc: Libc, name: string, file: number): string {
  const path = `/proc/${process.pid}/fd/${file}`;
  // In a PID namespace with another's /proc, the number is somebody else's.
  return leadsTo(libc, path, name) ? path : `${DESCRIPTORS}/${file}`;
}

/** `string` as C has it. */
function text(string: string): Uint8Array {
  return Buffer.from(`${string}\0`, "latin1");
}
