/** Modes of services, as far as they decide how many tasks there are. */
import type { ServiceSpec } from "../../proto/gen/swarm/v1/types_pb.js";

/** Whether the service's tasks run to their end instead of for ever. */
export function isJob(spec: ServiceSpec | undefined): boolean {
  const mode = spec?.mode?.mode.case;
  return mode === "replicatedJob" || mode === "globalJob";
}

/** Whether each of some nodes runs one task: the node is the slot. */
export function isGlobal(spec: ServiceSpec | undefined): boolean {
  const mode = spec?.mode?.mode.case;
  return mode === "global" || mode === "globalJob";
}

/** How many slots of a replicated job are to complete. */
export function completionsOf(spec: ServiceSpec | undefined): number {
  const mode = spec?.mode?.mode;
  return mode?.case === "replicatedJob" ? Number(mode.value.totalCompletions) : 0;
}

/** How many tasks of a job may run at once. */
export function concurrencyOf(spec: ServiceSpec | undefined): number {
  const mode = spec?.mode?.mode;
  if (mode?.case !== "replicatedJob") return Number.POSITIVE_INFINITY;
  return Number(mode.value.maxConcurrent) || Number.POSITIVE_INFINITY;
}
