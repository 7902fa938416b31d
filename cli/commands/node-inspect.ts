import type { Command, Invocation } from "../command.ts";
import { INSPECT_FLAGS } from "../flags/list-flags.ts";
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
  const [{ nodes }, authorities] = await Promise.all([
    client.listNodes({ references: [...words] }),
    client.getCa({}).then(readAuthorities),
  ]);
  if (pretty) io.out(nodes.map((node) => nodePretty(node, authorities)).join("\n"));
  else
    io.out(
      renderObjects(
        nodes.map((node) => nodeJson(node, authorities)),
        flags.text("format"),
      ),
    );
  return 0;
}
