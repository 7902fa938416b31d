import { SwarmError } from "../../common/base/error.ts";
import type { Command, Invocation } from "../command.ts";
import { waitForFlags } from "../flags/wait-flags.ts";
import { SERVICE_CONDITIONS, waitForServices } from "../wait-for.ts";
import { serviceCondition } from "./wait-service.ts";

export const command: Command = {
  usage: "wait stack [OPTIONS] STACK",
  summary: "Block until every service of a stack is as wanted; exit codes as of wait service",
  flags: waitForFlags(SERVICE_CONDITIONS, "converged"),
  words: { min: 1, max: 1 },
  run,
};

/** Docker's label on what belongs to a stack. */
const NAMESPACE = "com.docker.stack.namespace";

async function run(invocation: Invocation): Promise<number> {
  const [stack = ""] = invocation.words;
  const condition = serviceCondition(invocation.flags);
  const { services } = await (await invocation.connect()).listServices({});
  const own = services.filter(({ spec }) => spec?.labels[NAMESPACE] === stack);
  if (own.length === 0 && condition !== "removed")
    throw new SwarmError("not_found", `nothing found in stack: ${stack}`);
  const serviceIds = own.map(({ service }) => service?.id ?? "");
  return await waitForServices(invocation, { serviceIds, condition });
}
