/** A thread of a test's process, with an isolate of its own: takes commands as messages. */
import process from "node:process";
import { type Lock, SharedMap } from "../../mod.ts";
import { LOCK_TASKS } from "./lock_tasks.ts";
import { REGION_COMMANDS } from "./region_tasks.ts";

// deno-lint-ignore no-explicit-any
type Json = any;

const scope = globalThis as unknown as {
  onmessage: (event: { data: Json }) => void;
  postMessage: (message: Json) => void;
  close?: () => void;
};

let map: SharedMap;
let lock: Lock;

const COMMANDS: Record<string, (args: Json) => unknown> = {
  attach: ({ token }) => void (map = SharedMap.attach(token)),
  set: ({ key, value, expiry }) => void map.set(key, value, expiry),
  lock: ({ options }) => (lock = map.lock(options)).recovered,
  tryLock: () => map.tryLock() !== undefined,
  lockAsync: async ({ options }) => (lock = await map.lockAsync(options)).recovered,
  unlock: () => lock.unlock(),
  close: () => map.close(),
  call: ({ method, args }) => (map as Json)[method](...args),
  task: ({ task, ...args }) => LOCK_TASKS[task](map, args as never, () => {}),
  /** Ends this thread, which may hold a lock. */
  end: () => scope.close ? scope.close() : process.exit(),
  ...REGION_COMMANDS,
};

scope.onmessage = async ({ data: { request, command, ...args } }) => {
  try {
    scope.postMessage({ request, value: await COMMANDS[command](args) });
  } catch (error) {
    const { name, message, code } = error as Json;
    scope.postMessage({ request, error: { name, message, code } });
  }
};
