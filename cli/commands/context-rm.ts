import { SwarmError } from "../../common/base/error.ts";
import { forEachWord } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { ContextStore, checkContextName, configFolder, DEFAULT_CONTEXT } from "../contexts.ts";

export const command: Command = {
  usage: "context rm [OPTIONS] CONTEXT [CONTEXT...]",
  summary: "Remove one or more contexts",
  flags: { force: { kind: "boolean", short: "f", help: "Force the removal of a context in use" } },
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run({ flags, words, io }: Invocation): Promise<number> {
  const store = new ContextStore(configFolder(io));
  return await forEachWord(words, io, async (name) => {
    checkContextName(name);
    if (store.current() === name) {
      if (!flags.on("force")) {
        throw new SwarmError(
          "failed_precondition",
          `context ${JSON.stringify(name)} is in use, set -f flag to force remove`,
        );
      }
      store.use(DEFAULT_CONTEXT);
    }
    if (store.has(name) || !flags.on("force")) store.remove(name);
    return name;
  });
}
