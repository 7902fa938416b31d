/**
 * Routes, routing rules and neighbours as rtnetlink bytes, and the readers of their dumps. Pure: nothing here is sent.
 * Layouts: rtnetlink(7), linux/rtnetlink.h, linux/fib_rules.h, linux/neighbour.h.
 */
import {
  bitsOf,
  type Family,
  familyOf,
  type Ip,
  type Ipv4,
  ipBytes,
  ipFromBytes,
  ipv4Bytes,
  type Prefix,
} from "./address.ts";
import { type Attribute, bytes, decodeAttributes, encodeMessage, type NetlinkMessage, NLM_F, u32 } from "./netlink.ts";

const RTM = {
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
  NEWNEIGH: 28,
  DELNEIGH: 29,
  GETNEIGH: 30,
  NEWRULE: 32,
  DELRULE: 33,
  GETRULE: 34,
} as const;
const RTA = { DST: 1, OIF: 4, GATEWAY: 5, PREFSRC: 7, TABLE: 15 } as const;
const FRA = { SRC: 2, GOTO: 4, PRIORITY: 6, FWMARK: 10, TABLE: 15, FWMASK: 16, PROTOCOL: 21 } as const;
const FR_ACT = { TO_TABLE: 1, GOTO: 2, NOP: 3 } as const;
const FIB_RULE_INVERT = 2;
const NDA = { DST: 1, LLADDR: 2, IFINDEX: 8 } as const;
const NUD_PERMANENT = 0x80;
const NUD_NOARP = 0x40;
const NTF_SELF = 2;
const RTM_F_CLONED = 0x200;
const RTNH_F_ONLINK = 4;
const RT_SCOPE = { UNIVERSE: 0, LINK: 253 } as const;
/** A route's type: it leads to somebody. */
export const RTN_UNICAST = 1;
/** Another: nobody may be reached, and whoever asks is told so at once. */
const RTN_UNREACHABLE = 7;

const AF: Readonly<Record<Family, number>> = { 4: 2, 6: 10 };
const AF_BRIDGE = 7;

/** The main routing table, and the one of the host's own addresses. */
export const TABLE = { MAIN: 254, LOCAL: 255 } as const;

/** Who made a route or rule (`proto` in ip-route(8)): a number of ours, "S". Those of others are left alone. */
export const RTPROT_SWARM = 83;

const DO = NLM_F.REQUEST | NLM_F.ACK;
const DUMP = NLM_F.REQUEST | NLM_F.DUMP;

/** A route of either family: directly to what is on a link, or over `via`, which is on that link whatever the other routes say. */
export interface RouteSpec {
  readonly destination: Prefix;
  /** Default: main. */
  readonly table?: number;
  /** The link's index; 0: what it leads to is unreachable. */
  readonly index: number;
  readonly via?: Ip;
  /** Where the host's own packets on it come from. */
  readonly source?: Ip;
}

/** A route of any table, as a dump tells it. */
export interface Route {
  readonly destination: Prefix;
  readonly table: number;
  /** RTN_*: 1 unicast, 2 local, 3 broadcast, … */
  readonly type: number;
  /** RTPROT_*: who made it. */
  readonly protocol: number;
  /** The index of the interface it leads to, 0 for none (a blackhole, say). */
  readonly index: number;
  readonly via?: Ip;
  readonly source?: Ip;
}

/** RTM_NEWROUTE, in place of one to the same destination in that table. */
export function replaceRoute(route: RouteSpec): Uint8Array {
  return routeMessage(RTM.NEWROUTE, DO | NLM_F.CREATE | NLM_F.REPLACE, route);
}

/** RTM_DELROUTE of one of ours; ESRCH when there is none. */
export function deleteRoute(route: RouteSpec): Uint8Array {
  return routeMessage(RTM.DELROUTE, DO, route);
}

/** RTM_GETROUTE of all routes of a family, of all tables. */
export function dumpRoutes(family: Family = 4): Uint8Array {
  return encodeMessage({ type: RTM.GETROUTE, flags: DUMP, header: familyHeader(family) });
}

/** The routes of an answer; what the kernel noted for one destination is no route of anybody's. */
export function decodeRoutes(messages: readonly NetlinkMessage[]): Route[] {
  return messages.flatMap(({ type, payload }) => {
    const family = familyIn(payload);
    if (type !== RTM.NEWROUTE || family === undefined) return [];
    if ((viewOf(payload).getUint32(8, true) & RTM_F_CLONED) !== 0) return [];
    const attributes = decodeAttributes(payload.subarray(12));
    const via = addressOf(attributes.get(RTA.GATEWAY));
    const source = addressOf(attributes.get(RTA.PREFSRC));
    return {
      destination: { address: addressOf(attributes.get(RTA.DST)) ?? (family === 4 ? 0 : 0n), length: payload[1] ?? 0 },
      table: readU32(attributes.get(RTA.TABLE)) || (payload[4] ?? 0),
      protocol: payload[5] ?? 0,
      type: payload[7] ?? 0,
      // The kernel says that what is unreachable in IPv6 is so over lo.
      index: payload[7] === RTN_UNREACHABLE ? 0 : readU32(attributes.get(RTA.OIF)),
      ...(via !== undefined && { via }),
      ...(source !== undefined && { source }),
    };
  });
}

/** What a routing rule does with the packets that bear a mark, or, `unless`, with those that do not; or with those from an address. */
export type RuleSpec = { readonly priority: number } & (
  | { readonly mark: number; readonly table: number }
  | { readonly from: Ip; readonly table: number }
  | { readonly mark: number; readonly mask: number; readonly unless: boolean; readonly goTo: number }
  | { readonly nothing: true }
);

/** A routing rule of ours, as a dump tells it; 0 stands for what it does not have. */
export interface Rule {
  readonly family: Family;
  readonly priority: number;
  readonly mark: number;
  readonly mask: number;
  readonly unless: boolean;
  readonly table: number;
  readonly goTo: number;
}

/** RTM_NEWRULE; EEXIST when there is one like it. */
export function addRule(family: Family, rule: RuleSpec): Uint8Array {
  return ruleMessage(RTM.NEWRULE, DO | NLM_F.CREATE | NLM_F.EXCL, family, rule);
}

/** RTM_DELRULE; ENOENT when there is none. */
export function deleteRule(family: Family, rule: RuleSpec): Uint8Array {
  return ruleMessage(RTM.DELRULE, DO, family, rule);
}

/** RTM_GETRULE of all rules of a family. */
export function dumpRules(family: Family): Uint8Array {
  return encodeMessage({ type: RTM.GETRULE, flags: DUMP, header: familyHeader(family) });
}

/** The rules of ours in an answer. */
export function decodeRules(messages: readonly NetlinkMessage[]): Rule[] {
  return messages.flatMap(({ type, payload }) => {
    const family = familyIn(payload);
    if (type !== RTM.NEWRULE || family === undefined) return [];
    const attributes = decodeAttributes(payload.subarray(12));
    if (attributes.get(FRA.PROTOCOL)?.[0] !== RTPROT_SWARM) return [];
    return {
      family,
      priority: readU32(attributes.get(FRA.PRIORITY)),
      mark: readU32(attributes.get(FRA.FWMARK)),
      mask: readU32(attributes.get(FRA.FWMASK)),
      unless: (viewOf(payload).getUint32(8, true) & FIB_RULE_INVERT) !== 0,
      goTo: readU32(attributes.get(FRA.GOTO)),
      table: readU32(attributes.get(FRA.TABLE)) || (payload[4] ?? 0),
    };
  });
}

/** An address on a link and the MAC that it has there, known for good: nobody is asked. */
export interface Neighbor {
  readonly index: number;
  readonly address: Ip;
  readonly mac: Uint8Array;
}

/** RTM_NEWNEIGH of a permanent neighbour, in place of what is known of that address. */
export function replaceNeighbor({ index, address, mac }: Neighbor): Uint8Array {
  const attributes = [bytes(NDA.DST, ipBytes(address)), bytes(NDA.LLADDR, mac)];
  const header = neighborHeader(AF[familyOf(address)], { index, state: NUD_PERMANENT });
  return encodeMessage({ type: RTM.NEWNEIGH, flags: DO | NLM_F.CREATE | NLM_F.REPLACE, header, attributes });
}

/** RTM_DELNEIGH; ENOENT when there is none. */
export function deleteNeighbor({ index, address }: Omit<Neighbor, "mac">): Uint8Array {
  const header = neighborHeader(AF[familyOf(address)], { index, state: 0 });
  return encodeMessage({ type: RTM.DELNEIGH, flags: DO, header, attributes: [bytes(NDA.DST, ipBytes(address))] });
}

/** RTM_GETNEIGH of all neighbours of a family. */
export function dumpNeighbors(family: Family): Uint8Array {
  return encodeMessage({ type: RTM.GETNEIGH, flags: DUMP, header: familyHeader(family) });
}

/** The permanent neighbours of an answer. */
export function decodeNeighbors(messages: readonly NetlinkMessage[]): Neighbor[] {
  return messages.flatMap(({ type, payload }) => {
    if (type !== RTM.NEWNEIGH || familyIn(payload) === undefined) return [];
    const view = viewOf(payload);
    const attributes = decodeAttributes(payload.subarray(12));
    const [address, mac] = [addressOf(attributes.get(NDA.DST)), attributes.get(NDA.LLADDR)];
    if ((view.getUint16(8, true) & NUD_PERMANENT) === 0 || address === undefined || mac === undefined) return [];
    return { index: view.getInt32(4, true), address, mac };
  });
}

/** Behind which host a MAC is, on a vxlan device. */
export interface ForwardingEntry {
  readonly index: number;
  readonly mac: Uint8Array;
  readonly host: Ipv4;
  /** The index of the link that packets there must leave by. Absent: whichever the routes say. */
  readonly under?: number | undefined;
}

/** RTM_NEWNEIGH of a vxlan device's forwarding entry (`bridge fdb replace`). */
export function replaceForwarding({ index, mac, host, under }: ForwardingEntry): Uint8Array {
  const attributes = [bytes(NDA.LLADDR, mac), bytes(NDA.DST, ipv4Bytes(host))];
  if (under !== undefined) attributes.push(u32(NDA.IFINDEX, under));
  const header = neighborHeader(AF_BRIDGE, { index, state: NUD_NOARP | NUD_PERMANENT, flags: NTF_SELF });
  return encodeMessage({ type: RTM.NEWNEIGH, flags: DO | NLM_F.CREATE | NLM_F.REPLACE, header, attributes });
}

/** RTM_DELNEIGH of a forwarding entry; ENOENT when there is none. */
export function deleteForwarding({ index, mac }: Pick<ForwardingEntry, "index" | "mac">): Uint8Array {
  const header = neighborHeader(AF_BRIDGE, { index, state: 0, flags: NTF_SELF });
  return encodeMessage({ type: RTM.DELNEIGH, flags: DO, header, attributes: [bytes(NDA.LLADDR, mac)] });
}

/** RTM_GETNEIGH of all forwarding entries. */
export function dumpForwarding(): Uint8Array {
  return encodeMessage({ type: RTM.GETNEIGH, flags: DUMP, header: neighborHeader(AF_BRIDGE, { index: 0, state: 0 }) });
}

/** The forwarding entries of an answer. */
export function decodeForwarding(messages: readonly NetlinkMessage[]): ForwardingEntry[] {
  return messages.flatMap(({ type, payload }) => {
    if (type !== RTM.NEWNEIGH || payload.length < 12 || payload[0] !== AF_BRIDGE) return [];
    const attributes = decodeAttributes(payload.subarray(12));
    const [mac, host] = [attributes.get(NDA.LLADDR), addressOf(attributes.get(NDA.DST))];
    if (mac === undefined || typeof host !== "number") return [];
    const under = readU32(attributes.get(NDA.IFINDEX)) || undefined;
    return { index: viewOf(payload).getInt32(4, true), mac, host, under };
  });
}

function routeMessage(type: number, flags: number, route: RouteSpec): Uint8Array {
  const { destination, table = TABLE.MAIN, index, via, source } = route;
  // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
  const header = new Uint8Array(12);
  const scope = via === undefined && index !== 0 ? RT_SCOPE.LINK : RT_SCOPE.UNIVERSE;
  header.set([
    AF[familyOf(destination.address)],
    destination.length,
    0,
    0,
    table < 256 ? table : 0,
    RTPROT_SWARM,
    scope,
    index === 0 ? RTN_UNREACHABLE : RTN_UNICAST,
  ]);
  const attributes: Attribute[] = [u32(RTA.TABLE, table)];
  if (index !== 0) attributes.push(u32(RTA.OIF, index));
  if (destination.length > 0) attributes.push(bytes(RTA.DST, ipBytes(destination.address)));
  if (via !== undefined) {
    attributes.push(bytes(RTA.GATEWAY, ipBytes(via)));
    viewOf(header).setUint32(8, RTNH_F_ONLINK, true);
  }
  if (source !== undefined) attributes.push(bytes(RTA.PREFSRC, ipBytes(source)));
  return encodeMessage({ type, flags, header, attributes });
}

function ruleMessage(type: number, flags: number, family: Family, rule: RuleSpec): Uint8Array {
  // struct fib_rule_hdr: family, dst_len, src_len, tos, table, res1, res2, action, flags.
  const header = familyHeader(family);
  const attributes = [u32(FRA.PRIORITY, rule.priority), bytes(FRA.PROTOCOL, Uint8Array.of(RTPROT_SWARM))];
  if ("from" in rule) {
    header[2] = bitsOf(rule.from);
    header[7] = FR_ACT.TO_TABLE;
    attributes.push(bytes(FRA.SRC, ipBytes(rule.from)), u32(FRA.TABLE, rule.table));
  } else if ("table" in rule) {
    header[7] = FR_ACT.TO_TABLE;
    attributes.push(u32(FRA.FWMARK, rule.mark), u32(FRA.FWMASK, 0xffffffff), u32(FRA.TABLE, rule.table));
  } else if ("goTo" in rule) {
    header[7] = FR_ACT.GOTO;
    if (rule.unless) viewOf(header).setUint32(8, FIB_RULE_INVERT, true);
    attributes.push(u32(FRA.FWMARK, rule.mark), u32(FRA.FWMASK, rule.mask), u32(FRA.GOTO, rule.goTo));
  } else {
    header[7] = FR_ACT.NOP;
  }
  return encodeMessage({ type, flags, header, attributes });
}

/** struct ndmsg: family, two pads, index, state, flags, type. */
function neighborHeader(
  family: number,
  options: { readonly index: number; readonly state: number; readonly flags?: number },
): Uint8Array {
  const header = new Uint8Array(12);
  const view = viewOf(header);
  header[0] = family;
  view.setInt32(4, options.index, true);
  view.setUint16(8, options.state, true);
  header[10] = options.flags ?? 0;
  return header;
}

/** The headers of all these requests are as long, and begin with the family. */
function familyHeader(family: Family): Uint8Array {
  const header = new Uint8Array(12);
  header[0] = AF[family];
  return header;
}

function familyIn(payload: Uint8Array): Family | undefined {
  if (payload.length < 12) return undefined;
  return payload[0] === AF[4] ? 4 : payload[0] === AF[6] ? 6 : undefined;
}

function addressOf(value: Uint8Array | undefined): Ip | undefined {
  return value === undefined ? undefined : ipFromBytes(value);
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

function readU32(value: Uint8Array | undefined): number {
  return value !== undefined && value.length >= 4 ? viewOf(value).getUint32(0, true) : 0;
}
