import { SwarmError } from "../../common/base/error.ts";
import { findService } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import { choiceFlag } from "../flags/values.ts";
import { waitForFlags } from "../flags/wait-flags.ts";
import { SERVICE_CONDITIONS, type ServiceCondition, waitForServices } from "../wait-for.ts";

export const command: Command = {
  usage: "wait service [OPTIONS] SERVICE",
  summary: "Block until a service is as wanted; exit 0 when it is, 1 when it will not be, 3 after --timeout",
  flags: waitForFlags(SERVICE_CONDITIONS, "converged"),
  words: { min: 1, max: 1 },
  run,
};

async function run(invocation: Invocation): Promise<number> {
  const { flags, words, connect } = invocation;
  const condition = serviceCondition(flags);
  try {
    const { service } = await findService(await connect(), words[0] ?? "");
    return await waitForServices(invocation, { serviceIds: [service.id], condition });
  } catch (reason) {
    if (condition === "removed" && reason instanceof SwarmError && reason.code === "not_found") return 0;
    throw reason;
  }
}

/** `--for`. */
export function serviceCondition(flags: Invocation["flags"]): ServiceCondition {
  const choices = Object.fromEntries(SERVICE_CONDITIONS.map((name) => [name, name]));
  return choiceFlag<ServiceCondition>(flags, "for", choices) ?? "converged";
}
