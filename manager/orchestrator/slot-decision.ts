/**
 * What one slot needs: a successor for a task that ended or may not stay, leave to start for one that waits, an end for
 * forerunners. Pure.
 */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { restartDelayMs, updateOrder } from "../../common/model/defaults.ts";
import { isGlobal } from "../../common/model/service-mode.ts";
import { isTerminal } from "../../common/model/task-state.ts";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState, UpdateConfig_Order, UpdateStatus_State } from "../../proto/gen/swarm/v1/types_pb.js";
import { decideRestart, type EndCause } from "./restart.ts";
import { type DecisionBuilder, retire, type ServiceSituation, successor } from "./situation.ts";
import { isQuiet, observedState, type Slot } from "./slot.ts";
import { leftMs } from "./stamp.ts";

/** How long a successor waits for its predecessor to stop before it starts all the same; SwarmKit's 1 minute. */
const STOP_WAIT_MS_MAX = 60_000;

/** Decides for one slot of a service whose tasks are to run for ever. */
export function decideSlot(situation: ServiceSituation, slot: Slot, decision: DecisionBuilder): void {
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
export function hasEnded(observed: TaskState): boolean {
  return observed === TaskState.COMPLETE || observed === TaskState.FAILED || observed === TaskState.REJECTED;
}

/** When it ended, by a manager's clock: judged by that, the restart policy says the same whenever it is asked. */
function endedMs({ nowMs }: ServiceSituation, { meta }: Task): number {
  return meta?.updatedAt ? Math.min(nowMs, timestampMs(meta.updatedAt)) : nowMs;
}

/** Gives the slot its next task, if the restart policy has one. */
export function replace(situation: ServiceSituation, slot: Slot, cause: EndCause, decision: DecisionBuilder): void {
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

/** While an update is under way, stopped or held back, a restart must not carry the new version past it. */
function keepsVersion({ service, held }: ServiceSituation): boolean {
  if (held) return true;
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

/** Lets a task that waits start, once its delay is over and its forerunners hold nothing. */
export function promote(situation: ServiceSituation, slot: Slot, decision: DecisionBuilder): void {
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
  const waiting = [...slot.tasks, ...slot.leaving].some((task) => task !== current && stopping(task));
  if (waiting && stopWaitMs > 0) decision.wakeAfter(stopWaitMs);
  else decision.desire(current, TaskState.RUNNING);
}
