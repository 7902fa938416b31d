/** Words of nodes as Docker's lists show them. Pure. */
import type { Node } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Availability, NodeStatus_State } from "../../proto/gen/swarm/v1/types_pb.js";
import { capitalized } from "./words.ts";

/** "Ready", "Down", … */
export function nodeStateName(node: Node): string {
  return capitalized(NodeStatus_State[node.status?.state ?? NodeStatus_State.UNKNOWN].toLowerCase());
}

/** "Active", "Pause", "Drain". */
export function availabilityName(node: Node): string {
  return capitalized(NodeSpec_Availability[node.spec?.availability ?? NodeSpec_Availability.ACTIVE].toLowerCase());
}

/** "Leader", "Reachable", "Unreachable", or nothing for a node without a manager. */
export function managerStatusName({ managerStatus }: Node): string {
  if (managerStatus === undefined) return "";
  if (managerStatus.leader) return "Leader";
  return managerStatus.reachable ? "Reachable" : "Unreachable";
}
