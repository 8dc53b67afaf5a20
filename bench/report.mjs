/**
 * What `bench/run.mjs` makes of the rows of all parts: ratios between them, and tables to read.
 */

/** The keys of a row that are its figure; all others say what was measured. */
const FIGURES = new Set(
  ("unit median best passes samples p50 p99 p999 max worst worst_at worst_cause timed_out skipped")
    .split(" "),
);

/** What others are measured against, and shmap itself is: how far it is from what can be had. */
const BASELINES = new Set(["reference", "reference, locked", "floor", "floor, locked", "Map"]);
/** The units in which less is better and ratios make sense. */
const COSTS = new Set(["ns", "us", "ms", "B"]);
const TRANSACTION = "set in a transaction";

/** What a row measured, but for who did it. */
function parametersOf(row) {
  return Object.entries(row).filter(([key]) => key !== "who" && !FIGURES.has(key));
}

function keyOf(parameters) {
  return JSON.stringify(parameters);
}

/**
 * Ratios of medians between rows that differ only in `who`: of others to shmap, of shmap to what it
 * cannot be faster than.
 */
export function ratiosOf(rows) {
  const ours = new Map(
    rows.filter((row) => row.who === "shmap").map((row) => [keyOf(parametersOf(row)), row]),
  );
  return rows.flatMap((row) => {
    const parameters = parametersOf(row);
    const own = ours.get(keyOf(parameters)) ?? ours.get(keyOf(withoutTransaction(parameters)));
    if (row.who === "shmap" || !own || !COSTS.has(row.unit) || !(row.median > 0)) return [];
    const [above, below] = BASELINES.has(row.who) ? [own, row] : [row, own];
    const ratio = significant(above.median / below.median);
    const what = Object.fromEntries(parameters);
    return [{ ...what, who: above.who, over: below.who, unit: "x", median: ratio }];
  });
}

/** shmap has no transactions: what others do in one stands beside its single sets. */
function withoutTransaction(parameters) {
  return parameters.map(([key, value]) => [key, value === TRANSACTION ? "set" : value]);
}

/**
 * What the public calls cost beyond their two parts, each measured by itself: the path through
 * JavaScript over a library that does nothing, and the engine called from native code.
 */
export function remaindersOf(rows) {
  const median = (wanted) =>
    rows.find((row) => Object.entries(wanted).every(([key, value]) => row[key] === value))?.median;
  return ["deno", "bun"].flatMap((runtime) =>
    [1000, 100_000].flatMap((keys) =>
      ["get", "set"].flatMap((name) => {
        const here = { bench: "map", runtime, case: name, value: "string", keys };
        const whole = median({ ...here, who: "shmap" });
        const floor = median({ ...here, who: "floor" });
        const engine = median({ bench: "engine", case: name, who: "shmap", keys });
        if (whole === undefined || floor === undefined || engine === undefined) return [];
        const rest = significant(whole - floor - engine);
        return [{ ...here, who: "shmap, less floor and engine", unit: "ns", median: rest }];
      })
    )
  );
}

function significant(number) {
  return Number(number.toPrecision(3));
}

/** One table a program and runtime: a line for what was measured, a column for who did it. */
export function tablesOf(rows) {
  const shown = rows.filter((row) => row.skipped === undefined);
  const tables = grouped(shown, ({ bench, runtime }) => [bench, runtime ?? ""].join(" ").trim());
  return [...tables].map(([title, members]) => `${title}\n\n${tableOf(members)}\n`).join("\n");
}

/** The rows of each key, in their order. */
function grouped(rows, keyOfRow) {
  const groups = new Map();
  for (const row of rows) {
    const key = keyOfRow(row);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row);
  }
  return groups;
}

function columnOf(row) {
  return row.over === undefined ? row.who : `${row.who} / ${row.over}`;
}

function tableOf(rows) {
  const columns = [...new Set(rows.map(columnOf))];
  const lines = [...grouped(rows, lineOf)].map(([line, members]) => {
    const found = columns.map((column) => members.find((row) => columnOf(row) === column));
    return [line, ...found.map((row) => row === undefined ? "" : figureOf(row))];
  });
  return drawn([["", ...columns], ...lines]);
}

/** What a row measured, in words. */
function lineOf(row) {
  const words = parametersOf(row)
    .filter(([key]) => !["bench", "runtime", "case", "over"].includes(key))
    .map(([key, value]) =>
      typeof value === "number" ? `${value.toLocaleString("en")} ${key}` : value
    );
  const unit = row.unit === undefined || row.unit === "x" ? "" : ` [${row.unit}]`;
  return `${[row.case, ...words].join(", ")}${unit}`;
}

function figureOf(row) {
  if (row.p50 !== undefined) return [row.p50, row.p99, row.p999].map(short).join(" / ");
  return short(row.median);
}

/** Three digits that count. */
function short(number) {
  if (number === null || number === undefined) return "";
  if (Math.abs(number) >= 100) return Math.round(number).toLocaleString("en");
  return String(significant(number));
}

/** Columns under titles that break at their spaces. */
function drawn([titles, ...body]) {
  const heads = titles.map((title) => title.split(" "));
  const height = Math.max(...heads.map((words) => words.length));
  const above = Array.from(
    { length: height },
    (_, line) => heads.map((words) => words[line - (height - words.length)] ?? ""),
  );
  const cells = [...above, ...body];
  const widths = titles.map((_, column) => Math.max(...cells.map((line) => line[column].length)));
  return cells.map((line) =>
    line.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])
    ).join("  ").trimEnd()
  ).join("\n");
}
