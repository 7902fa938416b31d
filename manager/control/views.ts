/** Services and tasks as the API shows them: with counts and names, and without credentials. */
import { create } from "@bufbuild/protobuf";
import { type Constraint, matchesAll, parseConstraints } from "../../common/model/constraints.ts";
import { replicasOf } from "../../common/model/defaults.ts";
import { isIngress } from "../../common/model/ports.ts";
import {
  type ServiceView,
  ServiceViewSchema,
  type TaskView,
  TaskViewSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import type { Node, Service, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import {
  ContainerSpecSchema,
  NodeSpec_Availability,
  NodeStatus_State,
  type ServiceSpec,
  type TaskSpec,
  TaskSpecSchema,
  TaskState,
} from "../../proto/gen/swarm/v1/types_pb.js";
import type { View } from "../store/view.ts";

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
    desiredTasks: BigInt(service.stopped ? 0 : desiredTasks(view, spec)),
  });
  let [running, completed] = [0, 0];
  for (const task of view.tasksOfService(service.id)) {
    if (task.status?.state === TaskState.RUNNING && task.desiredState <= TaskState.RUNNING) running += 1;
    if (task.status?.state === TaskState.COMPLETE) completed += 1;
  }
  shown.runningTasks = BigInt(running);
  shown.completedTasks = BigInt(completed);
  if (options.withoutSpecs) return shown;
  const current = redacted(spec);
  const previous = redacted(view.specVersion(service.id, service.previousSpecVersion)?.spec);
  if (current !== undefined) shown.spec = current;
  if (previous !== undefined) shown.previousSpec = previous;
  return shown;
}

/** How many tasks should run: the replicas, or the nodes that a global service may use. */
export function desiredTasks(view: View, spec: ServiceSpec | undefined): number {
  if (spec?.mode?.mode.case !== "global") return replicasOf(spec);
  return eligibleNodes(view, spec).length;
}

/** The nodes that a global service may use now. */
export function eligibleNodes(view: View, spec: ServiceSpec): string[] {
  const constraints = parseConstraints(spec.task?.placement?.constraints ?? []);
  if (!constraints.ok) return [];
  return [...view.nodes.values()].filter((node) => isEligible(node, constraints.value)).map(({ id }) => id);
}

function isEligible(node: Node, constraints: readonly Constraint[]): boolean {
  return (
    node.status?.state === NodeStatus_State.READY &&
    (node.spec?.availability ?? NodeSpec_Availability.ACTIVE) === NodeSpec_Availability.ACTIVE &&
    matchesAll(constraints, node)
  );
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
