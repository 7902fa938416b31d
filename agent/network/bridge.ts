/** The host's side of L2: the bridge, its address, and the veths that are its ports. Told apart: find, then mend. */
import { SwarmError } from "../../common/base/error.ts";
import {
  contains,
  formatIpv4,
  formatPrefix,
  gatewayOf,
  type Ipv4Prefix,
  macOf,
  networkOf,
  overlaps,
} from "./address.ts";
import { isVethName } from "./attach.ts";
import { exchange, NETLINK, type Netlink, type NetlinkRequest } from "./netlink.ts";
import {
  addAddress,
  createBridge,
  decodeAddresses,
  decodeLinks,
  decodeRoutes,
  deleteAddress,
  deleteLink,
  dumpAddresses,
  dumpLinks,
  dumpRoutes,
  getLink,
  type Link,
  openPort,
  type Route,
  setLink,
} from "./rtnetlink.ts";

const RTN_BROADCAST = 3;
const RTN_MULTICAST = 5;
const LOOPBACK = { address: 0x7f000000, length: 8 };
/** Ethernet's own; a veth may carry more, but the way out usually does not. */
const ETHERNET_MTU = 1500;

/** What the bridge should be. */
export interface BridgeOptions {
  readonly name: string;
  readonly pool: Ipv4Prefix;
  /** Absent: that of the device of the host's default route, at most 1,500. */
  readonly mtu?: number;
}

/** The bridge as it is after `ensureBridge`. */
export interface BridgeState {
  readonly index: number;
  readonly mtu: number;
  /** Whether it had to be made or mended: then its ports may be loose. */
  readonly changed: boolean;
}

/**
 * Refuses a pool that shares addresses with a route or an address of the host (the bridge's own apart): tasks there
 * and that network could never talk. Throws `failed_precondition` that names both.
 */
export async function checkPool(netlink: Netlink, options: BridgeOptions, signal: AbortSignal): Promise<void> {
  const links = await listLinks(netlink, signal);
  const routes = await listRoutes(netlink, signal);
  const own = links.find((link) => link.name === options.name)?.index;
  const clash = routes.find((found) => found.index !== own && conflicts(found, options.pool));
  if (clash === undefined) return;
  const device = links.find((link) => link.index === clash.index)?.name ?? "none";
  throw new SwarmError(
    "failed_precondition",
    `address pool ${formatPrefix(networkOf(options.pool))} overlaps the host's route ` +
      `${formatPrefix(clash.destination)} dev ${device}: choose another pool for the cluster`,
  );
}

/** Makes the bridge, or mends what somebody changed: state, address, MAC, MTU. Cheap when all is as it should be. */
export async function ensureBridge(
  netlink: Netlink,
  options: BridgeOptions,
  signal: AbortSignal,
): Promise<BridgeState> {
  const { name } = options;
  const mac = macOf(gatewayOf(options.pool));
  const found = await findLink(netlink, name, signal);
  if (found !== undefined && found.kind !== "bridge") {
    const kind = found.kind || "device";
    throw new SwarmError("failed_precondition", `create bridge ${name}: a ${kind} of that name exists on this host`);
  }
  const mtu = options.mtu ?? found?.mtu ?? (await uplinkMtu(netlink, signal));
  if (found === undefined) {
    const create = createBridge({ name, mac, mtu });
    await exchange(netlink, route(create, `create bridge ${name}`, "EEXIST"), signal);
  }
  const bridge = found ?? (await findLink(netlink, name, signal));
  if (bridge === undefined) throw new SwarmError("aborted", `create bridge ${name}: it vanished again`);
  const macDiffers = Buffer.compare(bridge.mac, mac) !== 0;
  const asWanted = bridge.up && bridge.mtu === mtu && !macDiffers;
  if (!asWanted) {
    const change = setLink({ index: bridge.index }, { up: true, mtu, ...(macDiffers ? { mac } : {}) });
    await exchange(netlink, route(change, `bring bridge ${name} up`), signal);
  }
  const readdressed = await ensureAddress(netlink, bridge, options.pool, signal);
  return { index: bridge.index, mtu, changed: !asWanted || readdressed };
}

/** Makes ports of those of `names` that are no ports of the bridge (it was deleted, say). Missing ones are no error. */
export async function attachPorts(
  netlink: Netlink,
  options: { readonly bridge: BridgeState; readonly group: number; readonly names: ReadonlySet<string> },
  signal: AbortSignal,
): Promise<number> {
  let attached = 0;
  for (const link of await listLinks(netlink, signal)) {
    if (!isOurs(link, options.group) || !options.names.has(link.name)) continue;
    if (link.master === options.bridge.index && link.up) continue;
    const label = `attach ${link.name} to the bridge`;
    const port = setLink({ index: link.index }, { master: options.bridge.index });
    await exchange(netlink, route(port, label, "ENODEV"), signal);
    await exchange(netlink, route(openPort({ index: link.index }), label, "ENODEV"), signal);
    attached += 1;
  }
  return attached;
}

/** Deletes the veths of a group other than those of `live`, and returns the names of what it deleted. */
export async function deleteVeths(
  netlink: Netlink,
  { group, live }: { readonly group: number; readonly live: ReadonlySet<string> },
  signal: AbortSignal,
): Promise<readonly string[]> {
  const dead = (await listLinks(netlink, signal)).filter((link) => isOurs(link, group) && !live.has(link.name));
  for (const link of dead) await removeLink(netlink, { name: link.name }, signal);
  return dead.map((link) => link.name);
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

async function listLinks(netlink: Netlink, signal: AbortSignal): Promise<readonly Link[]> {
  return decodeLinks(await exchange(netlink, route(dumpLinks(), "list links"), signal));
}

async function listRoutes(netlink: Netlink, signal: AbortSignal): Promise<readonly Route[]> {
  return decodeRoutes(await exchange(netlink, route(dumpRoutes(), "list routes"), signal));
}

function route(message: Uint8Array, label: string, ...tolerated: readonly string[]): NetlinkRequest {
  return { protocol: NETLINK.ROUTE, message, label, tolerated };
}

function isOurs(link: Link, group: number): boolean {
  return link.kind === "veth" && link.group === group && isVethName(link.name);
}

/** A default route covers every pool and conflicts with none; broadcast and multicast routes belong to others. */
function conflicts(route: Route, pool: Ipv4Prefix): boolean {
  if (route.destination.length === 0 || route.type === RTN_BROADCAST || route.type === RTN_MULTICAST) return false;
  if (contains(LOOPBACK, route.destination.address)) return overlaps(pool, LOOPBACK);
  return overlaps(pool, route.destination);
}

/** Gives the bridge its one address; others (of an earlier pool) go. Returns whether anything had to change. */
async function ensureAddress(netlink: Netlink, bridge: Link, pool: Ipv4Prefix, signal: AbortSignal): Promise<boolean> {
  const wanted = { address: gatewayOf(pool), length: pool.length };
  const addresses = decodeAddresses(await exchange(netlink, route(dumpAddresses(), "list addresses"), signal));
  const present = addresses.filter((entry) => entry.index === bridge.index);
  const isWanted = (prefix: Ipv4Prefix) => prefix.address === wanted.address && prefix.length === wanted.length;
  const others = present.filter((entry) => !isWanted(entry.prefix));
  for (const { prefix } of others) {
    const label = `remove address ${formatPrefix(prefix)} from ${bridge.name}`;
    await exchange(netlink, route(deleteAddress(bridge.index, prefix), label, "EADDRNOTAVAIL"), signal);
  }
  if (present.length > others.length) return others.length > 0;
  const label = `add address ${formatIpv4(wanted.address)} to ${bridge.name}`;
  await exchange(netlink, route(addAddress(bridge.index, wanted), label), signal);
  return true;
}

/** The MTU on the way out, so that no packet of a container is too large for it. */
async function uplinkMtu(netlink: Netlink, signal: AbortSignal): Promise<number> {
  const routes = await listRoutes(netlink, signal);
  const out = routes.find((found) => found.destination.length === 0 && found.index !== 0);
  const uplink = (await listLinks(netlink, signal)).find((link) => link.index === out?.index);
  return Math.min(ETHERNET_MTU, uplink?.mtu ?? ETHERNET_MTU);
}
