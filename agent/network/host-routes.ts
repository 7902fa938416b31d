/** Which addresses a host has or reaches by routes of its own: no network of the cluster may be there. */
import { contains, formatIpPrefix, type IpPrefix, networkOf, parseIpPrefix } from "../../common/model/ip-prefix.ts";
import { isVethName } from "./attach.ts";
import {
  decodeAttributes,
  encodeMessage,
  exchange,
  NETLINK,
  type Netlink,
  type NetlinkMessage,
  NLM_F,
} from "./netlink.ts";
import { RTPROT_SWARM } from "./routing-messages.ts";
import { decodeLinks, dumpLinks, type Link, LOOPBACK_INDEX } from "./rtnetlink.ts";

const RTM = { NEWROUTE: 24, GETROUTE: 26 } as const;
const RTA = { DST: 1, OIF: 4 } as const;
/** RTN_BROADCAST, RTN_ANYCAST, RTN_MULTICAST: addresses that come with others. */
const COMPANIONS = [3, 4, 5];
/** What the kernel noted for one destination is no route of anybody's. */
const RTM_F_CLONED = 0x200;
const FAMILIES = { 4: 2, 6: 10 } as const;
/** Every host has these, and no network can be there. */
const EVERYWHERE = ["127.0.0.0/8", "224.0.0.0/4", "::1/128", "fe80::/10", "ff00::/8"];
/** A router with the Internet's routes would fill the store: the widest count. */
const ROUTES_MAX = 1_000;

/** A route of any table, of either family. */
export interface HostRoute {
  readonly destination: IpPrefix;
  /** RTPROT_*: who made it. */
  readonly protocol: number;
  /** RTN_*. */
  readonly type: number;
  /** The interface that it leads to; 0: none. */
  readonly index: number;
  readonly cloned: boolean;
}

/**
 * The prefixes that the host routes, in CIDR form, without those within others, without default routes and without ours:
 * routes that agents made, and those over `device` and tasks' links. Throws a SwarmError when the kernel does not answer.
 */
export async function readHostRoutes(netlink: Netlink, device: string, signal: AbortSignal): Promise<string[]> {
  const ask = (message: Uint8Array, label: string) =>
    exchange(netlink, { protocol: NETLINK.ROUTE, message, label }, signal);
  const links = decodeLinks(await ask(dumpLinks(), "list links"));
  const routes: HostRoute[] = [];
  for (const family of [4, 6] as const) routes.push(...decodeHostRoutes(await ask(dumpRoutes(family), "list routes")));
  return foreignPrefixes(routes, links, device);
}

/** What of the routes is the host's own business. Pure. */
export function foreignPrefixes(routes: readonly HostRoute[], links: readonly Link[], device: string): string[] {
  const isOurs = ({ name, kind }: Link) => name === device || (kind === "veth" && isVethName(name));
  const ours = new Set([LOOPBACK_INDEX, ...links.filter(isOurs).map(({ index }) => index)]);
  const everywhere = EVERYWHERE.flatMap((text) => parseIpPrefix(text) ?? []);
  const foreign = routes
    .filter(({ destination, protocol, type, index, cloned }) => {
      if (destination.length === 0 || protocol === RTPROT_SWARM || cloned) return false;
      if (COMPANIONS.includes(type) || ours.has(index)) return false;
      return !everywhere.some((prefix) => contains(prefix, destination));
    })
    .map(({ destination }) => networkOf(destination))
    .sort((left, right) => left.length - right.length || Number(left.value - right.value > 0n) * 2 - 1);
  const kept: IpPrefix[] = [];
  for (const prefix of foreign) {
    if (kept.length >= ROUTES_MAX) break;
    if (!kept.some((wider) => contains(wider, prefix))) kept.push(prefix);
  }
  return kept.map(formatIpPrefix).sort();
}

/** RTM_GETROUTE of all routes of a family, of all tables. */
function dumpRoutes(family: 4 | 6): Uint8Array {
  const header = new Uint8Array(12);
  header[0] = FAMILIES[family];
  return encodeMessage({ type: RTM.GETROUTE, flags: NLM_F.REQUEST | NLM_F.DUMP, header });
}

/** The routes of an answer; struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags. */
export function decodeHostRoutes(messages: readonly NetlinkMessage[]): HostRoute[] {
  return messages.flatMap(({ type, payload }) => {
    const family = payload[0] === FAMILIES[4] ? 4 : payload[0] === FAMILIES[6] ? 6 : undefined;
    if (type !== RTM.NEWROUTE || payload.length < 12 || family === undefined) return [];
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    const attributes = decodeAttributes(payload.subarray(12));
    const link = attributes.get(RTA.OIF);
    let value = 0n;
    for (const byte of attributes.get(RTA.DST) ?? []) value = (value << 8n) | BigInt(byte);
    return {
      destination: { family, value, length: payload[1] ?? 0 },
      protocol: payload[5] ?? 0,
      type: payload[7] ?? 0,
      index: link ? new DataView(link.buffer, link.byteOffset, link.byteLength).getInt32(0, true) : 0,
      cloned: (view.getUint32(8, true) & RTM_F_CLONED) !== 0,
    };
  });
}
