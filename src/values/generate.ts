/**
 * Code for shapes that are used often: it reads or writes the members one after the other, without
 * a loop over their names. A runtime that was told to allow no code from strings does without.
 */
import { FALSE, FLOAT, INTEGER, NULL, STRING, STRING_MOST, TRUE, UNDEFINED } from "./format.ts";
import { type DecodeMembers, type EncodeMembers, MEMBER_ROOM, type Shape } from "./shapes.ts";

/** As often a shape is used before it gets code: for code that is seldom run a loop is faster. */
export const USES_BEFORE_CODE = 1000;
const NAMES_MOST = 64;
/** As many encoders, and as many decoders. */
const PROGRAMS_MOST = 64;

/** What an encoder says of an object with other names; it has written nothing then. */
export const OTHER_NAMES = -2;

let isAllowed = true;
const made = { encoders: 0, decoders: 0 };

/** A function made of `source` with these parameters; undefined if there shall be none. */
function make<Result>(
  { names }: Shape,
  kind: keyof typeof made,
  parameters: string[],
  source: string,
): ((...args: unknown[]) => Result) | undefined {
  if (!isAllowed || names.length === 0 || names.length > NAMES_MOST) return undefined;
  if (made[kind] >= PROGRAMS_MOST) return undefined;
  try {
    const program = new Function(...parameters, source) as (...args: unknown[]) => Result;
    made[kind] += 1;
    return program;
  } catch {
    isAllowed = false;
    return undefined;
  }
}

/** What generated encoders call. */
export interface EncoderParts {
  /** Writes a member that needs a call, and makes room for those behind it. */
  putMember(value: unknown, at: number, depth: number, place: unknown, room: number): number;
  /** The memory, which such a call may have replaced. */
  bytes(): Uint8Array;
  view(): DataView;
  /** Its `text` is set when a string is written that is read as text. */
  written: { text: boolean };
}

/** Code that writes objects of this shape, whose members lie in these places. */
export function makeEncoder(
  shape: Shape,
  places: readonly unknown[],
  parts: EncoderParts,
): EncodeMembers | undefined {
  const { names } = shape;
  const members = names.map((name, i) => memberEncoder(name, i, names.length - i));
  const source = `return function (record, at, depth, bytes, view) {
    let index = 0;
    for (const name in record) if (name !== names[index++]) return ${OTHER_NAMES};
    if (index !== ${names.length}) return ${OTHER_NAMES};
    let value, length = 0, end = 0, all = 0, text = false;${members.join("")}
    if (text) parts.written.text = true;
    return at;
  }`;
  const program = make<EncodeMembers>(
    shape,
    "encoders",
    ["names", "places", "parts", "hasOwn"],
    source,
  );
  return program?.(names, places, parts, Object.hasOwn);
}

function memberEncoder(name: string, index: number, left: number): string {
  const key = JSON.stringify(name);
  const call = `{
      at = parts.putMember(value, at, depth, places[${index}], ${MEMBER_ROOM * left});
      if (at < 0) return at;
      bytes = parts.bytes(); view = parts.view();
    }`;
  // A member is undefined also if a getter before it has deleted it.
  return `
    value = record[${key}];
    if (typeof value === "string" && value.length <= ${STRING_MOST}) {
      length = value.length; end = at + 1; all = 0;
      for (let i = 0; i < length; i += 1) {
        const code = value.charCodeAt(i); all |= code; bytes[end++] = code;
      }
      if (all <= 255) { bytes[at] = ${STRING} + length; at = end; text = true; }
      else ${call}
    } else if (typeof value === "number") {
      if ((value | 0) === value && (value !== 0 || 1 / value > 0)) {
        if (value >= 0 && value < ${STRING}) bytes[at++] = value;
        else { bytes[at] = ${INTEGER}; view.setInt32(at + 1, value, true); at += 5; }
      } else { bytes[at] = ${FLOAT}; view.setFloat64(at + 1, value, true); at += 9; }
    } else if (value === null) bytes[at++] = ${NULL};
    else if (value === true) bytes[at++] = ${TRUE};
    else if (value === false) bytes[at++] = ${FALSE};
    else if (value === undefined) {
      if (!hasOwn(record, ${key})) return -1;
      bytes[at++] = ${UNDEFINED};
    } else ${call}`;
}

/** Code that reads objects of this shape. `readItem` reads an item whose tag was read. */
export function makeDecoder(
  shape: Shape,
  readItem: (tag: number, depth: number) => unknown,
): DecodeMembers | undefined {
  const { names } = shape;
  const members = names.map((_, i) => memberDecoder(`v${i}`));
  const literal = names.map((name, i) => `${JSON.stringify(name)}: v${i}`).join(", ");
  const source = `return function (bytes, view, position, depth) {
    let tag = 0, end = 0, { at, text, from, to } = position;
    let ${names.map((_, i) => `v${i}`).join(", ")};${members.join("")}
    position.at = at;
    return { ${literal} };
  }`;
  return make<DecodeMembers>(shape, "decoders", ["readItem"], source)?.(readItem);
}

function memberDecoder(member: string): string {
  return `
    tag = bytes[at++];
    if (tag < ${STRING}) ${member} = tag;
    else if (tag <= ${STRING + STRING_MOST} && at + tag - ${STRING} <= to) {
      end = at + tag - ${STRING}; ${member} = text.substring(at - from, end - from); at = end;
    } else if (tag === ${FLOAT}) { ${member} = view.getFloat64(at, true); at += 8; }
    else if (tag === ${INTEGER}) { ${member} = view.getInt32(at, true); at += 4; }
    else if (tag === ${NULL}) ${member} = null;
    else if (tag === ${TRUE}) ${member} = true;
    else if (tag === ${FALSE}) ${member} = false;
    else {
      position.at = at;
      ${member} = readItem(tag, depth + 1);
      ({ at, text, from, to } = position);
    }`;
}
