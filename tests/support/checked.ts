/**
 * Values that prove themselves: each names its key and its sequence number and carries a checksum,
 * so a reader can tell a whole value from a mixture of two without knowing who wrote it.
 */

/** FNV-1a over the code units of `text` (Fowler, Noll, Vo). */
export function checksum(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  }
  return hash >>> 0;
}

/** The value of `sequence` under `key`, padded to about `bytes`; the same for the same input. */
export function checkedValue(key: string, sequence: number, bytes = 32): string {
  const head = `${key}|${sequence}|`;
  const letter = String.fromCharCode(97 + (sequence % 26));
  const body = head + letter.repeat(Math.max(0, bytes - head.length - 9));
  return `${body}|${checksum(body).toString(16).padStart(8, "0")}`;
}

/** The sequence number in a whole value of `key`; throws for a torn or a foreign one. */
export function checkedSequence(key: string, value: unknown): number {
  if (typeof value !== "string") throw new Error(`value of "${key}" is ${typeof value}`);
  const cut = value.lastIndexOf("|");
  const body = value.slice(0, cut);
  const isWhole = value.slice(cut + 1) === checksum(body).toString(16).padStart(8, "0");
  const [name, sequence] = body.split("|", 2);
  if (!isWhole || name !== key) {
    throw new Error(`torn value of "${key}": ${value.length} units, ${value.slice(0, 120)}`);
  }
  return Number(sequence);
}
