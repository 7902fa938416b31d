/** Which tasks may be forgotten. */
import { isTerminal } from "../../common/model/task-state.ts";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";

/**
 * The tasks of one service that go: those to be removed that hold nothing on any node, and in each slot the oldest dead
 * ones beyond the history limit. `isNodeGone` says whether a task's node was removed from the cluster for good.
 */
export function decideReaped(
  tasks: Iterable<Task>,
  options: { readonly historyLimit: number; readonly isNodeGone: (nodeId: string) => boolean },
): Task[] {
  const reaped: Task[] = [];
  const history = new Map<string, Task[]>();
  for (const task of tasks) {
    const state = task.status?.state ?? TaskState.NEW;
    const ended = isTerminal(state) || state < TaskState.ASSIGNED || options.isNodeGone(task.nodeId);
    if (!ended || task.desiredState <= TaskState.RUNNING) continue;
    if (task.desiredState >= TaskState.REMOVE) {
      reaped.push(task);
      continue;
    }
    const key = task.slot > 0 ? String(task.slot) : task.nodeId;
    const dead = history.get(key);
    if (dead) dead.push(task);
    else history.set(key, [task]);
  }
  for (const dead of history.values()) {
    if (dead.length <= options.historyLimit) continue;
    dead.sort((left, right) => Number(left.attempt - right.attempt));
    reaped.push(...dead.slice(0, dead.length - options.historyLimit));
  }
  return reaped;
}
