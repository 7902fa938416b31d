import type { Command } from "../command.ts";
import { copyFiles } from "../copy/run.ts";
import { TASK_FLAG } from "../find-task.ts";

export const command: Command = {
  usage: "task cp [OPTIONS] TASK:SRC_PATH|SRC_PATH|- TASK:DEST_PATH|DEST_PATH|-",
  summary: "Copy files or folders between a task and this machine",
  flags: {
    archive: { kind: "boolean", short: "a", help: "Archive mode (copy all uid/gid information)" },
    "follow-link": { kind: "boolean", short: "L", help: "Always follow symbol link in SRC_PATH" },
    quiet: { kind: "boolean", short: "q", help: "Suppress progress output during copy" },
    task: TASK_FLAG,
  },
  words: { min: 2, max: 2 },
  run: copyFiles,
};
