import { abortReason } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";

/**
 * A bounded first-in-first-out queue between one or more senders and one receiver that iterates it.
 * At the bound `send` throws `resource_exhausted`: the sender decides whether to drop, wait or resynchronise.
 */
export class Mailbox<T> {
  readonly #limit: number;
  readonly #items: T[] = [];
  #wake: (() => void) | undefined;
  #closed = false;
  #failure: SwarmError | undefined;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Adds an item; a closed mailbox ignores it. */
  send(item: T): void {
    if (this.#closed) return;
    if (this.#items.length >= this.#limit) {
      throw new SwarmError("resource_exhausted", `mailbox is full (${this.#limit})`);
    }
    this.#items.push(item);
    this.#wake?.();
  }

  /** Ends the iteration once what is queued has been read; with `failure` the iterator throws it then. */
  close(failure?: SwarmError): void {
    this.#closed = true;
    this.#failure ??= failure;
    this.#wake?.();
  }

  /** Reads until `close` or abort (which throws the abort reason). */
  async *receive(signal?: AbortSignal): AsyncGenerator<T, void, undefined> {
    while (true) {
      if (signal?.aborted) throw abortReason(signal);
      while (this.#items.length > 0) yield this.#items.shift() as T;
      if (this.#closed) {
        if (this.#failure) throw this.#failure;
        return;
      }
      await this.#wait(signal);
    }
  }

  async #wait(signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => resolve();
    this.#wake = wake;
    signal?.addEventListener("abort", wake, { once: true });
    try {
      await promise;
    } finally {
      this.#wake = undefined;
      signal?.removeEventListener("abort", wake);
    }
  }
}
