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
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { replicasOf } from "../../common/model/defaults.ts";
import { isGlobal, isJob } from "../../common/model/service-mode.ts";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import { decideJob } from "./jobs.ts";
import { decideRestart } from "./restart.ts";
import { DecisionBuilder, newTask, type ServiceDecision, type ServiceSituation } from "./situation.ts";
import { groupSlots, isActive, leavingTasks, observedState, type Slot, type SlotKey } from "./slot.ts";
import { decideSlot, hasEnded } from "./slot-decision.ts";
import { decideUpdate } from "./update.ts";

/** Decides for one service. */
export function decideService(situation: ServiceSituation): ServiceDecision {
  const decision = new DecisionBuilder();
  const slots = groupSlots(situation.tasks);
  if (isJob(situation.spec)) {
    decideJob(situation, slots, decision);
    return decision.build();
  }
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
  if (situation.held) return decision.build();
  const leaving = leavingTasks(situation.tasks);
  for (const key of added) decision.created.push(taskForSlot(situation, key, leaving.get(key) ?? []));
  decideUpdate(situation, slots, decision);
  return decision.build();
}

/** A task for a slot that has none; while one of an earlier life of the slot still runs it waits, ready to start. */
function taskForSlot(situation: ServiceSituation, key: SlotKey, leaving: readonly Task[]): Task {
  const task = newTask(situation, key, situation.service.taskVersion);
  if (leaving.every((other) => situation.lost(other))) return task;
  return { ...task, desiredState: TaskState.READY, startAfter: timestampFromMs(situation.nowMs) };
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
