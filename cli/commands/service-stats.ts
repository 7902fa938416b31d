import { statsCommand } from "../stats.ts";
import { selectServiceOrTask } from "./service-logs.ts";

export const command = statsCommand(
  {
    usage: "service stats [OPTIONS] SERVICE|TASK [SERVICE|TASK...]",
    summary: "Display a live stream of what the tasks of services use",
    wordsMin: 1,
  },
  async (words, client) => {
    const found = await Promise.all(words.map((word) => selectServiceOrTask(client, word)));
    return {
      services: found.flatMap(({ serviceIds }) => serviceIds),
      tasks: found.flatMap(({ taskIds }) => taskIds),
    };
  },
);
