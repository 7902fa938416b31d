/** Tasks: list by reference, service and node. */
import type { ListTasksRequest, TaskView } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { View } from "../store/view.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { nodeLookup, serviceLookup, taskLookup } from "./lookups.ts";
import { resolveReferences } from "./references.ts";
import { TaskViewer } from "./views.ts";

/** Tasks that satisfy every restriction; services and nodes may be named in any way. */
export function listTasks({ store }: ControlDependencies, request: ListTasksRequest): TaskView[] {
  const { view } = store;
  const services = idsOf(resolveReferences(serviceLookup(view), request.serviceIds), request.serviceIds);
  const nodes = idsOf(resolveReferences(nodeLookup(view), request.nodeIds), request.nodeIds);
  const viewer = new TaskViewer(view);
  const shown: TaskView[] = [];
  for (const task of candidates(view, request, { services, nodes })) {
    if (services && !services.has(task.serviceId)) continue;
    if (nodes && !nodes.has(task.nodeId)) continue;
    shown.push(viewer.show(task));
  }
  return shown;
}

function idsOf(objects: Iterable<{ readonly id: string }>, restriction: readonly string[]): Set<string> | undefined {
  return restriction.length === 0 ? undefined : new Set(Iterator.from(objects).map(({ id }) => id));
}

/** The smallest set that the indexes give. */
function* candidates(
  view: View,
  request: ListTasksRequest,
  { services, nodes }: { readonly services: Set<string> | undefined; readonly nodes: Set<string> | undefined },
): Iterable<Task> {
  if (request.references.length > 0) yield* resolveReferences(taskLookup(view), request.references);
  else if (services) for (const id of services) yield* view.tasksOfService(id);
  else if (nodes) for (const id of nodes) yield* view.tasksOfNode(id);
  else yield* view.tasks.values();
}
