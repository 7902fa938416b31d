import { statsCommand } from "../stats.ts";

export const command = statsCommand(
  {
    usage: "task stats [OPTIONS] TASK [TASK...]",
    summary: "Display a live stream of what tasks use",
    wordsMin: 1,
  },
  (tasks) => ({ tasks }),
);
