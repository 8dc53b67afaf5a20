/**
 * A configuration that a parent changes while its children work: each of them sees a change the
 * next time it looks, and looking costs next to nothing while nothing has changed.
 *
 *     deno run --allow-ffi --allow-run examples/configuration.ts
 *     bun run examples/configuration.ts
 */
import process from "node:process";
import { setTimeout as pause } from "node:timers/promises";
import { SharedValue } from "shmap";

interface Configuration {
  level: "debug" | "info" | "error";
  limits: { requests: number };
  isOver: boolean;
}

/** The part of Bun that is used here. */
declare const Bun: {
  spawn(command: string[]): { stdout: ReadableStream<Uint8Array<ArrayBuffer>> };
};

const CHILDREN = 2;
const FIRST: Configuration = { level: "info", limits: { requests: 100 }, isOver: false };
const CHANGES: Partial<Configuration>[] = [
  {},
  { level: "debug" },
  { limits: { requests: 500 } },
  { level: "error", isOver: true },
];

/** A child: says what the configuration is whenever there is another one. */
async function child(token: string): Promise<void> {
  // Read-only, it can change nothing; frozen, it gets the same object until there is another one.
  using shared = SharedValue.attach<Configuration>(token, { readonly: true, frozen: true });
  const end = performance.now() + 30_000; // in case its parent is killed
  let last: Configuration | undefined;
  while (!last?.isOver && performance.now() < end) {
    const current = shared.get();
    if (current !== last) console.log(JSON.stringify(current));
    last = current;
    await pause(5); // here it would work
  }
}

/** Starts a child; what it says can be read, a line at a time. */
function startChild(token: string): ReadableStreamDefaultReader<string> {
  const script = import.meta.filename!;
  const args = ["run", "--allow-ffi", script, token];
  const { stdout } = "Deno" in globalThis
    ? new Deno.Command(Deno.execPath(), { args, stdout: "piped" }).spawn()
    : Bun.spawn([process.execPath, "run", script, token]);
  return stdout.pipeThrough(new TextDecoderStream()).getReader();
}

async function main(): Promise<void> {
  using shared = SharedValue.anonymous<Configuration>();
  const children = Array.from({ length: CHILDREN }, () => startChild(shared.token));
  let isRight = true;
  for (const change of CHANGES) {
    const current = shared.update((before = FIRST) => ({ ...before, ...change }));
    console.log(`the parent's: ${JSON.stringify(current)}`);
    for (const child of children) {
      const { value: line = "" } = await child.read();
      console.log(`   a child's: ${line.trim()}`);
      isRight &&= line.trim() === JSON.stringify(current);
    }
  }
  console.log(isRight ? "all children saw every change" : "a child saw something ELSE");
  process.exitCode = isRight ? 0 : 1;
}

const token = process.argv[2];
await (token === undefined ? main() : child(token));
