/**
 * `pack` and `unpack`: what they promise by hand-written cases, and, over many random templates,
 * that they do what Perl does.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { pack, type PackValue, unpack, type UnpackedValue } from "../../src/pack/pack.ts";
import { type Case, recordCase, soundCase, soupCase } from "../support/pack_cases.ts";
import type { Random } from "../support/random.ts";
import { scaled, SUPPORT, testUnless, withSeed } from "../support/support.ts";

const SOUND_CASES = 20_000;
const RECORD_CASES = 20_000;
const SOUP_CASES = 20_000;

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** Each line: a template, its values, and the bytes they make. */
function packs(cases: [string, PackValue[], string][]): void {
  for (const [template, values, expected] of cases) {
    assert.equal(hex(pack(template, ...values)), expected, template);
  }
}

/** Each line: a template, bytes, and the values in them. */
function unpacks(cases: [string, string, UnpackedValue[]][]): void {
  for (const [template, bytes, expected] of cases) {
    assert.deepEqual(unpack(template, fromHex(bytes)), expected, template);
  }
}

test("pack() pads and cuts text as its letter says", () => {
  packs([
    ["a", ["xyz"], "78"],
    ["a4 A4", ["x", "y"], "7800000079202020"],
    ["Z4 Z2 Z* Z1 Z0", ["x", "yz", "ab", "q", "q"], "78000000" + "7900" + "616200" + "00"],
    ["a* A*", ["\xff\0", new Uint8Array([0xc3, 0xa9])], "ff00c3a9"],
    ["b10 B10", ["1100000001", "1100000001"], "0302c040"],
    ["b* B3 B9", ["11", "011", "1"], "03608000"],
    ["h3 H3 H* H", ["123", "123", "bEEf", "7f"], "21031230beef70"],
  ]);
});

test("unpack() gives text as its letter says", () => {
  unpacks([
    ["a3A3Z3", "612000" + "612000" + "610062", ["a \0", "a", "a"]],
    ["Z*a*", "6100626300", ["a", "bc\0"]],
    ["A*", "20610a0b0c0d0920a000", [" a\n\v\f\r\t \xa0"]],
    ["A*", "61200a0b0c0d0900", ["a"]],
    ["b12B*", "0302c040", ["110000000100", "1100000001000000"]],
    ["h3H*", "2103beef", ["123", "beef"]],
    ["a9a", "6162", ["ab", ""]],
  ]);
});

test("pack() lays out integers of every size and order", () => {
  packs([
    ["c C", [-1, 255], "ffff"],
    ["s S l L", [-2, 2, -3, 3], "feff0200fdffffff03000000"],
    ["q Q", [-2n, 2], "feffffffffffffff0200000000000000"],
    ["j J i I", [-1, 1n, -1, 1], "ffffffffffffffff0100000000000000ffffffff01000000"],
    ["l! L! s! i!", [-1, 1, 2, 3], "ffffffffffffffff0100000000000000020003000000"],
    ["n N v V", [1, 2, 3, 4], "0001" + "00000002" + "0300" + "04000000"],
    ["n! N! v! V!", [-1, -2, -3, -4], "ffff" + "fffffffe" + "fdff" + "fcffffff"],
    [
      "s> l> q> f> d>",
      [1, 2, 3, 1, 1],
      "0001000000020000000000000003" + "3f8000003ff0000000000000",
    ],
    ["(s n (l)2)> s", [1, 2, 3, 4, 5], "0001" + "0002" + "00000003" + "00000004" + "0500"],
    ["l!> s!<", [1, 2], "0000000000000001" + "0200"],
  ]);
});

test("unpack() reads integers of every size and order", () => {
  unpacks([
    ["c C", "ffff", [-1, 255]],
    ["s S n v", "feff" + "feff" + "feff" + "feff", [-2, 65534, 65279, 65534]],
    ["n! v! N! V!", "fffe" + "feff" + "fffffffe" + "feffffff", [-2, -2, -2, -2]],
    ["l L l> N", "feffffff" + "feffffff" + "fffffffe" + "fffffffe", [
      -2,
      2 ** 32 - 2,
      -2,
      2 ** 32 - 2,
    ]],
    ["q Q> l! L!", "feffffffffffffff".repeat(4), [-2n, 0xfeffffffffffffffn, -2n, 2n ** 64n - 2n]],
    ["n*", "000100020", [1, 2]],
    ["(C2)*", "010203", [1, 2, 3]],
  ]);
});

test("pack() cuts numbers to whole ones and to the bits there are", () => {
  packs([
    ["C c", [257, -129], "017f"],
    ["l L", [4294967297, -1], "01000000ffffffff"],
    ["l l", [1.9, -1.9], "01000000ffffffff"],
    [
      "l l q Q",
      [1e20, -1e20, -1e20, 1e20],
      "ffffffff00000000" + "0000000000000080" + "f".repeat(16),
    ],
    ["Q q", [2n ** 70n, -(2n ** 70n)], "f".repeat(16) + "0000000000000080"],
    ["Q", ["18446744073709551615"], "f".repeat(16)],
    ["s s", [" 12 ", "1.5e1"], "0c000f00"],
    ["f f d", [1e300, 16777217, -0], "0000807f" + "0000804b" + "0000000000000080"],
  ]);
});

test("pack() and unpack() compress integers of any size with w", () => {
  packs([
    ["w*", [0, 127, 128, 300], "007f8100822c"],
    ["w", [2n ** 64n], "82808080808080808000"],
    ["w", [1e30], "8393f2e4f3a0c6bac0808080808000"],
    ["w", ["123456789012345678901234567890"], "b1eec8bfedc3b9f89de4f1fc9552"],
  ]);
  unpacks([["w*", "007f8100822c" + "82808080808080808000", [0, 127, 128, 300, 2n ** 64n]]]);
  assert.throws(() => pack("w", -1), /RangeError: .*cannot compress negative numbers/);
  assert.throws(() => unpack("w", fromHex("8180")), /unterminated compressed integer/);
});

test("pack() and unpack() move with x, X and @, in a group from its start", () => {
  packs([
    ["a x2 a X a", ["1", "2", "3"], "31000033"],
    ["a x!4 a x!4", ["1", "2"], "3100000032000000"],
    ["a5 X!4 a", ["12345", "6"], "3132333436"],
    ["a @4 a @2", ["1", "2"], "3100"],
    ["a(a @3 a)2", ["1", "2", "3", "4", "5"], "31" + "32000033" + "34000035"],
  ]);
  unpacks([
    ["a x a X2 a", "313233", ["1", "3", "2"]],
    ["a x!2 a", "313233", ["1", "3"]],
    ["a (a @2 a)2", "31323334353637", ["1", "2", "4", "5", "7"]],
    ["x3 X!2 a @0 a", "31323334", ["3", "1"]],
  ]);
});

test("pack() and unpack() count with /", () => {
  packs([
    ["n/a* w/a", ["hello,", "world"], "0006" + "68656c6c6f2c" + "05" + "776f726c64"],
    ["C/Z* C/A3", ["ab", "c"], "03616200" + "03632020"],
    ["C/(C/a*)", ["a", "bcd"], "02" + "0161" + "03626364"],
    ["C/n*", [1, 2], "0200010002"],
    ["C/n3 C/n1", [1, 2], "0200010002" + "00"],
    ["(a)2 C/a*", ["x", "y", "abc"], "7879" + "03616263"],
    ["a2/a*", ["hi"], "32006869"],
  ]);
  unpacks([
    ["n/a* w/a*", "000268690141", ["hi", "A"]],
    ["C/(C/a)", "02" + "0161" + "03626364", ["a", "bcd"]],
    ["C/n n", "02" + "000100020003", [1, 2, 3]],
    ["C/a*", "", []],
  ]);
  assert.deepEqual(
    unpack("a3/A A*", new TextEncoder().encode("007: Bond, J.")),
    [": Bond,", " J."],
  );
  assert.throws(() => unpack("c/a*", fromHex("ff41")), /RangeError: .*negative '\/' count/);
});

test("pack() gives the UTF-8 of what Perl has as characters", () => {
  packs([
    ["U", [233], "c3a9"],
    ["C0U", [233], "c3a9"],
    ["W", [233], "e9"],
    ["W2", [233, 0x20ac], "c3a9e282ac"],
    ["W n", [300, 0x80ff], "c4acc280c3bf"],
    ["U C0 U", [233, 233], "c3a9c383c2a9"],
    ["U2", [0x1f600, 0xd800], "f09f9880eda080"],
    ["U", [2 ** 31], "fe828080808080"],
    ["U", [2 ** 36], "ff808080808081808080808080"],
  ]);
  assert.throws(() => pack("U C", 233, 233), /RangeError: .*malformed UTF-8/);
  assert.throws(() => pack("U", -1), /RangeError: .*0xFFFFFFFFFFFFFFFF/);
});

test("unpack() reads bytes, characters and UTF-8", () => {
  unpacks([
    ["C*", "c3a9", [0xc3, 0xa9]],
    ["W*", "c3a9", [0xc3, 0xa9]],
    ["U*", "c3a9", [0xc3, 0xa9]],
    ["C0U*", "c3a9e282ac", [233, 0x20ac]],
    ["a U*", "61c3a9", ["a", 233]],
    ["U0C*", "c3a9", [0xc3, 0x83, 0xc2, 0xa9]],
    ["a0 U", "ff808480808080808080808080", ["", 2n ** 62n]],
  ]);
  for (const malformed of ["e9", "c3", "c080", "ff80", "80"]) {
    assert.throws(() => unpack("C0U", fromHex(malformed)), /RangeError: .*malformed UTF-8/);
  }
});

test("templates take counts, groups, comments and white space as Perl's do", () => {
  packs([
    ["a[3] a[2]", ["abcd", "ef"], "6162636566"],
    ["x[sl] x[(nC)2] x[a3x!4]", [], "00".repeat(6 + 6 + 4)],
    [" a # one)\n\tc, c", ["a", 1, 2], "610102"],
    ["((a c)2)2", ["a", 1, "b", 2, "c", 3, "d", 4], "6101620263036404"],
    ["(a)* ", ["a", "b", "c"], "616263"],
    ["", [], ""],
    ["()5 (C)0", [], ""],
  ]);
});

test("pack() and unpack() name what is wrong with a template, and where", () => {
  const wrong: [string, string][] = [
    ["l y", "invalid type 'y', at 2"],
    ["p", "invalid type 'p', at 0"],
    ["a %32C", "invalid type '%', at 2"],
    ["a 3", "invalid type '3', at 2"],
    ["ñ", "invalid type 'ñ', at 0"],
    ["(a", "no group ending character ')' found, at 0"],
    ["a[2", "no group ending character ']' found, at 1"],
    ["a)", "invalid type ')', at 1"],
    ["(2a)", "()-group starts with a count, at 0"],
    ["a[2x]", "malformed integer in [], at 3"],
    ["a[n*]", "within []-length '*' not allowed, at 2"],
    ["a[@2]", "within []-length '@' not allowed, at 2"],
    ["a!", "'!' allowed only after types sSiIlLxXnNvV@, at 1"],
    ["n>", "'>' allowed only after types sSiIlLqQjJfd(, at 1"],
    ["s<>", "cannot use both '<' and '>' after type 's', at 2"],
    ["(s>)<", "cannot use '>' in a group with different byte order, at 2"],
    ["/a", "'/' must follow a numeric type, at 0"],
    ["n/", "code missing after '/', at 0"],
    ["n/3a", "'/' does not take a repeat count, at 1"],
  ];
  for (const [template, what] of wrong) {
    for (const action of ["pack", "unpack"]) {
      const task = () => action === "pack" ? pack(template) : unpack(template, new Uint8Array(9));
      const text = `Cannot ${action} ${JSON.stringify(template)}: ${what}`;
      assert.throws(task, { name: "SyntaxError", message: text });
    }
  }
  assert.throws(() => unpack("n/a3", new Uint8Array(9)), {
    name: "SyntaxError",
    message: 'Cannot unpack "n/a3": count after length/code, at 2',
  });
  // deno-lint-ignore no-explicit-any
  assert.throws(() => pack(5 as any), TypeError);
});

test("pack() names a value that is missing or of the wrong kind", () => {
  // deno-lint-ignore no-explicit-any
  const values: [string, any[], string, string][] = [
    ["l n", [1], "TypeError", "no value for 'n', there are 1, at 2"],
    ["a*", [], "TypeError", "no value for 'a', there are 0, at 0"],
    ["n99999999", [1, 2], "TypeError", "no value for 'n', there are 2, at 0"],
    ["l", ["12abc"], "TypeError", "'l' takes a number, not string \"12abc\", at 0"],
    ["l", [""], "TypeError", "'l' takes a number, not string \"\", at 0"],
    ["l", [null], "TypeError", "'l' takes a number, not null, at 0"],
    ["d", [true], "TypeError", "'d' takes a number, not boolean, at 0"],
    ["a2", [12], "TypeError", "'a' takes a string or a Uint8Array, not number, at 0"],
    ["a2", [undefined], "TypeError", "'a' takes a string or a Uint8Array, not undefined, at 0"],
    ["c a9", [1, "ab€"], "RangeError", "'a' takes codes up to 255, not U+20AC at 2, at 2"],
    ["l", [NaN], "RangeError", "cannot pack NaN with 'l', at 0"],
    ["C", ["-inf"], "RangeError", "cannot pack -Inf with 'C', at 0"],
    ["w", [Infinity], "RangeError", "cannot compress Inf with 'w', at 0"],
    ["a X2", ["a"], "RangeError", "'X' outside of string, at 2"],
  ];
  for (const [template, given, name, what] of values) {
    const text = `Cannot pack ${JSON.stringify(template)}: ${what}`;
    assert.throws(() => pack(template, ...given), { name, message: text });
  }
  assert.equal(hex(pack("C", 1, 2, 3)), "01", "values left over do nothing");
});

test("pack() and unpack() refuse what only looks like bytes", () => {
  for (const fake of [Object.create(Uint8Array.prototype), new Proxy(new Uint8Array(4), {})]) {
    const wrong = { name: "TypeError", message: "Cannot unpack: the bytes are no Uint8Array" };
    assert.throws(() => unpack("C", fake), wrong);
    for (const letter of ["a", "Z", "b", "H"]) {
      assert.throws(() => pack(`${letter}2`, fake), {
        name: "TypeError",
        message:
          `Cannot pack "${letter}2": '${letter}' takes a string or a Uint8Array, not object, at 0`,
      });
    }
  }
});

test("unpack() names where it would leave the bytes", () => {
  const bytes = new Uint8Array(4);
  const wrong: [string, string][] = [
    ["x5", "'x' outside of string, at 0"],
    ["C x!8", "'x' outside of string, at 2"],
    ["C X2", "'X' outside of string, at 2"],
    ["@5", "'@' outside of string, at 0"],
    ["a (x @4)", "'@' outside of string, at 5"],
    ["U0 x5", "'x' outside of string, at 3"],
  ];
  for (const [template, what] of wrong) {
    const text = `Cannot unpack ${JSON.stringify(template)}: ${what}`;
    assert.throws(() => unpack(template, bytes), { name: "RangeError", message: text });
  }
  // deno-lint-ignore no-explicit-any
  assert.throws(() => unpack("a", "text" as any), TypeError);
});

test("pack() and unpack() stay within bounds, even where the counts multiply to more", () => {
  const some = new Uint8Array(1000);
  const huge = [
    "a4000000000",
    "x[a4000000000]",
    "x2147483647 x",
    "(x)999999999",
    "(x99999 X99999)999999",
    "x[(x99999)99999]",
  ];
  for (const template of huge) {
    assert.throws(() => pack(template, "a"), { name: "RangeError" }, template);
  }
  const huger = ["a4000000000", "(x0)999999999", "(((((a0)*)*)*)*)*", "(a* X1000)999999999"];
  for (const template of huger) {
    assert.throws(() => unpack(template, some), { name: "RangeError" }, template);
  }
  assert.deepEqual(pack("(".repeat(100) + "C" + ")".repeat(100), 7), new Uint8Array([7]));
  for (const depth of [101, 100_000]) {
    const nested = "(".repeat(depth) + "C" + ")".repeat(depth);
    assert.throws(() => pack(nested, 7), /SyntaxError: .*too deeply nested/);
    assert.throws(() => unpack(nested, some), /SyntaxError: .*too deeply nested/);
  }
  assert.throws(() => pack("x[".repeat(200) + "]".repeat(200)), /SyntaxError: .*too deeply nested/);
});

test("unpack() reads a part of a buffer, and gives values of the caller's own", () => {
  const whole = pack("N4", 1, 2, 3, 4);
  assert.deepEqual(unpack("N n C", whole.subarray(4, 11)), [2, 0, 0]);
  const letters = pack("a3", "abc");
  const [text] = unpack("a3", letters);
  letters.fill(0);
  assert.equal(text, "abc");
  assert.deepEqual(unpack("a* N", new Uint8Array(new SharedArrayBuffer(2))), ["\0\0"]);
});

test("pack() and unpack() take a million values in a moment", () => {
  const bytes = pack("(N)1000", ...Array.from({ length: 1000 }, (_, index) => index));
  const many = new Uint8Array(4_000_000);
  for (let at = 0; at < many.length; at += 4000) many.set(bytes, at);
  const values = unpack("N*", many);
  assert.equal(values.length, 1_000_000);
  assert.equal(values[123_456], 456);
  assert.equal((unpack("H*", many)[0] as string).length, 8_000_000);
  assert.equal(pack("a* Z*", many, many).length, 8_000_001);
});

test("pack() and unpack() take a number of a million digits in a moment, or refuse it", () => {
  const large = (1n << 4_000_000n) + 5n;
  const bytes = pack("w", large);
  assert.equal(bytes.length, 571_429);
  assert.deepEqual(unpack("w", bytes), [large]);
  const started = performance.now();
  assert.throws(() => pack("l", `${"1".repeat(1_000_000)}x`), /'l' takes a number/);
  pack("w", large);
  assert.ok(performance.now() - started < 5000, "its time grows with the square of the digits");
});

/** Why this machine has no Perl to compare with, or undefined when it has. */
function refusesPerl(): string | undefined {
  const script = 'use Config; print "$] $Config{ivsize} $Config{longsize} $Config{nvsize}"';
  const result = spawnSync("perl", ["-e", script], { encoding: "utf8" });
  if (result.error || result.status !== 0) return "no perl";
  const [version, ...sizes] = result.stdout.split(" ");
  if (Number(version) < 5.036) return `perl ${version} is older than 5.036`;
  return sizes.join() === "8,8,8" ? undefined : "this perl has other sizes of numbers";
}

/** Perl's answers to these lines. */
async function askPerl(lines: string[]): Promise<string[]> {
  const perl = spawn("perl", [join(SUPPORT, "perl_pack.pl")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  let output = "";
  perl.stdout.setEncoding("latin1").on("data", (text: string) => output += text);
  const ended = new Promise<number | null>((resolve) => perl.on("close", resolve));
  perl.stdin.end(lines.join("\n") + "\n");
  assert.equal(await ended, 0);
  const answers = output.split("\n");
  assert.equal(answers.length, lines.length + 1);
  return answers.slice(0, -1);
}

function inHex(text: string): string {
  return hex(Uint8Array.from(text, (char) => char.charCodeAt(0)));
}

/** A value for Perl: a string of its bytes or digits, or a double. */
function forPerl(value: PackValue): string {
  if (value instanceof Uint8Array) return `b${hex(value)}`;
  return typeof value === "number" ? `n${hex(pack("d>", value))}` : `b${inHex(String(value))}`;
}

/** Our answer in the words of Perl's: "=" and what came out, or "!" and the error. */
function answer(task: () => string): string {
  try {
    return `=${task()}`;
  } catch (error) {
    assert.ok(
      error instanceof TypeError || error instanceof RangeError || error instanceof SyntaxError,
      `${error}`,
    );
    assert.match(error.message, /^Cannot (?:un)?pack "/);
    return `!${error.name}: ${error.message}`;
  }
}

/** Where Perl and we are known to differ, as the docstrings say. */
function isKnown(action: string, ours: string, perls: string, template: string): boolean {
  // A count of characters, which Perl warns of where one is cut off; the answer is the same.
  if (action === "unpack" && perls === ours.replace("=", "?")) return /[xX@]!/.test(template);
  if (!ours.startsWith("!")) return perls.includes("U0 mode on a byte string");
  if (action === "unpack" && ours.includes("malformed UTF-8")) return true;
  if (/no value for .*there are 40,/.test(ours)) return true; // random letters have no more
  if (!ours.startsWith("!SyntaxError")) return false;
  const before = template.slice(0, Number(/at (\d+)$/.exec(ours)![1]));
  return before.includes("(") || (action === "unpack" && before.includes("/"));
}

/** Our values in the words of Perl's, of which the kinds are taken where ours say less. */
function inKinds(values: UnpackedValue[], perls: string): string {
  const kinds = perls.slice(1).split(" ");
  return values.map((value, index) => {
    if (typeof value === "string") return `s${inHex(value)}`;
    const kind = kinds[index] ?? "";
    if (kind[0] === "d") return Number.isNaN(value) ? "dNaN" : `d${hex(pack("d>", value))}`;
    // What w gives is digits in Perl when it is long, and nothing at all for a long zero.
    if (kind === "s" && value === 0) return kind;
    return kind[0] === "s" ? `s${inHex(String(value))}` : `i${value}`;
  }).join(" ");
}

/** Perl's answer without what we do not have: a warning of pack, the payload of NaN. */
function plain(perls: string, action: string): string {
  if (action === "pack") return perls.replace("?", "=");
  return perls.replace(/(?<=[= ]d)[7f]ff(?!0{13})[0-9a-f]{13}/g, "NaN");
}

/** Compares one answer; the count of known differences, which is 0 or 1. */
function same(
  action: string,
  template: string,
  given: string,
  ours: string,
  perls: string,
): number {
  const expected = plain(perls, action);
  if (ours === expected || (ours[0] === "!" && expected[0] === "!")) return 0;
  if (isKnown(action, ours, perls, template)) return 1;
  return assert.fail(
    `${action} ${JSON.stringify(template)} ${given}\n ours  ${ours}\n perl  ${perls}`,
  );
}

/** Packs and unpacks with both; how many of Perl's answers were what. */
async function compare(cases: Case[]): Promise<Record<string, number>> {
  const lines = cases.flatMap(({ template, values, bytes }) => [
    `p t${inHex(template)} ${values.map(forPerl).join(" ")}`,
    `u t${inHex(template)} b${hex(bytes)}`,
  ]);
  const answers = await askPerl(lines);
  const counts = { packed: 0, unpacked: 0, refused: 0, different: 0 };
  cases.forEach(({ template, values, bytes }, index) => {
    const [packed, unpacked] = answers.slice(2 * index, 2 * index + 2);
    const ourBytes = answer(() => hex(pack(template, ...values)));
    const ourValues = answer(() => inKinds(unpack(template, bytes), unpacked));
    counts.different += same("pack", template, `${values.map(forPerl)}`, ourBytes, packed);
    counts.different += same("unpack", template, hex(bytes), ourValues, unpacked);
    counts.packed += Number(packed[0] === "=");
    counts.unpacked += Number(unpacked[0] === "=");
    counts.refused += Number(packed[0] === "!") + Number(unpacked[0] === "!");
  });
  return counts;
}

const reason = refusesPerl();
const kinds: [string, number, (random: Random) => Case][] = [
  ["sound templates", SOUND_CASES, soundCase],
  ["records", RECORD_CASES, recordCase],
  ["templates of random letters", SOUP_CASES, soupCase],
];
for (const [kind, count, make] of kinds) {
  testUnless(
    reason,
    `pack() and unpack() do with ${kind} what Perl does`,
    {},
    () =>
      withSeed(async (random) => {
        const cases = Array.from({ length: scaled(count) }, () => make(random));
        const counts = await compare(cases);
        assert.ok(counts.packed > cases.length / 20, JSON.stringify(counts));
        assert.ok(counts.unpacked > cases.length / 20, JSON.stringify(counts));
        assert.ok(counts.different < cases.length / 20, JSON.stringify(counts));
      }),
  );
}
