/**
 * The work of a process that is going to be killed, and what must be left of it. Each operation
 * follows from a seed and its number; the writer prints one dot before each. So after its death
 * the dots tell: all operations but the last have happened, the last has, has not, or, where it
 * touches several keys, has for some of them.
 */
import assert from "node:assert/strict";
import type { SharedMap } from "../../mod.ts";
import { checkedValue } from "./checked.ts";
import { type Random, seededRandom } from "./random.ts";

export interface JournalPlan {
  seed: number;
  /** Before every key: writers that share a map keep apart by it. */
  prefix: string;
  /** How many keys are written again and again, with values up to 70 KiB. */
  hotCount: number;
  /** How many keys come and go, with small values. */
  wideCount: number;
  /** How many of them one call stores at most, or one operation deletes. */
  manyCount: number;
  /** Whether `clear` is among the operations; it spares no other writer. */
  hasClear: boolean;
}

type Change = readonly [key: string, value: string | undefined];

interface Operation {
  kind: "set" | "add" | "update" | "delete" | "setMany" | "deleteMany" | "clear";
  changes: Change[];
}

export type Model = Map<string, string>;

function sizeFrom(random: Random): number {
  const dice = random(100);
  if (dice < 80) return 16 + random(200);
  if (dice < 97) return 200 + random(4000);
  return 4000 + random(66_000);
}

/** The operations of a plan, one after the other, without an end. */
export function* operations(plan: JournalPlan): Generator<Operation, never> {
  const random = seededRandom(plan.seed);
  const hotKey = () => `${plan.prefix}hot-${random(plan.hotCount)}`;
  const wideKey = () => `${plan.prefix}wide-${random(plan.wideCount)}`;
  for (let sequence = 0;; sequence += 1) {
    const value = (key: string, bytes: number) =>
      checkedValue(key, plan.seed % 1_000_000 * 1000 + sequence, bytes);
    const change = (key: string, bytes: number): Change => [key, value(key, bytes)];
    const dice = random(200);
    if (dice < 70) yield { kind: "set", changes: [change(hotKey(), sizeFrom(random))] };
    else if (dice < 120) yield { kind: "set", changes: [change(wideKey(), 16 + random(80))] };
    else if (dice < 140) yield { kind: "delete", changes: [[hotKey(), undefined]] };
    else if (dice < 155) yield { kind: "update", changes: [change(hotKey(), sizeFrom(random))] };
    else if (dice < 165) yield { kind: "add", changes: [change(wideKey(), 16 + random(80))] };
    else if (dice < 182) {
      const keys = new Set(Array.from({ length: 1 + random(plan.manyCount) }, wideKey));
      yield { kind: "setMany", changes: [...keys].map((key) => change(key, 16 + random(80))) };
    } else if (dice < 199 || !plan.hasClear) {
      const first = random(plan.wideCount);
      const keys = Array.from({ length: plan.manyCount }, (_, i) => (first + i) % plan.wideCount);
      const changes = keys.map((n): Change => [`${plan.prefix}wide-${n}`, undefined]);
      yield { kind: "deleteMany", changes };
    } else yield { kind: "clear", changes: [] };
  }
}

function perform(map: SharedMap, { kind, changes }: Operation): void {
  const [key, value] = changes[0] ?? [];
  if (kind === "set") map.set(key!, value);
  else if (kind === "add") map.add(key!, value);
  else if (kind === "update") map.update(key!, () => value);
  else if (kind === "setMany") map.setMany(changes);
  else if (kind === "clear") map.clear();
  else for (const [gone] of changes) map.delete(gone);
}

/** Works through the plan until this process dies. */
export function writeJournal(map: SharedMap, plan: JournalPlan, say: (text: string) => void): void {
  for (const operation of operations(plan)) {
    say(".");
    perform(map, operation);
  }
}

/** What an operation turns the model into, as changes. */
function effect(model: Model, { kind, changes }: Operation): Change[] {
  if (kind === "clear") return [...model.keys()].map((key): Change => [key, undefined]);
  if (kind === "add") return changes.filter(([key]) => !model.has(key));
  return changes;
}

function apply(model: Model, [key, value]: Change): void {
  if (value === undefined) model.delete(key);
  else model.set(key, value);
}

/** Brings the model up to the operation that was under way; gives what that one may have done. */
export function replay(model: Model, plan: JournalPlan, begunCount: number): Map<string, Change> {
  const source = operations(plan);
  for (let i = 0; i < begunCount - 1; i += 1) {
    for (const change of effect(model, source.next().value)) apply(model, change);
  }
  const last = begunCount > 0 ? effect(model, source.next().value) : [];
  return new Map(last.map((change) => [change[0], change]));
}

/** Compares what is in the map with the model; then the model knows what became of the doubtful. */
export function settle(
  model: Model,
  doubtful: ReadonlyMap<string, Change>,
  actual: ReadonlyMap<string, unknown>,
  what: string,
): void {
  for (const key of new Set([...model.keys(), ...doubtful.keys(), ...actual.keys()])) {
    const found = actual.get(key);
    const before = model.get(key);
    if (found === before) continue;
    const change = doubtful.get(key);
    if (!change || found !== change[1]) {
      assert.fail(
        `${what}: "${key}" is ${show(found)}, was ${show(before)}` +
          (change ? `, the last operation made it ${show(change[1])}` : ", acknowledged"),
      );
    }
    apply(model, change);
  }
}

function show(value: unknown): string {
  if (typeof value !== "string") return String(value);
  return `${value.slice(0, 60)}… (${value.length})`;
}
