/**
 * Virtual time: sleepers wait in a heap, and `run` goes from one wake-up to the next without waiting. After each, the
 * promises that follow settle before time moves on, so that a run depends on its seed alone.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { abortReason, type Clock } from "../../common/base/clock.ts";
import { Heap } from "../../manager/scheduler/heap.ts";

interface Sleeper {
  readonly wakeMs: number;
  readonly order: number;
  wake: (() => void) | undefined;
}

/** 2026-01-01T00:00:00Z: where simulated wall time begins. */
const EPOCH_MS = 1_767_225_600_000;

export class SimClock implements Clock {
  readonly #sleepers = new Heap<Sleeper>(
    (left, right) => left.wakeMs < right.wakeMs || (left.wakeMs === right.wakeMs && left.order < right.order),
  );
  #elapsedMs = 0;
  #order = 0;
  /** Wake-ups so far: what a run cost. */
  steps = 0;

  nowMs(): number {
    return EPOCH_MS + Math.floor(this.#elapsedMs);
  }

  monotonicMs(): number {
    return this.#elapsedMs;
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.reject(abortReason(signal));
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        sleeper.wake = undefined;
        reject(abortReason(signal));
      };
      const wake = () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      };
      const sleeper: Sleeper = { wakeMs: this.#elapsedMs + Math.max(0, delayMs), order: this.#order++, wake };
      this.#sleepers.push(sleeper);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Lets `durationMs` of virtual time pass, or less when `until` says so. */
  async run(durationMs: number, until?: () => boolean): Promise<void> {
    const endMs = this.#elapsedMs + durationMs;
    await nextTurn();
    while (!until?.()) {
      const next = this.#sleepers.peek();
      if (!next || next.wakeMs > endMs) {
        this.#elapsedMs = endMs;
        return;
      }
      this.#sleepers.pop();
      if (!next.wake) continue;
      this.#elapsedMs = Math.max(this.#elapsedMs, next.wakeMs);
      this.steps += 1;
      next.wake();
      await nextTurn();
    }
  }
}
