/** What may not pass between hosts in clear, and what follows where it cannot pass otherwise. Pure. */
import { bitsOf, contains, type Ip, type Ipv4, networkOf, type Prefix } from "./address.ts";
import type { ClusterNetwork } from "./cluster.ts";
import type { EncryptedContent } from "./encrypted-fabric.ts";
import type { RemoteAddress } from "./forwarding.ts";
import type { HostNetwork } from "./ruleset.ts";

/** The encrypted networks of this host, and addresses beyond them of tasks elsewhere. None overlaps another. */
export function secretPrefixes(networks: readonly HostNetwork[], remote: readonly RemoteAddress[]): readonly Prefix[] {
  const subnets = networks.filter(({ encrypted }) => encrypted).map(({ subnet }) => networkOf(subnet));
  const beyond = remote.filter(
    ({ encrypted, address }) => encrypted && !subnets.some((subnet) => contains(subnet, address)),
  );
  return [...subnets, ...beyond.map(({ address }) => ({ address, length: bitsOf(address) }))];
}

/** Those of `prefixes` that are no single address among `reached`. */
export function beyondReach(prefixes: readonly Prefix[], reached: readonly RemoteAddress[]): readonly Prefix[] {
  const known = new Set(reached.map(({ address }) => address));
  return prefixes.filter(({ address, length }) => length < bitsOf(address) || !known.has(address));
}

/** The addresses on encrypted networks that are not among `reached`. */
export function unreached(remote: readonly RemoteAddress[], reached: readonly RemoteAddress[]): ReadonlySet<Ip> {
  const addresses = new Set(remote.filter(({ encrypted }) => encrypted).map(({ address }) => address));
  for (const { address } of reached) addresses.delete(address);
  return addresses;
}

type Balanced = Pick<ClusterNetwork, "published" | "virtual" | "leaving">;

/** What leads to targets, without those that cannot be reached from this host. */
export function balancedTo({ published, virtual, leaving }: Balanced, missing: ReadonlySet<Ip>): Balanced {
  if (missing.size === 0) return { published, virtual, leaving };
  const isReached = (target: Ip | { readonly address: Ip }) =>
    !missing.has(typeof target === "object" ? target.address : target);
  return {
    published: published.map((port) => ({ ...port, targets: port.targets.filter(isReached) })),
    virtual: virtual.map((each) => ({ ...each, targets: each.targets.filter(isReached) })),
    leaving: leaving.map((each) => ({ ...each, targets: each.targets.filter(isReached) })),
  };
}

/** What is to be behind the encrypted fabric; undefined where nothing is encrypted, or nothing can be. */
export function encryptedContent(
  { networks, remote, keys }: ClusterNetwork,
  host: {
    readonly local?: Ipv4 | undefined;
    readonly port: number;
    readonly key: Uint8Array | undefined;
    readonly mtu: number;
  },
): EncryptedContent | undefined {
  const { local, port, key: privateKey, mtu } = host;
  if (local === undefined || privateKey === undefined || secretPrefixes(networks, remote).length === 0)
    return undefined;
  return { local, port, privateKey, mtu, keys, remote: remote.filter(({ encrypted }) => encrypted) };
}
