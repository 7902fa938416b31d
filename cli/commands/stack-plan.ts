import { toJson } from "@bufbuild/protobuf";
import { type StackPlan, StackPlanSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import { present } from "../calls.ts";
import type { Command, Invocation } from "../command.ts";
import type { FlagTable } from "../flags/parse.ts";
import { planChanges, renderPlan } from "../output/stack-plan.ts";
import { writePlanFile } from "../stack/plan-file.ts";
import { loadRequest, STACK_FILE_FLAGS } from "../stack/request.ts";
import { UsageError } from "../usage-error.ts";

/** The exit code of a plan that would change something: CI asks for review then. */
export const CHANGES = 4;

/** Flags of a plan, also as `stack deploy --dry-run`. */
export const PLAN_FLAGS = {
  format: {
    kind: "text",
    value: "string",
    help: "Format the plan: text or json",
    default: "text",
    choices: ["text", "json"],
  },
  out: { kind: "text", value: "file", help: "Write the plan to a file, for stack deploy --plan" },
} as const satisfies FlagTable;

export const command: Command = {
  usage: "stack plan [OPTIONS] [STACK]",
  summary: "Show what stack deploy would change; exit code 0 nothing, 4 something",
  flags: { ...STACK_FILE_FLAGS, ...PLAN_FLAGS },
  words: { min: 0, max: 1 },
  run: showPlan,
};

/** Shows the plan and answers 0 or 4. */
export async function showPlan(invocation: Invocation): Promise<number> {
  const { flags, io, connect } = invocation;
  const format = flags.text("format") ?? "text";
  if (format !== "text" && format !== "json") {
    throw new UsageError(`invalid argument ${JSON.stringify(format)} for --format: text or json`);
  }
  const { request, warnings } = await loadRequest(invocation);
  const answer = await (await connect()).planStack({ stack: request });
  const plan: StackPlan = present(answer.plan, "plan");
  io.err(warnings.join(""));
  const out = flags.text("out");
  if (out !== undefined) writePlanFile(out, { request, plan });
  if (format === "json") io.out(`${JSON.stringify(toJson(StackPlanSchema, plan), undefined, 2)}\n`);
  else io.out(renderPlan(plan, { colours: io.terminal && !io.environment.NO_COLOR, prune: request.prune }));
  return planChanges(plan) ? CHANGES : 0;
}
