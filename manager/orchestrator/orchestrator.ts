/** The orchestrator's loop: one key per service; what it decides lies in `decide.ts`. */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { newId, type TaskId } from "../../common/base/id.ts";
import { matchesAll, parseConstraints } from "../../common/model/constraints.ts";
import { isGlobal } from "../../common/model/service-mode.ts";
import { taskSpecChanged } from "../../common/model/task-diff.ts";
import {
  type Node,
  type Service,
  type SpecVersion,
  SpecVersionSchema,
  type Task,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Availability, NodeStatus_State, type ServiceSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Loop, LoopContext, LoopDecision } from "../loop.ts";
import type { Change } from "../store/changes.ts";
import { effectivePins, samePins } from "../store/pins.ts";
import type { Proposal, ProposalGroup } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { isReleased, waitingFor } from "../waiting.ts";
import { decideRemoved, decideService } from "./decide.ts";
import { Dependents } from "./dependents.ts";
import type { ServiceDecision, ServiceSituation } from "./situation.ts";
import { slotKeyOf, withDesiredState } from "./slot.ts";

export class Orchestrator implements Loop {
  readonly name = "orchestrator";
  readonly #context: Pick<LoopContext, "clock" | "random" | "logger">;
  readonly #dependents = new Dependents();

  constructor(context: Pick<LoopContext, "clock" | "random" | "logger">) {
    this.#context = context;
  }

  *begin(view: View): Iterable<string> {
    for (const id of view.services.keys()) this.#dependents.note(view, id);
    yield* view.services.keys();
    for (const task of view.tasks.values()) if (!view.services.has(task.serviceId)) yield task.serviceId;
  }

  *observe(change: Change, view: View): Iterable<string> {
    if (change.kind === "service") {
      this.#dependents.note(view, change.id);
      yield change.id;
      yield* this.#dependents.of((change.after ?? change.before)?.name ?? "");
    } else if (change.kind === "task") {
      const task = change.after ?? change.before;
      if (!task) return;
      yield task.serviceId;
      yield* this.#dependents.of(view.services.get(task.serviceId)?.name ?? "");
    } else if (change.kind === "node" && nodeMatters(change.before, change.after)) {
      for (const task of view.tasksOfNode(change.id)) yield task.serviceId;
      for (const service of view.services.values()) if (isGlobalService(view, service)) yield service.id;
    }
  }

  decide(view: View, keys: readonly string[]): LoopDecision {
    const groups: ProposalGroup[] = [];
    const wakeups: { key: string; delayMs: number }[] = [];
    for (const serviceId of keys) {
      const service = view.services.get(serviceId);
      const spec = service && view.specVersion(serviceId, service.specVersion)?.spec;
      if (!service || !spec) {
        groups.push(...taskGroups(decideRemoved(view.tasksOfService(serviceId))));
        continue;
      }
      if (!isReleased(service, spec) && waitingFor(view, service, spec) === "") {
        // Recorded first: what is decided next is decided by whoever reads it.
        this.#context.logger.info({ serviceId, specVersion: Number(service.specVersion) }, "dependencies met");
        groups.push({ type: "update", kind: "service", object: { ...service, releasedVersion: service.specVersion } });
        continue;
      }
      const decision = decideService(situationOf(view, service, spec, this.#context));
      groups.push(...taskGroups(decision), ...this.#serviceGroups(view, service, decision));
      if (decision.wakeAfterMs !== undefined) wakeups.push({ key: serviceId, delayMs: decision.wakeAfterMs });
    }
    return { groups, wakeups };
  }

  /** The service's own changes: its update's status, and on a rollback a new version with the old content. */
  #serviceGroups(view: View, service: Service, decision: ServiceDecision): ProposalGroup[] {
    const { updateStatus } = decision;
    if (!updateStatus) return [];
    const previous = view.specVersion(service.id, service.previousSpecVersion)?.spec;
    if (!decision.rollback || !previous) {
      return [{ type: "update", kind: "service", object: { ...service, updateStatus } }];
    }
    this.#context.logger.info({ serviceId: service.id, specVersion: Number(service.specVersion) }, "rolling back");
    const version = service.specVersion + 1n;
    const spec: SpecVersion = create(SpecVersionSchema, {
      serviceId: service.id,
      version,
      spec: previous,
      createdAt: timestampFromMs(this.#context.clock.nowMs()),
      pins: effectivePins(view, service.id, service.previousSpecVersion).map((pin) => ({ ...pin, signal: "" })),
      taskVersion: version,
    });
    const object: Service = {
      ...service,
      specVersion: version,
      previousSpecVersion: service.specVersion,
      taskVersion: version,
      // What a rollback brings back was let go when it was new.
      releasedVersion: version,
      updateStatus,
    };
    const group: Proposal[] = [
      { type: "create", kind: "spec", object: spec },
      { type: "update", kind: "service", object },
    ];
    return [group];
  }
}

function situationOf(
  view: View,
  service: Service,
  spec: ServiceSpec,
  { clock, random }: Pick<LoopContext, "clock" | "random">,
): ServiceSituation {
  const current = view.specVersion(service.id, service.taskVersion)?.spec;
  const same = new Map<bigint, boolean>();
  const pins = effectivePins(view, service.id, service.taskVersion);
  const tasks = [...view.tasksOfService(service.id)];
  return {
    service,
    spec,
    tasks,
    nowMs: clock.nowMs(),
    newTaskId: () => newId<TaskId>(random),
    keeps: (task) => keepsTask(view, task),
    lost: (task) => task.nodeId !== "" && isDown(view.nodes.get(task.nodeId)),
    isCurrentVersion: (version) => {
      let answer = same.get(version);
      // What came after it in place has changed nothing that a task is made of.
      if (version >= service.taskVersion) return true;
      if (answer === undefined) {
        const before = view.specVersion(service.id, version)?.spec;
        answer = before !== undefined && current !== undefined && !taskSpecChanged(before, current);
        answer &&= samePins(effectivePins(view, service.id, version), pins);
        same.set(version, answer);
      }
      return answer;
    },
    held: !isReleased(service, spec),
    eligibleNodes: isGlobal(spec) ? eligibleNodes(view, spec, tasks) : [],
  };
}

/** One group per slot: a task ends and its successor is made together or not at all. */
function taskGroups(decision: ServiceDecision): ProposalGroup[] {
  const groups = new Map<string, Proposal[]>();
  const groupOf = (task: Task) => {
    const key = slotKeyOf(task);
    const group = groups.get(key) ?? [];
    groups.set(key, group);
    return group;
  };
  for (const { task, state } of decision.desired) {
    groupOf(task).push({ type: "update", kind: "task", object: withDesiredState(task, state) });
  }
  for (const task of decision.created) groupOf(task).push({ type: "create", kind: "task", object: task });
  return [...groups.values()];
}

function isDown(node: Node | undefined): boolean {
  return node === undefined || node.status?.state === NodeStatus_State.DOWN;
}

/** Whether the task's node may go on running it. */
function keepsTask(view: View, task: Task): boolean {
  if (task.nodeId === "") return true;
  const node = view.nodes.get(task.nodeId);
  if (node === undefined || isDown(node)) return false;
  if (node.spec?.availability === NodeSpec_Availability.DRAIN) return false;
  return meetsConstraints(node, view.specVersion(task.serviceId, task.specVersion)?.spec);
}

function meetsConstraints(node: Node, spec: ServiceSpec | undefined): boolean {
  const constraints = parseConstraints(spec?.task?.placement?.constraints ?? []);
  return !constraints.ok || matchesAll(constraints.value, node);
}

function isGlobalService(view: View, service: Service): boolean {
  return isGlobal(view.specVersion(service.id, service.specVersion)?.spec);
}

/** The nodes that run a task of a global service; a paused one keeps the task that it has. */
function eligibleNodes(view: View, spec: ServiceSpec, tasks: readonly Task[]): string[] {
  const occupied = new Set(tasks.map((task) => task.nodeId));
  return [...view.nodes.values()]
    .filter((node) => {
      if (isDown(node) || !meetsConstraints(node, spec)) return false;
      const availability = node.spec?.availability ?? NodeSpec_Availability.ACTIVE;
      if (availability === NodeSpec_Availability.PAUSE) return occupied.has(node.id);
      return availability === NodeSpec_Availability.ACTIVE && node.status?.state === NodeStatus_State.READY;
    })
    .map((node) => node.id);
}

/** Whether a node's change can concern the tasks on it. */
function nodeMatters(before: Node | undefined, after: Node | undefined): boolean {
  if (!before || !after) return true;
  return before.status?.state !== after.status?.state || before.spec !== after.spec;
}
