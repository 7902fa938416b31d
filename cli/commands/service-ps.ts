import type { Command, Invocation } from "../command.ts";
import { parseFilters } from "../filters.ts";
import { isWantedTask, renderTasks, TASK_FILTERS, TASK_FLAGS } from "../task-rows.ts";

export const command: Command = {
  usage: "service ps [OPTIONS] SERVICE [SERVICE...]",
  summary: "List the tasks of one or more services",
  flags: TASK_FLAGS,
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run({ flags, words, io, clock, connect }: Invocation): Promise<number> {
  const filters = parseFilters(flags.list("filter"), TASK_FILTERS);
  const client = await connect();
  const { tasks } = await client.listTasks({ serviceIds: [...words] });
  io.out(
    renderTasks(
      tasks.filter((task) => isWantedTask(task, filters)),
      flags,
      clock.nowMs(),
    ),
  );
  return 0;
}
