/**
 * What a service needs next, as a pure function of what is stored: how many slots, which of them get a new task, which
 * task may start or must stop, and how far an update has come. It owns no state, so any leader goes on where the last
 * one stopped.
 *
 *   slot:  current active ──────────────────────────── leave it (or update it)
 *          current waits (desired READY) ── delay over, predecessors quiet ── desired RUNNING
 *          current ended / evicted / shut down ── restart policy ── successor (attempt + 1), or leave
 *          current RUNNING ── predecessors still wanted (start-first) ── desired SHUTDOWN
 */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { replicasOf, restartDelayMs, updateOrder } from "../../common/model/defaults.ts";
import { isTerminal } from "../../common/model/task-state.ts";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState, UpdateConfig_Order, UpdateStatus_State } from "../../proto/gen/swarm/v1/types_pb.js";
import { decideRestart, type EndCause } from "./restart.ts";
import {
  DecisionBuilder,
  isGlobal,
  newTask,
  retire,
  type ServiceDecision,
  type ServiceSituation,
  successor,
} from "./situation.ts";
import { groupSlots, isActive, isQuiet, observedState, type Slot, type SlotKey } from "./slot.ts";
import { leftMs } from "./stamp.ts";
import { decideUpdate } from "./update.ts";

/** How long a successor waits for its predecessor to stop before it starts all the same; SwarmKit's 1 minute. */
const STOP_WAIT_MS_MAX = 60_000;

/** Decides for one service. */
export function decideService(situation: ServiceSituation): ServiceDecision {
  const decision = new DecisionBuilder();
  const slots = groupSlots(situation.tasks);
  if (situation.service.stopped) {
    for (const slot of slots.values()) stopSlot(situation, slot, decision);
    // An update or rollback has nothing left to replace: the next start makes tasks of the new version.
    decideUpdate(situation, new Map(), decision);
    return decision.build();
  }
  const { added, surplus } = compareSlots(situation, slots);
  for (const slot of surplus) {
    slots.delete(slot.key);
    const end = isGlobal(situation.spec) ? TaskState.SHUTDOWN : TaskState.REMOVE;
    for (const task of slot.tasks) decision.desire(task, end);
  }
  for (const slot of slots.values()) decideSlot(situation, slot, decision);
  for (const key of added) decision.created.push(newTask(situation, key, situation.service.taskVersion));
  decideUpdate(situation, slots, decision);
  return decision.build();
}

/**
 * `service stop`: tasks end and stay to be looked at. A slot that the restart policy would not fill again when the service is
 * started is emptied instead: one whose task just crashed, or is stopped though it is never to be restarted.
 */
function stopSlot({ spec, nowMs }: ServiceSituation, { current, tasks }: Slot, decision: DecisionBuilder): void {
  const ended = hasEnded(observedState(current));
  const restarts = decideRestart(current, spec.task, ended ? "ended" : "evicted", nowMs).kind === "restart";
  for (const task of tasks) decision.desire(task, ended === restarts ? TaskState.REMOVE : TaskState.SHUTDOWN);
}

/** Decides for the tasks of a service that is gone: all of them are to be removed. */
export function decideRemoved(tasks: Iterable<Task>): ServiceDecision {
  const decision = new DecisionBuilder();
  for (const task of tasks) decision.desire(task, TaskState.REMOVE);
  return decision.build();
}

function compareSlots(situation: ServiceSituation, slots: ReadonlyMap<SlotKey, Slot>) {
  if (isGlobal(situation.spec)) {
    const eligible = new Set(situation.eligibleNodes);
    return {
      added: situation.eligibleNodes.filter((nodeId) => !slots.has(nodeId)),
      surplus: [...slots.values()].filter((slot) => !eligible.has(slot.key)),
    };
  }
  const replicas = replicasOf(situation.spec);
  if (slots.size > replicas) return { added: [], surplus: pickSurplus(slots, slots.size - replicas) };
  const added: SlotKey[] = [];
  for (let number = 1; slots.size + added.length < replicas; number++) {
    if (!slots.has(String(number))) added.push(String(number));
  }
  return { added, surplus: [] };
}

/**
 * Which slots go when there are too many: from the nodes with most tasks; there, those not running and those with high
 * numbers first.
 */
function pickSurplus(slots: ReadonlyMap<SlotKey, Slot>, count: number): Slot[] {
  const byNode = new Map<string, Slot[]>();
  for (const slot of slots.values()) {
    const node = isActive(slot.current) ? slot.current.nodeId : "";
    const group = byNode.get(node);
    if (group) group.push(slot);
    else byNode.set(node, [slot]);
  }
  const running = (slot: Slot) => (observedState(slot.current) === TaskState.RUNNING ? 1 : 0);
  for (const group of byNode.values()) {
    // The next to go stands last.
    group.sort((left, right) => running(right) - running(left) || Number(left.key) - Number(right.key));
  }
  // Slots without a node cost nothing to remove: they go first.
  const surplus = (byNode.get("") ?? []).splice(-count);
  byNode.delete("");
  const groups = [...byNode.values()].sort((left, right) => left.length - right.length);
  while (surplus.length < count) {
    // Always from the longest: equally long ones then take turns, so that what stays is spread evenly.
    let longest = groups[0];
    for (const group of groups) if (longest === undefined || group.length >= longest.length) longest = group;
    const slot = longest?.pop();
    if (!slot) break;
    surplus.push(slot);
  }
  return surplus;
}

function decideSlot(situation: ServiceSituation, slot: Slot, decision: DecisionBuilder): void {
  const { current } = slot;
  const observed = observedState(current);
  if (current.desiredState > TaskState.RUNNING) {
    // It was told to stop and got no successor: only an outside cause (its node) may bring the slot back. A node of a
    // global service may be eligible again, though its task came to its own end while it was being stopped.
    if (!hasEnded(observed)) replace(situation, slot, "evicted", decision);
    else if (isGlobal(situation.spec))
      replace({ ...situation, nowMs: endedMs(situation, current) }, slot, "ended", decision);
  } else if (isTerminal(observed)) {
    replace(situation, slot, observed === TaskState.ORPHANED ? "evicted" : "ended", decision);
  } else if (!situation.keeps(current)) {
    replace(situation, slot, "evicted", decision);
  } else if (current.desiredState < TaskState.RUNNING) {
    promote(situation, slot, decision);
  } else if (observed === TaskState.RUNNING) {
    for (const task of slot.tasks) if (task !== current) decision.desire(task, TaskState.SHUTDOWN);
  }
}

/** Whether the task came to its own end, which the restart policy has judged once. */
function hasEnded(observed: TaskState): boolean {
  return observed === TaskState.COMPLETE || observed === TaskState.FAILED || observed === TaskState.REJECTED;
}

/** When it ended, by a manager's clock: judged by that, the restart policy says the same whenever it is asked. */
function endedMs({ nowMs }: ServiceSituation, { meta }: Task): number {
  return meta?.updatedAt ? Math.min(nowMs, timestampMs(meta.updatedAt)) : nowMs;
}

function replace(situation: ServiceSituation, slot: Slot, cause: EndCause, decision: DecisionBuilder): void {
  const { current } = slot;
  const restart = decideRestart(current, situation.spec.task, cause, situation.nowMs);
  if (restart.kind === "leave") {
    decision.desire(current, TaskState.SHUTDOWN);
    return;
  }
  // A task that serves goes on until its successor runs, if the service wants it so: also one on a drained node.
  const startFirst = updateOrder(situation.spec.update) === UpdateConfig_Order.START_FIRST;
  retire(situation, slot, { keepServing: startFirst }, decision);
  const task = successor(situation, slot, {
    specVersion: keepsVersion(situation) ? current.specVersion : situation.service.taskVersion,
    delayMs: restart.delayMs,
    restartsMs: restart.restartsMs,
    startFirst,
  });
  decision.created.push(task);
}

/** While an update is under way or stopped, a restart must not carry the new version past it. */
function keepsVersion({ service }: ServiceSituation): boolean {
  switch (service.updateStatus?.state) {
    case UpdateStatus_State.UPDATING:
    case UpdateStatus_State.PAUSED:
    case UpdateStatus_State.ROLLBACK_STARTED:
    case UpdateStatus_State.ROLLBACK_PAUSED:
      return true;
    default:
      return false;
  }
}

function promote(situation: ServiceSituation, slot: Slot, decision: DecisionBuilder): void {
  const { current } = slot;
  const { nowMs } = situation;
  const startMs = current.startAfter ? timestampMs(current.startAfter) : 0;
  // The task was made its delay before it may start: counted from there, a wrong clock's stamp shows.
  const delayMs = Math.min(restartDelayMs(situation.spec.task), startMs);
  const beforeStartMs = leftMs({ sinceMs: startMs - delayMs, waitMs: delayMs }, nowMs);
  if (beforeStartMs > 0) {
    decision.wakeAfter(beforeStartMs);
    return;
  }
  const sinceMs = Math.max(startMs, current.meta?.createdAt ? timestampMs(current.meta.createdAt) : 0);
  const stopWaitMs = leftMs({ sinceMs, waitMs: STOP_WAIT_MS_MAX }, nowMs);
  const stopping = (task: Task) => task.desiredState > TaskState.RUNNING && !isQuiet(task) && !situation.lost(task);
  const waiting = slot.tasks.some((task) => task !== current && stopping(task));
  if (waiting && stopWaitMs > 0) decision.wakeAfter(stopWaitMs);
  else decision.desire(current, TaskState.RUNNING);
}
