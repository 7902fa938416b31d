/** What of the Control API's answers somebody with stack prefixes is shown: what is within their reach, and nothing of the rest. */

import type {
  ListNetworksResponse,
  ListVolumesResponse,
  ServiceView,
  TaskView,
  WatchServicesResponse,
  WatchTaskStatsResponse,
} from "../../proto/gen/swarm/v1/control_pb.js";
import { stackNameOf } from "../stacks/stack-view.ts";
import { isWithin, problemOf, type Reach, type Subject } from "./reach.ts";
import { networkSubject } from "./subjects.ts";

export function isShown(reach: Reach, subject: Subject): boolean {
  return problemOf(reach, subject) === undefined;
}

/** A service's view has its spec, or in lists that are kept small only its name. */
export function isServiceShown(reach: Reach, { service, spec }: ServiceView): boolean {
  return isShown(reach, { kind: "service", name: service?.name ?? "", stack: stackNameOf(spec) });
}

export function isTaskShown(reach: Reach, { serviceName }: TaskView): boolean {
  return isWithin(reach, serviceName);
}

export function shownVolumes(reach: Reach, answer: ListVolumesResponse): ListVolumesResponse {
  const volumes = answer.volumes
    .filter(({ name }) => isWithin(reach, name))
    .map((volume) => ({ ...volume, serviceNames: volume.serviceNames.filter((name) => isWithin(reach, name)) }));
  return { ...answer, volumes };
}

/** Networks of theirs, and those that are always there, with what of theirs is attached. */
export function shownNetworks(reach: Reach, answer: ListNetworksResponse): ListNetworksResponse {
  const networks = answer.networks
    .filter(({ network }) => network && (!network.spec || isShown(reach, networkSubject(network))))
    .map((view) => ({
      ...view,
      serviceNames: view.serviceNames.filter((name) => isWithin(reach, name)),
      services: view.services.filter(({ name }) => isWithin(reach, name)),
      overlaps: [],
    }));
  return { ...answer, networks };
}

/** For one watch: what has been shown is told of to its end, though it has no name any more. */
export function shownWatch(reach: Reach): (message: WatchServicesResponse) => WatchServicesResponse {
  const services = new Set<string>();
  const tasks = new Set<string>();
  return (message) => {
    const shown = {
      ...message,
      services: message.services.filter((view) => isServiceShown(reach, view)),
      tasks: message.tasks.filter((view) => isTaskShown(reach, view) || tasks.has(view.task?.id ?? "")),
      removedServiceIds: message.removedServiceIds.filter((id) => services.delete(id)),
      removedTaskIds: message.removedTaskIds.filter((id) => tasks.delete(id)),
    };
    for (const { service } of shown.services) services.add(service?.id ?? "");
    for (const { task } of shown.tasks) tasks.add(task?.id ?? "");
    return shown;
  };
}

/** Tasks by their names, which begin with their services': "shop_web.1". */
export function shownStats(reach: Reach, message: WatchTaskStatsResponse): WatchTaskStatsResponse {
  const isOurs = (taskName: string) => isWithin(reach, taskName);
  return {
    ...message,
    tasks: message.tasks.filter(({ name }) => isOurs(name)),
    unreachable: message.unreachable
      .map((node) => ({ ...node, taskNames: node.taskNames.filter(isOurs) }))
      .filter(({ taskNames }) => taskNames.length > 0),
  };
}
