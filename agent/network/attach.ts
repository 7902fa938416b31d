/**
 * What joins one task's network namespace to the host, as operations for the shim: computed here, sent there, no
 * process spawned. Each network of the task is a veth pair of its own; the host's end is no bridge's port but a link
 * that the host routes to, so neither end ever asks for a MAC, and nothing but IP passes.
 *
 *     container's netns                                 host's netns
 *     eth0 10.0.1.7/24  ────────── veth pair ──────── v3f9k2abcde0
 *     10.0.1.0/24, default via 10.0.1.1 (not asked)     10.0.1.7 dev v3f9k2abcde0 (not asked)
 *     and the same once more for its IPv6 address, if it has one
 */
import type { TaskId } from "../../common/base/id.ts";
import { HOST_NETNS_FD, type NetlinkOp, type SetSysctlOp } from "../runtime/op.ts";
import {
  bitsOf,
  familyOf,
  formatIp,
  formatPrefix,
  type Ip,
  type Ipv4,
  type Ipv4Prefix,
  type Ipv6,
  type Ipv6Prefix,
  macOf,
  networkOf,
  type Prefix,
  parseIpv4,
} from "./address.ts";
import { addRule, replaceNeighbor, replaceRoute, TABLE } from "./routing-messages.ts";
import { addAddress, createVeth, LOOPBACK_INDEX, type NetnsReference, setLink } from "./rtnetlink.ts";

/** One network that a task is on. */
export interface InterfaceSpec {
  /** The task's address with its subnet's length. */
  readonly address: Ipv4Prefix;
  /** Where packets to the subnet and beyond go: the host answers for it whoever bears it elsewhere. */
  readonly gateway: Ipv4;
  /** The same of its other family, where the network has both. */
  readonly ipv6?: { readonly address: Ipv6Prefix; readonly gateway: Ipv6 } | undefined;
  /** Whether nothing but this network can be reached by it: then it is no way out. */
  readonly internal: boolean;
  /** Whether its traffic is encrypted between hosts: then less fits into a packet. Default false. */
  readonly encrypted?: boolean;
  /** The network's own greatest packet, in bytes, where it has one. Never more than what fits between hosts. */
  readonly mtu?: number | undefined;
}

/**
 * How a task is on the network. `routed` has one interface for each network, at least one; `host` shares the host's
 * namespace; `none` has loopback only.
 */
export type Attachment =
  | { readonly kind: "routed"; readonly interfaces: readonly InterfaceSpec[] }
  | { readonly kind: "host" | "none" };

/** What `routedOps` needs to know of the host's side. */
export interface AttachPoint {
  /** The indexes that the host's ends get, one for each interface: free ones, so that a route may name them unread. */
  readonly hostIndexes: readonly number[];
  /** `vethGroup` of the fabric's name. */
  readonly group: number;
  readonly mtu: number;
  /** The same on encrypted networks. */
  readonly encryptedMtu: number;
  /** Where the host's own packets to a task come from. */
  readonly hostAddress: Ipv4;
  /** A process in the host's namespace. Default: the descriptor that the shim holds open for a container it makes. */
  readonly hostPid?: number | undefined;
  /** Whether the kernel has IPv6 (`/proc/sys/net/ipv6` exists); then the links have no address that was not given to them. */
  readonly ipv6: boolean;
}

/** An operation of an attachment. */
export type AttachOp = NetlinkOp | SetSysctlOp;

/** "sw" in the upper half of the groups of our veths: names alone do not tell, podman's `veth01234567` has the same form. */
const VETH_GROUP = 0x7377;

/**
 * The link group of a fabric's veths on the host. It differs by fabric (FNV-1a of its name), so that agents which share
 * a network namespace do not take each other's links for left-overs.
 */
export function vethGroup(fabric: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(fabric)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return VETH_GROUP * 0x10000 + ((hash >>> 16) ^ (hash & 0xffff));
}

/**
 * eth0's index in its namespace: given, so that address and route can name it unread. Above those that the kernel's
 * fallback tunnels (tunl0, sit0, …) take in every new namespace.
 */
const ETH0_INDEX = 1000;

/** Of the routing rules in a container: between the kernel's own, 0 for what is local and 32,766 for all else. */
const OWN_WAY_PRIORITY = 5356;

/** More networks than this a task cannot be on: one character of a link's name tells them apart. */
export const INTERFACES_MAX = 36;

/** The MAC of every host's end: a container talks to no other. */
const HOST_MAC = Uint8Array.of(0x02, 0x42, 0xff, 0xff, 0xff, 0xfe);

/** Docker's address of the resolver. Each container routes it to the host, which translates it to the agent's own. */
export const RESOLVER_ADDRESS: Ipv4 = parseIpv4("127.0.0.11") ?? 0;

/**
 * The host's end of a task's veth: `v`, 10 of the 25 characters of its id (51 bits) and which of its interfaces it is;
 * the kernel's limit is 15.
 */
export function vethName(taskId: TaskId, which = 0): string {
  return `v${taskId.slice(0, 10)}${which.toString(INTERFACES_MAX)}`;
}

/** The container's end of it. */
export function linkName(which: number): string {
  return `eth${which}`;
}

/** Whether a name has the form of `vethName`. */
export function isVethName(name: string): boolean {
  return /^v[a-z0-9]{11}$/.test(name);
}

/**
 * The operations that join a new network namespace to the host, in order, for the container's list of the plan. The
 * first needs the namespace to be new: a link of the task's name that still exists makes it fail with EEXIST.
 */
export function routedOps(
  taskId: TaskId,
  interfaces: readonly InterfaceSpec[],
  point: AttachPoint,
): readonly AttachOp[] {
  const wayOut = Math.max(
    0,
    interfaces.findIndex(({ internal }) => !internal),
  );
  return [
    ...loopbackOps(),
    ...(point.ipv6 ? ipv6Ops(interfaces.some(({ ipv6 }) => ipv6 !== undefined)) : []),
    ...interfaces.flatMap((spec, which) => interfaceOps(taskId, spec, point, which)),
    ...wayOutOps(interfaces[wayOut], ETH0_INDEX + wayOut),
    ...(interfaces.length < 2 ? [] : interfaces.flatMap((spec, which) => ownWayOps(spec, ETH0_INDEX + which))),
  ];
}

/**
 * What is asked at one address is answered by that one's link, even to somebody whom another network of the task's would
 * lead to: the host takes no other source from there. Each link has a routing table of its own, numbered as it is.
 */
function ownWayOps(spec: InterfaceSpec, index: number): readonly AttachOp[] {
  if (spec.internal) return [];
  return placesOf(spec).flatMap((place) => {
    const from = place.address.address;
    const rule = addRule(familyOf(from), { priority: OWN_WAY_PRIORITY, from, table: index });
    return [
      defaultRoute(place, index, index),
      netlinkOp("container", `answer from ${formatIp(from)} by its own link`, rule),
    ];
  });
}

/** The operation of a namespace that has loopback only. */
export function loopbackOps(): readonly AttachOp[] {
  return [netlinkOp("container", "bring lo up", setLink({ index: LOOPBACK_INDEX }, { up: true }))];
}

function interfaceOps(taskId: TaskId, spec: InterfaceSpec, point: AttachPoint, which: number): readonly AttachOp[] {
  const { address } = spec;
  const name = linkName(which);
  const index = ETH0_INDEX + which;
  const veth = vethName(taskId, which);
  const hostIndex = point.hostIndexes[which] ?? 0;
  const pair = createVeth({
    ...{ index, name, mac: macOf(address.address), mtu: mtuOf(spec, point) },
    peer: { index: hostIndex, name: veth, mac: HOST_MAC, group: point.group, netns: hostNetns(point) },
  });
  return [
    netlinkOp("container", `create veth ${name}, ${veth}`, pair),
    ...(point.ipv6
      ? [netlinkOp("host", `keep ${veth} free of IPv6`, setLink({ index: hostIndex }, { ipv6: false }))]
      : []),
    // Strict: a packet whose source is not this task's is dropped by the kernel itself.
    netlinkOp("host", `bring ${veth} up`, setLink({ index: hostIndex }, { up: true, reversePathFilter: 1 })),
    ...placesOf(spec).flatMap((place) => placeOps({ ...place, index, name, hostIndex, veth }, spec, point)),
  ];
}

/** What fits into one packet of a task on a network. */
export function mtuOf(
  { encrypted, mtu = Number.POSITIVE_INFINITY }: Pick<InterfaceSpec, "encrypted" | "mtu">,
  point: Pick<AttachPoint, "mtu" | "encryptedMtu">,
): number {
  return Math.min(mtu, encrypted ? point.encryptedMtu : point.mtu);
}

/** A task's address on a network, and where its packets go. */
export interface Place {
  readonly address: Prefix;
  readonly gateway: Ip;
}

/** The task's own on that network. */
export function addressesOf(spec: InterfaceSpec): readonly Ip[] {
  return placesOf(spec).map(({ address: { address } }) => address);
}

/** Of each family, with what leads to it. */
export function placesOf({ address, gateway, ipv6 }: InterfaceSpec): readonly Place[] {
  return [{ address, gateway }, ...(ipv6 === undefined ? [] : [ipv6])];
}

/** What leads to an address from the host, and from it to its network: neither side ever asks for a MAC. */
function placeOps(
  place: Place & { readonly index: number; readonly name: string; readonly hostIndex: number; readonly veth: string },
  spec: InterfaceSpec,
  point: AttachPoint,
): readonly AttachOp[] {
  const { address: prefix, gateway, index, name, hostIndex, veth } = place;
  const { address } = prefix;
  const host = { address, length: bitsOf(address) };
  const from = familyOf(address) === 4 ? { source: point.hostAddress } : {};
  return [
    netlinkOp(
      "host",
      `route ${formatPrefix(host)} to ${veth}`,
      replaceRoute({ destination: host, index: hostIndex, ...from }),
    ),
    netlinkOp(
      "host",
      `tell ${veth} its neighbour`,
      replaceNeighbor({ index: hostIndex, address, mac: macOf(spec.address.address) }),
    ),
    netlinkOp("container", `add address ${formatPrefix(prefix)} to ${name}`, addAddress(index, prefix)),
    netlinkOp("container", `tell ${name} its gateway`, replaceNeighbor({ index, address: gateway, mac: HOST_MAC })),
    netlinkOp(
      "container",
      `route ${formatPrefix(networkOf(prefix))} via ${formatIp(gateway)}`,
      replaceRoute({ destination: networkOf(prefix), index, via: gateway, source: address }),
    ),
  ];
}

function hostNetns({ hostPid }: AttachPoint): NetnsReference {
  return hostPid === undefined ? { fd: HOST_NETNS_FD } : { pid: hostPid };
}

/** The default routes, and the resolver's: 127.0.0.11 leaves the container, and its answers may come in. */
function wayOutOps(spec: InterfaceSpec | undefined, index: number): readonly AttachOp[] {
  if (spec === undefined) return [];
  const { gateway, address } = spec;
  const over = { index, via: gateway, source: address.address };
  const resolver = { address: RESOLVER_ADDRESS, length: 32 };
  return [
    netlinkOp("container", "let the resolver answer", setLink({ index }, { routeLocalnet: true })),
    netlinkOp(
      "container",
      `route ${formatPrefix(resolver)} via ${formatIp(gateway)}`,
      // Where the kernel looks first; there 127.0.0.0/8 is the container's own.
      replaceRoute({ ...over, destination: resolver, table: TABLE.LOCAL }),
    ),
    ...(spec.internal ? [] : placesOf(spec).map((place) => defaultRoute(place, index))),
  ];
}

function defaultRoute({ address: { address }, gateway }: Place, index: number, table: number = TABLE.MAIN): AttachOp {
  const destination = { address: familyOf(address) === 4 ? 0 : 0n, length: 0 };
  const route = replaceRoute({ destination, index, via: gateway, source: address, table });
  return netlinkOp("container", `add default route via ${formatIp(gateway)}`, route);
}

/** Before eth0 exists, so that it never makes itself an address nor hears a router advertisement (CVE-2020-13401). */
function ipv6Ops(wanted: boolean): readonly SetSysctlOp[] {
  const set = (name: string, value: string): SetSysctlOp => ({
    op: "set-sysctl",
    name: `net.ipv6.conf.default.${name}`,
    value,
  });
  if (!wanted) return [set("disable_ipv6", "1")];
  return [set("accept_ra", "0"), set("addr_gen_mode", "1"), set("disable_ipv6", "0")];
}

function netlinkOp(side: NetlinkOp["side"], label: string, message: Uint8Array): NetlinkOp {
  return { op: "netlink", side, message, label };
}
