/**
 * The rolling update as a pure function of what is stored: which slots still run an older version, how many may change
 * now, when it has succeeded and when it must stop. Rolling back is an update to the previous spec by the rollback
 * policy.
 *
 *   UPDATING ── all slots new and watched ── COMPLETED
 *      └ too many failed ── pause ── PAUSED
 *                        └─ rollback ── ROLLBACK_STARTED ── ROLLBACK_COMPLETED | ROLLBACK_PAUSED
 */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import {
  updateDelayMs,
  updateFailureAction,
  updateMaxFailureRatio,
  updateMonitorMs,
  updateOrder,
  updateParallelism,
} from "../../common/model/defaults.ts";
import { isTerminal } from "../../common/model/task-state.ts";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import {
  TaskState,
  type UpdateConfig,
  UpdateConfig_FailureAction,
  UpdateConfig_Order,
  type UpdateStatus,
  UpdateStatus_State,
  UpdateStatusSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { type DecisionBuilder, retire, type ServiceSituation, successor } from "./situation.ts";
import { observedState, type Slot, type SlotKey } from "./slot.ts";
import { leftMs } from "./stamp.ts";

interface Policy {
  readonly parallelism: number;
  readonly delayMs: number;
  readonly monitorMs: number;
  readonly maxFailureRatio: number;
  readonly failureAction: UpdateConfig_FailureAction;
  readonly startFirst: boolean;
}

function policyOf(config: UpdateConfig | undefined): Policy {
  return {
    parallelism: updateParallelism(config),
    delayMs: updateDelayMs(config),
    monitorMs: updateMonitorMs(config),
    maxFailureRatio: updateMaxFailureRatio(config),
    failureAction: updateFailureAction(config),
    startFirst: updateOrder(config) === UpdateConfig_Order.START_FIRST,
  };
}

/** Adds to `decision` what the update of the service needs now. */
export function decideUpdate(
  situation: ServiceSituation,
  slots: ReadonlyMap<SlotKey, Slot>,
  decision: DecisionBuilder,
): void {
  const { service, spec } = situation;
  const state = service.updateStatus?.state ?? UpdateStatus_State.UNKNOWN;
  if (state === UpdateStatus_State.PAUSED || state === UpdateStatus_State.ROLLBACK_PAUSED) return;
  const rollingBack = state === UpdateStatus_State.ROLLBACK_STARTED;
  const policy = policyOf(rollingBack ? spec.rollback : spec.update);
  const dirty = [...slots.values()].filter((slot) => !situation.isCurrentVersion(slot.current.specVersion));
  const underWay = rollingBack || state === UpdateStatus_State.UPDATING;
  if (dirty.length === 0 && !underWay) return;
  if (!underWay) {
    decision.updateStatus = startedStatus(situation);
  } else if (policy.failureAction !== UpdateConfig_FailureAction.CONTINUE && tooManyFailed(situation, slots, policy)) {
    stopUpdate(situation, policy, rollingBack, decision);
    return;
  }
  if (dirty.length === 0) {
    completeWhenWatched(situation, slots, { policy, rollingBack }, decision);
    return;
  }
  replaceDirty(situation, { slots, dirty, policy }, decision);
}

function startedStatus(situation: ServiceSituation): UpdateStatus {
  return create(UpdateStatusSchema, {
    state: UpdateStatus_State.UPDATING,
    startedAt: timestampFromMs(situation.nowMs),
    message: "update in progress",
  });
}

/** Slots of the new version whose task failed within its monitor time since the update began. */
function tooManyFailed(situation: ServiceSituation, slots: ReadonlyMap<SlotKey, Slot>, policy: Policy): boolean {
  const startedAt = situation.service.updateStatus?.startedAt;
  const startedMs = startedAt ? timestampMs(startedAt) : 0;
  let failed = 0;
  for (const slot of slots.values()) {
    if (slot.tasks.some((task) => failedInUpdate(situation, task, { startedMs, monitorMs: policy.monitorMs })))
      failed++;
  }
  return failed > 0 && failed / Math.max(1, slots.size) > policy.maxFailureRatio;
}

function failedInUpdate(
  situation: ServiceSituation,
  task: Task,
  { startedMs, monitorMs }: { readonly startedMs: number; readonly monitorMs: number },
): boolean {
  const observed = observedState(task);
  if (observed !== TaskState.FAILED && observed !== TaskState.REJECTED) return false;
  if (!situation.isCurrentVersion(task.specVersion)) return false;
  if (!task.meta?.createdAt || timestampMs(task.meta.createdAt) < startedMs) return false;
  const runningAt = task.status?.container?.startedAt;
  // Both by the agent's clock, so that its skew cancels out.
  return (
    !runningAt || !task.status?.timestamp || timestampMs(task.status.timestamp) - timestampMs(runningAt) <= monitorMs
  );
}

function stopUpdate(
  situation: ServiceSituation,
  policy: Policy,
  rollingBack: boolean,
  decision: DecisionBuilder,
): void {
  const status = situation.service.updateStatus;
  const canRollBack = !rollingBack && situation.service.previousSpecVersion > 0n;
  if (policy.failureAction === UpdateConfig_FailureAction.ROLLBACK && canRollBack) {
    decision.rollback = true;
    decision.updateStatus = create(UpdateStatusSchema, {
      state: UpdateStatus_State.ROLLBACK_STARTED,
      startedAt: timestampFromMs(situation.nowMs),
      message: "update rolled back due to failure or early termination of a task",
    });
    return;
  }
  decision.updateStatus = create(UpdateStatusSchema, {
    ...(status?.startedAt ? { startedAt: status.startedAt } : {}),
    state: rollingBack ? UpdateStatus_State.ROLLBACK_PAUSED : UpdateStatus_State.PAUSED,
    message: `${rollingBack ? "rollback" : "update"} paused due to failure or early termination of a task`,
  });
}

/** When a slot's task was last seen to change, by a manager's clock. */
function changedMs(task: Task): number {
  return task.meta?.updatedAt ? timestampMs(task.meta.updatedAt) : 0;
}

function completeWhenWatched(
  situation: ServiceSituation,
  slots: ReadonlyMap<SlotKey, Slot>,
  { policy, rollingBack }: { readonly policy: Policy; readonly rollingBack: boolean },
  decision: DecisionBuilder,
): void {
  let waitMs = 0;
  for (const { current } of slots.values()) {
    if (isTerminal(observedState(current)) && current.desiredState > TaskState.RUNNING) continue;
    if (observedState(current) !== TaskState.RUNNING) return;
    waitMs = Math.max(waitMs, leftMs({ sinceMs: changedMs(current), waitMs: policy.monitorMs }, situation.nowMs));
  }
  if (waitMs > 0) {
    decision.wakeAfter(waitMs);
    return;
  }
  const startedAt = situation.service.updateStatus?.startedAt;
  decision.updateStatus = create(UpdateStatusSchema, {
    ...(startedAt ? { startedAt } : {}),
    completedAt: timestampFromMs(situation.nowMs),
    state: rollingBack ? UpdateStatus_State.ROLLBACK_COMPLETED : UpdateStatus_State.COMPLETED,
    message: `${rollingBack ? "rollback" : "update"} completed`,
  });
}

function replaceDirty(
  situation: ServiceSituation,
  { slots, dirty, policy }: { slots: ReadonlyMap<SlotKey, Slot>; dirty: readonly Slot[]; policy: Policy },
  decision: DecisionBuilder,
): void {
  const dirtyKeys = new Set(dirty.map((slot) => slot.key));
  let busy = 0;
  for (const slot of slots.values()) {
    if (dirtyKeys.has(slot.key)) continue;
    const { current } = slot;
    if (current.desiredState > TaskState.RUNNING) continue;
    const delayMs = leftMs({ sinceMs: changedMs(current), waitMs: policy.delayMs }, situation.nowMs);
    if (observedState(current) !== TaskState.RUNNING) busy++;
    else if (delayMs > 0) {
      busy++;
      decision.wakeAfter(delayMs);
    }
  }
  // Slots that serve nobody go first: replacing them costs nothing.
  const serving = (slot: Slot) => (observedState(slot.current) === TaskState.RUNNING ? 1 : 0);
  const order = [...dirty].sort((left, right) => serving(left) - serving(right) || compareKeys(left.key, right.key));
  for (const slot of order) {
    if (busy >= policy.parallelism) return;
    busy++;
    replaceSlot(situation, slot, policy, decision);
  }
}

function compareKeys(left: SlotKey, right: SlotKey): number {
  return Number(left) - Number(right) || (left < right ? -1 : 1);
}

function replaceSlot(situation: ServiceSituation, slot: Slot, policy: Policy, decision: DecisionBuilder): void {
  const { startFirst } = policy;
  // What decideSlot wanted for this slot (a restart, a start) gives way to the update.
  decision.forget(slot);
  retire(situation, slot, { keepServing: startFirst }, decision);
  const options = { specVersion: situation.service.taskVersion, delayMs: 0, restartsMs: [], startFirst };
  decision.created.push(successor(situation, slot, options));
}
