/**
 * A critical section across processes: under the lock of a map, money is moved between accounts,
 * which takes several writes. One process is killed between them. The next one to get the lock is
 * told, puts right what was half done, and at the end the sums are exact.
 *
 *     deno run --allow-env --allow-ffi --allow-run examples/critical_section.ts
 *     bun run examples/critical_section.ts
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { SharedMap } from "shmap";

/** Balances by account, how many `transfers` there were, and what to `undo` after a death. */
type Bank = SharedMap<number | Record<string, number>>;

const WORKERS = 4;
const TRANSFERS = 500;
/** In the middle of this transfer the first worker is killed. */
const FATAL = 123;
const ACCOUNTS = ["anna", "ben", "cleo"];
const START = 1000;

/** Moves money. `between` is called when it has left one account and not reached the other. */
function transfer(bank: Bank, from: string, to: string, amount: number, between: () => void): void {
  using lock = bank.lock();
  if (lock.recovered) undo(bank);
  const keys = [from, to, "transfers"];
  const [paying, paid, transfers] = bank.getMany(keys) as number[];
  bank.set("undo", { [from]: paying, [to]: paid, transfers });
  bank.set(from, paying - amount);
  between();
  bank.set(to, paid + amount);
  bank.set("transfers", transfers + 1);
  bank.delete("undo"); // from here on it is done
}

/** Puts back what a holder of the lock had changed when it died. Doing this twice does no harm. */
function undo(bank: Bank): void {
  const before = bank.get("undo") as Record<string, number> | undefined;
  if (before === undefined) return;
  bank.setMany(Object.entries(before));
  bank.delete("undo");
  console.log(`process ${process.pid} has put right what another one left half done`);
}

function work(token: string, isFatal: boolean): void {
  using bank: Bank = SharedMap.attach(token);
  for (let i = 1; i <= TRANSFERS; i++) {
    const [from, to] = [ACCOUNTS[i % 3], ACCOUNTS[(i + 1) % 3]];
    transfer(bank, from, to, i % 10, () => {
      if (isFatal && i === FATAL) process.kill(process.pid, "SIGKILL");
    });
  }
}

/** Runs one worker; resolves with how it ended. */
async function runWorker(token: string, isFatal: boolean): Promise<number | string> {
  const options = "Deno" in globalThis ? ["--allow-ffi", "--allow-run"] : [];
  const args = ["run", ...options, import.meta.filename!, token, isFatal ? "fatal" : ""];
  const [code, signal] = await once(spawn(process.execPath, args, { stdio: "inherit" }), "exit");
  return signal ?? code;
}

async function main(): Promise<void> {
  using bank: Bank = SharedMap.anonymous();
  for (const account of ACCOUNTS) bank.set(account, START);
  bank.set("transfers", 0);

  const workers = Array.from({ length: WORKERS }, (_, i) => runWorker(bank.token, i === 0));
  console.log(`the workers ended: ${(await Promise.all(workers)).join(", ")}`);

  {
    using lock = bank.lock();
    if (lock.recovered) undo(bank); // if the one that was killed was the last
  }
  const total = ACCOUNTS.reduce((sum, account) => sum + (bank.get(account) as number), 0);
  const done = bank.get("transfers");
  const expected = (WORKERS - 1) * TRANSFERS + FATAL - 1;
  console.log(`${done} transfers of ${expected}; there are ${total} of ${ACCOUNTS.length * START}`);
  process.exitCode = done === expected && total === ACCOUNTS.length * START ? 0 : 1;
}

const [token, how] = process.argv.slice(2);
if (token === undefined) await main();
else work(token, how === "fatal");
