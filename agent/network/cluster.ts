import type { Ipv4 } from "./address.ts";
import type { RemoteAddress } from "./forwarding.ts";
import type { HostNetwork, Protocol, PublishedPort, Target, VirtualAddress } from "./ruleset.ts";

/** What the cluster has that this host must know, in full. */
export interface ClusterNetwork {
  /** Networks that tasks of this host are on, the nodes' own apart. */
  readonly networks: readonly HostNetwork[];
  /** Addresses of the other hosts. */
  readonly hosts: readonly Ipv4[];
  /** Public WireGuard keys of those that have one. */
  readonly keys: ReadonlyMap<Ipv4, Uint8Array>;
  /** Addresses of tasks on them. */
  readonly remote: readonly RemoteAddress[];
  readonly virtual: readonly VirtualAddress[];
  /** Addresses of tasks of this host that are leaving, and who serves in their place. */
  readonly leaving: readonly VirtualAddress[];
  readonly published: readonly PublishedPort[];
  /** What tasks of this host serve to all hosts by published ports. */
  readonly served: readonly (Target & { readonly protocol: Protocol })[];
}

/** Of a cluster that has nothing. */
export const NOTHING: ClusterNetwork = {
  ...{ networks: [], hosts: [], keys: new Map(), remote: [], virtual: [], leaving: [], published: [], served: [] },
};
