/**
 * The task state machine. Every move has one owner; anything else is refused.
 *
 *   orchestrator  ∅ → NEW
 *   allocator     NEW → PENDING
 *   scheduler     PENDING → ASSIGNED
 *   agent         ASSIGNED → ACCEPTED → PREPARING → READY → STARTING → RUNNING → COMPLETE | SHUTDOWN | FAILED
 *                 ASSIGNED … STARTING → REJECTED | FAILED | SHUTDOWN
 *   node monitor  ASSIGNED … RUNNING → ORPHANED
 *   reaper        a terminal or never assigned task → ∅
 */
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";

/** Who may change a task's observed state. */
export type TaskActor = "orchestrator" | "allocator" | "scheduler" | "agent" | "node monitor";

/** Whether the task's process has ended or will never begin: it moves no more. */
export function isTerminal(state: TaskState): boolean {
  return state > TaskState.RUNNING;
}

/** Whether `actor` may move a task's observed state from `from` to `to`. Staying in a state (a new message) is allowed. */
export function mayMove(actor: TaskActor, from: TaskState, to: TaskState): boolean {
  if (isTerminal(from)) return false;
  switch (actor) {
    case "orchestrator":
      return false;
    case "allocator":
      return from === TaskState.NEW && to === TaskState.PENDING;
    case "scheduler":
      return from === TaskState.PENDING && (to === TaskState.ASSIGNED || to === TaskState.PENDING);
    case "agent":
      return (
        from >= TaskState.ASSIGNED &&
        to >= from &&
        to > TaskState.ASSIGNED &&
        to <= TaskState.REJECTED &&
        agentMay(from, to)
      );
    case "node monitor":
      return from >= TaskState.ASSIGNED && to === TaskState.ORPHANED;
  }
}

/** An agent may skip steps (a status that was lost on the way), but never reject what has started. */
function agentMay(from: TaskState, to: TaskState): boolean {
  if (to === TaskState.REJECTED) return from < TaskState.RUNNING;
  return true;
}

/** The state's name in small letters, as `service ps` shows it ("running"). */
export function taskStateName(state: TaskState): string {
  return TaskState[state].toLowerCase();
}
