/**
 * WireGuard's devices as generic netlink bytes, and the reader of what the kernel tells of one. Pure: nothing here is
 * sent. Layouts: linux/genetlink.h, linux/wireguard.h.
 */
import { type Ipv4, ipv4Bytes, ipv4FromBytes } from "./address.ts";
import {
  type Attribute,
  bytes,
  decodeAttributes,
  encodeMessage,
  listAttributes,
  type NetlinkMessage,
  NLM_F,
  nested,
  text,
  u8,
  u16,
  u32,
} from "./netlink.ts";

const GENL_ID_CTRL = 16;
const CTRL = { GETFAMILY: 3, ATTR_FAMILY_ID: 1, ATTR_FAMILY_NAME: 2 } as const;
const FAMILY_NAME = "wireguard";

const WG_CMD = { GET_DEVICE: 0, SET_DEVICE: 1 } as const;
const WGDEVICE = { IFNAME: 2, PRIVATE_KEY: 3, PUBLIC_KEY: 4, LISTEN_PORT: 6, PEERS: 8 } as const;
const WGPEER = { PUBLIC_KEY: 1, PRESHARED_KEY: 2, FLAGS: 3, ENDPOINT: 4, KEEPALIVE: 5, ALLOWED_IPS: 9 } as const;
const WGPEER_F = { REMOVE_ME: 1, REPLACE_ALLOWED_IPS: 2 } as const;
const WGALLOWEDIP = { FAMILY: 1, ADDRESS: 2, MASK: 3 } as const;
const VERSION = 1;
const AF_INET = 2;
const ADDRESS_BITS = 32;

/** Bytes of a key of either kind (X25519). */
export const KEY_BYTES = 32;

/** What a device is told of another host: its key, where it is, and the one address that it speaks for. */
export interface PeerSpec {
  readonly key: Uint8Array;
  readonly host: Ipv4;
  readonly port: number;
  /** A word each so many seconds, and one at once, so that both sides agree on a session; 0: none. */
  readonly keepaliveSeconds: number;
}

/** What a device knows of another host. */
export interface KernelPeer {
  readonly key: Uint8Array;
  /** The addresses that it may speak for, "192.0.2.1/32"; of both families. */
  readonly allowed: readonly { readonly address: Ipv4 | undefined; readonly length: number }[];
  readonly keepaliveSeconds: number;
  /** Whether a session needs a secret beside the keys (`preshared-key`): none of ours does. */
  readonly preshared: boolean;
}

/** A device as the kernel has it. */
export interface WireguardDevice {
  /** Empty: none yet. */
  readonly publicKey: Uint8Array;
  readonly port: number;
  readonly peers: readonly KernelPeer[];
}

/** CTRL_CMD_GETFAMILY of WireGuard; the kernel loads the module for it where there is one, else answers ENOENT. */
export function getFamily(): Uint8Array {
  const header = Uint8Array.of(CTRL.GETFAMILY, VERSION, 0, 0);
  const attributes = [text(CTRL.ATTR_FAMILY_NAME, FAMILY_NAME)];
  return encodeMessage({ type: GENL_ID_CTRL, flags: NLM_F.REQUEST | NLM_F.ACK, header, attributes });
}

/** The number of the family in an answer; undefined when there is none. */
export function decodeFamily(messages: readonly NetlinkMessage[]): number | undefined {
  for (const { type, payload } of messages) {
    if (type !== GENL_ID_CTRL || payload.length < 4) continue;
    const [low, high] = decodeAttributes(payload.subarray(4)).get(CTRL.ATTR_FAMILY_ID) ?? [];
    if (low !== undefined && high !== undefined) return high * 256 + low;
  }
  return undefined;
}

/** WG_CMD_GET_DEVICE, a dump; ENODEV when there is no such device. */
export function getDevice(family: number, name: string): Uint8Array {
  const header = Uint8Array.of(WG_CMD.GET_DEVICE, VERSION, 0, 0);
  const flags = NLM_F.REQUEST | NLM_F.DUMP;
  return encodeMessage({ type: family, flags, header, attributes: [text(WGDEVICE.IFNAME, name)] });
}

/** WG_CMD_SET_DEVICE: changes only what is given, peers in the order given. */
export function setDevice(
  family: number,
  name: string,
  change: {
    readonly privateKey?: Uint8Array | undefined;
    readonly port?: number | undefined;
    readonly peers?: readonly Attribute[] | undefined;
  },
): Uint8Array {
  const attributes = [text(WGDEVICE.IFNAME, name)];
  if (change.privateKey !== undefined) attributes.push(bytes(WGDEVICE.PRIVATE_KEY, change.privateKey));
  if (change.port !== undefined) attributes.push(u16(WGDEVICE.LISTEN_PORT, change.port));
  if (change.peers !== undefined) attributes.push(nested(WGDEVICE.PEERS, change.peers));
  const header = Uint8Array.of(WG_CMD.SET_DEVICE, VERSION, 0, 0);
  return encodeMessage({ type: family, flags: NLM_F.REQUEST | NLM_F.ACK, header, attributes });
}

/** For `setDevice`: a peer as it is to be, new or not. It speaks for its host's address and no other. */
export function peerAttribute({ key, host, port, keepaliveSeconds }: PeerSpec): Attribute {
  // struct sockaddr_in: family, port in network order, address, padding.
  const endpoint = new Uint8Array(16);
  endpoint.set([AF_INET, 0, port >>> 8, port & 255, ...ipv4Bytes(host)]);
  const allowed = nested(0, [
    u16(WGALLOWEDIP.FAMILY, AF_INET),
    bytes(WGALLOWEDIP.ADDRESS, ipv4Bytes(host)),
    u8(WGALLOWEDIP.MASK, ADDRESS_BITS),
  ]);
  return nested(0, [
    bytes(WGPEER.PUBLIC_KEY, key),
    u32(WGPEER.FLAGS, WGPEER_F.REPLACE_ALLOWED_IPS),
    bytes(WGPEER.ENDPOINT, endpoint),
    u16(WGPEER.KEEPALIVE, keepaliveSeconds),
    nested(WGPEER.ALLOWED_IPS, [allowed]),
  ]);
}

/** For `setDevice`: a peer that is to be forgotten. */
export function forgottenPeer(key: Uint8Array): Attribute {
  return nested(0, [bytes(WGPEER.PUBLIC_KEY, key), u32(WGPEER.FLAGS, WGPEER_F.REMOVE_ME)]);
}

/** The device of an answer, which may come in several messages; a peer's addresses may too. */
export function decodeDevice(messages: readonly NetlinkMessage[]): WireguardDevice {
  let publicKey: Uint8Array = new Uint8Array();
  let port = 0;
  const peers = new Map<string, KernelPeer>();
  for (const { payload } of messages) {
    const attributes = decodeAttributes(payload.subarray(4));
    publicKey = attributes.get(WGDEVICE.PUBLIC_KEY) ?? publicKey;
    port = readU16(attributes.get(WGDEVICE.LISTEN_PORT)) ?? port;
    for (const [, value] of listAttributes(attributes.get(WGDEVICE.PEERS) ?? new Uint8Array())) {
      const peer = decodePeer(value);
      const name = Buffer.from(peer.key).toString("hex");
      const before = peers.get(name);
      peers.set(name, before === undefined ? peer : { ...before, allowed: [...before.allowed, ...peer.allowed] });
    }
  }
  return { publicKey, port, peers: [...peers.values()] };
}

function decodePeer(value: Uint8Array): KernelPeer {
  const attributes = decodeAttributes(value);
  const allowed = listAttributes(attributes.get(WGPEER.ALLOWED_IPS) ?? new Uint8Array()).map(([, each]) => {
    const fields = decodeAttributes(each);
    return {
      address: ipv4FromBytes(fields.get(WGALLOWEDIP.ADDRESS) ?? new Uint8Array()),
      length: fields.get(WGALLOWEDIP.MASK)?.[0] ?? 0,
    };
  });
  return {
    key: attributes.get(WGPEER.PUBLIC_KEY) ?? new Uint8Array(),
    allowed,
    keepaliveSeconds: readU16(attributes.get(WGPEER.KEEPALIVE)) ?? 0,
    // The kernel always tells it: zeros where there is none.
    preshared: (attributes.get(WGPEER.PRESHARED_KEY) ?? new Uint8Array()).some((byte) => byte !== 0),
  };
}

function readU16(value: Uint8Array | undefined): number | undefined {
  const [low, high] = value ?? [];
  return low === undefined || high === undefined ? undefined : high * 256 + low;
}
