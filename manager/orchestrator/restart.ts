/**
 * The restart policy as a pure function: whether a slot whose task ended gets another one, and when. Its history lies
 * in the tasks themselves, so that limits hold over a change of leader.
 */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { restartCondition, restartDelayMs, restartMaxAttempts, restartWindowMs } from "../../common/model/defaults.ts";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { RestartPolicy_Condition, type TaskSpec, TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import { observedState } from "./slot.ts";

/** What becomes of a slot whose task no longer runs. */
export type RestartDecision =
  | { readonly kind: "leave"; readonly reason: string }
  | { readonly kind: "restart"; readonly delayMs: number; readonly restartsMs: readonly number[] };

/** Why the task needs a successor: it ended by itself, or its node may not or cannot run it any more. */
export type EndCause = "ended" | "evicted";

/** Decides for `task`, the slot's current one. `spec` is the service's present one. */
export function decideRestart(task: Task, spec: TaskSpec | undefined, cause: EndCause, nowMs: number): RestartDecision {
  const condition = restartCondition(spec);
  if (condition === RestartPolicy_Condition.NONE) return { kind: "leave", reason: "restart condition is none" };
  if (cause === "evicted") {
    return { kind: "restart", delayMs: 0, restartsMs: task.restarts.map(timestampMs) };
  }
  if (condition === RestartPolicy_Condition.ON_FAILURE && observedState(task) === TaskState.COMPLETE) {
    return { kind: "leave", reason: "task completed" };
  }
  const maxAttempts = restartMaxAttempts(spec);
  const delayMs = restartDelayMs(spec);
  if (maxAttempts === Number.POSITIVE_INFINITY) return { kind: "restart", delayMs, restartsMs: [] };

  const windowMs = restartWindowMs(spec);
  const counted = task.restarts.map(timestampMs).filter((atMs) => nowMs - atMs < windowMs);
  if (counted.length >= maxAttempts) {
    return { kind: "leave", reason: `restarted ${maxAttempts} times, the maximum` };
  }
  return { kind: "restart", delayMs, restartsMs: [...counted, nowMs] };
}
