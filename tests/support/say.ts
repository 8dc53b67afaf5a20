/** How a process that may be killed at any moment tells how far it came. */
import { writeSync } from "node:fs";

const { Deno } = globalThis as unknown as {
  Deno?: { stdout: { writeSync(bytes: Uint8Array): number } };
};
const encoder = new TextEncoder();

/** Writes to stdout before it returns: what was written survives this process's death. */
export function say(text: string): void {
  let bytes: Uint8Array = encoder.encode(text);
  while (bytes.length > 0) {
    bytes = bytes.subarray(Deno ? Deno.stdout.writeSync(bytes) : writeWhenReady(bytes));
  }
}

function writeWhenReady(bytes: Uint8Array): number {
  try {
    return writeSync(1, bytes);
  } catch (error) {
    if ((error as { code?: string }).code === "EAGAIN") return 0;
    throw error;
  }
}
