/** A manager under attack: how much memory it takes, and how soon it answers others. */
import { readdirSync, readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { NodeIdentity } from "../../agent/node-identity.ts";
import { systemClock } from "../../common/base/clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { openGrpcTransport } from "../../common/rpc/grpc-transport.ts";
import { createClient } from "../../common/rpc/service.ts";
import type { ClientTls } from "../../common/rpc/tls.ts";
import { NodeCa } from "../../proto/gen/swarm/v1/ca_pb.js";
import type { ManagerProgram } from "../manager-program.ts";
import type { Attack, Outcome } from "./attacks.ts";

/** What the manager did while something was done to it. */
export interface Watched<T> {
  readonly outcome: T;
  /** Most memory beyond what it had before, in MiB. */
  readonly grownMib: number;
  /** How much of that came in the second half of the time: what is kept for ever grows on, what is kept ready does not. */
  readonly grownLateMib: number;
  /** Most files and connections that it had open. */
  readonly descriptors: number;
  /** What the middle one of the calls took that came from another address meanwhile, each over a connection of its own, in ms. */
  readonly medianMs: number;
  readonly slowestMs: number;
}

/** Resident memory of a process, in MiB. */
export function residentMib(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

/** A node's certificate, for those who are to be answered. */
export async function joinAsMember(manager: ManagerProgram, directory: string): Promise<NodeIdentity> {
  const token = await manager.call(async (control) => (await control.getJoinTokens({})).worker);
  const options = { directory, clock: systemClock, random: systemRandom, logger: silentLogger };
  return await NodeIdentity.join(options, { managers: [manager.address], token }, new AbortController().signal);
}

/** Looks at the manager while `work` goes on, and calls it as `member` all the time. A call that fails fails it all. */
export async function watched<T>(manager: ManagerProgram, member: ClientTls, work: Promise<T>): Promise<Watched<T>> {
  const pid = manager.child.pid ?? 0;
  const beforeMib = residentMib(pid);
  let isOver = false;
  const outcome = work.finally(() => {
    isOver = true;
  });
  // Looked at below, when the calls are over.
  outcome.catch(() => {});
  const times: number[] = [];
  const residentMibs: number[] = [];
  let descriptors = 0;
  do {
    const startMs = performance.now();
    await callAnew(manager.address, member);
    times.push(performance.now() - startMs);
    residentMibs.push(residentMib(pid));
    descriptors = Math.max(descriptors, readdirSync(`/proc/${pid}/fd`).length);
  } while (!isOver);
  times.sort((a, b) => a - b);
  const most = (values: readonly number[]) => values.reduce((left, right) => Math.max(left, right), 0);
  const mostMib = most(residentMibs);
  const earlyMib = most(residentMibs.slice(0, Math.ceil(residentMibs.length / 2)));
  return {
    outcome: await outcome,
    grownMib: Math.round(mostMib - beforeMib),
    grownLateMib: Math.round(mostMib - earlyMib),
    descriptors,
    medianMs: Math.round(times[Math.floor(times.length / 2)] ?? 0),
    slowestMs: Math.round(times.at(-1) ?? 0),
  };
}

/** A connection, a handshake, a call. */
async function callAnew(address: string, tls: ClientTls): Promise<void> {
  await using transport = openGrpcTransport({ address, tls });
  await createClient(NodeCa, transport).getRootCertificates({}, { timeoutMs: 20_000 });
}

/** Attacks from an address of its own. */
export function attack(name: Attack, manager: ManagerProgram, from: string): Promise<Outcome> {
  const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
  const target = { address: manager.address, from };
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { workerData: { attack: name, target } });
  worker.once("message", resolve);
  worker.once("error", reject);
  worker.once("exit", () => reject(new Error(`${name}: ended without a word`)));
  return promise;
}
