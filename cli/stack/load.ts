/** Stack files → what the manager is sent (`stack deploy`, `stack plan`). */
import type { StackSpec } from "../../proto/gen/swarm/v1/control_pb.js";
import { convertStack } from "./convert.ts";
import type { StackProblem } from "./findings.ts";
import { type ReadOptions, readWith } from "./read.ts";
import { child, textOf } from "./tree.ts";

/** A stack that can be deployed, or every reason why not. */
export type LoadedStack =
  | {
      readonly ok: true;
      readonly spec: StackSpec;
      /** Full names of the services whose files do not say how many: a count set by `service scale` may stay. */
      readonly unsetReplicas: ReadonlySet<string>;
      readonly warnings: readonly string[];
    }
  | { readonly ok: false; readonly problems: readonly StackProblem[]; readonly warnings: readonly string[] };

/** Reads the files and makes of them what the manager applies. `name` falls back to the files' own. */
export function loadStack(options: ReadOptions & { readonly name?: string | undefined }): LoadedStack {
  const { findings, file, context } = readWith(options);
  const failed = () => ({ ok: false, problems: findings.problems, warnings: findings.warnings }) as const;
  if (findings.failed || file === undefined) return failed();
  const name = options.name ?? textOf(child(file, "name"));
  const { spec, unsetReplicas } = convertStack(file, name, context);
  return findings.failed ? failed() : { ok: true, spec, unsetReplicas, warnings: findings.warnings };
}
