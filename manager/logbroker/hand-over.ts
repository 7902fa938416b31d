import { abortReason } from "../../common/base/clock.ts";

/**
 * Where many senders meet one receiver: a sender waits until its item was taken, so each has at most one item here and
 * the receiver sets the pace of all. First come, first taken. A sender that gives up takes its item with it.
 */
export class HandOver<T> {
  readonly #parked = new Map<symbol, { readonly item: T; readonly taken: () => void }>();
  readonly #onItem: () => void;

  /** `onItem` is called whenever there is something new to take. */
  constructor(onItem: () => void) {
    this.#onItem = onItem;
  }

  get size(): number {
    return this.#parked.size;
  }

  /** Resolves once the receiver has taken `item`. Throws the abort reason. */
  async send(item: T, signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw abortReason(signal);
    const { promise, resolve } = Promise.withResolvers<void>();
    const ticket = Symbol("ticket");
    this.#parked.set(ticket, { item, taken: resolve });
    signal.addEventListener("abort", resolve as () => void, { once: true });
    this.#onItem();
    await promise;
    signal.removeEventListener("abort", resolve as () => void);
    if (this.#parked.delete(ticket)) throw abortReason(signal);
  }

  /** The item that has waited longest; undefined: there is none. */
  take(): T | undefined {
    for (const [ticket, { item, taken }] of this.#parked) {
      this.#parked.delete(ticket);
      taken();
      return item;
    }
    return undefined;
  }
}
