/**
 * Puts the library into a memory file (`memfd_create`), on Linux: nothing is written to a disk. So
 * loading needs no permission besides the one to load libraries, and works on a read-only system.
 *
 * A memory file has a descriptor and no path. Workers find it by the label that `/proc` shows, and
 * trust it if it is sealed and its bytes have the right hash. It is never closed: the linker takes
 * two libraries of one path for the same, and the path of the file contains its descriptor.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import process from "node:process";
import type { Backend } from "./backend.ts";

/** The part of the C library used here. */
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
 * Where the C library may be. The linker finds the first, also under musl, whose linker takes any
 * such name for itself. But unless the program may load any library, Deno takes it for a file of
 * the working directory: the others are for programs that may load some paths only.
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

/** Constants of the kernel, the same on both processors except where a table has both. */
const AT_FDCWD = -100;
const O_CLOEXEC = 0o2000000;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_NOEXEC_SEAL = 8;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
/** All seals: against more seals, shrinking, growing and writing. */
const SEALS = 0xf;
const SYS_GETDENTS64: Readonly<Record<string, number>> = { x64: 217, arm64: 61 };

const CHUNK_BYTES = 32 * 1024;
const DESCRIPTORS = "/proc/self/fd";

/**
 * The path of a memory file with the library of this hash: one that this process already has,
 * perhaps made by another Worker, or a new one with the bytes that `decode` gives. Throws if the
 * system makes none.
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

/** The descriptor of a finished memory file of this process, the lowest if there are several. */
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
    // An entry: inode and position (8 bytes each), its length (2), its type (1), its name.
    for (let at = 0; at < length; at += chunk.readUInt16LE(at + 16)) {
      const file = chunk.toString("latin1", at + 19, chunk.indexOf(0, at + 19));
      if (/^\d+$/.test(file)) found.push(Number(file));
    }
  }
  libc.close(directory);
  return found;
}

/** Whether `path` is a link to a memory file with this label. */
function leadsTo(libc: Libc, path: string, name: string): boolean {
  const target = Buffer.alloc(128);
  const length = Number(libc.readlink(text(path), target, target.length));
  return length > 0 && target.toString("latin1", 0, length) === `/memfd:${name} (deleted)`;
}

/** Whether the file can no longer be changed. */
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
  // Some systems refuse a file that could be executed as a program; older ones refuse the flag.
  let file = Number(libc.memfd_create(text(name), flags | MFD_NOEXEC_SEAL));
  if (file < 0) file = Number(libc.memfd_create(text(name), flags));
  if (file < 0) throw new Error("the system makes no memory file");
  try {
    for (let offset = 0; offset < bytes.length;) {
      const written = Number(libc.write(file, bytes.subarray(offset), bytes.length - offset));
      if (written <= 0) throw new Error("the system has no room for a memory file");
      offset += written;
    }
    // Another Worker may have been faster. Once sealed, a file is never closed, because Workers may
    // already use it. So files sealed at the same instant all stay, which only costs memory.
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
 * The path by which the linker knows the file. It contains the process id, because a program may
 * have loaded another library from `/proc/self/fd` under the same descriptor, and closed that.
 */
function pathOf(libc: Libc, name: string, file: number): string {
  const path = `/proc/${process.pid}/fd/${file}`;
  // In a PID namespace with the /proc of another one, the id may be of another process.
  return leadsTo(libc, path, name) ? path : `${DESCRIPTORS}/${file}`;
}

/** `string` as C expects it: bytes, then a zero. */
function text(string: string): Uint8Array {
  return Buffer.from(`${string}\0`, "latin1");
}
