/**
 * What can be done with the segments of a directory without opening them: removing the name of one,
 * and listing them.
 */
import { records } from "../ffi/abi.ts";
import { readRecord } from "../ffi/fields.ts";
import { openNative } from "../ffi/native.ts";
import { DATA, FAULT, KEY } from "../ffi/scratch.ts";
import { faultError } from "./handle.ts";
import { checkName, DEFAULT_TIMEOUT, labelOf, requestDirectory } from "./options.ts";
import type { SegmentKind } from "./options.ts";
import { padded } from "./records.ts";

/**
 * One segment of a directory.
 *
 * @example
 * ```ts
 * import { type SegmentInfo, SharedMap } from "shmap";
 * import assert from "node:assert/strict";
 * using map = SharedMap.open("shmap-example-info").set("a", 1);
 * const isOurs = ({ name }: SegmentInfo) => name === "shmap-example-info";
 * assert.equal(SharedMap.list().find(isOurs)?.entries, 1);
 * map.unlink();
 * ```
 */
export interface SegmentInfo {
  /** Its name, which is also the name of its file. */
  name: string;
  /** What it holds. */
  kind: "map" | "value" | "region";
  /** How many bytes of memory or disk it takes. */
  bytes: number;
  /** How many entries it has. */
  entries: number;
  /** Whether any process has it open. */
  inUse: boolean;
  /** Whether a process holds its lock. */
  locked: boolean;
  /** The user id of its owner. */
  owner: number;
  /** When it was created. */
  created: Date;
}

/** Removes the name of a segment; false if there was none. */
export function unlinkSegment(
  kind: SegmentKind,
  name: string,
  options: { directory?: string | undefined },
): boolean {
  checkName(name);
  const { directory, where } = requestDirectory(options, ["read", "write"]);
  const library = openNative();
  const directoryLength = DATA.write(directory);
  const nameLength = KEY.write(name);
  const result = library.shm_segment_unlink_name(
    DATA.bytes,
    directoryLength,
    KEY.bytes,
    nameLength,
    kind.flags,
    DEFAULT_TIMEOUT,
    FAULT.bytes,
  );
  if (result >= 0) return result === 1;
  const wanted = { kind: `a ${kind.noun}` };
  throw faultError(result, "unlink", { thing: labelOf(kind, name), where, wanted });
}

/** Every segment in a directory. */
export function listSegments(options: { directory?: string | undefined }): SegmentInfo[] {
  const { directory, where } = requestDirectory(options, ["read"]);
  const library = openNative();
  const directoryLength = KEY.write(directory);
  for (;;) {
    const length = library.shm_segment_list(
      KEY.bytes,
      directoryLength,
      DATA.bytes,
      DATA.bytes.length,
      FAULT.bytes,
    );
    if (length < 0) {
      DATA.release();
      throw faultError(length, "list", { thing: "the segments", where });
    }
    if (length <= DATA.bytes.length) return readList(length);
    DATA.end = 0;
    DATA.reserve(2 * length); // more than needed now: others may create segments meanwhile
  }
}

const KINDS = ["map", "value", "region"] as const;
const LISTED_BYTES = records.Listed.bytes;

function readList(length: number): SegmentInfo[] {
  const infos: SegmentInfo[] = [];
  const { view, text } = DATA;
  for (let at = 0; at < length;) {
    const listed = readRecord("Listed", view, at);
    const nameEnd = at + LISTED_BYTES + listed.nameLen;
    infos.push({
      name: text.utf8Slice(at + LISTED_BYTES, nameEnd),
      kind: KINDS[listed.kind] ?? "region",
      bytes: listed.bytes,
      entries: listed.entries,
      inUse: listed.inUse !== 0,
      locked: listed.locked !== 0,
      owner: listed.owner,
      created: new Date(listed.createdMs),
    });
    at = padded(nameEnd);
  }
  DATA.release();
  return infos;
}
