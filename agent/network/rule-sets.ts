/** The sets and maps of the host's nftables table: what their elements are follows from the wanted state. Pure. */
import { type Family, formatIp, formatIpv4, formatPrefix, type Ip, networkOf } from "./address.ts";
import type { PublishedPort, RulesetState, VirtualAddress } from "./ruleset.ts";

/** How nft calls what is of a family. */
export const WORDS = {
  4: { ip: "ip", address: "ipv4_addr", refusal: "icmp type admin-prohibited", multicast: "224.0.0.0/4" },
  6: { ip: "ip6", address: "ipv6_addr", refusal: "icmpv6 type admin-prohibited", multicast: "ff00::/8" },
} as const;

export function portChain(port: PublishedPort): string {
  return `${port.protocol}-${port.port}${port.hostIp === undefined ? "" : `-${underscored(port.hostIp)}`}`;
}

export function virtualChain({ address }: VirtualAddress): string {
  return `vip-${underscored(address)}`;
}

export function leavingChain({ address }: VirtualAddress): string {
  return `leaving-${underscored(address)}`;
}

function underscored(address: Ip): string {
  return formatIp(address).replaceAll(/[.:]/g, "_");
}

export interface SetContent {
  readonly declaration: readonly string[];
  readonly elements: readonly string[];
}

export function kindOf(name: string): string {
  return ["published", "published_at", "virtual", "leaving", "hosts", "selves"].includes(name) ? "map" : "set";
}

export function setsOf(state: RulesetState, family: Family): Readonly<Record<string, SetContent>> {
  const { address: type } = WORDS[family];
  const { published, virtual, leaving, networks, pool } = state;
  const live = published.filter(({ targets }) => targets.length > 0);
  const own = family === 4 ? [networkOf(pool)] : [];
  const subnets = [...own, ...networks.map(({ subnet }) => networkOf(subnet))].map(formatPrefix);
  return {
    published: {
      declaration: ["type inet_proto . inet_service : verdict"],
      elements: live.filter(({ hostIp }) => hostIp === undefined).map(portElement),
    },
    published_at: {
      declaration: [`type ${type} . inet_proto . inet_service : verdict`],
      elements: live.filter(({ hostIp }) => hostIp !== undefined).map(portElement),
    },
    // What is led elsewhere, on whatever address: only to know what is not the host's own.
    ports: {
      declaration: ["type inet_proto . inet_service"],
      elements: [...new Set(live.map(({ protocol, port }) => `${protocol} . ${port}`))],
    },
    virtual: {
      declaration: [`type ${type} : verdict`],
      elements: virtual
        .filter(({ targets }) => targets.length > 0)
        .map((each) => `${formatIp(each.address)} : jump ${virtualChain(each)}`),
    },
    leaving: {
      declaration: [`type ${type} : verdict`],
      elements: leaving
        .filter(({ targets }) => targets.length > 0)
        .map((each) => `${formatIp(each.address)} : jump ${leavingChain(each)}`),
    },
    // A service without a task that serves: refused at once, so that its client need not wait.
    idle: {
      declaration: [`type ${type}`],
      elements: virtual.filter(({ targets }) => targets.length === 0).map(({ address }) => formatIp(address)),
    },
    // Both addresses of a packet are of the same network.
    same: {
      declaration: [`type ${type} . ${type}`, "flags interval"],
      elements: subnets.map((subnet) => `${subnet} . ${subnet}`),
    },
    subnets: { declaration: [`type ${type}`, "flags interval"], elements: subnets },
    internal: {
      declaration: [`type ${type}`, "flags interval"],
      elements: networks.filter(({ internal }) => internal).map(({ subnet }) => formatPrefix(networkOf(subnet))),
    },
    ...placeSets(state, family),
  };
}

/** Hosts, and who is where. */
function placeSets(state: RulesetState, family: Family): Readonly<Record<string, SetContent>> {
  const { address: type } = WORDS[family];
  const { hosts, local, served, secret } = state;
  const peers = [...new Set(hosts.map(({ host }) => formatIpv4(host)))];
  return {
    hosts: {
      declaration: ["type ether_addr : mark"],
      elements: hosts.map(({ mac, mark }) => `${formatMac(mac)} : ${hex(mark)}`),
    },
    peers: { declaration: ["type ipv4_addr"], elements: peers },
    // Hosts as clients, and as the way to a task: nobody takes a packet that comes from himself.
    ...(family === 4 && {
      returning: { declaration: ["type ipv4_addr . ipv4_addr"], elements: peers.map((peer) => `${peer} . ${peer}`) },
    }),
    // A task that reaches itself by a translated address, and as whom it then sees itself: it must find the way back.
    selves: {
      declaration: [`type ${type} . ${type} : ${type}`],
      elements: local.flatMap((addresses) =>
        addresses.flatMap(({ address: to, gateway }) =>
          addresses.map(({ address: from }) => `${formatIp(from)} . ${formatIp(to)} : ${formatIp(gateway)}`),
        ),
      ),
    },
    ...(state.encrypted && {
      secret: { declaration: [`type ${type}`, "flags interval"], elements: secret.map(formatPrefix) },
    }),
    served: {
      declaration: [`type ${type} . inet_proto . inet_service`],
      elements: [
        ...new Set(served.map(({ address, protocol, port }) => `${formatIp(address)} . ${protocol} . ${port}`)),
      ],
    },
  };
}

function portElement(port: PublishedPort): string {
  const at = port.hostIp === undefined ? "" : `${formatIp(port.hostIp)} . `;
  return `${at}${port.protocol} . ${port.port} : jump ${portChain(port)}`;
}

function formatMac(mac: Uint8Array): string {
  return [...mac].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
