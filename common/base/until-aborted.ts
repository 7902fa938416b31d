import { abortable } from "./clock.ts";

/** Reads `source` until it ends, or throws the abort reason as soon as `signal` aborts, also while the source is silent. */
export async function* untilAborted<T>(
  source: AsyncIterable<T>,
  signal: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  const iterator = source[Symbol.asyncIterator]();
  let ended = false;
  try {
    while (true) {
      const next = await abortable(iterator.next(), signal);
      ended = next.done === true;
      if (next.done) return;
      yield next.value;
    }
  } finally {
    // A source in the middle of a silence would answer only after it: tell it, do not wait for it.
    if (!ended) iterator.return?.()?.catch(() => {});
  }
}
