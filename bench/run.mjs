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
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { delimiter, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { ENVIRONMENT, install, ROOT } from "../tools/check.mjs";
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
  processes: [join(PROGRAMS, "shmap-bench-processes")],
  growth: [join(PROGRAMS, "shmap-bench-growth")],
  locks: [join(PROGRAMS, "shmap-bench-locks")],
};

/** The system's packages, and what shows that they are there; without them rows are left out. */
const PACKAGES = {
  liblmdb0: () => says("ldconfig", "-p").includes("liblmdb.so.0"),
  // The package redis-server has the same program, and starts a service.
  "redis-tools": () => isOnPath("redis-server") || isOnPath("redis-check-rdb"),
};

function isOnPath(name) {
  return ENVIRONMENT.PATH.split(delimiter).some((path) => existsSync(join(path, name)));
}

/** Runs a command to its end, its output in the terminal. */
function succeeds([program, ...args], cwd = ROOT) {
  const stdio = ["ignore", 2, 2];
  return spawnSync(program, args, { cwd, env: ENVIRONMENT, stdio }).status === 0;
}

/** What a command says, nothing if it cannot be run. */
function says(program, ...args) {
  const { stdout } = spawnSync(program, args, { cwd: ROOT, env: ENVIRONMENT, encoding: "utf8" });
  return stdout?.trim() ?? "";
}

function wantedPeers() {
  return JSON.parse(readFileSync(join(PEERS, "package.json"), "utf8")).dependencies;
}

function installedVersion(name) {
  const manifest = join(PEERS, "node_modules", name, "package.json");
  return existsSync(manifest) ? JSON.parse(readFileSync(manifest, "utf8")).version : undefined;
}

/** Installs what is measured besides, as far as that can be done here. */
function installPeers() {
  const missing = Object.entries(wantedPeers())
    .filter(([name, version]) => installedVersion(name) !== version);
  const options = ["--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"];
  if (missing.length > 0 && !succeeds(["npm", "install", ...options], PEERS)) {
    console.error("the packages of bench/peers cannot be installed: they are left out");
  }
  const absent = Object.keys(PACKAGES).filter((name) => !PACKAGES[name]());
  if (absent.length === 0) return;
  const command = ["apt-get", "install", "-y", "--no-install-recommends", ...absent];
  const isDone = process.getuid() === 0 && isOnPath("apt-get") &&
    (succeeds(command) || (succeeds(["apt-get", "update"]) && succeeds(command)));
  if (!isDone) console.error(`${absent.join(", ")}: cannot be installed here, left out`);
}

/** Runs a part and resolves with its rows, and whether it ended well. */
function run(name, isSmoke) {
  const [program, ...args] = [...PARTS[name], ...(isSmoke ? ["--smoke"] : [])];
  return new Promise((resolve) => {
    const rows = [];
    let isGood = true;
    const child = spawn(program, args, {
      cwd: ROOT,
      env: ENVIRONMENT,
      stdio: ["ignore", "pipe", "inherit"],
      detached: true, // leads a process group of its own, which ends as a whole when it hangs
    });
    const alarm = setTimeout(() => {
      console.error(`${name}: stopped after ${PART_TIMEOUT_MS / 60_000} minutes`);
      process.kill(-child.pid, "SIGTERM"); // which lets it clean up
      setTimeout(() => process.kill(-child.pid, "SIGKILL"), 5000).unref();
    }, PART_TIMEOUT_MS);
    const lines = createInterface({ input: child.stdout });
    lines.on("line", (line) => {
      const row = parsed(line);
      if (row !== undefined) return rows.push(row);
      console.error(`${name}: not a row: ${line}`);
      isGood = false;
    });
    child.on("error", (error) => {
      clearTimeout(alarm);
      console.error(`${name}: ${error.message}`);
      resolve({ rows, isGood: false });
    });
    child.on("close", (code, signal) => {
      clearTimeout(alarm);
      if (code !== 0) console.error(`${name}: ended with ${signal ?? code}`);
      resolve({ rows, isGood: isGood && code === 0 });
    });
  });
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

/** The parts of these names, or whose names begin so; undefined when a name is nobody's. */
function chosen(names) {
  const parts = names.map((name) =>
    Object.keys(PARTS).filter((part) => part === name || part.startsWith(`${name}-`))
  );
  if (parts.some((found) => found.length === 0)) return undefined;
  return names.length === 0 ? Object.keys(PARTS) : parts.flat();
}

/** What the figures depend on. */
function machine() {
  const peers = Object.keys(wantedPeers()).map((name) => [name, installedVersion(name)]);
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0].model.trim(),
    cores: cpus().length,
    kernel: release(),
    versions: {
      deno: says("deno", "--version").split(/\s/)[1],
      bun: says("bun", "--version"),
      zig: says("zig", "version"),
      ...Object.fromEntries(peers.filter(([, version]) => version !== undefined)),
      redis: says("redis-cli", "--version").split(/\s/)[1],
      liblmdb0: says("dpkg-query", "-W", "-f", "${Version}", "liblmdb0") || undefined,
      "node:sqlite": says("deno", "eval", sqliteVersion("node:sqlite", "DatabaseSync")),
      "bun:sqlite": says("bun", "-e", sqliteVersion("bun:sqlite", "Database")),
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
    const { rows: found, isGood } = await run(part, isSmoke);
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

async function main(args) {
  const isSmoke = args.includes("--smoke");
  const names = args.filter((name) => name !== "--smoke");
  const parts = chosen(names);
  if (parts === undefined) {
    console.error(`there is: ${Object.keys(PARTS).join(", ")}`);
    return false;
  }
  const { isOk, output } = await install();
  if (!isOk) console.error(output);
  if (!isSmoke) installPeers();
  if (!succeeds(["zig", "build", "install", "bench-programs"])) return false;
  const { rows, total } = await runAll(parts, isSmoke);
  if (!isSmoke) {
    const ratios = [...ratiosOf(rows), ...remaindersOf(rows)];
    console.log(`\n${tablesOf(rows)}\nratios\n\n${tablesOf(ratios)}`);
    const isWhole = parts.length === Object.keys(PARTS).length && total.failed === 0;
    if (isWhole) {
      writeFileSync(
        join(ROOT, "bench", "results.json"),
        written({ machine: machine(), rows, ratios }),
      );
      writeFileSync(join(ROOT, "bench", "chart.svg"), chartOf(rows));
    }
  }
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  return total.failed === 0;
}

process.exitCode = await main(process.argv.slice(2)) ? 0 : 1;
