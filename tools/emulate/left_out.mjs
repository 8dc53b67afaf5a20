/** Which tests of the suites do not run under qemu, or under wine, and why. */

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
const QEMU = [
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

// A segment is renamed while its creator has it open, and wine then says that the creator's file is
// on no volume: not the one that others have open. On Windows it is.
const NO_VOLUME = "wine does not know the volume of an open file that was renamed";
const NO_PLACEHOLDERS = "wine has no placeholders, so a thread can take another's addresses";
const SLOW = "eight processes must have opened a map within two seconds; wine can need more";
const STDERR = "Bun complains on stderr of what wine calls its directories";

const WINE = [
  ...[
    ["errors", 'SharedMemoryError "Locked" says that this thread itself is in the way'],
    ["lifecycle", "SharedMap.unlink() leaves attached handles at work on the old memory"],
    ["lock", "SharedMap.lock() and tryLock() beside a line of tasks"],
    ["lock", "SharedMap.update() is Locked where fn has locked through another handle"],
    ["lock", "SharedMap: every write through another handle is Locked, and changes nothing"],
    ["lock_processes", "lock() does not wait for a task of its isolate that is first in line"],
    ["lock_processes", "tryLock() does not overtake a task that waits for another process"],
    ["value", "SharedValue.open() has the modes of maps"],
  ].map(([suite, piece]) => ({ suite, piece, why: NO_VOLUME })),
  {
    suite: "lock_processes",
    piece: "Lock keeps threads of one process apart",
    why: NO_PLACEHOLDERS,
  },
  {
    suite: "seed",
    piece: "A-36 open() never finds a half-made map, so nobody waits 5 s for one",
    why: SLOW,
  },
  {
    suite: "seed_mmap_source",
    piece: "B-83 a process that ends takes nothing from the others",
    why: STDERR,
  },
];

/** Those that do not run under this emulator, on this runtime with this lock. */
export function leftOutOf(emulator, runtime, lock) {
  const all = emulator === "wine" ? WINE : QEMU;
  return all.filter(({ on, lock: only }) => (on ?? runtime) === runtime && (only ?? lock) === lock);
}
