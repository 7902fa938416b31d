import type { Command } from "../command.ts";
import { unlockInstructions } from "../unlock-words.ts";

export const command: Command = {
  usage: "swarm unlock-key [OPTIONS]",
  summary: "Manage the unlock key",
  flags: {
    quiet: { kind: "boolean", short: "q", help: "Only display token" },
    rotate: { kind: "boolean", help: "Rotate unlock key" },
  },
  words: { min: 0, max: 0 },
  async run({ flags, io, connect }) {
    const { unlockKey } = await (await connect()).getUnlockKey({ rotate: flags.on("rotate") });
    if (flags.on("quiet")) {
      io.out(`${unlockKey}\n`);
      return 0;
    }
    if (flags.on("rotate")) io.out("Successfully rotated manager unlock key.\n\n");
    io.out(unlockInstructions(unlockKey));
    return 0;
  },
};
