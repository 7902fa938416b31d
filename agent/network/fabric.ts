/**
 * The fabric's device: one vxlan device for each host, over which the hosts of a cluster route to each other's tasks.
 * Found, made and mended here; what is behind it is told by `forwarding.ts`.
 */
import { SwarmError } from "../../common/base/error.ts";
import {
  contains,
  formatIpv4,
  formatPrefix,
  gatewayOf,
  type Ipv4,
  type Ipv4Prefix,
  ipv4Bytes,
  networkOf,
  overlaps,
  type Prefix,
} from "./address.ts";
import { isVethName } from "./attach.ts";
import { exchange, exchangeAll, NETLINK, type Netlink, type NetlinkRequest } from "./netlink.ts";
import { decodeRoutes, dumpRoutes, type Route, RTPROT_SWARM } from "./routing-messages.ts";
import {
  addAddress,
  createVxlan,
  decodeAddresses,
  decodeLinks,
  deleteAddress,
  deleteLink,
  deleteLinkGroup,
  dumpAddresses,
  dumpLinks,
  getLink,
  type Link,
  setLink,
} from "./rtnetlink.ts";

/** Of an Ethernet: no uplink of ours may have more, or a packet would not fit through the next host's. */
const ETHERNET_MTU = 1500;
/** What VXLAN adds to a packet: an Ethernet header in an IPv4, a UDP and a VXLAN header (RFC 7348 §5). */
export const VXLAN_OVERHEAD = 50;
/** RFC 791: every host must take this much. */
export const MTU_MIN = 576;
const LOOPBACK = { address: 0x7f000000, length: 8 };
const RTN_BROADCAST = 3;
const RTN_MULTICAST = 5;

/** RFC 7348 §5. */
export const VXLAN_PORT_DEFAULT = 4789;

/** Where packets to and from other hosts pass. */
export interface Underlay {
  /** This host's address for them; absent: no other host is reached. */
  readonly local?: Ipv4 | undefined;
  /** UDP port on all hosts. Default 4789 (RFC 7348). */
  readonly port: number;
}

/** What the fabric's device should be. */
export interface FabricOptions {
  /** The device's; the VXLAN network's number follows from it, so all hosts of a cluster have the same. */
  readonly name: string;
  /** The nodes' own network: the device holds its first address, on every host the same. Absent: it holds none. */
  readonly pool?: Ipv4Prefix | undefined;
  readonly mac: Uint8Array;
  /** Where this host's packets to other hosts come from; absent: there are none yet. */
  readonly local?: Ipv4 | undefined;
  /** The index of the link that its packets must leave by. Absent: whichever the routes say. */
  readonly under?: number | undefined;
  /** UDP port on all hosts. */
  readonly port: number;
  /** `underlayMtu` less what is added to a packet. */
  readonly mtu: number;
}

/** The device as it is after `ensureFabric`. */
export interface FabricState {
  readonly index: number;
  readonly mtu: number;
  /** Whether it is not the one of before: then nothing is behind it yet. */
  readonly anew: boolean;
}

/**
 * Refuses a pool that shares addresses with a route or an address of the host (the fabric's own apart): tasks there
 * and that network could never talk. Throws `failed_precondition` that names both.
 */
export async function checkPool(
  netlink: Netlink,
  options: { readonly name: string; readonly pool: Ipv4Prefix },
  signal: AbortSignal,
): Promise<void> {
  const links = await listLinks(netlink, signal);
  const own = new Set(
    links
      .filter(({ name, kind }) => name === options.name || (kind === "veth" && isVethName(name)))
      .map(({ index }) => index),
  );
  const clash = (await listRoutes(netlink, signal)).find(
    (found) => !own.has(found.index) && found.protocol !== RTPROT_SWARM && conflicts(found, options.pool),
  );
  if (clash === undefined) return;
  const device = links.find((link) => link.index === clash.index)?.name ?? "none";
  throw new SwarmError(
    "failed_precondition",
    `address pool ${formatPrefix(networkOf(options.pool))} overlaps the host's route ` +
      `${formatPrefix(clash.destination)} dev ${device}: choose another pool for the cluster`,
  );
}

/** Makes the device, or mends what somebody changed; cheap when all is as it should be. */
export async function ensureFabric(
  netlink: Netlink,
  options: FabricOptions,
  signal: AbortSignal,
): Promise<FabricState> {
  const { name, mtu, mac, pool } = options;
  const before = await findLink(netlink, name, signal);
  if (before !== undefined && before.kind !== "vxlan") {
    const kind = before.kind || "device";
    throw new SwarmError("failed_precondition", `create ${name}: a ${kind} of that name exists on this host`);
  }
  // Its port, number and source cannot be changed.
  const replaced = before !== undefined && !isAsWanted(before, options);
  if (replaced) await removeLink(netlink, { name }, signal);
  const kept = replaced ? undefined : before;
  if (kept === undefined) {
    const create = createVxlan({ ...options, id: fabricNumber(name) });
    await exchange(netlink, route(create, `create vxlan device ${name}`), signal);
  }
  const device = kept ?? (await findLink(netlink, name, signal));
  if (device === undefined) throw new SwarmError("aborted", `create ${name}: it vanished again`);
  if (!device.up || device.mtu !== mtu || Buffer.compare(device.mac, mac) !== 0) {
    const change = setLink({ index: device.index }, { up: true, mtu, mac, reversePathFilter: 0 });
    await exchange(netlink, route(change, `bring ${name} up`), signal);
  }
  if (pool !== undefined) await ensureAddress(netlink, device, { address: gatewayOf(pool), length: 32 }, signal);
  // Routes over a link that was down are gone.
  return { index: device.index, mtu, anew: kept === undefined || !device.up };
}

/**
 * The MAC of a host's fabric device: 02:53 and the address that its packets come from. Whoever knows the address knows
 * the MAC, and the MAC of a packet tells which host it came from.
 */
export function fabricMac(local: Ipv4): Uint8Array {
  return Uint8Array.of(0x02, 0x53, ...ipv4Bytes(local));
}

/** The MAC of a host's other device, whose packets are encrypted: 02:54 tells the way they came by. */
export function encryptedMac(local: Ipv4): Uint8Array {
  return Uint8Array.of(0x02, 0x54, ...ipv4Bytes(local));
}

/** The number of the VXLAN network (24 bits) that a device of this name is on. */
export function fabricNumber(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return (hash ^ (hash >>> 24)) & 0xffffff;
}

/** Deletes a link by name; one that is gone is fine. */
export async function removeLink(
  netlink: Netlink,
  link: { readonly name: string },
  signal: AbortSignal,
): Promise<void> {
  await exchange(netlink, route(deleteLink(link), `delete link ${link.name}`, "ENODEV"), signal);
}

/** The link of a name, undefined when there is none. */
export async function findLink(netlink: Netlink, name: string, signal: AbortSignal): Promise<Link | undefined> {
  return decodeLinks(await exchange(netlink, route(getLink({ name }), `find link ${name}`, "ENODEV"), signal))[0];
}

/** All links of the namespace. */
export async function listLinks(netlink: Netlink, signal: AbortSignal): Promise<readonly Link[]> {
  return decodeLinks(await exchange(netlink, route(dumpLinks(), "list links"), signal));
}

/** All IPv4 routes of the namespace. */
export async function listRoutes(netlink: Netlink, signal: AbortSignal): Promise<readonly Route[]> {
  return decodeRoutes(await exchange(netlink, route(dumpRoutes(), "list routes"), signal));
}

/** Whether a link is the host's end of a veth of this group's. */
export function isTaskLink(link: Link, group: number): boolean {
  return link.kind === "veth" && link.group === group && isVethName(link.name);
}

/**
 * Deletes the veths of a group other than those of `live`, and returns the names of what it deleted. They are put into a group of
 * their own that goes at once: alone each would wait until the kernel is done with it, 12 ms.
 */
export async function deleteVeths(
  netlink: Netlink,
  { group, live }: { readonly group: number; readonly live: (name: string) => boolean },
  signal: AbortSignal,
): Promise<readonly string[]> {
  const doomed = group ^ DOOMED;
  const dead = (await listLinks(netlink, signal)).filter(
    // The others are of one who was killed between the two steps.
    (link) => (isTaskLink(link, group) && !live(link.name)) || isTaskLink(link, doomed),
  );
  if (dead.length === 0) return [];
  const moves = dead.map(({ name }) => route(setLink({ name }, { group: doomed }), `doom ${name}`, "ENODEV"));
  await exchangeAll(netlink, moves, signal);
  await exchange(netlink, route(deleteLinkGroup(doomed), "delete the links of dead tasks", "ENODEV"), signal);
  return dead.map(({ name }) => name);
}

/** The bit by which the group of links that are to be deleted differs. */
const DOOMED = 0x1_0000;

function route(message: Uint8Array, label: string, ...tolerated: readonly string[]): NetlinkRequest {
  return { protocol: NETLINK.ROUTE, message, label, tolerated };
}

function isAsWanted({ vxlan }: Link, { name, port, local, under = 0 }: FabricOptions): boolean {
  return vxlan?.id === fabricNumber(name) && vxlan.port === port && vxlan.local === local && vxlan.under === under;
}

/** A default route covers every pool and conflicts with none; broadcast and multicast routes belong to others. */
function conflicts(found: Route, pool: Ipv4Prefix): boolean {
  if (found.destination.length === 0 || found.type === RTN_BROADCAST || found.type === RTN_MULTICAST) return false;
  if (contains(LOOPBACK, found.destination.address)) return overlaps(pool, LOOPBACK);
  return overlaps(pool, found.destination);
}

/** Gives the device its one address; others (of an earlier pool) go. */
async function ensureAddress(netlink: Netlink, device: Link, wanted: Ipv4Prefix, signal: AbortSignal): Promise<void> {
  const addresses = decodeAddresses(await exchange(netlink, route(dumpAddresses(), "list addresses"), signal));
  const present = addresses.filter((entry) => entry.index === device.index);
  const isWanted = (prefix: Prefix) => prefix.address === wanted.address && prefix.length === wanted.length;
  for (const { prefix } of present) {
    if (isWanted(prefix)) continue;
    const label = `remove address ${formatPrefix(prefix)} from ${device.name}`;
    await exchange(netlink, route(deleteAddress(device.index, prefix), label, "EADDRNOTAVAIL"), signal);
  }
  if (present.some(({ prefix }) => isWanted(prefix))) return;
  const label = `add address ${formatIpv4(wanted.address)} to ${device.name}`;
  await exchange(netlink, route(addAddress(device.index, wanted), label), signal);
}

/** What fits through the device that packets to other hosts leave by, all headers counted; of an Ethernet at most. */
export async function underlayMtu(
  netlink: Netlink,
  { name, local }: { readonly name: string; readonly local?: Ipv4 | undefined },
  signal: AbortSignal,
): Promise<number> {
  const links = await listLinks(netlink, signal);
  const addresses = decodeAddresses(await exchange(netlink, route(dumpAddresses(), "list addresses"), signal));
  const bearer = addresses.find(({ prefix }) => prefix.address === local)?.index;
  const out = (await listRoutes(netlink, signal)).find((found) => found.destination.length === 0 && found.index !== 0);
  const uplink = links.find(({ index, name: each }) => index === (bearer ?? out?.index) && each !== name);
  return Math.min(ETHERNET_MTU, uplink?.mtu ?? ETHERNET_MTU);
}
