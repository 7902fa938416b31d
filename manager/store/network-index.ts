import { isTerminal } from "../../common/model/task-state.ts";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";

/** Whether a task's addresses lead to it: it is on its node and has not ended. */
export function isReachable({ nodeId, status, desiredState }: Task): boolean {
  const state = status?.state ?? TaskState.NEW;
  return nodeId !== "" && state >= TaskState.ASSIGNED && !isTerminal(state) && desiredState <= TaskState.REMOVE;
}

const NONE: ReadonlySet<string> = new Set();

/** Which tasks that can be reached are on which network, and on which nodes. */
export class NetworkIndex {
  readonly #tasks = new Map<string, Set<string>>();
  /** How many of a network's tasks each node has. */
  readonly #nodes = new Map<string, Map<string, number>>();

  /** Puts `after` in the place of `before`; either may be missing. */
  replace(before: Task | undefined, after: Task | undefined): void {
    if (before && before.networks.length > 0 && isReachable(before)) this.#leave(before);
    if (after && after.networks.length > 0 && isReachable(after)) this.#enter(after);
  }

  tasksOn(networkId: string): ReadonlySet<string> {
    return this.#tasks.get(networkId) ?? NONE;
  }

  nodesOn(networkId: string): Iterable<string> {
    return this.#nodes.get(networkId)?.keys() ?? NONE;
  }

  #enter(task: Task): void {
    for (const { networkId } of task.networks) {
      const tasks = this.#tasks.get(networkId) ?? new Set();
      this.#tasks.set(networkId, tasks.add(task.id));
      const nodes = this.#nodes.get(networkId) ?? new Map<string, number>();
      this.#nodes.set(networkId, nodes.set(task.nodeId, (nodes.get(task.nodeId) ?? 0) + 1));
    }
  }

  #leave(task: Task): void {
    for (const { networkId } of task.networks) {
      const tasks = this.#tasks.get(networkId);
      const nodes = this.#nodes.get(networkId);
      tasks?.delete(task.id);
      if (tasks?.size === 0) this.#tasks.delete(networkId);
      const count = (nodes?.get(task.nodeId) ?? 0) - 1;
      if (count > 0) nodes?.set(task.nodeId, count);
      else nodes?.delete(task.nodeId);
      if (nodes?.size === 0) this.#nodes.delete(networkId);
    }
  }
}
