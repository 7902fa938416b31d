import type { Command } from "../command.ts";
import { LOG_FLAGS, showLogs } from "../logs.ts";
import { requireStack } from "../stack/request.ts";

export const command: Command = {
  usage: "stack logs [OPTIONS] STACK",
  summary: "Fetch the logs of all services in the stack",
  flags: LOG_FLAGS,
  words: { min: 1, max: 1 },
  run: (invocation) =>
    showLogs(invocation, async (client) => {
      const services = await requireStack(client, invocation.words[0] ?? "");
      return { serviceIds: services.map(({ service }) => service?.id ?? ""), taskIds: [] };
    }),
};
