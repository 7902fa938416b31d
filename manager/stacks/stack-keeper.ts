/**
 * The loop that finishes stacks which a manager left half applied, and forgets old revisions. It meets the manager that was
 * asked in the store only: for a few seconds it leaves a stack to that one, then both may write, and one of them loses.
 */
import { timestampMs } from "../../common/model/duration.ts";
import { type Stack, Stack_State } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Loop, LoopContext, LoopDecision } from "../loop.ts";
import type { Change } from "../store/changes.ts";
import { versionId } from "../store/kinds.ts";
import type { Proposal, ProposalGroup } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { newestRevision, unpackContent } from "./stack-view.ts";
import { remainingSteps } from "./steps.ts";

/** Revisions kept for `stack rollback`: more only fill the store. */
export const REVISIONS_MAX = 10;
/** How long an APPLYING stack is its manager's: five hundred services take a second. */
const GRACE_MS = 5_000;

export class StackKeeper implements Loop {
  readonly name = "stacks";
  readonly #context: Pick<LoopContext, "clock" | "random" | "logger">;

  constructor(context: Pick<LoopContext, "clock" | "random" | "logger">) {
    this.#context = context;
  }

  begin(view: View): Iterable<string> {
    return view.stacks.keys();
  }

  *observe(change: Change): Iterable<string> {
    if (change.kind === "stack") yield change.id;
    else if (change.kind === "stackrevision") yield (change.after ?? change.before)?.stackId ?? "";
  }

  decide(view: View, keys: readonly string[]): LoopDecision {
    const groups: ProposalGroup[] = [];
    const wakeups: { key: string; delayMs: number }[] = [];
    for (const key of keys) {
      groups.push(...oldRevisions(view, key));
      const stack = view.stacks.get(key);
      if (stack?.state !== Stack_State.APPLYING) continue;
      const leftMs = (timestampMs(stack.meta?.updatedAt) ?? 0) + GRACE_MS - this.#context.clock.nowMs();
      // A clock that another manager's is far ahead of must not keep the stack waiting.
      if (leftMs > 0) wakeups.push({ key, delayMs: Math.min(leftMs, GRACE_MS) });
      else {
        groups.push(...this.#goOn(view, stack));
        wakeups.push({ key, delayMs: 0 });
      }
    }
    return { groups, wakeups };
  }

  #goOn(view: View, stack: Stack): ProposalGroup[] {
    const revision = newestRevision(view, stack);
    const context = { nowMs: this.#context.clock.nowMs(), random: this.#context.random };
    const steps = revision ? remainingSteps(view, unpackContent(revision), context) : [];
    if (steps.length > 0) return steps;
    this.#context.logger.info({ stack: stack.name }, "finished a stack that was left half applied");
    return [applied(stack)];
  }
}

/** The stack with all of its revision in force. */
export function applied(stack: Stack): Proposal {
  return { type: "update", kind: "stack", object: { ...stack, state: Stack_State.APPLIED } };
}

/** Revisions beyond the newest few, and all of a stack that is gone. */
function oldRevisions(view: View, stackId: string): ProposalGroup[] {
  const revisions = view.versionsOf("stackrevision", stackId);
  const old = view.stacks.has(stackId) ? revisions.slice(0, -REVISIONS_MAX) : revisions;
  return old.map(({ revision }) => ({ type: "delete", kind: "stackrevision", id: versionId(stackId, revision) }));
}
