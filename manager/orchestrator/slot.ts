/** Slots: the places that a service's tasks take in turn. */
import { isTerminal } from "../../common/model/task-state.ts";
import { type Task, TaskSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";

/** The slot's number for replicated services ("1", "2", …), the node's id for global ones. */
export type SlotKey = string;

/** A slot that is still wanted or was lately: its tasks by attempt, oldest first, without those to be removed. */
export interface Slot {
  readonly key: SlotKey;
  readonly tasks: readonly Task[];
  /** The task with the highest attempt: it decides what happens next. */
  readonly current: Task;
  /** Tasks to be removed, from a time when the slot was not wanted, that may still run. */
  readonly leaving: readonly Task[];
}

const NONE: readonly Task[] = [];

/** The slot that a task takes. */
export function slotKeyOf(task: Task): SlotKey {
  return task.slot > 0 ? String(task.slot) : task.nodeId;
}

/** By slot, the tasks that are to be removed and may still run: a task that takes the slot anew waits for them. */
export function leavingTasks(tasks: Iterable<Task>): ReadonlyMap<SlotKey, readonly Task[]> {
  const leaving = new Map<SlotKey, Task[]>();
  for (const task of tasks) {
    if (task.desiredState < TaskState.REMOVE || isQuiet(task)) continue;
    const key = slotKeyOf(task);
    const group = leaving.get(key);
    if (group) group.push(task);
    else leaving.set(key, [task]);
  }
  return leaving;
}

/** Groups a service's tasks into slots; a slot all of whose tasks are to be removed is gone. */
export function groupSlots(tasks: readonly Task[]): Map<SlotKey, Slot> {
  const leaving = leavingTasks(tasks);
  const groups = new Map<SlotKey, Task[]>();
  for (const task of tasks) {
    if (task.desiredState >= TaskState.REMOVE) continue;
    const key = slotKeyOf(task);
    const group = groups.get(key);
    if (group) group.push(task);
    else groups.set(key, [task]);
  }
  const slots = new Map<SlotKey, Slot>();
  for (const [key, group] of groups) {
    group.sort((left, right) => Number(left.attempt - right.attempt));
    const current = group.at(-1);
    if (current) slots.set(key, { key, tasks: group, current, leaving: leaving.get(key) ?? NONE });
  }
  return slots;
}

/** What the task was last seen doing. */
export function observedState(task: Task): TaskState {
  return task.status?.state ?? TaskState.NEW;
}

/** Whether the task should run and may still do so. */
export function isActive(task: Task): boolean {
  return task.desiredState <= TaskState.RUNNING && !isTerminal(observedState(task));
}

/** Whether the task holds nothing on any node: it ended, or never got one. */
export function isQuiet(task: Task): boolean {
  const state = observedState(task);
  return isTerminal(state) || state < TaskState.ASSIGNED;
}

/** The same task with a higher desired state. Desired states only grow: a lower one is ignored. */
export function withDesiredState(task: Task, desiredState: TaskState): Task {
  if (desiredState <= task.desiredState) return task;
  return { ...task, $typeName: TaskSchema.typeName, desiredState };
}
