/**
 * The few rtnetlink requests that container networking needs, as bytes, and the readers of its dumps. Pure: nothing
 * here is sent. Layouts: rtnetlink(7), linux/if_link.h, linux/if_addr.h, linux/rtnetlink.h.
 */
import { type Ipv4, type Ipv4Prefix, ipv4Bytes, ipv4FromBytes } from "./address.ts";
import {
  type Attribute,
  bytes,
  concatenate,
  decodeAttributes,
  encodeAttribute,
  encodeMessage,
  type NetlinkMessage,
  NLM_F,
  nested,
  nestedBytes,
  text,
  u8,
  u32,
} from "./netlink.ts";

const RTM = { NEWLINK: 16, DELLINK: 17, GETLINK: 18, SETLINK: 19, NEWADDR: 20, DELADDR: 21, GETADDR: 22 } as const;
const RTM_NEWROUTE = 24;
const RTM_GETROUTE = 26;

const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  MASTER: 10,
  LINKINFO: 18,
  AF_SPEC: 26,
  GROUP: 27,
  NET_NS_FD: 28,
  EXT_MASK: 29,
} as const;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_INFO_SLAVE_KIND = 4;
const IFLA_INFO_SLAVE_DATA = 5;
const IFLA_BRPORT_MODE = 4;
const IFLA_BR_FORWARD_DELAY = 1;
const IFLA_BR_STP_STATE = 5;
const IFLA_BR_MCAST_SNOOPING = 23;
const VETH_INFO_PEER = 1;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const IN6_ADDR_GEN_MODE_NONE = 1;
/** Leaves the counters out of a link dump: two thirds of its bytes. */
const RTEXT_FILTER_SKIP_STATS = 8;

const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_TABLE = 15;
const RT_TABLE_MAIN = 254;
const RTPROT_STATIC = 4;
const RTN_UNICAST = 1;

const AF_INET = 2;
const AF_INET6 = 10;
const IFF_UP = 1;

const DO = NLM_F.REQUEST | NLM_F.ACK;
const CREATE = DO | NLM_F.CREATE | NLM_F.EXCL;

/** The loopback interface is the first of every network namespace (net/core/dev.c). */
export const LOOPBACK_INDEX = 1;

/** Which link a request means: its index, or its name. */
export type LinkSelector = { readonly index: number } | { readonly name: string };

/** What RTM_GETLINK tells of a link, as far as it matters here. */
export interface Link {
  readonly index: number;
  readonly name: string;
  readonly up: boolean;
  readonly mtu: number;
  readonly group: number;
  /** "veth", "bridge"; empty for a physical device. */
  readonly kind: string;
  readonly mac: Uint8Array;
  /** The index of the bridge that it is a port of, 0 for none. */
  readonly master: number;
}

/** An IPv4 address of an interface. */
export interface LinkAddress {
  readonly index: number;
  readonly prefix: Ipv4Prefix;
}

/** An IPv4 route of any table. */
export interface Route {
  readonly destination: Ipv4Prefix;
  readonly table: number;
  /** RTN_*: 1 unicast, 2 local, 3 broadcast, … */
  readonly type: number;
  /** The index of the interface it leads to, 0 for none (a blackhole, say). */
  readonly index: number;
}

/** RTM_NEWLINK of a bridge that does not exist yet: no spanning tree, no delay, no multicast snooping. */
export function createBridge(options: {
  readonly name: string;
  readonly mac: Uint8Array;
  readonly mtu: number;
}): Uint8Array {
  const data = [
    u32(IFLA_BR_FORWARD_DELAY, 0),
    u32(IFLA_BR_STP_STATE, 0),
    // Snooping costs timers and memory per port, and drops groups that nobody queries for.
    u8(IFLA_BR_MCAST_SNOOPING, 0),
  ];
  return linkMessage(RTM.NEWLINK, CREATE, { index: 0 }, [
    text(IFLA.IFNAME, options.name),
    bytes(IFLA.ADDRESS, options.mac),
    u32(IFLA.MTU, options.mtu),
    linkInfo("bridge", data),
  ]);
}

/**
 * RTM_NEWLINK of a veth pair, sent from the namespace that gets `name`, which comes up; the peer is born, still down,
 * in the namespace that the descriptor names. The index is chosen here so that the messages which follow can name it
 * without an answer having been read.
 */
export function createVeth(options: {
  readonly index: number;
  readonly name: string;
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly peer: { readonly name: string; readonly group: number; readonly netnsFd: number };
}): Uint8Array {
  const peer = concatenate([
    interfaceHeader({ index: 0 }, undefined),
    ...[
      text(IFLA.IFNAME, options.peer.name),
      u32(IFLA.MTU, options.mtu),
      u32(IFLA.GROUP, options.peer.group),
      u32(IFLA.NET_NS_FD, options.peer.netnsFd),
    ].map(encodeAttribute),
  ]);
  const attributes = [
    text(IFLA.IFNAME, options.name),
    bytes(IFLA.ADDRESS, options.mac),
    u32(IFLA.MTU, options.mtu),
    linkInfo("veth", [nestedBytes(VETH_INFO_PEER, peer)]),
  ];
  return linkMessage(RTM.NEWLINK, CREATE, { index: options.index }, attributes, true);
}

/**
 * RTM_SETLINK: changes only what is given. `ipv6: false` keeps the link free of link-local addresses, but not in the
 * same message as `up`: the kernel brings the link up first.
 */
export function setLink(
  link: LinkSelector,
  change: {
    readonly up?: boolean;
    readonly master?: number;
    readonly mtu?: number;
    readonly mac?: Uint8Array;
    readonly ipv6?: false;
  },
): Uint8Array {
  const attributes: Attribute[] = [];
  if (change.master !== undefined) attributes.push(u32(IFLA.MASTER, change.master));
  if (change.mtu !== undefined) attributes.push(u32(IFLA.MTU, change.mtu));
  if (change.mac !== undefined) attributes.push(bytes(IFLA.ADDRESS, change.mac));
  if (change.ipv6 === false) {
    const mode = u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    attributes.push(nested(IFLA.AF_SPEC, [nested(AF_INET6, [mode])]));
  }
  return linkMessage(RTM.SETLINK, DO, link, attributes, change.up);
}

/**
 * RTM_NEWLINK of a link that is a bridge's port: up, and in hairpin mode, which sends a frame back to the port that it
 * came from. It takes that to reach oneself by a published port where br_netfilter lets the bridge itself translate
 * (net.bridge.bridge-nf-call-iptables, which Docker and others turn on).
 */
export function openPort(link: LinkSelector): Uint8Array {
  const data = [u8(IFLA_BRPORT_MODE, 1)];
  const info = nested(IFLA.LINKINFO, [text(IFLA_INFO_SLAVE_KIND, "bridge"), nested(IFLA_INFO_SLAVE_DATA, data)]);
  return linkMessage(RTM.NEWLINK, DO, link, [info], true);
}

/** RTM_DELLINK; a veth takes its peer with it, a bridge leaves its ports. */
export function deleteLink(link: LinkSelector): Uint8Array {
  return linkMessage(RTM.DELLINK, DO, link, []);
}

/** RTM_GETLINK of one link; `ENODEV` when there is none. */
export function getLink(link: LinkSelector): Uint8Array {
  return linkMessage(RTM.GETLINK, DO, link, [u32(IFLA.EXT_MASK, RTEXT_FILTER_SKIP_STATS)]);
}

/** RTM_GETLINK of all links. */
export function dumpLinks(): Uint8Array {
  const attributes = [u32(IFLA.EXT_MASK, RTEXT_FILTER_SKIP_STATS)];
  return linkMessage(RTM.GETLINK, NLM_F.REQUEST | NLM_F.DUMP, { index: 0 }, attributes);
}

/** RTM_NEWADDR of an IPv4 address; the subnet's route comes with it. One that exists is fine. */
export function addAddress(index: number, prefix: Ipv4Prefix): Uint8Array {
  return addressMessage(RTM.NEWADDR, DO | NLM_F.CREATE | NLM_F.REPLACE, index, prefix);
}

/** RTM_DELADDR. */
export function deleteAddress(index: number, prefix: Ipv4Prefix): Uint8Array {
  return addressMessage(RTM.DELADDR, DO, index, prefix);
}

/** RTM_GETADDR of all IPv4 addresses. */
export function dumpAddresses(): Uint8Array {
  const header = Uint8Array.of(AF_INET, 0, 0, 0, 0, 0, 0, 0);
  return encodeMessage({ type: RTM.GETADDR, flags: NLM_F.REQUEST | NLM_F.DUMP, header });
}

/** RTM_NEWROUTE of the default route over `gateway`. */
export function addDefaultRoute(index: number, gateway: Ipv4): Uint8Array {
  // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
  const header = Uint8Array.of(AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0, 0, 0, 0);
  const attributes = [bytes(RTA_GATEWAY, ipv4Bytes(gateway)), u32(RTA_OIF, index)];
  return encodeMessage({ type: RTM_NEWROUTE, flags: CREATE, header, attributes });
}

/** RTM_GETROUTE of all IPv4 routes, of all tables. */
export function dumpRoutes(): Uint8Array {
  const header = new Uint8Array(12);
  header[0] = AF_INET;
  return encodeMessage({ type: RTM_GETROUTE, flags: NLM_F.REQUEST | NLM_F.DUMP, header });
}

/** The links of an answer. Throws `data_loss` on malformed attributes. */
export function decodeLinks(messages: readonly NetlinkMessage[]): Link[] {
  return messages.flatMap(({ type, payload }) => {
    if (type !== RTM.NEWLINK || payload.length < 16) return [];
    const view = viewOf(payload);
    const attributes = decodeAttributes(payload.subarray(16));
    const info = decodeAttributes(attributes.get(IFLA.LINKINFO) ?? new Uint8Array());
    return {
      index: view.getInt32(4, true),
      name: readText(attributes.get(IFLA.IFNAME)),
      up: (view.getUint32(8, true) & IFF_UP) !== 0,
      mtu: readU32(attributes.get(IFLA.MTU)),
      group: readU32(attributes.get(IFLA.GROUP)),
      kind: readText(info.get(IFLA_INFO_KIND)),
      mac: attributes.get(IFLA.ADDRESS) ?? new Uint8Array(),
      master: readU32(attributes.get(IFLA.MASTER)),
    };
  });
}

/** The IPv4 addresses of an answer. */
export function decodeAddresses(messages: readonly NetlinkMessage[]): LinkAddress[] {
  return messages.flatMap(({ type, payload }) => {
    if (type !== RTM.NEWADDR || payload.length < 8 || payload[0] !== AF_INET) return [];
    const attributes = decodeAttributes(payload.subarray(8));
    const address = ipv4FromBytes(attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS) ?? new Uint8Array());
    if (address === undefined) return [];
    return { index: viewOf(payload).getUint32(4, true), prefix: { address, length: payload[1] ?? 32 } };
  });
}

/** The IPv4 routes of an answer. */
export function decodeRoutes(messages: readonly NetlinkMessage[]): Route[] {
  return messages.flatMap(({ type, payload }) => {
    if (type !== RTM_NEWROUTE || payload.length < 12 || payload[0] !== AF_INET) return [];
    const attributes = decodeAttributes(payload.subarray(12));
    return {
      destination: {
        address: ipv4FromBytes(attributes.get(RTA_DST) ?? new Uint8Array()) ?? 0,
        length: payload[1] ?? 0,
      },
      table: readU32(attributes.get(RTA_TABLE)) || (payload[4] ?? 0),
      type: payload[7] ?? 0,
      index: readU32(attributes.get(RTA_OIF)),
    };
  });
}

function linkMessage(
  type: number,
  flags: number,
  link: LinkSelector,
  attributes: readonly Attribute[],
  up?: boolean,
): Uint8Array {
  const named = "name" in link ? [text(IFLA.IFNAME, link.name)] : [];
  return encodeMessage({ type, flags, header: interfaceHeader(link, up), attributes: [...named, ...attributes] });
}

/** struct ifinfomsg: family, pad, type, index, flags, change. */
function interfaceHeader(link: LinkSelector, up: boolean | undefined): Uint8Array {
  const header = new Uint8Array(16);
  const view = viewOf(header);
  if ("index" in link) view.setInt32(4, link.index, true);
  if (up !== undefined) {
    view.setUint32(8, up ? IFF_UP : 0, true);
    view.setUint32(12, IFF_UP, true);
  }
  return header;
}

function linkInfo(kind: string, data: readonly Attribute[]): Attribute {
  return nested(IFLA.LINKINFO, [text(IFLA_INFO_KIND, kind), nested(IFLA_INFO_DATA, data)]);
}

function addressMessage(type: number, flags: number, index: number, prefix: Ipv4Prefix): Uint8Array {
  // struct ifaddrmsg: family, prefixlen, flags, scope, index.
  const header = new Uint8Array(8);
  header[0] = AF_INET;
  header[1] = prefix.length;
  viewOf(header).setUint32(4, index, true);
  const address = ipv4Bytes(prefix.address);
  return encodeMessage({ type, flags, header, attributes: [bytes(IFA_LOCAL, address), bytes(IFA_ADDRESS, address)] });
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

function readU32(value: Uint8Array | undefined): number {
  return value !== undefined && value.length >= 4 ? viewOf(value).getUint32(0, true) : 0;
}

function readText(value: Uint8Array | undefined): string {
  return value === undefined ? "" : new TextDecoder().decode(value).replace(/\0.*$/s, "");
}
