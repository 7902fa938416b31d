/**
 * The scheduler's index of the cluster, kept up to date by changes: nodes in buckets by how many tasks they run, so that
 * the emptiest is found without looking at the others.
 */

import { offeredBy } from "../../common/model/resources.ts";
import type { Node } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Availability, NodeStatus_State } from "../../proto/gen/swarm/v1/types_pb.js";
import { addCount, NodeInfo } from "./node-info.ts";
import type { Requirements } from "./requirements.ts";

/** One task's share of a node. */
export interface Occupancy {
  readonly nodeId: string;
  readonly requirements: Requirements;
  /** It should go on running: it counts when tasks are spread. A task that is stopping only holds resources. */
  readonly counted: boolean;
}

export class ClusterState {
  readonly #nodes = new Map<string, NodeInfo>();
  readonly #buckets: Set<NodeInfo>[] = [];
  readonly #tasks = new Map<string, Occupancy>();
  /** Nodes that run a service, so that a run starts from them without asking every node. */
  readonly #byService = new Map<string, Set<NodeInfo>>();
  #run = 0;

  node(id: string): NodeInfo | undefined {
    return this.#nodes.get(id);
  }

  /** A number for the next placement run, to mark nodes with. */
  beginRun(): number {
    this.#run += 1;
    return this.#run;
  }

  /** Learns of a new or changed node. */
  setNode(node: Node): void {
    let info = this.#nodes.get(node.id);
    if (!info) {
      info = new NodeInfo(node);
      this.#nodes.set(node.id, info);
      this.#bucket(0).add(info);
      for (const occupancy of this.#tasks.values()) {
        if (occupancy.nodeId === node.id) this.#account(info, occupancy, 1);
      }
    }
    const offered = offeredBy(node.description);
    info.node = node;
    info.totalNanoCpus = offered.nanoCpus;
    info.totalMemoryBytes = offered.memoryBytes;
    info.open =
      node.status?.state === NodeStatus_State.READY && node.spec?.availability === NodeSpec_Availability.ACTIVE;
  }

  removeNode(id: string): void {
    const info = this.#nodes.get(id);
    if (!info) return;
    this.#nodes.delete(id);
    this.#bucket(info.taskCount).delete(info);
    for (const nodes of this.#byService.values()) nodes.delete(info);
  }

  /** Learns what a task takes now; undefined when it takes nothing any more. */
  setTask(id: string, occupancy: Occupancy | undefined): void {
    const before = this.#tasks.get(id);
    if (before) this.#apply(before, -1);
    if (occupancy) {
      this.#tasks.set(id, occupancy);
      this.#apply(occupancy, 1);
    } else {
      this.#tasks.delete(id);
    }
  }

  occupancy(taskId: string): Occupancy | undefined {
    return this.#tasks.get(taskId);
  }

  /** The nodes that run tasks of a service. */
  nodesOf(serviceId: string): Iterable<NodeInfo> {
    return this.#byService.get(serviceId) ?? [];
  }

  /** Every node, those with the fewest tasks first. Nodes may gain tasks while it is read; such a node may come twice. */
  *byTaskCount(): Generator<NodeInfo> {
    for (let count = 0; count < this.#buckets.length; count++) yield* this.#bucket(count);
  }

  nodes(): Iterable<NodeInfo> {
    return this.#nodes.values();
  }

  #apply(occupancy: Occupancy, by: 1 | -1): void {
    const info = this.#nodes.get(occupancy.nodeId);
    if (info) this.#account(info, occupancy, by);
  }

  #account(info: NodeInfo, { requirements, counted }: Occupancy, by: 1 | -1): void {
    info.usedNanoCpus += by * requirements.nanoCpus;
    info.usedMemoryBytes += by * requirements.memoryBytes;
    for (const port of requirements.hostPorts) addCount(info.hostPorts, port, by);
    if (!counted) return;
    const { serviceId } = requirements;
    addCount(info.services, serviceId, by);
    const nodes = this.#byService.get(serviceId);
    if (!info.services.has(serviceId)) {
      nodes?.delete(info);
      if (nodes?.size === 0) this.#byService.delete(serviceId);
    } else if (nodes) nodes.add(info);
    else this.#byService.set(serviceId, new Set([info]));
    this.#bucket(info.taskCount).delete(info);
    info.taskCount += by;
    this.#bucket(info.taskCount).add(info);
  }

  #bucket(count: number): Set<NodeInfo> {
    let bucket = this.#buckets[count];
    while (!bucket) {
      this.#buckets.push(new Set());
      bucket = this.#buckets[count];
    }
    return bucket;
  }
}
