/**
 * The host's nftables rules as text for `nft -f -`, computed from the whole wanted state. Ours is one table, and a
 * second of the same name for IPv6 where networks have it; nothing else of the host's rules is read or touched. Each
 * published port and each virtual address has a chain of its own, found through a map, so a packet's cost does not grow
 * with their number; its targets are elements of one more map.
 */
import {
  type Family,
  familyOf,
  formatIpv4,
  gatewayOf,
  type Ip,
  type Ipv4,
  type Ipv4Prefix,
  type Prefix,
} from "./address.ts";
import { RESOLVER_ADDRESS } from "./attach.ts";
import { type EncryptedWay, secrecyChain, tunnelRules } from "./encrypted-rules.ts";
import { type HostMark, MARK_BASE, MARK_MASK } from "./forwarding.ts";
import { type Balancer, balancerChange, balancerLines, inPlace } from "./load-balancing.ts";
import { hex, kindOf, leavingChain, portChain, setsOf, virtualChain, WORDS } from "./rule-sets.ts";

/** A transport whose ports can be published. */
export type Protocol = "tcp" | "udp" | "sctp";

/** Where a packet for a published port may go. */
export interface Target {
  readonly address: Ip;
  readonly port: number;
}

/** How connections are dealt: in turn, or each client's to one target for as long as that is there. */
export type Affinity = "none" | "client-ip";

/** A port of this node and the tasks that serve it, here or elsewhere; connections are dealt to them. */
export interface PublishedPort {
  readonly protocol: Protocol;
  readonly port: number;
  /** Only on this address of the host; default: on all of them. */
  readonly hostIp?: Ip;
  /** Of either family: a client meets those of its own. */
  readonly targets: readonly Target[];
  readonly affinity?: Affinity;
}

/** An address that stands for the tasks of a service on one network. */
export interface VirtualAddress {
  readonly address: Ip;
  /** Of the address's family. */
  readonly targets: readonly Ip[];
  readonly affinity?: Affinity;
}

/** A network that tasks of this host are on. */
export interface HostNetwork {
  readonly subnet: Prefix;
  /** Nothing outside it can be reached from it. */
  readonly internal: boolean;
  /** What passes between hosts does not pass in clear. Default false. */
  readonly encrypted?: boolean;
}

/** What stays while ports and addresses come and go. */
export interface RulesetBase {
  /** The table's name, also in the transaction's error messages. */
  readonly table: string;
  /** The fabric's device. */
  readonly device: string;
  /** This host's own address, as the others know it. Absent: there are no others. */
  readonly host?: Ipv4 | undefined;
  /** The link group of the hosts' ends of tasks' veths. */
  readonly group: number;
  readonly pool: Ipv4Prefix;
  /** UDP port and network number of the packets between hosts. */
  readonly vxlan: { readonly port: number; readonly id: number };
  /** Whether tasks may speak to link-local addresses, such as a cloud's metadata server (169.254.169.254). */
  readonly linkLocal: boolean;
  /** Whether there is a table for IPv6; `none`: the kernel has no IPv6. */
  readonly ipv6: "none" | "off" | "on";
  /** Absent: nothing that this host knows of is encrypted. */
  readonly encrypted?: EncryptedWay | undefined;
}

/** Everything that the table says. */
export interface RulesetState extends RulesetBase {
  readonly published: readonly PublishedPort[];
  readonly virtual: readonly VirtualAddress[];
  /**
   * Addresses of tasks of this host that are leaving, and who serves in their place. Other hosts may not have heard of it
   * yet: what they still send is passed on, so that no connection is lost on the way.
   */
  readonly leaving: readonly VirtualAddress[];
  readonly networks: readonly HostNetwork[];
  /** The hosts of the cluster that packets may come from. */
  readonly hosts: readonly Omit<HostMark, "index">[];
  /** This host's tasks: of each its addresses, with the gateways of their networks. */
  readonly local: readonly (readonly { readonly address: Ip; readonly gateway: Ip }[])[];
  /** What tasks of this host serve to the whole cluster by published ports. */
  readonly served: readonly (Target & { readonly protocol: Protocol })[];
  /** What may leave this host by the encrypted way only; none overlaps another. */
  readonly secret: readonly Prefix[];
}

const DNS_PORT = 53;
/** Where the agent's resolver listens, on the gateway's address: not on 53, which a server of the host may hold. */
export const RESOLVER_PORT = 10_053;

/**
 * One transaction that makes the table be exactly `state`, whatever it was before: no packet sees it half done, and
 * connections that are tracked go on as they were.
 */
export function ruleset(state: RulesetState): string {
  const removal = state.ipv6 === "off" ? removalLines("ip6", state.table) : [];
  return `${[...removal, ...familiesOf(state).flatMap((family) => tableLines(state, family))].join("\n")}\n`;
}

function familiesOf({ ipv6 }: RulesetBase): readonly Family[] {
  return ipv6 === "on" ? [4, 6] : [4];
}

function tableLines(whole: RulesetState, family: Family): readonly string[] {
  const state = ofFamily(whole, family);
  const { ip } = WORDS[family];
  const lines = [...removalLines(ip, state.table), `table ${ip} ${state.table} {`];
  for (const [name, balancer] of balancersOf(state)) lines.push(...balancerLines(name, balancer));
  for (const [name, { declaration, elements }] of Object.entries(setsOf(state, family))) {
    const filled = elements.length === 0 ? [] : [`elements = { ${elements.join(", ")} }`];
    lines.push(`${kindOf(name)} ${name} {`, ...declaration, ...filled, "}");
  }
  lines.push(...fixedChains(state, family), "}");
  return lines;
}

/** What of the state is about one family: a table knows no other. */
function ofFamily(state: RulesetState, family: Family): RulesetState {
  const isOf = ({ address }: { readonly address: Ip }) => familyOf(address) === family;
  const { published, virtual, leaving, networks, local, served, secret } = state;
  return {
    ...state,
    published: published
      .filter(({ hostIp }) => hostIp === undefined || familyOf(hostIp) === family)
      .map((port) => ({ ...port, targets: port.targets.filter(isOf) })),
    virtual: virtual.filter(isOf),
    leaving: leaving.filter(isOf),
    networks: networks.filter(({ subnet }) => isOf(subnet)),
    local: local.map((addresses) => addresses.filter(isOf)),
    served: served.filter(isOf),
    secret: secret.filter(isOf),
  };
}

/**
 * The transaction that leads from one state to another of the same base; empty when they are the same. It fails, and
 * changes nothing, when the table is not as it was left: then load `ruleset`. It is short when `next` is `settled`.
 */
export function rulesetChange(previous: RulesetState, next: RulesetState): string {
  const lines = familiesOf(next).flatMap((family) =>
    tableChange(ofFamily(previous, family), ofFamily(next, family), family),
  );
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

function tableChange(previous: RulesetState, next: RulesetState, family: Family): readonly string[] {
  const [before, after] = [balancersOf(previous), balancersOf(next)];
  const table = `${WORDS[family].ip} ${next.table}`;
  const [removed, added, dropped]: [string[], string[], string[]] = [[], [], []];
  for (const name of new Set([...before.keys(), ...after.keys()])) {
    const change = balancerChange(table, name, { before: before.get(name), after: after.get(name) });
    removed.push(...change.removed);
    added.push(...change.added);
    dropped.push(...change.dropped);
  }
  const sets = setsOf(next, family);
  for (const [name, { elements: old }] of Object.entries(setsOf(previous, family))) {
    const wanted = new Set(sets[name]?.elements);
    const present = new Set(old);
    const gone = old.filter((element) => !wanted.has(element)).map((element) => element.replace(/ : .*$/, ""));
    const come = [...wanted].filter((element) => !present.has(element));
    if (gone.length > 0) removed.push(`delete element ${table} ${name} { ${gone.join(", ")} }`);
    if (come.length > 0) added.push(`add element ${table} ${name} { ${come.join(", ")} }`);
  }
  return [...removed, ...added, ...dropped];
}

/**
 * `next` with all targets that stay in the places that they have in `previous`, so that a change is as small as what
 * changed.
 */
export function settled(previous: RulesetState, next: RulesetState): RulesetState {
  const settle = <T extends PublishedPort | VirtualAddress>(
    name: (each: T) => string,
    from: readonly T[],
    to: readonly T[],
  ) => {
    const before = new Map(from.map((each) => [name(each), each]));
    return to.map((each): T => {
      const old = before.get(name(each));
      if (old === undefined) return each;
      // By family, as the tables have them.
      const targets = ([4, 6] as const).flatMap((family) => {
        const isOf = (target: Target | Ip) => familyOf(typeof target === "object" ? target.address : target) === family;
        return inPlace<Target | Ip>(old.targets.filter(isOf), each.targets.filter(isOf));
      });
      return { ...each, targets };
    });
  };
  return {
    ...next,
    published: settle(portChain, previous.published, next.published),
    virtual: settle(virtualChain, previous.virtual, next.virtual),
    leaving: settle(leavingChain, previous.leaving, next.leaving),
  };
}

/** Removes the tables; harmless where there are none. */
export function rulesetRemoval({ table, ipv6 }: Pick<RulesetBase, "table" | "ipv6">): string {
  const families = ipv6 === "none" ? ["ip"] : ["ip", "ip6"];
  return `${families.flatMap((family) => removalLines(family, table)).join("\n")}\n`;
}

function removalLines(family: string, table: string): readonly string[] {
  return [`table ${family} ${table}`, `delete table ${family} ${table}`];
}

/** Those of ports and addresses that have targets: `tcp-8080`, `tcp-8080-192_0_2_1`, `vip-10_0_1_2`, `leaving-…`. */
function balancersOf({ published, virtual, leaving }: RulesetState): ReadonlyMap<string, Balancer> {
  const balancers = new Map<string, Balancer>();
  for (const port of published) if (port.targets.length > 0) balancers.set(portChain(port), port);
  for (const each of virtual) if (each.targets.length > 0) balancers.set(virtualChain(each), each);
  for (const each of leaving) if (each.targets.length > 0) balancers.set(leavingChain(each), each);
  return balancers;
}

function fixedChains(state: RulesetState, family: Family): readonly string[] {
  const chains = [...translation(state, family), ...guards(state, family), ...forwarding(state, family)];
  const { encrypted, vxlan, group } = state;
  const { ip } = WORDS[family];
  return encrypted === undefined ? chains : [...chains, ...secrecyChain(encrypted, { port: vxlan.port, group, ip })];
}

/** The fabric's devices, as one operand. */
function fabric({ device, encrypted }: RulesetBase): string {
  return encrypted === undefined ? `"${device}"` : `{ "${device}", "${encrypted.device}" }`;
}

/** Where packets are led elsewhere, and back. */
function translation(state: RulesetState, family: Family): readonly string[] {
  const { group, pool } = state;
  const devices = fabric(state);
  const { ip, multicast } = WORDS[family];
  const gateway = formatIpv4(gatewayOf(pool));
  const resolver = `iifgroup ${group} ip daddr ${formatIpv4(RESOLVER_ADDRESS)}`;
  return [
    // Jumps into both maps; the address in front is one of this host's.
    "chain publish {",
    `${ip} daddr . meta l4proto . th dport vmap @published_at`,
    "meta l4proto . th dport vmap @published",
    "}",
    // Connections from other hosts, and from this host's own tasks.
    "chain prerouting {",
    "type nat hook prerouting priority dstnat; policy accept;",
    ...(family === 4
      ? [`${resolver} meta l4proto { tcp, udp } th dport ${DNS_PORT} dnat to ${gateway}:${RESOLVER_PORT}`]
      : []),
    `iifgroup ${group} ${ip} daddr vmap @virtual`,
    `iifname ${devices} ${ip} daddr vmap @leaving`,
    "fib daddr type local jump publish",
    "}",
    // Connections from the host itself to its own addresses; its loopback is the loopback proxy's.
    "chain output {",
    "type nat hook output priority -100; policy accept;",
    `${ip} daddr != ${family === 4 ? "127.0.0.0/8" : "::1"} fib daddr type local jump publish`,
    "}",
    "chain postrouting {",
    "type nat hook postrouting priority srcnat; policy accept;",
    // Nobody takes a packet that comes from himself.
    `snat to ${ip} saddr . ${ip} daddr map @selves`,
    ...(family === 4 && state.host !== undefined
      ? [`oifname ${devices} ip saddr . rt ip nexthop @returning snat to ${formatIpv4(state.host)}`]
      : []),
    `${ip} saddr @subnets ${ip} daddr != @subnets ${ip} daddr != ${multicast} oifgroup != ${group} oifname != ${devices} masquerade`,
    "}",
  ];
}

/** Most packets are of a connection that was judged before, and neither came in nor go back by another host than its own. */
const QUICK = ["ct mark 0 ct state established,related accept"];

/** What is of no connection as it should be is not translated: untranslated it would make the other side reset a sound one. */
const INVALID = "ct state invalid drop";

/** What may come in at all: judged before any translation, by where it really comes from and really wants to go. */
function guards(state: RulesetState, family: Family): readonly string[] {
  const { device, group, vxlan, encrypted } = state;
  const { ip } = WORDS[family];
  return [
    // A client may come by several hosts from the same port. To those who serve it all is one connection, unless each
    // host's is one of its own here: then the kernel gives the second another port. `@ll,80,16`: the end of who sent it.
    // All that a host sends, since a packet's zone must not depend on anything that changes while its connection is open.
    "chain entrance {",
    "type filter hook prerouting priority raw; policy accept;",
    `iifname ${fabric(state)} ct original zone set @ll,80,16`,
    "}",
    "chain guard {",
    "type filter hook prerouting priority mangle; policy accept;",
    `iifgroup ${group} goto from_task`,
    `iifname ${fabric(state)} goto from_host`,
    ...(encrypted === undefined || family === 6 ? [] : tunnelRules(encrypted, vxlan.port)),
    // Only hosts of the cluster may send packets of ours (CVE-2023-28840). `@th,96,24`: the VXLAN network's number.
    ...(family === 4
      ? [`udp dport ${vxlan.port} @th,96,24 ${vxlan.id} ip saddr != @peers fib daddr type local drop`]
      : []),
    // Untranslated they would be the host's own, which knows no such connection and would reset it.
    "ct state invalid meta l4proto . th dport @ports fib daddr type local drop",
    "}",
    "chain from_task {",
    // The reverse path filter that the kernel has for IPv4 only: nobody speaks in another's name.
    ...(family === 6 ? ["fib saddr . iif oif missing drop"] : []),
    ...QUICK,
    // Answers to what came in by another host go back by it.
    `ct direction reply ct mark & ${hex(MARK_MASK)} == ${hex(MARK_BASE)} meta mark set ct mark`,
    "ct state established,related accept",
    INVALID,
    ...ownPlaces(state, family),
    "}",
    "chain from_host {",
    ...(encrypted === undefined
      ? []
      : ["saddr", "daddr"].map((side) => `iifname "${device}" ${ip} ${side} @secret drop`)),
    ...QUICK,
    // Answers to what came in by another host and was passed on from here.
    `ct direction reply ct mark & ${hex(MARK_MASK)} == ${hex(MARK_BASE)} meta mark set ct mark`,
    "ct state established,related accept",
    INVALID,
    "ct mark set ether saddr map @hosts",
    "}",
  ];
}

/** Where a task may begin to speak to. */
function ownPlaces({ pool, linkLocal }: RulesetState, family: Family): readonly string[] {
  const { ip, refusal } = WORDS[family];
  const resolver = formatIpv4(RESOLVER_ADDRESS);
  const judged = [
    // One that was open before would not end for less than a reset.
    `${ip} daddr @idle meta l4proto tcp reject with tcp reset`,
    `${ip} daddr @idle reject`,
    `${ip} saddr . ${ip} daddr @same accept`,
    `${ip} saddr @internal reject with ${refusal}`,
  ];
  const others = `${ip} daddr @subnets reject with ${refusal}`;
  // EC2's metadata server has an address of its own in IPv6.
  if (family === 6) return [...judged, others, ...(linkLocal ? [] : ["ip6 daddr { fe80::/10, fd00:ec2::254 } drop"])];
  return [
    `ip daddr ${resolver} meta l4proto { tcp, udp } th dport ${DNS_PORT} accept`,
    // Even if somebody turns route_localnet on, the host's loopback stays out of reach (CVE-2020-8558).
    "ip daddr 127.0.0.0/8 drop",
    ...judged,
    `ip daddr ${formatIpv4(gatewayOf(pool))} accept`,
    others,
    ...(linkLocal ? [] : ["ip daddr 169.254.0.0/16 drop"]),
  ];
}

/** Forwarding is on: nobody outside may reach what was not published by routing into a network. */
function forwarding(state: RulesetState, family: Family): readonly string[] {
  const { group } = state;
  const devices = fabric(state);
  const { ip } = WORDS[family];
  return [
    "chain forward {",
    "type filter hook forward priority filter; policy accept;",
    // The mark was for the way of this packet, not of the one that will carry it.
    `oifname ${devices} meta mark & ${hex(MARK_MASK)} == ${hex(MARK_BASE)} meta mark set 0`,
    "ct state established,related accept",
    `iifgroup ${group} accept`,
    `oifgroup ${group} goto to_task`,
    `oifname ${devices} ct status dnat accept`,
    `oifname ${devices} drop`,
    "}",
    "chain to_task {",
    "ct status dnat accept",
    `iifname ${devices} ${ip} saddr . ${ip} daddr @same accept`,
    `iifname ${devices} ${ip} daddr . meta l4proto . th dport @served accept`,
    "drop",
    "}",
  ];
}
