import { setImmediate as nextTurn } from "node:timers/promises";
import { abortReason, type Clock } from "../common/base/clock.ts";

interface Sleeper {
  readonly atMs: number;
  readonly wake: () => void;
}

/** A clock that stands still until a test moves it. */
export class ManualClock implements Clock {
  #nowMs: number;
  readonly #sleepers = new Set<Sleeper>();

  constructor(startMs = 1_700_000_000_000) {
    this.#nowMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.reject(abortReason(signal));
    if (delayMs <= 0) return nextTurn();
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#sleepers.delete(sleeper);
        reject(abortReason(signal));
      };
      const wake = () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      };
      const sleeper = { atMs: this.#nowMs + delayMs, wake };
      this.#sleepers.add(sleeper);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Lets `delayMs` pass, waking sleepers in their order and letting what they start run in between. */
  async advance(delayMs: number): Promise<void> {
    const untilMs = this.#nowMs + delayMs;
    await settle();
    while (true) {
      const next = [...this.#sleepers].reduce<Sleeper | undefined>(
        (first, one) => (!first || one.atMs < first.atMs ? one : first),
        undefined,
      );
      if (!next || next.atMs > untilMs) break;
      this.#sleepers.delete(next);
      this.#nowMs = next.atMs;
      next.wake();
      await settle();
    }
    this.#nowMs = untilMs;
  }

  /** Jumps without waking anyone: what a process sees after it was stopped. */
  jump(delayMs: number): void {
    this.#nowMs += delayMs;
  }
}

/** Lets everything that can run without time passing run. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await nextTurn();
}
