import type { Command, Invocation } from "../command.ts";
import { parseFilters } from "../filters.ts";
import { isWantedTask, renderTasks, TASK_FILTERS, TASK_FLAGS } from "../task-rows.ts";

export const command: Command = {
  usage: "node ps [OPTIONS] NODE [NODE...]",
  summary: "List tasks running on one or more nodes",
  flags: TASK_FLAGS,
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run({ flags, words, io, clock, connect }: Invocation): Promise<number> {
  const filters = parseFilters(flags.list("filter"), TASK_FILTERS);
  const client = await connect();
  const { tasks } = await client.listTasks({ nodeIds: [...words] });
  io.out(
    renderTasks(
      tasks.filter((task) => isWantedTask(task, filters)),
      flags,
      clock.nowMs(),
    ),
  );
  return 0;
}
