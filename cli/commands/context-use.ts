import type { Command, Invocation } from "../command.ts";
import { ContextStore, configFolder, DEFAULT_CONTEXT } from "../contexts.ts";

export const command: Command = {
  usage: "context use CONTEXT",
  summary: "Set the current context",
  flags: {},
  words: { min: 1, max: 1 },
  run,
};

async function run({ words, io }: Invocation): Promise<number> {
  const [name = ""] = words;
  new ContextStore(configFolder(io)).use(name);
  io.out(`${name}\n`);
  const { SWARM_HOST, SWARM_CONTEXT } = io.environment;
  const stronger = SWARM_HOST ? "SWARM_HOST" : SWARM_CONTEXT && SWARM_CONTEXT !== name ? "SWARM_CONTEXT" : undefined;
  if (stronger !== undefined && name !== DEFAULT_CONTEXT) {
    io.err(`swarmctl: warning: ${stronger} is set and overrides the current context; unset it to use ${name}\n`);
  }
  io.err(`Current context is now "${name}"\n`);
  return 0;
}
