/** Amounts of CPU and memory as plain numbers: the scheduler adds and compares them a million times. */
import type { NodeDescription, TaskSpec } from "../../proto/gen/swarm/v1/types_pb.js";

/** CPU in billionths, memory in bytes: both below 2^53. */
export interface ResourceAmounts {
  readonly nanoCpus: number;
  readonly memoryBytes: number;
}

export const NO_RESOURCES: ResourceAmounts = { nanoCpus: 0, memoryBytes: 0 };

/** What a task sets aside on its node, used or not. */
export function reservedBy(task: TaskSpec | undefined): ResourceAmounts {
  const reserved = task?.resources?.reservations;
  if (reserved === undefined) return NO_RESOURCES;
  return { nanoCpus: Number(reserved.nanoCpus), memoryBytes: Number(reserved.memoryBytes) };
}

/** What a node has in all. */
export function offeredBy(node: NodeDescription | undefined): ResourceAmounts {
  const offered = node?.resources;
  if (offered === undefined) return NO_RESOURCES;
  return { nanoCpus: Number(offered.nanoCpus), memoryBytes: Number(offered.memoryBytes) };
}

/** Which of `wanted` is more than `available`, in the scheduler's words; empty when it fits. What is not asked for always fits. */
export function lacking(wanted: ResourceAmounts, available: ResourceAmounts): readonly ("cpu" | "memory")[] {
  const lacks: ("cpu" | "memory")[] = [];
  if (wanted.nanoCpus > 0 && wanted.nanoCpus > available.nanoCpus) lacks.push("cpu");
  if (wanted.memoryBytes > 0 && wanted.memoryBytes > available.memoryBytes) lacks.push("memory");
  return lacks;
}
