/**
 * Decides whether a service has become what its spec says, is still on the way, or will not get there. Pure: a picture of
 * the service in, a verdict out.
 *
 *   waiting ──▶ converged            every slot runs a task of the wanted version, and the update (if one runs) is done
 *      └─────▶ failed                the update paused or rolled back, a slot gave up, or a slot fails again and again
 */
import { isJob } from "../common/model/service-mode.ts";
import { isTerminal, taskStateName } from "../common/model/task-state.ts";
import type { ServiceView, TaskView } from "../proto/gen/swarm/v1/control_pb.js";
import { TaskState, UpdateStatus_State } from "../proto/gen/swarm/v1/types_pb.js";

/** A slot that ends so often while it is watched will not run: Docker would wait for ever. */
const FAILURES_MAX = 3;

/** More of them say the same again. */
const FAILURES_SHOWN_MAX = 3;

/** One slot as progress shows it. */
export interface SlotProgress {
  /** The slot's number, or the node of a global service. */
  readonly name: string;
  /** The state of its newest task. */
  readonly state: TaskState;
  /** Why it does not run yet: "no suitable node (…)", "task: non-zero exit (1)". Empty when all is well. */
  readonly reason: string;
  readonly done: boolean;
}

/** What is known of a service at one moment. */
export interface Picture {
  readonly service: ServiceView;
  readonly tasks: readonly TaskView[];
  /** Whether a task of this spec version is what the newest version wants. */
  isCurrent(specVersion: bigint): boolean;
  /** Tasks that had ended before the change was made: they tell nothing about it. */
  readonly before: ReadonlySet<string>;
  /** Whether the change was itself a rollback, so that "rolled back" means success. */
  readonly rollback: boolean;
}

export type Verdict =
  | { readonly kind: "waiting" | "converged"; readonly slots: readonly SlotProgress[] }
  | {
      readonly kind: "failed";
      readonly slots: readonly SlotProgress[];
      readonly reason: string;
      /** A successor may be on its way in another transaction: believe it only if it lasts. */
      readonly provisional: boolean;
    };

/** Judges a picture. */
export function assess(picture: Picture): Verdict {
  if (isJob(picture.service.spec)) return assessJob(picture);
  const groups = slotsOf(picture.tasks);
  const slots = wantedSlots(picture, groups);
  const desired = Number(picture.service.desiredTasks);
  const running = slots.filter(({ done }) => done).length >= desired;
  const update = updateVerdict(picture, running, groups);
  if (update !== undefined)
    return update === "done" ? { kind: "converged", slots } : { ...update, slots, provisional: false };
  if (running) return { kind: isUpdating(picture) ? "waiting" : "converged", slots };
  const failure = givenUp(picture, groups);
  return failure === undefined ? { kind: "waiting", slots } : { kind: "failed", slots, ...failure };
}

/** A job converges when it is done: every slot of the present iteration has ended well. */
function assessJob(picture: Picture): Verdict {
  const taskVersion = picture.service.service?.taskVersion ?? 0n;
  const groups = slotsOf(picture.tasks.filter(({ task }) => (task?.specVersion ?? 0n) >= taskVersion));
  const slots = [...groups].flatMap(([key, tasks]): SlotProgress[] => {
    const newest = tasks.at(-1);
    if (newest?.task === undefined) return [];
    const state = newest.task.status?.state ?? TaskState.NEW;
    const name = newest.task.slot > 0 ? key : newest.nodeHostname || key;
    const done = state === TaskState.COMPLETE;
    return [{ name, state, done, reason: done || state === TaskState.RUNNING ? "" : reasonOf(newest, tasks) }];
  });
  slots.sort((left, right) => compareNames(left.name, right.name));
  if (picture.service.desiredTasks === 0n && picture.service.service?.stopped !== true)
    return { kind: "converged", slots };
  const failure = givenUp(picture, groups);
  return failure === undefined ? { kind: "waiting", slots } : { kind: "failed", slots, ...failure };
}

type SlotTasks = ReadonlyMap<string, readonly TaskView[]>;

/** Tasks by slot, the newest last; what is being removed does not count. */
function slotsOf(tasks: readonly TaskView[]): SlotTasks {
  const slots = new Map<string, TaskView[]>();
  for (const view of tasks) {
    const { task } = view;
    if (task === undefined || task.desiredState >= TaskState.REMOVE) continue;
    const key = task.slot > 0 ? String(task.slot) : task.nodeId;
    const slot = slots.get(key);
    if (slot) slot.push(view);
    else slots.set(key, [view]);
  }
  for (const slot of slots.values()) slot.sort((left, right) => Number(attemptOf(left) - attemptOf(right)));
  return slots;
}

function attemptOf({ task }: TaskView): bigint {
  return task?.attempt ?? 0n;
}

/** The slots that count: as many as are desired; a slot that is being shut down after a scale-down does not. */
function wantedSlots({ service, isCurrent }: Picture, groups: SlotTasks): readonly SlotProgress[] {
  const desired = Number(service.desiredTasks);
  const shown: SlotProgress[] = [];
  for (const [key, tasks] of groups) {
    const newest = tasks.at(-1);
    if (newest?.task === undefined) continue;
    const alive = tasks.some(({ task }) => (task?.desiredState ?? 0) <= TaskState.RUNNING) || hasDoneItsWork(newest);
    if (!alive && groups.size > desired) continue;
    shown.push(slotProgress(newest, tasks, { key, current: isCurrent(newest.task.specVersion) }));
  }
  return shown.sort((left, right) => compareNames(left.name, right.name));
}

function slotProgress(
  newest: TaskView,
  tasks: readonly TaskView[],
  { key, current }: { readonly key: string; readonly current: boolean },
): SlotProgress {
  const state = newest.task?.status?.state ?? TaskState.NEW;
  const running = state === TaskState.RUNNING && (newest.task?.desiredState ?? 0) <= TaskState.RUNNING;
  const name = (newest.task?.slot ?? 0) > 0 ? key : newest.nodeHostname || key;
  const done = current && (running || hasDoneItsWork(newest));
  return { name, state, done, reason: running ? "" : reasonOf(newest, tasks) };
}

/** A task that ended well and gets no successor (restart condition none or on-failure) is what was asked for. */
function hasDoneItsWork({ task }: TaskView): boolean {
  return task?.status?.state === TaskState.COMPLETE && task.desiredState > TaskState.RUNNING;
}

/** What a person should know: the newest task's error, else what is pending, else why its forerunner ended. */
function reasonOf(newest: TaskView, tasks: readonly TaskView[]): string {
  const { status } = newest.task ?? {};
  if (status?.error) return status.error;
  const state = status?.state ?? TaskState.NEW;
  if (state === TaskState.PENDING && status?.message && status.message !== "pending task scheduling")
    return status.message;
  if (state > TaskState.READY) return "";
  const forerunner = tasks.at(-2)?.task?.status;
  return forerunner !== undefined && forerunner.state > TaskState.SHUTDOWN ? forerunner.error : "";
}

function compareNames(left: string, right: string): number {
  const difference = Number(left) - Number(right);
  return Number.isNaN(difference) ? (left < right ? -1 : Number(left > right)) : difference;
}

function isUpdating({ service }: Picture): boolean {
  const state = service.service?.updateStatus?.state;
  return state === UpdateStatus_State.UPDATING || state === UpdateStatus_State.ROLLBACK_STARTED;
}

/** What the update's own status says; undefined when it says nothing yet. */
function updateVerdict(
  picture: Picture,
  running: boolean,
  groups: SlotTasks,
): "done" | { readonly kind: "failed"; readonly reason: string } | undefined {
  const status = picture.service.service?.updateStatus;
  const failed = (what: string) => {
    return {
      kind: "failed" as const,
      reason: [`${what}: ${status?.message}`, ...failures(picture, groups)].join("; "),
    };
  };
  switch (status?.state) {
    case UpdateStatus_State.PAUSED:
      return failed("service update paused");
    case UpdateStatus_State.ROLLBACK_PAUSED:
      return failed("service rollback paused");
    case UpdateStatus_State.ROLLBACK_COMPLETED:
      if (!picture.rollback) return failed("service rolled back");
      return running ? "done" : undefined;
    case UpdateStatus_State.COMPLETED:
      return running ? "done" : undefined;
    default:
      return undefined;
  }
}

/** How tasks failed since the change, which is why it was paused or undone: the last one of the first few slots. */
function failures({ service, before }: Picture, groups: SlotTasks): readonly string[] {
  const said: string[] = [];
  for (const [key, tasks] of groups) {
    const last = tasks.findLast(({ task }) => {
      const state = task?.status?.state ?? TaskState.NEW;
      return (state === TaskState.FAILED || state === TaskState.REJECTED) && !before.has(task?.id ?? "");
    });
    if (last !== undefined) said.push(`task ${service.service?.name}.${key} ${describeEnd(last)}`);
    if (said.length === FAILURES_SHOWN_MAX) break;
  }
  return said;
}

/** Why a slot will not run: it gets no further task, or it failed too often. Not while an update may still pause it. */
function givenUp(
  picture: Picture,
  groups: SlotTasks,
): { readonly reason: string; readonly provisional: boolean } | undefined {
  const serviceName = picture.service.service?.name ?? "";
  for (const [key, tasks] of groups) {
    const ended = tasks.filter(({ task }) => {
      const state = task?.status?.state ?? TaskState.NEW;
      return (
        task !== undefined && picture.isCurrent(task.specVersion) && cameToItsEnd(state) && !picture.before.has(task.id)
      );
    });
    const newest = tasks.at(-1);
    const last = ended.at(-1);
    if (last?.task === undefined || (newest !== undefined && hasDoneItsWork(newest))) continue;
    // A job's completed task keeps what it was wanted for: there is nothing to be stopped.
    if (isJob(picture.service.spec) && newest?.task?.status?.state === TaskState.COMPLETE) continue;
    // Told to stop after it had ended by itself: the restart policy has judged, no successor comes.
    const abandoned = last === newest && last.task.desiredState > TaskState.RUNNING;
    const repeated = (ended.length >= FAILURES_MAX || isStuck(last, newest)) && !isUpdating(picture);
    if (!abandoned && !repeated) continue;
    const what = describeEnd(last);
    const times = ended.length === 1 ? "once, and its successor meets the same" : `${ended.length} times`;
    const often = abandoned ? "ended and is not restarted" : `failed ${times}`;
    return { reason: `task ${serviceName}.${key} ${often}: ${what}`, provisional: !repeated };
  }
  return undefined;
}

/**
 * An agent tries a step that may pass by itself (a registry that is down) for half a minute before it rejects the task. When
 * the next task begins with the very same error, waiting for two more of them tells nothing new.
 */
function isStuck(last: TaskView, newest: TaskView | undefined): boolean {
  const [before, now] = [last.task?.status, newest?.task?.status];
  return (
    newest !== last &&
    before?.state === TaskState.REJECTED &&
    now !== undefined &&
    now.state < TaskState.RUNNING &&
    now.error !== "" &&
    now.error === before.error
  );
}

function cameToItsEnd(state: TaskState): boolean {
  return (
    isTerminal(state) && (state === TaskState.COMPLETE || state === TaskState.FAILED || state === TaskState.REJECTED)
  );
}

function describeEnd({ task }: TaskView): string {
  const status = task?.status;
  const state = taskStateName(status?.state ?? TaskState.NEW);
  const code = status?.container?.exitCode;
  if (status?.error) return `${state}: ${status.error}`;
  return code === undefined ? state : `${state} with exit code ${code}`;
}
