/** What the orchestrator's decisions are made of: the situation of a service, and the decision as it grows. */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { isGlobal } from "../../common/model/service-mode.ts";
import { type Service, type Task, TaskSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { type ServiceSpec, TaskState, type UpdateStatus } from "../../proto/gen/swarm/v1/types_pb.js";
import { isActive, isQuiet, observedState, type Slot, type SlotKey, slotKeyOf } from "./slot.ts";

/** All that the decision depends on. */
export interface ServiceSituation {
  readonly service: Service;
  readonly spec: ServiceSpec;
  readonly tasks: readonly Task[];
  /** Whether the task's node still may and can run it: there, not down, not drained, constraints met. */
  readonly keeps: (task: Task) => boolean;
  /** Whether the task's node is gone or down, so that nobody can wait for the task to stop. */
  readonly lost: (task: Task) => boolean;
  /** Whether a task of that spec version would come out the same if it were made anew. */
  readonly isCurrentVersion: (specVersion: bigint) => boolean;
  /** For global services: the nodes that should each run a task. */
  readonly eligibleNodes: readonly string[];
  /** Whether the newest spec version waits for other services: until they are so, it makes and replaces no task. */
  readonly held: boolean;
  readonly nowMs: number;
  readonly newTaskId: () => string;
}

/** What to write, and when to look again though nothing changed. */
export interface ServiceDecision {
  readonly created: readonly Task[];
  readonly desired: readonly { readonly task: Task; readonly state: TaskState }[];
  readonly updateStatus?: UpdateStatus;
  /** Make a new spec version with the content of the previous one. */
  readonly rollback: boolean;
  readonly wakeAfterMs?: number;
}

/** Collects the decision's parts. */
export class DecisionBuilder {
  readonly created: Task[] = [];
  readonly desired: { task: Task; state: TaskState }[] = [];
  updateStatus: UpdateStatus | undefined;
  rollback = false;
  #wakeAfterMs = Number.POSITIVE_INFINITY;

  wakeAfter(delayMs: number): void {
    this.#wakeAfterMs = Math.min(this.#wakeAfterMs, Math.max(1, delayMs));
  }

  desire(task: Task, state: TaskState): void {
    if (task.desiredState < state) this.desired.push({ task, state });
  }

  /** Takes back what was decided for a slot so far. */
  forget(slot: Slot): void {
    removeWhere(this.created, (task) => slotKeyOf(task) === slot.key);
    removeWhere(this.desired, ({ task }) => slotKeyOf(task) === slot.key);
  }

  build(): ServiceDecision {
    return {
      created: this.created,
      desired: this.desired,
      rollback: this.rollback,
      ...(this.updateStatus ? { updateStatus: this.updateStatus } : {}),
      ...(Number.isFinite(this.#wakeAfterMs) ? { wakeAfterMs: this.#wakeAfterMs } : {}),
    };
  }
}

function removeWhere<T>(items: T[], matches: (item: T) => boolean): void {
  for (let index = items.length - 1; index >= 0; index--) {
    if (matches(items[index] as T)) items.splice(index, 1);
  }
}

/**
 * Tells the slot's tasks to stop, since another one is made. With `keepServing` the newest that runs goes on, until the
 * other one does: one only, or a slot would gather tasks when its successors come to nothing.
 */
export function retire(
  situation: ServiceSituation,
  slot: Slot,
  { keepServing }: { readonly keepServing: boolean },
  decision: DecisionBuilder,
): void {
  const serves = (task: Task) => isActive(task) && observedState(task) === TaskState.RUNNING && !situation.lost(task);
  const kept = keepServing ? slot.tasks.findLast(serves) : undefined;
  for (const task of slot.tasks) if (task !== kept) decision.desire(task, TaskState.SHUTDOWN);
}

/** What a slot's next task is like. */
export interface SuccessorOptions {
  readonly specVersion: bigint;
  readonly delayMs: number;
  readonly restartsMs: readonly number[];
  /** Start at once beside the predecessor, which is stopped when the successor runs. */
  readonly startFirst: boolean;
}

/** The slot's next task. It waits at READY (image there, root made) until its predecessors hold nothing any more. */
export function successor(situation: ServiceSituation, slot: Slot, options: SuccessorOptions): Task {
  const startMs = situation.nowMs + options.delayMs;
  const clear = [...slot.tasks, ...slot.leaving].every((task) => isQuiet(task) || situation.lost(task));
  const atOnce = options.delayMs === 0 && (options.startFirst || clear);
  return {
    ...newTask(situation, slot.key, options.specVersion),
    attempt: slot.current.attempt + 1n,
    desiredState: atOnce ? TaskState.RUNNING : TaskState.READY,
    restarts: options.restartsMs.map((atMs) => timestampFromMs(atMs)),
    ...(atOnce ? {} : { startAfter: timestampFromMs(startMs) }),
  };
}

/** A task for a slot that has none. */
export function newTask(situation: ServiceSituation, key: SlotKey, specVersion: bigint): Task {
  const now = timestampFromMs(situation.nowMs);
  return create(TaskSchema, {
    id: situation.newTaskId(),
    meta: { createdAt: now, updatedAt: now },
    serviceId: situation.service.id,
    specVersion,
    ...(isGlobal(situation.spec) ? { nodeId: key } : { slot: Number(key) }),
    attempt: 1n,
    desiredState: TaskState.RUNNING,
    status: { state: TaskState.NEW, timestamp: now, message: "created" },
  });
}
