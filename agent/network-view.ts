/** From what the managers told to what the node's network is to be: addresses and ports, no more. Pure. */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { hostAddress } from "../common/model/ports.ts";
import { withoutLength } from "../common/model/task-addresses.ts";
import type { ServiceEndpoint, TaskEndpoint } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import {
  EndpointSpec_Affinity,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  TaskState,
} from "../proto/gen/swarm/v1/types_pb.js";
import { addressesOf } from "./cluster-network.ts";
import type { NodeNetwork, OwnTask, PublishedEndpoint } from "./executor.ts";
import { compareIps, familyOf, type Ip, type Ipv4, parseIp, parseIpPrefix, parseIpv4 } from "./network/address.ts";
import type { ClusterNetwork } from "./network/cluster.ts";
import type { RemoteAddress } from "./network/forwarding.ts";
import type { Affinity, HostNetwork, Protocol, PublishedPort, VirtualAddress } from "./network/ruleset.ts";
import { KEY_BYTES } from "./network/wireguard-messages.ts";

const PROTOCOLS: Readonly<Record<PortConfig_Protocol, Protocol>> = {
  [PortConfig_Protocol.TCP]: "tcp",
  [PortConfig_Protocol.UDP]: "udp",
  [PortConfig_Protocol.SCTP]: "sctp",
};

/** How long other nodes may take to hear that a task has ended. */
const LEAVING_MS = 60_000;

/** What the host's network manager is to make. */
export function clusterNetwork(network: NodeNetwork, nowMs: number): ClusterNetwork {
  const hosts = new Map<string, Ipv4>();
  for (const { nodeId, address } of network.peers) {
    const parsed = parseIpv4(address);
    if (parsed !== undefined) hosts.set(nodeId, parsed);
  }
  const serving = servingTasks(network);
  return {
    networks: network.networks.flatMap(({ ipam, internal, encrypted }): HostNetwork[] =>
      ipam.map(({ subnet }) => ({ subnet: parseIpPrefix(subnet), internal, encrypted })),
    ),
    hosts: [...new Set(hosts.values())].sort((left, right) => left - right),
    keys: keysOf(network, hosts),
    remote: remoteAddresses(network, hosts),
    virtual: network.services.flatMap((service) => virtualAddresses(service, serving.get(service.serviceId) ?? [])),
    leaving: leavingAddresses(network.own, serving, nowMs),
    published: network.endpoints.map(publishedPort),
    served: servedTargets(network),
  };
}

/** The WireGuard keys of the other nodes. Two that say they have one key would speak for each other: the first has it. */
function keysOf({ peers }: NodeNetwork, hosts: ReadonlyMap<string, Ipv4>): ReadonlyMap<Ipv4, Uint8Array> {
  const keys = new Map<string, readonly [Ipv4, Uint8Array]>();
  for (const { nodeId, wireguardKey } of peers) {
    const [host, name] = [hosts.get(nodeId), Buffer.from(wireguardKey).toString("hex")];
    if (host !== undefined && wireguardKey.length === KEY_BYTES && !keys.has(name))
      keys.set(name, [host, wireguardKey]);
  }
  return new Map(keys.values());
}

/** Where each task of another node is; one whose node's address is not known cannot be reached. */
function remoteAddresses({ tasks, networks }: NodeNetwork, hosts: ReadonlyMap<string, Ipv4>): readonly RemoteAddress[] {
  const remote = new Map<Ip, RemoteAddress>();
  const secret = new Set(networks.filter(({ encrypted }) => encrypted).map(({ id }) => id));
  for (const task of tasks) {
    const host = hosts.get(task.nodeId);
    if (host === undefined) continue;
    const places = addressesOf(task).map(([id, text]) => [text, secret.has(id)] as const);
    const ingress = task.ingressAddresses.map((text) => [text, task.encryptedAddresses.includes(text)] as const);
    for (const [text, encrypted] of [...ingress, ...places]) {
      const address = parseIp(text);
      if (address !== undefined) remote.set(address, { address, host, encrypted });
    }
  }
  return [...remote.values()];
}

/** A task that serves, and where. */
type Serving = Pick<TaskEndpoint, "networks" | "ingressAddresses">;

/** Those of all nodes, by service. */
function servingTasks({ own, tasks }: NodeNetwork): ReadonlyMap<string, readonly Serving[]> {
  const byService = new Map<string, Serving[]>();
  const add = (serviceId: string, task: Serving) => {
    const ofService = byService.get(serviceId);
    if (ofService) ofService.push(task);
    else byService.set(serviceId, [task]);
  };
  for (const { task, serving, ingressAddresses } of own) {
    if (serving) add(task.serviceId, { networks: task.networks, ingressAddresses: [...ingressAddresses] });
  }
  for (const task of tasks) if (task.serving) add(task.serviceId, task);
  return byService;
}

function virtualAddresses(
  { networks, affinity }: ServiceEndpoint,
  serving: readonly Serving[],
): readonly VirtualAddress[] {
  return networks.flatMap(({ networkId, addresses }) => {
    const targets = serving.flatMap((task) => addressesOf(task).flatMap(([id, at]) => (id === networkId ? at : [])));
    return addresses.flatMap((text) => {
      const address = parseIp(withoutLength(text));
      if (address === undefined) return [];
      return [{ address, targets: targetsOf(address, targets), affinity: affinityOf(affinity) }];
    });
  });
}

/** Those that stand in for an address: of its family, in the same order on all nodes. */
function targetsOf(address: Ip, addresses: readonly string[]): readonly Ip[] {
  return addresses
    .flatMap((text) => parseIp(text) ?? [])
    .filter((each) => familyOf(each) === familyOf(address))
    .sort(compareIps);
}

/** For each address of a task of this node that has served and does so no more: those of its service's that do. */
function leavingAddresses(
  own: readonly OwnTask[],
  byService: ReadonlyMap<string, readonly Serving[]>,
  nowMs: number,
): readonly VirtualAddress[] {
  return own
    .filter((each) => isLeaving(each, nowMs))
    .flatMap(({ task, ingressAddresses }) => {
      const serving = byService.get(task.serviceId) ?? [];
      const places = new Map(addressesOf(task).map(([networkId, address]) => [address, networkId]));
      return [...new Set([...ingressAddresses, ...places.keys()])].flatMap((text) => {
        const address = parseIp(text);
        if (address === undefined) return [];
        const networkId = places.get(text);
        const others = serving.flatMap((each) =>
          networkId === undefined
            ? each.ingressAddresses
            : addressesOf(each).flatMap(([id, at]) => (id === networkId ? at : [])),
        );
        return [{ address, targets: targetsOf(address, others) }];
      });
    });
}

function isLeaving({ task: { desiredState }, status, serving }: OwnTask, nowMs: number): boolean {
  if (serving || status.state < TaskState.RUNNING) return false;
  if (status.state === TaskState.RUNNING) return desiredState > TaskState.RUNNING;
  return nowMs - (status.timestamp ? timestampMs(status.timestamp) : 0) < LEAVING_MS;
}

/** What other hosts may send here: the targets on this node of ports that every node publishes. */
function servedTargets({ services, own }: NodeNetwork): ClusterNetwork["served"] {
  const byService = new Map<string, Ip[]>();
  for (const { task, ingressAddresses } of own) {
    const addresses = ingressAddresses.flatMap((text) => parseIp(text) ?? []);
    byService.set(task.serviceId, [...(byService.get(task.serviceId) ?? []), ...addresses]);
  }
  return services.flatMap(({ serviceId, ports }) =>
    ports
      .filter(({ publishMode }) => publishMode === PortConfig_PublishMode.INGRESS)
      .flatMap(({ targetPort: port, protocol }) =>
        (byService.get(serviceId) ?? []).map((address) => ({ address, port, protocol: PROTOCOLS[protocol] })),
      ),
  );
}

/** A port in ingress mode leads to tasks of all nodes, one in host mode to those of this one. */
function publishedPort({ port, targets, affinity }: PublishedEndpoint): PublishedPort {
  const hostIp = parseIp(hostAddress(port));
  const everywhere = port.publishMode === PortConfig_PublishMode.INGRESS;
  return {
    protocol: PROTOCOLS[port.protocol],
    port: port.publishedPort,
    affinity: affinityOf(affinity),
    ...(hostIp !== undefined && { hostIp }),
    targets: targets
      .filter(({ own }) => everywhere || own)
      .flatMap(({ address }) => {
        const parsed = parseIp(address);
        return parsed === undefined ? [] : [{ address: parsed, port: port.targetPort }];
      }),
  };
}

function affinityOf(affinity: EndpointSpec_Affinity): Affinity {
  return affinity === EndpointSpec_Affinity.CLIENT_IP ? "client-ip" : "none";
}
