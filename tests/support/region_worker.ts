/** A Worker that takes the commands of `region_tasks.ts` as messages and answers each. */
import { REGION_COMMANDS } from "./region_tasks.ts";

interface Scope {
  onmessage: (event: MessageEvent) => void;
  postMessage(message: unknown): void;
}

const scope = globalThis as unknown as Scope;

scope.onmessage = ({ data: { command, ...args } }) => {
  try {
    scope.postMessage({ value: REGION_COMMANDS[command](args) });
  } catch (error) {
    scope.postMessage({ error: String(error) });
  }
};
