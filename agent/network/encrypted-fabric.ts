/**
 * The other fabric of a host, for networks whose traffic must not pass in clear: a vxlan device whose packets leave by a
 * WireGuard device and by nothing else. It is there while something is behind it.
 *
 *   task ── swarm0e: vxlan, 02:54:<host> ── swarm0w: WireGuard ══ UDP, the fabric's port + 1 ══ swarm0w ── swarm0e ── task
 */
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Ipv4 } from "./address.ts";
import type { EncryptedWay } from "./encrypted-rules.ts";
import {
  encryptedMac,
  ensureFabric,
  type FabricState,
  fabricNumber,
  MTU_MIN,
  removeLink,
  VXLAN_OVERHEAD,
} from "./fabric.ts";
import type { RemoteAddress, Way } from "./forwarding.ts";
import { tameIpv6 } from "./ipv6.ts";
import type { Netlink } from "./netlink.ts";
import { quietLink, type Sysctls } from "./sysctl.ts";
import { ensureTunnel, type TunnelPeer } from "./tunnel.ts";
import { publicKeyOf } from "./wireguard-key.ts";

/** What WireGuard adds to a packet over IPv4: an IP, a UDP and a header of its own, and what authenticates it. */
const WIREGUARD_OVERHEAD = 60;

/** What is to be behind the fabric. */
export interface EncryptedContent {
  /** This host's address for the others. */
  readonly local: Ipv4;
  /** UDP port of the fabric in clear. */
  readonly port: number;
  readonly privateKey: Uint8Array;
  /** The keys of the other hosts; one without takes part in nothing that is encrypted. */
  readonly keys: ReadonlyMap<Ipv4, Uint8Array>;
  /** Of tasks on encrypted networks. */
  readonly remote: readonly RemoteAddress[];
  /** Of the containers. */
  readonly mtu: number;
}

/** The MTU of containers on encrypted networks, where so much fits through the device that packets leave by. */
export function encryptedMtu(underlay: number): number {
  return Math.max(MTU_MIN, underlay - WIREGUARD_OVERHEAD - VXLAN_OVERHEAD);
}

export class EncryptedFabric {
  readonly #world: { readonly netlink: Netlink; readonly sysctls: Sysctls; readonly logger: Logger };
  readonly #device: string;
  readonly #tunnel: string;
  #state: FabricState | undefined;
  /** What was last made; undefined when that may not be so any more. */
  #made: string | undefined;
  #way: Way | undefined;
  #problem: string | undefined;

  constructor(
    world: { readonly netlink: Netlink; readonly sysctls: Sysctls; readonly logger: Logger },
    fabric: string,
  ) {
    this.#world = world;
    this.#device = `${fabric}e`;
    this.#tunnel = `${fabric}w`;
  }

  /** For the rules. */
  get way(): EncryptedWay {
    return { device: this.#device, tunnel: this.#tunnel, id: fabricNumber(this.#device) };
  }

  /** Why it could not be made when that was last tried. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Somebody may have changed what the kernel has. */
  distrust(): void {
    // What is not there comes from nobody else.
    if (this.#made !== "") this.#made = undefined;
  }

  /**
   * Makes the fabric lead to `content`, or removes it: then that is undefined. What is right is not touched. Where it
   * cannot be made that is told to the log, and there is no way.
   */
  async ensure(content: EncryptedContent | undefined, signal: AbortSignal): Promise<Way | undefined> {
    const wanted = content === undefined ? "" : keyOf(content);
    if (this.#made !== wanted) {
      this.#way = undefined;
      if (content === undefined) await this.remove(signal);
      else await this.#try(content, signal);
      this.#made = wanted;
    }
    const remote = content?.remote.filter(({ host }) => content.keys.has(host)) ?? [];
    return this.#way && { ...this.#way, remote };
  }

  async remove(signal: AbortSignal): Promise<void> {
    this.#state = undefined;
    await removeLink(this.#world.netlink, { name: this.#device }, signal);
    await removeLink(this.#world.netlink, { name: this.#tunnel }, signal);
  }

  async #try(content: EncryptedContent, signal: AbortSignal): Promise<void> {
    try {
      this.#way = await this.#make(content, signal);
      this.#problem = undefined;
    } catch (reason) {
      if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
      if (this.#problem !== reason.message) this.#world.logger.error({ err: reason }, "nothing can be encrypted here");
      this.#problem = reason.message;
      this.#state = undefined;
    }
  }

  async #make(content: EncryptedContent, signal: AbortSignal): Promise<Way> {
    const { netlink, sysctls, logger } = this.#world;
    const { local, port, privateKey, keys, mtu } = content;
    const tunnel = { name: this.#tunnel, mtu: mtu + VXLAN_OVERHEAD, port: port + 1 };
    const { index: under } = await ensureTunnel(netlink, { ...tunnel, privateKey, peers: peersOf(content) }, signal);
    const options = { name: this.#device, mac: encryptedMac(local), local, under, port, mtu };
    const state = await ensureFabric(netlink, options, signal);
    const devices = [this.#tunnel, this.#device];
    for (const name of devices) await tameIpv6(sysctls, name);
    if (this.#state?.index !== state.index || state.anew) {
      for (const name of devices) await quietLink(sysctls, name);
      logger.info({ device: this.#device, tunnel: this.#tunnel, mtu }, "encrypted fabric made or mended");
    }
    this.#state = state;
    return { index: state.index, under, macOf: encryptedMac, hosts: [...keys.keys()], remote: [] };
  }
}

/** All hosts that have a key may begin to speak to this one; those whose tasks this one's know of are kept alive. */
function peersOf({ keys, remote }: EncryptedContent): readonly TunnelPeer[] {
  const busy = new Set(remote.map(({ host }) => host));
  return [...keys].map(([host, key]) => ({ host, key, busy: busy.has(host) }));
}

function keyOf(content: EncryptedContent): string {
  const { local, port, mtu } = content;
  const peers = peersOf(content).map(({ host, key, busy }) => [host, hexOf(key), busy]);
  return JSON.stringify([local, port, hexOf(publicKeyOf(content.privateKey)), mtu, peers]);
}

function hexOf(key: Uint8Array): string {
  return Buffer.from(key).toString("hex");
}
