/**
 * Which of the Zig tests run under valgrind and under qemu, and why the others do not.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const NAMED = "only where memory has no file without a name";
const SLOW = "takes minutes there, and runs with all checks in `zig build test`";
const KILLS = "kills processes under the tool, and counts how often: a storm, not a test of memory";
const TIME = "measures time";
/** valgrind refuses mappings beyond its own limit with another errno than the kernel. */
const LARGE = "maps as much as the machine allows, which is more than valgrind does";
const NO_ROBUST = "qemu has no robust lists, so nobody is told of a dead owner";

/** Pieces of the names of tests that valgrind does not run, each with the reason. */
export const VALGRIND_LEAVES_OUT = [
  ["a region in a file with a name of ours", NAMED],
  ["abi_test.", LARGE],
  ["lifetime_test.", LARGE],
  ["an open that fails takes its new file back", LARGE],
  ["crash: a death after any store", SLOW],
  ["crash: deletes that promote", SLOW],
  ["a damaged segment gives errors", SLOW],
  ["snapshot: what it shows was there", SLOW],
  ["snapshot: a stripe that is recovered", SLOW],
  ["lock storm", KILLS],
  ["starves neither lockers nor writers", TIME],
  ["who is first in line and stopped", TIME],
];

/** As above, of qemu. */
export const QEMU_LEAVES_OUT = [
  ["a region in a file with a name of ours", NAMED],
  ["a mutex whose owner's thread ended", NO_ROBUST],
  ["a stripe whose owner was killed", NO_ROBUST],
  ["lock storm", NO_ROBUST],
  ["openDescriptor opens the file once more", "qemu translates the access mode of open"],
  ["a file cut short ends copies early", "qemu has no process_vm_readv"],
  ["crash_test.", NO_ROBUST],
  ["snapshot: what it shows was there", SLOW],
  ["snapshot: a stripe that is recovered", SLOW],
  ["starves neither lockers nor writers", TIME],
  ["who is first in line and stopped", TIME],
];

/** The names of all Zig tests, as the compiler's filter knows them. */
export function testNames(directory) {
  const names = [];
  for (const file of readdirSync(directory).sort()) {
    if (!file.endsWith(".zig")) continue;
    const text = readFileSync(join(directory, file), "utf8");
    const module = file.replace(/\.zig$/, "");
    for (const [, title, name] of text.matchAll(/^test (?:"(.*)"|(\w+)) \{$/gm)) {
      names.push(title ? `${module}.test.${title}` : `${module}.decltest.${name}`);
    }
  }
  return names;
}
