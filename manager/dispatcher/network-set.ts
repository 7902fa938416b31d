/**
 * What one agent has been told of the cluster's network, and what it must be told next: the networks of its tasks, the
 * services and tasks on them, those that are published everywhere, and the other nodes. Pure.
 */
import { create, type DescMessage, equals, type MessageShape } from "@bufbuild/protobuf";
import { ingressAddresses, withoutLength } from "../../common/model/task-addresses.ts";
import {
  type AssignmentChange,
  AssignmentChange_Action,
  AssignmentChangeSchema,
  type NetworkAssignment,
  NetworkAssignmentSchema,
  type Peer,
  PeerSchema,
  type ServiceEndpoint,
  ServiceEndpointSchema,
  type TaskEndpoint,
  TaskEndpointSchema,
} from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { Network, Node, Service, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import {
  EndpointSpecSchema,
  NodeStatus_State,
  PortConfig_PublishMode,
  TaskState,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { isReachable } from "../store/network-index.ts";
import type { View } from "../store/view.ts";
import { sharedChange } from "./shared-changes.ts";

/** The parts of a view that the network is told from. */
export type NetworkView = Pick<
  View,
  | "tasks"
  | "services"
  | "specVersion"
  | "tasksOfNode"
  | "tasksOfService"
  | "tasksOnNetwork"
  | "nodes"
  | "networks"
  | "byName"
>;

/** What changed since the last look. */
export interface NetworkTouched {
  readonly taskIds: Iterable<string>;
  readonly serviceIds: Iterable<string>;
  readonly nodeIds: Iterable<string>;
}

/** What is to be said before the tasks of the same message, and what after them. */
export interface NetworkChanges {
  readonly before: readonly AssignmentChange[];
  readonly after: readonly AssignmentChange[];
}

/** One kind of thing that an agent is told: what it was told last, by key. */
class Told<S extends DescMessage> {
  readonly values = new Map<string, MessageShape<S>>();
  readonly #schema: S;
  readonly #change: (action: AssignmentChange_Action, value: MessageShape<S>) => AssignmentChange;

  constructor(schema: S, change: (action: AssignmentChange_Action, value: MessageShape<S>) => AssignmentChange) {
    this.#schema = schema;
    this.#change = change;
  }

  /** Says `value` where it is news, or that there is none any more. */
  say(
    key: string,
    value: MessageShape<S> | undefined,
    changes: { before: AssignmentChange[]; after: AssignmentChange[] },
  ) {
    const told = this.values.get(key);
    if (value !== undefined) {
      if (told !== undefined && equals(this.#schema, told, value)) return;
      this.values.set(key, value);
      changes.before.push(this.#change(AssignmentChange_Action.UPDATE, value));
    } else if (told !== undefined) {
      this.values.delete(key);
      changes.after.push(this.#change(AssignmentChange_Action.REMOVE, told));
    }
  }
}

/** Whether a service is published on every node. */
export function hasIngress(service: Pick<Service, "ports"> | undefined): boolean {
  return service?.ports.some(({ publishMode }) => publishMode === PortConfig_PublishMode.INGRESS) ?? false;
}

/** The ids of the networks that a service's newest spec names. */
export function networksOfService(
  view: Pick<View, "specVersion" | "byName">,
  { id, specVersion }: Pick<Service, "id" | "specVersion">,
): readonly string[] {
  const networks = view.specVersion(id, specVersion)?.spec?.task?.networks ?? [];
  return networks.flatMap(({ target }) => view.byName("network", target)?.id ?? []);
}

export class NetworkSet {
  readonly #nodeId: string;
  /** The node's own tasks that have not ended: their services and networks. */
  readonly #own = new Map<string, { readonly serviceId: string; readonly networkIds: readonly string[] }>();
  /** How many of them are on each network, and of each service. */
  readonly #networkCounts = new Map<string, number>();
  readonly #serviceCounts = new Map<string, number>();
  readonly #networks = new Told(NetworkAssignmentSchema, (action, value) =>
    create(AssignmentChangeSchema, { action, item: { case: "network", value } }),
  );
  readonly #services = new Told(ServiceEndpointSchema, (action, value) =>
    create(AssignmentChangeSchema, { action, item: { case: "endpoint", value } }),
  );
  readonly #tasks = new Told(TaskEndpointSchema, (action, value) =>
    create(AssignmentChangeSchema, { action, item: { case: "taskEndpoint", value } }),
  );
  /** The other nodes as they were told: the changes that said so. */
  readonly #peers = new Map<string, PeerChange>();

  constructor(nodeId: string) {
    this.#nodeId = nodeId;
  }

  /** Everything, for an agent that knows nothing yet. */
  complete(view: NetworkView): NetworkChanges {
    const ingress = [...view.services.values()].filter(hasIngress).map(({ id }) => id);
    return this.update(view, {
      taskIds: [...view.tasksOfNode(this.#nodeId)].map(({ id }) => id),
      serviceIds: ingress,
      nodeIds: view.nodes.keys(),
    });
  }

  update(view: NetworkView, touched: NetworkTouched): NetworkChanges {
    const changes: { before: AssignmentChange[]; after: AssignmentChange[] } = { before: [], after: [] };
    const serviceIds = new Set(touched.serviceIds);
    const taskIds = new Set(touched.taskIds);
    const networkIds = new Set<string>();
    for (const taskId of taskIds) this.#takeOwn(view, taskId, networkIds, serviceIds);
    for (const id of networkIds) {
      const network = this.#networkCounts.has(id) ? view.networks.get(id) : undefined;
      this.#networks.say(id, network && networkAssignment(network), changes);
      for (const taskId of view.tasksOnNetwork(id)) taskIds.add(taskId);
      for (const service of view.services.values()) {
        if (networksOfService(view, service).includes(id)) serviceIds.add(service.id);
      }
      for (const [serviceId, { networks }] of this.#services.values) {
        if (networks.some(({ networkId }) => networkId === id)) serviceIds.add(serviceId);
      }
      for (const [taskId, { networks }] of this.#tasks.values) {
        if (networks.some(({ networkId }) => networkId === id)) taskIds.add(taskId);
      }
    }
    for (const id of serviceIds) {
      const wasPublished = hasIngress(this.#services.values.get(id));
      const service = this.#service(view, id);
      this.#services.say(id, service, changes);
      if (wasPublished === hasIngress(service)) continue;
      for (const task of view.tasksOfService(id)) taskIds.add(task.id);
    }
    for (const nodeId of touched.nodeIds) this.#sayPeer(nodeId, view.nodes.get(nodeId), changes);
    for (const taskId of taskIds) this.#tasks.say(taskId, this.#task(view, taskId), changes);
    return changes;
  }

  /** Takes note of a task of the node; tells which networks and services it came to or left. */
  #takeOwn(view: NetworkView, taskId: string, networkIds: Set<string>, serviceIds: Set<string>): void {
    const before = this.#own.get(taskId);
    const task = view.tasks.get(taskId);
    const own = task?.nodeId === this.#nodeId && isReachable(task);
    if (own === (before !== undefined)) return;
    const after =
      own && task ? { serviceId: task.serviceId, networkIds: task.networks.map((each) => each.networkId) } : before;
    const step = own ? 1 : -1;
    if (own && after) this.#own.set(taskId, after);
    else this.#own.delete(taskId);
    for (const id of after?.networkIds ?? []) if (count(this.#networkCounts, id, step)) networkIds.add(id);
    if (after && count(this.#serviceCounts, after.serviceId, step)) serviceIds.add(after.serviceId);
  }

  #service(view: NetworkView, serviceId: string): ServiceEndpoint | undefined {
    const service = view.services.get(serviceId);
    if (!service) return undefined;
    const spec = view.specVersion(serviceId, service.specVersion)?.spec;
    const networks = (spec?.task?.networks ?? []).flatMap(({ target, aliases }) => {
      const networkId = view.byName("network", target)?.id ?? "";
      if (!this.#networkCounts.has(networkId)) return [];
      const addresses = service.vips.find((each) => each.networkId === networkId)?.addresses ?? [];
      return [{ networkId, addresses, aliases }];
    });
    const hasTasks = this.#serviceCounts.has(serviceId) && service.ports.length > 0;
    if (!hasTasks && !hasIngress(service) && networks.length === 0) return undefined;
    const { ports, name } = service;
    const { mode, affinity } = spec?.endpoint ?? create(EndpointSpecSchema);
    return create(ServiceEndpointSchema, { serviceId, ports, name, networks, mode, affinity });
  }

  /** Those of the node itself it knows best itself. */
  #task(view: NetworkView, taskId: string): TaskEndpoint | undefined {
    const task = view.tasks.get(taskId);
    if (!task || task.nodeId === this.#nodeId || !isReachable(task)) return undefined;
    const networks = task.networks.filter(({ networkId }) => this.#networkCounts.has(networkId));
    const published = hasIngress(view.services.get(task.serviceId));
    if (networks.length === 0 && !published) return undefined;
    const { id, serviceId, nodeId, slot } = task;
    const specOf = (networkId: string) => view.networks.get(networkId)?.spec;
    const isInternal = (networkId: string) => specOf(networkId)?.internal ?? false;
    const ingress = published ? ingressAddresses(task, isInternal) : [];
    const secret = task.networks.filter(({ networkId }) => specOf(networkId)?.encrypted);
    const isSecret = (address: string) =>
      secret.some(({ addresses }) => addresses.some((each) => withoutLength(each) === address));
    return create(TaskEndpointSchema, {
      ...{ taskId: id, serviceId, nodeId, slot, networks, serving: isServing(view, task) },
      ingressAddresses: [...ingress],
      encryptedAddresses: ingress.filter(isSecret),
    });
  }

  #sayPeer(
    nodeId: string,
    node: Node | undefined,
    changes: { before: AssignmentChange[]; after: AssignmentChange[] },
  ): void {
    const told = this.#peers.get(nodeId);
    const now = node === undefined || nodeId === this.#nodeId ? undefined : peerChange(node);
    if (now !== undefined) {
      if (told === now || (told !== undefined && equals(PeerSchema, told.peer, now.peer))) return;
      this.#peers.set(nodeId, now);
      changes.before.push(now.update);
    } else if (told !== undefined) {
      this.#peers.delete(nodeId);
      const item = { case: "peer", value: told.peer } as const;
      changes.after.push(create(AssignmentChangeSchema, { action: AssignmentChange_Action.REMOVE, item }));
    }
  }
}

/** What the others are told of a node. */
interface PeerChange {
  readonly peer: Peer;
  readonly update: AssignmentChange;
}

const peerChanges = new WeakMap<Node, PeerChange | undefined>();

/** None of a node that was never there. */
function peerChange(node: Node): PeerChange | undefined {
  if (peerChanges.has(node)) return peerChanges.get(node);
  const address = node.status?.address ?? "";
  const { hostname = "", wireguardKey = new Uint8Array() } = node.description ?? {};
  const peer = create(PeerSchema, { nodeId: node.id, hostname, address, wireguardKey });
  const item = { case: "peer", value: peer } as const;
  const update = () => sharedChange({ action: AssignmentChange_Action.UPDATE, item });
  const made = address === "" ? undefined : { peer, update: update() };
  peerChanges.set(node, made);
  return made;
}

/** A node that is not known to be down may well be there: its tasks are not given up. */
function isServing(view: Pick<View, "nodes">, { status, desiredState, nodeId }: Task): boolean {
  const running = status?.state === TaskState.RUNNING && desiredState <= TaskState.RUNNING;
  return running && view.nodes.get(nodeId)?.status?.state !== NodeStatus_State.DOWN;
}

function networkAssignment({ id, name, ipam, spec }: Network): NetworkAssignment {
  const { internal = false, encrypted = false, driverOpts = {} } = spec ?? {};
  return create(NetworkAssignmentSchema, { id, name, ipam, internal, encrypted, driverOpts });
}

/** Counts up or down; returns whether that made the first or took the last. */
function count(counts: Map<string, number>, key: string, step: number): boolean {
  const before = counts.get(key) ?? 0;
  const after = before + step;
  if (after > 0) counts.set(key, after);
  else counts.delete(key);
  return before === 0 || after === 0;
}
