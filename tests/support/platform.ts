/**
 * What the machine under the tests is like: its runtimes, where its segments lie, and why a test
 * that needs another system cannot run on it.
 */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  rmdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

export type Runtime = "deno" | "bun";

const { platform } = process;
const isLinux = platform === "linux";
export const IS_WINDOWS: boolean = platform === "win32";
/** Where the programs lie that tests start as other processes. */
export const SUPPORT = dirname(fileURLToPath(import.meta.url));
export const ROOT = dirname(dirname(SUPPORT));

/** Where segments lie that no directory is given for, as `zig/os` finds it. */
export const SHM: string = defaultDirectory();

export const HERE: Runtime = "Deno" in globalThis ? "deno" : "bun";
/** Under wine Deno does not start; the runner of the tests there says so with this variable. */
const IS_ALONE = process.env.SHMAP_TEST_ALONE === "1";
/** The runtime of the other process: the other one, where there are two. */
export const THERE: Runtime = IS_ALONE ? HERE : HERE === "deno" ? "bun" : "deno";
export const RUNTIMES: readonly Runtime[] = IS_ALONE ? [HERE] : [HERE, THERE];

/** How many times as long as usual something may take: more where every process is emulated. */
export const PATIENCE = Number(process.env.SHMAP_TEST_PATIENCE ?? 1);

/** Why tests cannot run here that need what not every machine has; undefined where it has it. */
export const NEEDS = {
  accessTimes: isLinux ? refusesAccessTimes() : "the time of a read is not noted at once",
  bothRuntimes: IS_ALONE ? "Deno does not start here" : undefined,
  cutting: IS_WINDOWS ? "Windows cuts no file short that is mapped" : undefined,
  descriptors: IS_WINDOWS ? "a runtime's descriptors mean nothing to Windows" : undefined,
  elf: isLinux ? undefined : "it reads the symbols of ELF",
  fifos: IS_WINDOWS ? "Windows has no such pipes" : undefined,
  holes: IS_WINDOWS ? "a file on Windows has no holes" : undefined,
  links: refusesLinks(),
  memoryFiles: isLinux ? undefined : "memory without a name is a file here",
  modes: IS_WINDOWS ? "Windows has no permission bits" : undefined,
  portSharing: IS_WINDOWS ? "Windows lets no two processes listen on one port" : undefined,
  proc: isLinux ? undefined : "it looks at /proc",
  removal: IS_WINDOWS ? "Windows removes no file that is mapped" : undefined,
  robustMutexes: isLinux ? undefined : "only Linux has robust mutexes",
  shell: IS_WINDOWS ? "Windows has no sh" : undefined,
  stopping: IS_WINDOWS ? "Windows has no signal that stops a process" : undefined,
} satisfies Record<string, string | undefined>;

function refusesAccessTimes(): string | undefined {
  const directory = mkdtempSync(join(SHM, "shmap-test-times-"));
  try {
    utimesSync(directory, 1, 2);
    readdirSync(directory);
    return statSync(directory).atimeMs > 2000 ? undefined : "no file system notes reads here";
  } finally {
    removeAll(directory);
  }
}

function refusesLinks(): string | undefined {
  const directory = mkdtempSync(join(tmpdir(), "shmap-test-link-"));
  const link = join(directory, "link");
  try {
    symlinkSync("nowhere", link);
    if (lstatSync(link).isSymbolicLink()) return undefined;
  } catch {
    // Said below.
  } finally {
    removeAll(directory);
  }
  return "no symbolic link can be made";
}

function defaultDirectory(): string {
  if (IS_WINDOWS) return join(process.env.LOCALAPPDATA ?? tmpdir(), "shmap");
  if (platform !== "darwin") return "/dev/shm";
  const asked = spawnSync("getconf", ["DARWIN_USER_CACHE_DIR"], { encoding: "utf8" });
  return join(asked.stdout.trim(), "shmap");
}

/** One of the runtimes, by turns. */
export function runtimeOf(turn: number): Runtime {
  return RUNTIMES[turn % RUNTIMES.length];
}

/** The other runtime; the same one where there is no other. */
export function otherThan(runtime: Runtime): Runtime {
  return runtime === HERE ? THERE : HERE;
}

/**
 * The executable of a runtime: the one in SHMAP_TEST_RUNTIMES, where a runtime cannot start itself
 * by its own path (tools/emulate/arm64.mjs); else this process's own, or the project's copy of
 * the other one.
 */
export function executable(runtime: Runtime): string {
  const directory = process.env.SHMAP_TEST_RUNTIMES;
  if (directory) return join(directory, runtime);
  if (runtime === HERE) return process.execPath;
  if (!IS_WINDOWS) return join(ROOT, "node_modules", ".bin", runtime);
  // What lies in .bin is a script there, which only a shell can start.
  const place = runtime === "deno" ? ["deno", "deno.exe"] : ["bun", "bin", "bun.exe"];
  return join(ROOT, "node_modules", ...place);
}

/** Whether a process of ours lives. */
export function isLiving(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as { code?: string }).code === "EPERM"; // it is another user's
  }
}

/**
 * Removes what is at `path`, if anything is. On Windows a file that is mapped stays: the tests of
 * another day remove it. Not by `rmSync`: its way to remove directories is unknown to wine.
 */
export function removeAll(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return;
  try {
    if (!found.isDirectory()) return unlinkSync(path);
    for (const name of readdirSync(path)) removeAll(join(path, name));
    rmdirSync(path);
  } catch (error) {
    if (!IS_WINDOWS && existsSync(path)) throw error;
  }
}
