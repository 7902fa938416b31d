import { systemClock } from "../common/base/clock.ts";
import type { ManagerId } from "../common/base/id.ts";
import { newId } from "../common/base/id.ts";
import { openLogger } from "../common/base/logger.ts";
import { systemRandom } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { runElection } from "../manager/store/election.ts";
import { EtcdKv } from "../manager/store/etcd-kv.ts";
import { openStore } from "../manager/store/open-store.ts";
import { aTask } from "./objects.ts";

/*
 * A manager reduced to its election: `candidate.ts <etcd endpoint> <manager id>`. While it leads it writes one fenced
 * task after the other, each with its epoch as address, and says so: one JSON line per event on stdout.
 */
const [endpoint = "", managerId = ""] = process.argv.slice(2);
const shared = { clock: systemClock, random: systemRandom, logger: openLogger("candidate", { level: "warn" }) };
const kv = new EtcdKv({ endpoints: [endpoint], ...shared });
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());

function say(event: string, epoch: number): void {
  process.stdout.write(`${JSON.stringify({ event, epoch, atMs: Date.now() })}\n`);
}

await using scope = new Scope();
const store = await openStore({ kv, ...shared }, scope);
try {
  await runElection(
    { kv, ...shared, managerId: managerId as ManagerId },
    async (fence) => {
      say("leads", fence.epoch);
      while (!fence.signal.aborted) {
        const object = aTask({ id: newId(systemRandom), address: String(fence.epoch) });
        try {
          await store.commit([{ type: "create", kind: "task", object }], { fence, signal: fence.signal });
        } catch {
          break;
        }
      }
      say("demoted", fence.epoch);
    },
    stop.signal,
  );
} catch {
  // Stopped.
}
await scope[Symbol.asyncDispose]();
kv[Symbol.dispose]();
