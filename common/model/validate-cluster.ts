/** Checks of what a cluster's settings say of addresses and ports. */
import type { ClusterSpec } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { FieldProblem } from "../base/error.ts";
import { ADDRESS_POOL_DEFAULT, NETWORK_PREFIX_LENGTH_DEFAULT } from "./defaults.ts";
import { contains, overlaps, parseIpPrefix } from "./ip-prefix.ts";
import { quoted } from "./units.ts";
import { Problems } from "./validate-parts.ts";

/** A /29 has five addresses for tasks; above /8 no private pool exists. */
const POOL_LENGTH = { min: 8, max: 29 };
const POOLS_MAX = 64;
/** Docker's: no port that needs root, and none of those that the kernel gives out. */
const DATA_PATH_PORT = { min: 1024, max: 49_151 };

type NetworkSettings = Pick<ClusterSpec, "addressPool" | "networkPools" | "networkPrefixLength" | "dataPathPort">;

/** Every bad field; absent ones mean the defaults. */
export function networkSettingsProblems(settings: NetworkSettings): readonly FieldProblem[] {
  const problems = new Problems();
  const { networkPools, networkPrefixLength, dataPathPort } = settings;
  const ownPool = checkPool("address_pool", settings.addressPool || ADDRESS_POOL_DEFAULT, problems);
  const length = networkPrefixLength || NETWORK_PREFIX_LENGTH_DEFAULT;
  if (length < POOL_LENGTH.min || length > POOL_LENGTH.max) {
    problems.add("network_prefix_length", `must be from ${POOL_LENGTH.min} to ${POOL_LENGTH.max}`);
  }
  if (networkPools.length > POOLS_MAX) problems.add("network_pools", `at most ${POOLS_MAX}`);
  const pools = networkPools.slice(0, POOLS_MAX).map((text) => checkPool("network_pools", text, problems));
  pools.forEach((pool, index) => {
    const text = networkPools[index];
    if (pool === undefined) return;
    if (pool.length > length) {
      problems.add("network_pools", `${text} is smaller than the subnets of networks, which are /${length}`);
    }
    if (ownPool && pool.length >= ownPool.length && contains(ownPool, pool)) {
      problems.add(
        "network_pools",
        `${text} lies within the pool of tasks on no network, ${settings.addressPool || ADDRESS_POOL_DEFAULT}`,
      );
    }
    const other = pools.slice(0, index).findIndex((each) => each && overlaps(each, pool));
    if (other >= 0) problems.add("network_pools", `${text} overlaps ${networkPools[other]}`);
  });
  if (dataPathPort !== 0 && (dataPathPort < DATA_PATH_PORT.min || dataPathPort > DATA_PATH_PORT.max)) {
    problems.add("data_path_port", `must be from ${DATA_PATH_PORT.min} to ${DATA_PATH_PORT.max}`);
  }
  return problems.list;
}

function checkPool(field: string, text: string, problems: Problems) {
  const pool = parseIpPrefix(text);
  if (pool?.family === 4 && pool.length >= POOL_LENGTH.min && pool.length <= POOL_LENGTH.max) return pool;
  problems.add(field, `${quoted(text)} is not an IPv4 network from /${POOL_LENGTH.min} to /${POOL_LENGTH.max}`);
  return undefined;
}
