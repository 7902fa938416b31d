import { SwarmError } from "../../common/base/error.ts";
import type { Command, ControlClient } from "../command.ts";
import { LOG_FLAGS, type LogSelection, showLogs } from "../logs.ts";

export const command: Command = {
  usage: "service logs [OPTIONS] SERVICE|TASK",
  summary: "Fetch the logs of a service or task",
  flags: LOG_FLAGS,
  words: { min: 1, max: 1 },
  run: (invocation) => showLogs(invocation, (client) => selectServiceOrTask(client, invocation.words[0] ?? "")),
};

/** A service by that name, else a task. */
export async function selectServiceOrTask(client: ControlClient, reference: string): Promise<LogSelection> {
  try {
    const { services } = await client.listServices({ references: [reference], withoutSpecs: true });
    return { serviceIds: services.map(({ service }) => service?.id ?? ""), taskIds: [] };
  } catch (reason) {
    if (!(reason instanceof SwarmError) || reason.code !== "not_found") throw reason;
  }
  try {
    return await selectTasks(client, [reference]);
  } catch (reason) {
    if (!(reason instanceof SwarmError) || reason.code !== "not_found") throw reason;
    throw new SwarmError("not_found", `no such service or task: ${reference}`);
  }
}

/** Tasks by reference. */
export async function selectTasks(client: ControlClient, references: readonly string[]): Promise<LogSelection> {
  const { tasks } = await client.listTasks({ references: [...references] });
  return { serviceIds: [], taskIds: tasks.map(({ task }) => task?.id ?? "") };
}
