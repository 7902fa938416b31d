/**
 * The host's nftables rules as text for `nft -f -`, computed from the whole wanted state. Ours is one table; nothing
 * else of the host's rules is read or touched. Each published port has a chain of its own, found through a map, so a
 * packet's cost does not grow with the number of ports and a change of targets touches one chain only.
 */
import { formatIpv4, formatPrefix, gatewayOf, type Ipv4, type Ipv4Prefix, networkOf } from "./address.ts";

/** A transport whose ports can be published. */
export type Protocol = "tcp" | "udp" | "sctp";

/** Where a packet for a published port may go. */
export interface Target {
  readonly address: Ipv4;
  readonly port: number;
}

/** A port of this node and the local tasks that serve it; connections are dealt to them in turn. */
export interface PublishedPort {
  readonly protocol: Protocol;
  readonly port: number;
  /** Only on this address of the host; default: on all of them. */
  readonly hostIp?: Ipv4;
  readonly targets: readonly Target[];
}

/** Everything that the table says. */
export interface RulesetState {
  /** The table's name, also in the transaction's error messages. */
  readonly table: string;
  readonly bridge: string;
  readonly pool: Ipv4Prefix;
  readonly published: readonly PublishedPort[];
}

/**
 * One transaction that makes the table be exactly `state`, whatever it was before: no packet sees it half done, and
 * connections that are tracked go on as they were.
 */
export function ruleset(state: RulesetState): string {
  const ports = publishedByKey(state.published);
  const lines = [`table ip ${state.table}`, `delete table ip ${state.table}`, `table ip ${state.table} {`];
  for (const [key, port] of ports) lines.push(`chain ${key} {`, portRule(port), "}");
  lines.push(...mapLines("published", "inet_proto . inet_service", elements(ports, false)));
  lines.push(...mapLines("published_at", "ipv4_addr . inet_proto . inet_service", elements(ports, true)));
  lines.push(...fixedChains(state), "}");
  return `${lines.join("\n")}\n`;
}

/**
 * The transaction that leads from one published set to another in a table that is `previous` otherwise; empty when
 * they are the same. It fails, and changes nothing, when the table is not as it was left: then load `ruleset`.
 */
export function rulesetChange(previous: RulesetState, next: RulesetState): string {
  const before = publishedByKey(previous.published);
  const after = publishedByKey(next.published);
  const table = `ip ${next.table}`;
  const removed: string[] = [];
  const added: string[] = [];
  for (const [key, port] of before) {
    if (after.has(key)) continue;
    removed.push(`delete element ${table} ${elementOf(port, key, false)}`);
    removed.push(`flush chain ${table} ${key}`, `delete chain ${table} ${key}`);
  }
  for (const [key, port] of after) {
    const old = before.get(key);
    if (old !== undefined && portRule(old) === portRule(port)) continue;
    added.push(
      `${old === undefined ? "add" : "flush"} chain ${table} ${key}`,
      `add rule ${table} ${key} ${portRule(port)}`,
    );
    if (old === undefined) added.push(`add element ${table} ${elementOf(port, key, true)}`);
  }
  const lines = [...removed, ...added];
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

/** Removes the table; harmless where there is none. */
export function rulesetRemoval(table: string): string {
  return `table ip ${table}\ndelete table ip ${table}\n`;
}

/** The ports that have targets, by the name of their chain: `tcp-8080`, or `tcp-8080-192.0.2.1` with a host address. */
function publishedByKey(published: readonly PublishedPort[]): ReadonlyMap<string, PublishedPort> {
  const byKey = new Map<string, PublishedPort>();
  for (const port of published) {
    if (port.targets.length > 0) byKey.set(chainName(port), port);
  }
  return byKey;
}

function chainName(port: PublishedPort): string {
  const at = port.hostIp === undefined ? "" : `-${formatIpv4(port.hostIp).replaceAll(".", "_")}`;
  return `${port.protocol}-${port.port}${at}`;
}

/** `numgen inc` counts connections, so that n targets get exactly one in n each. */
function portRule(port: PublishedPort): string {
  const targets = port.targets.map((target, index) => `${index} : ${formatIpv4(target.address)} . ${target.port}`);
  return `meta l4proto ${port.protocol} dnat ip to numgen inc mod ${targets.length} map { ${targets.join(", ")} }`;
}

function elements(ports: ReadonlyMap<string, PublishedPort>, withHostIp: boolean): readonly string[] {
  return [...ports]
    .filter(([, port]) => (port.hostIp !== undefined) === withHostIp)
    .map(([key, port]) => `${portKey(port)} : jump ${key}`);
}

function elementOf(port: PublishedPort, chain: string, withVerdict: boolean): string {
  const map = port.hostIp === undefined ? "published" : "published_at";
  return `${map} { ${portKey(port)}${withVerdict ? ` : jump ${chain}` : ""} }`;
}

function portKey(port: PublishedPort): string {
  const at = port.hostIp === undefined ? "" : `${formatIpv4(port.hostIp)} . `;
  return `${at}${port.protocol} . ${port.port}`;
}

function mapLines(name: string, key: string, content: readonly string[]): readonly string[] {
  const filled = content.length === 0 ? [] : [`elements = { ${content.join(", ")} }`];
  return [`map ${name} {`, `type ${key} : verdict`, ...filled, "}"];
}

function fixedChains(state: RulesetState): readonly string[] {
  const pool = formatPrefix(networkOf(state.pool));
  const gateway = formatIpv4(gatewayOf(state.pool));
  const bridge = `"${state.bridge}"`;
  return [
    // Jumps into both maps; the address in front is one of this host's.
    "chain publish {",
    "ip daddr . meta l4proto . th dport vmap @published_at",
    "meta l4proto . th dport vmap @published",
    "}",
    // Connections from other hosts, and from this host's own containers.
    "chain prerouting {",
    "type nat hook prerouting priority dstnat; policy accept;",
    "fib daddr type local jump publish",
    "}",
    // Connections from the host itself to its own addresses; 127.0.0.0/8 is the loopback proxy's.
    "chain output {",
    "type nat hook output priority -100; policy accept;",
    "ip daddr != 127.0.0.0/8 fib daddr type local jump publish",
    "}",
    // Hairpin: a target in the pool must answer through the host that translated, not straight to the other container.
    "chain postrouting {",
    "type nat hook postrouting priority srcnat; policy accept;",
    `ip saddr ${pool} ip daddr ${pool} ct status dnat masquerade`,
    `ip saddr ${pool} ip daddr != ${pool} ip daddr != 224.0.0.0/4 oifname != ${bridge} masquerade`,
    "}",
    // Even if somebody turns route_localnet on, the host's loopback stays out of reach (CVE-2020-8558).
    "chain guard {",
    "type filter hook prerouting priority raw; policy accept;",
    `iifname ${bridge} ip daddr 127.0.0.0/8 drop`,
    `iifname ${bridge} ip saddr != ${pool} drop`,
    `iifname ${bridge} ip saddr ${gateway} drop`,
    "}",
    // Forwarding is on: nobody outside may reach a port that was not published by routing into the pool.
    "chain forward {",
    "type filter hook forward priority filter; policy accept;",
    `oifname != ${bridge} accept`,
    `iifname ${bridge} accept`,
    "ct state established,related accept",
    "ct status dnat accept",
    "drop",
    "}",
  ];
}
