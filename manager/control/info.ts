/** What the cluster is and how it is doing, in numbers. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { withTimeout } from "../../common/base/clock.ts";
import type { GetInfoResponseSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Cluster } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State, TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { ControlDependencies } from "./dependencies.ts";
import { managersStanding, managerWarnings } from "./warnings.ts";

/** How long the store may take to say who has a place in it, in ms: it does so without asking anybody. */
const PLACES_MS_MAX = 1_000;

export async function getInfo(
  dependencies: ControlDependencies,
): Promise<MessageInitShape<typeof GetInfoResponseSchema>> {
  const { view } = dependencies.store;
  const warnings = await warningsOf(dependencies);
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
    warnings,
  };
}

async function warningsOf({ store: { view }, ownStore, isInTouch, clock }: ControlDependencies): Promise<string[]> {
  const soon = { clock, timeoutMs: PLACES_MS_MAX, operation: "ask who has a place in the store" };
  const asked = ownStore && withTimeout(soon, new AbortController().signal, () => ownStore.places());
  // A store that does not answer is told of in any case.
  const places = (await asked?.catch(() => undefined)) ?? [...view.managers.keys()];
  const standing = managersStanding(view, places);
  return [...managerWarnings({ ...standing, isStoreTheirs: ownStore !== undefined, isInTouch: isInTouch() })];
}

/** What is sealed is nobody's to have, sealed as it is. */
function withoutSecrets({ ca, ...cluster }: Cluster): Cluster {
  return { ...cluster, sealedUnlockKey: new Uint8Array() };
}
