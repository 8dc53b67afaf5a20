/** What a core dump of a process would hold: nothing that it shares with others. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Mmap, SharedMap } from "../../mod.ts";
import {
  atEnd,
  freshAnonymous,
  freshDirectory,
  freshMap,
  freshValue,
  NEEDS,
  testUnless,
} from "../support/support.ts";

interface Mapping {
  readonly what: string;
  readonly flags: string[];
}

/** What is mapped here, with the kernel's flags of it: `dd` is left out of dumps. */
function mappings(): Mapping[] {
  const found: { what: string; flags: string[] }[] = [];
  for (const line of readFileSync("/proc/self/smaps", "utf8").split("\n")) {
    const head = /^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)$/.exec(line);
    if (head) found.push({ what: head[1], flags: [] });
    const flags = /^VmFlags: (.*)$/.exec(line);
    if (flags) found.at(-1)!.flags = flags[1].trim().split(" ");
  }
  return found;
}

testUnless(NEEDS.proc, "no core dump holds what is shared", {}, (t) => {
  const map = freshMap<string>(t).set("secret", "of all who have it open");
  const value = freshValue<string>(t);
  value.set("too");
  using reader = SharedMap.open<string>(map.name, { readonly: true });
  assert.equal(reader.get("secret"), map.get("secret"));
  const file = join(freshDirectory(t), "region");
  writeFileSync(file, "x".repeat(5000));
  const open = { protection: "read-write" } as const;
  for (const sharing of ["shared", "private"] as const) {
    const region = Mmap.open(file, { ...open, sharing });
    atEnd(t, () => region.close());
    region.write("hello");
  }
  freshAnonymous<string>(t).set("a", "b");
  const memory = Mmap.anonymous(5000);
  atEnd(t, () => memory.close());
  for (let i = 0; i < 3000; i += 1) map.set(`key ${i}`, "it grows");
  assert.equal(Object.keys(map.toObject()).length, 3001);

  const all = mappings();
  // A file that was made without a name is shown by its number, in the same directory.
  const expected: Record<string, number> = { "/dev/shm/": 3, "/memfd:shmap ": 2, [file]: 2 };
  for (const [start, least] of Object.entries(expected)) {
    const ours = all.filter(({ what }) => what.startsWith(start));
    assert.ok(ours.length >= least, `${ours.length} mappings of ${start}`);
    for (const { what, flags } of ours) assert.ok(flags.includes("dd"), `${what}: ${flags}`);
  }
  assert.ok(all.some(({ flags }) => !flags.includes("dd")), "the kernel shows the flag");
});
