import { isTerminal } from "../../common/model/task-state.ts";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Occupancy } from "./cluster-state.ts";
import type { Requirements } from "./requirements.ts";

/** What the task takes on its node: until it has ended it holds resources; it counts as running while it should run. */
export function occupancyOf(task: Task, requirements: Requirements): Occupancy | undefined {
  const state = task.status?.state ?? TaskState.NEW;
  if (task.nodeId === "" || state < TaskState.ASSIGNED || isTerminal(state)) return undefined;
  return { nodeId: task.nodeId, requirements, counted: task.desiredState <= TaskState.RUNNING };
}
