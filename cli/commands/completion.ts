import type { Command, Invocation } from "../command.ts";
import { COMPLETION_SCRIPTS } from "../completion-scripts.ts";
import { UsageError } from "../usage-error.ts";

export const command: Command = {
  usage: "completion bash|zsh|fish",
  summary: "Print the script that makes a shell complete swarmctl's commands, flags and live names",
  flags: {},
  words: { min: 1, max: 1 },
  run,
};

async function run({ words, io }: Invocation): Promise<number> {
  const [shell = ""] = words;
  const script = Object.hasOwn(COMPLETION_SCRIPTS, shell) ? COMPLETION_SCRIPTS[shell] : undefined;
  if (script === undefined) {
    throw new UsageError(
      `no completion for ${JSON.stringify(shell)}: one of ${Object.keys(COMPLETION_SCRIPTS).join(", ")}`,
    );
  }
  io.out(script);
  return 0;
}
