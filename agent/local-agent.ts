/** What the agent's own socket offers to the host's root: to join a cluster, to leave it, and how it stands. */
import { projectVersion } from "../common/base/version.ts";
import type { ServiceImplementation } from "../common/rpc/service.ts";
import { type LocalAgent, LocalState } from "../proto/gen/swarm/v1/local_pb.js";
import type { AgentHost } from "./agent-host.ts";

export function createLocalAgent(host: AgentHost): ServiceImplementation<typeof LocalAgent> {
  return {
    async getLocalAgent() {
      const { running } = host;
      return {
        state: running ? LocalState.MEMBER : LocalState.IDLE,
        nodeId: running?.identity.nodeId ?? "",
        clusterId: running?.identity.clusterId ?? "",
        managers: [...(running?.managers.all ?? [])],
        version: projectVersion(),
      };
    },
    joinNode: (request, { signal }) => host.join(request, signal),
    async leaveNode(_, { signal }) {
      await host.leave(signal);
      return {};
    },
  };
}
