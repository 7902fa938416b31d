import type { Command } from "../command.ts";

export const command: Command = {
  usage: "swarm ca [OPTIONS]",
  summary: "Display and rotate the root CA",
  flags: {},
  words: { min: 0, max: 0 },
  async run({ io, connect }) {
    const { root } = await (await connect()).getCa({});
    io.out(`${root.trim()}\n`);
    return 0;
  },
};
