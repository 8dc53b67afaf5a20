/** A runtime for tests of loading. */
import type { Backend } from "../../src/ffi/backend.ts";

/** A runtime that may do all, has no variables and opens nothing, but for what is given. */
export function testBackend(given: Partial<Backend>): Backend {
  return {
    name: "Test",
    isCurrent: true,
    canWait: false,
    hasOneRealm: false,
    evaluatesAgain: false,
    atIsolateEnd: () => {},
    engine: "V8",
    open: () => {
      throw new Error("no such library");
    },
    mayLoad: () => true,
    requestLoad: () => false,
    mayAccess: () => true,
    readVariable: () => undefined,
    ...given,
  };
}
