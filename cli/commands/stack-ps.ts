import { requireStack } from "../stack/request.ts";
import { taskCommand } from "../task-rows.ts";

export const command = taskCommand({
  usage: "stack ps [OPTIONS] STACK",
  summary: "List the tasks in the stack",
  words: 1,
  select: async (stack, client) => ({
    serviceIds: (await requireStack(client, stack)).map(({ service }) => service?.id ?? ""),
  }),
});
