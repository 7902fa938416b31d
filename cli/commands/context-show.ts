import type { Command, Invocation } from "../command.ts";
import { ContextStore, configFolder } from "../contexts.ts";
import { contextName } from "../endpoint.ts";

export const command: Command = {
  usage: "context show",
  summary: "Print the name of the current context",
  flags: {},
  words: { min: 0, max: 0 },
  run: async ({ globals, io }: Invocation) => {
    io.out(`${contextName(globals, { ...io, contexts: new ContextStore(configFolder(io)) })}\n`);
    return 0;
  },
};
