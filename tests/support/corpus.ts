/**
 * One value of every kind the map keeps, built alike in every process, and the codecs the tests
 * name. A reader builds the corpus again and compares: nothing but the map has carried it.
 */
import assert from "node:assert/strict";
import type { Codec, SharedMap } from "../../mod.ts";

export type Corpus = readonly (readonly [name: string, value: unknown])[];

// deno-fmt-ignore
export const NUMBERS: readonly number[] = [
  0, -0, 1, -1, 0.1, -0.5, 1e21, 1e-7, Math.PI, 255, 256, 65535, 65536, 2 ** 31, -(2 ** 31),
  2 ** 32, 2 ** 53, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, Number.MAX_VALUE,
  -Number.MAX_VALUE, Number.MIN_VALUE, -Number.MIN_VALUE, 2.2250738585072014e-308,
  2.225073858507201e-308, Number.EPSILON, Infinity, -Infinity, NaN,
];

// deno-fmt-ignore
export const BIGINTS: readonly bigint[] = [
  0n, 1n, -1n, 127n, -128n, 255n, 256n, -256n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 53n,
  2n ** 63n - 1n, 2n ** 63n, -(2n ** 63n), -(2n ** 63n) - 1n, 2n ** 64n - 1n, 2n ** 64n,
  -(2n ** 64n), 10n ** 4999n + 7n, -(10n ** 4999n) - 7n, 2n ** 8192n, -(2n ** 8192n),
  -(2n ** 8191n),
];

// deno-fmt-ignore
export const STRINGS: readonly string[] = [
  "", "a", "hello", "\0", "a\0b", "\0".repeat(10), " ", "é", "ÿ", "\u0100", "café☺", "日本語",
  "😀", "a😀b", "\ud800", "\udc00", "\ud83d", "a\udc00\ud800b", "\ud83d\ud83d\ude00", "\ufeff",
  "\uffff", "x".repeat(32), "x".repeat(33), "ÿ".repeat(1000), "☺".repeat(1000), "😀".repeat(1000),
  "\ud800".repeat(1000), "x".repeat(70_000), "null", "0", "__proto__",
];

/** Bytes 0, 1, 2 … so that a shift or a cut shows. */
export function countingBytes(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 255);
}

const BYTE_LENGTHS = [0, 1, 2, 3, 7, 8, 9, 15, 31, 32, 33, 63, 64, 65, 255, 4095, 4097, 70_001];

const BUFFER = countingBytes(256).buffer as ArrayBuffer;

/** One typed array of every kind, and a view of each that starts inside its buffer. */
function typedArrays(): [string, unknown][] {
  const kinds = [
    Int8Array,
    Uint8Array,
    Uint8ClampedArray,
    Int16Array,
    Uint16Array,
    Int32Array,
    Uint32Array,
    Float32Array,
    Float64Array,
    BigInt64Array,
    BigUint64Array,
  ];
  return kinds.flatMap((Kind): [string, unknown][] => [
    [`${Kind.name}, empty`, new Kind(0)],
    [`${Kind.name}, whole`, new Kind(BUFFER.slice(0, 64))],
    [`${Kind.name}, a view`, new Kind(BUFFER, 8 * Kind.BYTES_PER_ELEMENT, 5)],
  ]);
}

function cyclic(): unknown {
  const node: Record<string, unknown> = { name: "a", list: [1, 2] };
  node.self = node;
  (node.list as unknown[]).push(node);
  return node;
}

function shared(): unknown {
  const one = { x: 1 };
  return { first: one, second: one, list: [one, one] };
}

function deep(levels: number): unknown {
  let value: unknown = "bottom";
  for (let i = 0; i < levels; i += 1) value = i % 2 ? [value] : { inner: value };
  return value;
}

function structures(): [string, unknown][] {
  return [
    ["an empty object", {}],
    ["an empty array", []],
    ["a record", { id: 7, name: "é☺", tags: ["a", "b"], ok: true, none: null, ratio: 0.25 }],
    ["numeric keys", { 0: "zero", 10: "ten", "-1": "minus" }],
    ["odd keys", { "": 1, "a b": 2, "\0": 3, "😀": 4, constructor: 5, toString: 6 }],
    ["undefined inside", { gone: undefined, list: [undefined, 1, undefined] }],
    ["special numbers", [NaN, Infinity, -Infinity, 5e-324, 2 ** 53, -(2 ** 31)]],
    ["nested bigints", {
      list: [0n, -1n, 2n ** 63n, -(2n ** 63n), 2n ** 64n, 10n ** 300n, -(10n ** 300n)],
    }],
    ["a date", new Date(1_700_000_000_123)],
    ["dates", [new Date(0), new Date(-1), new Date(8.64e15), new Date(-8.64e15)]],
    [
      "a map",
      new Map<unknown, unknown>([["a", 1], [2, { b: 3 }], [null, new Map([[{ k: 1 }, "v"]])]]),
    ],
    ["a set", new Set<unknown>([1, "a", null, undefined, new Set([2n])])],
    ["an empty map and set", { map: new Map(), set: new Set() }],
    ["an array buffer", BUFFER.slice(3, 40)],
    ["an error", new Error("broken ☺")],
    ["a range error", new RangeError("too far")],
    ["a type error", { cause: new TypeError("wrong") }],
    ["a regular expression", new RegExp("a(b|c)+☺\\d", "giu")],
    ["a long array", Array.from({ length: 5000 }, (_, i) => i)],
    [
      "many records",
      Array.from({ length: 200 }, (_, i) => ({ id: i, name: `n${i}`, on: i % 2 === 0 })),
    ],
    ["a wide object", Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`key ${i}`, i]))],
    ["a long string inside", { text: "☺".repeat(40_000) }],
    ["bytes inside", { bytes: countingBytes(1000), empty: new Uint8Array(0) }],
    ["a deep one", deep(200)],
    ["a cycle", cyclic()],
    ["shared references", shared()],
    ...typedArrays().map(([name, value]): [string, unknown] => [`nested ${name}`, { value }]),
  ];
}

/** The whole corpus, by a name for each. */
export function corpus(): Corpus {
  return [
    ...NUMBERS.map((n, i): [string, unknown] => [`number ${i}: ${Object.is(n, -0) ? "-0" : n}`, n]),
    ...BIGINTS.map((n, i): [string, unknown] => [`bigint ${i}`, n]),
    ...STRINGS.map((text, i): [string, unknown] => [`string ${i}`, text]),
    ["true", true],
    ["false", false],
    ["null", null],
    ...BYTE_LENGTHS.map((n): [string, unknown] => [`bytes ${n}`, countingBytes(n)]),
    ["bytes, a view", countingBytes(100).subarray(13, 60)],
    ...structures(),
    ...typedArrays().filter(([name]) => !name.startsWith("Uint8Array")),
  ];
}

/** Asserts that two values are the same in kind, structure and every bit that can be observed. */
export function assertSame(actual: unknown, expected: unknown, what: string): void {
  if (expected instanceof Error) {
    assert.ok(actual instanceof Error && actual.constructor === expected.constructor, what);
    assert.equal(actual.message, expected.message, what);
    assert.equal(actual.name, expected.name, what);
  } else if (typeof expected !== "object" || expected === null) {
    assert.ok(Object.is(actual, expected), `${what}: ${String(actual).slice(0, 100)}`);
  } else {
    assert.deepStrictEqual(actual, expected, what);
    assert.equal(Object.getPrototypeOf(actual), Object.getPrototypeOf(expected), what);
  }
}

/** Asserts what deep equality does not see: that cycles and shared references are identities. */
export function assertIdentities(cycle: unknown, references: unknown): void {
  const node = cycle as { self: unknown; list: unknown[] };
  assert.ok(node.self === node && node.list[2] === node, "the cycle leads to a copy");
  const { first, second, list } = references as Record<string, unknown> & { list: unknown[] };
  assert.ok(first === second && list[0] === first && list[1] === first, "a reference was copied");
}

/** Stores the corpus under its names; gives how many there are. */
export function writeCorpus(map: SharedMap): number {
  for (const [name, value] of corpus()) map.set(name, value);
  return corpus().length;
}

/** Compares what the map holds with the corpus, by every way to read; gives how many there are. */
export function checkCorpus(map: SharedMap): number {
  const wanted = corpus();
  assert.equal(map.size, wanted.length);
  const whole = map.toObject();
  const many = map.getMany(wanted.map(([name]) => name));
  const iterated = new Map(map);
  for (const [i, [name, value]] of wanted.entries()) {
    assertSame(map.get(name), value, `get: ${name}`);
    assertSame(whole[name], value, `toObject: ${name}`);
    assertSame(many[i], value, `getMany: ${name}`);
    assertSame(iterated.get(name), value, `iteration: ${name}`);
  }
  assertIdentities(map.get("a cycle"), map.get("shared references"));
  return wanted.length;
}

const json: Codec = {
  id: "json-test",
  encode(value) {
    const text = JSON.stringify(value);
    if (text === undefined) throw new TypeError("JSON has no such value");
    return new TextEncoder().encode(text);
  },
  decode: (bytes) => JSON.parse(new TextDecoder().decode(bytes)),
};

/** Codecs by name, for commands to other processes. */
export const CODECS: Record<string, Codec> = {
  json,
  /** Says it is `json` and writes what `json` cannot read. */
  rubbish: { ...json, encode: () => Uint8Array.of(0xff, 0x7b, 0x00, 0xfe) },
};
