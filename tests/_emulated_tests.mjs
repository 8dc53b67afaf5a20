/** Which tests of the suites do not run under qemu, and why. */

const NO_RESIZABLE = "Bun cannot make a resizable buffer under qemu";

/**
 * Pieces of the names of tests, each with its suite and the reason; `on` names the one runtime, and
 * `lock` the one lock, with which it is so.
 */
const LEFT_OUT = [
  {
    suite: "values",
    piece: "takes bytes over a buffer that is shared, resizable",
    why: NO_RESIZABLE,
    on: "bun",
  },
  { suite: "values", piece: "keeps a resizable array buffer", why: NO_RESIZABLE, on: "bun" },
];

/** Those that do not run on this runtime with this lock. */
export function leftOutOf(runtime, lock) {
  return LEFT_OUT.filter(({ on, lock: only }) =>
    (on ?? runtime) === runtime && (only ?? lock) === lock
  );
}
