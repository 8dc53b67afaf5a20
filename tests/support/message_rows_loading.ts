/**
 * How to meet the messages of `pack` and `unpack`, and of loading the library; see
 * `message_rows.ts`.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { brotliCompressSync } from "node:zlib";
import { pack, unpack } from "../../mod.ts";
import type { Backend } from "../../src/ffi/backend.ts";
import { testBackend } from "./test_backend.ts";
import { libraries } from "../../src/ffi/embedded.ts";
import { openLibrary } from "../../src/ffi/load.ts";
import { CACHE_VARIABLES, cacheFile } from "../../src/ffi/load_cache.ts";
import { memoryFile } from "../../src/ffi/load_memfd.ts";
import { notGranted, wrongBuild, wrongRuntime } from "../../src/ffi/native.ts";
import { type Row, row } from "./message_rows.ts";
import { freshDirectory } from "./support.ts";

// deno-lint-ignore no-explicit-any
const any = (value: unknown): any => value;
const bytes = (...codes: number[]) => Uint8Array.from(codes);

/** Templates and values that Perl refuses too, or that are refused here. */
export const PACKING: Row[] = ([
  ["Cannot pack: the template is no string", () => pack(any(7))],
  ["Cannot unpack: the bytes are no Uint8Array", () => unpack("C", any("text"))],
  [`Cannot pack "n/": code missing after '/', at {n}`, () => pack("n/", 1)],
  [`Cannot unpack "n/a3": count after length/code, at {n}`, () => unpack("n/a3", bytes(0, 3))],
  [`Cannot pack "/a": '/' must follow a numeric type, at {n}`, () => pack("/a", 1)],
  [`Cannot pack "?": invalid type '?', at {n}`, () => pack("?", 1)],
  [`Cannot pack "(2a)": ()-group starts with a count, at {n}`, () => pack("(2a)", 1)],
  [
    "Cannot pack {any}: too deeply nested ()-groups, at {n}",
    () => pack(`${"(".repeat(300)}a${")".repeat(300)}`, 1),
  ],
  [`Cannot pack "(a": no group ending character ')' found, at {n}`, () => pack("(a", 1)],
  [`Cannot pack "s<>": cannot use both '<' and '>' after type 's', at {n}`, () => pack("s<>", 1)],
  [
    `Cannot pack "(s>)<": cannot use '>' in a group with different byte order, at {n}`,
    () => pack("(s>)<", 1),
  ],
  [`Cannot pack "a!": '!' allowed only after types {any}, at {n}`, () => pack("a!", 1)],
  [
    "Cannot pack {any}: too deeply nested [], at {n}",
    () => pack("x[".repeat(200) + "]".repeat(200)),
  ],
  [`Cannot pack "a[1x]": malformed integer in [], at {n}`, () => pack("a[1x]", 1)],
  [
    `Cannot pack "a99999999999": repeat count overflow: more than {n}, at {n}`,
    () => pack("a99999999999", 1),
  ],
  [`Cannot pack "n/2a": '/' does not take a repeat count, at {n}`, () => pack("n/2a", 1)],
  [`Cannot pack "x[a*]": within []-length '*' not allowed, at {n}`, () => pack("x[a*]", 1)],
  [`Cannot pack "x[@2]": within []-length '@' not allowed, at {n}`, () => pack("x[@2]", 1)],
  [`Cannot pack "X": 'X' outside of string, at {n}`, () => pack("X")],
  [`Cannot unpack "X": 'X' outside of string, at {n}`, () => unpack("X", bytes())],
  [`Cannot unpack "x9": 'x' outside of string, at {n}`, () => unpack("x9", bytes(1))],
  [
    `Cannot unpack "C n/(a)": length/code after end of string, at {n}`,
    () => unpack("C n/(a)", bytes(0)),
  ],
  [`Cannot pack "U C X!2 C0 X!2 X!2": malformed UTF-8 string, at {n}`, () => malformed()],
  [`Cannot unpack "c/a*": negative '/' count, at {n}`, () => unpack("c/a*", bytes(255, 1))],
  [`Cannot unpack "w": unterminated compressed integer, at {n}`, () => unpack("w", bytes(129))],
  [`Cannot unpack "C0U": malformed UTF-8 at byte {n}, at {n}`, () => unpack("C0U", bytes(255))],
  [`Cannot pack "C": no value for 'C', there are 0, at {n}`, () => pack("C")],
  [`Cannot pack "l": 'l' takes a number, not string "x", at {n}`, () => pack("l", "x")],
  [
    `Cannot pack "a": 'a' takes a string or a Uint8Array, not array, at {n}`,
    () => pack("a", any([])),
  ],
  [`Cannot pack "a": 'a' takes codes up to 255, not U+20AC at 0, at {n}`, () => pack("a", "€")],
  [`Cannot pack "C": cannot pack NaN with 'C', at {n}`, () => pack("C", NaN)],
  [`Cannot pack "w": cannot compress negative numbers, at {n}`, () => pack("w", -1)],
  [
    `Cannot pack "U": code point 0x{any} is more than 0x7FFFFFFFFFFFFFFF, at {n}`,
    () => pack("U", -1),
  ],
  [`Cannot pack "U C": malformed UTF-8 in the result at {n}, at {n}`, () => pack("U C", 233, 233)],
  ["Cannot pack {any}: it would take more than {n} bytes, at {n}", () => pack("x2147483647 x999")],
] as [string, () => unknown][]).map(([says, call]) => row(says, call));

/** Going back to a place that is a multiple of two, in bytes that are no UTF-8. */
function malformed(): void {
  for (let code = 128; code < 65_536; code += 1) pack("U C X!2 C0 X!2 X!2", code, 255);
}

/** A runtime that has this variable, may do what is said, and opens what `open` opens. */
function runtimeWith(given: Partial<Backend> & { variables?: Record<string, string> }): Backend {
  return testBackend({ readVariable: (variable) => given.variables?.[variable], ...given });
}

/** Opens a library that this package carries for a moment. */
function carrying(machine: string, data: string, sha256: string, backend: Backend): unknown {
  const packed = libraries as Record<string, { data: string; sha256: string }>;
  packed[machine] = { data, sha256 };
  try {
    return openLibrary(backend);
  } finally {
    delete packed[machine];
  }
}

const HERE = `${process.platform}-${process.arch}`;
const LIBRARY = new Uint8Array(100);
const HASH = createHash("sha256").update(LIBRARY).digest("hex");
const PACKED = Buffer.from(brotliCompressSync(LIBRARY)).toString("base64");
const [VARIABLE] = CACHE_VARIABLES;

/** A C library of which some functions fail. */
function libcWith(functions: Record<string, () => number>): Backend {
  const all = { openat: () => 5, syscall: () => 0, close: () => 0, write: () => 0 };
  const libc = { memfd_create: () => 9, fcntl: () => -1, readlink: () => -1, ...all, ...functions };
  return runtimeWith({ open: () => libc });
}

const anyLibc = () => libcWith({}).open("", {});
const memory = (backend: Backend) => memoryFile(backend, HASH, () => LIBRARY);
const cache = (base: string, given: Partial<Backend> = {}) =>
  cacheFile(runtimeWith({ variables: { [VARIABLE]: base }, ...given }), HASH, LIBRARY);

const CANNOT = "Cannot load the native library";
const PATH = "SHMAP_LIBRARY";

/** A library that is missing, damaged, not allowed, or of another version. */
export const LOADING: Row[] = [
  row(
    `${CANNOT}: there is none for ${HERE} in this package; ${PATH} can name a build of yours`,
    () => carrying("another-machine", PACKED, HASH, runtimeWith({})),
  ),
  row(
    `${CANNOT}: "/a/library" may not be loaded; run with --allow-ffi`,
    () =>
      openLibrary(runtimeWith({
        variables: { [PATH]: "/a/library" },
        open: () => {
          throw Object.assign(new Error("refused"), { name: "NotCapable" });
        },
      })),
  ),
  row(
    `${CANNOT}: "/a/library" does not load; run "npm run build", or set ${PATH} ` +
      `to the path of a build`,
    () => openLibrary(runtimeWith({ variables: { [PATH]: "/a/library" } })),
  ),
  row(
    `${CANNOT}: the one for ${HERE} is damaged in this package; install it again`,
    () => carrying(HERE, any(7), HASH, runtimeWith({ open: anyLibc })),
  ),
  row(
    `${CANNOT}: the one for ${HERE} is damaged in this package, its hash is ` +
      `{any}, expected {any}; ` +
      "install it again",
    () => carrying(HERE, PACKED, "0".repeat(64), runtimeWith({ open: anyLibc })),
  ),
  row(
    `${CANNOT}: from memory, the program may not load the C library; from a cache file, none of ` +
      `{any} is set, or may be read (--allow-env); run with --allow-ffi, or set ` +
      `${PATH} to the path ` +
      "of a copy of it",
    () => carrying(HERE, PACKED, HASH, runtimeWith({ mayLoad: () => false })),
  ),
  row(
    `{name} needs --allow-ffi={name} --allow-read={name} --allow-write={name}`,
    (t) => cache(freshDirectory(t), { mayLoad: () => false, mayAccess: () => false }),
  ),
  row("{name} is not a directory", (t) => {
    const base = freshDirectory(t);
    symlinkSync(freshDirectory(t), join(base, "shmap"));
    cache(base);
  }),
  row("{name} can be changed by others than its owner", (t) => {
    const base = freshDirectory(t);
    mkdirSync(join(base, "shmap"));
    chmodSync(join(base, "shmap"), 0o777);
    cache(base);
  }),
  row("there is no /proc/self/fd", () => memory(libcWith({ openat: () => -1 }))),
  row("the system makes no memory file", () => memory(libcWith({ memfd_create: () => -1 }))),
  row("the system has no room for a memory file", () => memory(libcWith({ write: () => 0 }))),
  row("it cannot be sealed", () => memory(libcWith({ write: () => 100 }))),
  row(
    `${CANNOT}: "/a/library" has fingerprint 0x00000001, expected 0x{any}; a build of this very ` +
      'version is needed, in a checkout "npm run build"',
    () => {
      throw wrongBuild('"/a/library"', 1);
    },
  ),
  row('Cannot use the directory "/a": run with --allow-read=/a', () => {
    throw notGranted("/a", "read", `Cannot use the directory "/a"`);
  }),
  row(`${CANNOT}: run this with Deno or Bun`, () => {
    throw wrongRuntime();
  }),
];
