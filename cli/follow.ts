/** Follows services over one stream of changes until they have converged, one has failed, or the time is over. */
import { SwarmError } from "../common/base/error.ts";
import type { Invocation } from "./command.ts";
import { Followed, type Outcome, type WaitTarget } from "./followed.ts";

/** A service and what is to be said of it. */
export interface FollowedOutcome {
  readonly followed: Followed;
  readonly outcome: Outcome;
}

/** How it ended; `outcomes` are the last ones. */
export interface FollowEnd {
  readonly kind: "converged" | "failed" | "timed out" | "interrupted";
  readonly outcomes: readonly FollowedOutcome[];
}

/** What to follow, and how to show it. */
export interface FollowOptions {
  readonly targets: readonly WaitTarget[];
  readonly before: ReadonlySet<string>;
  /** 0 or undefined: no end. */
  readonly timeoutMs: number | undefined;
  draw(outcomes: readonly FollowedOutcome[]): void;
}

/** Follows until all targets have converged, or one has failed for good. */
export async function follow(invocation: Invocation, options: FollowOptions): Promise<FollowEnd> {
  const { clock, signal } = invocation;
  const { targets, before, timeoutMs, draw } = options;
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const client = await invocation.connect();
  const deadlineMs = timeoutMs ? clock.monotonicMs() + timeoutMs : Number.POSITIVE_INFINITY;
  const all = targets.map((target) => new Followed(target, before));
  const messages = client.watchServices({ serviceIds: targets.map(({ serviceId }) => serviceId) }, { signal: either });
  const iterator = messages[Symbol.asyncIterator]();
  let next = iterator.next();
  let outcomes: readonly FollowedOutcome[] = [];
  try {
    while (true) {
      const nowMs = clock.monotonicMs();
      const wakeMs = Math.min(...all.map((followed) => followed.wakeMs(nowMs)), deadlineMs) - nowMs;
      const message = await nextOrTimer(invocation, next, wakeMs);
      if (message !== undefined) {
        if (message.done) throw new SwarmError("unavailable", "the manager ended the watch");
        for (const followed of all) await followed.apply(client, message.value);
        next = iterator.next();
      }
      const judgedMs = clock.monotonicMs();
      outcomes = all.map((followed) => ({ followed, outcome: followed.judge(judgedMs) }));
      if (all.some(({ removed }) => removed)) return { kind: "failed", outcomes };
      draw(outcomes);
      if (outcomes.some(({ outcome }) => outcome.kind === "failed" && outcome.final))
        return { kind: "failed", outcomes };
      if (outcomes.every(({ outcome }) => outcome.kind === "converged")) return { kind: "converged", outcomes };
      if (clock.monotonicMs() >= deadlineMs) return { kind: "timed out", outcomes };
    }
  } catch (reason) {
    if (!signal.aborted) throw reason;
    return { kind: "interrupted", outcomes };
  } finally {
    next.catch(() => {});
    stop.abort(new SwarmError("canceled", "done waiting"));
  }
}

/** The next message, or undefined after `delayMs`. */
async function nextOrTimer<T>(
  { clock, signal }: Invocation,
  next: Promise<T>,
  delayMs: number,
): Promise<T | undefined> {
  if (delayMs === Number.POSITIVE_INFINITY) return await next;
  const timer = new AbortController();
  const ring = clock.sleep(Math.max(1, delayMs), AbortSignal.any([signal, timer.signal])).then(() => undefined);
  ring.catch(() => {});
  try {
    return await Promise.race([next, ring]);
  } finally {
    timer.abort();
  }
}
