/**
 * Every default of a service, as a function of what the user wrote: an absent field is never filled in when stored, it is
 * read through here. The values are Docker's (docker service create, moby daemon/cluster/convert, SwarmKit api/defaults).
 */
import {
  RestartPolicy_Condition,
  type ServiceSpec,
  type TaskSpec,
  type UpdateConfig,
  UpdateConfig_FailureAction,
  UpdateConfig_Order,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { durationMs } from "./duration.ts";

/** From the stop signal to SIGKILL. */
export const STOP_GRACE_PERIOD_MS_DEFAULT = 10_000;
/** What stops a container whose spec and image name no signal. */
export const STOP_SIGNAL_DEFAULT = "SIGTERM";
/** Dead tasks kept per slot. */
export const TASK_HISTORY_LIMIT_DEFAULT = 5;
/** How often an agent beats. */
export const HEARTBEAT_PERIOD_MS_DEFAULT = 1_000;
/** The pool of task addresses. */
export const ADDRESS_POOL_DEFAULT = "10.224.0.0/12";
/** The pools of networks' subnets, and the prefix length of those that are allocated. */
export const NETWORK_POOLS_DEFAULT = ["10.0.0.0/8"];
export const NETWORK_PREFIX_LENGTH_DEFAULT = 24;
/** UDP port of the traffic between nodes. */
export const DATA_PATH_PORT_DEFAULT = 4789;
/** Ports given to `published_port: 0`. */
export const DYNAMIC_PORT_MIN = 30_000;
export const DYNAMIC_PORT_MAX = 32_767;

const RESTART_DELAY_MS_DEFAULT = 5000;
const UPDATE_MONITOR_MS_DEFAULT = 5000;
const UPDATE_PARALLELISM_DEFAULT = 1;

/** Ms from the stop signal to SIGKILL. */
export function stopGracePeriodMs(task: TaskSpec | undefined): number {
  return durationMs(task?.container?.stopGracePeriod) ?? STOP_GRACE_PERIOD_MS_DEFAULT;
}

/** Which ends of a task call for a new one. */
export function restartCondition(task: TaskSpec | undefined): RestartPolicy_Condition {
  return task?.restart?.condition ?? RestartPolicy_Condition.ANY;
}

/** Ms between the end of a task and the start of the one that replaces it. */
export function restartDelayMs(task: TaskSpec | undefined): number {
  return durationMs(task?.restart?.delay) ?? RESTART_DELAY_MS_DEFAULT;
}

/** How often a slot is started again; Infinity unless the user bounds it. */
export function restartMaxAttempts(task: TaskSpec | undefined): number {
  return Number(task?.restart?.maxAttempts ?? 0n) || Number.POSITIVE_INFINITY;
}

/** The ms in which attempts count; Infinity unless the user bounds it. */
export function restartWindowMs(task: TaskSpec | undefined): number {
  return durationMs(task?.restart?.window) || Number.POSITIVE_INFINITY;
}

/** Slots updated at once; Infinity for 0, which means all. */
export function updateParallelism(update: UpdateConfig | undefined): number {
  if (update === undefined) return UPDATE_PARALLELISM_DEFAULT;
  return Number(update.parallelism) || Number.POSITIVE_INFINITY;
}

/** Ms between the end of one slot's update and the start of the next. */
export function updateDelayMs(update: UpdateConfig | undefined): number {
  return durationMs(update?.delay) ?? 0;
}

/** Ms for which an updated task is watched for failure. 0 counts as absent. */
export function updateMonitorMs(update: UpdateConfig | undefined): number {
  return durationMs(update?.monitor) || UPDATE_MONITOR_MS_DEFAULT;
}

/** The fraction of updated tasks that may fail before the failure action is taken. */
export function updateMaxFailureRatio(update: UpdateConfig | undefined): number {
  return update?.maxFailureRatio ?? 0;
}

/** What happens when too many fail. */
export function updateFailureAction(update: UpdateConfig | undefined): UpdateConfig_FailureAction {
  return update?.failureAction ?? UpdateConfig_FailureAction.PAUSE;
}

/** Whether the new task starts before or after the old one stopped. */
export function updateOrder(update: UpdateConfig | undefined): UpdateConfig_Order {
  return update?.order ?? UpdateConfig_Order.STOP_FIRST;
}

/** Tasks that a replicated service wants; 1 when no mode is set; 0 for the other modes. */
export function replicasOf(spec: ServiceSpec | undefined): number {
  const mode = spec?.mode?.mode;
  if (mode === undefined || mode.case === undefined) return 1;
  return mode.case === "replicated" ? Number(mode.value.replicas) : 0;
}

/** Tasks of one service that a node may hold; Infinity for 0 and for none. */
export function replicasMaxPerNode(task: TaskSpec | undefined): number {
  return Number(task?.placement?.maxReplicas ?? 0n) || Number.POSITIVE_INFINITY;
}
