import type { Command, Invocation } from "../command.ts";
import { INSPECT_FLAGS } from "../flags/list-flags.ts";
import { renderObjects } from "../output/format.ts";
import { nodeJson, nodePretty } from "../output/node-json.ts";
import { UsageError } from "../usage-error.ts";

export const command: Command = {
  usage: "node inspect [OPTIONS] NODE [NODE...]",
  summary: "Display detailed information on one or more nodes",
  flags: INSPECT_FLAGS,
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  run,
};

async function run({ flags, words, io, connect }: Invocation): Promise<number> {
  const pretty = flags.on("pretty");
  if (pretty && flags.has("format")) throw new UsageError("--format is incompatible with human friendly format");
  const client = await connect();
  const { nodes } = await client.listNodes({ references: [...words] });
  if (pretty) io.out(nodes.map(nodePretty).join("\n"));
  else io.out(renderObjects(nodes.map(nodeJson), flags.text("format")));
  return 0;
}
