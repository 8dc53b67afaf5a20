/**
 * Runs the suites over segments with kernel locks: with SHMAP_TEST_LOCK=kernel, every map a test or
 * its child creates without saying which lock gets `lock: "kernel"`.
 */
import process from "node:process";
import { SharedMap } from "../../mod.ts";

type Options = { lock?: "robust" | "kernel"; mode?: string; readonly?: boolean };

/** The lock of what the tests create. */
export const LOCK: "robust" | "kernel" = isAskedFor() ? "kernel" : "robust";

function isAskedFor(): boolean {
  try {
    return process.env.SHMAP_TEST_LOCK === "kernel";
  } catch {
    return false; // a child without the permission to look, as most are
  }
}

/** Options that state the lock of this run, unless they say otherwise or only attach. */
function withLock<T extends Options>(options: T = {} as T): T {
  const isAttaching = options?.readonly || options?.mode === "attach";
  const isOpen = typeof options === "object" && options !== null && options.lock === undefined;
  return LOCK === "kernel" && isOpen && !isAttaching ? { ...options, lock: "kernel" } : options;
}

if (LOCK === "kernel") {
  const { open, anonymous } = SharedMap;
  SharedMap.open = (name, options) => open.call(SharedMap, name, withLock(options)) as never;
  SharedMap.anonymous = (options) => anonymous.call(SharedMap, withLock(options)) as never;
}
