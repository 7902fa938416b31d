/** The texts of a container's /etc/resolv.conf and /etc/hosts. Pure. */
import { formatIp, formatIpv4, type Ip, type Ipv4, parseIpv4 } from "./address.ts";

/** A service's own resolver settings; an empty list leaves the host's. */
export interface DnsOptions {
  readonly nameservers: readonly string[];
  readonly search: readonly string[];
  readonly options: readonly string[];
}

/** systemd-resolved's stub is all that /etc/resolv.conf names where it runs; the real servers stand in this file. */
export const RESOLVED_CONF = "/run/systemd/resolve/resolv.conf";
export const RESOLV_CONF = "/etc/resolv.conf";

/** Used when the host names no server that a container can reach; the same two that Docker falls back to. */
const FALLBACK_NAMESERVERS = ["8.8.8.8", "8.8.4.4"];

/** Whether a resolv.conf names loopback resolvers only, so that RESOLVED_CONF should be read in its place. */
export function isStubResolver(resolvConf: string): boolean {
  const { nameservers } = parseResolvConf(resolvConf);
  return nameservers.length > 0 && nameservers.every(isLoopback);
}

/**
 * A container's resolv.conf: the host's without what only the host can reach (loopback, and IPv6 servers, for a task
 * has no IPv6 yet), each of the three parts replaced by the service's where it gives one. A search of "." means none.
 */
export function containerResolvConf(hostResolvConf: string, dns?: Partial<DnsOptions>): string {
  const host = parseResolvConf(hostResolvConf);
  const reachable = host.nameservers.filter((server) => parseIpv4(server) !== undefined && !isLoopback(server));
  const nameservers = nonEmpty(dns?.nameservers) ?? nonEmpty(reachable) ?? FALLBACK_NAMESERVERS;
  const search = (nonEmpty(dns?.search) ?? host.search).filter((domain) => domain !== ".");
  const options = nonEmpty(dns?.options) ?? host.options;
  const lines = nameservers.map((server) => `nameserver ${server}`);
  if (search.length > 0) lines.push(`search ${search.join(" ")}`);
  if (options.length > 0) lines.push(`options ${options.join(" ")}`);
  return `${lines.join("\n")}\n`;
}

/**
 * The resolv.conf of a container that asks the node's resolver: it knows the names of the task's networks, and passes on what
 * the host's or the service's own servers know. `ndots:0` as Docker has it: a name of one word is looked up as it stands.
 */
export function resolverResolvConf(hostResolvConf: string, resolver: Ipv4, dns?: Partial<DnsOptions>): string {
  const options = nonEmpty(dns?.options) ?? parseResolvConf(hostResolvConf).options;
  const withNdots = options.some((option) => option.startsWith("ndots:")) ? options : [...options, "ndots:0"];
  return containerResolvConf(hostResolvConf, {
    ...{ search: dns?.search ?? [], nameservers: [formatIpv4(resolver)], options: withNdots },
  });
}

/** The host's servers that can be asked from elsewhere than the host, else the fallbacks. */
export function reachableNameservers(hostResolvConf: string): readonly string[] {
  const servers = parseResolvConf(hostResolvConf).nameservers;
  return nonEmpty(servers.filter((server) => !isLoopback(server))) ?? FALLBACK_NAMESERVERS;
}

/**
 * A container's hosts file. `extra` holds "address name [alias…]" lines, as they stand in the file, or the command
 * line's "name:address"; `host-gateway` as an address is the gateway's.
 */
export function containerHosts(options: {
  readonly hostname: string;
  /** None for a task without an address of its own. */
  readonly addresses?: readonly Ip[];
  readonly gateway?: Ipv4;
  readonly extra: readonly string[];
}): string {
  const lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"];
  for (const entry of options.extra) lines.push(hostsLine(entry, options.gateway));
  const own = options.addresses?.map(formatIp) ?? ["127.0.1.1"];
  lines.push(...own.map((address) => `${address}\t${options.hostname}`));
  return `${lines.join("\n")}\n`;
}

/** The host's own hosts file with extra entries, for a task in the host's network namespace. */
export function extendHosts(hosts: string, extra: readonly string[]): string {
  const lines = extra.map((entry) => `${hostsLine(entry, undefined)}\n`);
  return `${hosts}${hosts === "" || hosts.endsWith("\n") ? "" : "\n"}${lines.join("")}`;
}

function hostsLine(entry: string, gateway: Ipv4 | undefined): string {
  const colon = entry.indexOf(":");
  const words = entry.trim().split(/\s+/);
  const [address = "", ...names] =
    words.length === 1 && colon > 0 ? [entry.slice(colon + 1).trim(), entry.slice(0, colon).trim()] : words;
  const resolved = address === "host-gateway" && gateway !== undefined ? formatIpv4(gateway) : address;
  return `${resolved}\t${names.join(" ")}`;
}

function parseResolvConf(content: string): DnsOptions {
  const nameservers: string[] = [];
  let search: readonly string[] = [];
  const options: string[] = [];
  for (const line of content.split("\n")) {
    const [keyword, ...words] = line
      .replace(/[#;].*$/, "")
      .trim()
      .split(/\s+/);
    if (keyword === "nameserver" && words[0] !== undefined) nameservers.push(words[0]);
    // The last of `search` and `domain` wins: resolv.conf(5).
    else if (keyword === "search") search = words;
    else if (keyword === "domain") search = words.slice(0, 1);
    else if (keyword === "options") options.push(...words);
  }
  return { nameservers, search, options };
}

function isLoopback(server: string): boolean {
  return server.startsWith("127.") || server === "::1";
}

function nonEmpty(list: readonly string[] | undefined): readonly string[] | undefined {
  return list !== undefined && list.length > 0 ? list : undefined;
}
