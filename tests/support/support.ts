/**
 * What every suite needs: unique segment names with their clean-up, children of either runtime,
 * waiting for a condition, a seeded random, a small file system of our own.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { SharedMap, SharedMemoryError, SharedValue } from "../../mod.ts";
import { LOCK } from "./lock_mode.ts";
import {
  executable,
  HERE,
  IS_WINDOWS,
  isLiving,
  PATIENCE,
  removeAll,
  type Runtime,
  runtimeOf,
  RUNTIMES,
  SHM,
  SUPPORT,
} from "./platform.ts";
import { type Random, seededRandom } from "./random.ts";

export * from "./platform.ts";
export type { TestContext };
export type Task = (t: TestContext) => void | Promise<void>;

export const CHILD = join(SUPPORT, "child.ts");
export const SCALE = Number(process.env.SHMAP_TEST_SCALE ?? 1);
export const SEED = Number(process.env.SHMAP_SEED ?? Math.floor(Math.random() * 2 ** 32)) >>> 0;

const PREFIX = "shmap-test-";
/** What the names made here have in common: suites side by side in one process differ in it. */
const OWN_PREFIX = `${PREFIX}${process.pid}-${randomUUID().slice(0, 8)}-`;
let nameCount = 0;

/** `count` at the default size, more or less of it by SHMAP_TEST_SCALE. */
export function scaled(count: number): number {
  return Math.max(1, Math.round(count * SCALE));
}

/** As `scaled`, where the suites of both runtimes have the same children do the same. */
export function divided(count: number): number {
  return scaled(SCALE < 1 ? count / RUNTIMES.length : count);
}

/** Why a test is left to the suite of one runtime, which matters little to it, or undefined. */
export function leftTo(runtime: Runtime): string | undefined {
  if (SCALE >= 1 || runtime === HERE || RUNTIMES.length === 1) return undefined;
  return `with less of the work the suite of ${runtime} does it`;
}

/**
 * Which runtimes a test starts of whose children each does all the work alone: with less of the
 * work only the one that runs the test, for the suites run on both.
 */
export const CHILDREN: readonly Runtime[] = SCALE < 1 ? [HERE] : RUNTIMES;

/** Registers a test that `reason` may forbid; then it counts as skipped and its name says why. */
export function testUnless(
  reason: string | undefined,
  name: string,
  options: { timeout?: number },
  task: Task,
): void {
  if (reason) test(`${name} (skipped: ${reason})`, { ...options, skip: reason }, () => {});
  else test(name, options, task);
}

const endings = new WeakMap<TestContext, (() => unknown)[]>();

/** Does this when the test ends, the last first: a file goes after what has it open. */
export function atEnd(t: TestContext, task: () => unknown): void {
  const tasks = endings.get(t) ?? [];
  tasks.unshift(task);
  if (tasks.length > 1) return;
  endings.set(t, tasks);
  t.after(async () => {
    for (const each of tasks) await each();
  });
}

/** A segment name that no other test uses; what is left under it goes when the test ends. */
export function freshName(t: TestContext, label = "map"): string {
  nameCount += 1;
  const name = `${OWN_PREFIX}${nameCount}-${label}`;
  atEnd(t, () => removeSegment(name));
  return name;
}

function removeSegment(name: string): void {
  for (const file of [name, ...temporaries(name)]) removeAll(join(SHM, file));
}

/** Files beside segments that creation or replacement of `name` left half-way. */
export function temporaries(name: string): string[] {
  const find = () => readdirSync(SHM).filter((file) => file.startsWith(`.${name}.~`));
  if (!IS_WINDOWS) return find();
  // A file in use has such a name there until a call comes by that finds it idle; so do we.
  SharedMap.list();
  const idle = find();
  for (const file of idle) removeAll(join(SHM, file));
  const used = find();
  return idle.filter((file) => !used.includes(file));
}

/** A directory of our own below `parent`, removed when the test ends. */
export function freshDirectory(t: TestContext, parent = tmpdir()): string {
  const directory = mkdtempSync(join(parent, OWN_PREFIX));
  atEnd(t, () => removeAll(directory));
  return directory;
}

/** Removes the segments of test processes that are gone, say of an interrupted run. */
function sweep(): void {
  mkdirSync(SHM, { recursive: true });
  for (const file of readdirSync(SHM)) {
    const pid = new RegExp(`^\\.?${PREFIX}(\\d+)-`).exec(file)?.[1];
    if (pid && !isLiving(Number(pid))) removeAll(join(SHM, file));
  }
}
sweep();

/** A fresh map under a name of its own, closed and removed when the test ends. */
export function freshMap<V = unknown>(
  t: TestContext,
  options: Parameters<typeof SharedMap.open>[1] = {},
  label = "map",
): SharedMap<V> & { readonly name: string } {
  const map = SharedMap.open<V>(freshName(t, label), options);
  atEnd(t, () => map.close());
  return map as SharedMap<V> & { readonly name: string };
}

/** A map without a name, closed when the test ends. */
export function freshAnonymous<V = unknown>(
  t: TestContext,
  options: Parameters<typeof SharedMap.anonymous>[0] = {},
): SharedMap<V> {
  const map = SharedMap.anonymous<V>(options);
  atEnd(t, () => map.close());
  return map;
}

/** A fresh value under a name of its own, closed and removed when the test ends. */
export function freshValue<T = unknown>(
  t: TestContext,
  options: Parameters<typeof SharedValue.open>[1] = {},
): SharedValue<T> & { readonly name: string } {
  const value = SharedValue.open<T>(freshName(t, "value"), options);
  atEnd(t, () => value.close());
  return value as SharedValue<T> & { readonly name: string };
}

/** Whether a token leads to what one process has open, and ends with it; else it names a file. */
export function isOfProcess(token: string): boolean {
  return token.startsWith("fd:");
}

/** Calls with a value TypeScript would refuse. */
// deno-lint-ignore no-explicit-any
export const untyped = (value: unknown): any => value;

/** Runs `task`, which must throw a SharedMemoryError of this code, and returns it. */
export function thrown(code: string, task: () => unknown): SharedMemoryError {
  try {
    task();
  } catch (error) {
    assert.ok(error instanceof SharedMemoryError, `expected "${code}", got ${inspect(error)}`);
    assert.equal(error.code, code, error.message);
    return error;
  }
  assert.fail(`expected "${code}", nothing was thrown`);
}

function inspect(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}\n${error.stack}` : `${error}`;
}

/** An argument error: of the wrong kind or beyond a limit. */
export function isArgumentError(error: unknown): boolean {
  return (error instanceof TypeError || error instanceof RangeError) &&
    !(error instanceof SharedMemoryError);
}

/** Asserts that the map's own search for damage finds none. */
export function assertSound<V>(map: SharedMap<V>, what = "the map"): void {
  const report = map.verify();
  assert.ok(report.ok, `${what} is damaged: ${JSON.stringify(report)}`);
}

/** The content of a map, by ascending key; for comparisons before and after. */
export function content<V>(map: Iterable<[string, V]>): [string, V][] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
}

/** Waits until `condition` holds; fails after `limit` milliseconds, or the more by PATIENCE. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  limit = 20_000,
): Promise<void> {
  const deadline = performance.now() + limit * PATIENCE;
  while (!(await condition())) {
    if (performance.now() > deadline) assert.fail(`waited ${limit * PATIENCE} ms for: ${what}`);
    await pause(2);
  }
}

/** One turn of at least `ms`; for polling, never for order. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Runs `task` with a random of this run's seed; a failure prints how to repeat it. */
export async function withSeed<T>(task: (random: Random) => T | Promise<T>): Promise<T> {
  try {
    return await task(seededRandom(SEED));
  } catch (error) {
    console.error(`repeat with SHMAP_SEED=${SEED}`);
    throw error;
  }
}

/** For a Deno child without any permission of use: given none, node:child_process adds them all. */
export const NO_PERMISSIONS: readonly string[] = ["--allow-env=SHMAP_NOTHING"];

/** The command line that runs `file` in `runtime`; Deno gets these permissions and no more. */
export function commandLine(
  runtime: Runtime,
  file = CHILD,
  permissions: readonly string[] = ["--allow-ffi"],
): [string, ...string[]] {
  return runtime === "deno"
    ? [executable(runtime), "run", "--no-prompt", ...withLockVariable(permissions), file]
    : [executable(runtime), file];
}

/** A child makes what it makes with the lock of this run, and must be able to ask which. */
function withLockVariable(permissions: readonly string[]): readonly string[] {
  const asksAnyway = permissions.includes("-A") || permissions.includes("--allow-env");
  if (LOCK !== "kernel" || asksAnyway) return permissions;
  const variable = "--allow-env=SHMAP_TEST_LOCK";
  const at = permissions.findIndex((flag) => flag.startsWith("--allow-env="));
  if (at < 0) return [...permissions, variable];
  // One flag for all variables: not every Deno 2.9 takes it twice.
  return permissions.with(at, `${variable},${permissions[at].split("=")[1]}`);
}

export interface ChildOptions {
  permissions?: readonly string[];
  env?: Record<string, string>;
  /** A command that executes the command line appended to it, in the same process. */
  wrap?: readonly string[];
  file?: string;
}

/** What a call in a child ended with, when it was an error. */
export class ChildError extends Error {
  readonly code: string | undefined;
  readonly errno: string | undefined;
  readonly stored: number | undefined;
  constructor(from: Record<string, unknown>, readonly pid: number) {
    super(String(from.message));
    this.name = String(from.name);
    this.code = from.code as string | undefined;
    this.errno = from.errno as string | undefined;
    this.stored = from.stored as number | undefined;
  }
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** One other process. It takes JSON lines on stdin and answers with JSON lines on stdout. */
export class Child {
  readonly pid: number;
  readonly closed: Promise<void>;
  /** What came on stdout after the last whole line: the journal of a crash writer. */
  tail = "";
  stderr = "";
  exitCode: number | null = null;
  signal: string | null = null;
  isClosed = false;
  #process: ChildProcess;
  #pending = new Map<number, Pending>();
  #requestCount = 0;

  constructor(readonly runtime: Runtime, options: ChildOptions = {}) {
    const command = [
      ...(options.wrap ?? []),
      ...commandLine(runtime, options.file, options.permissions),
    ];
    this.#process = spawn(command[0], command.slice(1), {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", ...options.env },
    });
    assert.ok(this.#process.pid, `could not start ${command.join(" ")}`);
    this.pid = this.#process.pid;
    this.#process.stdin!.on("error", () => {}); // EPIPE: `closed` reports the end
    this.#process.stdout!.setEncoding("utf8").on("data", (text: string) => this.#receive(text));
    this.#process.stderr!.setEncoding("utf8").on("data", (text: string) => this.stderr += text);
    this.closed = new Promise((resolve) => {
      this.#process.on("close", (code, signal) => {
        this.#finish(code, signal);
        resolve();
      });
    });
  }

  #receive(text: string): void {
    this.tail += text;
    if (!text.includes("\n")) return;
    const lines = this.tail.split("\n");
    this.tail = lines.pop()!;
    for (const line of lines) this.#answer(line);
  }

  #answer(line: string): void {
    if (!line.startsWith("{")) return;
    const reply = JSON.parse(line);
    const pending = this.#pending.get(reply.request);
    this.#pending.delete(reply.request);
    if (reply.error) pending?.reject(new ChildError(reply.error, this.pid));
    else pending?.resolve(reply.value);
  }

  #finish(code: number | null, signal: string | null): void {
    this.exitCode = code;
    this.signal = signal;
    this.isClosed = true;
    const how = signal ?? `code ${code}`;
    for (const { reject } of this.#pending.values()) {
      reject(new Error(`${this.runtime} child ${this.pid} ended (${how}): ${this.stderr}`));
    }
    this.#pending.clear();
  }

  /** Whether it has not yet answered something. */
  get isBusy(): boolean {
    return this.#pending.size > 0;
  }

  /** Sends a command without waiting for its answer. */
  send(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    this.#requestCount += 1;
    const request = this.#requestCount;
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(request, { resolve, reject });
    });
    answer.catch(() => {}); // also rejected when no test waits for it
    this.#process.stdin!.write(JSON.stringify({ request, command, ...args }) + "\n");
    return answer;
  }

  /** Sends a command and waits for its answer. */
  // deno-lint-ignore no-explicit-any
  ask(command: string, args: Record<string, unknown> = {}): Promise<any> {
    return this.send(command, args);
  }

  /** Calls a method of the map the child opened as `id`. */
  // deno-lint-ignore no-explicit-any
  call(method: string, ...args: unknown[]): Promise<any> {
    return this.send("call", { id: "map", method, args });
  }

  /** Whether it was killed, which on Windows is an end with this code. */
  get wasKilled(): boolean {
    return this.signal === "SIGKILL" || (IS_WINDOWS && this.exitCode === 1);
  }

  /** Sends a signal to this process. */
  signalWith(signal: "SIGKILL" | "SIGSTOP" | "SIGCONT"): void {
    if (!this.isClosed) process.kill(this.pid, signal);
  }

  /** Kills the process and waits until it is gone and its output has been read. */
  async kill(): Promise<void> {
    this.signalWith("SIGKILL");
    await this.closed;
  }

  /** Lets the process come to its end, which must be a good one. */
  async end(): Promise<void> {
    this.#process.stdin!.end();
    await this.closed;
    assert.equal(this.signal ?? this.exitCode, 0, this.stderr);
  }
}

/** A child that is ready for commands; killed when the test ends, if it still lives. */
export async function startChild(
  t: TestContext,
  runtime: Runtime,
  options: ChildOptions = {},
): Promise<Child> {
  const child = new Child(runtime, options);
  atEnd(t, () => child.kill());
  await child.ask("ready");
  return child;
}

/** How many children of a runtime wait to be used again. */
const IDLE_MAX = 6;
/** For all suites of this process: those that are loaded later find what earlier ones left. */
const idle: Record<Runtime, Child[]> =
  (globalThis as { shmapIdleChildren?: Record<Runtime, Child[]> }).shmapIdleChildren ??= {
    deno: [],
    bun: [],
  };

/**
 * As `startChild`, for a test that asks no more of a child than to be another process. With less of
 * the work it may have served earlier tests, for to start one takes longer than most of them.
 */
export async function lentChild(t: TestContext, runtime: Runtime): Promise<Child> {
  if (SCALE >= 1) return await startChild(t, runtime);
  const left = idle[runtime].pop();
  const child = left && !left.isClosed ? left : new Child(runtime);
  atEnd(t, () => giveBack(child));
  await child.ask("ready");
  return child;
}

/** Keeps a child for the next test, if it lives, is at rest and has nothing open any more. */
async function giveBack(child: Child): Promise<void> {
  const others = idle[child.runtime];
  const isAtRest = !child.isClosed && !child.isBusy && others.length < IDLE_MAX;
  if (!isAtRest || !(await child.ask("reset").catch(() => false))) return await child.kill();
  child.tail = "";
  child.stderr = "";
  others.push(child);
}

/** A child that has opened the map of this name, or with `kind` the value, as "map". */
export async function startWith(
  t: TestContext,
  runtime: Runtime,
  name: string,
  options: Record<string, unknown> = {},
  kind: "map" | "value" = "map",
): Promise<Child> {
  const child = await lentChild(t, runtime);
  await child.ask("open", { id: "map", kind, name, options });
  return child;
}

/** `count` children on the map of this name, the runtimes by turns. */
export function startMany(
  t: TestContext,
  count: number,
  name: string,
  options: Record<string, unknown> = {},
  kind: "map" | "value" = "map",
): Promise<Child[]> {
  return Promise.all(
    Array.from({ length: count }, (_, i) => startWith(t, runtimeOf(i), name, options, kind)),
  );
}

/** The words that put a command into a namespace with a tmpfs of its own at `directory`. */
export function inSmallTmpfs(directory: string, size: string): string[] {
  const script = `mount -t tmpfs -o size=${size} shmap-test "$0" && exec "$@"`;
  return ["unshare", "-Urm", "sh", "-c", script, directory];
}

/** A child with the map "small" on a file system of one MiB, and the directory of that. */
export async function startOnSmallTmpfs(
  t: TestContext,
): Promise<{ child: Child; directory: string }> {
  const directory = freshDirectory(t);
  const wrap = inSmallTmpfs(directory, "1m");
  const child = await startChild(t, HERE, { wrap, permissions: ["-A"] });
  await child.ask("open", { id: "map", name: "small", options: { directory } });
  return { child, directory };
}

/** Why this machine refuses a tmpfs of one's own, or undefined when it does not. */
export function refusesTmpfs(): string | undefined {
  const directory = mkdtempSync(join(tmpdir(), PREFIX));
  const [command, ...args] = [...inSmallTmpfs(directory, "1m"), "true"];
  const result = spawnSync(command, args, { encoding: "utf8" });
  removeAll(directory);
  if (result.status === 0) return undefined;
  return `no user namespace with a tmpfs: ${(result.stderr || `${result.error}`).trim()}`;
}
