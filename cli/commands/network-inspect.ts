import type { Command } from "../command.ts";
import { INSPECT_FLAGS } from "../flags/list-flags.ts";
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
    const { networks } = await (await connect()).listNetworks({ references: [...words], verbose });
    io.out(
      renderObjects(
        networks.map((network) => networkJson(network, verbose)),
        flags.text("format"),
      ),
    );
    return 0;
  },
};
