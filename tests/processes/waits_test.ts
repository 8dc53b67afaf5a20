/**
 * How long calls take beside a process that is stopped in the middle of a write, with everything it
 * had: no longer than the `timeout` of one call, with all the waits on their way.
 */
import assert from "node:assert/strict";
import { SharedMap, SharedMemoryError } from "../../mod.ts";
import { LOCK } from "../support/lock_mode.ts";
import {
  freshMap,
  NEEDS,
  PATIENCE,
  startWith,
  testUnless,
  THERE,
  until,
} from "../support/support.ts";

const LONG = { timeout: 300_000 };
const TIMEOUT = 400;
/** Ten times what any call may take. */
const MOST_MS = 10 * TIMEOUT * PATIENCE;

/** What `call` returned or threw, which it must have done in time. */
async function inTime(what: string, call: () => unknown): Promise<unknown> {
  const start = performance.now();
  let result: unknown;
  try {
    result = await call();
  } catch (error) {
    result = error;
  }
  const took = performance.now() - start;
  assert.ok(took < MOST_MS, `${what} took ${took} ms with a timeout of ${TIMEOUT}`);
  return result;
}

for (const lock of LOCK === "kernel" ? ["kernel"] as const : ["robust", "kernel"] as const) {
  testUnless(
    NEEDS.stopping ?? (lock === "robust" ? NEEDS.robustMutexes : undefined),
    `every call ends within one timeout beside a stopped writer, lock: "${lock}"`,
    LONG,
    async (t) => {
      const map = freshMap<unknown>(t, { timeout: TIMEOUT, lock });
      for (let i = 0; i < 500; i += 1) map.set(`key ${i}`, i);
      const child = await startWith(t, THERE, map.name);
      child.send("setForever", { id: "map", key: "large", bytes: 4 << 20 });
      await until("the first large value", () => map.has("large"));
      await until("the child to be stopped inside a write", () => {
        child.signalWith("SIGSTOP");
        if (map.verify().busy > 0) return true;
        child.signalWith("SIGCONT");
        return false;
      }, 40_000);

      for (const what of ["verify", "repair"] as const) {
        const report = await inTime(what, () => map[what]());
        assert.ok(!(report instanceof Error), `${what}: ${report}`);
        const { ok, busy, problems } = report as ReturnType<SharedMap["verify"]>;
        // The stripe, and perhaps the space that all share, without which nothing is repaired.
        assert.ok(!ok && problems === 0, JSON.stringify(report));
        assert.ok(busy === 1 || busy === 2 || (what === "repair" && busy > 60), `${what}: ${busy}`);
      }
      const waiting: [string, () => unknown][] = [
        ["set", () => map.set("large", 1)],
        ["delete", () => map.delete("large")],
        ["setMany", () => map.setMany([["large", 1], ["small", 1]])],
        ["clear", () => map.clear()],
        ["lock", () => map.lock()],
        ["lockAsync", () => map.lockAsync()],
      ];
      for (const [what, call] of waiting) {
        const error = await inTime(what, call);
        assert.ok(error instanceof SharedMemoryError, `${what}: ${error}`);
        assert.equal(error.code, "Timeout", `${what}: ${error.message}`);
      }
      assert.equal(await inTime("tryLock", () => map.tryLock()), undefined);
      await inTime("toObject", () => map.toObject()); // it may find a moment without locks
      await inTime("size", () => map.size);

      child.signalWith("SIGCONT");
      using patient = SharedMap.open<unknown>(map.name);
      patient.set("stop", 1);
      await child.end();
      const { ok, busy } = patient.verify();
      assert.deepEqual({ ok, busy }, { ok: true, busy: 0 });
      assert.equal(patient.repair().ok, true);
      patient.delete("large");
    },
  );
}

testUnless(
  NEEDS.stopping,
  "the parts that verify() could look at are reported beside those it could not",
  LONG,
  async (t) => {
    const map = freshMap<number>(t, { timeout: TIMEOUT });
    for (let i = 0; i < 2000; i += 1) map.set(`key ${i}`, i);
    const child = await startWith(t, THERE, map.name);
    child.send("setForever", { id: "map", key: "key 5", bytes: 4 << 20 });
    await until("the child to be stopped inside a write", () => {
      child.signalWith("SIGSTOP");
      if (map.verify().busy > 0) return true;
      child.signalWith("SIGCONT");
      return false;
    }, 40_000);
    const { entries, first } = map.verify();
    assert.ok(entries > 1500 && entries < 2000, `${entries}`);
    assert.equal(first, undefined);
    await child.kill();
    // A dead writer keeps nothing: the next visitor recovers its stripe.
    await until("the kernel to pass the dead one's lock on", () => map.verify().ok);
    assert.equal(map.verify().busy, 0);
  },
);
