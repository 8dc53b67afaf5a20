/** A codec of the caller's, whose code does what it likes, and which knows its own bytes again. */
import type { Codec } from "../../../mod.ts";
import type { Hostile } from "./hostile.ts";

/** One in so many results of `encode` is something else than its bytes. */
const LIE_PERCENT = 5;

/** What the codec is told and tells. */
export interface Company {
  readonly hostile: Hostile;
  /** Whether it is to behave, because a model is read. */
  readonly isCalm: () => boolean;
  /** Runs code whose errors are the caller's own. */
  readonly planted: <T>(task: () => T) => T;
  readonly report: (problem: string) => void;
}

/** JSON, with what happens in the middle. */
export function makeCodec({ hostile, isCalm, planted, report }: Company): Codec {
  const encoder = new TextEncoder();
  /** Everything it ever gave, so that it is asked to decode nothing else. */
  const given = new Set<string>([""]);
  const give = (bytes: unknown): Uint8Array => {
    if (bytes instanceof Uint8Array) given.add(textOf(bytes));
    return bytes as Uint8Array;
  };
  return {
    id: "tripping",
    encode: (value) => {
      hostile.trip();
      if (!isCalm() && hostile.chance(LIE_PERCENT)) return planted(() => give(hostile.any().value));
      return give(encoder.encode(planted(() => JSON.stringify(value) ?? "null")));
    },
    decode: (bytes) => {
      const text = textOf(bytes);
      if (!given.has(text)) report(`a codec is to decode what it never gave: ${text.slice(0, 80)}`);
      hostile.trip();
      try {
        return JSON.parse(text);
      } catch {
        return "unreadable";
      }
    },
  };
}

const typedArray = Object.getPrototypeOf(Uint8Array.prototype);
const [bufferOf, offsetOf, lengthOf] = ["buffer", "byteOffset", "byteLength"].map((name) =>
  Object.getOwnPropertyDescriptor(typedArray, name)!.get!
);

/** The bytes there really are, a character each. */
function textOf(bytes: Uint8Array): string {
  let length: number;
  try {
    length = lengthOf.call(bytes);
  } catch {
    return ""; // it only looks like a byte array
  }
  if (length === 0) return "";
  const real = new Uint8Array(bufferOf.call(bytes), offsetOf.call(bytes), length);
  let text = "";
  for (const byte of real) text += String.fromCharCode(byte);
  return text;
}
