/**
 * Jobs: tasks that run to their end, each slot once for every iteration (swarmkit manager/orchestrator/jobs). A task belongs to
 * the service's present iteration if it was made for its task_version or a later one: an update begins a new iteration and
 * ends what still runs of the old one. Pure.
 *
 *   slot:  completed in this iteration ───────── leave it for ever, end what else is there
 *          failed ── restart policy ──────────── successor (attempt + 1), or leave
 *          nothing of this iteration ─────────── a task, while fewer than max-concurrent are under way
 */
import { completionsOf, concurrencyOf, isGlobal } from "../../common/model/service-mode.ts";
import { isTerminal } from "../../common/model/task-state.ts";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { RestartPolicy_Condition, TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import { type DecisionBuilder, newTask, type ServiceSituation, successor } from "./situation.ts";
import { isActive, observedState, type Slot, type SlotKey } from "./slot.ts";
import { hasEnded, promote, replace } from "./slot-decision.ts";

/** Adds to `decision` what the job needs now. */
export function decideJob(given: ServiceSituation, slots: ReadonlyMap<SlotKey, Slot>, decision: DecisionBuilder): void {
  const situation = untilSuccess(given);
  const wanted = new Set(wantedSlots(situation));
  let underWay = 0;
  const open: SlotKey[] = [];
  for (const slot of slots.values()) {
    const current = ofIteration(situation, slot);
    for (const task of slot.tasks) if (!current.includes(task)) decision.desire(task, TaskState.SHUTDOWN);
    const done = current.some(hasCompleted);
    if (!wanted.has(slot.key)) {
      if (!done) for (const task of current) decision.desire(task, TaskState.SHUTDOWN);
    } else if (situation.service.stopped) {
      for (const task of current) if (isActive(task)) decision.desire(task, TaskState.SHUTDOWN);
    } else if (done) {
      wanted.delete(slot.key);
      // One that was told to stop may have completed all the same: who was to take its place has nothing to do.
      for (const task of current) if (isActive(task)) decision.desire(task, TaskState.SHUTDOWN);
    } else if (current.length > 0) {
      wanted.delete(slot.key);
      // The whole slot: a task waits for those of the old iteration as well.
      if (decideRunning(situation, slot, decision)) underWay += 1;
    }
  }
  if (situation.service.stopped || situation.held) return;
  open.push(...wanted);
  const room = Math.max(0, concurrencyOf(situation.spec) - underWay);
  for (const key of open.slice(0, room)) {
    const slot = slots.get(key);
    const specVersion = situation.service.taskVersion;
    decision.created.push(
      slot === undefined
        ? newTask(situation, key, specVersion)
        : successor(situation, slot, { specVersion, delayMs: 0, restartsMs: [], startFirst: false }),
    );
  }
}

/** Whether the slot's task, or the one that takes its place, is under way. */
function decideRunning(situation: ServiceSituation, slot: Slot, decision: DecisionBuilder): boolean {
  const { current } = slot;
  const observed = observedState(current);
  const before = decision.created.length;
  if (current.desiredState > TaskState.RUNNING) {
    // It was told to stop (a node that drains, a job that was stopped); what came to its own end has been judged.
    if (!hasEnded(observed)) replace(situation, slot, "evicted", decision);
  } else if (isTerminal(observed)) {
    replace(situation, slot, observed === TaskState.ORPHANED ? "evicted" : "ended", decision);
  } else if (!situation.keeps(current)) replace(situation, slot, "evicted", decision);
  else {
    if (current.desiredState < TaskState.RUNNING) promote(situation, slot, decision);
    return true;
  }
  return decision.created.length > before;
}

/** For a job `any` means on-failure: what has succeeded is not run again (swarmkit). */
function untilSuccess(situation: ServiceSituation): ServiceSituation {
  const { spec } = situation;
  const { restart } = spec.task ?? {};
  if (!spec.task || !restart || restart.condition !== RestartPolicy_Condition.ANY) return situation;
  const condition = RestartPolicy_Condition.ON_FAILURE;
  return { ...situation, spec: { ...spec, task: { ...spec.task, restart: { ...restart, condition } } } };
}

/** The slots that are to complete, in the order in which they are begun. */
function wantedSlots({ spec, eligibleNodes }: ServiceSituation): readonly SlotKey[] {
  if (isGlobal(spec)) return eligibleNodes;
  return Array.from({ length: completionsOf(spec) }, (_, index) => String(index + 1));
}

/** The slot's tasks of the present iteration. */
function ofIteration({ service }: ServiceSituation, { tasks }: Slot): readonly Task[] {
  return tasks.filter(({ specVersion }) => specVersion >= service.taskVersion);
}

function hasCompleted(task: Task): boolean {
  return observedState(task) === TaskState.COMPLETE;
}
