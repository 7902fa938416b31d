import type { Command } from "../command.ts";
import { LOG_FLAGS, showLogs } from "../logs.ts";
import { selectTasks } from "./service-logs.ts";

export const command: Command = {
  usage: "task logs [OPTIONS] TASK [TASK...]",
  summary: "Fetch the logs of one or more tasks",
  flags: LOG_FLAGS,
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run: (invocation) => showLogs(invocation, (client) => selectTasks(client, invocation.words)),
};
