/** Good arguments for every method, and bad ones in their place. */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type Hostile, type Made, NUMBERS } from "./hostile.ts";
import type { Argument } from "./methods.ts";

/** Where a run puts its names and files. */
export interface Place {
  /** What every name begins with. */
  readonly prefix: string;
  /** A directory in shared memory, and one on a disk. */
  readonly memory: string;
  readonly disk: string;
  /** Tokens that lead somewhere. */
  readonly tokens: readonly string[];
}

const KEYS = Array.from({ length: 12 }, (_, i) => `k${i}`).concat(
  ["é", "__proto__", "toString", "\0", "a key of more than forty characters, all ASCII"],
  ["x".repeat(65_535)],
);

const PREFIXES = [undefined, "", "k", "k1", "é", "none"];

const LETTERS = "aAZbBhHcCWUsSlLqQjJiInNvVfdwxX@";

/** Makes arguments; `trip` runs when one of them is asked, called or iterated. */
export class Arguments {
  readonly hostile: Hostile;
  readonly #place: Place;
  readonly #codec: object;

  constructor(hostile: Hostile, place: Place, codec: object) {
    this.hostile = hostile;
    this.#place = place;
    this.#codec = codec;
  }

  /** An argument for this place, a bad one in about a quarter of all cases. */
  make(argument: Argument): Made {
    const { hostile } = this;
    if (hostile.chance(20)) return this.#safe(argument, hostile.any());
    return this.#good(argument);
  }

  /** Keeps a bad name or file from leading out of the places of this run. */
  #safe(argument: Argument, made: Made): Made {
    const { value } = made;
    if (argument === "name" && typeof value === "string" && /^[\w-][\w.-]*$/.test(value)) {
      return this.#good("name");
    }
    // A number would be an end: what is gone meanwhile, or at once, would differ from the model.
    const isEnd = argument === "end" || argument === "version";
    if (isEnd && typeof value === "number") return this.#good(argument);
    if (argument !== "file") return made;
    // A number would be a descriptor, and any of them may be the runtime's own.
    if (typeof value === "number" && value >= 0 && value < 1000) return this.#good("file");
    return made;
  }

  #good(argument: Argument): Made {
    const { hostile } = this;
    switch (argument) {
      case "key":
        return this.#key();
      case "value":
        return hostile.chance(60) ? hostile.storable() : hostile.any();
      case "compute":
      case "change":
      case "each":
        return this.#function();
      case "any":
        return hostile.any();
      case "keys":
        return hostile.iterable(this.#some(() => this.make("key")));
      case "entries":
        return hostile.iterable(this.#some(() => this.#entry()));
      case "offset":
      case "length":
        return this.#number([0, 0, 1, 2, 50, 99, 100, 999, 1000, undefined]);
      case "size":
        return this.#number([1, 2, 100, 4095, 4096, 4097, 70_000]);
      case "data":
        return hostile.chance(30) ? hostile.text() : this.#bytes();
      case "target":
        return this.#bytes();
      case "bytes":
        return hostile.bytes();
      case "template":
        return this.#template();
      case "packed":
        return this.#packed();
      default:
        return this.#opening(argument);
    }
  }

  #bytes(): Made {
    return this.hostile.chance(10) ? this.hostile.trap("shortBytes") : this.hostile.bytes();
  }

  #some(make: () => Made): Made[] {
    return Array.from({ length: this.hostile.random(5) }, make);
  }

  #key(): Made {
    const { hostile } = this;
    if (hostile.chance(4)) return hostile.text();
    const value = hostile.pick(hostile.chance(80) ? KEYS.slice(0, 12) : KEYS);
    return { label: JSON.stringify(value.slice(0, 50)), value, isPlain: true };
  }

  #number(good: (number | undefined)[]): Made {
    const value = this.hostile.pick(this.hostile.chance(80) ? good : NUMBERS);
    // What takes much memory but is not refused would only slow the run down.
    const isCostly = value !== undefined && value > 1e6 && value < 2 ** 42;
    return { label: `${value}`, value: isCostly ? 2 ** 45 : value, isPlain: true };
  }

  #entry(): Made {
    if (this.hostile.chance(8)) return this.hostile.any();
    const [key, value] = [this.make("key"), this.make("value")];
    const isPlain = key.isPlain && typeof key.value === "string" && value.isPlain;
    return { label: `[${key.label}, ${value.label}]`, value: [key.value, value.value], isPlain };
  }

  #function(): Made {
    const { hostile } = this;
    const { label, value } = hostile.chance(75) ? hostile.storable() : hostile.any();
    const trips = hostile.chance(50);
    return {
      label: `() => ${trips ? "trip, " : ""}${label}`,
      value: () => {
        if (trips) hostile.trip();
        return value;
      },
    };
  }

  #template(): Made {
    const { hostile } = this;
    let text = "";
    for (let i = hostile.random(4); i >= 0; i -= 1) {
      const letter = LETTERS[hostile.random(LETTERS.length)];
      const item = letter + hostile.pick(["", "", "", "<", ">", "!", "!!"]) +
        hostile.pick(["", "", "1", "3", "*", "0", "[2]", "[N]", "300", "2147483648", "["]);
      text += hostile.pick([item, item, item, `(${item})2`, `n/${item}`, `${item}/a*`, "# c\n"]);
    }
    return { label: JSON.stringify(text), value: text, isPlain: true };
  }

  #packed(): Made {
    const { hostile } = this;
    const made = hostile.pick([
      () => hostile.number(),
      () => hostile.text(),
      () => hostile.bytes(),
    ]);
    return made();
  }

  #opening(argument: Argument): Made {
    const { hostile } = this;
    switch (argument) {
      case "name": {
        const value = `${this.#place.prefix}n${hostile.random(4)}`;
        return { label: JSON.stringify(value), value, isPlain: true };
      }
      case "token":
        return this.#token();
      case "file":
        return this.#file();
      case "lock":
        return hostile.options({ timeout: [0, 1, 2, undefined, Infinity] });
      case "prefix":
        return hostile.options({ prefix: PREFIXES });
      case "scan":
        return hostile.options({
          prefix: PREFIXES,
          limit: [undefined, 1, 2, 1000],
          cursor: [undefined, undefined, "0".repeat(16), "8".repeat(16), "f".repeat(32), "x"],
        });
      case "version": {
        const made = hostile.options({ ifVersion: [undefined, undefined, 0, 1, 5, 100] });
        return typeof made.value === "number" ? this.#good("end") : made;
      }
      case "by":
        if (hostile.chance(75)) return this.#number([1, 1, 2, -1, 0.5, undefined, 2 ** 52]);
        return { label: "a bigint", value: hostile.pick([1n, -5n, 2n ** 64n]), isPlain: true };
      case "end": // far away, or none: what ends meanwhile would differ from the model
        return {
          label: "an end",
          value: hostile.pick([undefined, 1e9, Infinity, { ttl: 1e9 }, { expires: Infinity }]),
          isPlain: true,
        };
      case "count":
        return hostile.options({ initial: [undefined, 0, 100, 5n] });
      case "regionLock":
        return hostile.options({ timeout: [0, 1, Infinity], shared: [true, false] });
      case "lockAsync":
        return hostile.options({
          timeout: [0, 1, 5, 20, Infinity],
          ...this.#sometimes({ shared: [true, false] }), // which only regions take
          signal: [this.#signal()],
        });
      case "mmap":
        return hostile.options({
          length: [undefined, 1, 100, 5000, 2 ** 45],
          protection: ["read", "write", "read-write"],
          sharing: ["shared", "private"],
        });
      case "directory":
        return hostile.options({ directory: this.#directories() });
      default:
        return hostile.options(this.#openOptions(argument));
    }
  }

  /** Options that a call may not have: then it is a TypeError, which must not be the usual end. */
  #sometimes(options: Record<string, readonly unknown[]>): Record<string, readonly unknown[]> {
    return this.hostile.chance(30) ? options : {};
  }

  #directories(): string[] {
    const { memory, disk } = this.#place;
    return [memory, memory, disk, join(memory, "missing"), "/proc", "relative\0"];
  }

  #openOptions(argument: Argument): Record<string, readonly unknown[]> {
    const anonymous = {
      maxBytes: [undefined, 256 * 1024, 1 << 20, 100],
      lock: ["robust", "kernel", undefined],
      timeout: [0, 5, 50],
      codec: [undefined, undefined, this.#codec],
      ...this.#sometimes({ frozen: [true, false] }), // which only values take
    };
    if (argument === "anonymous") return anonymous;
    const attach = {
      readonly: [true, false, false],
      allowForeignOwner: [true, false],
      timeout: anonymous.timeout,
      codec: anonymous.codec,
      ...this.#sometimes({ frozen: [true, false] }),
    };
    if (argument === "attach") return attach;
    return {
      ...anonymous,
      ...attach,
      mode: ["shared", "create", "attach", "exclusive"],
      permissions: [0o600, 0o644],
      directory: this.#directories(),
    };
  }

  #token(): Made {
    const { hostile } = this;
    const token = hostile.pick(this.#place.tokens);
    const value = hostile.pick([
      token,
      token,
      token.slice(0, -1) + "0",
      `${token}0`,
      token.replace(/^fd:\d+/, "fd:2147483647"),
      token.replace(/^(fd:\d+):\d+/, `$1:${hostile.random(40)}`),
      `name:${this.#place.memory}:missing:0123456789abcdef`,
    ]);
    return { label: JSON.stringify(value), value, isPlain: true };
  }

  #file(): Made {
    const { hostile } = this;
    const at = (name: string) => join(this.#place.disk, name);
    const value = hostile.pick<unknown>([
      ...[
        at("a"),
        at("a"),
        at("b"),
        at("c"),
        at("missing/a"),
        this.#place.disk,
        at("x".repeat(300)),
      ],
      ...[pathToFileURL(at("a")), new URL("https://example.org/a"), 0, -1, 2 ** 31, NaN],
    ]);
    return { label: String(value).slice(-60), value };
  }

  /** A signal: one that comes, one that came, one whose own methods are the caller's. */
  #signal(): unknown {
    const { hostile } = this;
    switch (hostile.random(6)) {
      case 0:
        return AbortSignal.abort();
      case 1:
        return AbortSignal.timeout(hostile.random(20));
      case 2:
      case 3:
      case 4: {
        const { signal } = new AbortController();
        const method = hostile.pick(["addEventListener", "removeEventListener", "aborted"]);
        const trip = () => hostile.chance(50) ? hostile.fail() : hostile.trip();
        return Object.defineProperty(signal, method, {
          get: () => (trip(), method === "aborted" ? false : trip),
        });
      }
      default:
        return undefined;
    }
  }
}
