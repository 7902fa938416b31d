/** How a service comes to its next spec version. Pure. */
import { create } from "@bufbuild/protobuf";
import { toTimestamp } from "../../common/model/duration.ts";
import type { Service } from "../../proto/gen/swarm/v1/objects_pb.js";
import { UpdateStatus_State, UpdateStatusSchema } from "../../proto/gen/swarm/v1/types_pb.js";

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
