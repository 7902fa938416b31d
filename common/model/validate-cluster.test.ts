/** Goal: no cluster gets pools that nothing can come from. Method: a table. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ClusterSpecSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { networkSettingsProblems } from "./validate-cluster.ts";

test.each<[object, string[]]>([
  [{}, []],
  [{ networkPools: ["10.0.0.0/8"], networkPrefixLength: 24, dataPathPort: 4789, addressPool: "10.224.0.0/12" }, []],
  [{ addressPool: "10.0.0.0/30" }, ['address_pool: "10.0.0.0/30" is not an IPv4 network from /8 to /29']],
  [{ networkPools: ["fd00::/8"] }, ['network_pools: "fd00::/8" is not an IPv4 network from /8 to /29']],
  [
    { networkPools: ["172.16.0.0/25"] },
    ["network_pools: 172.16.0.0/25 is smaller than the subnets of networks, which are /24"],
  ],
  [{ networkPools: ["172.16.0.0/16", "172.16.9.0/24"] }, ["network_pools: 172.16.9.0/24 overlaps 172.16.0.0/16"]],
  [
    { addressPool: "10.224.0.0/12", networkPools: ["10.225.0.0/16"] },
    ["network_pools: 10.225.0.0/16 lies within the pool of tasks on no network, 10.224.0.0/12"],
  ],
  [{ networkPrefixLength: 30 }, ["network_prefix_length: must be from 8 to 29"]],
  [{ dataPathPort: 80 }, ["data_path_port: must be from 1024 to 49151"]],
])("%j", (settings, expected) => {
  const problems = networkSettingsProblems(create(ClusterSpecSchema, settings));
  expect(problems.map(({ field, problem }) => `${field}: ${problem}`)).toEqual(expected);
});
