/** Networks in Docker's shape and words. Pure. */
import { protocolName } from "../../common/model/ports.ts";
import { withoutLength } from "../../common/model/task-addresses.ts";
import type { NetworkServiceView, NetworkView } from "../../proto/gen/swarm/v1/control_pb.js";
import { labelsJson, timeJson } from "./json-parts.ts";

/** Those that every node has for itself; Docker's drivers of them. */
const NODE_DRIVERS: Readonly<Record<string, string>> = { bridge: "bridge", host: "host", none: "null" };

/** "overlay", or what Docker has for the networks of nodes. */
export function networkDriver({ network }: NetworkView): string {
  return (network?.spec === undefined ? NODE_DRIVERS[network?.name ?? ""] : undefined) ?? "overlay";
}

/** "swarm", or "local" for those of nodes. */
export function networkScope(view: NetworkView): string {
  return networkDriver(view) === "overlay" ? "swarm" : "local";
}

/** Whether nobody made it. */
export function isBuiltIn({ network }: NetworkView): boolean {
  return network?.spec === undefined;
}

/** `network inspect`: Docker's object. With `verbose` who is attached, too. */
export function networkJson(view: NetworkView, verbose: boolean): Readonly<Record<string, unknown>> {
  const { network, services, serviceNames } = view;
  const { spec, ipam = [] } = network ?? {};
  return {
    Name: network?.name ?? "",
    Id: network?.id ?? "",
    Created: timeJson(network?.meta?.createdAt) ?? "0001-01-01T00:00:00Z",
    Scope: networkScope(view),
    Driver: networkDriver(view),
    EnableIPv4: true,
    EnableIPv6: spec?.ipv6 ?? false,
    IPAM: {
      Driver: "default",
      Options: null,
      Config: ipam.map(({ subnet, gateway, ipRange, auxAddresses }) => ({
        Subnet: subnet,
        ...(ipRange === "" ? {} : { IPRange: ipRange }),
        Gateway: gateway,
        ...(Object.keys(auxAddresses).length === 0 ? {} : { AuxiliaryAddresses: labelsJson(auxAddresses) }),
      })),
    },
    Internal: spec?.internal ?? false,
    Attachable: spec?.attachable ?? false,
    Ingress: network?.name === "ingress",
    ConfigFrom: { Network: "" },
    ConfigOnly: false,
    // What runs is a service's task: there are no containers by themselves.
    Containers: {},
    Options: labelsJson({ ...(spec?.encrypted ? { encrypted: "" } : {}), ...spec?.driverOpts }),
    Labels: labelsJson(spec?.labels),
    ServiceNames: serviceNames,
    ...(verbose ? { Peers: peersOf(services), Services: servicesJson(services), Overlaps: view.overlaps } : {}),
  };
}

/** The nodes that have tasks on it. */
function peersOf(services: readonly NetworkServiceView[]) {
  const peers = new Map(
    services
      .flatMap(({ tasks }) => tasks)
      .flatMap((task) => (task.nodeId === "" ? [] : [[task.nodeId, task] as const])),
  );
  return [...peers.values()].map(({ nodeHostname, nodeAddress }) => ({ Name: nodeHostname, IP: nodeAddress }));
}

function servicesJson(services: readonly NetworkServiceView[]) {
  return Object.fromEntries(
    services.map(({ id, name, addresses, aliases, ports, tasks }) => [
      name || id,
      {
        VIP: withoutLength(addresses[0] ?? ""),
        VirtualIPs: addresses.map(withoutLength),
        Aliases: aliases,
        Ports: ports.map((port) => `${port.publishedPort}:${port.targetPort}/${protocolName(port.protocol)}`),
        Tasks: tasks.map((task) => ({
          Name: `${task.name}.${task.id}`,
          EndpointID: task.id,
          EndpointIP: withoutLength(task.addresses[0] ?? ""),
          Addresses: task.addresses.map(withoutLength),
          Info: { "Host IP": task.nodeAddress, Node: task.nodeHostname },
        })),
      },
    ]),
  );
}
