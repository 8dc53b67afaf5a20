/** What a process says of the memory files it has open, and of those that are mapped. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

const OURS = /\/memfd:shmap-[0-9a-f]{32} /;

/** The descriptors of our memory files. */
export function memoryFiles(): number[] {
  return readdirSync("/proc/self/fd").filter((file) => {
    try {
      return OURS.test(readlinkSync(`/proc/self/fd/${file}`));
    } catch {
      return false; // the one that was open to list them
    }
  }).map(Number);
}

/** How many mappings of our memory files there are. */
export function mapped(): number {
  return readFileSync("/proc/self/maps", "utf8").split("\n").filter((line) => OURS.test(line))
    .length;
}

/** An error as JSON has it. */
export function errorOf(error: unknown): Record<string, unknown> {
  const { name, message, code } = error as Record<string, unknown>;
  return { name, message, code };
}
