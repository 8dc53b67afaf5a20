/**
 * How to meet the messages of this module: what each says, and a call that throws it. In what a row
 * says, `{name}` is the name or path of a test, `{n}` a number, `{size}` an amount of bytes, and
 * `{any}` some text of the system or the runtime.
 */
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Lock, Mmap, SharedMap, SharedValue } from "../../mod.ts";
import { Entries } from "../../src/segment/entries.ts";
import { MAP } from "../../src/segment/options.ts";
import { anonymousSegment } from "../../src/segment/segment.ts";
import { CODECS } from "./corpus.ts";
import { freshDirectory, freshMap, freshName, SHM, type TestContext } from "./support.ts";

export interface Row {
  says: string;
  call: (t: TestContext) => unknown;
}

/** Anything, where the types want something else. */
// deno-lint-ignore no-explicit-any
const any = (value: unknown): any => value;

export function row(says: string, call: Row["call"]): Row {
  return { says, call };
}

const name = (t: TestContext) => freshName(t);
const file = (t: TestContext, bytes = "bytes") => {
  const path = join(freshDirectory(t), "file");
  writeFileSync(path, bytes);
  return path;
};

const OPEN_OPTIONS =
  "mode, readonly, permissions, allowForeignOwner, directory, maxBytes, lock, timeout, codec, frozen" +
  ", ttl";
const NAME_RULE = "it may have letters, digits, '.', '_' and '-', and no '.' at the start";

/** Arguments of the wrong kind, or beyond a limit. */
export const ARGUMENTS: Row[] = [
  row("Cannot use 7 as name: it must be a string", () => SharedMap.open(any(7))),
  row("Cannot use null as name: it must be a string", () => SharedMap.open(any(null))),
  row("Cannot use an object as name: it must be a string", () => SharedMap.open(any({}))),
  row("Cannot use an array as name: it must be a string", () => SharedMap.open(any([]))),
  row("Cannot use a symbol as name: it must be a string", () => SharedMap.open(any(Symbol()))),
  row(`Cannot use the name "a/b": ${NAME_RULE}`, () => SharedMap.open("a/b")),
  row(
    "Cannot use a name of 201 characters: the limit is 200",
    () => SharedMap.open("x".repeat(201)),
  ),
  row("Cannot use 7 as options: it must be an object", (t) => SharedMap.open(name(t), any(7))),
  row(
    `Cannot use an option "mdoe": the nearest here is "mode", of ${OPEN_OPTIONS}`,
    (t) => SharedMap.open(name(t), any({ mdoe: "create" })),
  ),
  row("Cannot use ttl -1: it must be more than 0", (t) => SharedMap.open(name(t), { ttl: -1 })),
  row(
    'Cannot use "1" as ttl: it must be a number',
    (t) => freshMap(t).set("a", 1, any({ ttl: "1" })),
  ),
  row(
    "Cannot use true as expiry: it must be a number or an object with ttl or expires",
    (t) => freshMap(t).set("a", 1, any(true)),
  ),
  row(
    "Cannot use both ttl and expires: state one of them",
    (t) => freshMap(t).set("a", 1, { ttl: 1, expires: 1 }),
  ),
  row(
    "Cannot use these options: they state neither ttl nor expires",
    (t) => freshMap(t).touch("a", {}),
  ),
  row(
    'Cannot use "1" as by: it must be a number or a bigint',
    (t) => freshMap(t).increment("a", any("1")),
  ),
  row(
    "Cannot use 1n as initial: it must be a number, as what is added",
    (t) => freshMap(t).increment("a", 1, any({ initial: 1n })),
  ),
  row(
    'Cannot add 1 to "a" in map "{name}": its value is no number',
    (t) => freshMap<unknown>(t).set("a", "text").increment("a"),
  ),
  row(
    'Cannot add 1 to "a" in map "{name}": the sum is not a number from -(2^53 - 1) to 2^53 - 1',
    (t) => freshMap(t).set("a", Number.MAX_SAFE_INTEGER).increment("a"),
  ),
  row(
    'Cannot use "page 2" as cursor: it must be what scan gave',
    (t) => freshMap(t).scan({ cursor: "page 2" }),
  ),
  row(
    'Cannot use an option "dir": the nearest here is "directory"',
    () => SharedMap.list(any({ dir: "x" })),
  ),
  row(
    'Cannot use "x" as timeout: it must be a number',
    (t) => SharedMap.open(name(t), any({ timeout: "x" })),
  ),
  row("Cannot use timeout -1: it is 0 to Infinity", (t) => freshMap(t).lock({ timeout: -1 })),
  row(
    "Cannot use permissions 512: it is a whole number from 0 to 511",
    (t) => SharedMap.open(name(t), { permissions: 0o1000 }),
  ),
  row(
    'Cannot use "new" as mode: it must be "shared" or "create" or "attach" or "exclusive"',
    (t) => SharedMap.open(name(t), any({ mode: "new" })),
  ),
  row(
    'Cannot open read-only in mode "create": readonly only attaches',
    (t) => SharedMap.open(name(t), { mode: "create", readonly: true }),
  ),
  row(
    'Cannot use "" as directory: it has no character, or a zero one',
    (t) => SharedMap.open(name(t), { directory: "" }),
  ),
  row(
    "Cannot use a directory of 5000 characters: the limit is 4096",
    (t) => SharedMap.open(name(t), { directory: "x".repeat(5000) }),
  ),
  row(
    "Cannot use an object as codec: it must be an object with id, encode and decode",
    (t) => SharedMap.open(name(t), any({ codec: {} })),
  ),
  row(
    'Cannot use the codec id "é": it is ASCII, and not empty',
    () => SharedMap.anonymous({ codec: { ...CODECS.json, id: "é" } }),
  ),
  row(
    "Cannot use a codec id of 64 bytes: the limit is 63",
    () => SharedMap.anonymous({ codec: { ...CODECS.json, id: "x".repeat(64) } }),
  ),
  row("Cannot use 7 as token: it must be a string", () => SharedMap.attach(any(7))),
  row('Cannot attach to "x": it is not a token', () => SharedMap.attach("x")),
  row("Cannot use 1 as fn: it must be a function", (t) => freshMap(t).update("a", any(1))),
  row(
    "Cannot use a function as keys: it must be an iterable",
    (t) => freshMap(t).getMany(any(() => 1)),
  ),
  row("Cannot use 1 as keys: it must be an iterable", (t) => freshMap(t).getMany(any(1))),
  row(
    "Cannot store 1: an entry is a key and a value",
    (t) => freshMap(t).setMany(any([1])),
  ),
  row(
    "Cannot use 1 as signal: it must be an AbortSignal",
    (t) => freshMap(t).lockAsync({ signal: any(1) }),
  ),
  row("Cannot construct SharedMap: use open, anonymous or attach", () => new (any(SharedMap))()),
  row("Cannot construct Mmap: use open, anonymous or attach", () => new (any(Mmap))()),
  row("Cannot construct Lock: use lock, tryLock or lockAsync", () => new (any(Lock))()),
  row("Cannot use an empty string as a key: key must not be empty", (t) => freshMap(t).get("")),
  row("Cannot use undefined as a key: key must be defined", (t) => freshMap(t).get(any(undefined))),
  row("Cannot use 7 as a key: key must be a string", (t) => freshMap(t).get(any(7))),
  row("Cannot use a string with a lone surrogate as a key", (t) => freshMap(t).get("\ud800")),
  row(
    "Cannot use a key of 70000 bytes: the limit is 65535",
    (t) => freshMap(t).get("x".repeat(70_000)),
  ),
  row(
    "Cannot set anonymous value to 2 values: it takes one",
    () => any(SharedValue.anonymous()).set(1, 2),
  ),
  row(
    "Cannot update anonymous value by 1: it is no function",
    () => SharedValue.anonymous().update(any(1)),
  ),
  row(
    "Cannot update anonymous value to a promise: it must be the value",
    () => SharedValue.anonymous().update(async () => {}),
  ),
];

/** Values that would not come back as they are. */
export const VALUES: Row[] = ([
  ["undefined: value must be defined", () => undefined],
  ['function "go"', () => function go() {}],
  ["a function", () => () => 1],
  ['symbol "s"', () => Symbol("s")],
  ["an instance of URL", () => new URL("file:///")],
  [
    "an instance of no class (its prototype is null)",
    () => Object.setPrototypeOf([1], null),
  ],
  ["an instance of an unnamed class", () => new (class {})()],
  ["a function at value.f", () => ({ f: (() => () => 1)() })],
  ['a function at value.rows[1].get("k")', () => ({
    rows: [1, new Map([["k", (() => () => 1)()]])],
  })],
  ["more than 500 levels at value{any}", () => {
    let list: unknown[] = [];
    for (let i = 0; i < 600; i += 1) list = [list];
    return list;
  }],
  ["a proxy", () => new Proxy(new Map(), {})],
  [
    "an object with a symbol as a key, or with a hidden property",
    () => ({ [Symbol("s")]: 1 }),
  ],
  [
    "an array with a symbol as a key, or with a hidden property",
    () => Object.assign([1], { [Symbol("s")]: 1 }),
  ],
  ["a resizable ArrayBuffer", () => new ArrayBuffer(1, { maxByteLength: 2 })],
  ["a RegExp with a lastIndex", () => Object.assign(/x/g, { lastIndex: 1 })],
  ["an error whose name is no string", () => Object.assign(new Error("e"), { name: 1 })],
  ["an error whose message is no string", () => Object.assign(new Error("e"), { message: 1 })],
  ["an error with a symbol as a key", () => Object.assign(new Error("e"), { [Symbol("s")]: 1 })],
  ["a Date with properties of its own", () => Object.assign(new Date(), { mine: 1 })],
] as [string, () => unknown][]).map(([what, value]) =>
  row(`Cannot store ${what}`, (t) => freshMap(t).set("a", value()))
);

/** What a codec does wrong, and bytes that are no value. */
export const STORED: Row[] = [
  row('Cannot encode the value with codec "throws"', () =>
    SharedMap.anonymous({
      codec: { ...CODECS.json, id: "throws", encode: () => fail(new Error("mine")) },
    }).set("a", {})),
  row(
    'Cannot store what codec "text" returned: encode must return a Uint8Array',
    () =>
      SharedMap.anonymous({ codec: { ...CODECS.json, id: "text", encode: () => any("x") } })
        .set("a", {}),
  ),
  row(
    'Cannot read "a" in anonymous map into bytes: it is neither bytes nor a string without lone ' +
      "surrogates",
    () => SharedMap.anonymous().set("a", 1).getInto("a", new Uint8Array(9)),
  ),
  row(
    "Cannot store a value of 1073741825 bytes: the limit is 1 GiB",
    (t) => freshMap(t).set("a", new Uint8Array(2 ** 30 + 1)),
  ),
  row(
    'Cannot read "broken" in map "{name}": the codec does not read its bytes',
    (t) => freshMap(t, { codec: CODECS.rubbish }).set("broken", {}).get("broken"),
  ),
  row('Cannot read "a" in anonymous map: its bytes are no structure', () => withKind(1, "\x07")),
  row('Cannot read "a" in anonymous map: the text is not UTF-8', () => withKind(4, "\xff")),
  row(
    'Cannot read "a" in anonymous map: no value of this version of shmap has kind 77 and 1 bytes;' +
      " a newer one may read it",
    () => withKind(77, "x"),
  ),
];

function fail(error: Error): never {
  throw error;
}

/** Reads a value of these bytes and of a kind that a newer version, or damage, has left. */
function withKind(kind: number, text: string): unknown {
  const segment = anonymousSegment(MAP, {});
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const key = new TextEncoder().encode("a");
  segment.native.shm_map_put(segment.handle, key, 1, bytes, bytes.length, kind);
  try {
    return new Entries(segment, false, Infinity).get("a");
  } finally {
    segment.close();
  }
}

/** A map that another handle of this process keeps from writing. */
function lockedMap(t: TestContext, task: (map: SharedMap, other: SharedMap) => unknown): unknown {
  const map = freshMap(t, { timeout: 1 });
  using other = SharedMap.open(map.name!, { timeout: 1 });
  using _lock = map.lock();
  return task(map, other);
}

const WHY_LOCKED =
  "this thread holds its lock, by this handle or another, and waiting would not end";

/** What a map, a value or a region cannot do. */
export const STATES: Row[] = [
  row(
    'Cannot open map "{name}": there is none in /dev/shm; an open that may write, without mode,' +
      " makes it",
    (t) => SharedMap.open(name(t), { mode: "attach" }),
  ),
  row(
    'Cannot create map "{name}": there is one already in /dev/shm',
    (t) => SharedMap.open(freshMap(t).name!, { mode: "create" }),
  ),
  row(
    'Cannot open map "a": there is no directory /no/such/place (ENOENT); make ' +
      "it, or state another" +
      " one",
    () => SharedMap.open("a", { directory: "/no/such/place" }),
  ),
  row(
    "Cannot list the segments: there is no directory /no/such/place (ENOENT); make it, or state" +
      " another one",
    () => SharedMap.list({ directory: "/no/such/place" }),
  ),
  row(
    'Cannot open map "{name}": the path is too long (ENAMETOOLONG)',
    (t) => SharedMap.open(name(t), { directory: `/tmp/${"x".repeat(300)}` }),
  ),
  row(
    'Cannot identify map "{name}": its name no longer leads to it, for its file was removed or ' +
      "replaced; open the name again",
    (t) => {
      const map = freshMap(t);
      map.unlink();
      return map.token;
    },
  ),
  row(
    "Cannot attach to anonymous map: the process that gave the token has closed it or ended",
    () => SharedMap.attach(staleToken()),
  ),
  row(
    'Cannot attach to map "{name}": its name leads to none, or to another one: it was unlinked, ' +
      "removed or replaced",
    (t) => {
      const map = freshMap(t);
      const { token } = map;
      map.unlink();
      return SharedMap.attach(token);
    },
  ),
  row(
    "Cannot attach to anonymous map: this PID namespace has no process 1073741824, which gave the " +
      "token: it has ended, or is in another PID namespace, to which only names lead",
    () => SharedMap.attach("fd:1073741824:3:0123456789abcdef"),
  ),
  row('Cannot read map "{name}": it is closed', (t) => {
    const map = freshMap(t);
    map.close();
    map.get("a");
  }),
  row('Cannot iterate over map "{name}": it is closed', (t) => {
    const map = freshMap(t);
    map.close();
    map.keys();
  }),
  row('Cannot read map "{name}": an exclusive open has replaced it; open it again', (t) => {
    const map = freshMap(t);
    SharedMap.open(map.name!, { mode: "exclusive" }).close();
    map.get("a");
  }),
  row('Cannot write map "{name}": it was opened read-only', (t) => {
    using reader = SharedMap.open(freshMap(t).name!, { readonly: true });
    reader.set("a", 1);
  }),
  row(
    `Cannot write map "{name}": ${WHY_LOCKED}`,
    (t) => lockedMap(t, (_, other) => other.set("a", 1)),
  ),
  row(
    'Cannot grow map "{name}": {size} of {size} used in /dev/shm, {size} more needed; ' +
      "delete entries, or make a new one with a larger maxBytes",
    (t) => {
      const map = freshMap(t, { maxBytes: 2 ** 19 });
      for (let i = 0;; i += 1) map.set(`key ${i}`, "x".repeat(20_000));
    },
  ),
  row(
    'Cannot write map "{name}": the value has {size}, the limit is {size}',
    (t) => freshMap(t, { maxBytes: 2 ** 20 }).set("a", "x".repeat(2 ** 21)),
  ),
  row(
    "Cannot set anonymous value: it needs 12 bytes, maxBytes is 10; try a maxBytes of at least 12",
    () => SharedValue.anonymous({ maxBytes: 10 }).set("far too long"),
  ),
  row(
    'Cannot open value "{name}": it is a map, wanted a value',
    (t) => SharedValue.open(freshMap(t).name!),
  ),
  row(
    "Cannot attach to anonymous region: it is of another kind, wanted a region",
    (t) => Mmap.attach(freshMap(t).token),
  ),
  row(
    'Cannot open map "{name}": its codec is "msgpackr", wanted "{any}"',
    (t) => SharedMap.open(freshMap(t).name!, { codec: CODECS.json }),
  ),
  row(
    'Cannot open map "{name}": its lock is "kernel", wanted "robust"',
    (t) => SharedMap.open(freshMap(t, { lock: "kernel" }).name!, { lock: "robust" }),
  ),
  row(
    'Cannot open map "{name}": its maxBytes is 1048576, wanted 2097152',
    (t) => SharedMap.open(freshMap(t, { maxBytes: 2 ** 20 }).name!, { maxBytes: 2 ** 21 }),
  ),
  row(
    'Cannot open map "file": what is there, in {name}, is not a segment',
    (t) => SharedMap.open("file", { directory: dirname(file(t, "x".repeat(5000))) }),
  ),
  row('Cannot open map "folder": what is there, in {name}, is not a regular file', (t) => {
    const directory = freshDirectory(t);
    mkdirSync(join(directory, "folder"));
    SharedMap.open("folder", { directory });
  }),
  row('Cannot open map "file": its file is cut short', (t) =>
    damaged(t, (path) => {
      truncateSync(path, 5000);
    })),
  row(
    'Cannot open map "file": its header does not match its checksum',
    (t) =>
      damaged(t, (path) => {
        const bytes = readFileSync(path);
        bytes[40] ^= 1;
        writeFileSync(path, bytes);
      }),
  ),
  row(
    'Cannot open map "file": it has layout {n}, and this version of shmap reads layout {n}',
    (t) =>
      damaged(t, (path) => {
        const bytes = readFileSync(path);
        bytes[8] ^= 1;
        writeFileSync(path, bytes);
      }),
  ),
];

/** The token of a map that is closed by now. */
function staleToken(): string {
  const map = SharedMap.anonymous();
  const { token } = map;
  map.close();
  return token;
}

/** A map that was changed from outside while it was closed. */
function damaged(t: TestContext, change: (path: string) => void): unknown {
  const directory = freshDirectory(t, SHM);
  SharedMap.open("file", { directory }).set("a", 1).close();
  change(join(directory, "file"));
  return SharedMap.open("file", { directory });
}

/** What a region cannot do. */
export const REGIONS: Row[] = [
  row(
    "Cannot create anonymous region: MAP_ANON specified, but no length specified",
    () => Mmap.anonymous(0),
  ),
  row(
    "Cannot use length -1: it is a whole number from 0 to 9007199254740991",
    (t) => Mmap.open(file(t), { length: -1 }),
  ),
  row("Cannot open region: -1 is no file descriptor", () => Mmap.open(-1)),
  row("Cannot open region: No filename or filehandle provided.", () => Mmap.open("")),
  row('Cannot open region: "a\\u0000b" cannot be a path', () => Mmap.open("a\0b")),
  row(
    'Cannot open region "{name}": Can\'t open {name}: ENOENT',
    (t) => Mmap.open(join(freshDirectory(t), "none")),
  ),
  row(
    "Cannot open region over descriptor 2147483647: Can't open descriptor 2147483647: EBADF",
    () => Mmap.open(2 ** 31 - 1),
  ),
  row(
    'Cannot open region "{name}": the file is empty, and no length was given',
    (t) => Mmap.open(file(t, "")),
  ),
  row(
    'Cannot open region "{name}": specified file too small: 5 bytes, 100 wanted',
    (t) => Mmap.open(file(t), { length: 100 }),
  ),
  row(
    'Cannot write region "{name}": Invalid access on read-only region',
    (t) => Mmap.open(file(t)).write("x"),
  ),
  row(
    'Cannot lock region "{name}": Invalid access on read-only region; only a ' +
      "shared lock can be had",
    (t) => Mmap.open(file(t)).lock({ shared: false }),
  ),
  row(
    'Cannot read region "{name}": Invalid access on write-only region',
    (t) => Mmap.open(file(t), { protection: "write" }).read(),
  ),
  row(
    'Cannot identify region "{name}": it is over a file, and only regions in memory have a token',
    (t) => Mmap.open(file(t)).token,
  ),
  row(
    "Cannot read anonymous region at offset -1: it is a whole number from 0",
    () => Mmap.anonymous(4).read(-1),
  ),
  row(
    "Cannot read anonymous region: its length -1 is a whole number from 0",
    () => Mmap.anonymous(4).read(0, -1),
  ),
  row(
    "Cannot write anonymous region at offset 4: write failed: offset exceeds region length 4",
    () => Mmap.anonymous(4).write("x", 4),
  ),
  row("Cannot use 7 as target: it must be a Uint8Array", () => Mmap.anonymous(4).readInto(any(7))),
  row(
    "Cannot use 7 as data: it must be a string or a Uint8Array",
    () => Mmap.anonymous(4).write(any(7)),
  ),
];
