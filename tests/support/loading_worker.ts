/** A thread that uses a map, says so, and waits for its end. */
import { parentPort } from "node:worker_threads";
import { SharedMap } from "../../mod.ts";

using map = SharedMap.anonymous<string>();
parentPort!.postMessage(map.set("key", "stored").get("key"));
