import { type Finding, isFit, printFindings } from "../check/findings.ts";
import { judge, type Role } from "../check/judge.ts";
import { probeHost } from "../check/probe.ts";
import type { Command, Invocation } from "../command.ts";
import { renderObject } from "../output/format.ts";
import { UsageError } from "../usage-error.ts";

const ROLES = ["manager", "worker"] as const satisfies readonly Role[];

export const command: Command = {
  usage: "check [OPTIONS]",
  summary: "Examine this host: whether it can be a node, and how to mend what stands in the way (0 fit, 1 not)",
  flags: {
    role: {
      kind: "text",
      value: "string",
      help: "What the host is to be: 'manager' or 'worker'",
      default: "manager",
      choices: ROLES,
    },
    format: { kind: "text", short: "f", value: "string", help: "Format output: 'json' or a Go template" },
  },
  words: { min: 0, max: 0 },
  run,
};

/** Asks no manager: it is for hosts that have none yet. */
async function run({ flags, io, clock, signal }: Invocation): Promise<number> {
  const given = flags.text("role") ?? "manager";
  const role = ROLES.find((each) => each === given);
  if (role === undefined)
    throw new UsageError(`--role: must be one of ${ROLES.join(", ")}, not ${JSON.stringify(given)}`);
  const findings = judge(await probeHost(clock, signal), role);
  const fit = isFit(findings);
  const format = flags.text("format");
  io.out(format === undefined ? printFindings(findings) : renderObject(objectOf(role, fit, findings), format));
  return fit ? 0 : 1;
}

function objectOf(role: Role, fit: boolean, findings: readonly Finding[]): unknown {
  return {
    Role: role,
    Fit: fit,
    Findings: findings.map(({ name, level, message, mend }) => ({
      Name: name,
      Level: level,
      Message: message,
      Mend: mend ?? "",
    })),
  };
}
