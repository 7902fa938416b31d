/** Which networks there are beside those that people make, and what a task's spec says of its own. Pure. */
import { create } from "@bufbuild/protobuf";
import {
  EndpointSpec_Mode,
  type IpamConfig,
  IpamConfigSchema,
  type NetworkSpec,
  NetworkSpecSchema,
  type ServiceSpec,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { addressAt, formatIpAddress, formatIpPrefix, networkOf, parseIpAddress, parseIpPrefix } from "./ip-prefix.ts";
import { isJob } from "./service-mode.ts";

/** Networks that every node has: its own, none at all, and the one that tasks have where nothing else is said. */
export const NODE_NETWORKS = ["host", "none", "bridge"] as const;
/** Where published ports come in. It is always there: nobody is attached to it, nobody removes it. */
export const INGRESS_NETWORK = "ingress";
/** Docker's name of the option that sets a network's greatest packet, in bytes. */
export const MTU_OPTION = "com.docker.network.driver.mtu";
/** Docker's name of the option that encrypts a network; here it is a field of the spec. */
const ENCRYPTED_OPTION = "encrypted";

/** Whether a name means a network that is there without anybody making it. */
export function isPredefinedNetwork(name: string): boolean {
  return name === INGRESS_NETWORK || isNodeNetwork(name);
}

/** Whether a name means one of those that every node has. */
export function isNodeNetwork(name: string): boolean {
  return NODE_NETWORKS.some((each) => each === name);
}

/** The names of the networks that a service's tasks are attached to, without those of nodes, in the spec's order. */
export function overlayNetworks(spec: ServiceSpec | undefined): readonly string[] {
  return (spec?.task?.networks ?? []).map(({ target }) => target).filter((target) => !isNodeNetwork(target));
}

/** Whether tasks are on their host's network or on none: they have no address. */
export function isWithoutNetwork(spec: ServiceSpec | undefined): boolean {
  return (spec?.task?.networks ?? []).some(({ target }) => target === "host" || target === "none");
}

/** Whether a service has virtual addresses. A job's tasks come and go: nothing balances over them. */
export function hasVirtualAddresses(spec: ServiceSpec | undefined): boolean {
  return !isJob(spec) && (spec?.endpoint?.mode ?? EndpointSpec_Mode.VIP) === EndpointSpec_Mode.VIP;
}

/** The spec in the one form in which it is stored and compared; what cannot be read stays as it is. */
export function normaliseNetwork(spec: NetworkSpec): NetworkSpec {
  const { [ENCRYPTED_OPTION]: encrypted, ...driverOpts } = spec.driverOpts;
  const isEncrypted = encrypted !== undefined && encrypted !== "false" && encrypted !== "0";
  return create(NetworkSpecSchema, {
    ...spec,
    driver: spec.driver === "overlay" ? "" : spec.driver,
    encrypted: spec.encrypted || isEncrypted,
    driverOpts,
    ipam: spec.ipam.map(normaliseIpam),
  });
}

function normaliseIpam({ subnet, gateway, ipRange, auxAddresses }: IpamConfig): IpamConfig {
  const prefix = (text: string) => {
    const parsed = parseIpPrefix(text);
    return parsed ? formatIpPrefix(networkOf(parsed)) : text;
  };
  return create(IpamConfigSchema, {
    subnet: prefix(subnet),
    gateway: canonicalAddress(gateway),
    ipRange: prefix(ipRange),
    auxAddresses: Object.fromEntries(
      Object.entries(auxAddresses).map(([name, address]) => [name, canonicalAddress(address)]),
    ),
  });
}

/** The gateway that a subnet has where nobody chose one: its first address. */
export function gatewayOf(subnet: string): string {
  const prefix = parseIpPrefix(subnet);
  return prefix ? formatIpAddress(addressAt(prefix, 1n)) : "";
}

/** The one text of an address; what is none stays as it is. */
export function canonicalAddress(text: string): string {
  const parsed = parseIpAddress(text);
  return parsed ? formatIpAddress(parsed) : text;
}
