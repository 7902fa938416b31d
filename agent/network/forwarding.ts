/**
 * What lies behind the fabric: other hosts, and the tasks on them. The kernel's entries follow from the wanted state;
 * they are compared with what the kernel has and only the difference is sent, so a right entry is never touched.
 *
 * - a host: its MAC behind its address (forwarding entry), and its address as a next hop (neighbour)
 * - a task elsewhere: a route to its address over its host
 * - the way back: a table with a default route over the host, for packets that bear its mark
 * - what must not leave in clear: a route that leads nowhere, where no better one is
 */
import {
  bitsOf,
  type Family,
  familyOf,
  formatIp,
  formatIpv4,
  formatPrefix,
  type Ip,
  type Ipv4,
  type Ipv6,
  type Prefix,
} from "./address.ts";
import type { Ipv6Use } from "./ipv6.ts";
import { exchange, exchangeAll, NETLINK, type Netlink, type NetlinkRequest } from "./netlink.ts";
import {
  addRule,
  decodeForwarding,
  decodeNeighbors,
  decodeRoutes,
  decodeRules,
  deleteForwarding,
  deleteNeighbor,
  deleteRoute,
  deleteRule,
  dumpForwarding,
  dumpNeighbors,
  dumpRoutes,
  dumpRules,
  type ForwardingEntry,
  type Neighbor,
  type Route,
  type RouteSpec,
  RTN_UNICAST,
  RTPROT_SWARM,
  type Rule,
  type RuleSpec,
  replaceForwarding,
  replaceNeighbor,
  replaceRoute,
  TABLE,
} from "./routing-messages.ts";

/** An address of a task, and the host that it is behind. */
export interface RemoteAddress {
  readonly address: Ip;
  readonly host: Ipv4;
  /** Whether nothing may go there in clear. Default false. */
  readonly encrypted?: boolean;
}

/** An address of a task of this host. */
export interface LocalAddress {
  readonly address: Ip;
  /** The index of the host's end of its veth. */
  readonly index: number;
  readonly mac: Uint8Array;
}

/** A device of the fabric, and what is behind it. */
export interface Way {
  /** The device's index. */
  readonly index: number;
  /** The index of the link that its packets must leave by. Absent: whichever the routes say. */
  readonly under?: number | undefined;
  /** The MAC that a host has on it. */
  readonly macOf: (host: Ipv4) => Uint8Array;
  readonly hosts: readonly Ipv4[];
  readonly remote: readonly RemoteAddress[];
}

/** The mark of what goes back to a host by the device that it came by. */
export interface HostMark {
  readonly host: Ipv4;
  /** The device's index. */
  readonly index: number;
  /** The host's on that device. */
  readonly mac: Uint8Array;
  readonly mark: number;
}

/** Everything that the kernel should know. */
export interface Forwarding {
  readonly ways: readonly Way[];
  /** What is not to be reached but by a way that is told. */
  readonly nowhere: readonly Prefix[];
  readonly local: readonly LocalAddress[];
  /** Where the host's own packets to tasks elsewhere come from, so that answers find back to this very host. */
  readonly source?: Ipv4 | undefined;
  /** Where its own packets to tasks of its own come from. */
  readonly gateway: Ipv4;
  /** Whether IPv6 goes over the fabric; `none`: the kernel cannot be asked for it. */
  readonly ipv6: Ipv6Use;
}

/** What the kernel has of ours. */
export interface KernelForwarding {
  readonly forwarding: readonly ForwardingEntry[];
  readonly neighbors: readonly Neighbor[];
  readonly routes: readonly Route[];
  readonly rules: readonly Rule[];
}

/** "SW" in the upper half of the marks of packets that go back to the host which they came in by. */
export const MARK_BASE = 0x53570000;
export const MARK_MASK = 0xffff0000;
/** Below bit 14: others (kube-proxy) give meaning to the bits above. */
const HOSTS_MAX = 0x3fff;

const LINK_LOCAL: Ipv6 = (0xfe80n << 112n) | (0x5357n << 32n);
const EVERYWHERE: Readonly<Record<Family, Prefix>> = { 4: { address: 0, length: 0 }, 6: { address: 0n, length: 0 } };

/** Marks that share their upper bits, as far as this. The kernel goes through rules one by one: 512 would cost it 3 µs. */
const GROUP_MASK = 0xffffffe0;
/**
 * Rules of ours, in this order: packets without a mark of ours pass all of them by, those with one go to the rules of the
 * marks that share its upper bits.
 */
const PRIORITY = { skip: 5356, group: 5357, first: 5400, end: 5912 } as const;

/** The marks of the hosts: those that the kernel has a table for keep theirs, since connections bear them. */
export function marksOf(ways: readonly Way[], kernel: Pick<KernelForwarding, "routes">): readonly HostMark[] {
  const marks = new Map<string, number>();
  const taken = new Set<number>();
  const wanted = new Set(ways.flatMap(({ index, hosts }) => hosts.map((host) => `${index} ${host}`)));
  for (const { table, via, index } of kernel.routes) {
    const name = `${index} ${via}`;
    if (!isMark(table) || typeof via !== "number" || !wanted.has(name) || marks.has(name)) continue;
    marks.set(name, table);
    taken.add(table);
  }
  let next = MARK_BASE + 1;
  return ways.flatMap(({ index, hosts, macOf }) =>
    hosts.flatMap((host): HostMark[] => {
      const known = marks.get(`${index} ${host}`);
      while (known === undefined && taken.has(next)) next++;
      const mark = known ?? next++;
      return mark > MARK_BASE + HOSTS_MAX ? [] : [{ host, index, mac: macOf(host), mark }];
    }),
  );
}

/** The requests that lead from what the kernel has to what it should have; none when it is right. */
export function forwardingChanges(wanted: Forwarding, kernel: KernelForwarding): readonly NetlinkRequest[] {
  const marks = marksOf(wanted.ways, kernel);
  return [
    ...hostChanges(wanted, kernel),
    ...neighborChanges(wanted, kernel),
    ...routeChanges(wanted, marks, kernel),
    ...ruleChanges(wanted, marks, kernel),
  ];
}

/** Asks the kernel for what it has on the fabric's devices, on the links of tasks, and in tables of ours. */
export async function readForwarding(
  netlink: Netlink,
  { ways, ipv6 }: Pick<Forwarding, "ways" | "ipv6">,
  signal: AbortSignal,
): Promise<KernelForwarding> {
  const ask = (message: Uint8Array, label: string) => exchange(netlink, request(message, label), signal);
  const forwarding = decodeForwarding(await ask(dumpForwarding(), "list forwarding entries"));
  const neighbors: Neighbor[] = [];
  const routes: Route[] = [];
  const rules: Rule[] = [];
  for (const family of ipv6 === "none" ? ([4] as const) : ([4, 6] as const)) {
    neighbors.push(...decodeNeighbors(await ask(dumpNeighbors(family), "list neighbours")));
    routes.push(...decodeRoutes(await ask(dumpRoutes(family), "list routes")));
    rules.push(...decodeRules(await ask(dumpRules(family), "list routing rules")));
  }
  const indexes = new Set(ways.map(({ index }) => index));
  return {
    forwarding: forwarding.filter((entry) => indexes.has(entry.index)),
    neighbors,
    routes: routes.filter(({ protocol }) => protocol === RTPROT_SWARM),
    rules,
  };
}

/** Makes the kernel know exactly what it should, from what it is known to have; returns how much had to change. */
export async function applyForwarding(
  netlink: Netlink,
  wanted: Forwarding,
  kernel: KernelForwarding,
  signal: AbortSignal,
): Promise<number> {
  const changes = forwardingChanges(wanted, kernel);
  await exchangeAll(netlink, changes, signal);
  return changes.length;
}

/** What the kernel has of ours once `wanted` was applied. */
export function kernelAfter(wanted: Forwarding, marks: readonly HostMark[]): KernelForwarding {
  return {
    forwarding: wantedForwarding(wanted),
    neighbors: wantedNeighbors(wanted),
    routes: wantedRoutes(wanted, marks).map((route) => ({ type: RTN_UNICAST, protocol: RTPROT_SWARM, ...route })),
    rules: familiesOf(wanted).flatMap((family) => wantedRules(marks).map((rule) => ruleOf(family, rule))),
  };
}

/**
 * The addresses that the kernel leads to a task which is no longer there: nobody has them, or one on another host. A host
 * that has another address itself still has its tasks.
 */
export function goneAddresses({ ways }: Pick<Forwarding, "ways">, kernel: KernelForwarding): readonly Ip[] {
  const places = new Map(ways.flatMap(({ remote }) => remote.map(({ address, host }) => [address, host] as const)));
  const hosts = new Set(ways.flatMap((way) => way.hosts));
  return kernel.routes.flatMap(({ table, destination: { address, length }, via }) => {
    if (table !== TABLE.MAIN || via === undefined || length !== bitsOf(address)) return [];
    const place = places.get(address);
    const moved = place !== undefined && nextHop(familyOf(address), place) !== via;
    const before = Number(BigInt.asUintN(32, BigInt(via)));
    return place === undefined || (moved && hosts.has(before)) ? [address] : [];
  });
}

/** The marks that led to a host which is no more, or no more where it was; another may have one of them now. */
export function goneMarks(marks: readonly HostMark[], kernel: KernelForwarding): readonly number[] {
  const present = new Set(marks.map(({ mark, host, index }) => `${mark} ${index} ${host}`));
  return kernel.routes.flatMap(({ table, via, index }) =>
    isMark(table) && typeof via === "number" && !present.has(`${table} ${index} ${via}`) ? [table] : [],
  );
}

/** Takes all rules and tables of ours out of the kernel; what is on the device goes with the device. */
export async function removeForwarding(netlink: Netlink, ipv6: Ipv6Use, signal: AbortSignal): Promise<void> {
  const kernel = await readForwarding(netlink, { ways: [], ipv6 }, signal);
  const routes = kernel.routes.map((route) => dropRoute(route));
  await exchangeAll(netlink, [...kernel.rules.map(dropRule), ...routes], signal);
}

function familiesOf({ ipv6 }: Pick<Forwarding, "ipv6">): readonly Family[] {
  return ipv6 === "on" ? [4, 6] : [4];
}

/** The address of a host on the fabric, as a next hop: its own; of IPv6 fe80::5357: and its own. */
function nextHop(family: Family, host: Ipv4): Ip {
  return family === 4 ? host : LINK_LOCAL | BigInt(host);
}

function isMark(table: number): boolean {
  return (table & MARK_MASK) >>> 0 === MARK_BASE;
}

function wantedForwarding({ ways }: Forwarding): readonly ForwardingEntry[] {
  return ways.flatMap(({ index, under, macOf, hosts }) =>
    hosts.map((host) => ({ index, mac: macOf(host), host, under })),
  );
}

function hostChanges(wanted: Forwarding, kernel: KernelForwarding): NetlinkRequest[] {
  const known = new Map(kernel.forwarding.map((entry) => [entryKey(entry), entry]));
  const changes: NetlinkRequest[] = [];
  for (const entry of wantedForwarding(wanted)) {
    const found = known.get(entryKey(entry));
    known.delete(entryKey(entry));
    if (found?.host === entry.host && found.under === entry.under) continue;
    changes.push(request(replaceForwarding(entry), `reach host ${formatIpv4(entry.host)}`));
  }
  for (const entry of known.values()) {
    changes.push(request(deleteForwarding(entry), `forget host ${formatIpv4(entry.host)}`, "ENOENT", "ENODEV"));
  }
  return changes;
}

function wantedNeighbors(wanted: Forwarding): readonly Neighbor[] {
  const hosts = wanted.ways.flatMap(({ index, macOf, hosts: each }) =>
    familiesOf(wanted).flatMap((family) =>
      each.map((host) => ({ index, address: nextHop(family, host), mac: macOf(host) })),
    ),
  );
  return [...hosts, ...wanted.local];
}

function neighborChanges(wanted: Forwarding, kernel: KernelForwarding): NetlinkRequest[] {
  const ours = new Set([...wanted.ways, ...wanted.local].map((each) => each.index));
  const known = new Map(
    kernel.neighbors.filter((each) => ours.has(each.index)).map((each) => [`${each.index} ${each.address}`, each]),
  );
  const changes: NetlinkRequest[] = [];
  for (const neighbor of wantedNeighbors(wanted)) {
    const name = `${neighbor.index} ${neighbor.address}`;
    const found = known.get(name);
    known.delete(name);
    if (found !== undefined && key(found.mac) === key(neighbor.mac)) continue;
    changes.push(request(replaceNeighbor(neighbor), `tell neighbour ${formatIp(neighbor.address)}`, "ENODEV"));
  }
  for (const neighbor of known.values()) {
    changes.push(
      request(deleteNeighbor(neighbor), `forget neighbour ${formatIp(neighbor.address)}`, "ENOENT", "ENODEV"),
    );
  }
  return changes;
}

function wantedRoutes(
  wanted: Forwarding,
  marks: readonly HostMark[],
): readonly (RouteSpec & { readonly table: number })[] {
  const { ways, nowhere, local, source, gateway } = wanted;
  const families = familiesOf(wanted);
  const isUsed = ({ address }: { readonly address: Ip }) => families.includes(familyOf(address));
  const from = (address: Ip, own: Ipv4 | undefined) =>
    own === undefined || familyOf(address) === 6 ? {} : { source: own };
  const table = TABLE.MAIN;
  return [
    ...nowhere.filter(isUsed).map((destination) => ({ destination, table, index: 0 })),
    ...ways.flatMap(({ index, remote }) =>
      remote.filter(isUsed).map(({ address, host }) => ({
        ...{ destination: single(address), table, index, via: nextHop(familyOf(address), host) },
        ...from(address, source),
      })),
    ),
    ...local.map(({ address, index: link }) => ({
      ...{ destination: single(address), table, index: link },
      ...from(address, gateway),
    })),
    ...families.flatMap((family) =>
      marks.map(({ host, index, mark }) => ({
        ...{ destination: EVERYWHERE[family], table: mark, index, via: nextHop(family, host) },
      })),
    ),
  ];
}

function routeChanges(wanted: Forwarding, marks: readonly HostMark[], kernel: KernelForwarding): NetlinkRequest[] {
  const known = new Map(kernel.routes.map((route) => [routeKey(route), route]));
  const changes: NetlinkRequest[] = [];
  for (const route of wantedRoutes(wanted, marks)) {
    const found = known.get(routeKey(route));
    known.delete(routeKey(route));
    if (found?.index === route.index && found.via === route.via && found.source === route.source) continue;
    changes.push(request(replaceRoute(route), `route ${formatPrefix(route.destination)}`, "ENODEV", "ENETDOWN"));
  }
  const ours = new Set([0, ...wanted.ways.map(({ index }) => index)]);
  for (const route of known.values()) {
    // Those to tasks of this host go with their links, which may be of tasks that are not known yet.
    if (ours.has(route.index) || isMark(route.table)) changes.push(dropRoute(route));
  }
  return changes;
}

function wantedRules(marks: readonly HostMark[]): readonly RuleSpec[] {
  if (marks.length === 0) return [];
  const groups = new Set(marks.map(({ mark }) => (mark & GROUP_MASK) >>> 0));
  return [
    { priority: PRIORITY.end, nothing: true },
    { priority: PRIORITY.skip, mark: MARK_BASE, mask: MARK_MASK, unless: true, goTo: PRIORITY.end },
    ...marks.map(({ mark }) => ({ priority: priorityOf(mark), mark, table: mark })),
    ...[...groups].map((mark) => ({
      ...{ priority: PRIORITY.group, mark, mask: GROUP_MASK, unless: false, goTo: priorityOf(mark) },
    })),
  ];
}

/** That of the rules for a mark and those like it. */
function priorityOf(mark: number): number {
  return PRIORITY.first + ((mark & ~MARK_MASK & GROUP_MASK) >>> 5);
}

function ruleChanges(wanted: Forwarding, marks: readonly HostMark[], kernel: KernelForwarding): NetlinkRequest[] {
  const known = new Map(kernel.rules.map((rule) => [ruleKey(rule), rule]));
  const changes: NetlinkRequest[] = [];
  for (const family of familiesOf(wanted)) {
    for (const rule of wantedRules(marks)) {
      if (known.delete(ruleKey(ruleOf(family, rule)))) continue;
      changes.push(request(addRule(family, rule), `add routing rule ${rule.priority}`, "EEXIST"));
    }
  }
  for (const rule of known.values()) changes.push(dropRule(rule));
  return changes;
}

function ruleOf(family: Family, rule: RuleSpec): Rule {
  const none = { mark: 0, mask: 0, unless: false, table: 0, goTo: 0 };
  const { priority } = rule;
  if ("mark" in rule && "table" in rule)
    return { ...none, family, priority, mark: rule.mark, mask: 0xffffffff, table: rule.table };
  return "nothing" in rule ? { ...none, family, priority } : { ...none, ...rule, family };
}

function dropRoute({ destination, table, index, via, source }: Route): NetlinkRequest {
  const route = {
    destination,
    table,
    index,
    ...(via !== undefined && { via }),
    ...(source !== undefined && { source }),
  };
  return request(deleteRoute(route), `remove route ${formatPrefix(destination)}`, "ESRCH", "ENODEV");
}

function dropRule({ family, priority, mark, mask, unless, table, goTo }: Rule): NetlinkRequest {
  let rule: RuleSpec = { priority, nothing: true };
  if (goTo !== 0) rule = { priority, mark, mask, unless, goTo };
  else if (table !== 0) rule = { priority, mark, table };
  return request(deleteRule(family, rule), `remove routing rule ${priority}`, "ENOENT");
}

function routeKey({ destination, table }: { readonly destination: Prefix; readonly table: number }): string {
  return `${familyOf(destination.address)} ${table} ${destination.address}/${destination.length}`;
}

function ruleKey({ family, priority, mark, table, goTo }: Rule): string {
  return `${family} ${priority} ${mark} ${table} ${goTo}`;
}

function entryKey({ index, mac }: ForwardingEntry): string {
  return `${index} ${key(mac)}`;
}

function single<A extends Ip>(address: A): Prefix<A> {
  return { address, length: bitsOf(address) };
}

function key(mac: Uint8Array): string {
  return Buffer.from(mac).toString("hex");
}

function request(message: Uint8Array, label: string, ...tolerated: readonly string[]): NetlinkRequest {
  return { protocol: NETLINK.ROUTE, message, label, tolerated };
}
