/**
 * The one place where the tools, the proof and the benchmarks start programs. A program gets a
 * process group of its own, so that it ends together with all that it started: when its time is
 * over, or when this process is told to end.
 */
import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { constants as system } from "node:os";
import { delimiter, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
export const MODULES = join(ROOT, "node_modules");
const IS_WINDOWS = process.platform === "win32";

export const ENVIRONMENT = {
  ...process.env,
  PATH: join(MODULES, ".bin") + delimiter + (process.env.PATH ?? ""),
  NO_COLOR: "1",
  DENO_NO_UPDATE_CHECK: "1",
  // A home directory may be missing or read-only; the repository is neither.
  ZIG_GLOBAL_CACHE_DIR: process.env.ZIG_GLOBAL_CACHE_DIR ?? join(ROOT, ".zig-cache", "global"),
  DENO_DIR: process.env.DENO_DIR ?? join(MODULES, ".cache", "deno"),
};

const MINUTES = 20;
/** How long a program has to clean up after SIGTERM before it is killed. */
const GRACE_MS = 5000;
/** How long the rest of its output is waited for: a daemon that it started can hold the pipe. */
const DRAIN_MS = 2000;

/** The programs that run at the moment. */
const living = new Set();

/** Sends a signal to a program and to all that it started. */
function signalGroup(child, signal) {
  if (IS_WINDOWS) spawn("taskkill", ["/pid", String(child.pid), "/t", "/f"], { stdio: "ignore" });
  else {
    try {
      process.kill(-child.pid, signal);
    } catch {
      // All of the group has ended.
    }
  }
}

/** Ends a program: it may clean up first, and is killed when it does not. */
function end(child) {
  signalGroup(child, "SIGTERM");
  setTimeout(() => living.has(child) && signalGroup(child, "SIGKILL"), GRACE_MS).unref();
}

let isWatching = false;

/** When this process ends, or a signal ends it, so does what it started. */
function watch() {
  if (isWatching) return;
  isWatching = true;
  process.on("exit", () => {
    for (const child of living) signalGroup(child, "SIGKILL");
  });
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.once(signal, () => {
      for (const child of living) end(child);
      setInterval(() => living.size === 0 && process.exit(128 + system.signals[signal]), 20);
    });
  }
}

/** Windows knows most of these programs as scripts, which only a shell starts. */
function started(program, args, options) {
  if (!IS_WINDOWS) return spawn(program, args, { ...options, detached: true });
  const quoted = args.map((arg) =>
    /[\s"&|<>^]/.test(arg) ? `"${arg.replaceAll('"', '\\"')}"` : arg
  );
  return spawn(program, quoted, { ...options, shell: true });
}

/**
 * Runs a program to its end, at most so long, and resolves with what it said and how it ended; it
 * never rejects.
 *
 * @param {readonly string[]} command the program and its arguments
 * @param {{
 *   cwd?: string,
 *   env?: Record<string, string | undefined>,
 *   uid?: number,
 *   gid?: number,
 *   input?: string,
 *   limitMs?: number,
 *   show?: boolean,
 * }} options `env` replaces the whole environment; `show` leaves the output in the terminal
 * @returns {Promise<{
 *   isOk: boolean,
 *   isLate: boolean,
 *   status: number | null,
 *   signal: string | null,
 *   how: string,
 *   stdout: string,
 *   stderr: string,
 *   output: string,
 *   seconds: number,
 * }>} `how` says in words what was wrong, and is empty if nothing was; `output` is all that the
 * program said, in the order in which it came
 */
export function run([program, ...args], options = {}) {
  const { cwd = ROOT, env = ENVIRONMENT, uid, gid, input, show = false } = options;
  const { limitMs = MINUTES * 60_000 } = options;
  watch();
  const began = performance.now();
  const told = { stdout: "", stderr: "", output: "" };
  return new Promise((resolve) => {
    const from = input === undefined ? "ignore" : "pipe";
    const to = show ? "inherit" : "pipe";
    const child = started(program, args, { cwd, env, uid, gid, stdio: [from, to, to] });
    let isLate = false;
    const alarm = setTimeout(() => {
      isLate = true;
      end(child);
    }, limitMs);
    const finish = (status, signal, wrong) => {
      clearTimeout(alarm);
      living.delete(child);
      const seconds = (performance.now() - began) / 1000;
      resolve({ ...told, isOk: wrong === "", isLate, status, signal, how: wrong, seconds });
    };
    for (const name of show ? [] : ["stdout", "stderr"]) {
      child[name].setEncoding("utf8").on("data", (text) => {
        told[name] += text;
        told.output += text;
      });
    }
    child.on("error", (error) => finish(null, null, `cannot be started: ${error.message}`));
    child.on("exit", (status, signal) => {
      const limit = `stopped after ${limitMs / 1000} s`;
      const wrong = isLate ? limit : status === 0 ? "" : `ended with ${signal ?? status}`;
      const timer = setTimeout(() => finish(status, signal, wrong), DRAIN_MS);
      child.on("close", () => {
        clearTimeout(timer);
        finish(status, signal, wrong);
      });
    });
    if (child.pid !== undefined) living.add(child);
    child.stdin?.on("error", () => {}); // a program need not read all of it
    child.stdin?.end(input);
  });
}

/** As `run`, for what must succeed: resolves with its output, rejects if it ends badly. */
export async function must(command, options) {
  const { isOk, how, output } = await run(command, options);
  if (!isOk) throw new Error(`${command.join(" ")}: ${how}\n${output}`);
  return output;
}

/** Whether there is a program of this name. */
export function isInstalled(name, path = ENVIRONMENT.PATH) {
  return path.split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Calls `act` with each of these, so many at a time, in their order. */
export async function inLanes(count, items, act) {
  const waiting = [...items];
  await Promise.all(Array.from({ length: count }, async () => {
    while (waiting.length > 0) await act(waiting.shift());
  }));
}
