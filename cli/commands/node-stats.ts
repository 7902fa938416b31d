import { statsCommand } from "../stats.ts";

export const command = statsCommand(
  {
    usage: "node stats [OPTIONS] [NODE...]",
    summary: "Display a live stream of what the tasks of nodes use",
    wordsMin: 0,
  },
  (nodes) => ({ nodes }),
);
