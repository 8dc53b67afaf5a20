/**
 * A rate limit that three servers on one port keep together: each client gets so many answers in a
 * window, whichever server it comes to. One of them is killed under load, and no client gets one
 * answer more.
 *
 *     deno run -N=127.0.0.1 --allow-env --allow-ffi --allow-run examples/rate_limit.ts
 *     bun run examples/rate_limit.ts
 */
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { setTimeout as pause } from "node:timers/promises";
import { SharedMap } from "shmap";

type Store = SharedMap<number>;
type Handler = (request: Request) => Response;

/** The part of Bun that is used here. */
declare const Bun: { serve(options: object): { port: number } };

const SERVERS = 3;
const CLIENTS = 12;
const REQUESTS = 150;
const LIMIT = 100;
/** Longer than this example runs, so that its figures are of one window. */
const WINDOW_MS = 10 * 60_000;

/** Listens beside the other servers, on a free port if `port` is 0; returns the port. */
function listen(port: number, fetch: Handler): number {
  const options = { hostname: "127.0.0.1", port, reusePort: true };
  if ("Deno" in globalThis) return Deno.serve({ ...options, onListen() {} }, fetch).addr.port;
  return Bun.serve({ ...options, fetch }).port;
}

/** One server. `GET /<client>` is answered while the client is within its limit. */
async function serve(token: string): Promise<void> {
  const store: Store = SharedMap.attach(token);

  function answer(request: Request): Response {
    const client = new URL(request.url).pathname.slice(1);
    // The whole limiter: the window begins with the first request, and later ones do not move it.
    const { value, expires } = store.incrementEntry(`hits of ${client}`, 1, { ttl: WINDOW_MS });
    const headers = {
      connection: "close", // so each request may come to another server
      "ratelimit-remaining": `${Math.max(0, LIMIT - value)}`,
      "ratelimit-reset": `${Math.ceil((expires! - Date.now()) / 1000)}`,
    };
    return new Response(`${process.pid}`, { status: value > LIMIT ? 429 : 200, headers });
  }

  {
    // One after another: the first takes a port that is free, the others the same.
    using _lock = await store.lockAsync();
    store.set("port", listen(store.get("port") ?? 0, answer));
    store.increment("servers");
  }
  process.stdin.resume().on("end", () => process.exit()); // when its parent has ended
}

function startServer(token: string): ChildProcess {
  const permissions = ["--allow-ffi", "-N=127.0.0.1", "--unstable-net"]; // the last for reusePort
  const options = "Deno" in globalThis ? permissions : [];
  const args = ["run", ...options, import.meta.filename!, token];
  return spawn(process.execPath, args, { stdio: ["pipe", "inherit", "inherit"] });
}

/** What became of the requests of one client. */
interface Client {
  passed: number;
  refused: number;
  unanswered: number;
}

/** Asks, all clients at once, and kills a server on the way; true if every limit was kept. */
async function load(store: Store, servers: ChildProcess[]): Promise<boolean> {
  const url = `http://127.0.0.1:${store.get("port")}`;
  const pids = new Set<number>();
  let answers = 0;

  async function ask(client: Client, name: string): Promise<void> {
    try {
      const response = await fetch(`${url}/${name}`, { signal: AbortSignal.timeout(10_000) });
      const pid = Number(await response.text());
      pids.add(pid);
      if (response.status === 200) client.passed++;
      else client.refused++;
      answers++;
      if (answers === CLIENTS * LIMIT / 2) {
        servers.find((server) => server.pid === pid)!.kill("SIGKILL");
        console.log(`killed server ${pid} after ${answers} answers`);
      }
    } catch {
      client.unanswered++; // its server was killed, before or after it had counted
    }
  }

  const clients = await Promise.all(
    Array.from({ length: CLIENTS }, async (_, i) => {
      const client: Client = { passed: 0, refused: 0, unanswered: 0 };
      for (let n = 0; n < REQUESTS; n++) await ask(client, `client-${i}`);
      return client;
    }),
  );

  const total = (field: keyof Client) => clients.reduce((sum, client) => sum + client[field], 0);
  console.log(`${answers} answers of ${pids.size} servers, ${total("unanswered")} requests lost`);
  console.log(`${total("passed")} passed, ${total("refused")} refused`);
  const isKept = clients.every((client) =>
    client.passed <= LIMIT && client.passed + client.unanswered >= LIMIT
  );
  const counted = clients.map((_, i) => store.get(`hits of client-${i}`)!);
  // What was answered was counted once; what was not may have been.
  const isExact = clients.every((client, i) => {
    const answered = client.passed + client.refused;
    return counted[i] >= answered && counted[i] <= answered + client.unanswered;
  });
  return isKept && isExact;
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
  console.log(isRight ? "every client got its limit, and none more" : "the limit was NOT kept");
  process.exitCode = isRight ? 0 : 1;
}

const token = process.argv[2];
await (token === undefined ? main() : serve(token));
