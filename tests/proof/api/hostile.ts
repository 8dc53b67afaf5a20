/**
 * What a call may be given that it should not be: values of every kind, well-formed and not, some
 * of which run code of the caller's in the middle of the call.
 */
import { Buffer } from "node:buffer";
import { types } from "node:util";
import type { Random } from "../../support/random.ts";

/** A value and its name in the journal. */
export interface Made {
  readonly label: string;
  readonly value: unknown;
  /** How many bytes there really are, where it is a byte array. */
  readonly bytes?: number;
  /** Whether what is stored of it is known: it runs no code and no call changes it. */
  readonly isPlain?: boolean;
}

/** A class of its own, which nothing can keep. */
class Stranger {
  field = 1;
}

/** Objects whose conversions and properties run the caller's code. */
type Trap = (trip: () => void) => unknown;

const TRAPS: Record<string, Trap> = {
  getter: (trip) => ({
    get a() {
      trip();
      return 1;
    },
    b: "two",
  }),
  conversion: (trip) => ({ valueOf: () => (trip(), 1), toString: () => (trip(), "k1") }),
  toPrimitive: (trip) => ({ [Symbol.toPrimitive]: () => (trip(), 3) }),
  toJSON: (trip) => ({ toJSON: () => trip() }),
  then: (trip) => ({ then: (resolve: (value: unknown) => void) => (trip(), resolve(1)) }),
  proxy: (trip) => {
    const handler: ProxyHandler<object> = {};
    for (const name of Object.getOwnPropertyNames(Reflect)) {
      // deno-lint-ignore no-explicit-any
      const plain = (Reflect as any)[name];
      // deno-lint-ignore no-explicit-any
      (handler as any)[name] = (...args: unknown[]) => (trip(), plain(...args));
    }
    return new Proxy({ a: 1 }, handler);
  },
  bytesProxy: () => new Proxy(new Uint8Array(3), {}),
  iterator: (trip) => ({
    [Symbol.iterator]: () => (trip(), { next: () => (trip(), { done: true, value: 1 }) }),
  }),
  halfIterator: () => ({ [Symbol.iterator]: () => ({ next: () => 5 }) }),
  lyingLength: (trip) => {
    const bytes = new Uint8Array(70_000);
    return Object.defineProperty(bytes, "length", { get: () => (trip(), 80_000) });
  },
  shortBytes: () => {
    // What lies beyond is in the same buffer: one that believes the lie spoils nothing else.
    const bytes = new Uint8Array(new ArrayBuffer(200_000), 9, 3);
    return Object.defineProperties(bytes, {
      length: { value: 100_000 },
      byteLength: { value: 100_000 },
    });
  },
  detachingBytes: () => {
    const bytes = new Uint8Array(70_000);
    const get =
      () => (bytes.buffer.detached || structuredClone(0, { transfer: [bytes.buffer] }), 7e4);
    return Object.defineProperty(bytes, "length", { get });
  },
  fakeBytes: () => Object.create(Uint8Array.prototype),
  longFakeBytes: () => Object.setPrototypeOf({ length: 70_000 }, Uint8Array.prototype),
  nameless: () => Object.create({ constructor: { name: Symbol("class") } }),
  namedBySymbol: () => Object.defineProperty(() => 1, "name", { value: Symbol("fn") }),
};

const PLAIN: Record<string, () => unknown> = {
  undefined: () => undefined,
  symbol: () => Symbol("a symbol"),
  emptyFunction: () => () => {},
  class: () => Stranger,
  stranger: () => new Stranger(),
  nullPrototype: () => Object.assign(Object.create(null), { a: 1 }),
  hole: () => [1, , 3], // deno-lint-ignore no-sparse-arrays
  boxedString: () => new String("k1"),
  boxedNumber: () => new Number(1),
  boxedBoolean: () => new Boolean(false),
  boxedBigint: () => Object(1n),
  boxedSymbol: () => Object(Symbol("boxed")),
  date: () => new Date(0),
  noDate: () => new Date(NaN),
  promise: () => Promise.resolve(1),
  weakMap: () => new WeakMap(),
  error: () => new RangeError("stored"),
  regexp: () => /a+/gi,
  url: () => new URL("https://example.org/a"),
  revoked: () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    return proxy;
  },
  revokedFunction: () => {
    const { proxy, revoke } = Proxy.revocable(() => 1, {});
    revoke();
    return proxy;
  },
  arguments: () =>
    (function () {
      return arguments;
    })(),
  generator: () => (function* () {})(),
  cycle: () => {
    const cycle: unknown[] = [];
    cycle.push(cycle);
    return cycle;
  },
  deep: () => {
    let deep: unknown = 1;
    for (let i = 0; i < 600; i += 1) deep = [deep];
    return deep;
  },
  floats: () => new Float64Array([1, NaN]),
  dataView: () => new DataView(new ArrayBuffer(5), 1),
  buffer: () => new ArrayBuffer(6),
  sharedBuffer: () => new SharedArrayBuffer(6),
};

// deno-fmt-ignore
export const NUMBERS = [
  0, -0, 1, 2, 3, 7, 8, 99, 100, 101, 4096, -1, 0.5, -1.5, NaN, Infinity, -Infinity, 2 ** 31,
  2 ** 32, 2 ** 52, 2 ** 53 - 1, 2 ** 53, 2 ** 63, 1e308, 5e-324, -(2 ** 31), -(2 ** 53),
];

// deno-fmt-ignore
const TEXTS = [
  "", "a", "k1", "\0", "é", "\u{1F600}", "\ud800", "a\udc00b", "__proto__", "../k1", "a b", "0", "NaN",
  "robust", "attach", "read", "write", "toString", ".hidden", "\uFEFFmark",
];

/** Makes values; everything it decides comes from one random. */
export class Hostile {
  /** Buffers that were handed out and may be taken away while they are in use. */
  readonly victims: ArrayBuffer[] = [];

  /** `trip` does anything in the middle of a call; `fail` throws what is known to be planted. */
  constructor(
    readonly random: Random,
    readonly trip: () => void,
    readonly fail: () => never,
  ) {}

  pick<T>(list: readonly T[]): T {
    return list[this.random(list.length)];
  }

  chance(percent: number): boolean {
    return this.random(100) < percent;
  }

  number(): Made {
    const value = this.pick(NUMBERS);
    return { label: `${Object.is(value, -0) ? "-0" : value}`, value, isPlain: true };
  }

  text(): Made {
    switch (this.random(12)) {
      case 0:
        return this.#long("x", this.pick([40, 41, 200, 201, 65_535, 65_536]));
      case 1:
        return this.#long("é", this.pick([20, 21, 32_767, 32_768]));
      default: {
        const value = this.pick(TEXTS);
        return { label: JSON.stringify(value), value, isPlain: true };
      }
    }
  }

  #long(char: string, count: number): Made {
    return { label: `${count} times "${char}"`, value: char.repeat(count), isPlain: true };
  }

  /** A byte array with bytes in it: over every kind of memory, at odd places. */
  bytes(): Made {
    const size = this.chance(8) ? this.pick([65_535, 65_536, 70_001]) : this.random(40);
    switch (this.random(9)) {
      case 0:
      case 1:
        return this.#filled(new Uint8Array(size), "bytes");
      case 2:
        return this.#filled(new Uint8Array(new ArrayBuffer(size + 9), 3, size), "an odd view");
      case 3:
        return this.#filled(new Uint8Array(new SharedArrayBuffer(size + 1), 1), "a shared view");
      case 4:
        return this.#filled(Buffer.alloc(size), "a Buffer");
      case 5:
        return this.#victim(new ArrayBuffer(size), 0, "bytes that may be taken away");
      case 6:
        return this.#victim(
          new ArrayBuffer(size + 9, { maxByteLength: 2 * size + 99 }),
          1,
          "a tracking view",
        );
      case 7: {
        const buffer = new SharedArrayBuffer(size + 1, { maxByteLength: 2 * size + 99 });
        return this.#filled(new Uint8Array(buffer), "a growable shared view");
      }
      default: {
        const bytes = new Uint8Array(size);
        bytes.buffer.transfer();
        return { label: "detached bytes", value: bytes };
      }
    }
  }

  #filled(bytes: Uint8Array, label: string): Made {
    for (let i = 0; i < bytes.length; i += 1) bytes[i] = i * 7 + 1;
    return { label: `${label} (${bytes.length})`, value: bytes, isPlain: true };
  }

  #victim(buffer: ArrayBuffer, offset: number, label: string): Made {
    if (this.victims.length > 8) this.victims.shift();
    this.victims.push(buffer);
    return { ...this.#filled(new Uint8Array(buffer, offset), label), isPlain: false };
  }

  /** Takes away what was handed out. */
  detach(): void {
    for (const buffer of this.victims.splice(0)) {
      if (!buffer.detached) structuredClone(0, { transfer: [buffer] });
    }
  }

  /** Makes what was handed out shorter or longer. */
  resize(): void {
    for (const buffer of this.victims) {
      if (!buffer.detached && buffer.resizable) {
        buffer.resize(this.random(buffer.maxByteLength + 1));
      }
    }
  }

  trap(label = this.chance(15) ? "getter" : this.pick(Object.keys(TRAPS))): Made {
    const value = TRAPS[label](this.trip);
    return { label: `the trap ${label}`, value, bytes: realLength(value) };
  }

  /** A value that comes back as it was. */
  storable(): Made {
    const plain = (label: string, value: unknown): Made => ({ label, value, isPlain: true });
    switch (this.random(12)) {
      case 0:
        return this.number();
      case 1:
        return this.text();
      case 2:
        return this.bytes();
      case 3:
        return plain("a bigint", BigInt(this.random(1000)) ** BigInt(this.random(30)));
      case 4:
        return plain("true", true);
      case 5:
        return plain("null", null);
      case 6:
        return plain("an object", { a: this.random(100), b: ["x", null, { c: 1n }] });
      case 7:
        return plain("a Map", new Map([["a", new Date(this.random(1000))]]));
      case 8:
        return plain("a list", Array.from({ length: this.random(9) }, (_, i) => i));
      default:
        return plain("a count", this.random(1000));
    }
  }

  any(): Made {
    switch (this.random(8)) {
      case 0:
        return this.number();
      case 1:
        return this.text();
      case 2:
        return this.bytes();
      case 3:
      case 4:
        return this.trap();
      case 5:
        return this.storable();
      default: {
        const label = this.pick(Object.keys(PLAIN));
        return { label: `the value ${label}`, value: PLAIN[label]() };
      }
    }
  }

  /** Options with some of these names, each `good` more often than not, in every kind of object. */
  options(good: Record<string, readonly unknown[]>): Made {
    if (this.chance(8)) return this.any();
    if (this.chance(15)) return { label: "no options", value: undefined };
    const found: Record<string, unknown> = this.chance(20) ? Object.create(null) : {};
    const words: string[] = [];
    if (this.chance(2)) {
      words.push("mdoe: 1");
      found.mdoe = 1;
    }
    for (const name of Object.keys(good)) {
      if (!this.chance(35)) continue;
      const isGood = this.chance(80);
      const made = isGood ? { label: "", value: this.pick(good[name]) } : this.any();
      words.push(`${name}: ${made.label || describe(made.value)}`);
      if (!this.chance(15)) found[name] = made.value;
      else {
        words.push("(a getter)");
        Object.defineProperty(found, name, {
          enumerable: true,
          get: () => (this.trip(), made.value),
        });
      }
    }
    const label = `{ ${words.join(", ")} }`;
    if (this.chance(5)) return { label: `a Proxy of ${label}`, value: new Proxy(found, {}) };
    if (this.chance(5)) return { label: `frozen ${label}`, value: Object.freeze(found) };
    return { label, value: found };
  }

  /** Something to iterate over, which may run code between its elements, or end badly. */
  iterable(elements: Made[]): Made {
    const { trip } = this;
    const values = elements.map(({ value }) => value);
    const label = `[${elements.map((made) => made.label).join(", ")}]`;
    const isPlain = elements.every((made) => made.isPlain);
    switch (this.random(8)) {
      case 0:
        return this.any();
      case 1:
        return { label: `tripping ${label}`, value: tripping(values, trip) };
      case 2:
        return { label: `closing ${label}`, value: closing(values, trip) };
      case 3:
        return { label: `a Set of ${label}`, value: new Set(values) };
      default:
        return { label, value: values, isPlain };
    }
  }
}

function* tripping(values: unknown[], trip: () => void): Generator<unknown> {
  for (const value of values) {
    yield value;
    trip();
  }
}

/** An iterator by hand, whose `return` runs code as well. */
function closing(values: unknown[], trip: () => void): Iterable<unknown> {
  let next = 0;
  return {
    [Symbol.iterator]: () => ({
      next: () => ({ done: next >= values.length, value: values[next++] }),
      return: () => (trip(), { done: true, value: undefined }),
    }),
  };
}

/** A value in a few words, which runs none of its code. */
export function describe(value: unknown): string {
  if (typeof value === "object" && value !== null) return "an object";
  if (typeof value === "string") return JSON.stringify(value.slice(0, 60));
  return typeof value === "function" ? "a function" : String(value);
}

const lengthOf = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Uint8Array.prototype),
  "byteLength",
)!.get!;

/** How many bytes a byte array has, not what it says of itself; undefined for anything else. */
function realLength(value: unknown): number | undefined {
  return types.isUint8Array(value) ? lengthOf.call(value) : undefined;
}
