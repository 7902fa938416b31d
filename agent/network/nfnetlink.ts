/**
 * Two questions to netfilter over NETLINK_NETFILTER: has anybody changed the rules since, and which tracked
 * connections lead to an address that is gone. Pure; layouts as in linux/netfilter/nfnetlink.h, nf_tables.h and
 * nfnetlink_conntrack.h. Unlike rtnetlink's, netfilter's integers are big-endian.
 */
import { type Family, familyOf, type Ip, ipBytes, ipFromBytes } from "./address.ts";
import {
  type Attribute,
  bytes,
  decodeAttributes,
  encodeMessage,
  type NetlinkMessage,
  NLM_F,
  nested,
  nestedBytes,
  u8,
  u32,
} from "./netlink.ts";

const NFT_MSG_NEWGEN = (10 << 8) | 15;
const NFT_MSG_GETGEN = (10 << 8) | 16;
const NFTA_GEN_ID = 1;

const CT_NEW = 1 << 8;
const CT_GET = (1 << 8) | 1;
const CT_DELETE = (1 << 8) | 2;
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_PROTOINFO = 4;
const CTA_MARK = 8;
const CTA_ID = 12;
const CTA_MARK_MASK = 21;
const CTA_FILTER = 25;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
/** Bits of both flag words: the kernel's nf_conntrack_netlink.c, CTA_FILTER_F_*. */
const FILTER_IP_SRC = 1 << 0;
const FILTER_PROTO_NUM = 1 << 3;
const FILTER_PROTO_DST_PORT = 1 << 5;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_IP_SRC: Readonly<Record<Family, number>> = { 4: 1, 6: 3 };
const CTA_IP_DST: Readonly<Record<Family, number>> = { 4: 2, 6: 4 };
const CTA_PROTO_NUM = 1;
const CTA_PROTO_DST_PORT = 3;
const CTA_PROTOINFO_TCP = 1;
const CTA_PROTOINFO_TCP_STATE = 1;
/** linux/netfilter/nf_conntrack_tcp.h: both sides have closed it. */
const TCP_CONNTRACK_TIME_WAIT = 7;

const AF_UNSPEC = 0;
const AF: Readonly<Record<Family, number>> = { 4: 2, 6: 10 };

/** A tracked connection, as much of it as deleting needs: its second direction and its id, kept as they came. */
export interface TrackedConnection {
  /** Who answers: the address that a DNAT chose. */
  readonly replySource: Ip;
  /** IPPROTO_*: 17 for UDP. */
  readonly protocol: number;
  /** The address and port that the client asked for, before any translation. */
  readonly destination: Ip;
  readonly destinationPort: number;
  /**
   * TCP that both sides have closed. Nobody waits for it, and the kernel forgets it by itself as soon as the client
   * begins another connection from the same port.
   */
  readonly closed: boolean;
  readonly replyTuple: Uint8Array;
  readonly id: Uint8Array | undefined;
}

/** Asks for the generation of the namespace's rules; each transaction of anybody raises it by one. */
export function getGeneration(): Uint8Array {
  return encodeMessage({ type: NFT_MSG_GETGEN, flags: NLM_F.REQUEST | NLM_F.ACK, header: nfgenmsg(AF_UNSPEC) });
}

/** The generation of an answer; undefined when there is none in it. */
export function decodeGeneration(messages: readonly NetlinkMessage[]): number | undefined {
  for (const { type, payload } of messages) {
    if (type !== NFT_MSG_NEWGEN || payload.length < 4) continue;
    const value = decodeAttributes(payload.subarray(4)).get(NFTA_GEN_ID);
    if (value?.length === 4) return new DataView(value.buffer, value.byteOffset, 4).getUint32(0);
  }
  return undefined;
}

/** Which connections a dump is asked for: those that one of some addresses answers, or those of a protocol to a port. */
export type ConnectionFilter =
  | { readonly replySources: ReadonlySet<Ip>; readonly protocol?: number }
  | { readonly protocol: number; readonly destinationPort?: number };

/**
 * A dump of the tracked connections of a family. The kernel filters by one address only, and not at all before 5.8: filter
 * again.
 */
export function dumpConnections(family: Family, filter: ConnectionFilter): Uint8Array {
  return encodeMessage({
    type: CT_GET,
    flags: NLM_F.REQUEST | NLM_F.DUMP,
    header: nfgenmsg(AF[family]),
    attributes: filterAttributes(filter),
  });
}

function filterAttributes(filter: ConnectionFilter): Attribute[] {
  const protocol = filter.protocol === undefined ? [] : [u8(CTA_PROTO_NUM, filter.protocol)];
  const numbered = protocol.length > 0 ? FILTER_PROTO_NUM : 0;
  if (!("replySources" in filter)) {
    const { destinationPort: number } = filter;
    const port = number === undefined ? [] : [bytes(CTA_PROTO_DST_PORT, Uint8Array.of(number >> 8, number & 255))];
    const tuple = nested(CTA_TUPLE_PROTO, [...protocol, ...port]);
    const looked = numbered | (number === undefined ? 0 : FILTER_PROTO_DST_PORT);
    const flags = [u32(CTA_FILTER_ORIG_FLAGS, looked), u32(CTA_FILTER_REPLY_FLAGS, 0)];
    return [nested(CTA_TUPLE_ORIG, [tuple]), nested(CTA_FILTER, flags)];
  }
  const [source, ...others] = filter.replySources;
  if (source === undefined || others.length > 0) return [];
  const ip = nested(CTA_TUPLE_IP, [bytes(CTA_IP_SRC[familyOf(source)], ipBytes(source))]);
  const tuple = [ip, ...(numbered === 0 ? [] : [nested(CTA_TUPLE_PROTO, protocol)])];
  const flags = [u32(CTA_FILTER_ORIG_FLAGS, 0), u32(CTA_FILTER_REPLY_FLAGS, FILTER_IP_SRC | numbered)];
  return [nested(CTA_TUPLE_REPLY, tuple), nested(CTA_FILTER, flags)];
}

/** The connections of a dump that match `filter`. */
export function decodeConnections(
  messages: readonly NetlinkMessage[],
  filter: ConnectionFilter,
): readonly TrackedConnection[] {
  const connections = messages.flatMap(({ type, payload }) => {
    if (type !== CT_NEW || payload.length < 4) return [];
    const attributes = decodeAttributes(payload.subarray(4));
    const originalTuple = attributes.get(CTA_TUPLE_ORIG);
    const replyTuple = attributes.get(CTA_TUPLE_REPLY);
    const family = payload[0] === AF[4] ? 4 : 6;
    const replySource = ipFromBytes(inside(replyTuple, CTA_TUPLE_IP, CTA_IP_SRC[family]));
    const destination = ipFromBytes(inside(originalTuple, CTA_TUPLE_IP, CTA_IP_DST[family]));
    if (replySource === undefined || destination === undefined || replyTuple === undefined) return [];
    const port = inside(originalTuple, CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT);
    const state = inside(attributes.get(CTA_PROTOINFO), CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE)[0];
    return {
      replySource,
      destination,
      protocol: inside(originalTuple, CTA_TUPLE_PROTO, CTA_PROTO_NUM)[0] ?? 0,
      destinationPort: (port[0] ?? 0) * 256 + (port[1] ?? 0),
      closed: state === TCP_CONNTRACK_TIME_WAIT,
      replyTuple,
      id: attributes.get(CTA_ID),
    };
  });
  return connections.filter(({ protocol, replySource, destinationPort }) => {
    if (filter.protocol !== undefined && protocol !== filter.protocol) return false;
    if ("replySources" in filter) return filter.replySources.has(replySource);
    return filter.destinationPort === undefined || destinationPort === filter.destinationPort;
  });
}

/** The attribute `type` of the attribute `part` of a nest; empty when there is none. */
function inside(nest: Uint8Array | undefined, part: number, type: number): Uint8Array {
  const parts = decodeAttributes(nest ?? new Uint8Array());
  return decodeAttributes(parts.get(part) ?? new Uint8Array()).get(type) ?? new Uint8Array();
}

/**
 * Forgets one connection; ENOENT when it ended meanwhile. It is named by what answers it: the client may have begun another
 * from the same port since, which has the same first direction, and often the same id too, since the kernel makes the id
 * of that direction and of the place in memory, which it uses again at once.
 */
export function deleteConnection(connection: TrackedConnection): Uint8Array {
  return encodeMessage({
    type: CT_DELETE,
    flags: NLM_F.REQUEST | NLM_F.ACK,
    header: nfgenmsg(AF[familyOf(connection.replySource)]),
    attributes: [
      nestedBytes(CTA_TUPLE_REPLY, connection.replyTuple),
      ...(connection.id === undefined ? [] : [bytes(CTA_ID, connection.id)]),
    ],
  });
}

/**
 * Forgets all connections that `address` answers, without a list of them. Since Linux 6.12; before it the kernel takes
 * this for a connection that is not described in full, and refuses it with EINVAL.
 */
export function flushConnections(address: Ip): Uint8Array {
  const family = familyOf(address);
  return encodeMessage({
    type: CT_DELETE,
    flags: NLM_F.REQUEST | NLM_F.ACK,
    // Version 1: the family counts.
    header: nfgenmsg(AF[family], 1),
    attributes: filterAttributes({ replySources: new Set([address]) }),
  });
}

/** Forgets all connections, of both families, that bear a mark. */
export function flushMarked(mark: number): Uint8Array {
  const value = new Uint8Array(4);
  new DataView(value.buffer).setUint32(0, mark);
  return encodeMessage({
    type: CT_DELETE,
    flags: NLM_F.REQUEST | NLM_F.ACK,
    header: nfgenmsg(AF_UNSPEC),
    attributes: [bytes(CTA_MARK, value), u32(CTA_MARK_MASK, 0xffffffff)],
  });
}

/** struct nfgenmsg: family, version, resource id 0. */
function nfgenmsg(family: number, version = 0): Uint8Array {
  return Uint8Array.of(family, version, 0, 0);
}
