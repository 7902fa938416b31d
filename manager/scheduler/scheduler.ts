/** The scheduler's loop: PENDING tasks become ASSIGNED to a node, or learn why none fits. */
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { parseImageReference } from "../../common/model/image-reference.ts";
import type { Node, Service, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState, type TaskStatus } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Loop, LoopContext, LoopDecision } from "../loop.ts";
import type { Change } from "../store/changes.ts";
import { loadedImage } from "../store/loaded-image.ts";
import type { Proposal, ProposalGroup } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { TaskSet } from "../task-set.ts";
import { ClusterState } from "./cluster-state.ts";
import { occupancyOf } from "./occupancy.ts";
import { fitsOn, placeGroup } from "./place.ts";
import { isEncrypted, type Requirements, requirementsOf } from "./requirements.ts";
import { type HeldVolume, heldVolumes, placeWithVolumes, VolumeIndex } from "./sticky.ts";

/** How many tasks one pass places: more holds the event loop (and the leader's lease) longer than 50 ms. */
const TASKS_PER_PASS = 5_000;

export class Scheduler implements Loop {
  readonly name = "scheduler";
  readonly #context: Pick<LoopContext, "clock">;
  readonly #cluster = new ClusterState();
  readonly #volumes = new VolumeIndex();
  readonly #pending = new TaskSet();
  /** Services with tasks that fit nowhere: looked at again when a node changes or something ends. */
  readonly #blocked = new Set<string>();
  readonly #requirements = new Map<string, { readonly service: Service; readonly value: Requirements }>();

  constructor(context: Pick<LoopContext, "clock">) {
    this.#context = context;
  }

  *begin(view: View): Iterable<string> {
    for (const node of view.nodes.values()) this.#cluster.setNode(node);
    for (const volumes of view.nodeVolumes.values()) this.#volumes.replace(undefined, volumes);
    for (const task of view.tasks.values()) this.#indexTask(view, undefined, task);
    yield* this.#pending.services();
  }

  *observe(change: Change, view: View): Iterable<string> {
    switch (change.kind) {
      case "node":
        if (change.after) this.#cluster.setNode(change.after);
        else this.#cluster.removeNode(change.id);
        // What waits for the data of a node that is removed waits no longer.
        if (!change.after || offersMore(change.before, change.after)) yield* this.#unblock();
        break;
      case "nodevolumes":
        this.#volumes.replace(change.before, change.after);
        yield* this.#unblock();
        break;
      case "task": {
        const freed = this.#indexTask(view, change.before, change.after);
        if (freed) yield* this.#unblock();
        if (change.after && isPending(change.after)) yield change.after.serviceId;
        break;
      }
      case "service":
        if (!change.after) this.#forget(change.id);
        break;
      default:
    }
  }

  decide(view: View, keys: readonly string[]): LoopDecision {
    const groups: ProposalGroup[] = [];
    const wakeups: { key: string; delayMs: number }[] = [];
    let budget = TASKS_PER_PASS;
    for (const serviceId of keys) {
      const pending = [...this.#pending.of(serviceId)];
      for (const [version, taskIds] of byVersion(view, pending.slice(0, budget))) {
        const requirements = this.#requirementsOf(view, serviceId, version);
        if (requirements) this.#placeVersion(view, { requirements, taskIds }, groups);
      }
      if (pending.length > budget) wakeups.push({ key: serviceId, delayMs: 0 });
      budget = Math.max(0, budget - pending.length);
    }
    return { groups, wakeups };
  }

  refused(proposal: Proposal, view: View): void {
    if (proposal.type === "delete" || proposal.kind !== "task") return;
    this.#cluster.setTask(proposal.object.id, undefined);
    this.#indexTask(view, undefined, view.tasks.get(proposal.object.id));
  }

  #placeVersion(
    view: View,
    { requirements, taskIds }: { readonly requirements: Requirements; readonly taskIds: readonly string[] },
    groups: ProposalGroup[],
  ): void {
    const free: string[] = [];
    for (const taskId of taskIds) {
      const task = view.tasks.get(taskId);
      if (!task || !isPending(task)) continue;
      if (task.nodeId !== "") this.#placeBound(task, requirements, groups);
      else {
        const held = this.#heldVolumes(task, requirements);
        if (held.length === 0) free.push(taskId);
        else this.#placeWithVolumes(task, held, requirements, groups);
      }
    }
    if (free.length === 0) return;
    const result = placeGroup(this.#cluster, { requirements, taskIds: free }, this.#context.clock.nowMs());
    for (const { taskId, nodeId } of result.placed) {
      const task = view.tasks.get(taskId);
      if (task) groups.push(this.#assign(task, nodeId));
    }
    for (const taskId of result.unplaced) {
      const task = view.tasks.get(taskId);
      if (task) this.#explain(task, result.explanation, groups);
    }
  }

  /** A global service's task has its node from birth; here it is only checked whether it fits now. */
  #placeBound(task: Task, requirements: Requirements, groups: ProposalGroup[]): void {
    const { fits, explanation } = fitsOn(this.#cluster, task.nodeId, requirements);
    if (!fits) {
      this.#explain(task, explanation, groups);
      return;
    }
    this.#cluster.setTask(task.id, { nodeId: task.nodeId, requirements, counted: true });
    groups.push(this.#assign(task, task.nodeId));
  }

  #heldVolumes(task: Task, requirements: Requirements): readonly HeldVolume[] {
    if (requirements.stickyVolumes.length === 0) return [];
    return heldVolumes(task, requirements, this.#volumes, this.#cluster);
  }

  #placeWithVolumes(
    task: Task,
    held: readonly HeldVolume[],
    requirements: Requirements,
    groups: ProposalGroup[],
  ): void {
    const { info, explanation } = placeWithVolumes(held, requirements, this.#context.clock.nowMs());
    if (!info) {
      this.#explain(task, explanation, groups);
      return;
    }
    this.#cluster.setTask(task.id, { nodeId: info.id, requirements, counted: true });
    groups.push(this.#assign(task, info.id));
  }

  #assign(task: Task, nodeId: string): Proposal {
    const status = this.#status(TaskState.ASSIGNED, "scheduler assigned task to node", "");
    return { type: "update", kind: "task", object: { ...task, nodeId, status } };
  }

  #explain(task: Task, explanation: string, groups: ProposalGroup[]): void {
    this.#blocked.add(task.serviceId);
    if (task.status?.error === explanation) return;
    const status = this.#status(TaskState.PENDING, "pending task scheduling", explanation);
    groups.push({ type: "update", kind: "task", object: { ...task, status } });
  }

  #status(state: TaskState, message: string, error: string): TaskStatus {
    const timestamp = timestampFromMs(this.#context.clock.nowMs());
    return { $typeName: "swarm.v1.TaskStatus", state, timestamp, message, error };
  }

  *#unblock(): Iterable<string> {
    yield* this.#blocked;
    this.#blocked.clear();
  }

  /** Keeps the indexes; true when the task held something before and holds it no more. */
  #indexTask(view: View, before: Task | undefined, after: Task | undefined): boolean {
    const task = after ?? before;
    if (!task) return false;
    if (after && isPending(after)) this.#pending.add(after.serviceId, after.id);
    else this.#pending.delete(task.serviceId, task.id);
    this.#recordFailure(before, after);
    const known = this.#cluster.occupancy(task.id);
    const requirements =
      known?.requirements ?? (after && this.#requirementsOf(view, after.serviceId, after.specVersion));
    const occupancy = after && requirements ? occupancyOf(after, requirements) : undefined;
    // A placement that was just decided is ahead of a change that is just read.
    if (known && after && isPending(after)) return false;
    this.#cluster.setTask(task.id, occupancy);
    return known !== undefined && occupancy === undefined;
  }

  #recordFailure(before: Task | undefined, after: Task | undefined): void {
    const state = after?.status?.state;
    if (!after || (state !== TaskState.FAILED && state !== TaskState.REJECTED) || before?.status?.state === state)
      return;
    this.#cluster.node(after.nodeId)?.recordFailure(after.serviceId, this.#context.clock.nowMs());
  }

  #requirementsOf(view: View, serviceId: string, version: bigint): Requirements | undefined {
    const service = view.services.get(serviceId);
    const key = `${serviceId}/${version}`;
    const known = this.#requirements.get(key);
    if (known && (known.service === service || !service)) return known.value;
    const spec = view.specVersion(serviceId, version)?.spec;
    if (!service || !spec) return undefined;
    const image = parseImageReference(spec.task?.container?.image ?? "");
    const loaded = image.ok ? loadedImage(view, image.reference) : undefined;
    const platforms = loaded?.platform ? [loaded.platform] : [];
    const value = requirementsOf({
      ...{ serviceId, spec, ports: service.ports, platforms },
      encrypted: isEncrypted(view, spec),
    });
    this.#requirements.set(key, { service, value });
    return value;
  }

  #forget(serviceId: string): void {
    this.#blocked.delete(serviceId);
    for (const key of this.#requirements.keys()) if (key.startsWith(`${serviceId}/`)) this.#requirements.delete(key);
  }
}

function isPending(task: Task): boolean {
  return task.status?.state === TaskState.PENDING && task.desiredState <= TaskState.RUNNING;
}

function byVersion(view: View, taskIds: readonly string[]): Map<bigint, string[]> {
  const versions = new Map<bigint, string[]>();
  for (const taskId of taskIds) {
    const version = view.tasks.get(taskId)?.specVersion;
    if (version === undefined) continue;
    const ids = versions.get(version);
    if (ids) ids.push(taskId);
    else versions.set(version, [taskId]);
  }
  return versions;
}

/** Whether a node's change can make room: it came, opened, was labelled, or grew. */
function offersMore(before: Node | undefined, after: Node | undefined): boolean {
  if (!after) return false;
  return (
    before?.status?.state !== after.status?.state ||
    before?.spec !== after.spec ||
    before?.description !== after.description
  );
}
