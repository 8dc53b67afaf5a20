/**
 * The way from a value to what lies in it, for messages: `value.rows[3].fn`.
 */
import { describe } from "./describe.ts";

const NAME_MOST = 100;

export class Trail {
  readonly #steps: string[] = [];

  /** Goes on to the member of this name. */
  enterMember(name: string): void {
    const shown = name.length > NAME_MOST ? `${name.slice(0, NAME_MOST)}…` : name;
    this.#steps.push(
      /^[A-Za-z_$][\w$]*$/.test(name)
        ? `.${shown}`
        : /^(?:0|[1-9]\d*)$/.test(name)
        ? `[${shown}]`
        : `[${JSON.stringify(shown)}]`,
    );
  }

  /** Goes on to the value that a Map has under `key`. */
  enterEntry(key: unknown): void {
    const isShown = typeof key === "string" || typeof key === "number";
    this.#steps.push(`.get(${isShown ? JSON.stringify(key).slice(0, NAME_MOST) : "…"})`);
  }

  /** Goes on to a key of a Map, or a member of a Set, by its place among them. */
  enterPlace(method: "keys" | "values", index: number): void {
    this.#steps.push(`.${method}()[${index}]`);
  }

  leave(): void {
    this.#steps.pop();
  }

  /** The error for what is found here. */
  refusal(what: unknown): TypeError {
    const where = this.#steps.length === 0 ? "" : ` at value${this.#steps.join("")}`;
    return new TypeError(
      `Cannot store ${typeof what === "string" ? what : describe(what)}${where}`,
    );
  }
}
