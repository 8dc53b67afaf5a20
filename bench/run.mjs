/**
 * Runs the benchmarks, one part after another, and puts their figures together.
 *
 *     node bench/run.mjs             all parts; writes bench/results.json and bench/chart.svg
 *     node bench/run.mjs map growth  only these parts; prints, and writes nothing
 *     node bench/run.mjs --smoke     the same over tiny sizes, to see that everything still runs
 *
 * A run installs what it measures besides, unless it is a smoke run: packages from npm into
 * bench/peers, and as root two of the system's. What cannot be had is left out, and said.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { inWords } from "../tools/counts.mjs";
import { install } from "../tools/install.mjs";
import { isInstalled, ROOT, run } from "../tools/process.mjs";
import { chartOf } from "./chart.mjs";
import { ratiosOf, remaindersOf, tablesOf } from "./report.mjs";

const PART_TIMEOUT_MS = 15 * 60_000;
const PEERS = join(ROOT, "bench", "peers");
const PROGRAMS = join(ROOT, "zig-out", "bin");
const LIBRARY = join(ROOT, "zig-out", "lib", "libshmap.so");

/** Every part and its command, in their order. */
const PARTS = {
  engine: [join(PROGRAMS, "shmap-bench-engine"), LIBRARY],
  "map-deno": ["deno", "run", "-A", "bench/map.ts"],
  "map-bun": ["bun", "run", "bench/map.ts"],
  "structures-deno": ["deno", "run", "-A", "bench/map.ts", "--structures"],
  "structures-bun": ["bun", "run", "bench/map.ts", "--structures"],
  processes: [join(PROGRAMS, "shmap-bench-processes")],
  growth: [join(PROGRAMS, "shmap-bench-growth")],
  locks: [join(PROGRAMS, "shmap-bench-locks")],
};

/** The system's packages, and what shows that they are there; without them rows are left out. */
const PACKAGES = {
  liblmdb0: async () => (await says("ldconfig", "-p")).includes("liblmdb.so.0"),
  // The package redis-server has the same program, and starts a service.
  "redis-tools": () => isInstalled("redis-server") || isInstalled("redis-check-rdb"),
};

/** Runs a command to its end, its output in the terminal. */
async function succeeds(command, cwd = ROOT) {
  return (await run(command, { cwd, show: true })).isOk;
}

/** What a command says, nothing if it cannot be run. */
async function says(...command) {
  return (await run(command)).stdout.trim();
}

function wantedPeers() {
  return JSON.parse(readFileSync(join(PEERS, "package.json"), "utf8")).dependencies;
}

function installedVersion(name) {
  const manifest = join(PEERS, "node_modules", name, "package.json");
  return existsSync(manifest) ? JSON.parse(readFileSync(manifest, "utf8")).version : undefined;
}

/** Installs what is measured besides, as far as that can be done here. */
async function installPeers() {
  const missing = Object.entries(wantedPeers())
    .filter(([name, version]) => installedVersion(name) !== version);
  const options = ["--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"];
  if (missing.length > 0 && !await succeeds(["npm", "install", ...options], PEERS)) {
    console.error("the packages of bench/peers cannot be installed: they are left out");
  }
  const absent = [];
  for (const [name, isThere] of Object.entries(PACKAGES)) {
    if (!await isThere()) absent.push(name);
  }
  if (absent.length === 0) return;
  const command = ["apt-get", "install", "-y", "--no-install-recommends", ...absent];
  const isDone = process.getuid() === 0 && isInstalled("apt-get") &&
    (await succeeds(command) ||
      (await succeeds(["apt-get", "update"]) && await succeeds(command)));
  if (!isDone) console.error(`${absent.join(", ")}: cannot be installed here, left out`);
}

/** Runs a part and resolves with its rows, and whether it ended well. */
async function runPart(name, isSmoke) {
  const command = [...PARTS[name], ...(isSmoke ? ["--smoke"] : [])];
  const { isOk, how, stdout, stderr } = await run(command, { limitMs: PART_TIMEOUT_MS });
  process.stderr.write(stderr);
  if (!isOk) console.error(`${name}: ${how}`);
  const lines = stdout.split("\n").filter(Boolean);
  const rows = lines.map(parsed).filter((row) => row !== undefined);
  for (const line of lines) {
    if (parsed(line) === undefined) console.error(`${name}: not a row: ${line}`);
  }
  return { rows, isGood: isOk && rows.length === lines.length };
}

/** A row, or undefined for a line that is none. */
function parsed(line) {
  try {
    const row = JSON.parse(line);
    const hasFigure = ["median", "p50"].some((key) => typeof row[key] === "number");
    return row.bench && row.case && row.who && (hasFigure || row.skipped) ? row : undefined;
  } catch {
    return undefined;
  }
}

/** The parts of these names, or whose names begin so; undefined when no part has such a name. */
function chosen(names) {
  const parts = names.map((name) =>
    Object.keys(PARTS).filter((part) => part === name || part.startsWith(`${name}-`))
  );
  if (parts.some((found) => found.length === 0)) return undefined;
  return names.length === 0 ? Object.keys(PARTS) : parts.flat();
}

/** What the figures depend on. */
async function machine() {
  const peers = Object.keys(wantedPeers()).map((name) => [name, installedVersion(name)]);
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0].model.trim(),
    cores: cpus().length,
    kernel: release(),
    versions: {
      deno: (await says("deno", "--version")).split(/\s/)[1],
      bun: await says("bun", "--version"),
      zig: await says("zig", "version"),
      ...Object.fromEntries(peers.filter(([, version]) => version !== undefined)),
      redis: (await says("redis-cli", "--version")).split(/\s/)[1],
      liblmdb0: await says("dpkg-query", "-W", "-f", "${Version}", "liblmdb0") || undefined,
      "node:sqlite": await says("deno", "eval", sqliteVersion("node:sqlite", "DatabaseSync")),
      "bun:sqlite": await says("bun", "-e", sqliteVersion("bun:sqlite", "Database")),
    },
  };
}

function sqliteVersion(module, name) {
  return `import { ${name} } from "${module}";` +
    `console.log(new ${name}(":memory:").prepare("SELECT sqlite_version() v").get().v)`;
}

/** As JSON with a row a line, so that runs can be compared. */
function written(results) {
  const sections = Object.entries(results).map(([name, content]) => {
    const text = Array.isArray(content)
      ? `[\n${content.map((row) => `    ${JSON.stringify(row)}`).join(",\n")}\n  ]`
      : JSON.stringify(content, null, 2).replaceAll("\n", "\n  ");
    return `  ${JSON.stringify(name)}: ${text}`;
  });
  return `{\n${sections.join(",\n")}\n}\n`;
}

/** Runs the parts and says how many rows each gave. */
async function runAll(parts, isSmoke) {
  const rows = [];
  const total = { passed: 0, failed: 0, skipped: 0 };
  for (const part of parts) {
    const start = performance.now();
    const { rows: found, isGood } = await runPart(part, isSmoke);
    const skipped = found.filter((row) => row.skipped !== undefined);
    const passed = found.length - skipped.length;
    const isOk = isGood && passed > 0;
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    console.log(
      `${
        isOk ? "ok    " : "FAILED"
      } ${part}: ${passed} rows, ${skipped.length} skipped (${seconds} s)`,
    );
    for (const row of skipped) console.log(`    skipped: ${row.who}, ${row.case}: ${row.skipped}`);
    rows.push(...found);
    total.passed += passed;
    total.skipped += skipped.length;
    if (!isOk) total.failed += 1;
  }
  return { rows, total };
}

async function main() {
  const options = { smoke: { type: "boolean", default: false } };
  const { values: { smoke: isSmoke }, positionals: names } = parseArgs({
    options,
    allowPositionals: true,
  });
  const parts = chosen(names);
  if (parts === undefined) {
    console.error(`there is: ${Object.keys(PARTS).join(", ")}`);
    return false;
  }
  const { isOk, output } = await install();
  if (!isOk) console.error(output);
  if (!isSmoke) await installPeers();
  if (!await succeeds(["zig", "build", "install", "bench-programs"])) return false;
  const { rows, total } = await runAll(parts, isSmoke);
  if (!isSmoke) {
    const ratios = [...ratiosOf(rows), ...remaindersOf(rows)];
    console.log(`\n${tablesOf(rows)}\nratios\n\n${tablesOf(ratios)}`);
    const isWhole = parts.length === Object.keys(PARTS).length && total.failed === 0;
    if (isWhole) {
      writeFileSync(
        join(ROOT, "bench", "results.json"),
        written({ machine: await machine(), rows, ratios }),
      );
      writeFileSync(join(ROOT, "bench", "chart.svg"), chartOf(rows));
    }
  }
  console.log(inWords(total));
  return total.failed === 0;
}

process.exitCode = await main() ? 0 : 1;
