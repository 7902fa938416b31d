/** What the cluster is and how it is doing, in numbers. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { GetInfoResponseSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Cluster } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Role, NodeStatus_State, TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { ControlDependencies } from "./dependencies.ts";
import { type ManagersStanding, managerWarnings } from "./warnings.ts";

export function getInfo(dependencies: ControlDependencies): MessageInitShape<typeof GetInfoResponseSchema> {
  const { view } = dependencies.store;
  let [nodesReady, tasksRunning] = [0, 0];
  const agentVersions: Record<string, number> = {};
  for (const { status, description } of view.nodes.values()) {
    if (status?.state === NodeStatus_State.READY) nodesReady += 1;
    // One that has not come yet has told nothing.
    const version = description?.engine?.version ?? "";
    if (version !== "") agentVersions[version] = (agentVersions[version] ?? 0) + 1;
  }
  for (const task of view.tasks.values()) if (task.status?.state === TaskState.RUNNING) tasksRunning += 1;
  return {
    version: dependencies.version,
    managerId: dependencies.managerId,
    clusterId: view.cluster?.ca?.clusterId ?? "",
    ...(view.cluster ? { cluster: withoutSecrets(view.cluster) } : {}),
    managers: [...view.managers.values()],
    leaderId: view.leader?.managerId ?? "",
    revision: BigInt(view.revision),
    nodes: view.nodes.size,
    nodesReady,
    services: view.services.size,
    tasks: view.tasks.size,
    tasksRunning,
    images: view.images.size,
    agentVersions,
    warnings: [...managerWarnings(standing(dependencies))],
  };
}

/**
 * Counts those that are to be managers, and those without an agent that could say so. One whose node is ready and that does not show
 * itself is on its way, as after `node promote`: `node ls` calls it unreachable meanwhile.
 */
function standing({ store: { view }, takeOutManager, isInTouch }: ControlDependencies): ManagersStanding {
  const { nodes, managers } = view;
  const wanted = [...nodes.values()].filter(({ spec }) => spec?.desiredRole === NodeSpec_Role.MANAGER);
  const lost = wanted.filter(({ id, status }) => !managers.has(id) && status?.state !== NodeStatus_State.READY);
  const members = wanted.length + [...managers.keys()].filter((id) => !nodes.has(id)).length;
  return {
    members,
    reachable: members - lost.length,
    isStoreTheirs: takeOutManager !== undefined,
    isInTouch: isInTouch(),
  };
}

/** What is sealed is nobody's to have, sealed as it is. */
function withoutSecrets({ ca, ...cluster }: Cluster): Cluster {
  return { ...cluster, sealedUnlockKey: new Uint8Array() };
}
