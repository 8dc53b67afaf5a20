/** A thread of a test's process, which takes commands as a child process does. */
import { atEnd, type TestContext } from "./support.ts";

/** A Worker that carries out the commands of `worker.ts`; it ends with the test. */
export class Thread {
  readonly #worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  readonly #pending = new Map<number, PromiseWithResolvers<unknown>>();
  #requestCount = 0;

  constructor(t: TestContext) {
    atEnd(t, () => this.terminate());
    this.#worker.onerror = (event) => {
      for (const { reject } of this.#pending.values()) reject(new Error(event.message));
    };
    this.#worker.onmessage = ({ data: { request, value, error } }) => {
      const { resolve, reject } = this.#pending.get(request)!;
      this.#pending.delete(request);
      if (error) reject(Object.assign(new Error(error.message), error));
      else resolve(value);
    };
  }

  // deno-lint-ignore no-explicit-any
  ask(command: string, args: Record<string, unknown> = {}): Promise<any> {
    this.#requestCount += 1;
    const pending = Promise.withResolvers<unknown>();
    this.#pending.set(this.#requestCount, pending);
    this.#worker.postMessage({ request: this.#requestCount, command, ...args });
    return pending.promise;
  }

  terminate(): void {
    this.#worker.terminate();
  }
}
