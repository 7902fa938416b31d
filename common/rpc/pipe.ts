import { abortable } from "../base/clock.ts";
import type { SwarmError } from "../base/error.ts";

/** A bounded queue whose writer waits at the bound: back-pressure between one writer and one reader. */
export class Pipe<T> {
  readonly #limit: number;
  readonly #items: T[] = [];
  #closed = false;
  #failure: SwarmError | undefined;
  #turn = Promise.withResolvers<void>();

  /** `limit`: items that may wait; the writer of one more waits itself. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Queues `item` once there is room; items of a closed pipe are dropped. Rejects when `signal` aborts. */
  async write(item: T, signal: AbortSignal): Promise<void> {
    while (this.#items.length >= this.#limit && !this.#closed) await abortable(this.#turn.promise, signal);
    if (this.#closed) return;
    this.#items.push(item);
    this.#notify();
  }

  /** Ends the reading after what is queued; `failure` is thrown then. The first close counts. */
  close(failure?: SwarmError): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#failure = failure;
    this.#notify();
  }

  /** Reads until close; rejects when `signal` aborts. */
  async *read(signal: AbortSignal): AsyncGenerator<T, void, undefined> {
    try {
      while (true) {
        const item = this.#items.shift();
        if (item !== undefined) {
          this.#notify();
          yield item;
        } else if (this.#closed) {
          if (this.#failure) throw this.#failure;
          return;
        } else await abortable(this.#turn.promise, signal);
      }
    } finally {
      this.close();
    }
  }

  #notify(): void {
    this.#turn.resolve();
    this.#turn = Promise.withResolvers<void>();
  }
}
