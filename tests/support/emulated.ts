/**
 * Stands for `node:test` where the suites run under an emulator (`tools/emulate/arm64.mjs`,
 * `tools/emulate/wine.mjs`): what cannot hold there is skipped, and says why.
 */
import process from "node:process";
import * as real from "node:test";
import { leftOutOf } from "../../tools/left_out.mjs";
import { IS_WINDOWS, PATIENCE } from "./platform.ts";

export type { TestContext } from "node:test";

const runtime = "Deno" in globalThis ? "deno" : "bun";
const emulator = IS_WINDOWS ? "wine" : "qemu";
const leftOut = leftOutOf(emulator, runtime, process.env.SHMAP_TEST_LOCK);

/** As the real one, but patient, and without the tests that are left out. */
export function test(name: string, ...rest: unknown[]): unknown {
  const why = leftOut.find(({ piece }) => name.includes(piece))?.why;
  if (why) return real.test(`${name} (skipped: ${why})`, { skip: true }, () => {});
  return (real.test as (...all: unknown[]) => unknown)(name, ...rest.map(patiently));
}

function patiently(argument: unknown): unknown {
  const { timeout } = argument as { timeout?: number };
  return timeout ? { ...argument as object, timeout: timeout * PATIENCE } : argument;
}
