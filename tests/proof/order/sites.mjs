/**
 * The ordering sites of the library in machine code for arm64: which instruction every call of
 * `storeRelease`, `loadAcquire`, `storeFence` and so on in `zig/` became, wherever it was inlined.
 *
 * Debug information says which source lines an instruction stands for, the innermost first: one in
 * `atomics.zig`, and then the line that called it. A site is known by a piece of its line, without
 * the name of the function it calls, so that a site which calls another one is missed and not
 * forgotten.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** What each function of `atomics.zig` has to become, whole: one of each pattern. */
export const KINDS = {
  storeRelease: [/^stlr$/],
  loadAcquire: [/^lda(?:p)?r$/],
  storeFence: [/^dmb ishst$/],
  loadFence: [/^dmb ishld$/],
  compareAndSwap: [/^(?:ldaxr|casal)$/, /^(?:stlxr|casal)$/],
  increment: [/^(?:ldaxr|ldxr|ldaddl|ldaddal)$/, /^(?:stlxr|ldaddl|ldaddal)$/],
};

/** The last two names of its path, by which debug information is looked at here. */
const ATOMICS = "zig/atomics.zig";

/** The sites the design rests on: file, a piece of the line, and what must be there. */
export const NAMED = [
  ["map/stripe_op.zig", "&table.slots[cursor.probe.index], slot)", "storeRelease"],
  ["map/put_fast.zig", "&cached.slots[probe.index], slot)", "storeRelease"],
  ["map/put_fast.zig", "map.lock.admits(atomics.", "loadAcquire"],
  ["map/stripe_op.zig", "&op.stripe.table, word)", "storeRelease"],
  ["map/write.zig", "&op.stripe.table, 0)", "storeRelease"],
  ["map/stripe_op.zig", "&op.stripe.table, 0)", "storeRelease"],
  ["map/stripe_op.zig", "&table.slots[index], Slot.tombstone)", "storeRelease"],
  ["map/stripe_op.zig", "&table.slots[at], Slot.empty)", "storeRelease"],
  ["stripe/heap.zig", "&stripe.generation, atomics.load(&stripe.generation) +% 1)", "storeRelease"],
  [
    "stripe/heap.zig",
    "after:&stripe.generation, atomics.load(&stripe.generation) +% 1)",
    "storeFence",
  ],
  [
    "stripe/recovery.zig",
    "&stripe.generation, atomics.load(&stripe.generation) +% 2)",
    "storeRelease",
  ],
  [
    "stripe/recovery.zig",
    "after:&stripe.generation, atomics.load(&stripe.generation) +% 2)",
    "storeFence",
  ],
  [
    "stripe/recovery.zig",
    "// a snapshot that sees a store of ours sees `begin` moved",
    "storeFence",
  ],
  ["stripe/space.zig", "&stripe.begin, count)", "storeRelease"],
  ["stripe/space.zig", "after:&stripe.begin, count)", "storeFence"],
  ["stripe/recovery.zig", "&stripe.end, count)", "storeRelease"],
  ["stripe/recovery.zig", "after:&stripe.end, count)", "storeRelease"],
  ["map/read.zig", "const generation = atomics.", "loadAcquire"],
  ["map/iterate.zig", "const generation = atomics.", "loadAcquire"],
  ["map/snapshot.zig", "const generation = atomics.", "loadAcquire"],
  ["map/read.zig", "const word = atomics.", "loadAcquire"],
  [
    "map/read.zig",
    "before:return atomics.load(&stripe.generation) -% generation <= 1",
    "loadFence",
  ],
  ["stripe/table.zig", "slot.* = atomics.", "loadAcquire"],
  ["map/iterate.zig", "atomics.loadAcquire(&stripe.begin);", "loadAcquire"],
  ["map/iterate.zig", "atomics.loadAcquire(&stripe.end)", "loadAcquire"],
  ["map/iterate.zig", ".table = atomics.", "loadAcquire"],
  ["map/iterate.zig", "&table.slots[(home + i) & table.mask()])", "loadAcquire"],
  ["map/snapshot.zig", "(&stripe.end);", "loadAcquire"],
  ["map/snapshot.zig", "(&stripe.begin);", "loadAcquire"],
  ["stripe/table.zig", "const word = atomics.", "loadAcquire"],
  ["map/stripe_op.zig", "map.lock.admits(atomics.", "loadAcquire"],
  ["map/stripe_op.zig", "(&map.segment.header().lock_word);", "loadAcquire"],
  ["lock/user_lock.zig", "&header.lock_word, @bitCast(held), @bitCast(next))", "compareAndSwap"],
  ["lock/user_lock.zig", "(lock_word, bits, @bitCast(next))", "compareAndSwap"],
  ["lock/user_lock.zig", "&lock.target.header.?.lock_word, @bitCast(next))", "storeRelease"],
  ["segment/segment.zig", "&segment.header().committed, to); // pairs", "storeRelease"],
  ["stripe/pool.zig", "&stripe.chunks, offset)", "storeRelease"],
  ["stripe/pool.zig", "(link, chunk.next)", "storeRelease"],
];

/** The line numbers, from 1, that a site's piece stands for. */
function linesOf(text, piece) {
  const [, side, rest] = /^(?:(after|before):)?(.*)$/.exec(piece);
  const lines = text.split("\n");
  const step = { after: 1, before: -1 }[side] ?? 0;
  return lines.flatMap((line, index) => {
    if (!line.includes(rest)) return [];
    let at = index + step;
    while (step !== 0 && /^\s*\/\//.test(lines[at])) at += step; // comments in between
    return [at + 1];
  });
}

/** Every call of a function of `atomics.zig` that orders something, outside tests. */
function calls(root) {
  const found = [];
  for (const file of readdirSync(join(root, "zig"), { recursive: true }).sort()) {
    if (!file.endsWith(".zig") || /_test\.zig$|^testing\/|^(?:atomics|root)\.zig$/.test(file)) {
      continue;
    }
    const text = readFileSync(join(root, "zig", file), "utf8")
      .replace(/^test\b[^]*?^}$/gm, (body) => body.replace(/[^\n]/g, " "));
    for (const [index, line] of text.split("\n").entries()) {
      const code = line.replace(/\/\/.*/, "");
      for (const [, kind] of code.matchAll(/\batomics\.(\w+)\(/g)) {
        if (kind in KINDS) found.push({ file, line: index + 1, kind });
      }
    }
  }
  return found;
}

/**
 * All sites that must be in the machine code; those of no line are faults by themselves. And the
 * lines that make a new generation, and those where a reader looks at it again.
 */
export function sites(root) {
  const all = calls(root);
  const faults = [];
  for (const [file, piece, kind] of NAMED) {
    const lines = linesOf(readFileSync(join(root, "zig", file), "utf8"), piece);
    if (lines.length === 0) faults.push(`zig/${file}: nothing like "${piece}" is there`);
    for (const line of lines) {
      if (!all.some((site) => site.file === file && site.line === line && site.kind === kind)) {
        all.push({ file, line, kind });
      }
    }
  }
  const where = (files, pattern) =>
    files.flatMap((file) =>
      readFileSync(join(root, "zig", file), "utf8").split("\n")
        .flatMap((text, index) => pattern.test(text) ? [{ file, line: index + 1 }] : [])
    );
  return {
    sites: all,
    faults,
    bumps: where(["stripe/heap.zig", "stripe/recovery.zig"], /\(&stripe\.generation, .* \+% \d\)/),
    looks: where(
      ["map/read.zig"],
      /atomics\.load\(&stripe\.generation\) -% generation/,
    ),
  };
}

/** The instructions of a disassembly, in order: address, what it is, and its operands. */
export function instructions(disassembly) {
  const found = [];
  for (const [, address, name, operands] of disassembly.matchAll(LINE)) {
    const isFence = name === "dmb";
    found.push({
      address: Number.parseInt(address, 16),
      name: isFence ? `dmb ${operands.trim()}` : name,
      operands,
    });
  }
  return found;
}
const LINE = /^ *([0-9a-f]+):\s+([a-z][\w.]*)[ \t]*(.*)$/gm;

/** What orders, or could. */
export const ORDERING =
  /^(?:dmb .*|stlx?r[bh]?|lda(?:p|x)?r[bh]?|(?:cas|ldadd|swp)\w*|[ls][dt]xr)$/;

/** Adds to instructions the source lines they stand for, innermost first, as the tool says them. */
export function attribute(code, symbolized) {
  const blocks = symbolized.trim().split("\n\n");
  if (blocks.length !== code.length) throw new Error("the symbolizer lost count");
  for (const [index, block] of blocks.entries()) {
    const lines = block.split("\n").filter((_, at) => at % 2 === 1);
    code[index].frames = lines.map((line) => {
      const [, file, number] = /\/((?:[\w.-]+\/)?[\w.-]+):(\d+):\d+$/.exec(line) ?? [];
      return { file, line: Number(number) };
    });
  }
}

const stands = (instruction, file, line) =>
  instruction.frames.some((frame) => frame.file === file && frame.line === line);

/** Whether an instruction was written in `atomics.zig` and called directly from that line. */
function calledFrom(instruction, { file, line }) {
  const caller = instruction.frames.find((frame) => frame.file !== ATOMICS);
  return instruction.frames[0]?.file === ATOMICS && caller?.file === file &&
    caller.line === line;
}

/** What is wrong with the machine code of these sites, and how many instructions were looked at. */
export function judge(code, wanted) {
  const ordering = code.filter(({ name }) => ORDERING.test(name));
  const faults = [];
  let looked = 0;
  for (const site of wanted) {
    const here = ordering.filter((instruction) => calledFrom(instruction, site));
    for (const pattern of KINDS[site.kind]) {
      const count = here.filter(({ name }) => pattern.test(name)).length;
      looked += count;
      if (count === 0) {
        faults.push(`zig/${site.file}:${site.line}: ${site.kind} became nothing like ${pattern}`);
      }
    }
  }
  return { faults, looked };
}

const isStore = ({ name, operands }) => /^st/.test(name) && !/\[sp\b/.test(operands);

/** Of each bump of a generation: the store fence comes before any other store, or call. */
export function judgeBumps(code, bumps) {
  const faults = [];
  let looked = 0;
  for (const [index, instruction] of code.entries()) {
    if (instruction.name !== "stlr") continue;
    if (!bumps.some((site) => calledFrom(instruction, site))) continue;
    looked++;
    const next = code.slice(index + 1).find((other) =>
      other.name === "dmb ishst" || isStore(other) || /^(?:bl|blr|ret)$/.test(other.name)
    );
    if (next?.name !== "dmb ishst") {
      faults.push(`at ${instruction.address.toString(16)}: ${next?.name} follows a new generation`);
    }
  }
  return { faults, looked };
}

/**
 * Of each last look of a reader: nothing is loaded from a block between the fence and it. What lies
 * on the stack is private.
 */
export function judgeLastLooks(code, looks) {
  const faults = [];
  let looked = 0;
  for (const [index, instruction] of code.entries()) {
    if (!/^ldu?r$/.test(instruction.name)) continue;
    if (!looks.some((site) => calledFrom(instruction, site))) continue;
    looked++;
    const before = code.slice(Math.max(0, index - 200), index).reverse().find((other) =>
      other.name === "dmb ishld" || /^(?:ret|b)$/.test(other.name) ||
      (other.frames.some(({ file }) =>
        /^stripe\/(?:table|entry)\.zig$/.test(file) || file === ATOMICS
      ) &&
        /^ld/.test(other.name) && !/\[sp\b/.test(other.operands) &&
        !looks.some(({ file, line }) => stands(other, file, line)))
    );
    if (before?.name !== "dmb ishld") {
      faults.push(`at ${instruction.address.toString(16)}: ${before?.name} before a last look`);
    }
  }
  return { faults, looked };
}
