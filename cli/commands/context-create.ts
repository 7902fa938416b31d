import { SwarmError } from "../../common/base/error.ts";
import type { Command, Invocation } from "../command.ts";
import { ContextStore, checkContextName, configFolder } from "../contexts.ts";
import { CONTEXT_FLAGS, wantedContext } from "../flags/context-flags.ts";

export const command: Command = {
  usage: "context create [OPTIONS] CONTEXT",
  summary: "Create a context",
  flags: { ...CONTEXT_FLAGS, from: { kind: "text", value: "string", help: "Create context from a named context" } },
  words: { min: 1, max: 1 },
  run,
};

async function run({ flags, words, io, clock }: Invocation): Promise<number> {
  const [name = ""] = words;
  const store = new ContextStore(configFolder(io));
  checkContextName(name);
  if (store.has(name)) throw new SwarmError("already_exists", `context ${JSON.stringify(name)} already exists`);
  const from = flags.text("from");
  const present = from === undefined ? undefined : { meta: store.get(from), pem: store.pem(from) };
  const { meta, pem, warnings } = await wantedContext(flags, present, { io, nowMs: clock.nowMs() });
  store.write(name, meta, pem);
  for (const warning of warnings) io.err(`swarmctl: warning: ${warning}\n`);
  io.out(`${name}\n`);
  io.err(`Successfully created context "${name}"\n`);
  return 0;
}
