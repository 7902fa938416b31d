/** The one running task that a command works in: of a service the lowest slot, or what `--task` says. */
import { SwarmError } from "../common/base/error.ts";
import { slotName, taskName } from "../common/model/names.ts";
import { escapeControls } from "../common/model/text.ts";
import type { TaskView } from "../proto/gen/swarm/v1/control_pb.js";
import { TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import type { ControlClient } from "./command.ts";
import type { Flag } from "./flags/parse.ts";

export const TASK_FLAG = {
  kind: "text",
  value: "string",
  help: "Of a service: the slot's number, or the task",
} as const satisfies Flag;

/** A running task of a service by that name, the lowest slot first; else the task of that name. */
export async function findTask(client: ControlClient, reference: string, slot: string | undefined): Promise<TaskView> {
  const ofService = await tasksOf(client, reference);
  if (ofService === undefined && slot !== undefined) throw new SwarmError("not_found", `no such service: ${reference}`);
  if (ofService === undefined) {
    const { tasks } = await client.listTasks({ references: [reference] });
    const [task] = tasks;
    if (!task) throw new SwarmError("not_found", `no such service or task: ${reference}`);
    return task;
  }
  const running = ofService
    .filter(({ task }) => task?.status?.state === TaskState.RUNNING && task.desiredState <= TaskState.RUNNING)
    .sort((left, right) => (left.task?.slot ?? 0) - (right.task?.slot ?? 0));
  const wanted = slot === undefined ? running : running.filter((view) => isNamed(view, slot));
  const [first] = wanted;
  if (first) return first;
  const which = slot === undefined ? "" : ` ${slot}`;
  throw new SwarmError("failed_precondition", `service ${reference} has no running task${which}`);
}

/** The tasks of a service; undefined: there is none of that name. */
async function tasksOf(client: ControlClient, reference: string): Promise<readonly TaskView[] | undefined> {
  try {
    return (await client.listTasks({ serviceIds: [reference] })).tasks;
  } catch (reason) {
    if (reason instanceof SwarmError && reason.code === "not_found") return undefined;
    throw reason;
  }
}

function isNamed({ task, serviceName, nodeHostname }: TaskView, text: string): boolean {
  if (!task) return false;
  // A number is a slot's, though ids may begin with one.
  if (/^\d+$/.test(text)) return String(task.slot) === text;
  if (task.id.startsWith(text) || nodeHostname === text) return true;
  return slotName(serviceName, task) === text || taskName(serviceName, task) === text;
}

/** "web.1 on node-2". */
export function placeOfTask({ task, serviceName, nodeHostname }: TaskView): string {
  return escapeControls(`${task ? slotName(serviceName, task) : ""} on ${nodeHostname}`);
}
