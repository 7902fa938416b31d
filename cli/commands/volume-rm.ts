import { SwarmError } from "../../common/base/error.ts";
import { forEachWord } from "../calls.ts";
import type { Command } from "../command.ts";

export const command: Command = {
  usage: "volume rm [OPTIONS] VOLUME [VOLUME...]",
  summary: "Remove one or more volumes, with their data on every node",
  flags: {
    force: {
      kind: "boolean",
      short: "f",
      help: "Remove what a node that is down has once it is back; a volume that does not exist is fine",
    },
  },
  words: { min: 1, max: Number.POSITIVE_INFINITY },
  async run({ flags, words, io, connect }) {
    const client = await connect();
    const force = flags.on("force");
    return await forEachWord(words, io, async (name) => {
      try {
        await client.removeVolume({ name, force });
      } catch (reason) {
        if (!(force && reason instanceof SwarmError && reason.code === "not_found")) throw reason;
      }
      return name;
    });
  },
};
