/**
 * The WireGuard device of a host: found, made and mended here. It carries no routes: what is sent through it is sent to it
 * by name, and it asks of each packet only whose address it goes to. Each other host is a peer that speaks for its own
 * address and no other.
 */
import { SwarmError } from "../../common/base/error.ts";
import type { Ipv4 } from "./address.ts";
import { findLink } from "./fabric.ts";
import { type Attribute, exchange, NETLINK, type Netlink } from "./netlink.ts";
import { createWireguard, type Link, setLink } from "./rtnetlink.ts";
import { publicKeyOf } from "./wireguard-key.ts";
import {
  decodeDevice,
  decodeFamily,
  forgottenPeer,
  getDevice,
  getFamily,
  type KernelPeer,
  type PeerSpec,
  peerAttribute,
  setDevice,
} from "./wireguard-messages.ts";

/** Below half a minute, after which many firewalls forget a UDP flow. */
const KEEPALIVE_SECONDS = 25;
/** Peers told in one message: all of them together must stay below an attribute's 64 KiB. */
const PEERS_MAX = 150;

/** What the device should be. */
export interface TunnelOptions {
  readonly name: string;
  readonly mtu: number;
  readonly privateKey: Uint8Array;
  /** UDP port on all hosts. */
  readonly port: number;
  readonly peers: readonly TunnelPeer[];
}

/** Another host. */
export interface TunnelPeer {
  readonly host: Ipv4;
  readonly key: Uint8Array;
  /** Whether tasks of the two hosts may speak to each other now: then their session is kept alive. */
  readonly busy: boolean;
}

/** Whether this kernel has WireGuard; it loads its module for the question. */
export async function hasWireguard(netlink: Netlink, signal: AbortSignal): Promise<boolean> {
  return (await familyOf(netlink, signal)) !== undefined;
}

/** Makes the device, or mends what somebody changed. Throws `failed_precondition`, when its port is taken for one. */
export async function ensureTunnel(
  netlink: Netlink,
  options: TunnelOptions,
  signal: AbortSignal,
): Promise<{ readonly index: number }> {
  const { name, mtu } = options;
  const before = await findLink(netlink, name, signal);
  if (before !== undefined && before.kind !== "wireguard") {
    const kind = before.kind || "device";
    throw new SwarmError("failed_precondition", `create ${name}: a ${kind} of that name exists on this host`);
  }
  if (before === undefined)
    await route(netlink, createWireguard({ name, mtu }), `create wireguard device ${name}`, signal);
  const device: Link | undefined = before ?? (await findLink(netlink, name, signal));
  if (device === undefined) throw new SwarmError("aborted", `create ${name}: it vanished again`);
  await configure(netlink, options, signal);
  if (!device.up || device.mtu !== mtu) {
    const change = setLink({ index: device.index }, { up: true, mtu, reversePathFilter: 0 });
    await route(netlink, change, `bring ${name} up (UDP port ${options.port})`, signal);
  }
  return { index: device.index };
}

/** Tells the kernel of the key, the port and the peers that it does not know yet. */
async function configure(netlink: Netlink, options: TunnelOptions, signal: AbortSignal): Promise<void> {
  const { name, privateKey, port } = options;
  const family = await familyOf(netlink, signal);
  if (family === undefined) throw new SwarmError("failed_precondition", "this node's kernel has no WireGuard");
  const ask = (message: Uint8Array, label: string) =>
    exchange(netlink, { protocol: NETLINK.GENERIC, message, label }, signal);
  const kernel = decodeDevice(await ask(getDevice(family, name), `read ${name}`));
  const rekeyed = Buffer.compare(kernel.publicKey, publicKeyOf(privateKey)) !== 0;
  const peers = peerChanges(peerSpecs(options), kernel.peers, { rekeyed });
  if (rekeyed || kernel.port !== port) {
    const change = { port, ...(rekeyed && { privateKey }), peers: peers.splice(0, PEERS_MAX) };
    await ask(setDevice(family, name, change), `set ${name}'s key and port ${port}`);
  }
  while (peers.length > 0) {
    await ask(setDevice(family, name, { peers: peers.splice(0, PEERS_MAX) }), `set ${name}'s peers`);
  }
}

function peerSpecs({ port, peers }: TunnelOptions): readonly PeerSpec[] {
  return peers.map(({ host, key, busy }) => ({ host, key, port, keepaliveSeconds: busy ? KEEPALIVE_SECONDS : 0 }));
}

/**
 * What to say so that exactly these peers are known; nothing of those that are right. A key that is new for a host or for
 * this one ends their session: they begin another at once, and not with the next packet, since the first side that tries
 * before the other knows the key waits five seconds to try again. A peer that was given a second secret is forgotten with
 * it, and begins anew. Pure.
 */
export function peerChanges(
  wanted: readonly PeerSpec[],
  kernel: readonly KernelPeer[],
  { rekeyed }: { readonly rekeyed: boolean },
): Attribute[] {
  const keys = new Set(wanted.map(({ key }) => hex(key)));
  const isKept = ({ key, preshared }: KernelPeer) => keys.has(hex(key)) && !preshared;
  const known = new Map(kernel.filter(isKept).map((peer) => [hex(peer.key), peer]));
  const hosts = new Set(kernel.flatMap(({ allowed }) => allowed.map(({ address }) => address)));
  const gone = kernel.filter((peer) => !isKept(peer)).map(({ key }) => forgottenPeer(key));
  const told = wanted.flatMap((spec) => {
    const found = known.get(hex(spec.key));
    if (found === undefined ? hosts.has(spec.host) : rekeyed) return greeting(spec);
    return found !== undefined && isAsWanted(found, spec) ? [] : [peerAttribute(spec)];
  });
  return [...gone, ...told];
}

/** A peer that is spoken to at once: the kernel does so when its keepalive begins. */
function greeting(spec: PeerSpec): Attribute[] {
  const greeted = [0, KEEPALIVE_SECONDS].map((keepaliveSeconds) => peerAttribute({ ...spec, keepaliveSeconds }));
  return spec.keepaliveSeconds === 0 ? [...greeted, peerAttribute(spec)] : greeted;
}

/** Where it is the kernel learns from its packets: that is not compared. */
function isAsWanted({ allowed, keepaliveSeconds }: KernelPeer, spec: PeerSpec): boolean {
  const [first, ...others] = allowed;
  const alone = first?.address === spec.host && first.length === 32 && others.length === 0;
  return alone && keepaliveSeconds === spec.keepaliveSeconds;
}

async function familyOf(netlink: Netlink, signal: AbortSignal): Promise<number | undefined> {
  const request = {
    protocol: NETLINK.GENERIC,
    message: getFamily(),
    label: "look for WireGuard",
    tolerated: ["ENOENT"],
  };
  return decodeFamily(await exchange(netlink, request, signal));
}

async function route(netlink: Netlink, message: Uint8Array, label: string, signal: AbortSignal): Promise<void> {
  await exchange(netlink, { protocol: NETLINK.ROUTE, message, label }, signal);
}

function hex(key: Uint8Array): string {
  return Buffer.from(key).toString("hex");
}
