/** Why a node cannot take a task: filters that count what they reject, so that the user learns what to change. */
import { architecture, matchesAll } from "../../common/model/constraints.ts";
import type { NodeInfo } from "./node-info.ts";
import type { Requirements } from "./requirements.ts";

/** The reasons in the order in which they are told, each with its words for one and for several nodes. */
const REASONS = {
  closed: ["1 node not available for new tasks", "nodes not available for new tasks"],
  constraints: ["scheduling constraints not satisfied on 1 node", "scheduling constraints not satisfied on"],
  platform: ["unsupported platform on 1 node", "unsupported platform on"],
  encryption: ["no WireGuard for an encrypted network on 1 node", "no WireGuard for an encrypted network on"],
  cpu: ["insufficient cpu on 1 node", "insufficient cpu on"],
  memory: ["insufficient memory on 1 node", "insufficient memory on"],
  port: ["host-mode port already in use on 1 node", "host-mode port already in use on"],
  replicas: ["max replicas per node limit exceeded on 1 node", "max replicas per node limit exceeded on"],
} as const;

export type Reason = keyof typeof REASONS;

/** Whether the node fits; the first filter that says no names the reason. */
export function reasonAgainst(info: NodeInfo, wanted: Requirements): Reason | undefined {
  if (!info.open) return "closed";
  if (wanted.constraints.length > 0 && !matchesAll(wanted.constraints, info.node)) return "constraints";
  if (wanted.platforms.length > 0 && !runsOn(info, wanted)) return "platform";
  if (wanted.encrypted && (info.node.description?.wireguardKey ?? []).length === 0) return "encryption";
  if (wanted.nanoCpus > 0 && wanted.nanoCpus > info.totalNanoCpus - info.usedNanoCpus) return "cpu";
  if (wanted.memoryBytes > 0 && wanted.memoryBytes > info.totalMemoryBytes - info.usedMemoryBytes) return "memory";
  if (wanted.hostPorts.some((port) => info.hostPorts.has(port))) return "port";
  if (info.serviceCount(wanted.serviceId) >= wanted.maxPerNode) return "replicas";
  return undefined;
}

function runsOn(info: NodeInfo, wanted: Requirements): boolean {
  const platform = info.node.description?.platform;
  if (!platform) return false;
  const name = architecture(platform.architecture);
  return wanted.platforms.some((each) => each.os === platform.os && each.architecture === name);
}

/** Counts rejections and tells them: "no suitable node (insufficient memory on 2 nodes)". */
export class Explanation {
  readonly #counts = new Map<Reason, number>();

  add(reason: Reason): void {
    this.#counts.set(reason, (this.#counts.get(reason) ?? 0) + 1);
  }

  /** What stands against one node, in words. */
  static clause(reason: Reason): string {
    return REASONS[reason][0].replace(/ on 1 node$/, "");
  }

  toString(): string {
    const clauses: string[] = [];
    for (const [reason, [one, several]] of Object.entries(REASONS) as [Reason, readonly [string, string]][]) {
      const count = this.#counts.get(reason) ?? 0;
      if (count === 1) clauses.push(one);
      else if (count > 1) clauses.push(reason === "closed" ? `${count} ${several}` : `${several} ${count} nodes`);
    }
    return clauses.length === 0
      ? "no suitable node (the cluster has no nodes)"
      : `no suitable node (${clauses.join("; ")})`;
  }
}
