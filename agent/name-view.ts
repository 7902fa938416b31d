/** From what the managers told to what names mean on this node. Pure. */
import { withoutLength } from "../common/model/task-addresses.ts";
import type { NetworkAddresses } from "../proto/gen/swarm/v1/objects_pb.js";
import { canonical } from "./dns/addresses.ts";
import type { Client, NameData, NamedTask } from "./dns/names.ts";
import type { NodeNetwork, OwnTask } from "./executor.ts";

/** What the node's resolver is to know. */
export function nameData({ networks, services, tasks, own }: NodeNetwork): NameData {
  const internal = new Set(networks.filter((each) => each.internal).map(({ id }) => id));
  return {
    networks: networks.map(({ id, name }) => ({ networkId: id, name })),
    services: services.map(({ serviceId, name, networks: on }) => ({
      ...{ serviceId, name },
      networks: on.map(({ networkId, addresses, aliases }) => ({ networkId, addresses: bare(addresses), aliases })),
    })),
    tasks: [
      ...own.map(({ task: { id, serviceId, nodeId, slot, networks: on }, serving }) =>
        namedTask({ taskId: id, serviceId, nodeId, slot, networks: on, serving }),
      ),
      ...tasks.map(namedTask),
    ],
    clients: own.flatMap((each) => clientOf(each, internal)),
  };
}

function namedTask({
  taskId,
  serviceId,
  nodeId,
  slot,
  networks,
  serving,
}: {
  readonly taskId: string;
  readonly serviceId: string;
  readonly nodeId: string;
  readonly slot: number;
  readonly networks: readonly NetworkAddresses[];
  readonly serving: boolean;
}): NamedTask {
  const on = networks.map(({ networkId, addresses }) => ({ networkId, addresses: bare(addresses) }));
  return { taskId, serviceId, slot: slot > 0 ? String(slot) : nodeId, networks: on, serving };
}

/** A task on internal networks only has no way out, and its questions have none either. */
function clientOf({ task, nameservers }: OwnTask, internal: ReadonlySet<string>): readonly Client[] {
  if (task.networks.length === 0) return [];
  const networkIds = task.networks.map(({ networkId }) => networkId);
  const addresses = bare([...task.networks.flatMap((each) => each.addresses), task.address]);
  const forwards = networkIds.some((networkId) => !internal.has(networkId));
  return [{ addresses, networkIds, forwards, servers: nameservers }];
}

function bare(addresses: readonly string[]): readonly string[] {
  return addresses.filter((address) => address !== "").map((address) => canonical(withoutLength(address)));
}
