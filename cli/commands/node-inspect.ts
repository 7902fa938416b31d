import type { Command, Invocation } from "../command.ts";
import { INSPECT_FLAGS } from "../flags/list-flags.ts";
import { inspectEach } from "../inspect.ts";
import { readAuthorities } from "../output/cluster-authorities.ts";
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
  const authorities = readAuthorities(await client.getCa({}));
  return await inspectEach(words, io, {
    find: async (reference) => (await client.listNodes({ references: [reference] })).nodes,
    show: (nodes) =>
      pretty
        ? nodes.map((node) => nodePretty(node, authorities)).join("\n")
        : renderObjects(
            nodes.map((node) => nodeJson(node, authorities)),
            flags.text("format"),
          ),
  });
}
