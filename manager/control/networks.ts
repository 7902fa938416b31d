/** Networks: made with their subnets, listed with who is attached, removed when nobody is. */
import { create } from "@bufbuild/protobuf";
import { invalidFields, SwarmError } from "../../common/base/error.ts";
import { type Branded, newId } from "../../common/base/id.ts";
import { ADDRESS_POOL_DEFAULT } from "../../common/model/defaults.ts";
import {
  gatewayOf,
  INGRESS_NETWORK,
  isPredefinedNetwork,
  NODE_NETWORKS,
  normaliseNetwork,
} from "../../common/model/networks.ts";
import { networkProblems } from "../../common/model/validate-network.ts";
import {
  type CreateNetworkRequest,
  type ListNetworksRequest,
  type NetworkView,
  NetworkViewSchema,
  type RemoveNetworkRequest,
} from "../../proto/gen/swarm/v1/control_pb.js";
import { type Network, NetworkSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NetworkSpecSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Proposal } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { overlappingRoutes, SubnetPlanner } from "../subnets.ts";
import { whyUnreachable } from "../why-unreachable.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { networkLookup } from "./lookups.ts";
import { networkUsers } from "./network-users.ts";
import { attachedServices } from "./network-view.ts";
import { requireId, resolveReference } from "./references.ts";

/** How often a write is tried again when another network was made meanwhile. */
const ATTEMPTS_MAX = 10;

/** How long a removal waits for tasks that are being stopped: a little longer than they get by default. */
const LEAVING_MS_MAX = 15_000;
const LEAVING_LOOK_MS = 100;

/** Makes a network. Whoever makes another one at the same moment meets this one: subnets never overlap. */
export async function createNetwork(
  { store, random }: ControlDependencies,
  request: CreateNetworkRequest,
  signal: AbortSignal,
): Promise<NetworkView> {
  const spec = normaliseNetwork(create(NetworkSpecSchema, request.spec ?? {}));
  const problems = networkProblems(spec);
  if (problems.length > 0) throw invalidFields(problems);
  const { name } = spec;
  const id = newId<Branded<"network">>(random);
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    if (store.view.byName("network", name)) {
      throw new SwarmError("already_exists", `network with name ${name} already exists`);
    }
    const planner = new SubnetPlanner(store.view, random);
    const allocation = planner.add(spec);
    if (!allocation.ok) throw invalidFields(allocation.problems);
    const object = create(NetworkSchema, { id, name, spec, ipam: [...allocation.ipam] });
    const group: readonly Proposal[] = [{ type: "create", kind: "network", object }, planner.guard()];
    const { conflicts } = await store.commit([group], { signal });
    if (conflicts.length === 0) return viewOf(store.view.networks.get(id) ?? object, []);
  }
  throw new SwarmError("aborted", `create network ${name}: the store keeps changing, try again`);
}

/** Networks by reference, or all, sorted by name. */
export function listNetworks(
  { store: { view } }: ControlDependencies,
  { references, verbose }: ListNetworksRequest,
): NetworkView[] {
  const users = networkUsers(view);
  const predefined = predefinedNetworks(view);
  const found =
    references.length === 0
      ? [...predefined, ...view.networks.values()]
      : references.map(
          (text) => predefined.find(({ name }) => name === text) ?? resolveReference(networkLookup(view), text),
        );
  return [...new Set(found)]
    .sort((left, right) => (left.name < right.name ? -1 : 1))
    .map((network) => {
      const shown = viewOf(network, users.get(network.name) ?? []);
      if (!verbose || isPredefinedNetwork(network.name)) return shown;
      return { ...shown, services: attachedServices(view, network), overlaps: overlappingRoutes(view, network) };
    });
}

/**
 * Removes a network that no service is attached to, once the tasks on their way out of it are gone. Those of a node that
 * is away may never say so: their addresses are theirs to the end, and the network goes without them.
 */
export async function removeNetwork(
  { store, clock }: ControlDependencies,
  { networkId }: RemoveNetworkRequest,
  signal: AbortSignal,
): Promise<void> {
  if (isPredefinedNetwork(networkId)) {
    throw new SwarmError("failed_precondition", `network ${networkId} is always there and cannot be removed`);
  }
  const { id, name } = requireId(store.view.networks, "network", networkId);
  const users = networkUsers(store.view).get(name) ?? [];
  if (users.length > 0) {
    const services = users.length === 1 ? `service ${users[0]}` : `services ${users.join(", ")}`;
    throw new SwarmError("failed_precondition", `network ${name} is in use by ${services}`);
  }
  const deadlineMs = clock.monotonicMs() + LEAVING_MS_MAX;
  for (let left = leavingTask(store.view, id); left !== undefined; left = leavingTask(store.view, id)) {
    if (clock.monotonicMs() >= deadlineMs) {
      throw new SwarmError("failed_precondition", `network ${name} is in use by task ${left}, which is being stopped`);
    }
    await clock.sleep(LEAVING_LOOK_MS, signal);
  }
  const { conflicts } = await store.commit([{ type: "delete", kind: "network", id }], { signal });
  if (conflicts.length > 0 && store.view.networks.has(id)) {
    throw new SwarmError("aborted", `remove network ${name}: the store changed, try again`);
  }
}

/** The id of a task that is still on a network, of a node that can tell of its end. */
function leavingTask(view: View, networkId: string): string | undefined {
  for (const taskId of view.tasksOnNetwork(networkId)) {
    if (whyUnreachable(view, view.tasks.get(taskId)?.nodeId ?? "") === undefined) return taskId;
  }
  return undefined;
}

function viewOf(network: Network, serviceNames: readonly string[]): NetworkView {
  return create(NetworkViewSchema, { network, serviceNames: [...serviceNames] });
}

/** What is there without anybody making it. Published ports come in by addresses of the cluster's pool. */
function predefinedNetworks({ cluster }: Pick<View, "cluster">): Network[] {
  const subnet = cluster?.spec?.addressPool || ADDRESS_POOL_DEFAULT;
  return [...NODE_NETWORKS, INGRESS_NETWORK].map((name) => {
    const hasPool = name === "bridge" || name === INGRESS_NETWORK;
    return create(NetworkSchema, { id: name, name, ipam: hasPool ? [{ subnet, gateway: gatewayOf(subnet) }] : [] });
  });
}
