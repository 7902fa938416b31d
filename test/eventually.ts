import { setTimeout as pause } from "node:timers/promises";

/** How long `eventually` tries, and how often. */
export interface EventuallyOptions {
  /** Default 10,000 ms: generous, since only a failing test waits that long. */
  readonly timeoutMs?: number;
  /** Default 20 ms. */
  readonly intervalMs?: number;
}

/**
 * Repeats `check` until it passes and returns its value; after the time-out it fails with the last failure in its
 * message. It replaces every sleep in tests.
 */
export async function eventually<T>(check: () => T | Promise<T>, options: EventuallyOptions = {}): Promise<T> {
  const timeoutMs = options.timeoutMs ?? 10_000;
  const deadlineMs = performance.now() + timeoutMs;
  while (true) {
    try {
      return await check();
    } catch (reason) {
      if (performance.now() >= deadlineMs) {
        const last = reason instanceof Error ? reason.message : String(reason);
        throw new Error(`not within ${timeoutMs} ms; last failure: ${last}`, { cause: reason });
      }
      await pause(options.intervalMs ?? 20);
    }
  }
}
