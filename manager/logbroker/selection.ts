import type { LogSelector, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { View } from "../store/view.ts";

/** Whether the task's log is asked for. */
export function selects(selector: LogSelector | undefined, task: Task): boolean {
  if (!selector) return false;
  return selector.taskIds.includes(task.id) || selector.serviceIds.includes(task.serviceId);
}

/** The nodes that have a log that is asked for. */
export function nodesOf(view: View, selector: LogSelector | undefined): ReadonlySet<string> {
  const nodeIds = new Set<string>();
  for (const id of selector?.taskIds ?? []) nodeIds.add(view.tasks.get(id)?.nodeId ?? "");
  for (const id of selector?.serviceIds ?? []) for (const { nodeId } of view.tasksOfService(id)) nodeIds.add(nodeId);
  // Tasks that were never assigned.
  nodeIds.delete("");
  return nodeIds;
}
