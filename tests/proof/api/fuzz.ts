/**
 * Calls of the public API, one after another and inside one another, each of them judged. What is
 * called, on what, with what and what happens in the middle follows from the seed.
 */
import {
  Lock,
  Mmap,
  pack,
  SharedMap,
  SharedMemoryError,
  SharedValue,
  unpack,
} from "../../../mod.ts";
import { seededRandom } from "../../support/random.ts";
import { Arguments, type Place } from "./arguments.ts";
import { makeCodec } from "./codec.ts";
import { Hostile, type Made } from "./hostile.ts";
import { judge } from "./judge.ts";
import * as methods from "./methods.ts";
import { canon, type MapSubject, type Subject } from "./model.ts";
import { makeSubjects, type Opener } from "./subjects.ts";

/** How deep calls are made from within calls, and how often one call runs code of ours. */
const DEPTH_MAX = 2;
const TRIPS_MAX = 6;
/** How often all locks are given back between turns, and how long that may take. */
const REST_PERCENT = 25;
const DRAIN_LIMIT_MS = 5000;

/** One call: what is called on what. */
interface Call {
  readonly label: string;
  readonly target: unknown;
  readonly method: string;
  readonly callee: () => (...args: unknown[]) => unknown;
  readonly args: Made[];
  readonly subject?: Subject;
  /** Whether the target may be no object of ours, or of another class. */
  readonly isForeign?: boolean;
}

/** A promise of a lock that is not settled yet. */
interface Pending {
  readonly line: string;
  readonly done: Promise<void>;
}

// deno-lint-ignore no-explicit-any
type Anything = any;

/** The classes whose prototypes are called, and what they have. */
const KINDS: [Anything, methods.Methods, string][] = [
  [SharedMap, methods.MAP, "map"],
  [SharedValue, methods.VALUE, "value"],
  [Mmap, methods.REGION, "region"],
  [Lock, methods.LOCK, "lock"],
];

export class Fuzz {
  /** Every violation, with the call that showed it. */
  readonly problems: string[] = [];
  /** How many calls were judged. */
  calls = 0;
  /** How they ended, by code or kind. */
  readonly endings: Record<string, number> = {};
  readonly #random;
  readonly #hostile: Hostile;
  readonly #arguments: Arguments;
  readonly #journal: (line: string) => void;
  readonly #subjects: Subject[];
  readonly #openers: Map<Subject, Opener>;
  readonly #subjectOf = new WeakMap<object, Subject>();
  readonly #closed = new WeakSet<object>();
  /** A map that is not under test. */
  readonly #scratch = SharedMap.anonymous<unknown>();
  /** Objects without a model, opened by calls under test. */
  readonly #extras: object[] = [];
  readonly #locks: Lock[] = [];
  readonly #pending = new Set<Pending>();
  readonly #targets: unknown[] = [];
  #thrown: unknown[] = [];
  #trips = 0;
  #tripsLeft = 0;
  /** While a model is read: no code of ours then. */
  #isCalm = true;

  constructor(seed: number, place: Omit<Place, "tokens">, journal: (line: string) => void) {
    this.#random = seededRandom(seed);
    this.#journal = journal;
    this.#hostile = new Hostile(
      this.#random,
      () => this.#trip(),
      () => this.#throwSomething(),
    );
    const codec = makeCodec({
      hostile: this.#hostile,
      isCalm: () => this.#isCalm,
      planted: (task) => this.#planted(task),
      report: (problem) => void this.problems.push(problem),
    });
    const { subjects, openers, tokens } = makeSubjects(codec, place.disk);
    this.#subjects = subjects;
    this.#openers = openers;
    this.#arguments = new Arguments(this.#hostile, { ...place, tokens }, codec);
    for (const subject of subjects) this.#refill(subject);
  }

  /** Runs code whose errors are the caller's own. */
  #planted<T>(task: () => T): T {
    try {
      return task();
    } catch (error) {
      this.#thrown.push(error);
      throw error;
    }
  }

  /** What code of the caller's does in the middle of a call. */
  #trip(): void {
    if (this.#isCalm) return;
    this.#trips += 1;
    if (this.#tripsLeft-- <= 0) return;
    const target = this.#targets.at(-1);
    switch (this.#random(14)) {
      case 0:
      case 1:
      case 2:
        if (this.#targets.length <= DEPTH_MAX) this.step();
        break;
      case 3:
        this.#close(target);
        break;
      case 4:
      case 5:
        this.#hostile.detach();
        break;
      case 6:
      case 7:
        this.#hostile.resize();
        break;
      case 8:
        this.#throwSomething();
        break;
      case 9:
        this.#lockSibling(target);
        break;
      case 10:
      case 11:
        this.#useBuffers();
        break;
      default:
        break;
    }
  }

  #throwSomething(): never {
    const error = this.#hostile.pick<() => unknown>([
      () => new Error("planted"),
      () => new TypeError("planted"),
      () => new SharedMemoryError("NotFound", "planted"),
      () => "planted",
      () => undefined,
      () => Symbol("planted"),
    ])();
    this.#thrown.push(error);
    throw error;
  }

  #close(target: unknown): void {
    if (typeof target !== "object" || target === null || !("close" in target)) return;
    this.#closed.add(target);
    this.#planted(() => (target as { close(): void }).close());
  }

  /** Calls that fill the buffers which all calls of an isolate share, and fail half-way. */
  #useBuffers(): void {
    const tasks: (() => unknown)[] = [
      () => this.#scratch.set("", "left behind"),
      () => this.#scratch.set("", ["left behind"]),
      () => this.#scratch.add("\udc00", "left behind"),
      () => this.#scratch.set("\ud800", this.#random(1000)),
      () => this.#scratch.set("large", "x".repeat(this.#random(200_000))),
      () => this.#scratch.get("large"),
      () => this.#scratch.update("none", () => undefined),
      () => SharedMap.attach("fd:1:1:0123456789abcdef"),
      () => this.#scratch.getMany(["large", "none"]),
      () => pack("a*", "left behind"),
    ];
    try {
      this.#hostile.pick(tasks)();
    } catch {
      // that they fail is known
    }
  }

  /** Another handle on the same thing takes the lock, if it can. */
  #lockSibling(target: unknown): void {
    const subject = this.#subjectOf.get(target as object);
    const sibling = subject?.handles.find((handle) => handle !== target) as SharedMap | undefined;
    if (sibling === undefined || this.#closed.has(sibling)) return;
    const lock = this.#planted(() => sibling.tryLock());
    if (lock !== undefined) this.#locks.push(lock);
  }

  #refill(subject: Subject): void {
    const open = this.#openers.get(subject)!;
    for (let i = 0; i < 3; i += 1) {
      const handle = subject.handles[i];
      if (handle !== undefined && !this.#closed.has(handle)) continue;
      const fresh = this.#calmly(() => open(i, this.#random));
      subject.handles[i] = fresh;
      this.#subjectOf.set(fresh, subject);
    }
  }

  #calmly<T>(task: () => T): T {
    const before = this.#isCalm;
    this.#isCalm = true;
    try {
      return task();
    } finally {
      this.#isCalm = before;
    }
  }

  /** One call on something, and its judgement; `false` once the process should begin anew. */
  step(): void {
    const call = this.#choose();
    if (this.#targets.length === 0) {
      this.#thrown = [];
      this.#tripsLeft = TRIPS_MAX;
      this.#isCalm = false;
    }
    this.#targets.push(call.target);
    try {
      this.#perform(call);
    } finally {
      this.#targets.pop();
      if (this.#targets.length === 0) {
        this.#isCalm = true;
        this.#tidy(call.subject);
      }
    }
  }

  #choose(): Call {
    const roll = this.#random(100);
    if (roll < 70) {
      const subject = this.#hostile.pick(this.#subjects);
      const target = this.#hostile.pick(subject.handles);
      return this.#methodCall(target, subject.label, subject);
    }
    if (roll < 78 && this.#extras.length > 0) {
      const extra = this.#hostile.pick(this.#extras);
      return this.#methodCall(extra, "an extra", this.#subjectOf.get(extra));
    }
    if (roll < 80 && this.#locks.length > 0) {
      return this.#methodCall(this.#hostile.pick(this.#locks), "a lock");
    }
    if (roll < 92) return this.#staticCall();
    const method = this.#weighted(methods.TEMPLATES);
    const callee = method === "pack" ? pack : unpack;
    const args = this.#argumentsOf(methods.TEMPLATES[method]);
    return {
      label: "the module",
      target: undefined,
      method,
      callee: () => callee as Anything,
      args,
    };
  }

  #weighted(table: methods.Methods): string {
    const names = Object.keys(table);
    let left = this.#random(names.reduce((sum, name) => sum + table[name][0], 0));
    return names.find((name) => (left -= table[name][0]) < 0)!;
  }

  /** The arguments; now and then one too few or too many. */
  #argumentsOf([, ...kinds]: methods.Methods[string]): Made[] {
    const args = kinds.map((kind) => this.#arguments.make(kind));
    if (this.#hostile.chance(3)) args.pop();
    if (this.#hostile.chance(3)) args.push(this.#hostile.any());
    return args;
  }

  #methodCall(target: object, label: string, subject?: Subject): Call {
    const [kind, table] = KINDS.find(([kind]) => target instanceof kind)!;
    const method = this.#weighted(table);
    const args = this.#argumentsOf(table[method]);
    if (method === "@@new") {
      return { label, target: undefined, method, callee: () => construct(kind), args };
    }
    const callee = () => memberOf(kind.prototype, methods.keyOf(method));
    if (!this.#hostile.chance(2)) return { label, target, method, callee, args, subject };
    const other = this.#hostile.chance(50)
      ? this.#hostile.any()
      : { label: "another object", value: this.#hostile.pick(this.#subjects).handles[0] };
    const foreign = other.value;
    const own = this.#subjectOf.get(Object(foreign));
    return {
      label: `${other.label} as ${label}`,
      target: foreign,
      method,
      callee,
      args,
      subject: own,
      isForeign: true,
    };
  }

  #staticCall(): Call {
    const kind: Anything = this.#hostile.pick([SharedMap, SharedValue, Mmap]);
    const table = kind === Mmap ? methods.REGION_OPENERS : methods.OPENERS;
    const method = this.#weighted(table);
    const args = this.#argumentsOf(table[method]);
    return { label: kind.name, target: kind, method, callee: () => kind[method], args };
  }

  /** Makes a call and judges how it ended. */
  #perform(call: Call): void {
    const { label, method, args } = call;
    const depth = ">".repeat(this.#targets.length);
    const line = `${depth} ${label}.${method}(${args.map((made) => made.label).join(", ")})`;
    this.#journal(line);
    this.calls += 1;
    if (method === "lockAsync" && this.#hostile.chance(40)) this.#lockSibling(call.target);
    const trips = this.#trips;
    const wasClosed = this.#closed.has(Object(call.target));
    const restore = this.#hostile.chance(1) ? this.#pollute() : undefined;
    let problem: string | undefined;
    try {
      const values = args.map(({ value }) => value);
      const result = this.#finishIterator(call, Reflect.apply(call.callee(), call.target, values));
      restore?.();
      this.#count("fine");
      // A result may be a trap itself, which must not go off while it is looked at.
      const isQuiet = trips === this.#trips;
      problem = this.#calmly(() => this.#afterSuccess(call, result, line, isQuiet));
      if (
        wasClosed && !(call.target instanceof Lock) &&
        // The last is a lock's own property, and nothing to ask of a map.
        !/^(?:close|unmap|@@dispose|lockAsync|recovered)$/.test(method)
      ) {
        problem ??= "it worked after close";
      }
    } catch (error) {
      restore?.();
      problem = this.#afterError(call, error);
    }
    if (problem !== undefined) this.problems.push(`${line}: ${problem}`);
  }

  #count(ending: string): void {
    this.endings[ending] = (this.endings[ending] ?? 0) + 1;
  }

  /** Takes from an iterator what it gives, with code of ours in between. */
  #finishIterator({ target, method }: Call, result: unknown): unknown {
    const isIterator = /^(?:keys|values|entries|@@iterator)$/.test(method) &&
      target instanceof SharedMap;
    if (!isIterator) return result;
    let left = 20;
    for (const _ of result as Iterable<unknown>) {
      if (this.#hostile.chance(10)) this.#trip();
      if (left-- === 0) break;
    }
    return undefined;
  }

  #afterSuccess(call: Call, result: unknown, line: string, isQuiet: boolean): string | undefined {
    const { method, args, target, subject } = call;
    if (/^(?:close|unmap|@@dispose)$/.test(method)) this.#closed.add(target as object);
    if (call.target === SharedMap || target === SharedValue || target === Mmap) {
      return this.#afterOpening(call, result);
    }
    if (result instanceof Lock) this.#locks.push(result);
    else if (result instanceof Promise && method === "lockAsync") this.#await(result, call, line);
    const wrong = method === "pack" || subject === undefined || call.isForeign
      ? undefined
      : methods.wrongResult(method, result);
    if (wrong !== undefined || subject === undefined) return wrong;
    return this.#calmly(() => {
      const [first] = args;
      const expected = isQuiet && "expected" in subject
        ? (subject as MapSubject).expected(method, first?.value)
        : undefined;
      if (expected !== undefined && canon(result) !== expected) {
        return `it gave ${canon(result).slice(0, 80)}, expected ${expected.slice(0, 80)}`;
      }
      return subject.note(target as object, method, args, result);
    });
  }

  #afterOpening({ target, method }: Call, result: unknown): string | undefined {
    if (method === "list" || method === "unlink") return methods.wrongResult(method, result);
    if (!(result instanceof (target as Anything))) return `${method} gave something else`;
    this.#extras.push(result as object);
    this.#recognize(result as object);
    if (this.#extras.length > 8) this.#close(this.#extras.shift());
    return undefined;
  }

  /** A token may have led to one of the subjects, whose model then follows this handle too. */
  #recognize(opened: object): void {
    const idOf = (object: object) => {
      try {
        return (object as SharedMap).token.slice(-16);
      } catch {
        return undefined; // over a file, or closed by now
      }
    };
    const id = idOf(opened);
    const subject = this.#subjects.find(({ witness }) => id !== undefined && idOf(witness) === id);
    if (subject !== undefined) this.#subjectOf.set(opened, subject);
  }

  #afterError(call: Call, error: unknown): string | undefined {
    this.#count(error instanceof SharedMemoryError ? error.code : nameOf(error));
    const { subject, method, args } = call;
    const problem = this.#judge(call, error);
    if (subject?.hasForeignCodec && (method === "take" || method === "swap")) {
      this.#calmly(() => this.#adopt(subject)); // the codec may refuse what is changed by then
      return problem;
    }
    const isChecked = subject !== undefined &&
      (methods.WRITES.has(method) || this.#hostile.chance(3));
    return problem ?? this.#calmly(() => {
      if (!isChecked) return undefined;
      const stored = error instanceof SharedMemoryError ? error.stored ?? 0 : 0;
      subject.noteStored(args, stored);
      const difference = differenceOf(subject);
      if (difference !== undefined) this.#adopt(subject);
      return difference && `it failed (${nameOf(error)}), and ${difference}`;
    });
  }

  /** Goes on with what there is; with nothing where that cannot be read. */
  #adopt(subject: Subject): void {
    try {
      subject.adopt();
    } catch {
      for (const lock of this.#locks) lock.unlock(); // one of them may be in the way
      if (subject.witness instanceof SharedMap) subject.witness.clear();
      else if (subject.witness instanceof SharedValue) subject.witness.set(0);
      subject.adopt();
    }
  }

  #judge({ target, subject, method, args, isForeign }: Call, error: unknown, also: unknown[] = []) {
    const isStatic = typeof target === "function";
    return judge(error, {
      thrown: [...this.#thrown, ...also],
      mayBeClosed: !isStatic && this.#closed.has(Object(target)),
      mayBeReplaced: subject === undefined,
      mayBeCorrupt: subject === undefined || subject.hasForeignCodec,
      isForeign: isForeign === true,
      hasTemplate: method === "pack" || method === "unpack",
      isProxied: args.some(({ label }) => label.includes("Proxy") || label.includes("prox")),
    });
  }

  /** Every option's name is a property of every object, for one call. */
  #pollute(): () => void {
    const names = ["timeout", "shared", "signal", "readonly", "mode", "maxBytes", "codec", "lock"];
    const name = this.#hostile.pick([...names, "directory", "frozen", "length", "protection"]);
    const { label, value } = this.#hostile.any();
    this.#journal(`  with Object.prototype.${name} = ${label}`);
    this.#isCalm = true;
    Object.defineProperty(Object.prototype, name, { configurable: true, get: () => value });
    return () => {
      delete (Object.prototype as Anything)[name];
      this.#isCalm = false;
    };
  }

  #await(promise: Promise<Lock>, call: Call, line: string): void {
    const done = promise.then(
      (lock) => void this.#locks.push(lock),
      (error) => {
        if (error instanceof DOMException) return; // what a signal gives as its reason
        const problem = this.#judge(call, error, this.#thrownAsync);
        if (problem !== undefined) this.problems.push(`${line}, later: ${problem}`);
      },
    ).finally(() => this.#pending.delete(pending));
    const pending = { line, done };
    this.#pending.add(pending);
  }

  /** What signals and other code of ours threw at any time. */
  readonly #thrownAsync: unknown[] = [];

  /** After a call: nothing stays locked for long, nothing closed. */
  #tidy(subject: Subject | undefined): void {
    this.#thrownAsync.push(...this.#thrown);
    while (this.#locks.length > 0 && this.#hostile.chance(50)) this.#unlock();
    if (subject !== undefined && this.#hostile.chance(30)) this.#refill(subject);
  }

  #unlock(): void {
    const lock = this.#locks.shift()!;
    lock.unlock();
  }

  /** Lets timers and promises have their turn; ends with no lock held and no task waiting. */
  async rest(isLast: boolean): Promise<void> {
    await turn();
    if (!isLast && !this.#hostile.chance(REST_PERCENT)) return;
    const before = this.problems.length;
    await this.#drain();
    for (const subject of this.#subjects) {
      const { label, witness, handles } = subject;
      if (witness.locked) this.problems.push(`${label} is locked, and no handle has its lock`);
      const isToClose = isLast || this.problems.length > before || this.#hostile.chance(30);
      if (isToClose) { for (const handle of handles) this.#close(handle); }
      if (!isLast) this.#refill(subject);
    }
    for (const extra of this.#extras.splice(0)) this.#close(extra);
    await turn();
  }

  /** Gives locks back until no task waits for one. */
  async #drain(): Promise<void> {
    const limit = Date.now() + DRAIN_LIMIT_MS;
    while (this.#locks.length + this.#pending.size > 0 && Date.now() < limit) {
      while (this.#locks.length > 0) this.#unlock();
      await turn();
    }
    for (const { line } of this.#pending) this.problems.push(`${line}: never settled`);
    this.#pending.clear();
  }

  /** Asserts that no handle but ours could still have a lock, and that every model holds. */
  finish(): void {
    this.#scratch.close();
    for (const subject of this.#subjects) {
      const { label } = subject;
      const problem = subject.finish();
      if (problem !== undefined) this.problems.push(`${label} at the end: ${problem}`);
    }
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.constructor.name : typeof error;
}

function construct(kind: Anything): (...args: unknown[]) => unknown {
  return (...args) => new kind(...args);
}

/** A method of a prototype, or a function that reads a property of it. */
function memberOf(prototype: object, key: PropertyKey): (...args: unknown[]) => unknown {
  for (let at = prototype; at !== null; at = Object.getPrototypeOf(at)) {
    const found = Object.getOwnPropertyDescriptor(at, key);
    if (found?.get !== undefined) return found.get;
    if (found !== undefined) return found.value;
  }
  // A property of the instance: `recovered` of a lock.
  return function (this: unknown) {
    return Object(this)[key];
  };
}

/** What differs from the model, which may be that it cannot be read. */
function differenceOf(subject: Subject): string | undefined {
  try {
    return subject.difference();
  } catch (error) {
    return `it cannot be read: ${error}`;
  }
}
