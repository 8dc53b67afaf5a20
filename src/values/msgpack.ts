/**
 * Reads the structures that earlier versions stored: MessagePack, as `msgpackr` wrote it.
 */
import { Packr } from "msgpackr/pack";

/**
 * What a structure consists of. `plain`: plain objects, arrays and primitives, no object twice.
 * `full`: other objects too, but no errors. `withErrors`: errors too.
 */
export type Shape = "plain" | "full" | "withErrors";

const unpacker = new Packr({ structuredClone: true, moreTypes: true, copyBuffers: true });
const plainUnpacker = new Packr({ useRecords: false });

/** The value that the unpacker gives for 0xc1, a byte that MessagePack never uses. */
export const NEVER_USED: unknown = unpacker.unpack(Uint8Array.of(0xc1));

/** The structure packed in `bytes` from `start` to `end`. Throws any error for damaged bytes. */
export function unpack(bytes: Uint8Array, start: number, end: number, shape: Shape): unknown {
  const place = start === 0 ? end : { start, end };
  if (shape === "plain") return plainUnpacker.unpack(bytes, place);
  const value: unknown = unpacker.unpack(bytes, place);
  return shape === "withErrors" ? removeAddedCauses(value, new Set()) : value;
}

/** Deletes the undefined `cause` that the unpacker gives to errors without one. */
function removeAddedCauses(value: unknown, seen: Set<unknown>): unknown {
  if (typeof value !== "object" || value === null || seen.has(value)) return value;
  seen.add(value);
  if (value instanceof Error) {
    if (value.cause === undefined) delete value.cause;
    else removeAddedCauses(value.cause, seen);
  } else if (value instanceof Map) {
    for (const [key, entry] of value) {
      removeAddedCauses(key, seen);
      removeAddedCauses(entry, seen);
    }
  } else if (value instanceof Set) {
    for (const member of value) removeAddedCauses(member, seen);
  } else if (!ArrayBuffer.isView(value)) {
    for (const member of Object.values(value)) removeAddedCauses(member, seen);
  }
  return value;
}
