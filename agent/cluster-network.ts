/**
 * What the managers told of the cluster's network: services, networks, other nodes and the tasks on them. It outlives
 * the managers' absence, and through its record the agent's restart.
 */
import { create } from "@bufbuild/protobuf";
import { type IpPrefix, overlaps, parseIpPrefix } from "../common/model/ip-prefix.ts";
import { withoutLength } from "../common/model/task-addresses.ts";
import { type EndpointsRecord, EndpointsRecordSchema } from "../proto/gen/swarm/v1/agent_pb.js";
import {
  type AssignmentChange,
  AssignmentChange_Action,
  type NetworkAssignment,
  type Peer,
  type ServiceEndpoint,
  type TaskEndpoint,
} from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { Task } from "../proto/gen/swarm/v1/objects_pb.js";
import type { NodeNetwork, OwnTask, PublishedEndpoint } from "./executor.ts";

export class ClusterNetworkState {
  readonly #services = new Map<string, ServiceEndpoint>();
  readonly #networks = new Map<string, NetworkAssignment>();
  /** Networks that were removed: tasks of this node may still be on their way out of them. */
  readonly #removed = new Map<string, NetworkAssignment>();
  readonly #peers = new Map<string, Peer>();
  readonly #tasks = new Map<string, TaskEndpoint>();

  /** Takes a change that is about the network; returns whether it was. */
  apply({ action, item }: AssignmentChange): boolean {
    const removed = action === AssignmentChange_Action.REMOVE;
    switch (item.case) {
      case "endpoint":
        replace(this.#services, item.value.serviceId, item.value, removed);
        return true;
      case "network":
        if (removed) this.#keep(item.value.id);
        else this.#removed.delete(item.value.id);
        replace(this.#networks, item.value.id, item.value, removed);
        return true;
      case "peer":
        replace(this.#peers, item.value.nodeId, item.value, removed);
        return true;
      case "taskEndpoint":
        replace(this.#tasks, item.value.taskId, item.value, removed);
        return true;
      default:
        return false;
    }
  }

  /** A complete set follows. */
  clear(): void {
    for (const id of this.#networks.keys()) this.#keep(id);
    for (const each of [this.#services, this.#networks, this.#peers, this.#tasks]) each.clear();
  }

  network(networkId: string): NetworkAssignment | undefined {
    return this.#networks.get(networkId) ?? this.#removed.get(networkId);
  }

  #keep(networkId: string): void {
    const network = this.#networks.get(networkId);
    if (network) this.#removed.set(networkId, network);
  }

  service(serviceId: string): ServiceEndpoint | undefined {
    return this.#services.get(serviceId);
  }

  /** Whether anybody is led to the tasks of a service by an address or port that is not their own. */
  isReached(serviceId: string): boolean {
    const service = this.#services.get(serviceId);
    return service !== undefined && (service.ports.length > 0 || service.networks.length > 0);
  }

  /** Whether tasks of other nodes serve it. */
  isServed(serviceId: string): boolean {
    for (const task of this.#tasks.values()) if (task.serving && task.serviceId === serviceId) return true;
    return false;
  }

  /** All of it, with the node's own tasks. */
  snapshot(own: readonly OwnTask[]): NodeNetwork {
    const services = [...this.#services.values()];
    const tasks = [...this.#tasks.values()];
    this.#forgetEmpty(own);
    const present = [...this.#networks.values()];
    return {
      // A new network that took the place of a removed one has its addresses now.
      networks: [...present, ...[...this.#removed.values()].filter((network) => !present.some(overlapping(network)))],
      peers: [...this.#peers.values()],
      services,
      tasks,
      own,
      endpoints: publishedEndpoints(services, own, tasks),
    };
  }

  /** Until the last task is gone, those on a removed network reach each other as before, and nobody else. */
  #forgetEmpty(own: readonly OwnTask[]): void {
    const used = new Set(own.flatMap(({ task }) => task.networks.map(({ networkId }) => networkId)));
    for (const id of this.#removed.keys()) if (!used.has(id)) this.#removed.delete(id);
  }

  record(): EndpointsRecord {
    return create(EndpointsRecordSchema, {
      endpoints: [...this.#services.values()],
      networks: [...this.#networks.values()],
      peers: [...this.#peers.values()],
      tasks: [...this.#tasks.values()],
    });
  }

  restore({ endpoints, networks, peers, tasks }: EndpointsRecord): void {
    for (const each of endpoints) this.#services.set(each.serviceId, each);
    for (const each of networks) this.#networks.set(each.id, each);
    for (const each of peers) this.#peers.set(each.nodeId, each);
    for (const each of tasks) this.#tasks.set(each.taskId, each);
  }
}

/** Every published port with the tasks that serve it now: the node's own, and for ingress ports those of all nodes. */
function publishedEndpoints(
  services: readonly ServiceEndpoint[],
  own: readonly OwnTask[],
  tasks: readonly TaskEndpoint[],
): PublishedEndpoint[] {
  const targets = new Map<string, { readonly taskId: string; readonly address: string; readonly own: boolean }[]>();
  const add = (serviceId: string, taskId: string, addresses: readonly string[], isOwn: boolean) => {
    const added = addresses.map((address) => ({ taskId, address, own: isOwn }));
    const ofService = targets.get(serviceId);
    if (ofService) ofService.push(...added);
    else targets.set(serviceId, added);
  };
  for (const { task, serving, ingressAddresses } of own) {
    if (serving) add(task.serviceId, task.id, ingressAddresses, true);
  }
  for (const each of tasks) if (each.serving) add(each.serviceId, each.taskId, each.ingressAddresses, false);
  // The same order on all nodes, so that a client's address leads to the same task whichever it comes in by.
  for (const each of targets.values()) each.sort((left, right) => (left.taskId < right.taskId ? -1 : 1));
  return services.flatMap(({ serviceId, ports, affinity }) =>
    ports.map((port) => ({ port, affinity, targets: targets.get(serviceId) ?? [] })),
  );
}

/** A task's addresses by network. */
export function addressesOf({
  networks,
}: Pick<Task | TaskEndpoint, "networks">): readonly (readonly [string, string])[] {
  return networks.flatMap(({ networkId, addresses }) =>
    addresses.map((address) => [networkId, withoutLength(address)] as const),
  );
}

function overlapping(network: NetworkAssignment): (other: NetworkAssignment) => boolean {
  const subnets = subnetsOf(network);
  return (other) => subnetsOf(other).some((theirs) => subnets.some((subnet) => overlaps(theirs, subnet)));
}

function subnetsOf({ ipam }: NetworkAssignment): readonly IpPrefix[] {
  return ipam.flatMap(({ subnet }) => parseIpPrefix(subnet) ?? []);
}

function replace<T>(map: Map<string, T>, key: string, value: T, removed: boolean): void {
  if (removed) map.delete(key);
  else map.set(key, value);
}
