/** How far a job has come. Pure, over the view: the API shows it and services that wait for a job are let go by it. */
import { completionsOf, concurrencyOf, isGlobal } from "../common/model/service-mode.ts";
import type { Service } from "../proto/gen/swarm/v1/objects_pb.js";
import { type ServiceSpec, TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import { slotOf } from "./store/task-index.ts";
import type { View } from "./store/view.ts";

export interface JobProgress {
  /** Slots that have completed in the present iteration. */
  readonly completed: number;
  /** Tasks that should be under way now; 0 once the job is done. */
  readonly desired: number;
}

/** `service`: undefined for a job that is not there yet. `eligibleNodes`: how many nodes a global job may use. */
export function jobProgress(
  view: Pick<View, "tasksOfService">,
  service: Service | undefined,
  spec: ServiceSpec,
  eligibleNodes: number,
): JobProgress {
  const done = new Set<number | string>();
  const { id = "", taskVersion = 0n } = service ?? {};
  for (const task of view.tasksOfService(id)) {
    const completed = task.status?.state === TaskState.COMPLETE && task.specVersion >= taskVersion;
    if (completed) done.add(slotOf(task));
  }
  const total = isGlobal(spec) ? eligibleNodes : completionsOf(spec);
  const left = Math.max(0, total - done.size);
  return { completed: done.size, desired: Math.min(left, concurrencyOf(spec)) };
}
