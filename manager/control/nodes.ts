/** Nodes: list, update, remove. */

import { create } from "@bufbuild/protobuf";
import { invalidFields, SwarmError } from "../../common/base/error.ts";
import { validateNodeSpec } from "../../common/model/validate.ts";
import type { ListNodesRequest, RemoveNodeRequest, UpdateNodeRequest } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Node } from "../../proto/gen/swarm/v1/objects_pb.js";
import {
  ManagerStatusSchema,
  type NodeSpec,
  NodeSpec_Role,
  NodeStatus_State,
} from "../../proto/gen/swarm/v1/types_pb.js";
import type { Proposal } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { nodeLookup } from "./lookups.ts";
import { requireId, resolveReferences } from "./references.ts";

/** Nodes by reference, or all, sorted by hostname. */
export function listNodes({ store }: ControlDependencies, request: ListNodesRequest): Node[] {
  const hostname = (node: Node) => node.description?.hostname ?? "";
  const nodes = [...resolveReferences(nodeLookup(store.view), request.references)].map((node) =>
    withManager(store.view, node),
  );
  return nodes.sort((left, right) =>
    hostname(left) < hostname(right) ? -1 : Number(hostname(left) > hostname(right)),
  );
}

/** A node that runs a manager, or should, says how that one stands. */
function withManager(view: Pick<View, "managers" | "leader">, node: Node): Node {
  const manager = view.managers.get(node.id);
  if (!manager && node.spec?.desiredRole !== NodeSpec_Role.MANAGER) return node;
  const managerStatus = create(ManagerStatusSchema, {
    address: manager?.address ?? "",
    leader: view.leader?.managerId === node.id,
    reachable: manager !== undefined,
  });
  return { ...node, managerStatus };
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
  checkRole(store.view, node, request.spec);
  const stale = new SwarmError("aborted", `update out of sequence: node ${node.id} has changed since it was read`);
  if (request.version !== (node.meta?.version ?? 0n)) throw stale;
  const object: Node = { ...node, spec: request.spec };
  const { conflicts } = await store.commit([{ type: "update", kind: "node", object }], { signal });
  if (conflicts.length > 0) throw stale;
  return requireId(store.view.nodes, "node", request.nodeId);
}

/** The last manager is the cluster. */
function checkRole(view: Pick<View, "managers">, node: Node, spec: NodeSpec): void {
  const demoted = node.spec?.desiredRole === NodeSpec_Role.MANAGER && spec.desiredRole === NodeSpec_Role.WORKER;
  if (demoted && view.managers.has(node.id) && view.managers.size === 1) {
    throw new SwarmError("failed_precondition", "attempting to demote the last manager of the swarm");
  }
}

/** Forgets a node that is down; with `force` any. A manager's place among the managers is freed with it. */
export async function removeNode(
  { store, ownStore }: ControlDependencies,
  request: RemoveNodeRequest,
  signal: AbortSignal,
): Promise<void> {
  const node = requireId(store.view.nodes, "node", request.nodeId);
  if (!request.force && node.status?.state !== NodeStatus_State.DOWN) {
    throw new SwarmError("failed_precondition", `node ${node.id} is not down and can't be removed`);
  }
  const isManager = node.spec?.desiredRole === NodeSpec_Role.MANAGER;
  if (isManager && !request.force) {
    throw new SwarmError(
      "failed_precondition",
      `node ${node.id} is a manager and must be demoted to worker before removal, or removed with --force`,
    );
  }
  if (isManager) await ownStore?.takeOut(node.id, signal);
  const session = store.view.sessions.get(node.id);
  const volumes = store.view.nodeVolumes.has(node.id);
  const group: readonly Proposal[] = [
    { type: "delete", kind: "node", id: node.id },
    ...(session ? [{ type: "delete" as const, kind: "session" as const, id: node.id }] : []),
    ...(volumes ? [{ type: "delete" as const, kind: "nodevolumes" as const, id: node.id }] : []),
  ];
  await store.commit([group], { signal });
}
