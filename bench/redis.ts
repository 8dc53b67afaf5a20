/**
 * Redis for `bench/map.ts`: a server of its own, which listens at a socket in a directory of its
 * own and stores nothing on disk, and the client of each runtime.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, symlinkSync } from "node:fs";
import { connect } from "node:net";
import { delimiter, join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

const START_TIMEOUT_MS = 5000;

/** A running server. */
export interface Server {
  readonly socket: string;
  readonly process: ChildProcess;
  stop(): Promise<void>;
}

/** Starts a server whose socket lies in `directory`; undefined where none is installed. */
export async function startRedis(directory: string): Promise<Server | undefined> {
  const program = findServer(directory);
  if (program === undefined) return undefined;
  const socket = join(directory, "redis.sock");
  const options = ["--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no"];
  const child = spawn(program, options, { cwd: directory, stdio: "ignore" });
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()));
  await answering(socket, child);
  return {
    socket,
    process: child,
    async stop() {
      child.kill();
      await ended;
    },
  };
}

/**
 * The program. On Debian it is part of redis-tools too, under the name of a check that it also is;
 * the package redis-server would start a service besides.
 */
function findServer(directory: string): string | undefined {
  const found = findProgram("redis-server");
  if (found !== undefined) return found;
  const checker = findProgram("redis-check-rdb");
  if (checker === undefined) return undefined;
  const link = join(directory, "redis-server");
  symlinkSync(checker, link);
  return link;
}

function findProgram(name: string): string | undefined {
  const paths = (process.env.PATH ?? "").split(delimiter).map((path) => join(path, name));
  return paths.find((path) => existsSync(path));
}

/** Resolves once the server answers at `socket`. */
async function answering(socket: string, child: ChildProcess): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (!await canConnect(socket)) {
    if (child.exitCode !== null) throw new Error(`redis-server ended with ${child.exitCode}`);
    if (Date.now() > deadline) throw new Error("redis-server does not answer");
    await sleep(10);
  }
}

function canConnect(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(path);
    connection.on("connect", () => {
      connection.destroy();
      resolve(true);
    });
    connection.on("error", () => resolve(false));
  });
}

/** What is used of either client. */
export interface Redis {
  get(key: string): Promise<unknown>;
  set(key: string, value: unknown): Promise<unknown>;
  /** Sends the commands together. */
  getMany(keys: string[]): Promise<unknown[]>;
  setMany(keys: string[], values: unknown[]): Promise<unknown[]>;
  clear(): Promise<unknown>;
  close(): void;
}

interface Client {
  get(key: string): Promise<unknown>;
  getBuffer(key: string): Promise<unknown>;
  set(key: string, value: unknown): Promise<unknown>;
}

interface BunClient extends Client {
  send(command: string, args: string[]): Promise<unknown>;
  close(): void;
}

/** Bun's own client, which sends together what is asked for before it gets a turn. */
export function openBunRedis(socket: string, isBytes: boolean): Redis {
  const { Bun } = globalThis as unknown as {
    Bun: { RedisClient: new (url: string) => BunClient };
  };
  const client = new Bun.RedisClient(`redis+unix://${socket}`);
  const get = isBytes ? (key: string) => client.getBuffer(key) : (key: string) => client.get(key);
  return {
    get,
    set: (key, value) => client.set(key, value),
    getMany: (keys) => Promise.all(keys.map(get)),
    setMany: (keys, values) => Promise.all(keys.map((key, n) => client.set(key, values[n]))),
    clear: () => client.send("FLUSHALL", []),
    close: () => client.close(),
  };
}

interface Pipeline {
  get(key: string): void;
  getBuffer(key: string): void;
  set(key: string, value: unknown): void;
  exec(): Promise<[Error | null, unknown][]>;
}

interface NpmClient extends Client {
  pipeline(): Pipeline;
  flushall(): Promise<unknown>;
  disconnect(): void;
}

/** The client of the package ioredis. */
export function openNpmRedis(ioredis: unknown, socket: string, isBytes: boolean): Redis {
  const { Redis } = ioredis as { Redis: new (options: { path: string }) => NpmClient };
  const client = new Redis({ path: socket });
  return {
    get: isBytes ? (key) => client.getBuffer(key) : (key) => client.get(key),
    set: (key, value) => client.set(key, value),
    getMany(keys) {
      const pipeline = client.pipeline();
      if (isBytes) { for (const key of keys) pipeline.getBuffer(key); }
      else for (const key of keys) pipeline.get(key);
      return sent(pipeline);
    },
    setMany(keys, values) {
      const pipeline = client.pipeline();
      keys.forEach((key, n) => pipeline.set(key, values[n]));
      return sent(pipeline);
    },
    clear: () => client.flushall(),
    close: () => client.disconnect(),
  };
}

async function sent(pipeline: Pipeline): Promise<unknown[]> {
  const answers = await pipeline.exec();
  return answers.map(([error, answer]) => {
    if (error !== null) throw error;
    return answer;
  });
}
