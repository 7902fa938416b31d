import { findNode, forEachWord } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { warnOfManagers } from "../manager-warnings.ts";

export const command: Command = {
  usage: "node rm [OPTIONS] NODE [NODE...]",
  summary: "Remove one or more nodes from the swarm",
  flags: { force: { kind: "boolean", short: "f", help: "Force remove a node from the swarm" } },
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run({ flags, words, io, connect }: Invocation): Promise<number> {
  const client = await connect();
  const code = await forEachWord(words, io, async (reference) => {
    const { id } = await findNode(client, reference);
    await client.removeNode({ nodeId: id, force: flags.on("force") });
    return reference;
  });
  await warnOfManagers(client, io);
  return code;
}
