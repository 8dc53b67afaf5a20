/**
 * What the shared objects of a run must hold: a model beside each, read back through a handle that
 * no call ever gets hold of.
 */
import type { Mmap, SharedMap, SharedValue } from "../../../mod.ts";
import type { Made } from "./hostile.ts";

/** A shared object under test. */
export interface Subject {
  readonly label: string;
  /** The handles that calls are made with; closed ones are replaced. */
  readonly handles: object[];
  /** Whether its codec is the caller's. */
  readonly hasForeignCodec: boolean;
  /** The handle that no call gets hold of. */
  readonly witness: SharedMap | SharedValue | Mmap;
  /** What differs from the model; undefined when nothing does. */
  difference(): string | undefined;
  /** Takes note of a call that succeeded; says what is wrong with that. */
  note(handle: object, method: string, args: readonly Made[], result: unknown): string | undefined;
  /** Takes note of a call that failed after `stored` entries. */
  noteStored(args: readonly Made[], stored: number): void;
  /** Takes what is there for right from now on. */
  adopt(): void;
  /** What is wrong at the end. */
  finish(): string | undefined;
}

/** A value as text: the same for two values exactly if no program can tell them apart. */
export function canon(value: unknown, depth = 0): string {
  if (depth > 40) return "…";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value !== "object" || value === null) {
    return Object.is(value, -0) ? "-0" : String(value);
  }
  if (value instanceof Uint8Array) return `bytes ${value.length} ${hash(value)}`;
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) {
    const bytes = value instanceof ArrayBuffer
      ? new Uint8Array(value)
      : new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    return `${value.constructor.name} ${hash(bytes)}`;
  }
  const inner = (member: unknown) => canon(member, depth + 1);
  if (value instanceof Date) return `Date ${value.getTime()}`;
  if (value instanceof RegExp) return `RegExp ${value}`;
  if (value instanceof Error) return `${value.name} ${value.message}`;
  if (value instanceof Map) return `Map ${inner([...value])}`;
  if (value instanceof Set) return `Set ${inner([...value])}`;
  if (Array.isArray(value)) return `[${value.map(inner).join(",")}]`;
  return `{${
    Object.entries(value).map(([key, member]) => `${JSON.stringify(key)}:${inner(member)}`)
  }}`;
}

function hash(bytes: Uint8Array): number {
  let hash = bytes.length;
  for (let i = 0; i < bytes.length; i += 1) hash = Math.imul(hash ^ bytes[i], 0x01000193);
  return hash >>> 0;
}

/** Whether it is known what is stored of a value; what a foreign codec makes of it is not. */
function isKnown(made: Made | undefined, hasForeignCodec = false): made is Made {
  if (made?.isPlain !== true) return false;
  const { value } = made;
  return !hasForeignCodec || typeof value !== "object" || value === null ||
    value instanceof Uint8Array;
}

/** A map and its model. */
export class MapSubject implements Subject {
  readonly handles: object[] = [];
  readonly #model = new Map<string, string>();

  constructor(
    readonly label: string,
    readonly witness: SharedMap,
    readonly hasForeignCodec: boolean,
  ) {}

  difference(): string | undefined {
    const found = this.witness.toObject();
    const keys = Object.keys(found);
    if (keys.length !== this.#model.size) {
      return `it has ${keys.length} keys, ${this.#model.size} were stored`;
    }
    for (const key of keys) {
      const [is, was] = [canon(found[key]), this.#model.get(key)];
      if (is !== was) return `${JSON.stringify(key.slice(0, 40))} is ${cut(is)}, was ${cut(was)}`;
    }
    return undefined;
  }

  #store(key: unknown, made: Made | undefined): string | undefined {
    if (typeof key !== "string") return `it stored under a key of type ${typeof key}`;
    const is = this.witness.get(key);
    const text = canon(is);
    this.#model.set(key, text);
    if (is === undefined) return `nothing is under ${cut(key)}`;
    const most = made?.bytes;
    if (most !== undefined && is instanceof Uint8Array && is.length > most) {
      return `${cut(key)} has ${is.length} bytes, of ${most} that there were`;
    }
    if (isKnown(made, this.hasForeignCodec) && text !== canon(made.value)) {
      return `${cut(key)} is ${cut(text)}, stored was ${cut(canon(made.value))}`;
    }
    return undefined;
  }

  /** Forgets the keys that are gone, which are as many as the call said. */
  #dropMany(result: readonly boolean[]): string | undefined {
    const gone = [...this.#model.keys()].filter((key) => !this.witness.has(key));
    for (const key of gone) this.#model.delete(key);
    const said = result.filter(Boolean).length;
    return said === gone.length ? undefined : `deleteMany said ${said}, gone are ${gone.length}`;
  }

  note(_: object, method: string, args: readonly Made[], result: unknown): string | undefined {
    const key = args[0]?.value;
    const has = typeof key === "string" && this.#model.has(key);
    switch (method) {
      case "set":
        return this.#store(key, args[1]);
      case "add":
        if (result === true) return this.#store(key, args[1]);
        return has ? undefined : `add refused ${cut(key)}, which is not there`;
      case "getOrInsert":
      case "getOrInsertComputed":
      case "update":
        return this.#store(key, undefined);
      case "replace":
        if (result === true) return has ? this.#store(key, args[1]) : `replace made ${cut(key)}`;
        return undefined; // or it had another version
      case "swap": {
        const before = typeof key === "string" ? this.#model.get(key) : undefined;
        const problem = this.#given("swap", key, before, result);
        return this.#store(key, args[1]) ?? problem;
      }
      case "take": {
        const before = typeof key === "string" ? this.#model.get(key) : undefined;
        this.#model.delete(key as string);
        if (this.witness.has(key as string)) return `take left ${cut(key)}`;
        return this.#given("take", key, before, result);
      }
      case "increment":
        return this.#counted(key, result);
      case "incrementEntry":
        return this.#counted(key, (result as { value: unknown }).value);
      case "touch":
        return result === has ? undefined : `touch of ${cut(key)} gave ${result}`;
      case "delete":
        if (result === false && has && args[1] !== undefined) return undefined; // another version
        if (result !== has) return `delete of ${cut(key)} gave ${result}`;
        this.#model.delete(key as string);
        return undefined;
      case "clear": {
        const gone = [...this.#model.keys()].filter((key) => !this.witness.has(key));
        for (const key of gone) this.#model.delete(key);
        return args[0] === undefined && this.#model.size > 0 ? "clear left something" : undefined;
      }
      case "deleteMany":
        return this.#dropMany(result as boolean[]);
      case "setMany":
        return this.#storeMany(args[0], Infinity);
      default:
        return undefined;
    }
  }

  /** What a call gave of a key must be what was under it; what a codec makes of it is not known. */
  #given(
    method: string,
    key: unknown,
    before: string | undefined,
    result: unknown,
  ): string | undefined {
    if (this.hasForeignCodec && typeof result === "object") return undefined;
    const text = canon(result);
    return text === (before ?? "undefined")
      ? undefined
      : `${method} of ${cut(key)} gave ${cut(text)}, was ${cut(before)}`;
  }

  /** A sum, which must be what is there now. */
  #counted(key: unknown, sum: unknown): string | undefined {
    const problem = this.#store(key, undefined);
    const is = this.#model.get(key as string);
    return problem ?? (is === canon(sum) ? undefined : `${cut(key)} is ${is}, counted was ${sum}`);
  }

  /** What a read must give when no code of the caller's ran meanwhile. */
  expected(method: string, key: unknown): string | undefined {
    const known = typeof key === "string" ? this.#model.get(key) : undefined;
    switch (method) {
      case "get":
        return known ?? "undefined";
      case "has":
        return String(known !== undefined);
      case "size":
        return String(this.#model.size);
      default:
        return undefined;
    }
  }

  #storeMany(entries: Made | undefined, most: number): string | undefined {
    if (!isKnown(entries) || !Array.isArray(entries.value)) {
      this.adopt(); // only the caller knows what its iterator gave
      return undefined;
    }
    const last = new Map<unknown, unknown>();
    for (const [key, value] of entries.value.slice(0, most)) last.set(key, value);
    for (const [key, value] of last) {
      const problem = this.#store(key, { label: "", value, isPlain: true });
      if (problem) return problem;
    }
    return undefined;
  }

  noteStored(args: readonly Made[], stored: number): void {
    if (stored > 0) this.#storeMany(args[0], stored);
  }

  adopt(): void {
    this.#model.clear();
    for (const [key, value] of Object.entries(this.witness.toObject())) {
      this.#model.set(key, canon(value));
    }
  }

  finish(): string | undefined {
    const report = this.witness.verify();
    if (!report.ok) return `verify() says ${JSON.stringify(report)}`;
    const problem = this.difference();
    this.witness.close();
    return problem;
  }
}

/** A value and its model. */
export class ValueSubject implements Subject {
  readonly handles: object[] = [];
  #model = "undefined";

  constructor(
    readonly label: string,
    readonly witness: SharedValue,
    readonly hasForeignCodec: boolean,
  ) {}

  difference(): string | undefined {
    const is = canon(this.witness.get());
    return is === this.#model ? undefined : `it is ${cut(is)}, was ${cut(this.#model)}`;
  }

  note(_: object, method: string, args: readonly Made[]): string | undefined {
    if (method !== "set" && method !== "update") return undefined;
    const is = this.witness.get();
    this.#model = canon(is);
    const most = args[0]?.bytes;
    if (most !== undefined && is instanceof Uint8Array && is.length > most) {
      return `it has ${is.length} bytes, of ${most} that there were`;
    }
    if (is === undefined) return `${method} stored nothing`;
    const [made] = args;
    if (
      method === "set" && isKnown(made, this.hasForeignCodec) && this.#model !== canon(made.value)
    ) {
      return `it is ${cut(this.#model)}, stored was ${cut(canon(made.value))}`;
    }
    return undefined;
  }

  expected(method: string): string | undefined {
    return method === "get" ? this.#model : undefined;
  }

  noteStored(): void {}

  adopt(): void {
    this.#model = canon(this.witness.get());
  }

  finish(): string | undefined {
    const problem = this.difference();
    this.witness.close();
    return problem;
  }
}

/** A region and its model. */
export class RegionSubject implements Subject {
  readonly handles: object[] = [];
  readonly hasForeignCodec = false;
  /** Handles whose writes no other handle sees. */
  readonly private = new WeakSet<object>();
  #model: Uint8Array;

  constructor(readonly label: string, readonly witness: Mmap) {
    this.#model = witness.read();
  }

  difference(): string | undefined {
    const at = this.#firstChange(0, this.#model.length);
    return at < 0 ? undefined : `the byte at ${at} changed`;
  }

  #firstChange(start: number, end: number): number {
    const now = this.witness.read();
    for (let at = start; at < end; at += 1) if (now[at] !== this.#model[at]) return at;
    return -1;
  }

  note(handle: object, method: string, args: readonly Made[], result: unknown): string | undefined {
    if (method === "readInto" && Number(result) > (args[0]?.bytes ?? Infinity)) {
      return `it read ${result} bytes into ${args[0].bytes}`;
    }
    if (method !== "write" && method !== "pack") return undefined;
    if (this.private.has(handle)) return this.difference();
    const offset = Number(method === "write" ? args[1]?.value ?? 0 : args[0]?.value);
    const count = Number(result);
    const end = offset + count;
    const most = method === "write" ? args[0]?.bytes ?? Infinity : Infinity;
    if (count > most) return `it wrote ${count} bytes, of ${most} that there were`;
    if (!(end <= this.#model.length)) return `${method} of ${count} bytes at ${offset}`;
    const before = this.#firstChange(0, Math.min(offset, this.#model.length));
    const after = this.#firstChange(end, this.#model.length);
    const written = this.witness.read(0).slice(offset, end);
    this.#model.set(written, offset);
    if (before >= 0 || after >= 0) {
      return `${method} of ${count} bytes at ${offset} changed ${before < 0 ? after : before}`;
    }
    const [data] = args;
    if (method === "write" && isKnown(data) && data.value instanceof Uint8Array) {
      const wanted = data.value.slice(0, count);
      if (canon(wanted) !== canon(written)) return `${method} at ${offset} wrote something else`;
    }
    return undefined;
  }

  noteStored(): void {}

  adopt(): void {
    this.#model = this.witness.read();
  }

  finish(): string | undefined {
    const problem = this.difference();
    this.witness.close();
    return problem;
  }
}

function cut(text: unknown): string {
  return String(text).slice(0, 80);
}
