/** The services and tasks on a network, with their addresses. Pure. */
import { create } from "@bufbuild/protobuf";
import { slotName } from "../../common/model/names.ts";
import {
  type NetworkServiceView,
  NetworkServiceViewSchema,
  type NetworkTaskView,
  NetworkTaskViewSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import type { Network, NetworkAddresses, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { View } from "../store/view.ts";

/** In order of name; tasks of services that were removed stand under an empty name until they have ended. */
export function attachedServices(view: View, network: Network): NetworkServiceView[] {
  const services = new Map<string, NetworkServiceView>();
  for (const service of view.services.values()) {
    const spec = view.specVersion(service.id, service.specVersion)?.spec;
    const attachment = spec?.task?.networks.find(({ target }) => target === network.name);
    if (!attachment) continue;
    const { id, name, ports } = service;
    const addresses = addressesOn(network, service.vips);
    services.set(id, create(NetworkServiceViewSchema, { id, name, addresses, ports, aliases: attachment.aliases }));
  }
  for (const taskId of view.tasksOnNetwork(network.id)) {
    const task = view.tasks.get(taskId);
    if (!task) continue;
    const addresses = addressesOn(network, task.networks);
    const { serviceId } = task;
    const name = view.services.get(serviceId)?.name ?? "";
    const service = services.get(serviceId) ?? create(NetworkServiceViewSchema, { id: serviceId, name });
    services.set(serviceId, service);
    service.tasks.push(taskView(view, task, { name, addresses }));
  }
  for (const { tasks } of services.values()) tasks.sort((left, right) => compare(left.name, right.name));
  return [...services.values()].sort((left, right) => compare(left.name, right.name));
}

function taskView(
  view: Pick<View, "nodes">,
  task: Task,
  { name, addresses }: { readonly name: string; readonly addresses: string[] },
): NetworkTaskView {
  const node = view.nodes.get(task.nodeId);
  return create(NetworkTaskViewSchema, {
    id: task.id,
    name: slotName(name, task),
    addresses,
    nodeId: task.nodeId,
    nodeHostname: node?.description?.hostname ?? "",
    nodeAddress: node?.status?.address ?? "",
  });
}

function addressesOn({ id }: Network, all: readonly NetworkAddresses[]): string[] {
  return all.filter(({ networkId }) => networkId === id).flatMap(({ addresses }) => addresses);
}

function compare(left: string, right: string): number {
  return left < right ? -1 : Number(left > right);
}
