import { abortReason } from "../common/base/clock.ts";

/**
 * A bounded queue whose sender waits at the bound: for streams where nothing may be dropped and the reader sets the pace.
 * One reader; any number of senders.
 */
export class BackpressureQueue<T> {
  readonly #limit: number;
  readonly #items: T[] = [];
  #closed = false;
  #waiters: (() => void)[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Adds an item, once there is room. */
  async send(item: T, signal: AbortSignal): Promise<void> {
    while (this.#items.length >= this.#limit) await this.#change(signal);
    this.#items.push(item);
    this.#notify();
  }

  /** Ends the reader once it has read what is queued. */
  close(): void {
    this.#closed = true;
    this.#notify();
  }

  /** Yields what is queued, at most `batchMax` items at a time, until `close`. */
  async *batches(batchMax: number, signal: AbortSignal): AsyncGenerator<T[], void, undefined> {
    while (true) {
      while (this.#items.length === 0) {
        if (this.#closed) return;
        await this.#change(signal);
      }
      const batch = this.#items.splice(0, batchMax);
      this.#notify();
      yield batch;
    }
  }

  #notify(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  async #change(signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw abortReason(signal);
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => resolve();
    this.#waiters.push(wake);
    signal.addEventListener("abort", wake, { once: true });
    await promise;
    signal.removeEventListener("abort", wake);
    if (signal.aborted) throw abortReason(signal);
  }
}
