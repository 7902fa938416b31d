/** Nodes: list, update, remove. */
import { invalidFields, SwarmError } from "../../common/base/error.ts";
import { validateNodeSpec } from "../../common/model/validate.ts";
import type { ListNodesRequest, RemoveNodeRequest, UpdateNodeRequest } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Node } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Proposal } from "../store/proposal.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { nodeLookup } from "./lookups.ts";
import { requireId, resolveReferences } from "./references.ts";

/** Nodes by reference, or all, sorted by hostname. */
export function listNodes({ store }: ControlDependencies, request: ListNodesRequest): Node[] {
  const hostname = (node: Node) => node.description?.hostname ?? "";
  const nodes = [...resolveReferences(nodeLookup(store.view), request.references)];
  return nodes.sort((left, right) =>
    hostname(left) < hostname(right) ? -1 : Number(hostname(left) > hostname(right)),
  );
}

/** Replaces a node's spec: availability, labels, role. */
export async function updateNode(
  { store }: ControlDependencies,
  request: UpdateNodeRequest,
  signal: AbortSignal,
): Promise<Node> {
  const node = requireId(store.view.nodes, "node", request.nodeId);
  if (request.spec === undefined) throw invalidFields([{ field: "spec", problem: "must be provided" }]);
  const problems = validateNodeSpec(request.spec);
  if (problems.length > 0) throw invalidFields(problems);
  const stale = new SwarmError("aborted", `update out of sequence: node ${node.id} has changed since it was read`);
  if (request.version !== (node.meta?.version ?? 0n)) throw stale;
  const object: Node = { ...node, spec: request.spec };
  const { conflicts } = await store.commit([{ type: "update", kind: "node", object }], { signal });
  if (conflicts.length > 0) throw stale;
  return requireId(store.view.nodes, "node", request.nodeId);
}

/** Forgets a node that is down; with `force` any. */
export async function removeNode(
  { store }: ControlDependencies,
  request: RemoveNodeRequest,
  signal: AbortSignal,
): Promise<void> {
  const node = requireId(store.view.nodes, "node", request.nodeId);
  if (!request.force && node.status?.state !== NodeStatus_State.DOWN) {
    throw new SwarmError("failed_precondition", `node ${node.id} is not down and can't be removed`);
  }
  const session = store.view.sessions.get(node.id);
  const volumes = store.view.nodeVolumes.has(node.id);
  const group: readonly Proposal[] = [
    { type: "delete", kind: "node", id: node.id },
    ...(session ? [{ type: "delete" as const, kind: "session" as const, id: node.id }] : []),
    ...(volumes ? [{ type: "delete" as const, kind: "nodevolumes" as const, id: node.id }] : []),
  ];
  await store.commit([group], { signal });
}
