/** Decides whether an update of a service makes its tasks old. */
import { equals } from "@bufbuild/protobuf";
import {
  type PortConfig,
  PortConfig_PublishMode,
  PortConfigSchema,
  type ServiceSpec,
  ServiceSpecSchema,
  type TaskSpec,
  TaskSpecSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { overlayNetworks } from "./networks.ts";

/**
 * Whether tasks of `before` must be replaced to follow `after`: their TaskSpec differs, or the host-mode ports that they
 * bind themselves do, or the first port is published of a service that is on networks only: if these are internal, its tasks
 * lack the address that ports lead to. A newer registry token alone replaces nothing (SwarmKit: IsTaskDirty ignores PullOptions).
 */
export function taskSpecChanged(before: ServiceSpec, after: ServiceSpec): boolean {
  return (
    !sameTask(before.task, after.task) ||
    !samePorts(hostModePorts(before), hostModePorts(after)) ||
    (publishesFromNetworks(after) && !publishesFromNetworks(before))
  );
}

/** Whether two specs say the same, registry token included. */
export function sameServiceSpec(before: ServiceSpec, after: ServiceSpec): boolean {
  return equals(ServiceSpecSchema, before, after);
}

/** The ports that each task binds on its own node. */
export function hostModePorts(spec: ServiceSpec): readonly PortConfig[] {
  return spec.endpoint?.ports.filter((port) => port.publishMode === PortConfig_PublishMode.HOST) ?? [];
}

function publishesFromNetworks(spec: ServiceSpec): boolean {
  const overlays = overlayNetworks(spec);
  return (
    overlays.length > 0 && overlays.length === spec.task?.networks.length && (spec.endpoint?.ports.length ?? 0) > 0
  );
}

function sameTask(before: TaskSpec | undefined, after: TaskSpec | undefined): boolean {
  if (before === undefined || after === undefined) return before === after;
  return equals(TaskSpecSchema, withoutPullOptions(before), withoutPullOptions(after));
}

function withoutPullOptions(task: TaskSpec): TaskSpec {
  if (task.container?.pullOptions === undefined) return task;
  const { pullOptions: _, ...container } = task.container;
  return { ...task, container: { ...container } };
}

/** In any order: which flag came first changes nothing. */
function samePorts(before: readonly PortConfig[], after: readonly PortConfig[]): boolean {
  const has = (ports: readonly PortConfig[], port: PortConfig) =>
    ports.some((other) => equals(PortConfigSchema, port, other));
  return before.length === after.length && before.every((port) => has(after, port));
}
