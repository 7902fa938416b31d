/** Which addresses an object of the store has. Pure. */
import type { Service, Task } from "../../proto/gen/swarm/v1/objects_pb.js";

/** With the lengths of their subnets. */
export type Held = readonly string[];

export function heldByTask(task: Pick<Task, "address" | "networks"> | undefined): Held {
  if (!task) return [];
  const networks = task.networks.flatMap(({ addresses }) => addresses);
  return task.address === "" ? networks : [task.address, ...networks];
}

export function heldByService(service: Pick<Service, "vips"> | undefined): Held {
  return service?.vips.flatMap(({ addresses }) => addresses) ?? [];
}
