/**
 * Links and their addresses: the few rtnetlink requests that container networking needs, as bytes, and the readers of
 * its dumps. Pure: nothing here is sent. Layouts: rtnetlink(7), linux/if_link.h, linux/if_addr.h. Routes, rules and
 * neighbours are in `routing-messages.ts`.
 */
import {
  type Family,
  familyOf,
  type Ipv4,
  ipBytes,
  ipFromBytes,
  ipv4Bytes,
  ipv4FromBytes,
  type Prefix,
} from "./address.ts";
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

const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  LINKINFO: 18,
  NET_NS_PID: 19,
  AF_SPEC: 26,
  GROUP: 27,
  NET_NS_FD: 28,
  EXT_MASK: 29,
} as const;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_VXLAN = { ID: 1, LINK: 3, LOCAL: 4, LEARNING: 7, PORT: 15 } as const;
const VETH_INFO_PEER = 1;
const IFLA_INET_CONF = 1;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const IN6_ADDR_GEN_MODE_NONE = 1;
/** IPV4_DEVCONF_* (linux/ip.h). */
const DEVCONF = { RP_FILTER: 8, ROUTE_LOCALNET: 26 } as const;
/** Leaves the counters out of a link dump: two thirds of its bytes. */
const RTEXT_FILTER_SKIP_STATS = 8;

const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
/** No check whether somebody else has it: nobody can, and it would take a second (RFC 4862). */
const IFA_F_NODAD = 0x02;
const IFA_F_NOPREFIXROUTE = 0x200;

const AF_INET = 2;
const AF_INET6 = 10;
const IFF_UP = 1;

const DO = NLM_F.REQUEST | NLM_F.ACK;
const CREATE = DO | NLM_F.CREATE | NLM_F.EXCL;

/** The loopback interface is the first of every network namespace (net/core/dev.c). */
export const LOOPBACK_INDEX = 1;

/** A network namespace, by a descriptor or a process of whoever sends the request. */
export type NetnsReference = { readonly fd: number } | { readonly pid: number };

/** Which link a request means: its index, or its name. */
export type LinkSelector = { readonly index: number } | { readonly name: string };

/** What RTM_GETLINK tells of a link, as far as it matters here. */
export interface Link {
  readonly index: number;
  readonly name: string;
  readonly up: boolean;
  readonly mtu: number;
  readonly group: number;
  /** "veth", "vxlan"; empty for a physical device. */
  readonly kind: string;
  readonly mac: Uint8Array;
  /** Of a vxlan device. */
  readonly vxlan?: {
    readonly id: number;
    readonly port: number;
    readonly local: Ipv4 | undefined;
    /** The index of the link that its packets leave by; 0: whichever the routes say. */
    readonly under: number;
  };
}

/** An address of an interface. */
export interface LinkAddress {
  readonly index: number;
  readonly prefix: Prefix;
}

/**
 * RTM_NEWLINK of a vxlan device that does not exist yet and learns nothing: what it knows of other hosts is told to it.
 * `local` is where its packets come from; absent: no other host can be reached yet.
 */
export function createVxlan(options: {
  readonly name: string;
  readonly id: number;
  readonly port: number;
  readonly local?: Ipv4 | undefined;
  /** The index of the link that its packets must leave by; it goes with that link. */
  readonly under?: number | undefined;
  readonly mac: Uint8Array;
  readonly mtu: number;
}): Uint8Array {
  const data = [
    u32(IFLA_VXLAN.ID, options.id),
    u8(IFLA_VXLAN.LEARNING, 0),
    // In network order, unlike the rest.
    bytes(IFLA_VXLAN.PORT, Uint8Array.of(options.port >>> 8, options.port & 255)),
  ];
  if (options.local !== undefined) data.push(bytes(IFLA_VXLAN.LOCAL, ipv4Bytes(options.local)));
  if (options.under !== undefined) data.push(u32(IFLA_VXLAN.LINK, options.under));
  return linkMessage(RTM.NEWLINK, CREATE, { index: 0 }, [
    text(IFLA.IFNAME, options.name),
    bytes(IFLA.ADDRESS, options.mac),
    u32(IFLA.MTU, options.mtu),
    linkInfo("vxlan", data),
  ]);
}

/** RTM_NEWLINK of a WireGuard device that does not exist yet; EOPNOTSUPP where the kernel has none. */
export function createWireguard(options: { readonly name: string; readonly mtu: number }): Uint8Array {
  return linkMessage(RTM.NEWLINK, CREATE, { index: 0 }, [
    text(IFLA.IFNAME, options.name),
    u32(IFLA.MTU, options.mtu),
    linkInfo("wireguard", []),
  ]);
}

/**
 * RTM_NEWLINK of a veth pair, sent from the namespace that gets `name`, which comes up; the peer is born, up as well,
 * in the namespace that `netns` names. Both indexes are chosen here so that the messages which follow can name
 * them without an answer having been read.
 */
export function createVeth(options: {
  readonly index: number;
  readonly name: string;
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly peer: {
    readonly index: number;
    readonly name: string;
    readonly mac: Uint8Array;
    readonly group: number;
    readonly netns: NetnsReference;
  };
}): Uint8Array {
  const { netns } = options.peer;
  const peer = concatenate([
    interfaceHeader({ index: options.peer.index }, undefined),
    ...[
      text(IFLA.IFNAME, options.peer.name),
      bytes(IFLA.ADDRESS, options.peer.mac),
      u32(IFLA.MTU, options.mtu),
      u32(IFLA.GROUP, options.peer.group),
      "fd" in netns ? u32(IFLA.NET_NS_FD, netns.fd) : u32(IFLA.NET_NS_PID, netns.pid),
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
    readonly mtu?: number;
    readonly mac?: Uint8Array;
    readonly ipv6?: false;
    /** Packets to and from 127.0.0.0/8 may pass this link. */
    readonly routeLocalnet?: true;
    /** 1: only packets whose source is reached by this very link (RFC 3704, strict); 0: all. */
    readonly reversePathFilter?: 0 | 1;
    readonly group?: number;
  },
): Uint8Array {
  const attributes: Attribute[] = [];
  if (change.group !== undefined) attributes.push(u32(IFLA.GROUP, change.group));
  if (change.mtu !== undefined) attributes.push(u32(IFLA.MTU, change.mtu));
  if (change.mac !== undefined) attributes.push(bytes(IFLA.ADDRESS, change.mac));
  const inet: Attribute[] = [];
  if (change.routeLocalnet) inet.push(u32(DEVCONF.ROUTE_LOCALNET, 1));
  if (change.reversePathFilter !== undefined) inet.push(u32(DEVCONF.RP_FILTER, change.reversePathFilter));
  const families: Attribute[] = [];
  if (inet.length > 0) families.push(nested(AF_INET, [nested(IFLA_INET_CONF, inet)]));
  if (change.ipv6 === false) families.push(nested(AF_INET6, [u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE)]));
  if (families.length > 0) attributes.push(nested(IFLA.AF_SPEC, families));
  return linkMessage(RTM.SETLINK, DO, link, attributes, change.up);
}

/** RTM_DELLINK; a veth takes its peer with it, a bridge leaves its ports. */
export function deleteLink(link: LinkSelector): Uint8Array {
  return linkMessage(RTM.DELLINK, DO, link, []);
}

/** RTM_DELLINK of all links of a group, which costs little more than of one; `ENODEV` when there is none. */
export function deleteLinkGroup(group: number): Uint8Array {
  return linkMessage(RTM.DELLINK, DO, { index: 0 }, [u32(IFLA.GROUP, group)]);
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

/** RTM_NEWADDR of an address, without a route to its subnet. One that exists is fine. */
export function addAddress(index: number, prefix: Prefix): Uint8Array {
  const flags = IFA_F_NOPREFIXROUTE | (familyOf(prefix.address) === 6 ? IFA_F_NODAD : 0);
  return addressMessage(RTM.NEWADDR, DO | NLM_F.CREATE | NLM_F.REPLACE, index, prefix, [u32(IFA_FLAGS, flags)]);
}

/** RTM_DELADDR. */
export function deleteAddress(index: number, prefix: Prefix): Uint8Array {
  return addressMessage(RTM.DELADDR, DO, index, prefix);
}

/** RTM_GETADDR of all addresses of a family. */
export function dumpAddresses(family: Family = 4): Uint8Array {
  const header = Uint8Array.of(family === 4 ? AF_INET : AF_INET6, 0, 0, 0, 0, 0, 0, 0);
  return encodeMessage({ type: RTM.GETADDR, flags: NLM_F.REQUEST | NLM_F.DUMP, header });
}

/** The links of an answer. Throws `data_loss` on malformed attributes. */
export function decodeLinks(messages: readonly NetlinkMessage[]): Link[] {
  return messages.flatMap(({ type, payload }) => {
    if (type !== RTM.NEWLINK || payload.length < 16) return [];
    const view = viewOf(payload);
    const attributes = decodeAttributes(payload.subarray(16));
    const info = decodeAttributes(attributes.get(IFLA.LINKINFO) ?? new Uint8Array());
    const kind = readText(info.get(IFLA_INFO_KIND));
    return {
      index: view.getInt32(4, true),
      name: readText(attributes.get(IFLA.IFNAME)),
      up: (view.getUint32(8, true) & IFF_UP) !== 0,
      mtu: readU32(attributes.get(IFLA.MTU)),
      group: readU32(attributes.get(IFLA.GROUP)),
      kind,
      mac: attributes.get(IFLA.ADDRESS) ?? new Uint8Array(),
      ...(kind === "vxlan" && { vxlan: readVxlan(info.get(IFLA_INFO_DATA)) }),
    };
  });
}

/** The addresses of an answer. */
export function decodeAddresses(messages: readonly NetlinkMessage[]): LinkAddress[] {
  return messages.flatMap(({ type, payload }) => {
    if (type !== RTM.NEWADDR || payload.length < 8) return [];
    const attributes = decodeAttributes(payload.subarray(8));
    const address = ipFromBytes(attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS) ?? new Uint8Array());
    if (address === undefined) return [];
    return { index: viewOf(payload).getUint32(4, true), prefix: { address, length: payload[1] ?? 32 } };
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

function addressMessage(
  type: number,
  flags: number,
  index: number,
  prefix: Prefix,
  more: readonly Attribute[] = [],
): Uint8Array {
  // struct ifaddrmsg: family, prefixlen, flags, scope, index.
  const header = new Uint8Array(8);
  header[0] = familyOf(prefix.address) === 4 ? AF_INET : AF_INET6;
  header[1] = prefix.length;
  viewOf(header).setUint32(4, index, true);
  const address = ipBytes(prefix.address);
  const attributes = [bytes(IFA_LOCAL, address), bytes(IFA_ADDRESS, address), ...more];
  return encodeMessage({ type, flags, header, attributes });
}

function readVxlan(data: Uint8Array = new Uint8Array()): NonNullable<Link["vxlan"]> {
  const attributes = decodeAttributes(data);
  const [high = 0, low = 0] = attributes.get(IFLA_VXLAN.PORT) ?? [];
  const local = ipv4FromBytes(attributes.get(IFLA_VXLAN.LOCAL) ?? new Uint8Array());
  const under = readU32(attributes.get(IFLA_VXLAN.LINK));
  return { id: readU32(attributes.get(IFLA_VXLAN.ID)), port: high * 256 + low, local, under };
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
