/**
 * What a service waits for: its `depends_on`, looked up in the store. Pure, over the view: the orchestrator holds a new spec
 * version back until nothing is left, and the API says what is.
 */
import { replicasOf } from "../common/model/defaults.ts";
import { isGlobal, isJob } from "../common/model/service-mode.ts";
import type { Service, Task } from "../proto/gen/swarm/v1/objects_pb.js";
import {
  type ServiceDependency,
  ServiceDependency_Condition,
  type ServiceSpec,
  TaskState,
  UpdateStatus_State,
} from "../proto/gen/swarm/v1/types_pb.js";
import { eligibleNodes } from "./eligible-nodes.ts";
import { jobProgress } from "./job-progress.ts";
import { slotOf } from "./store/task-index.ts";
import type { View } from "./store/view.ts";

/** The part of a view that dependencies are looked up in. */
export type WaitingView = Pick<View, "serviceByName" | "specVersion" | "tasksOfService" | "nodes">;

/** Whether the newest spec version of a service was let go: once it was, nothing that happens to others holds it back. */
export function isReleased(service: Service, spec: ServiceSpec | undefined): boolean {
  return (spec?.dependsOn.length ?? 0) === 0 || service.releasedVersion >= service.specVersion;
}

/** What the newest version still waits for, in words that follow "waiting for"; empty when it may go. */
export function waitingFor(view: WaitingView, service: Service, spec: ServiceSpec | undefined): string {
  if (spec === undefined || isReleased(service, spec)) return "";
  return spec.dependsOn.flatMap((dependency) => unmet(view, dependency) ?? []).join(", ");
}

/** Why one dependency is not met; undefined when it is. */
function unmet(view: WaitingView, { service: name, condition, optional }: ServiceDependency): string | undefined {
  const service = view.serviceByName(name);
  if (service === undefined) return optional ? undefined : `${name} to be created`;
  const spec = view.specVersion(service.id, service.specVersion)?.spec;
  if (spec === undefined) return `${name} to be created`;
  switch (condition) {
    case ServiceDependency_Condition.STARTED:
      return hasStarted(view, service, spec) ? undefined : `${name} to start`;
    case ServiceDependency_Condition.HEALTHY:
      return isHealthy(view, service, spec) ? undefined : `${name} to be healthy`;
    case ServiceDependency_Condition.COMPLETED:
      return hasCompleted(view, service, spec) ? undefined : `${name} to complete`;
  }
}

function hasStarted(view: WaitingView, service: Service, spec: ServiceSpec): boolean {
  const started = (task: Task) => {
    const state = task.status?.state ?? TaskState.NEW;
    return (state >= TaskState.STARTING && state <= TaskState.RUNNING) || state === TaskState.COMPLETE;
  };
  if (isJob(spec)) return hasCompleted(view, service, spec) || slotsWhere(view, service, started) > 0;
  return !service.stopped && slotsWhere(view, service, started) >= wantedSlots(view, spec);
}

function isHealthy(view: WaitingView, service: Service, spec: ServiceSpec): boolean {
  const running = ({ status, desiredState }: Task) =>
    status?.state === TaskState.RUNNING && desiredState <= TaskState.RUNNING;
  const updating =
    service.updateStatus?.state === UpdateStatus_State.UPDATING ||
    service.updateStatus?.state === UpdateStatus_State.ROLLBACK_STARTED;
  if (service.stopped || updating || !isReleased(service, spec)) return false;
  return slotsWhere(view, service, running) >= Math.max(isJob(spec) ? 1 : 0, wantedSlots(view, spec));
}

/** A job that is done; of other services, one whose every slot ended well and is not restarted. */
function hasCompleted(view: WaitingView, service: Service, spec: ServiceSpec): boolean {
  if (isJob(spec)) return jobProgress(view, service, spec, eligibleNodes(view, spec).length).desired === 0;
  const completed = ({ status }: Task) => status?.state === TaskState.COMPLETE;
  return slotsWhere(view, service, completed) >= Math.max(1, wantedSlots(view, spec));
}

/** How many slots have a task of the newest making of which `holds` is true. */
function slotsWhere(view: WaitingView, service: Service, holds: (task: Task) => boolean): number {
  const slots = new Set<number | string>();
  for (const task of view.tasksOfService(service.id)) {
    if (task.specVersion >= service.taskVersion && holds(task)) slots.add(slotOf(task));
  }
  return slots.size;
}

function wantedSlots(view: WaitingView, spec: ServiceSpec): number {
  return isGlobal(spec) ? eligibleNodes(view, spec).length : replicasOf(spec);
}
