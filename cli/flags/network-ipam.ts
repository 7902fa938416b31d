/** `network create`'s flags about addresses, put together by subnet. Pure. */
import { create } from "@bufbuild/protobuf";
import { contains, parseIpAddress, parseIpPrefix } from "../../common/model/ip-prefix.ts";
import { type IpamConfig, IpamConfigSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { UsageError } from "../usage-error.ts";

export interface IpamFlags {
  readonly subnets: readonly string[];
  readonly gateways: readonly string[];
  readonly ranges: readonly string[];
  readonly auxAddresses: readonly (readonly [string, string])[];
}

/** One entry a subnet; what belongs to none is refused, as Docker does. */
export function ipamOf({ subnets, gateways, ranges, auxAddresses }: IpamFlags): IpamConfig[] {
  const configs = subnets.map((subnet) => create(IpamConfigSchema, { subnet }));
  const subnetOf = (flag: string, text: string) => {
    const found = configs.find(({ subnet }) => holds(subnet, text));
    if (!found) throw new UsageError(`--${flag}: no matching subnet for ${text}`);
    return found;
  };
  for (const gateway of gateways) {
    const config = subnetOf("gateway", gateway);
    if (config.gateway !== "") throw new UsageError(`--gateway: a second one for ${config.subnet}`);
    config.gateway = gateway;
  }
  for (const range of ranges) {
    const config = subnetOf("ip-range", range);
    if (config.ipRange !== "") throw new UsageError(`--ip-range: a second one for ${config.subnet}`);
    config.ipRange = range;
  }
  for (const [name, address] of auxAddresses) subnetOf("aux-address", address).auxAddresses[name] = address;
  return configs;
}

function holds(subnet: string, text: string): boolean {
  const prefix = parseIpPrefix(subnet);
  const inner = parseIpPrefix(text) ?? parseIpAddress(text);
  return prefix !== undefined && inner !== undefined && contains(prefix, inner);
}
