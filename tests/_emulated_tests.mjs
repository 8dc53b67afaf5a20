/** Which tests of the suites do not run under qemu, and why. */

const NO_RESIZABLE = "Bun cannot make a resizable buffer under qemu";
const NO_GUARDED_COPIES = "qemu has no process_vm_readv and process_vm_writev";
const TIME = "measures time";
const TOO_FEW = "of the few rounds there is time for, none may meet another process";
const NO_ROBUST_LISTS = "qemu has no robust lists, which tell of an owner's death";
const NO_MUSL_MUTEX = "without robust lists, which qemu does not have, musl refuses its mutexes";
const ROBUST = "runs with the usual lock";
const ADDRESSES_END = "qemu itself stops for good where addresses run out";
const TOO_OFTEN = "opens thousands of segments, and qemu keeps a record of every page of each";
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
  { suite: "seed", piece: "A-71 open() throws when the mapping is refused", why: ADDRESSES_END },
  {
    suite: "kernel_lock",
    piece: "is refused to a process of another libc",
    why: NO_MUSL_MUTEX,
    lock: "usual",
  },
  { suite: "lock_processes", piece: '(lock: "robust")', why: ROBUST, lock: "kernel" },
  ...[
    'once (lock: "robust")',
    'kills of its holders (lock: "robust")',
    "of a Worker that held it",
    "Lock outlives the garbage collection of its handle",
  ].map((piece) => ({
    suite: "lock_processes",
    piece,
    why: NO_ROBUST_LISTS,
    lock: "usual",
  })),
  { suite: "lifecycle", piece: "leaves no trace of handles that were closed", why: TOO_OFTEN },
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
