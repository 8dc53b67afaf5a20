/**
 * The suites on the real Deno and Bun for arm64, run by qemu on a copy of the checkout in which
 * everything that is started, and the library, is of arm64.
 */
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { leftOutOf } from "../left_out.mjs";
import { ROOT } from "../process.mjs";
import {
  attempt,
  checkLeftOut,
  counts,
  countsAt,
  need,
  pathOf,
  replaceTest,
  run,
  shipped,
  Skipped,
  suites,
  SUITES_OF_SOURCES,
  work,
} from "./machine.mjs";
import { compilePeer } from "./peers.mjs";

/** Where Debian puts the libraries of arm64: libc6-arm64-cross, libgcc-s1-arm64-cross. */
const SYSTEM = "/usr/aarch64-linux-gnu";
/** Without signed pointers, which take qemu as long as all the rest. */
const PROCESSOR = "neoverse-n1";
/** Packages without anything of a machine: the codec, and the types for Deno's check. */
const MODULES = ["msgpackr", "@types", "undici-types"];
/** What is of this machine, or of no use. */
const NOT_COPIED = [".git", ".zig-cache", "node_modules", "zig-out"];
/** For the records that qemu keeps of what is mapped: a test asks for much more, to be refused. */
const ADDRESSES_KIB = 2 ** 28;
const DOWNLOAD_MS = 5 * 60_000;
/** Far longer than the suites of a step take. */
const SUITES_MS = 90 * 60_000;

const RUNTIMES = {
  deno: {
    title: "Deno",
    package: "@deno/linux-arm64-glibc",
    file: "deno",
    command: (report) => ["test", "-A", "--no-check", `--junit-path=${report}`],
  },
  bun: {
    title: "Bun",
    package: "@oven/bun-linux-aarch64",
    file: "bin/bun",
    command: (report) => [
      ...["test", "--timeout", "3000000"],
      ...["--reporter=junit", `--reporter-outfile=${report}`],
    ],
  },
};

/**
 * Tells programs of a machine with half a GiB of memory. Each segment reserves four times that, and
 * qemu keeps a record for every page of it.
 */
const SMALL_MACHINE = `#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>
int sysinfo(struct sysinfo *info) {
  int result = syscall(SYS_sysinfo, info);
  info->totalram = (1UL << 29) / info->mem_unit;
  return result;
}
`;

/** The path of a runtime for arm64: the locked version, or the newest before it that can be had. */
async function fetched(runtime) {
  const { dependencies, devDependencies, engines } = json("package.json");
  const range = `${engines[runtime]} <=${{ ...dependencies, ...devDependencies }[runtime]}`;
  const place = join(work, "arm64", runtime);
  mkdirSync(place, { recursive: true });
  const wanted = `${RUNTIMES[runtime].package}@${range}`;
  const packing = ["pack", "--json", "--pack-destination", place, wanted];
  const { how, output } = await attempt("npm", packing, { limitMs: DOWNLOAD_MS });
  const file = readdirSync(place).find((name) => name.endsWith(".tgz"));
  if (how !== "" || !file) throw new Skipped(`npm has no ${wanted}: ${lastLine(output)}`);
  await run("tar", ["xzf", join(place, file), "-C", place]);
  return join(place, "package", RUNTIMES[runtime].file);
}

function json(file) {
  return JSON.parse(readFileSync(join(ROOT, file), "utf8"));
}

function lastLine(output) {
  return output.trimEnd().split("\n").at(-1);
}

/** Makes `path` a command that runs `program` under qemu: a child is started by its path. */
async function emulate(path, program) {
  const small = join(work, "arm64", "small-machine.so");
  if (!existsSync(small)) {
    const source = small.replace(/so$/, "c");
    writeFileSync(source, SMALL_MACHINE);
    await run("zig", ["cc", "-shared", "-O2", source, "-o", small]);
  }
  const qemu = `qemu-aarch64 -cpu ${PROCESSOR} -L ${SYSTEM} -U LD_PRELOAD`;
  const lines = [
    "#!/bin/sh",
    `ulimit -v ${ADDRESSES_KIB}`,
    `LD_PRELOAD=${small} exec ${qemu} ${program} "$@"`,
  ];
  writeFileSync(path, `${lines.join("\n")}\n`);
  chmodSync(path, 0o755);
}

let tree;

/** The copy of the checkout, or why there is none, which is found out once. */
function prepared() {
  return tree ??= prepare();
}

async function prepare() {
  need("qemu-aarch64");
  if (!existsSync(join(SYSTEM, "lib", "libgcc_s.so.1"))) {
    throw new Skipped("libc6-arm64-cross and libgcc-s1-arm64-cross are not installed");
  }
  chmodSync(work, 0o755); // some tests start a child as another user
  const programs = [];
  for (const runtime of Object.keys(RUNTIMES)) programs.push([runtime, await fetched(runtime)]);
  const place = join(work, "arm64", "checkout");
  for (const directory of ["node_modules/.bin", "zig-out/lib", "zig-out/bin"]) {
    mkdirSync(join(place, directory), { recursive: true });
  }
  for (const path of readdirSync(ROOT).filter((name) => !NOT_COPIED.includes(name))) {
    cpSync(join(ROOT, path), join(place, path), { recursive: true });
  }
  for (const name of MODULES) {
    symlinkSync(join(ROOT, "node_modules", name), join(place, "node_modules", name));
  }
  copyFileSync(await shipped("linux-arm64"), join(place, "zig-out", "lib", "libshmap.so"));
  for (const [runtime, program] of programs) {
    await emulate(join(place, "node_modules", ".bin", runtime), program);
  }
  await emulate(
    join(place, "zig-out", "bin", "shmap-peer"),
    await compilePeer("aarch64-linux-musl", ["-lc"]),
  );
  replaceTest(join(place, "tests"));
  const examples = readdirSync(join(place, "examples")).map((file) => join("examples", file));
  for (const file of ["docs/recipes.md", ...examples]) replaceOwnPath(join(place, file), place);
  return place;
}

/** Lets an example start another process by a command that this machine can run. */
function replaceOwnPath(file, place) {
  const bin = join(place, "node_modules", ".bin");
  const command = `("Deno" in globalThis ? "${join(bin, "deno")}" : "${join(bin, "bun")}")`;
  const text = readFileSync(file, "utf8");
  writeFileSync(file, text.replaceAll(/process\.execPath|Deno\.execPath\(\)/g, command));
}

/** Runs suites on a runtime for arm64, counts their tests, and says of which version it was. */
async function runSuites(runtime, lock, names) {
  const place = await prepared();
  const { title, command } = RUNTIMES[runtime];
  const bin = join(place, "node_modules", ".bin");
  const { how: versionEnd, output: version } = await attempt(join(bin, runtime), ["--version"]);
  if (versionEnd !== "") throw new Error(version);
  const report = join(work, "arm64", "report.xml");
  rmSync(report, { force: true });
  const args = [...command(report), ...names.split(" ").map(pathOf)];
  const { how, output } = await attempt(join(bin, runtime), args, {
    cwd: place,
    limitMs: SUITES_MS,
    env: {
      PATH: `${bin}:${process.env.PATH}`,
      SHMAP_TEST_RUNTIMES: bin,
      SHMAP_TEST_LOCK: lock,
      SHMAP_TEST_SCALE: "0.05",
      SHMAP_TEST_PATIENCE: "20",
      DENO_DIR: join(work, "arm64", "deno"),
      DENO_V8_FLAGS: "--max-old-space-size=4096", // and not a part of the small memory
    },
  });
  const counted = countsAt(report);
  if (!counted || how !== "" || counted.failed > 0) {
    throw new Error(`${how}\n${output.slice(-20_000)}`);
  }
  checkLeftOut(leftOutOf("qemu", runtime, lock), names.split(" "), counted.reasons);
  counts.passed += counted.passed - 1; // the step itself counts as one
  counts.skipped += counted.skipped;
  const number = /\d+\.\d+\.\d+/.exec(version)?.[0];
  const left = counted.reasons.map((reason) => `    not run: ${reason}`);
  return [`${title} ${number}: ${counted.passed} tests`, ...left].join("\n");
}

const LOCKS = { kernel: "kernel locks", usual: "with the usual lock" };

/** The suites that take seconds. */
const KERNEL = "abi map values value lock seed_mmap";
/** Those that take minutes, as a child takes seconds to start: only for who asks for them. */
const SLOW = {
  "about regions": ["kernel", "map_additions mmap mmap_files seed_value seed_mmap_source pack"],
  "about segments": ["kernel", "errors flood foreign lifecycle owners seed space token"],
  "about processes": ["kernel", "crash lock_processes processes"],
  "about what is shipped": ["kernel", "cache_file examples library readme"],
  "about locks": ["usual", "kernel_lock lock_processes"],
};
/** What needs the mutexes of the C library, and no death: qemu has no robust lists. */
const USUAL = "map map_additions value lock";

/** Counts the suites that are left out, and says it; one that was forgotten is an error. */
function tellLeftOut() {
  const run = [KERNEL, ...Object.values(SLOW).map(([, names]) => names)].join(" ").split(" ");
  const known = new Set([...run, ...Object.keys(SUITES_OF_SOURCES)]);
  const forgotten = suites().filter((suite) => !known.has(suite));
  if (forgotten.length > 0) throw new Error(`in no step: ${forgotten}`);
  return Object.entries(SUITES_OF_SOURCES).map(([suite, reason]) => {
    counts.skipped += 1;
    return `\n    not run: ${suite}: ${reason}`;
  }).join("");
}

/** The steps of both runtimes; `make` gives one its name and what it does. */
function onEach(make) {
  return Object.fromEntries(
    Object.entries(RUNTIMES).map(([runtime, { title }]) => make(runtime, `${title} for arm64`)),
  );
}

/** The steps in their order: a glance only, or all; those that take minutes where a word asks. */
export function arm64Steps({ isSmoke, words }) {
  if (isSmoke) {
    return onEach((runtime, title) => [
      `run a suite on ${title}, under qemu`,
      () => runSuites(runtime, "kernel", "map"),
    ]);
  }
  const slow = (runtime, lock, names) => {
    if (words.length === 0) throw new Skipped("takes minutes, and was not asked for by name");
    return runSuites(runtime, lock, names);
  };
  return {
    ...onEach((runtime, title) => [
      `run the suites on ${title}, under qemu, ${LOCKS.kernel}`,
      () => runSuites(runtime, "kernel", KERNEL),
    ]),
    ...Object.assign(
      {},
      ...Object.entries(SLOW).map(([about, [lock, names]]) =>
        onEach((runtime, title) => [
          `run the slow suites ${about} on ${title}, under qemu, ${LOCKS[lock]}`,
          () => slow(runtime, lock, names),
        ])
      ),
    ),
    ...onEach((runtime, title) => [
      `run suites on ${title}, under qemu, ${LOCKS.usual}`,
      () => runSuites(runtime, "usual", USUAL),
    ]),
    "account for every suite on arm64, under qemu": tellLeftOut,
  };
}
