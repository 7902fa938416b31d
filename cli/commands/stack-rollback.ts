import { parseInteger } from "../../common/model/units.ts";
import type { Command } from "../command.ts";
import { flagValue } from "../flags/values.ts";
import { rollBack, STACK_WAIT_FLAGS } from "./stack-deploy.ts";

export const command: Command = {
  usage: "stack rollback [OPTIONS] STACK",
  summary: "Take a whole stack back to an earlier revision",
  flags: {
    ...STACK_WAIT_FLAGS,
    to: { kind: "text", value: "revision", help: "The revision to go back to", default: "the one before" },
  },
  words: { min: 1, max: 1 },
  run: async (invocation) => {
    const { flags, words } = invocation;
    const to = flagValue(flags, "to", (text) => parseInteger(text, { min: 1, max: Number.MAX_SAFE_INTEGER }));
    return await rollBack(invocation, words[0] ?? "", BigInt(to ?? 0));
  },
};
