/**
 * A plan on disk: `stack plan --out` writes what was looked at, `stack deploy --plan` applies exactly that or nothing. Secrets'
 * content and registries' tokens are left out: a plan travels through CI as an artifact, and is read by people.
 */
import { writeFileSync } from "node:fs";
import { clone, fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { systemMessage } from "../../common/base/error.ts";
import {
  type StackPlan,
  StackPlanSchema,
  type StackRequest,
  StackRequestSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import { UsageError } from "../usage-error.ts";

const FORMAT = "swarmctl-stack-plan/1";

/** What was planned. */
export interface PlanFile {
  readonly request: StackRequest;
  readonly plan: StackPlan;
}

/** Writes a plan, for its owner only: variables of services may be secret, too. */
export function writePlanFile(path: string, { request, plan }: PlanFile): void {
  const lean = clone(StackRequestSchema, request);
  for (const secret of lean.spec?.secrets ?? []) secret.data = new Uint8Array();
  for (const { task } of lean.spec?.services ?? []) if (task?.container) delete task.container.pullOptions;
  const document = {
    format: FORMAT,
    request: toJson(StackRequestSchema, lean),
    plan: toJson(StackPlanSchema, plan),
  };
  try {
    writeFileSync(path, `${JSON.stringify(document, undefined, 2)}\n`, { mode: 0o600 });
  } catch (reason) {
    throw new UsageError(`--out ${path}: ${systemMessage(reason)}`);
  }
}

/** Reads a plan; what is none is a usage error that says so. */
export function readPlanFile(path: string, text: string): PlanFile {
  try {
    const document = JSON.parse(text) as Readonly<Record<string, JsonValue>>;
    if (document.format !== FORMAT) throw new Error(`format is not ${FORMAT}`);
    return {
      request: fromJson(StackRequestSchema, document.request ?? null),
      plan: fromJson(StackPlanSchema, document.plan ?? null),
    };
  } catch (reason) {
    throw new UsageError(
      `--plan ${path}: not a plan of swarmctl: ${reason instanceof Error ? reason.message : reason}`,
    );
  }
}
