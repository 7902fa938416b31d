/** How a service comes to its next spec version. Pure. */
import { create } from "@bufbuild/protobuf";
import { toTimestamp } from "../../common/model/duration.ts";
import type { Service } from "../../proto/gen/swarm/v1/objects_pb.js";
import { UpdateStatus_State, UpdateStatusSchema } from "../../proto/gen/swarm/v1/types_pb.js";

/** What a paused update or rollback goes on as. */
const RESUMED = new Map([
  [UpdateStatus_State.PAUSED, { state: UpdateStatus_State.UPDATING, message: "update in progress" }],
  [UpdateStatus_State.ROLLBACK_PAUSED, { state: UpdateStatus_State.ROLLBACK_STARTED, message: "rollback in progress" }],
]);

/**
 * The service with its paused update or rollback going on from now, failures so far forgotten; undefined when none is paused. Docker's
 * way to ask for it is an update that changes nothing.
 */
export function resumed(service: Service, nowMs: number): Service | undefined {
  const status = RESUMED.get(service.updateStatus?.state ?? UpdateStatus_State.UNKNOWN);
  if (status === undefined) return undefined;
  return { ...service, updateStatus: create(UpdateStatusSchema, { ...status, startedAt: toTimestamp(nowMs) }) };
}

/** The service at its next spec version. An update's status ends with the update that it was about. */
export function advanced(
  service: Service,
  step: { readonly version: bigint; readonly replaced: boolean; readonly rollback: boolean; readonly nowMs: number },
): Service {
  const { updateStatus: _, ...rest } = service;
  const next: Service = {
    ...rest,
    specVersion: step.version,
    previousSpecVersion: service.specVersion,
    taskVersion: step.replaced ? step.version : service.taskVersion,
  };
  if (!step.rollback || !step.replaced) return next;
  const updateStatus = create(UpdateStatusSchema, {
    state: UpdateStatus_State.ROLLBACK_STARTED,
    startedAt: toTimestamp(step.nowMs),
    message: "manually requested rollback",
  });
  return { ...next, updateStatus };
}
