/** Native processes that share a map, on each system that they were built for. */
import { spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { environment, run, work } from "./machine.mjs";

const ANSWER_MS = 30_000;

/** Processes that have not ended yet. */
const living = new Set();

/** Ends the processes that a step which failed has left. */
export function endPeers() {
  for (const child of living) child.kill("SIGKILL");
}

/** Compiles such a process for a target; its path. */
export async function compilePeer(target, libraries) {
  const program = join(work, `peer-${target}${target.includes("windows") ? ".exe" : ""}`);
  const options = ["-O", "ReleaseSafe", "-target", target, ...libraries];
  await run("zig", [
    ...["build-exe", `-femit-bin=${program}`],
    ...[...options, "--dep", "shmap", "-Mroot=tests/native/peer.zig"],
    ...[...options, "-Mshmap=zig/root.zig"],
  ]);
  return program;
}

/** A native process that does what it is told (`tests/native/peer.zig`). */
export class Peer {
  #child;
  #lines;
  /** Resolves when the process has ended. */
  ended;

  constructor(command) {
    const options = { cwd: work, env: environment, stdio: ["pipe", "pipe", "ignore"] };
    this.#child = spawn(command[0], command.slice(1), options);
    living.add(this.#child);
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    this.ended = new Promise((resolve) => this.#child.on("close", resolve));
    this.ended.then(() => living.delete(this.#child));
  }

  async ask(line) {
    this.#child.stdin.write(`${line}\n`);
    let alarm;
    const late = new Promise((_, reject) => {
      alarm = setTimeout(() => reject(new Error(`no answer to "${line}"`)), ANSWER_MS);
    });
    const answer = await Promise.race([this.#lines.next(), late]);
    clearTimeout(alarm);
    return answer.value?.trim();
  }

  async expect(line, wanted) {
    const answer = await this.ask(line);
    if (answer !== wanted) throw new Error(`"${line}" gave ${answer}, not ${wanted}`);
  }

  kill() {
    this.#child.kill("SIGKILL");
    return this.ended;
  }
}

/** Processes share a map, exclude each other, replace and unlink it, and one is killed. */
export async function share(command, other = command) {
  const name = `platforms-${process.pid}`;
  const [a, b] = [new Peer(command), new Peer(other)];
  await a.expect(`open ${name} kernel 5000`, "1");
  await b.expect(`open ${name} kernel 5000`, "1");
  await a.expect("put greeting hello", "1");
  await b.expect("get greeting", "5 hello");
  for (let i = 0; i < 300; i++) await a.expect(`put key-${i} ${"v".repeat(1500)}`, "1");
  await b.expect("size", "301");
  await b.expect(`get key-299`, `1500 ${"v".repeat(1500)}`);
  await b.expect("verify", "0");
  await a.expect("lock 1000", "0");
  await b.expect("lock 100", "-7");
  await a.expect("unlock", "0");
  await Promise.all([a.expect("add count 300", "0"), b.expect("add count 300", "0")]);
  await a.expect("get count", "3 600");
  await a.expect("lock 1000", "0");
  await a.kill();
  await b.expect("lock 20000", "1"); // its last holder died
  await b.expect("unlock", "0");
  const c = new Peer(command);
  await c.expect(`open ${name} kernel 5000`, "1");
  await c.expect("get greeting", "5 hello");
  const d = new Peer(other);
  await d.expect(`open ${name} exclusive 5000`, "1");
  await d.expect("size", "0");
  await c.expect("get greeting", "-11"); // replaced while it was open, and mapped
  await c.expect("close", "0");
  await c.expect(`open ${name} kernel 5000`, "1");
  await d.expect(`unlink ${name}`, "1");
  await d.expect(`unlink ${name}`, "0");
  await d.expect("put still works", "1");
  await c.expect("get still", "5 works");
  const e = new Peer(command);
  await e.expect(`open ${name} attach 100`, "-2");
  await e.expect(`open ${name} kernel 5000`, "1");
  await e.expect("size", "0");
  await e.expect("verify", "0");
  for (const peer of [b, c, d, e]) await peer.ask("close");
  await e.expect(`open ${name} kernel 5000`, "1"); // reopened by the only one, clean or not
  await e.expect(`unlink ${name}`, "1");
  await e.expect("close", "0");
  for (const peer of [b, c, d, e]) await peer.kill();
}

/**
 * The same with the usual lock, which belongs to the C library: processes of one are killed while
 * they write, and those of another are refused.
 */
export async function shareMutexes(command, foreign) {
  const name = `platforms-mutexes-${process.pid}`;
  const survivor = new Peer(command);
  await survivor.expect(`open ${name} - 5000`, "1");
  for (let kills = 0; kills < 20; kills++) {
    const victim = new Peer(command);
    await victim.expect(`open ${name} - 5000`, "1");
    await victim.expect("put victim ready", "1");
    victim.ask("add count 100000000").catch(() => {}); // nothing waits for its end
    await survivor.expect("add count 50", "0");
    await victim.kill();
    await survivor.expect("add count 50", "0");
    await survivor.expect("verify", "0");
  }
  const refused = new Peer(foreign);
  await refused.expect(`open ${name} - 500`, "-10"); // incompatible
  await survivor.expect(`unlink ${name}`, "1");
  await survivor.expect("close", "0");
  for (const peer of [survivor, refused]) await peer.kill();
}
