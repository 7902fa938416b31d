/** Checks of a network's definition, in the form that `normaliseNetwork` gives it. */
import type { IpamConfig, NetworkSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import type { FieldProblem } from "../base/error.ts";
import {
  contains,
  formatIpPrefix,
  type IpAddress,
  type IpPrefix,
  networkOf,
  parseIpAddress,
  parseIpPrefix,
  sizeOf,
} from "./ip-prefix.ts";
import { INGRESS_NETWORK, isPredefinedNetwork, MTU_OPTION } from "./networks.ts";
import { quoted } from "./units.ts";
import { Problems } from "./validate-parts.ts";

/** Docker's grammar. */
const NETWORK_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/;
/** Prefix lengths of subnets. A /29 has five addresses for tasks; a /8 is more than a cluster has. */
const SUBNET_LENGTH = { 4: { min: 8, max: 29 }, 6: { min: 48, max: 120 } } as const;
const AUX_ADDRESSES_MAX = 256;
/** What every host must take, in bytes: RFC 791 for IPv4, RFC 8200 for IPv6; the most an IP packet can have. */
const MTU = { min: 576, minWithIpv6: 1280, max: 65_535 };

export function isNetworkName(name: string): boolean {
  return NETWORK_NAME.test(name);
}

/** Every bad field of a network. */
export function networkProblems(spec: NetworkSpec): readonly FieldProblem[] {
  const problems = new Problems();
  if (!isNetworkName(spec.name)) {
    problems.add("name", `invalid network name ${quoted(spec.name)}: letters, digits and _.-, at most 255`);
  } else if (spec.name === INGRESS_NETWORK) {
    problems.add("name", `${quoted(spec.name)}: the routing mesh's network is always there`);
  } else if (isPredefinedNetwork(spec.name)) {
    problems.add("name", `${quoted(spec.name)} is a network of the nodes`);
  }
  if (spec.driver !== "" && spec.driver !== "overlay") {
    problems.add("driver", `${quoted(spec.driver)}: network drivers are not supported, only overlay is`);
  }
  problems.labels("labels", spec.labels);
  checkOptions(spec, problems);
  checkIpam(spec, problems);
  return problems.list;
}

function checkOptions({ driverOpts, ipv6 }: NetworkSpec, problems: Problems): void {
  for (const [name, value] of Object.entries(driverOpts)) {
    const field = `driver_opts.${quoted(name)}`;
    if (name !== MTU_OPTION) {
      problems.add(field, `unknown option: there are encrypted and ${MTU_OPTION}`);
      continue;
    }
    const mtu = /^[1-9][0-9]{0,9}$/.test(value) ? Number(value) : undefined;
    const min = ipv6 ? MTU.minWithIpv6 : MTU.min;
    if (mtu === undefined) problems.add(field, `${quoted(value)} is not a number of bytes`);
    else if (mtu < min)
      problems.add(field, `${mtu} is below ${min}, which every ${ipv6 ? "IPv6" : "IPv4"} host must take`);
    else if (mtu > MTU.max) problems.add(field, `${mtu} is above ${MTU.max}`);
  }
}

function checkIpam({ ipam, ipv6 }: NetworkSpec, problems: Problems): void {
  const families = new Set<number>();
  ipam.forEach((config, index) => {
    const field = `ipam[${index}]`;
    const subnet = parseIpPrefix(config.subnet);
    if (config.subnet !== "" && subnet === undefined) {
      problems.add(`${field}.subnet`, `${quoted(config.subnet)} is not a subnet such as 10.0.9.0/24`);
      return;
    }
    const family = subnet?.family ?? parseIpAddress(config.gateway)?.family ?? 4;
    if (families.has(family)) problems.add(`${field}.subnet`, `a second IPv${family} subnet: a network has one`);
    families.add(family);
    if (family === 6 && !ipv6) problems.add(`${field}.subnet`, "an IPv6 subnet needs ipv6 (--ipv6, enable_ipv6)");
    if (subnet === undefined) checkWithoutSubnet(config, field, problems);
    else checkSubnet(config, subnet, field, problems);
  });
}

function checkWithoutSubnet({ gateway, ipRange, auxAddresses }: IpamConfig, field: string, problems: Problems): void {
  if (gateway !== "") problems.add(`${field}.gateway`, "needs the subnet that it is of");
  if (ipRange !== "") problems.add(`${field}.ip_range`, "needs the subnet that it is of");
  if (Object.keys(auxAddresses).length > 0) problems.add(`${field}.aux_addresses`, "need the subnet that they are of");
}

function checkSubnet(config: IpamConfig, subnet: IpPrefix, field: string, problems: Problems): void {
  const { min, max } = SUBNET_LENGTH[subnet.family];
  if (subnet.length < min || subnet.length > max) {
    problems.add(`${field}.subnet`, `${quoted(config.subnet)}: must be from /${min} to /${max}`);
  }
  const reserved = reservedProblem(subnet);
  if (reserved !== undefined) problems.add(`${field}.subnet`, `${quoted(config.subnet)} ${reserved}`);
  if (config.gateway !== "") problems.text(`${field}.gateway`, hostProblem(config.gateway, subnet));
  if (config.ipRange !== "") {
    const range = parseIpPrefix(config.ipRange);
    const inside = range && range.length >= subnet.length && contains(subnet, range);
    if (!inside) problems.add(`${field}.ip_range`, `${quoted(config.ipRange)} is not a part of ${config.subnet}`);
  }
  const entries = Object.entries(config.auxAddresses);
  if (entries.length > AUX_ADDRESSES_MAX) problems.add(`${field}.aux_addresses`, `at most ${AUX_ADDRESSES_MAX}`);
  for (const [name, address] of entries.slice(0, AUX_ADDRESSES_MAX)) {
    problems.text(`${field}.aux_addresses.${quoted(name)}`, hostProblem(address, subnet));
  }
}

/** Ranges of the Internet's own uses, where no network can be: RFC 6890. */
const UNUSABLE = [
  "0.0.0.0/8",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "224.0.0.0/3",
  "::/128",
  "::1/128",
  "fe80::/10",
  "ff00::/8",
];

function reservedProblem(subnet: IpPrefix): string | undefined {
  for (const text of UNUSABLE) {
    const prefix = parseIpPrefix(text);
    if (prefix && (contains(prefix, subnet) || contains(subnet, prefix))) return `is not for networks (${text})`;
  }
  return undefined;
}

/** Why an address is not one of a host in `subnet`; undefined: it is. */
export function hostProblem(text: string, subnet: IpPrefix): string | undefined {
  const address = parseIpAddress(text);
  if (address === undefined) return `${quoted(text)} is not an IP address`;
  if (!contains(subnet, address)) return `${text} is not in ${formatIpPrefix(networkOf(subnet))}`;
  return isHost(address, subnet)
    ? undefined
    : `${text} is the first or last address of ${formatIpPrefix(networkOf(subnet))}`;
}

/** The first address is the subnet itself; the last of an IPv4 one is for broadcasts. */
function isHost(address: IpAddress, subnet: IpPrefix): boolean {
  const offset = address.value - networkOf(subnet).value;
  return offset > 0n && (subnet.family === 6 || offset < sizeOf(subnet) - 1n);
}
