/** Stops and starts services: a switch beside the spec, so that nobody has to remember how many replicas there were. */
import { SwarmError } from "../../common/base/error.ts";
import type { ServiceView, SetServiceStoppedRequest } from "../../proto/gen/swarm/v1/control_pb.js";
import type { ControlDependencies } from "./dependencies.ts";
import { requireId } from "./references.ts";
import { serviceView } from "./views.ts";

/** How often a write is tried again when a loop changed the same object meanwhile. */
const ATTEMPTS_MAX = 5;

/** Sets the switch; one that is as asked already is no error. */
export async function setServiceStopped(
  { store }: ControlDependencies,
  { serviceId, stopped }: SetServiceStoppedRequest,
  signal: AbortSignal,
): Promise<ServiceView> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const service = requireId(store.view.services, "service", serviceId);
    if (service.stopped === stopped) return serviceView(store.view, service, { withoutSpecs: false });
    await store.commit([{ type: "update", kind: "service", object: { ...service, stopped } }], { signal });
  }
  throw new SwarmError(
    "aborted",
    `${stopped ? "stop" : "start"} service ${serviceId}: the store keeps changing, try again`,
  );
}
