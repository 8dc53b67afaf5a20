/**
 * The structures that `bench/map.ts` measures, beside an object of ten fields.
 */

/** Their names in a task. */
export const STRUCTURES = [
  "three numbers",
  "session",
  "rows",
  "document",
  "dictionary",
  "floats",
  "cyrillic",
] as const;

export type Structure = typeof STRUCTURES[number];

/** The structure of this kind that is made of `n`. */
export function structureOf(kind: Structure, n: number): object {
  switch (kind) {
    case "three numbers":
      return { x: n, y: n + 0.5, z: -n - 1 };
    case "session":
      return sessionOf(n);
    case "rows":
      return Array.from({ length: 50 }, (_, i) => rowOf(50 * n + i));
    case "document":
      return documentOf(n);
    case "dictionary":
      return Object.fromEntries(
        Array.from({ length: 100 }, (_, i) => [`k${Math.imul(n * 100 + i, 2654435761) >>> 0}`, i]),
      );
    case "floats":
      return Array.from({ length: 100 }, (_, i) => n + i / 7);
    case "cyrillic":
      return {
        id: n + 1,
        name: `Анна Примерова ${n}`,
        email: `anna.${n}@example.org`,
        role: "редактор",
        active: true,
        visits: 17 * n,
        balance: n + 0.25,
        city: "Лиссабон",
        created: 1_700_000_000_000 + n,
        referrer: null,
      };
  }
}

function sessionOf(n: number): object {
  return {
    id: `s${n}`,
    user: { id: n, name: `Anna ${n}`, roles: ["editor", "admin"] },
    cart: { items: [{ sku: `a${n}`, count: 2 }, { sku: "b7", count: 1 }], total: 17.5 },
    flags: { beta: true, theme: "dark" },
    seen: new Date(1_700_000_000_000 + n),
  };
}

function rowOf(i: number): object {
  return { id: i, name: `row ${i}`, score: i + 0.5, on: i % 2 === 0, group: "north" };
}

function documentOf(n: number): object {
  return {
    id: n,
    title: `How processes share memory, part ${n}`,
    paragraphs: Array.from({ length: 12 }, (_, i) => ({
      text: `${i}: A reader takes no lock and stores nothing; it copies what it finds and looks ` +
        "again at the generation, which tells it whether anything was reused meanwhile. A writer " +
        "commits by one store.",
      words: 30 + i,
    })),
    tags: ["memory", "locks", "processes", "crash"],
    author: { name: "Anna Example", address: { city: "Lisbon", zip: "1000" } },
    published: new Date(1_700_000_000_000 + n),
    rating: 4.5,
  };
}
