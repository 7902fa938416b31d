/** Who is attached to networks. Pure. */
import { overlayNetworks } from "../../common/model/networks.ts";
import { isTerminal } from "../../common/model/task-state.ts";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";

/** By a network's name, the services that are attached to it: by their newest spec, or by an older one that tasks still run. */
export function networkUsers(
  view: Pick<View, "services" | "specVersions" | "tasksOfService">,
): ReadonlyMap<string, readonly string[]> {
  const users = new Map<string, string[]>();
  for (const service of view.services.values()) {
    const older = new Map<string, bigint[]>();
    const names = new Set<string>();
    for (const { version, spec } of view.specVersions(service.id)) {
      for (const name of overlayNetworks(spec)) {
        if (version === service.specVersion) names.add(name);
        else older.set(name, [...(older.get(name) ?? []), version]);
      }
    }
    for (const [name, versions] of older) {
      if (!names.has(name) && hasLiveTask(view, service.id, versions)) names.add(name);
    }
    for (const name of names) users.set(name, [...(users.get(name) ?? []), service.name]);
  }
  for (const services of users.values()) services.sort();
  return users;
}

function hasLiveTask(view: Pick<View, "tasksOfService">, serviceId: string, versions: readonly bigint[]): boolean {
  for (const { specVersion, status } of view.tasksOfService(serviceId)) {
    if (versions.includes(specVersion) && !isTerminal(status?.state ?? TaskState.NEW)) return true;
  }
  return false;
}
