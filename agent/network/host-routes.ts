/** Which addresses a host has or reaches by routes of its own: no network of the cluster may be there. */
import { compareIps, contains, formatPrefix, networkOf, type Prefix, parseIpPrefix } from "./address.ts";
import { isVethName } from "./attach.ts";
import { exchange, NETLINK, type Netlink } from "./netlink.ts";
import { decodeRoutes, dumpRoutes, type Route, RTPROT_SWARM } from "./routing-messages.ts";
import { decodeLinks, dumpLinks, type Link, LOOPBACK_INDEX } from "./rtnetlink.ts";

/** RTN_BROADCAST, RTN_ANYCAST, RTN_MULTICAST: addresses that come with others. */
const COMPANIONS = [3, 4, 5];
/** Every host has these, and no network can be there. */
const EVERYWHERE = ["127.0.0.0/8", "224.0.0.0/4", "::1/128", "fe80::/10", "ff00::/8"].map(parseIpPrefix);
/** A router with the Internet's routes would fill the store: the widest count. */
const ROUTES_MAX = 1_000;

/** A route, as far as it matters here. */
export type HostRoute = Pick<Route, "destination" | "protocol" | "type" | "index">;

/**
 * The prefixes that the host routes, in CIDR form, without those within others, without default routes and without ours:
 * routes that agents made, and those over `device` and tasks' links. Throws a SwarmError when the kernel does not answer.
 */
export async function readHostRoutes(netlink: Netlink, device: string, signal: AbortSignal): Promise<string[]> {
  const ask = (message: Uint8Array, label: string) =>
    exchange(netlink, { protocol: NETLINK.ROUTE, message, label }, signal);
  const links = decodeLinks(await ask(dumpLinks(), "list links"));
  const routes: Route[] = [];
  for (const family of [4, 6] as const) routes.push(...decodeRoutes(await ask(dumpRoutes(family), "list routes")));
  return foreignPrefixes(routes, links, device);
}

/** What of the routes is the host's own business. Pure. */
export function foreignPrefixes(routes: readonly HostRoute[], links: readonly Link[], device: string): string[] {
  const isOurs = ({ name, kind }: Link) => name === device || (kind === "veth" && isVethName(name));
  const ours = new Set([LOOPBACK_INDEX, ...links.filter(isOurs).map(({ index }) => index)]);
  const foreign = routes
    .filter(({ destination, protocol, type, index }) => {
      if (destination.length === 0 || protocol === RTPROT_SWARM) return false;
      if (COMPANIONS.includes(type) || ours.has(index)) return false;
      return !EVERYWHERE.some((prefix) => contains(prefix, destination.address));
    })
    .map(({ destination }) => networkOf(destination))
    .sort((left, right) => left.length - right.length || compareIps(left.address, right.address));
  const kept: Prefix[] = [];
  for (const prefix of foreign) {
    if (kept.length >= ROUTES_MAX) break;
    if (!kept.some((wider) => contains(wider, prefix.address))) kept.push(prefix);
  }
  return kept.map(formatPrefix).sort();
}
