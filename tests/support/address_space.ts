/** Processes that may have little address space. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { type Child, NEEDS, type Runtime, startChild, type TestContext } from "./support.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

/** Why no such limit can be set here. */
export const noLimit = NEEDS.proc ?? NEEDS.shell ??
  (spawnSync("prlimit", ["--version"]).status === 0 ? undefined : "there is no prlimit");

/** Lets a process have so many bytes of address space more than it has now. */
function limitAddressSpace(pid: number, more: number): void {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const bytes = Number(/VmSize:\s+(\d+) kB/.exec(status)![1]) * KIB + more;
  const { status: ended, stderr } = spawnSync("prlimit", [`--pid=${pid}`, `--as=${bytes}`], {
    encoding: "utf8",
  });
  assert.equal(ended, 0, stderr);
}

/** A child that may have little address space more than its runtime takes. */
export async function startLimited(
  t: TestContext,
  runtime: Runtime,
  more: number,
): Promise<Child> {
  const child = await startChild(t, runtime);
  // What it needs for the first map it needs for itself: code that was not called yet.
  await child.ask("anonymous", { id: "first", options: { maxBytes: MIB } });
  await child.ask("setBytes", { id: "first", key: "a", bytes: 100 });
  limitAddressSpace(child.pid, more);
  return child;
}
