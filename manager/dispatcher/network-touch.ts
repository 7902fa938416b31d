/** Which agents must look again at their network when something changed in the store. Pure. */
import type { Node, Service, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State, TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Change } from "../store/changes.ts";
import { isReachable } from "../store/network-index.ts";
import type { View } from "../store/view.ts";
import { concernsAgents } from "./assignment-set.ts";
import { hasIngress, networksOfService } from "./network-set.ts";

/** What these nodes are to look at. */
export interface NetworkTouch {
  readonly nodeIds: Iterable<string> | "all";
  readonly taskIds: readonly string[];
  readonly serviceIds: readonly string[];
  readonly peerIds: readonly string[];
}

type TouchView = Pick<View, "services" | "specVersion" | "byName" | "tasksOfNode" | "nodesOnNetwork">;

const NOTHING: NetworkTouch = { nodeIds: [], taskIds: [], serviceIds: [], peerIds: [] };

/** The view is the one after the change. The nodes that hold a task hear of it anyway. */
export function networkTouch(view: TouchView, change: Change): NetworkTouch {
  switch (change.kind) {
    case "task":
      return taskTouch(view, change);
    case "service":
      return serviceTouch(view, change);
    case "node":
      return nodeTouch(view, change);
    default:
      return NOTHING;
  }
}

function taskTouch(view: TouchView, { before, after, id }: Extract<Change, { kind: "task" }>): NetworkTouch {
  const task = after ?? before;
  if (!task || !moved(before, after)) return NOTHING;
  if (hasIngress(view.services.get(task.serviceId))) return { ...NOTHING, nodeIds: "all", taskIds: [id] };
  const nodeIds = new Set(task.networks.flatMap(({ networkId }) => [...view.nodesOnNetwork(networkId)]));
  return { ...NOTHING, nodeIds, taskIds: [id] };
}

/** Whether packets to the task go another way than before, or connections may. */
function moved(before: Task | undefined, after: Task | undefined): boolean {
  const wasThere = before !== undefined && isReachable(before);
  const isThere = after !== undefined && isReachable(after);
  if (!wasThere || !isThere) return wasThere !== isThere;
  return before.nodeId !== after.nodeId || mayServe(before) !== mayServe(after);
}

function mayServe({ status, desiredState }: Task): boolean {
  return status?.state === TaskState.RUNNING && desiredState <= TaskState.RUNNING;
}

/** Told to all nodes where it is or was published; else to those on its networks. */
function serviceTouch(view: TouchView, { before, after, id }: Extract<Change, { kind: "service" }>): NetworkTouch {
  if (!concernsAgents(before, after)) return NOTHING;
  if (hasIngress(before) || hasIngress(after)) return { ...NOTHING, nodeIds: "all", serviceIds: [id] };
  const services = [before, after].filter((each): each is Service => each !== undefined);
  const networkIds = new Set(services.flatMap((service) => networksOfService(view, service)));
  for (const { networkId } of services.flatMap(({ vips }) => vips)) networkIds.add(networkId);
  const nodeIds = new Set([...networkIds].flatMap((networkId) => [...view.nodesOnNetwork(networkId)]));
  return { ...NOTHING, nodeIds, serviceIds: [id] };
}

/** Nodes hear of each other's addresses and keys; whether one is down decides whether its tasks serve. */
function nodeTouch(view: TouchView, { before, after, id }: Extract<Change, { kind: "node" }>): NetworkTouch {
  const elsewhere =
    before?.status?.address !== after?.status?.address ||
    before?.description?.hostname !== after?.description?.hostname ||
    keyOf(before) !== keyOf(after);
  const taskIds =
    isDown(before) === isDown(after) ? [] : [...view.tasksOfNode(id)].filter(isReachable).map((task) => task.id);
  if (!elsewhere && taskIds.length === 0) return NOTHING;
  return { ...NOTHING, nodeIds: "all", taskIds, peerIds: elsewhere ? [id] : [] };
}

function keyOf(node: Node | undefined): string {
  return Buffer.from(node?.description?.wireguardKey ?? []).toString("hex");
}

function isDown(node: Node | undefined): boolean {
  return node?.status?.state === NodeStatus_State.DOWN;
}
