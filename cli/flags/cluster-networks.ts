/** Flags of `swarm init` and `swarm update` about networks. */
import type { Flags, FlagTable } from "./parse.ts";
import { integerFlag } from "./values.ts";

export const NETWORK_FLAGS: FlagTable = {
  "data-path-port": {
    kind: "text",
    value: "uint32",
    help: "Port number to use for data path traffic",
    default: "4789",
  },
  "default-addr-pool": {
    kind: "list",
    value: "ipNet",
    help: "Pools of networks' subnets in CIDR format",
    default: "10.0.0.0/8",
  },
  "default-addr-pool-mask-length": {
    kind: "text",
    value: "uint32",
    help: "Prefix length of networks' subnets",
    default: "24",
  },
};

/** What is given, under the names that it has in a cluster's spec. */
export function networkSettings(flags: Flags): {
  readonly networkPools?: string[];
  readonly networkPrefixLength?: number;
  readonly dataPathPort?: number;
} {
  const length = integerFlag(flags, "default-addr-pool-mask-length", { min: 8, max: 29 });
  const port = integerFlag(flags, "data-path-port", { min: 1024, max: 49_151 });
  return {
    ...(flags.has("default-addr-pool") && { networkPools: [...flags.list("default-addr-pool")] }),
    ...(length !== undefined && { networkPrefixLength: length }),
    ...(port !== undefined && { dataPathPort: port }),
  };
}
