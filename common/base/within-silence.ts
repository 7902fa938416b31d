import { type Clock, withTimeout } from "./clock.ts";

/** How long a sender may be silent before it is given up, and what is being waited for, for the error. */
export interface SilenceOptions {
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly operation: string;
}

/** Reads `source` to its end; throws `deadline_exceeded` when nothing comes for `timeoutMs`, or the abort reason. */
export async function* withinSilence<T>(
  source: AsyncIterable<T>,
  options: SilenceOptions,
  signal: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    while (true) {
      const next = await withTimeout(options, signal, () => iterator.next());
      if (next.done) return;
      yield next.value;
    }
  } finally {
    // A source in the middle of a silence would answer only after it: tell it, do not wait for it.
    iterator.return?.()?.catch(() => {});
  }
}
