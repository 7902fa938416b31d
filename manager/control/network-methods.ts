/** The Control API's methods about networks. */
import type { ServiceImplementation } from "../../common/rpc/service.ts";
import type { Control } from "../../proto/gen/swarm/v1/control_pb.js";
import { checkNetwork } from "./check-network.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { createNetwork, listNetworks, removeNetwork } from "./networks.ts";

type Methods = Pick<
  ServiceImplementation<typeof Control>,
  "checkNetwork" | "createNetwork" | "listNetworks" | "removeNetwork"
>;

export function networkMethods(dependencies: ControlDependencies): Methods {
  return {
    checkNetwork: (request, { signal }) => checkNetwork(dependencies, request, signal),
    createNetwork: async (request, { signal }) => ({ network: await createNetwork(dependencies, request, signal) }),
    listNetworks: async (request) => ({ networks: listNetworks(dependencies, request) }),
    removeNetwork: async (request, { signal }) => {
      await removeNetwork(dependencies, request, signal);
      return {};
    },
  };
}
