/**
 * Puts the library into a file of the user's cache, for systems that open libraries from files
 * only.
 *
 * The file is named after the hash of its bytes and lies in a directory that only this user can
 * write to. Its bytes are hashed before each load: a file that differs is replaced, and if that
 * fails it is not loaded. A file gets its name by a rename, so no process sees it half written.
 */
import { Buffer } from "node:buffer";
import { createHash, randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { isAbsolute, join } from "node:path";
import process from "node:process";
import type { Backend } from "./backend.ts";

const EXTENSIONS: Readonly<Record<string, string>> = { darwin: "dylib", win32: "dll" };
const isWindows = process.platform === "win32";
/** The mode bits that let others than the owner write. */
const OTHERS_WRITE = 0o022;

/** An environment variable, and the path of the cache below the directory it names. */
type Location = readonly [variable: string, ...below: string[]];

const LOCATIONS: Readonly<Record<string, readonly Location[]>> = {
  darwin: [["HOME", "Library", "Caches", "shmap"], ["TMPDIR", "shmap"]],
  win32: [["LOCALAPPDATA", "shmap"], ["TEMP", "shmap"]],
};
const UNIX_LOCATIONS: readonly Location[] = [
  ["XDG_CACHE_HOME", "shmap"],
  ["HOME", ".cache", "shmap"],
  ["XDG_RUNTIME_DIR", "shmap"],
  ["TMPDIR", "shmap"],
];

const locations = LOCATIONS[process.platform] ?? UNIX_LOCATIONS;

/** The variables of which at least one must be set and readable. */
export const CACHE_VARIABLES: readonly string[] = locations.map(([variable]) => variable);

/**
 * The path of a verified file with these bytes, in the first cache directory that can be used.
 * Throws with what is wrong with each of them if none can.
 */
export function cacheFile(backend: Backend, sha256: string, bytes: Uint8Array): string {
  const failures: string[] = [];
  for (const [variable, ...below] of locations) {
    const base = backend.readVariable(variable);
    if (!base || !isAbsolute(base)) continue; // relative: it would depend on the working directory
    const directory = join(base, ...below);
    const file = join(directory, `${sha256}.${EXTENSIONS[process.platform] ?? "so"}`);
    const missing = missingFlags(backend, directory, file);
    if (missing.length > 0) {
      failures.push(`${directory} needs ${missing.join(" ")}`);
      continue;
    }
    try {
      prepare(directory);
      if (!isIntact(file, sha256)) replace(directory, file, sha256, bytes);
      return file;
    } catch (error) {
      failures.push(error instanceof Error ? error.message : `${error}`);
    }
  }
  if (failures.length > 0) throw new Error(failures.join("; "));
  throw new Error(`none of ${CACHE_VARIABLES.join(", ")} is set, or may be read (--allow-env)`);
}

/** The permissions that Deno lacks to use this cache, as its flags. */
function missingFlags(backend: Backend, directory: string, file: string): string[] {
  return [
    backend.mayLoad(file) ? "" : `--allow-ffi=${directory}`,
    backend.mayAccess(directory, "read") ? "" : `--allow-read=${directory}`,
    backend.mayAccess(directory, "write") ? "" : `--allow-write=${directory}`,
  ].filter((flag) => flag !== "");
}

/** Makes the directory if it is missing. Throws unless it is one that only this user can change. */
function prepare(directory: string): void {
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
  const state = fs.lstatSync(directory);
  if (!state.isDirectory()) throw new Error(`${directory} is not a directory`);
  if (!isPrivate(state)) throw new Error(`${directory} can be changed by others than its owner`);
  if (!isWindows && state.uid !== ownUser(directory)) {
    throw new Error(`${directory} belongs to another user`);
  }
}

/** The id of this user. Where Deno may not tell it, the owner of a new file does. */
function ownUser(directory: string): number | undefined {
  try {
    return process.getuid?.();
  } catch {
    const probe = join(directory, `.${randomBytes(8).toString("hex")}`);
    fs.writeFileSync(probe, "", { flag: "wx", mode: 0o600 });
    const { uid } = fs.lstatSync(probe);
    fs.rmSync(probe);
    return uid;
  }
}

/**
 * Whether only its owner can change it. Windows has no such bits; a profile belongs to its user.
 */
function isPrivate(state: fs.Stats): boolean {
  return isWindows || (state.mode & OTHERS_WRITE) === 0;
}

/** Whether the file exists, is private, and has the bytes of this hash. */
function isIntact(path: string, sha256: string): boolean {
  let file: number;
  try {
    file = fs.openSync(path, fs.constants.O_RDONLY | (fs.constants.O_NOFOLLOW ?? 0));
  } catch {
    return false; // missing, or a link
  }
  try {
    const state = fs.fstatSync(file);
    if (!state.isFile() || !isPrivate(state)) return false;
    const bytes = Buffer.alloc(state.size);
    const length = fs.readSync(file, bytes, 0, bytes.length, 0);
    return length === bytes.length &&
      createHash("sha256").update(bytes).digest("hex") === sha256;
  } finally {
    fs.closeSync(file);
  }
}

/** Puts a new file in place of the old one, in one step. */
function replace(directory: string, path: string, sha256: string, bytes: Uint8Array): void {
  const temporary = join(directory, `.${sha256.slice(0, 16)}.${randomBytes(8).toString("hex")}`);
  try {
    fs.writeFileSync(temporary, bytes, { flag: "wx", mode: 0o700 });
    fs.renameSync(temporary, path);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    // Windows does not replace a library in use: another process may have just put it there.
    if (!isIntact(path, sha256)) throw error;
  }
  if (!isIntact(path, sha256)) throw new Error(`${path} does not keep what is written to it`);
}
