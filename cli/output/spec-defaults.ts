/** What a service's spec leaves to the defaults, written out: `service inspect` shows what holds, as Docker's does. Pure. */
import { clone, create } from "@bufbuild/protobuf";
import {
  restartCondition,
  restartDelayMs,
  stopGracePeriodMs,
  updateFailureAction,
  updateMaxFailureRatio,
  updateMonitorMs,
  updateOrder,
  updateParallelism,
} from "../../common/model/defaults.ts";
import { toDuration } from "../../common/model/duration.ts";
import { isJob } from "../../common/model/service-mode.ts";
import {
  RestartPolicySchema,
  type ServiceSpec,
  ServiceSpecSchema,
  type UpdateConfig,
  UpdateConfigSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";

/** A copy of `spec` in which nothing that Docker's API fills in is left out (SwarmKit api/defaults). Jobs know no updates. */
export function withDefaults(spec: ServiceSpec): ServiceSpec {
  const whole = clone(ServiceSpecSchema, spec);
  if (!isJob(spec)) {
    whole.update = updateWithDefaults(spec.update);
    whole.rollback = updateWithDefaults(spec.rollback);
  }
  if (whole.task === undefined) return whole;
  const { task } = whole;
  task.restart = Object.assign(task.restart ?? create(RestartPolicySchema), {
    condition: restartCondition(spec.task),
    delay: toDuration(restartDelayMs(spec.task)),
  });
  if (task.container) task.container.stopGracePeriod = toDuration(stopGracePeriodMs(spec.task));
  return whole;
}

function updateWithDefaults(update: UpdateConfig | undefined): UpdateConfig {
  const parallelism = updateParallelism(update);
  return Object.assign(update ? clone(UpdateConfigSchema, update) : create(UpdateConfigSchema), {
    parallelism: parallelism === Number.POSITIVE_INFINITY ? 0n : BigInt(parallelism),
    failureAction: updateFailureAction(update),
    monitor: toDuration(updateMonitorMs(update)),
    maxFailureRatio: updateMaxFailureRatio(update),
    order: updateOrder(update),
  });
}
