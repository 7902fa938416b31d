import { NodeSpec_Role } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Command } from "../command.ts";
import { UsageError } from "../usage-error.ts";

const ROLES = { worker: NodeSpec_Role.WORKER, manager: NodeSpec_Role.MANAGER } as const;

export const command: Command = {
  usage: "swarm join-token [OPTIONS] (worker|manager)",
  summary: "Manage join tokens",
  flags: {
    quiet: { kind: "boolean", short: "q", help: "Only display token" },
    rotate: { kind: "boolean", help: "Rotate join token: the old one is refused from then on" },
  },
  words: { min: 1, max: 1 },
  async run({ flags, words, io, connect }) {
    const [word = ""] = words;
    const role = word === "worker" || word === "manager" ? word : undefined;
    if (role === undefined) throw new UsageError(`unknown role ${word}: worker or manager`);
    const client = await connect();
    const tokens = await client.getJoinTokens(flags.on("rotate") ? { rotate: ROLES[role] } : {});
    if (flags.on("quiet")) {
      io.out(`${tokens[role]}\n`);
      return 0;
    }
    const { managers } = await client.getInfo({});
    const [address = "MANAGER:2377"] = managers.map((manager) => manager.address);
    if (flags.on("rotate")) io.out(`Successfully rotated ${role} join token.\n\n`);
    io.out(`To add a ${role} to this swarm, run the following command:\n\n`);
    io.out(`    swarmctl swarm join --token ${tokens[role]} ${address}\n\n`);
    return 0;
  },
};
