/** Services and tasks as the API shows them: with counts and names, and without credentials. */
import { create } from "@bufbuild/protobuf";
import { replicasOf } from "../../common/model/defaults.ts";
import { isIngress } from "../../common/model/ports.ts";
import { isGlobal, isJob } from "../../common/model/service-mode.ts";
import {
  type ServiceView,
  ServiceViewSchema,
  type TaskView,
  TaskViewSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import type { Service, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import {
  ContainerSpecSchema,
  type ServiceSpec,
  type TaskSpec,
  TaskSpecSchema,
  TaskState,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { eligibleNodes } from "../eligible-nodes.ts";
import { jobProgress } from "../job-progress.ts";
import type { View } from "../store/view.ts";
import { waitingFor } from "../waiting.ts";

/** A spec without what must never be sent back: the registry's token. */
export function redacted(spec: ServiceSpec | undefined): ServiceSpec | undefined {
  const container = spec?.task?.container;
  if (spec?.task === undefined || container?.pullOptions === undefined) return spec;
  const { pullOptions: _, ...rest } = container;
  return { ...spec, task: { ...spec.task, container: { ...rest } } };
}

/** A service with its specs and how many of its tasks run. */
export function serviceView(view: View, service: Service, options: { readonly withoutSpecs: boolean }): ServiceView {
  const spec = view.specVersion(service.id, service.specVersion)?.spec;
  const shown = create(ServiceViewSchema, {
    service,
    desiredTasks: BigInt(service.stopped ? 0 : desiredTasks(view, service, spec)),
    waitingFor: waitingFor(view, service, spec),
  });
  let [running, completed] = [0, 0];
  for (const task of view.tasksOfService(service.id)) {
    if (task.status?.state === TaskState.RUNNING && task.desiredState <= TaskState.RUNNING) running += 1;
    if (task.status?.state === TaskState.COMPLETE) completed += 1;
  }
  if (spec && isJob(spec)) completed = jobProgress(view, service, spec, 0).completed;
  shown.runningTasks = BigInt(running);
  shown.completedTasks = BigInt(completed);
  if (options.withoutSpecs) return shown;
  const current = redacted(spec);
  const previous = redacted(view.specVersion(service.id, service.previousSpecVersion)?.spec);
  if (current !== undefined) shown.spec = current;
  if (previous !== undefined) shown.previousSpec = previous;
  return shown;
}

/** How many tasks should run: the replicas, the nodes that a global service may use, or what a job has left. */
export function desiredTasks(view: View, service: Service | undefined, spec: ServiceSpec | undefined): number {
  if (spec === undefined) return 0;
  const nodes = isGlobal(spec) ? eligibleNodes(view, spec).length : 0;
  if (isJob(spec)) return jobProgress(view, service, spec, nodes).desired;
  return isGlobal(spec) ? nodes : replicasOf(spec);
}

/**
 * Makes TaskViews. They are kept lean, since a list may have 100,000: of its spec a task shows the image, and one such
 * spec is shared by all tasks of a version.
 */
export class TaskViewer {
  readonly #view: View;
  readonly #specs = new Map<string, TaskSpec | undefined>();

  constructor(view: View) {
    this.#view = view;
  }

  show(task: Task): TaskView {
    const service = this.#view.services.get(task.serviceId);
    const node = this.#view.nodes.get(task.nodeId);
    const spec = this.#specOf(task);
    const running = task.status?.state === TaskState.RUNNING;
    return create(TaskViewSchema, {
      task,
      serviceName: service?.name ?? "",
      nodeHostname: node?.description?.hostname ?? "",
      ...(spec ? { spec } : {}),
      ports: running && service ? service.ports.filter((port) => !isIngress(port)) : [],
    });
  }

  #specOf(task: Task): TaskSpec | undefined {
    const key = `${task.serviceId}/${task.specVersion}`;
    if (!this.#specs.has(key)) {
      const image = this.#view.specVersion(task.serviceId, task.specVersion)?.spec?.task?.container?.image;
      const lean = image === undefined ? undefined : { container: create(ContainerSpecSchema, { image }) };
      this.#specs.set(key, lean && create(TaskSpecSchema, lean));
    }
    return this.#specs.get(key);
  }
}
