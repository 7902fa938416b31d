import type { Command } from "../command.ts";
import { INSPECT_FLAGS } from "../flags/list-flags.ts";
import { inspectEach } from "../inspect.ts";
import { renderObjects } from "../output/format.ts";
import { networkJson } from "../output/network-json.ts";

export const command: Command = {
  usage: "network inspect [OPTIONS] NETWORK [NETWORK...]",
  summary: "Display a network's subnets, and with -v the services, tasks and nodes on it",
  flags: {
    format: INSPECT_FLAGS.format,
    verbose: { kind: "boolean", short: "v", help: "Also who is attached, with addresses and nodes" },
  },
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  async run({ flags, words, io, connect }) {
    const verbose = flags.on("verbose");
    const client = await connect();
    return await inspectEach(words, io, {
      find: async (reference) => (await client.listNetworks({ references: [reference], verbose })).networks,
      show: (networks) =>
        renderObjects(
          networks.map((network) => networkJson(network, verbose)),
          flags.text("format"),
        ),
    });
  },
};
