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
/** Numbers in the table stay below this, with room for as many objects as memory has. */
const BASE_MOST = 2 ** 30;

const leaves: (object | undefined)[] = [];
let prints = new Int32Array(1024);
/**
 * `base` and an index into `leaves`, from one on, at the places that prints lead to. What is not
 * above `base` is of a structure before this one: so nothing is wiped between two.
 */
let places = new Int32Array(2048);
let base = 0;
let count = 0;
let all: Set<object> | undefined;

/** Notes an object without objects inside; says whether it was noted before. */
export function isRepeated(leaf: object, print: number): boolean {
  if (all !== undefined) return all.size === all.add(leaf).size;
  if (count < FEW) {
    for (let i = 0; i < count; i += 1) if (leaves[i] === leaf) return true;
  } else {
    if (count === FEW) layAll();
    const mask = places.length - 1;
    let alike = 0;
    let at = print & mask;
    for (; places[at] > base; at = at + 1 & mask) {
      if (leaves[places[at] - base - 1] === leaf) return true;
      alike += 1;
    }
    if (alike > ALIKE_MOST) {
      all = new Set(leaves.slice(0, count) as object[]);
      return all.size === all.add(leaf).size;
    }
    places[at] = base + count + 1;
  }
  leaves[count] = leaf;
  prints[count] = print;
  count += 1;
  if (count === prints.length) enlarge();
  return false;
}

/** Lays all that were noted so far. */
function layAll(): void {
  const mask = places.length - 1;
  for (let i = 0; i < count; i += 1) {
    let at = prints[i] & mask;
    while (places[at] > base) at = at + 1 & mask;
    places[at] = base + i + 1;
  }
}

function enlarge(): void {
  const more = new Int32Array(4 * prints.length);
  more.set(prints);
  prints = more;
  places = new Int32Array(2 * more.length);
  layAll();
}

/** Lets go of all objects, for the next structure. */
export function forgetLeaves(): void {
  all = undefined;
  for (let i = 0; i < count; i += 1) leaves[i] = undefined;
  base += count;
  count = 0;
  if (leaves.length > KEPT_MOST) {
    leaves.length = 0;
    prints = new Int32Array(1024);
    places = new Int32Array(2048);
    base = 0;
  } else if (base > BASE_MOST) {
    places.fill(0);
    base = 0;
  }
}
