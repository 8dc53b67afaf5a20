/**
 * A library in a file of the user's cache, for systems that open libraries from files only.
 *
 * The file is named after the hash of its bytes, in a directory that only this user can write to,
 * and its bytes are read and compared before each load: what somebody tampered with is replaced,
 * and what cannot be replaced is not loaded. Nothing is ever seen half written.
 */
import { Buffer } from "node:buffer";
import { createHash, randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { isAbsolute, join } from "node:path";
import process from "node:process";
import type { Backend } from "./backend.ts";

const EXTENSIONS: Readonly<Record<string, string>> = { darwin: "dylib", win32: "dll" };
const isWindows = process.platform === "win32";
/** What others than the owner must not have: the right to write. */
const OTHERS_WRITE = 0o022;

/** A variable of the environment, and where a cache lies below the directory it names. */
type Place = readonly [variable: string, ...below: string[]];

const PLACES: Readonly<Record<string, readonly Place[]>> = {
  darwin: [["HOME", "Library", "Caches", "shmap"], ["TMPDIR", "shmap"]],
  win32: [["LOCALAPPDATA", "shmap"], ["TEMP", "shmap"]],
};
const ELSEWHERE: readonly Place[] = [
  ["XDG_CACHE_HOME", "shmap"],
  ["HOME", ".cache", "shmap"],
  ["XDG_RUNTIME_DIR", "shmap"],
  ["TMPDIR", "shmap"],
];

/** The variables of which one must be known. */
export const CACHE_VARIABLES: readonly string[] = (PLACES[process.platform] ?? ELSEWHERE)
  .map(([variable]) => variable);

/**
 * The path of a verified file that holds these bytes, in the first cache where that can be. Throws
 * what was wrong with each of them when there is none.
 */
export function cacheFile(backend: Backend, sha256: string, bytes: Uint8Array): string {
  const failures: string[] = [];
  for (const [variable, ...below] of PLACES[process.platform] ?? ELSEWHERE) {
    const base = backend.readVariable(variable);
    if (!base || !isAbsolute(base)) continue; // a relative one leads anywhere
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

/** The flags without which Deno lets nobody use this cache. */
function missingFlags(backend: Backend, directory: string, file: string): string[] {
  return [
    backend.mayLoad(file) ? "" : `--allow-ffi=${directory}`,
    backend.mayAccess(directory, "read") ? "" : `--allow-read=${directory}`,
    backend.mayAccess(directory, "write") ? "" : `--allow-write=${directory}`,
  ].filter((flag) => flag !== "");
}

/** Makes the directory, and looks at what is there under its name. */
function prepare(directory: string): void {
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
  const state = fs.lstatSync(directory);
  if (!state.isDirectory()) throw new Error(`${directory} is not a directory`);
  if (!isPrivate(state)) throw new Error(`${directory} can be changed by others than its owner`);
  if (!isWindows && state.uid !== ownUser(directory)) {
    throw new Error(`${directory} belongs to another user`);
  }
}

/** The number of this user. Deno tells it only if allowed to; then a file of ours does. */
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

/** Whether only its owner can change it. Windows has no such bits: the profile is the user's. */
function isPrivate(state: fs.Stats): boolean {
  return isWindows || (state.mode & OTHERS_WRITE) === 0;
}

/** Whether the file is there, and of these very bytes. */
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

/** Puts a new file in the place of whatever is there, in one step. */
function replace(directory: string, path: string, sha256: string, bytes: Uint8Array): void {
  const temporary = join(directory, `.${sha256.slice(0, 16)}.${randomBytes(8).toString("hex")}`);
  try {
    fs.writeFileSync(temporary, bytes, { flag: "wx", mode: 0o700 });
    fs.renameSync(temporary, path);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    // Windows replaces no library in use: another process may have put it there just now.
    if (!isIntact(path, sha256)) throw error;
  }
  if (!isIntact(path, sha256)) throw new Error(`${path} does not keep what is written to it`);
}
