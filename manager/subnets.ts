/**
 * Which subnets new networks get. Nothing of the cluster may overlap: the fabric between the nodes is routed, address by address.
 * Pure but for chance.
 */

import { create } from "@bufbuild/protobuf";
import type { FieldProblem } from "../common/base/error.ts";
import { type Random, randomInteger } from "../common/base/random.ts";
import {
  ADDRESS_POOL_DEFAULT,
  NETWORK_POOLS_DEFAULT,
  NETWORK_PREFIX_LENGTH_DEFAULT,
} from "../common/model/defaults.ts";
import {
  contains,
  formatIpPrefix,
  type IpPrefix,
  networkOf,
  overlaps,
  parseIpAddress,
  parseIpPrefix,
  sizeOf,
} from "../common/model/ip-prefix.ts";
import { gatewayOf } from "../common/model/networks.ts";
import { type ClusterSpec, IpamSchema, type Network } from "../proto/gen/swarm/v1/objects_pb.js";
import { type IpamConfig, IpamConfigSchema, type NetworkSpec } from "../proto/gen/swarm/v1/types_pb.js";
import type { Proposal } from "./store/proposal.ts";
import type { View } from "./store/view.ts";

/** Of an IPv6 subnet that nobody chose, in the range of addresses that are not the Internet's (RFC 4193). */
const IPV6_PREFIX_LENGTH = 64;
const UNIQUE_LOCAL = "fd00::/8";
/** Chances to meet a free one among 2^56. */
const IPV6_TRIES_MAX = 10;
/** Overlaps that are told of one subnet. */
const OVERLAPS_SHOWN_MAX = 3;

interface Taken {
  readonly prefix: IpPrefix;
  /** "network front (10.0.1.0/24)". */
  readonly what: string;
}

/** Subnets as allocated, or every reason against them. */
export type SubnetAllocation =
  | { readonly ok: true; readonly ipam: readonly IpamConfig[] }
  | { readonly ok: false; readonly problems: readonly FieldProblem[] };

/** Plans the subnets of one network after the other, each beside those before it. */
export class SubnetPlanner {
  readonly #taken: Taken[];
  readonly #pools: readonly IpPrefix[];
  readonly #length: number;
  readonly #random: Random;
  readonly #ipam: View["ipam"];
  #last: string;

  constructor(view: Pick<View, "cluster" | "ipam" | "networks" | "nodes">, random: Random) {
    const settings = view.cluster?.spec;
    this.#pools = poolsOf(settings).flatMap(prefixesOf);
    this.#length = settings?.networkPrefixLength || NETWORK_PREFIX_LENGTH_DEFAULT;
    this.#taken = takenBy(view);
    this.#ipam = view.ipam;
    this.#last = view.ipam?.lastSubnet ?? "";
    this.#random = random;
  }

  /** The subnets of a network, IPv4 first; from then on they are taken. */
  add(spec: NetworkSpec): SubnetAllocation {
    const problems: FieldProblem[] = [];
    const ipam: IpamConfig[] = [];
    for (const family of spec.ipv6 ? ([4, 6] as const) : ([4] as const)) {
      const index = spec.ipam.findIndex((config) => familyOf(config) === family);
      const asked = spec.ipam[index] ?? create(IpamConfigSchema);
      const subnet = asked.subnet === "" ? this.#free(family) : parseIpPrefix(asked.subnet);
      if (subnet === undefined) problems.push({ field: "ipam", problem: this.#exhausted(family) });
      else {
        const clashes = asked.subnet === "" ? [] : this.#clashes(subnet);
        if (clashes.length > 0) {
          const problem = `${asked.subnet} overlaps ${clashes.slice(0, OVERLAPS_SHOWN_MAX).join(", ")}`;
          problems.push({ field: `ipam[${index}].subnet`, problem });
        }
        const text = formatIpPrefix(subnet);
        this.#taken.push({ prefix: subnet, what: `network ${spec.name} (${text})` });
        ipam.push(create(IpamConfigSchema, { ...asked, subnet: text, gateway: asked.gateway || gatewayOf(text) }));
      }
    }
    return problems.length > 0 ? { ok: false, problems } : { ok: true, ipam };
  }

  /** What must be written with the networks: whoever else has made one meanwhile meets it. */
  guard(): Proposal {
    const object = create(IpamSchema, { ...this.#ipam, id: "default", lastSubnet: this.#last });
    return { type: this.#ipam ? "update" : "create", kind: "ipam", object };
  }

  #clashes(subnet: IpPrefix): readonly string[] {
    return this.#taken.filter(({ prefix }) => overlaps(prefix, subnet)).map(({ what }) => what);
  }

  #free(family: 4 | 6): IpPrefix | undefined {
    if (family === 6) return this.#freeIpv6();
    const last = parseIpPrefix(this.#last);
    const at = last ? this.#pools.findIndex((pool) => overlaps(pool, last)) : -1;
    const after = at < 0 || !last ? [] : [{ pool: this.#pools[at], from: last.value + sizeOf(last) }];
    const rest = [...this.#pools.slice(at + 1), ...this.#pools.slice(0, at + 1)].map((pool) => ({
      pool,
      from: pool.value,
    }));
    for (const { pool, from } of [...after, ...rest]) {
      const found = pool && this.#freeIn(pool, from);
      if (!found) continue;
      this.#last = formatIpPrefix(found);
      return found;
    }
    return undefined;
  }

  /** The first free one of the pool that begins at `from` or after it. */
  #freeIn(pool: IpPrefix, from: bigint): IpPrefix | undefined {
    const length = Math.max(this.#length, pool.length);
    const size = sizeOf({ family: 4, length });
    const end = pool.value + sizeOf(pool);
    let value = roundedUp(from, size);
    while (value < end) {
      const subnet: IpPrefix = { family: 4, value, length };
      const clash = this.#taken.find(({ prefix }) => overlaps(prefix, subnet));
      if (clash === undefined) return subnet;
      value = roundedUp(networkOf(clash.prefix).value + sizeOf(clash.prefix), size);
    }
    return undefined;
  }

  #freeIpv6(): IpPrefix | undefined {
    for (let tries = 0; tries < IPV6_TRIES_MAX; tries++) {
      const [high, low] = [randomInteger(this.#random, 2 ** 28), randomInteger(this.#random, 2 ** 28)];
      const bits = (0xfdn << 56n) | (BigInt(high) << 28n) | BigInt(low);
      const subnet: IpPrefix = { family: 6, value: bits << 64n, length: IPV6_PREFIX_LENGTH };
      if (this.#clashes(subnet).length === 0) return subnet;
    }
    return undefined;
  }

  #exhausted(family: 4 | 6): string {
    if (family === 6) return "no free IPv6 subnet was found: give one";
    const pools = this.#pools.map(formatIpPrefix).join(", ");
    const taken = this.#taken
      .filter(({ prefix }) => this.#pools.some((pool) => overlaps(pool, prefix)))
      .sort((left, right) => left.prefix.length - right.prefix.length)
      .slice(0, OVERLAPS_SHOWN_MAX)
      .map(({ what }) => what);
    return (
      `no free /${this.#length} in ${pools}, where there are ${taken.join(", ")}, …: ` +
      "give a subnet (--subnet), or more pools (swarm update --default-addr-pool)"
    );
  }
}

/** Whether a subnet lies in what the cluster keeps for networks: its pools, and IPv6 addresses that are nobody's on the Internet. */
export function isOfNetworkPools({ cluster }: Pick<View, "cluster">, subnet: string): boolean {
  const prefix = parseIpPrefix(subnet);
  const pools = [...poolsOf(cluster?.spec), UNIQUE_LOCAL];
  return pools.flatMap(prefixesOf).some((pool) => prefix && prefix.length >= pool.length && contains(pool, prefix));
}

function poolsOf(settings: ClusterSpec | undefined): readonly string[] {
  return settings?.networkPools.length ? settings.networkPools : NETWORK_POOLS_DEFAULT;
}

/** Routes of hosts that a network has come to overlap, since a node joined or changed: "10.0.0.0/16 on host1". */
export function overlappingRoutes({ nodes }: Pick<View, "nodes">, { ipam }: Pick<Network, "ipam">): string[] {
  const subnets = ipam.flatMap(({ subnet }) => prefixesOf(subnet));
  return routesOf({ nodes })
    .filter(({ prefix }) => subnets.some((subnet) => overlaps(subnet, prefix)))
    .map(({ what }) => what);
}

/** Everything that no new network may overlap. */
function takenBy({ cluster, networks, nodes }: Pick<View, "cluster" | "networks" | "nodes">): Taken[] {
  const pool = cluster?.spec?.addressPool || ADDRESS_POOL_DEFAULT;
  const taken = prefixesOf(pool).map((prefix) => ({ prefix, what: `the cluster's address pool (${pool})` }));
  for (const { name, ipam } of networks.values()) {
    for (const { subnet } of ipam) {
      taken.push(...prefixesOf(subnet).map((prefix) => ({ prefix, what: `network ${name} (${subnet})` })));
    }
  }
  return [...taken, ...routesOf({ nodes })];
}

/** Each prefix that hosts route, with the first of them. */
function routesOf({ nodes }: Pick<View, "nodes">): Taken[] {
  const routes = new Map<string, string>();
  for (const { description } of nodes.values()) {
    for (const route of description?.routes ?? [])
      if (!routes.has(route)) routes.set(route, description?.hostname ?? "");
  }
  return [...routes].flatMap(([route, hostname]) =>
    prefixesOf(route).map((prefix) => ({ prefix, what: `${route} on ${hostname}` })),
  );
}

function prefixesOf(text: string): IpPrefix[] {
  const prefix = parseIpPrefix(text);
  return prefix ? [networkOf(prefix)] : [];
}

function familyOf({ subnet, gateway }: IpamConfig): 4 | 6 {
  return parseIpPrefix(subnet)?.family ?? parseIpAddress(gateway)?.family ?? 4;
}

function roundedUp(value: bigint, size: bigint): bigint {
  return ((value + size - 1n) / size) * size;
}
