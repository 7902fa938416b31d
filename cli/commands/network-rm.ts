import { SwarmError } from "../../common/base/error.ts";
import { findNetwork, forEachWord } from "../calls.ts";
import type { Command } from "../command.ts";

export const command: Command = {
  usage: "network rm [OPTIONS] NETWORK [NETWORK...]",
  summary: "Remove one or more networks",
  flags: { force: { kind: "boolean", short: "f", help: "A network that does not exist is fine" } },
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  async run({ flags, words, io, connect }) {
    const client = await connect();
    const force = flags.on("force");
    return await forEachWord(words, io, async (word) => {
      try {
        await client.removeNetwork({ networkId: (await findNetwork(client, word)).id });
      } catch (reason) {
        if (!(force && reason instanceof SwarmError && reason.code === "not_found")) throw reason;
        return undefined;
      }
      return word;
    });
  },
};
