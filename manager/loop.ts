/**
 * What every loop of the leader does: changes of the store put keys in a queue; for each batch of keys it decides, purely,
 * over the view, and commits what was decided behind the leader's fence. Errors of the world put the keys back with a
 * growing delay; a lost leadership ends the loop.
 *
 *   store ── changes ──▶ observe ──▶ queue ──▶ decide(view, keys) ──▶ commit(fence) ──▶ store
 */
import type { Clock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Random } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { WorkQueue } from "../common/base/work-queue.ts";
import type { Change } from "./store/changes.ts";
import type { Fence, Proposal, ProposalGroup } from "./store/proposal.ts";
import type { Store } from "./store/store.ts";
import type { View } from "./store/view.ts";

/** What a loop wants done. */
export interface LoopDecision {
  readonly groups: readonly ProposalGroup[];
  /** Keys to look at again though nothing changes. */
  readonly wakeups: readonly { readonly key: string; readonly delayMs: number }[];
}

/** One loop of the leader. Its index of the store, if it has one, is its own and is kept by `observe`. */
export interface Loop {
  readonly name: string;
  /** Builds the index and names every key: the loop starts level-triggered. */
  begin(view: View): Iterable<string>;
  /** Keeps the index; names the keys that the change concerns. */
  observe(change: Change, view: View): Iterable<string>;
  decide(view: View, keys: readonly string[]): LoopDecision;
  /** A proposal met a newer object and was not made: the index takes back what `decide` assumed. */
  refused?(proposal: Proposal, view: View): void;
  /** The least time between two passes in ms: for loops whose work keeps. Default 0. */
  readonly pauseMs?: number;
}

/** What loops run on. */
export interface LoopContext {
  readonly store: Store;
  readonly fence: Fence;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** How many keys one pass takes: more would hold the event loop longer, fewer make more transactions. */
const KEYS_PER_PASS = 1_000;

/** Runs `loop` until `signal` aborts; throws when the leadership is lost. */
export async function runLoop(loop: Loop, context: LoopContext, signal: AbortSignal): Promise<void> {
  const { view } = context.store;
  const queue = new WorkQueue<string>(context.clock, context.random);
  await using scope = new Scope(signal);
  const changes = view.changes(scope.signal);
  for (const key of loop.begin(view)) queue.add(key);
  scope.spawn(`${loop.name}: read changes`, async () => {
    for await (const batch of changes) {
      for (const change of batch) for (const key of loop.observe(change, view)) queue.add(key);
    }
  });
  scope.spawn(loop.name, async (inner) => {
    try {
      while (true) {
        await queue.ready(inner);
        await pass(loop, context, queue, inner);
        // Even without a pause the event loop gets its turn between two passes.
        await context.clock.sleep(loop.pauseMs ?? 0, inner);
      }
    } finally {
      queue.stop();
    }
  });
  await scope.join();
}

async function pass(loop: Loop, context: LoopContext, queue: WorkQueue<string>, signal: AbortSignal): Promise<void> {
  const { store, fence, logger } = context;
  const keys = queue.takeAll(KEYS_PER_PASS);
  const { groups, wakeups } = loop.decide(store.view, keys);
  let outcome: "succeeded" | "failed" = "succeeded";
  try {
    if (groups.length > 0) {
      const { conflicts } = await store.commit(groups, { fence, signal });
      for (const proposal of conflicts) loop.refused?.(proposal, store.view);
      if (conflicts.length > 0) outcome = "failed";
    }
  } catch (reason) {
    const error = SwarmError.from(reason);
    if (signal.aborted || error.code === "aborted") throw error;
    logger.warn({ err: error, loop: loop.name, keys: keys.length }, "commit failed, will retry");
    for (const group of groups) {
      const proposals: readonly Proposal[] = Array.isArray(group) ? group : [group];
      for (const proposal of proposals) loop.refused?.(proposal, store.view);
    }
    outcome = "failed";
  }
  // A retry, which comes sooner, takes a wake-up's place.
  for (const { key, delayMs } of wakeups) queue.addAfter(key, delayMs);
  for (const key of keys) queue.done(key, outcome);
}
