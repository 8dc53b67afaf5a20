/** Which tests of the suites do not run under qemu, and why. */

const NO_RESIZABLE = "Bun cannot make a resizable buffer under qemu";
const NO_GUARDED_COPIES = "qemu has no process_vm_readv and process_vm_writev";
const TIME = "measures time";
const TOO_FEW = "of the few rounds there is time for, none may meet another process";
const TOO_LARGE = "maps 32 TiB, and qemu would keep a record of every page";

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
  { suite: "lock", piece: "ends at its deadline, wherever in line", why: TIME },
  { suite: "mmap_files", piece: "open() that fails leaves nothing behind", why: TOO_LARGE },
  { suite: "mmap_files", piece: "copies race with somebody who cuts", why: TOO_FEW },
  { suite: "mmap_files", piece: "a private region survives in", why: NO_GUARDED_COPIES },
  { suite: "mmap_files", piece: "a full file system is an error in", why: NO_GUARDED_COPIES },
];

/** Those that do not run on this runtime with this lock. */
export function leftOutOf(runtime, lock) {
  return LEFT_OUT.filter(({ on, lock: only }) =>
    (on ?? runtime) === runtime && (only ?? lock) === lock
  );
}
