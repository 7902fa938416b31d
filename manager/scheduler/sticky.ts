/**
 * Where the data is: a task with a local named volume goes to the nodes that have the volume. The cost of a task does not
 * depend on how many nodes there are: nodes are found by the volume's name. Pure.
 */
import { replicasOf } from "../../common/model/defaults.ts";
import { expandTemplate } from "../../common/model/template.ts";
import type { NodeVolumes, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { type Mount, Mount_Type, NodeSpec_Availability, type ServiceSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import type { ClusterState } from "./cluster-state.ts";
import { Explanation, reasonAgainst } from "./filters.ts";
import type { NodeInfo } from "./node-info.ts";
import type { Requirements } from "./requirements.ts";

/** Of a name, what differs from task to task or from node to node: no later task would ask for that volume. */
const UNSTABLE = /\.(Node\.|Task\.ID|Task\.Name)/;
const SLOT = ".Task.Slot";

/** The names (templates, perhaps) of the volumes that a spec's tasks follow; mostly none. */
export function stickySources(spec: ServiceSpec): readonly string[] {
  const single = spec.mode?.mode.case === "replicated" && replicasOf(spec) === 1;
  const mounts = spec.task?.container?.mounts ?? [];
  return mounts.filter((mount) => isSticky(mount, single)).map(({ source }) => source);
}

/** As the mount says, else when each slot has a volume of its own. */
function isSticky({ type, source, volumeSticky }: Mount, single: boolean): boolean {
  if (type !== Mount_Type.VOLUME || source === "" || UNSTABLE.test(source)) return false;
  return volumeSticky ?? (single || source.includes(SLOT));
}

/** The nodes that have each volume. */
export class VolumeIndex {
  readonly #nodeIds = new Map<string, Set<string>>();

  replace(before: NodeVolumes | undefined, after: NodeVolumes | undefined): void {
    for (const { name } of before?.volumes ?? []) {
      const nodeIds = this.#nodeIds.get(name);
      nodeIds?.delete(before?.nodeId ?? "");
      if (nodeIds?.size === 0) this.#nodeIds.delete(name);
    }
    for (const { name, removing } of after?.volumes ?? []) {
      // On its way out: no task is to find it again.
      if (removing) continue;
      const nodeIds = this.#nodeIds.get(name) ?? new Set();
      this.#nodeIds.set(name, nodeIds.add(after?.nodeId ?? ""));
    }
  }

  nodesWith(name: string): ReadonlySet<string> {
    return this.#nodeIds.get(name) ?? new Set();
  }
}

/** A volume that there is, and the nodes that have it: never none. */
export interface HeldVolume {
  readonly name: string;
  readonly nodes: readonly NodeInfo[];
}

/** The volumes that a task must follow. Empty: it may go anywhere, since nobody has data of it yet. */
export function heldVolumes(
  task: Pick<Task, "serviceId" | "slot">,
  { stickyVolumes, serviceName, serviceLabels }: Requirements,
  volumes: VolumeIndex,
  state: ClusterState,
): readonly HeldVolume[] {
  const context = { serviceId: task.serviceId, serviceName, serviceLabels, slot: Number(task.slot), taskId: "" };
  return stickyVolumes.flatMap((source) => {
    const name = expandTemplate(source, { ...context, ...NO_NODE });
    if (!name.ok) return [];
    // A node that was removed is no hope: what it had is lost.
    const nodes = [...volumes.nodesWith(name.value)].flatMap((nodeId) => state.node(nodeId) ?? []);
    return nodes.length > 0 ? [{ name: name.value, nodes }] : [];
  });
}

const NO_NODE = { nodeId: "", nodeHostname: "", nodeArchitecture: "", nodeOs: "" };

/** The node to place a task on, or why none of those that have its volumes can take it. */
export function placeWithVolumes(
  held: readonly HeldVolume[],
  wanted: Requirements,
  nowMs: number,
): { readonly info: NodeInfo | undefined; readonly explanation: string } {
  const [first, ...others] = held;
  const together = first?.nodes.filter((info) => others.every(({ nodes }) => nodes.includes(info))) ?? [];
  if (together.length === 0) {
    const places = held.map(({ name, nodes }) => `volume ${name} is on ${nodes.map(hostname).join(" and ")}`);
    return { info: undefined, explanation: `no suitable node (${places.join(", ")}: no node has all of them)` };
  }
  const [best] = together
    .filter((info) => reasonAgainst(info, wanted) === undefined)
    .sort((left, right) => rank(left, wanted, nowMs) - rank(right, wanted, nowMs) || left.taskCount - right.taskCount);
  if (best) return { info: best, explanation: "" };
  const volumes = held.map(({ name }) => name).join(", ");
  const problems = together.map((info) => `${hostname(info)}, which ${problemOf(info, wanted)}`);
  const is = held.length === 1 ? `volume ${volumes} is` : `volumes ${volumes} are`;
  return { info: undefined, explanation: `no suitable node (${is} on ${problems.join("; and on ")})` };
}

/** Nodes where the service fails again and again come last. */
function rank(info: NodeInfo, { serviceId }: Requirements, nowMs: number): number {
  return info.isFailing(serviceId, nowMs) ? 1 : 0;
}

function hostname({ id, node }: NodeInfo): string {
  return node.description?.hostname || id;
}

function problemOf(info: NodeInfo, wanted: Requirements): string {
  const reason = reasonAgainst(info, wanted) ?? "closed";
  if (reason !== "closed") return `cannot take the task: ${Explanation.clause(reason)}`;
  switch (info.node.spec?.availability) {
    case NodeSpec_Availability.DRAIN:
      return "is drained";
    case NodeSpec_Availability.PAUSE:
      return "is paused";
    default:
      return "is down";
  }
}
