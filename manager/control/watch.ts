/**
 * WatchServices: the state of some services and their tasks, then every change. Changes are gathered for a moment, so that a
 * thousand tasks that start together make a few messages.
 */
import { create } from "@bufbuild/protobuf";
import { isGlobal as isGlobalSpec } from "../../common/model/service-mode.ts";
import {
  type WatchServicesRequest,
  type WatchServicesResponse,
  WatchServicesResponseSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import type { Service } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Change } from "../store/changes.ts";
import type { View } from "../store/view.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { serviceLookup } from "./lookups.ts";
import { resolveReferences } from "./references.ts";
import { serviceView, TaskViewer } from "./views.ts";

/** How long changes are gathered: people see 20 pictures a second as motion; less would only cost messages. */
const GATHER_MS = 50;

/** Ends when the caller does. A service that is named must exist at first; later its removal is one more change. */
export async function* watchServices(
  { store, clock }: ControlDependencies,
  request: WatchServicesRequest,
  signal: AbortSignal,
): AsyncGenerator<WatchServicesResponse, void, undefined> {
  const { view } = store;
  const changes = view.changes(signal);
  const services = [...resolveReferences(serviceLookup(view), request.serviceIds)];
  const ids = request.serviceIds.length === 0 ? undefined : new Set(services.map(({ id }) => id));
  yield snapshot(view, services);
  for await (const batch of changes) {
    const message = difference(view, batch, ids);
    if (message !== undefined) yield message;
    await clock.sleep(GATHER_MS, signal);
  }
}

function snapshot(view: View, services: readonly Service[]): WatchServicesResponse {
  const viewer = new TaskViewer(view);
  const message = create(WatchServicesResponseSchema, {});
  for (const service of services) {
    message.services.push(serviceView(view, service, { withoutSpecs: false }));
    for (const task of view.tasksOfService(service.id)) message.tasks.push(viewer.show(task));
  }
  return message;
}

/** What of `batch` concerns the watched services; undefined for nothing. A task's change also changes its service's counts. */
function difference(
  view: View,
  batch: readonly Change[],
  ids: ReadonlySet<string> | undefined,
): WatchServicesResponse | undefined {
  const viewer = new TaskViewer(view);
  const message = create(WatchServicesResponseSchema, {});
  const touched = new Set<string>();
  const watched = (id: string) => ids === undefined || ids.has(id);
  for (const change of batch) {
    if (change.kind === "service" && watched(change.id)) {
      if (change.after === undefined) message.removedServiceIds.push(change.id);
      else touched.add(change.id);
    } else if (change.kind === "task") {
      const serviceId = (change.after ?? change.before)?.serviceId ?? "";
      if (!watched(serviceId)) continue;
      touched.add(serviceId);
      if (change.after === undefined) message.removedTaskIds.push(change.id);
      else message.tasks.push(viewer.show(change.after));
    } else if (change.kind === "node") {
      for (const id of ids ?? view.services.keys()) if (isGlobal(view, id)) touched.add(id);
    }
  }
  for (const id of touched) {
    const service = view.services.get(id);
    if (service) message.services.push(serviceView(view, service, { withoutSpecs: false }));
  }
  const lists = [message.services, message.tasks, message.removedServiceIds, message.removedTaskIds];
  return lists.some((list) => list.length > 0) ? message : undefined;
}

function isGlobal(view: View, serviceId: string): boolean {
  const version = view.services.get(serviceId)?.specVersion ?? 0n;
  return isGlobalSpec(view.specVersion(serviceId, version)?.spec);
}
