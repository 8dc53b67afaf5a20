/**
 * Whether an object is met twice in one structure. A set of all objects takes longer than to write
 * them. It is enough to find those again that have no objects inside: of two ways to an object,
 * both lead on to one of these. They are looked up by a print of the bytes that were written for
 * them, which are the same the second time.
 */

/** Up to here each is compared. */
const FEW = 12;
/** As many of one print are compared; with more, all go into a set. */
const ALIKE_MOST = 16;
/** Larger tables are not kept. */
const KEPT_MOST = 4096;

const leaves: (object | undefined)[] = [];
let prints = new Int32Array(1024);
/** Indices into `leaves`, from one on, at the places that their prints lead to. */
let places = new Int32Array(2048);
let count = 0;
let all: Set<object> | undefined;

/** Notes an object without objects inside; says whether it was noted before. */
export function isRepeated(leaf: object, print: number): boolean {
  if (all !== undefined) return all.size === all.add(leaf).size;
  if (count < FEW) {
    for (let i = 0; i < count; i += 1) if (leaves[i] === leaf) return true;
  } else {
    if (count === FEW) { for (let i = 0; i < FEW; i += 1) lay(i); }
    const mask = places.length - 1;
    let alike = 0;
    for (let at = print & mask; places[at] !== 0; at = at + 1 & mask) {
      if (leaves[places[at] - 1] === leaf) return true;
      alike += 1;
    }
    if (alike > ALIKE_MOST) {
      all = new Set(leaves.slice(0, count) as object[]);
      return all.size === all.add(leaf).size;
    }
  }
  leaves[count] = leaf;
  prints[count] = print;
  count += 1;
  if (count > FEW) lay(count - 1);
  if (count === prints.length) enlarge();
  return false;
}

function lay(index: number): void {
  const mask = places.length - 1;
  let at = prints[index] & mask;
  while (places[at] !== 0) at = at + 1 & mask;
  places[at] = index + 1;
}

function enlarge(): void {
  const more = new Int32Array(4 * prints.length);
  more.set(prints);
  prints = more;
  places = new Int32Array(2 * more.length);
  for (let i = 0; i < count; i += 1) lay(i);
}

/** Lets go of all objects, for the next structure. */
export function forgetLeaves(): void {
  if (all !== undefined) {
    all = undefined;
    places.fill(0);
  } else if (count >= FEW) {
    const mask = places.length - 1;
    for (let i = 0; i < count; i += 1) {
      // Every place from there to the next gap is of this structure, too.
      for (let at = prints[i] & mask; places[at] !== 0; at = at + 1 & mask) places[at] = 0;
    }
  }
  for (let i = 0; i < count; i += 1) leaves[i] = undefined;
  count = 0;
  if (leaves.length > KEPT_MOST) {
    leaves.length = 0;
    prints = new Int32Array(1024);
    places = new Int32Array(2048);
  }
}
