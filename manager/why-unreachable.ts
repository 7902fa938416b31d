import { NodeStatus_State } from "../proto/gen/swarm/v1/types_pb.js";
import type { View } from "./store/view.ts";

/** Why a node cannot be asked now, in a word or two; undefined when it can. */
export function whyUnreachable(view: View, nodeId: string): string | undefined {
  if (view.sessions.has(nodeId)) return undefined;
  const node = view.nodes.get(nodeId);
  if (!node) return "removed";
  return node.status?.state === NodeStatus_State.DOWN ? "down" : "not connected";
}
