/**
 * A web server of three processes on one port. They share the shopping carts of all sessions, and
 * a count of the requests, in one map. One of them is killed under load: its clients ask again,
 * others answer, and nothing is lost.
 *
 *     deno run -N=127.0.0.1 --allow-env --allow-ffi --allow-run examples/sessions_server.ts
 *     bun run examples/sessions_server.ts
 */
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { setTimeout as pause } from "node:timers/promises";
import { SharedMap } from "shmap";

type Store = SharedMap<number | string[]>;
type Handler = (request: Request) => Response;

/** What a server answers: its process, and which request this was among all of them. */
interface Answer {
  pid: number;
  number: number;
}

/** The part of Bun that is used here. */
declare const Bun: { serve(options: object): { port: number } };

const SERVERS = 3;
const SESSIONS = 16;
const ITEMS = 150;

/** Listens beside the other servers, on a free port if `port` is 0; returns the port. */
function listen(port: number, fetch: Handler): number {
  const options = { hostname: "127.0.0.1", port, reusePort: true };
  if ("Deno" in globalThis) return Deno.serve({ ...options, onListen() {} }, fetch).addr.port;
  return Bun.serve({ ...options, fetch }).port;
}

/** One server. `POST /<session>/<item>` puts the item into the session's cart. */
async function serve(token: string): Promise<void> {
  const store: Store = SharedMap.attach(token);

  function answer(request: Request): Response {
    const [, session, item] = new URL(request.url).pathname.split("/");
    // Clients that got no answer ask again, so what is done twice must count once.
    store.update(`cart of ${session}`, (cart) => {
      const items = cart as string[] | undefined ?? [];
      return items.includes(item) ? items : [...items, item];
    });
    const number = store.update("requests", (count) => (count as number ?? 0) + 1) as number;
    // Without kept connections, each request may come to another server.
    const headers = { connection: "close" };
    return Response.json({ pid: process.pid, number } satisfies Answer, { headers });
  }

  {
    // One after another: the first takes a port that is free, the others the same.
    using _lock = await store.lockAsync();
    store.set("port", listen(store.get("port") as number ?? 0, answer));
    store.set("servers", (store.get("servers") as number ?? 0) + 1);
  }
  process.stdin.resume().on("end", () => process.exit()); // when its parent has ended
}

function startServer(token: string): ChildProcess {
  const permissions = ["--allow-ffi", "-N=127.0.0.1", "--unstable-net"]; // the last for reusePort
  const options = "Deno" in globalThis ? permissions : [];
  const args = ["run", ...options, import.meta.filename!, token];
  return spawn(process.execPath, args, { stdio: ["pipe", "inherit", "inherit"] });
}

/** Asks until there is an answer; `lost` is called for each request that got none. */
async function ask(url: string, lost: () => void): Promise<Answer> {
  for (let attempt = 1;; attempt++) {
    try {
      const options = { method: "POST", signal: AbortSignal.timeout(10_000) };
      return await (await fetch(url, options)).json();
    } catch (error) {
      if (attempt === 10) throw error;
      lost();
    }
  }
}

/** Fills every cart and kills a server on the way; true if everything adds up. */
async function load(store: Store, servers: ChildProcess[]): Promise<boolean> {
  const numbers = new Set<number>();
  const pids = new Set<number>();
  let lostCount = 0;

  const clients = Array.from({ length: SESSIONS }, async (_, session) => {
    for (let item = 0; item < ITEMS; item++) {
      const url = `http://127.0.0.1:${store.get("port")}/${session}/${item}`;
      const { pid, number } = await ask(url, () => lostCount++);
      pids.add(pid);
      numbers.add(number);
      if (numbers.size === SESSIONS * ITEMS / 3) {
        servers.find((server) => server.pid === pid)!.kill("SIGKILL");
        console.log(`killed server ${pid} after ${numbers.size} answers`);
      }
    }
  });
  await Promise.all(clients);

  const answered = SESSIONS * ITEMS;
  const unheard = (store.get("requests") as number) - answered;
  const carts = Array.from({ length: SESSIONS }, (_, i) => store.get(`cart of ${i}`) as string[]);
  const wholeCarts = carts.filter((cart) => cart.length === ITEMS);
  console.log(`${answered} requests answered by ${pids.size} servers, ${lostCount} asked again`);
  console.log(`${numbers.size} numbers given out, ${unheard} more counted for lost answers`);
  console.log(`${wholeCarts.length} of ${SESSIONS} carts are whole`);

  // Every answer has a number of its own, and no request was counted that was not made.
  return numbers.size === answered && unheard >= 0 && unheard <= lostCount &&
    wholeCarts.length === SESSIONS;
}

async function main(): Promise<void> {
  using store: Store = SharedMap.anonymous();
  const servers = Array.from({ length: SERVERS }, () => startServer(store.token));
  while (store.get("servers") !== SERVERS) {
    if (servers.some((server) => server.exitCode !== null)) throw new Error("no server");
    await pause(5);
  }
  const isRight = await load(store, servers);
  for (const server of servers) server.stdin!.end();
  console.log(isRight ? "nothing was lost" : "something was LOST");
  process.exitCode = isRight ? 0 : 1;
}

const token = process.argv[2];
await (token === undefined ? main() : serve(token));
