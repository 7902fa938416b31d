import { Backoff, type BackoffOptions } from "./backoff.ts";
import { abortReason, type Clock } from "./clock.ts";
import type { Random } from "./random.ts";
import { Wakeup } from "./wakeup.ts";

const RETRY: BackoffOptions = { delayMsMin: 10, delayMsMax: 10_000 };

/**
 * A queue of keys for one reconciling loop (client-go's `workqueue` in small). A key waits once however often it is
 * added, is never handled twice at once, and is queued again when it was added while being handled. Retry and backoff
 * live here, not in deciders. It is bounded by the number of distinct keys.
 */
export class WorkQueue<Key extends string> {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #dirty = new Set<Key>();
  readonly #processing = new Set<Key>();
  readonly #backoffs = new Map<Key, Backoff>();
  readonly #delayed = new Map<Key, AbortController>();
  readonly #wakeup = new Wakeup();

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  /** Queues `key` for handling. */
  add(key: Key): void {
    this.#dirty.add(key);
    this.#wakeup.wake();
  }

  /** Queues `key` after `delayMs`; a later call for the same key replaces the earlier one. */
  addAfter(key: Key, delayMs: number): void {
    this.#delayed.get(key)?.abort();
    const timer = new AbortController();
    this.#delayed.set(key, timer);
    this.#clock.sleep(delayMs, timer.signal).then(
      () => {
        this.#delayed.delete(key);
        this.add(key);
      },
      () => {},
    );
  }

  /** Drops every pending timer; a loop that ends calls it. */
  stop(): void {
    for (const timer of this.#delayed.values()) timer.abort();
    this.#delayed.clear();
  }

  /** Takes the keys that may be handled now, for a loop that decides over many keys at once; at most `limit`. */
  takeAll(limit: number = Number.POSITIVE_INFINITY): Key[] {
    const keys: Key[] = [];
    for (const key of this.#dirty) {
      if (keys.length >= limit) break;
      if (!this.#processing.has(key)) keys.push(key);
    }
    for (const key of keys) {
      this.#dirty.delete(key);
      this.#processing.add(key);
    }
    return keys;
  }

  /** Says that `key` was handled. On failure it comes back after its own growing backoff. */
  done(key: Key, outcome: "succeeded" | "failed"): void {
    this.#processing.delete(key);
    if (outcome === "succeeded") {
      this.#backoffs.delete(key);
      if (this.#dirty.has(key)) this.#wakeup.wake();
      return;
    }
    const backoff = this.#backoffs.get(key) ?? new Backoff(RETRY, this.#random);
    this.#backoffs.set(key, backoff);
    this.addAfter(key, backoff.nextDelayMs());
  }

  /** Resolves when at least one key may be handled; rejects when `signal` aborts. One waiter at a time. */
  async ready(signal: AbortSignal): Promise<void> {
    while (true) {
      if (signal.aborted) throw abortReason(signal);
      for (const key of this.#dirty) if (!this.#processing.has(key)) return;
      await this.#wakeup.wait(signal);
    }
  }
}
