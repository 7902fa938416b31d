/**
 * How connections are dealt to targets, as nftables text: for each port and virtual address a chain that counts or hashes to
 * a number, and a map of the same name from numbers to targets. One target more or less is one element of its map and the
 * chain's two rules, however many there are. (One map for all would be walked whole by the kernel for each rule that names it,
 * and an anonymous one is made anew for each change.)
 */
import { familyOf, formatIp, type Ip } from "./address.ts";
import { slotCount, slotsOf } from "./affinity-slots.ts";
import type { Affinity, Protocol, Target } from "./ruleset.ts";

/** One chain and its map. */
export interface Balancer {
  /** At least one. */
  readonly targets: readonly (Target | Ip)[];
  /** Of targets that have ports: what the packet is. */
  readonly protocol?: Protocol;
  readonly affinity?: Affinity | undefined;
}

/** The maps and chains, as parts of a table; `name` is of both. */
export function balancerLines(name: string, balancer: Balancer): readonly string[] {
  const elements = numbered(balancer).map(element).join(", ");
  return [
    `map ${name} {`,
    kindOf(balancer),
    `elements = { ${elements} }`,
    "}",
    `chain ${name} {`,
    ...rules(name, balancer),
    "}",
  ];
}

/** Parts of a transaction, in the order in which they can be carried out. */
export interface BalancerChange {
  readonly removed: readonly string[];
  readonly added: readonly string[];
  /** To be done once nothing jumps to it any more. */
  readonly dropped: readonly string[];
}

const NOTHING: BalancerChange = { removed: [], added: [], dropped: [] };

/** Leads from one balancer of that name to another in the table `table` ("ip swarm0"); undefined stands for none. */
export function balancerChange(
  table: string,
  name: string,
  { before, after }: { readonly before: Balancer | undefined; readonly after: Balancer | undefined },
): BalancerChange {
  const place = `${table} ${name}`;
  if (after === undefined) {
    return { ...NOTHING, dropped: [`flush chain ${place}`, `delete chain ${place}`, `delete map ${place}`] };
  }
  const setRules = rules(name, after).map((rule) => `add rule ${place} ${rule}`);
  if (before === undefined) {
    const elements = numbered(after).map(element).join(", ");
    const map = [`add map ${place} { ${kindOf(after)}; }`, `add element ${place} { ${elements} }`];
    return { ...NOTHING, added: [...map, `add chain ${place}`, ...setRules] };
  }
  const isSticky = ({ affinity }: Balancer) => affinity === "client-ip";
  if (isSticky(before) === isSticky(after) && areSame(before.targets, after.targets)) return NOTHING;
  const [old, wanted] = [numbered(before), numbered(after)];
  const gone = old.flatMap((target, index) => (isSame(target, wanted[index]) ? [] : index));
  const come = wanted.flatMap((target, index) => (isSame(target, old[index]) ? [] : element(target, index)));
  return {
    removed: gone.length === 0 ? [] : [`delete element ${place} { ${gone.join(", ")} }`],
    added: [
      ...(come.length === 0 ? [] : [`add element ${place} { ${come.join(", ")} }`]),
      ...(rules(name, before)[0] === rules(name, after)[0] ? [] : [`flush chain ${place}`, ...setRules]),
    ],
    dropped: [],
  };
}

/**
 * The targets of `after` in an order that keeps those of `before` where they are, as far as their number allows: the last
 * ones and the new ones fill the gaps.
 */
export function inPlace<T extends Target | Ip>(before: readonly T[], after: readonly T[]): readonly T[] {
  if (areSame(before, after)) return before;
  const left = new Map(after.map((target) => [keyOf(target), target]));
  const count = left.size;
  const kept = before.slice(0, count).map((target) => (left.delete(keyOf(target)) ? target : undefined));
  const others = [...left.values()].reverse();
  return Array.from({ length: count }, (_, index) => kept[index] ?? others.pop()).filter((each) => each !== undefined);
}

/** What the map has by number: each target once; with affinity in as many slots as the others. */
function numbered({ targets, affinity }: Balancer): readonly (Target | Ip)[] {
  return affinity === "client-ip" ? slotsOf(targets, (target) => element(target, 0)) : targets;
}

/**
 * `numgen inc` counts connections, so that n targets get exactly one in n each. A packet may meet the old rule and already
 * the new map, and find none at its number: then it goes to the first, of which there always is one.
 */
function rules(name: string, balancer: Balancer): readonly [string, string] {
  const { targets, protocol, affinity } = balancer;
  const ip = wordOf(balancer);
  const number =
    affinity === "client-ip"
      ? `jhash ${ip} saddr mod ${slotCount(targets.length)} seed 0x53575257`
      : `numgen inc mod ${targets.length}`;
  const translate = protocol === undefined ? "dnat to" : `meta l4proto ${protocol} dnat ${ip} to`;
  return [`${translate} ${number} map @${name}`, `${translate} numgen inc mod 1 map @${name}`];
}

/** A number's type has no name in nft: it is said by an example. */
function kindOf(balancer: Balancer): string {
  const { protocol } = balancer;
  const port = protocol === undefined ? "" : ` . ${protocol} dport`;
  return `typeof numgen inc mod 2 : ${wordOf(balancer)} daddr${port}`;
}

/** All targets are of one family. */
function wordOf({ targets: [first] }: Balancer): "ip" | "ip6" {
  return first !== undefined && familyOf(addressOf(first)) === 6 ? "ip6" : "ip";
}

function addressOf(target: Target | Ip): Ip {
  return typeof target === "object" ? target.address : target;
}

function element(target: Target | Ip, index: number): string {
  const port = typeof target === "object" ? ` . ${target.port}` : "";
  return `${index} : ${formatIp(addressOf(target))}${port}`;
}

function areSame(before: readonly (Target | Ip)[], after: readonly (Target | Ip)[]): boolean {
  return before.length === after.length && before.every((target, index) => isSame(target, after[index]));
}

function isSame(one: Target | Ip, other: Target | Ip | undefined): boolean {
  return one === other || (other !== undefined && keyOf(one) === keyOf(other));
}

function keyOf(target: Target | Ip): number | string {
  if (typeof target === "number") return target;
  if (typeof target === "object" && typeof target.address === "number") return target.address * 65_536 + target.port;
  return element(target, 0);
}
