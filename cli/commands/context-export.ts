import { writeFileSync } from "node:fs";
import { SwarmError, systemMessage } from "../../common/base/error.ts";
import type { Command, Invocation } from "../command.ts";
import { ContextStore, configFolder } from "../contexts.ts";

export const command: Command = {
  usage: "context export CONTEXT [FILE|-]",
  summary: "Export a context with its certificates and key to a JSON file or to STDOUT",
  flags: {},
  words: { min: 1, max: 2 },
  run,
};

async function run({ words, io }: Invocation): Promise<number> {
  const [name = "", file = `${name}.swarmcontext`] = words;
  const store = new ContextStore(configFolder(io));
  const { description, host, skipTlsVerify, serverName } = store.get(name);
  const text = `${JSON.stringify({ name, description, host, skipTlsVerify, serverName, ...store.pem(name) }, undefined, 2)}\n`;
  if (file === "-") {
    if (io.terminal) throw new SwarmError("failed_precondition", "refusing to write a key to a terminal: name a file");
    io.out(text);
    return 0;
  }
  try {
    // It holds a key, and it must not replace anything.
    writeFileSync(file, text, { mode: 0o600, flag: "wx" });
  } catch (reason) {
    throw new SwarmError("failed_precondition", `${file}: ${systemMessage(reason)}`);
  }
  io.err(`Written file "${file}"\n`);
  return 0;
}
