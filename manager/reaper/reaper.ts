/** The reaper's loop: forgets tasks and spec versions that nobody needs any more; what it decides lies in `decide.ts`. */
import { TASK_HISTORY_LIMIT_DEFAULT } from "../../common/model/defaults.ts";
import { isTerminal } from "../../common/model/task-state.ts";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Loop, LoopDecision } from "../loop.ts";
import type { Change } from "../store/changes.ts";
import { versionId } from "../store/kinds.ts";
import type { ProposalGroup } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { decideReaped, decideTrimmedSpecs, SPEC_HISTORY_LIMIT } from "./decide.ts";

export class Reaper implements Loop {
  readonly name = "reaper";
  /** SwarmKit's batch time: dead tasks harm nobody, and many go in one transaction. */
  readonly pauseMs = 250;

  *begin(view: View): Iterable<string> {
    for (const task of view.tasks.values()) if (mayGo(task)) yield task.serviceId;
    for (const id of view.services.keys()) if (view.specVersions(id).length > SPEC_HISTORY_LIMIT) yield id;
  }

  *observe(change: Change, view: View): Iterable<string> {
    if (change.kind === "task") {
      if (change.after ? mayGo(change.after) : hasOldSpecs(view, change.before)) yield* serviceOf(change);
    } else if (change.kind === "spec") {
      if (change.after && hasOldSpecs(view, change.after)) yield change.after.serviceId;
    } else if (change.kind === "service") {
      if (!change.after) yield change.id;
    } else if (change.kind === "cluster") yield* view.services.keys();
    else if (change.kind === "node" && !change.after) {
      for (const task of view.tasksOfNode(change.id)) yield task.serviceId;
    }
  }

  decide(view: View, keys: readonly string[]): LoopDecision {
    const historyLimit = view.cluster?.spec?.taskHistoryLimit ?? TASK_HISTORY_LIMIT_DEFAULT;
    const isNodeGone = (nodeId: string) => nodeId !== "" && !view.nodes.has(nodeId);
    const groups: ProposalGroup[] = [];
    for (const serviceId of keys) {
      for (const task of decideReaped(view.tasksOfService(serviceId), { historyLimit, isNodeGone })) {
        groups.push({ type: "delete", kind: "task", id: task.id, version: task.meta?.version });
      }
      groups.push(...trimmedSpecs(view, serviceId));
    }
    return { groups, wakeups: [] };
  }
}

/** Also a task that was called off before a node had it counts in its slot's history. */
/** A task that goes in this round still counts as naming its version: that goes in the next. */
function trimmedSpecs(view: View, serviceId: string): ProposalGroup[] {
  const versions = view.specVersions(serviceId).map(({ version }) => version);
  const trimmed = decideTrimmedSpecs(versions, view.services.get(serviceId), view.tasksOfService(serviceId));
  return trimmed.map((version) => ({ type: "delete", kind: "spec", id: versionId(serviceId, version) }));
}

function hasOldSpecs(view: View, of: { readonly serviceId: string } | undefined): boolean {
  if (!of) return false;
  return view.specVersions(of.serviceId).length > (view.services.has(of.serviceId) ? SPEC_HISTORY_LIMIT : 0);
}

function* serviceOf({ before, after }: Change & { readonly kind: "task" }): Iterable<string> {
  const task = after ?? before;
  if (task) yield task.serviceId;
}

function mayGo(task: Task): boolean {
  const state = task.status?.state ?? TaskState.NEW;
  const holdsNothing = isTerminal(state) || state < TaskState.ASSIGNED;
  return task.desiredState > TaskState.RUNNING && (task.desiredState >= TaskState.REMOVE || holdsNothing);
}
