/** Words of nodes as Docker's lists show them. Pure. */
import type { Node } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Availability, NodeStatus_State } from "../../proto/gen/swarm/v1/types_pb.js";
import type { ClusterAuthorities } from "./cluster-authorities.ts";
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

/** Docker's: whether a node's certificate is of the authority that signs now, and it trusts the roots that are trusted now. */
export function tlsStatusName({ certificate }: Node, authorities: ClusterAuthorities | undefined): string {
  if (certificate === undefined || certificate.issuerKey === "" || authorities === undefined) return "Unknown";
  const isReady =
    certificate.issuerKey === authorities.issuerKey &&
    certificate.trustedKeys.toSorted().join() === authorities.trustedKeys.toSorted().join();
  return isReady ? "Ready" : "Needs Rotation";
}
