import { abortReason, type Clock } from "./clock.ts";

/** Wakes whoever waits for "something changed". A wake before the wait counts; several wakes are one. */
export class Wakeup {
  #pending = false;
  readonly #waiting = new Set<() => void>();

  /** Wakes all waiters, or the next one to come. */
  wake(): void {
    this.#pending = true;
    for (const resolve of this.#waiting) resolve();
  }

  /** Resolves at the next wake, at once if one came since the last wait. Throws the abort reason. */
  async wait(signal: AbortSignal): Promise<void> {
    while (!this.#pending) {
      if (signal.aborted) throw abortReason(signal);
      const { promise, resolve } = Promise.withResolvers<void>();
      const settle = () => resolve();
      this.#waiting.add(settle);
      signal.addEventListener("abort", settle, { once: true });
      await promise;
      this.#waiting.delete(settle);
      signal.removeEventListener("abort", settle);
    }
    this.#pending = false;
  }
}

/**
 * Waits for a wake, but no longer than `delayMs`; says whether one came. One that comes with the end of the time may be told as
 * none: look at what it is about in either case. Throws the abort reason.
 */
export async function wokenWithin(
  wakeup: Wakeup,
  { clock, delayMs }: { readonly clock: Clock; readonly delayMs: number },
  signal: AbortSignal,
): Promise<boolean> {
  const over = new AbortController();
  const until = AbortSignal.any([signal, over.signal]);
  const woken = wakeup.wait(until).then(() => true);
  const rang = clock.sleep(delayMs, until).then(() => false);
  for (const either of [woken, rang]) either.catch(() => {});
  try {
    return await Promise.race([woken, rang]);
  } finally {
    over.abort();
  }
}
