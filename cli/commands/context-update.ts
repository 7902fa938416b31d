import type { Command, Invocation } from "../command.ts";
import { ContextStore, configFolder } from "../contexts.ts";
import { CONTEXT_FLAGS, wantedContext } from "../flags/context-flags.ts";

export const command: Command = {
  usage: "context update [OPTIONS] CONTEXT",
  summary: "Update a context",
  flags: CONTEXT_FLAGS,
  words: { min: 1, max: 1 },
  run,
};

async function run({ flags, words, io, clock }: Invocation): Promise<number> {
  const [name = ""] = words;
  const store = new ContextStore(configFolder(io));
  const { meta, pem, warnings } = await wantedContext(
    flags,
    { meta: store.get(name), pem: store.pem(name) },
    { io, nowMs: clock.nowMs() },
  );
  store.write(name, meta, pem);
  for (const warning of warnings) io.err(`swarmctl: warning: ${warning}\n`);
  io.out(`${name}\n`);
  io.err(`Successfully updated context "${name}"\n`);
  return 0;
}
