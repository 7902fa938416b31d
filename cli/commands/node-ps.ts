import { taskCommand } from "../task-rows.ts";

export const command = taskCommand({
  usage: "node ps [OPTIONS] NODE [NODE...]",
  summary: "List tasks running on one or more nodes",
  select: (node) => ({ nodeIds: [node] }),
});
