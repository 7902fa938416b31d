/**
 * The task machine of an agent, as two pure functions: what to do next, and what a result means. It knows nothing of
 * containers, disks or the wire; `task-manager.ts` is the thin loop around it.
 *
 *   ASSIGNED ─accept→ ACCEPTED ─prepare→ PREPARING ─→ READY ─start→ STARTING ─(healthy)→ RUNNING ─watch→ COMPLETE
 *                                  │                    (waits for desired RUNNING)          │            FAILED
 *                                  └→ REJECTED                                              └ shutdown → SHUTDOWN
 *
 * When a task may start is the manager's word, said by its desired state: `start_after` is for the manager alone, since
 * this host's wall clock may differ from the one that it was stamped by.
 */
import type { SwarmError } from "../common/base/error.ts";
import { isTerminal } from "../common/model/task-state.ts";
import { TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import type { ExitStatus } from "./executor.ts";

/** What the next step depends on. */
export interface TaskView {
  readonly observed: TaskState;
  readonly desired: TaskState;
  /** Whether the manager took the assignment back: the node shall forget the task. */
  readonly removed: boolean;
}

/** One step. `rest` waits for a change of the view. */
export interface TaskStep {
  readonly kind: "accept" | "prepare" | "start" | "watch" | "shutdown" | "remove" | "rest";
}

/** Decides the next step of a task. */
export function nextStep(view: TaskView): TaskStep {
  if (view.removed) return { kind: "remove" };
  if (isTerminal(view.observed)) return { kind: "rest" };
  if (asksToStop(view.desired)) return { kind: "shutdown" };
  if (view.observed < TaskState.ACCEPTED) return { kind: "accept" };
  if (view.observed < TaskState.READY) return { kind: "prepare" };
  if (view.observed === TaskState.STARTING) return { kind: "start" };
  if (view.observed === TaskState.RUNNING) return { kind: "watch" };
  return { kind: view.desired < TaskState.RUNNING ? "rest" : "start" };
}

/** Whether this desired state ends a task. COMPLETE does not: a job's task is desired to run until it is done. */
export function asksToStop(desired: TaskState): boolean {
  return desired > TaskState.COMPLETE;
}

/** The state, words and container facts that a result leads to. */
export interface TaskOutcome {
  readonly state: TaskState;
  readonly message: string;
  readonly error?: string;
  readonly exit?: ExitStatus;
}

/** What it means that the process of a task ended. */
export function outcomeOfExit(desired: TaskState, exit: ExitStatus): TaskOutcome {
  if (asksToStop(desired)) return { state: TaskState.SHUTDOWN, message: "shutdown", exit };
  if (exit.exitCode === 0 && exit.reason === undefined) return { state: TaskState.COMPLETE, message: "finished", exit };
  return { state: TaskState.FAILED, message: "failed", error: `task: ${whyItEnded(exit)}`, exit };
}

function whyItEnded(exit: ExitStatus): string {
  if (exit.reason !== undefined) return exit.reason;
  return `non-zero exit (${exit.exitCode})${exit.oomKilled ? ": out of memory" : ""}`;
}

/** What it means that a step failed for good: a task that has not started yet is REJECTED, a started one FAILED. */
export function outcomeOfFailure(observed: TaskState, failure: SwarmError): TaskOutcome {
  const started = observed >= TaskState.STARTING;
  return {
    state: started ? TaskState.FAILED : TaskState.REJECTED,
    message: started ? "failed" : "rejected",
    error: failure.message,
  };
}

/**
 * What a record from before the agent's restart says now. In a later boot its process is dead; a record that never got
 * to starting is simply prepared again.
 */
export function recover(observed: TaskState, sameBoot: boolean): TaskOutcome | undefined {
  if (sameBoot || isTerminal(observed) || observed < TaskState.STARTING) return undefined;
  return { state: TaskState.FAILED, message: "failed", error: "task: the host was restarted" };
}

/**
 * What an assignment says of a task of which this node has no record. One that had started is lost with the record
 * (a task never starts twice); an earlier one begins again.
 */
export function adopt(observed: TaskState): TaskOutcome | undefined {
  if (isTerminal(observed) || observed < TaskState.STARTING) return undefined;
  return { state: TaskState.FAILED, message: "failed", error: "task: its node lost the record of it" };
}
