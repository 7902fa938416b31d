/** Forgets versions of secrets and configs that nothing can come back to; what goes is decided by `decideCollected`. */
import { timestampMs } from "../../common/model/duration.ts";
import type { Loop, LoopContext, LoopDecision } from "../loop.ts";
import type { Change } from "../store/changes.ts";
import { versionId } from "../store/kinds.ts";
import { pinKey } from "../store/pins.ts";
import type { Proposal } from "../store/proposal.ts";
import type { View } from "../store/view.ts";
import { decideCollected } from "./decide.ts";

/** How often one object is looked at again while it has versions that are too young to tell. */
const AGAIN_MS = 2 * 60_000;

/** One key for each secret and config that has more than one version. */
export class ContentReaper implements Loop {
  readonly name = "content reaper";
  /** Old versions harm nobody, and each pass reads the pins of all services. */
  readonly pauseMs = 1_000;
  readonly #context: Pick<LoopContext, "clock">;

  constructor(context: Pick<LoopContext, "clock">) {
    this.#context = context;
  }

  *begin(view: View): Iterable<string> {
    for (const objects of [view.secrets, view.configs]) yield* objects.keys();
    for (const stack of view.stacks.keys()) yield* pinnedByStack(view, stack);
  }

  *observe(change: Change, view: View): Iterable<string> {
    if (change.kind === "content" && change.after) yield change.after.objectId;
    // What went may have been the last that pinned a version.
    else if (change.kind === "spec" && !change.after)
      for (const { objectId } of change.before?.pins ?? []) yield objectId;
    else if (change.kind === "stackrevision" && !change.after) {
      for (const { objectId } of change.before?.pins ?? []) yield objectId;
    } else if (
      (change.kind === "secret" || change.kind === "config") &&
      view.versionsOf("content", change.id).length > 1
    ) {
      yield change.id;
    }
  }

  decide(view: View, keys: readonly string[]): LoopDecision {
    const pinned = pinnedVersions(view);
    const nowMs = this.#context.clock.nowMs();
    const groups: Proposal[] = [];
    const wakeups: { key: string; delayMs: number }[] = [];
    for (const objectId of keys) {
      const object = view.secrets.get(objectId) ?? view.configs.get(objectId);
      const versions = view.versionsOf("content", objectId).map(({ version, createdAt }) => ({
        version,
        pinned: pinned.has(pinKey({ objectId, version })),
        ageMs: nowMs - (timestampMs(createdAt) ?? 0),
      }));
      const { collected, young } = decideCollected(versions, object?.contentVersion);
      for (const version of collected)
        groups.push({ type: "delete", kind: "content", id: versionId(objectId, version) });
      if (young) wakeups.push({ key: objectId, delayMs: AGAIN_MS });
    }
    return { groups, wakeups };
  }
}

function* pinnedByStack(view: View, stackId: string): Iterable<string> {
  for (const { pins } of view.versionsOf("stackrevision", stackId)) for (const { objectId } of pins) yield objectId;
}

/** Every version that a spec version or a revision of a stack names. */
function pinnedVersions(view: View): ReadonlySet<string> {
  const pinned = new Set<string>();
  for (const serviceId of view.services.keys()) {
    for (const { pins } of view.specVersions(serviceId)) for (const pin of pins) pinned.add(pinKey(pin));
  }
  for (const stackId of view.stacks.keys()) {
    for (const { pins } of view.versionsOf("stackrevision", stackId)) for (const pin of pins) pinned.add(pinKey(pin));
  }
  return pinned;
}
