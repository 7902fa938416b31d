/** Calls that several commands make. */
import { SwarmError } from "../common/base/error.ts";
import type { ServiceView } from "../proto/gen/swarm/v1/control_pb.js";
import type { Network, Node, Service } from "../proto/gen/swarm/v1/objects_pb.js";
import type { ControlClient } from "./command.ts";

/** Reads of one object again after somebody else changed it. */
const ATTEMPTS_MAX = 5;

/** The one service that `reference` names. */
export async function findService(
  client: ControlClient,
  reference: string,
): Promise<ServiceView & { service: Service }> {
  const { services } = await client.listServices({ references: [reference] });
  const [view] = services;
  if (view?.service === undefined) throw new SwarmError("not_found", `no such service: ${reference}`);
  return { ...view, service: view.service };
}

/** The one node that `reference` names; `self` is not one, since swarmctl runs on no node in particular. */
export async function findNode(client: ControlClient, reference: string): Promise<Node> {
  const { nodes } = await client.listNodes({ references: [reference] });
  const [node] = nodes;
  if (node === undefined) throw new SwarmError("not_found", `no such node: ${reference}`);
  return node;
}

/** The one network that `reference` names, also of those that are always there. */
export async function findNetwork(client: ControlClient, reference: string): Promise<Network> {
  const { networks } = await client.listNetworks({ references: [reference] });
  const network = networks[0]?.network;
  if (network === undefined) throw new SwarmError("not_found", `no such network: ${reference}`);
  return network;
}

/** Answers of calls that always carry what they changed. */
export function present<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new SwarmError("internal", `the manager's answer has no ${what}`);
  return value;
}

/**
 * Reads, changes, writes; again when a loop of the manager wrote in between. `attempt` answers from the object as it is
 * now; a change by another user makes it throw `aborted` itself.
 */
export async function retryAborted<T>(attempt: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (reason) {
      if (!(reason instanceof SwarmError) || reason.code !== "aborted" || tries >= ATTEMPTS_MAX) throw reason;
    }
  }
}

/** Runs `work` for each word and prints what it answers, if anything; each failure is one line, and the others still happen. Answers the exit code. */
export async function forEachWord(
  words: readonly string[],
  io: { out(text: string): void; err(text: string): void },
  work: (word: string) => Promise<string | undefined>,
): Promise<number> {
  let code = 0;
  for (const word of words) {
    try {
      const done = await work(word);
      if (done !== undefined) io.out(`${done}\n`);
    } catch (reason) {
      if (!(reason instanceof SwarmError) || reason.code === "unavailable" || reason.code === "canceled") throw reason;
      io.err(`swarmctl: ${reason.message.replace(/\s*\n\s*/g, "; ")}\n`);
      code = 1;
    }
  }
  return code;
}
