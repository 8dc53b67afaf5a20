/**
 * Which tests do not run where, and why: those of the suites under qemu and wine, and the Zig tests
 * under valgrind, qemu and musl and in the quick loop. An entry that fits no test is an error.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join, sep } from "node:path";
import { ROOT } from "./process.mjs";

const NO_RESIZABLE = "Bun cannot make a resizable buffer under qemu";
const NO_GUARDED_COPIES = "qemu has no process_vm_readv and process_vm_writev";
const TIME = "measures time";
const KILLS = "kills processes under the tool, and counts how often: a storm, not a test of memory";
const UNEXPLAINED = "its child ends with valgrind's own exit code, and why is not known yet";
const NAMED = "only where memory has no file without a name";
const ENUMERATES = "takes minutes there, and runs with all checks in `npm test`";
/** valgrind refuses mappings beyond its own limit with another errno than the kernel. */
const LARGE = "maps as much as the machine allows, which is more than valgrind does";
const NO_ATFORK = "a static program, as the tests are, has no pthread_atfork of musl's";
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
  { suite: "mmap_files", piece: "copies race with a process that cuts", why: TOO_FEW },
  { suite: "mmap_files", piece: "a private region survives in", why: NO_GUARDED_COPIES },
  { suite: "mmap_files", piece: "a full file system is an error in", why: NO_GUARDED_COPIES },
];

// A segment is renamed while its creator has it open, and wine then says that the creator's file is
// on no volume: not the one that others have open. On Windows it is.
const NO_VOLUME = "wine does not know the volume of an open file that was renamed";
const NO_PLACEHOLDERS = "wine has no placeholders, so a thread can take another's addresses";
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

/** The Zig tests that try every order, every store or every byte, or measure time. */
const LONG = [
  ["a damaged segment gives errors", ENUMERATES],
  ["crash:", ENUMERATES],
  ["snapshot: what it shows was there", ENUMERATES],
  ["snapshot: a stripe that is recovered", ENUMERATES],
];
const TIMED = [
  ["starves neither lockers nor writers", TIME],
  ["who is first in line and stopped", TIME],
];

/** Pieces of the names of Zig tests, each with the reason, by where they do not run. */
export const ZIG_LEFT_OUT = {
  quick: [
    ...LONG,
    ...TIMED,
    ["lock storm", ENUMERATES],
    ["a stripe whose owner was killed", ENUMERATES],
    ["a process that locks a file again at once", TIME],
  ],
  valgrind: [
    ...LONG,
    ...TIMED,
    ["a region in a file with a name of ours", NAMED],
    ["abi_test.", LARGE],
    ["isolate_end_test.", LARGE],
    ["an open that fails takes its new file back", LARGE],
    ["stays out of core dumps", "the kernel reports other flags of mappings made under valgrind"],
    ["lock storm", KILLS],
    ["a stripe whose owner was killed", KILLS],
    ["of a hundred processes that take one key", KILLS],
    ["eight processes that count, some of them killed", KILLS],
    ["space: a process killed at any store", KILLS],
    ["space: a late reader gets no signal", UNEXPLAINED],
    ["a process killed between a growth's mapping and its unlocks", KILLS],
    ["starve: a walk by class goes on where a table", ENUMERATES],
  ],
  qemu: [
    ...TIMED,
    ["a region in a file with a name of ours", NAMED],
    ["a mutex whose owner's thread ended", NO_ROBUST_LISTS],
    ["a stripe whose owner was killed", NO_ROBUST_LISTS],
    ["a process killed between a growth's mapping and its unlocks", NO_ROBUST_LISTS],
    ["a death during the wait is met by both ways of waiting", NO_ROBUST_LISTS],
    ["stays out of core dumps", "qemu does not say what a mapping is exempt from"],
    ["lock storm", NO_ROBUST_LISTS],
    ["of a hundred processes that take one key", NO_ROBUST_LISTS],
    ["eight processes that count, some of them killed", NO_ROBUST_LISTS],
    ["space: a process killed at any store", NO_ROBUST_LISTS],
    ["openDescriptor opens the file once more", "qemu translates the access mode of open"],
    ["a file cut short ends copies early", "qemu has no process_vm_readv"],
    ["crash_test.", NO_ROBUST_LISTS],
    ["snapshot: what it shows was there", ENUMERATES],
    ["snapshot: a stripe that is recovered", ENUMERATES],
  ],
  musl: [["a forked child has no handles", NO_ATFORK]],
};

/** The modules whose tests open no segment with the usual lock. */
const WITHOUT_MUTEX = (
  "abi.handles atomics layout lock.range_lock os.windows_owner region.region_test " +
  "segment.directory segment.unnamed_file status stripe.hash stripe.heap stripe.pool stripe.table"
).split(" ");

/** The names of all Zig tests, as the compiler's filter knows them. */
export function zigTests(root = ROOT) {
  return readdirSync(join(root, "zig"), { recursive: true }).sort().flatMap((file) => {
    if (!file.endsWith(".zig")) return [];
    const text = readFileSync(join(root, "zig", file), "utf8");
    const module = file.replace(/\.zig$/, "").replaceAll(sep, ".");
    return [...text.matchAll(/^test (?:"(.*)"|(\w+)) \{$/gm)].map(([, title, name]) =>
      title ? `${module}.test.${title}` : `${module}.decltest.${name}`
    );
  });
}

/** The names of the Zig tests that need no robust mutex. */
export function zigTestsWithoutMutex() {
  return zigTests().filter((name) => WITHOUT_MUTEX.includes(name.split(/\.(?:decl)?test\./)[0]));
}

/** Those of the Zig tests that run in such a place. */
export function zigTestsFor(place, names = zigTests()) {
  const left = ZIG_LEFT_OUT[place];
  for (const [piece] of left) {
    if (!zigTests().some((name) => name.includes(piece))) {
      throw new Error(`tools/left_out.mjs: no Zig test is called "${piece}"`);
    }
  }
  return names.filter((name) => !left.some(([piece]) => name.includes(piece)));
}

/** The compiler's arguments that choose these tests. */
export function filters(names) {
  return names.flatMap((name) => ["--test-filter", name]);
}
