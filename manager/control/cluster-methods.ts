/** The calls of the Control API that are about the cluster as such. */
import type { ServiceImplementation } from "../../common/rpc/service.ts";
import type { Control } from "../../proto/gen/swarm/v1/control_pb.js";
import { getCa, rotateCa } from "./ca.ts";
import { getJoinTokens, getUnlockKey, updateCluster } from "./cluster.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { getInfo } from "./info.ts";

type ClusterMethods = Pick<
  ServiceImplementation<typeof Control>,
  "getInfo" | "getUnlockKey" | "getJoinTokens" | "getCa" | "rotateCa" | "updateCluster"
>;

export function clusterMethods(dependencies: ControlDependencies): ClusterMethods {
  return {
    getInfo: async () => getInfo(dependencies),
    getUnlockKey: async (request, { signal }) => ({ unlockKey: await getUnlockKey(dependencies, request, signal) }),
    getJoinTokens: (request, { signal }) => getJoinTokens(dependencies, request, signal),
    getCa: (_, { signal }) => getCa(dependencies, signal),
    rotateCa: async (request, { signal }) => {
      await rotateCa(dependencies, request, signal);
      return {};
    },
    updateCluster: async (request, { signal }) => ({ cluster: await updateCluster(dependencies, request, signal) }),
  };
}
