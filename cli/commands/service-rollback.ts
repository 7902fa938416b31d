import type { Command } from "../command.ts";
import { WAIT_FLAGS } from "../flags/wait-flags.ts";
import { rollBack } from "./service-update.ts";

export const command: Command = {
  usage: "service rollback [OPTIONS] SERVICE",
  summary: "Revert changes to a service's configuration",
  flags: WAIT_FLAGS,
  words: { min: 1, max: 1 },
  run: async (invocation) => rollBack(invocation, await invocation.connect(), invocation.words[0] ?? ""),
};
