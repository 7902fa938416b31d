import { matchesAll, parseConstraints } from "../common/model/constraints.ts";
import { NodeSpec_Availability, NodeStatus_State, type ServiceSpec } from "../proto/gen/swarm/v1/types_pb.js";
import type { View } from "./store/view.ts";

/** The nodes that a global service or job may use now: ready, active, constraints met. */
export function eligibleNodes(view: Pick<View, "nodes">, spec: ServiceSpec): string[] {
  const constraints = parseConstraints(spec.task?.placement?.constraints ?? []);
  if (!constraints.ok) return [];
  const eligible = [...view.nodes.values()].filter((node) => {
    const availability = node.spec?.availability ?? NodeSpec_Availability.ACTIVE;
    const usable = node.status?.state === NodeStatus_State.READY && availability === NodeSpec_Availability.ACTIVE;
    return usable && matchesAll(constraints.value, node);
  });
  return eligible.map(({ id }) => id);
}
