/**
 * The chart of the README: what a get and a set take, of shmap and of others that do the same, on
 * both runtimes. Colours are such that it reads on white and on dark pages alike.
 */

const SHOWN = { value: "string", keys: 100_000 };
const RUNTIMES = { deno: "Deno", bun: "Bun" };

/** The bars of a panel from top to bottom: their names, and whose rows they show. */
const BARS = {
  get: [
    ["Map, in one process", "Map", "get"],
    ["shmap", "shmap", "get"],
    ["lmdb", "lmdb (npm)", "get"],
    ["SQLite", "SQLite", "get"],
    ["Redis, 100 at a time", "Redis, pipelined", "get"],
    ["Redis", "Redis", "get"],
    ["Deno KV", "Deno KV", "get"],
  ],
  set: [
    ["Map, in one process", "Map", "set"],
    ["shmap", "shmap", "set"],
    ["lmdb, one transaction", "lmdb (npm)", "set in a transaction"],
    ["lmdb", "lmdb (npm)", "set"],
    ["SQLite, one transaction", "SQLite", "set in a transaction"],
    ["SQLite", "SQLite", "set"],
    ["Redis, 100 at a time", "Redis, pipelined", "set"],
    ["Redis", "Redis", "set"],
    ["Deno KV", "Deno KV", "set"],
  ],
};

const ACCENT = "#2f7de1";
const PLAIN = "#8b949e";
const TEXT = "#747c85";

const WIDTH = 880;
const NAMES = 172;
const LABEL = 62;
const GAP = 24;
const PANEL = (WIDTH - NAMES - GAP) / 2;
const BAR = 14;
const ROW = 22;
const HEAD = 58;
const TITLE = 34;

/** The scale: nanoseconds at the left edge of a panel, and powers of ten up to the labels. */
const LEAST = 10;
const DECADES = 4;

/** The chart as SVG. */
export function chartOf(rows) {
  const parts = [];
  let y = HEAD;
  for (const [name, bars] of Object.entries(BARS)) {
    parts.push(label(0, y + 14, name, `class="strong"`));
    bars.forEach(([title], index) => {
      const at = y + TITLE + index * ROW + 11;
      parts.push(label(NAMES - 10, at, title, `text-anchor="end"${strength(title)}`));
    });
    Object.entries(RUNTIMES).forEach(([runtime, title], column) => {
      const x = NAMES + column * (PANEL + GAP);
      parts.push(label(x, y + 14, title, `class="strong"`), ...grid(x, y + TITLE, bars.length));
      bars.forEach(([bar, who, is], index) => {
        const found = rows.find((row) => isShown(row, runtime, who, is));
        parts.push(...drawn(x, y + TITLE + index * ROW, bar, found?.median));
      });
    });
    y += TITLE + bars.length * ROW + 26;
  }
  return framed(y, parts);
}

function isShown(row, runtime, who, name) {
  return row.bench === "map" && row.runtime === runtime && row.who === who && row.case === name &&
    row.value === SHOWN.value && row.keys === SHOWN.keys && row.median !== undefined;
}

function framed(height, parts) {
  const caption =
    `Time of one operation: ${SHOWN.keys.toLocaleString("en")} keys in random order, ` +
    "strings of 32 bytes. Each line is ten times the one before.";
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" ` +
    `width="${WIDTH}" height="${height}" role="img" aria-label="${caption}">
<style>
text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: ${TEXT} }
.strong { font-weight: 600; font-size: 15px }
.own { font-weight: 600; fill: ${ACCENT} }
.small { font-size: 11px }
</style>
${label(0, 18, caption, "")}
${parts.join("\n")}
</svg>
`;
}

function strength(bar) {
  return bar === "shmap" ? ` class="own"` : "";
}

function label(x, y, text, attributes) {
  return `<text x="${x}" y="${y}" ${attributes}>${text}</text>`;
}

/** Lines at the powers of ten, their names below. */
function grid(x, y, count) {
  const height = count * ROW;
  return Array.from({ length: DECADES + 1 }, (_, decade) => {
    const ns = LEAST * 10 ** decade;
    const at = x + place(ns);
    return `<path d="M${at} ${y - 4}V${y + height}" stroke="${PLAIN}" stroke-opacity=".28"/>` +
      label(at, y + height + 12, inWords(ns), `class="small" text-anchor="middle"`);
  });
}

/** A bar and its number, or that there is none. */
function drawn(x, y, bar, ns) {
  if (ns === undefined) return [label(x + 6, y + 11, "not there", `class="small"`)];
  const width = Math.max(place(ns), 1).toFixed(1);
  const colour = bar === "shmap" ? ACCENT : PLAIN;
  return [
    `<rect x="${x}" y="${y}" width="${width}" height="${BAR}" rx="2" fill="${colour}"/>`,
    label(x + Number(width) + 6, y + 11, inWords(ns), strength(bar).trim()),
  ];
}

/** How far from the left edge of a panel. */
function place(ns) {
  return Number(((PANEL - LABEL) * Math.log10(ns / LEAST) / DECADES).toFixed(1));
}

function inWords(ns) {
  if (ns < 1000) return `${Math.round(ns)} ns`;
  const isRound = Number.isInteger(Math.log10(ns));
  return `${(ns / 1000).toFixed(isRound || ns >= 100_000 ? 0 : 1)} µs`;
}
