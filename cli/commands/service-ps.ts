import { taskCommand } from "../task-rows.ts";

export const command = taskCommand({
  usage: "service ps [OPTIONS] SERVICE [SERVICE...]",
  summary: "List the tasks of one or more services",
  select: (service) => ({ serviceIds: [service] }),
});
