import { setImmediate as nextTurn } from "node:timers/promises";
import { SwarmError } from "./error.ts";

/**
 * The only door to time. Everything that waits or stamps is handed a Clock, so that a simulation can run a cluster's
 * day in a second and replay it from a seed.
 */
export interface Clock {
  /** Wall time in ms since the epoch: for stamps that people read. It may jump. */
  nowMs(): number;
  /** Time in ms from an arbitrary start that never jumps: for deadlines, leases and durations. */
  monotonicMs(): number;
  /** Resolves after `delayMs` (0 = next turn of the event loop). Rejects with `canceled` as soon as `signal` aborts. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

/** Real time. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep(delayMs, signal) {
    if (signal?.aborted) return Promise.reject(abortReason(signal));
    if (delayMs <= 0) return nextTurn();
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        clearTimeout(timer);
        reject(abortReason(signal));
      };
      // Timers above 2^31-1 ms fire at once; nothing here waits longer than that on purpose.
      const timer = setTimeout(
        () => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        },
        Math.min(delayMs, 2 ** 31 - 1),
      );
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  },
};

/** The reason of an aborted signal as a SwarmError (`canceled` unless the aborter said otherwise). */
export function abortReason(signal: AbortSignal | undefined): SwarmError {
  return SwarmError.from(signal?.reason ?? new SwarmError("canceled", "canceled"), "canceled");
}

/** Rejects when `signal` aborts, else settles as `promise` does; leaves no listener behind. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    // Nobody will look at it any more: its failure must not count as unhandled.
    promise.catch(() => {});
    return Promise.reject(abortReason(signal));
  }
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(abortReason(signal));
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** Why a timer that nobody waits for any more is called off: one for all, since an error is dear to make (its stack). */
const WAIT_OVER = new SwarmError("canceled", "nobody waits for it any more");

/**
 * Runs `work` with a signal that aborts when `signal` does or after `timeoutMs`; a time-out is a `deadline_exceeded`
 * that names `operation`.
 */
export async function withTimeout<T>(
  options: { readonly clock: Clock; readonly timeoutMs: number; readonly operation: string },
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const timer = new AbortController();
  const deadline = new AbortController();
  options.clock.sleep(options.timeoutMs, timer.signal).then(
    () =>
      deadline.abort(new SwarmError("deadline_exceeded", `${options.operation}: no answer in ${options.timeoutMs} ms`)),
    () => {},
  );
  try {
    const either = AbortSignal.any([signal, deadline.signal]);
    return await abortable(work(either), either);
  } finally {
    timer.abort(WAIT_OVER);
  }
}
