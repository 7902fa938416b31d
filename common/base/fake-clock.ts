import { setImmediate as nextTurn } from "node:timers/promises";
import { abortReason, type Clock } from "./clock.ts";

interface Sleeper {
  readonly wakeMs: number;
  readonly order: number;
  readonly wake: () => void;
}

/** How many turns of the event loop `advance` lets pass between two wake-ups, so that chains of promises settle. */
const SETTLE_TURNS = 5;

/** A clock that stands still until it is stepped: unit tests use it instead of sleeping. */
export class FakeClock implements Clock {
  readonly #sleepers = new Set<Sleeper>();
  readonly #epochMs: number;
  #elapsedMs = 0;
  #order = 0;

  /** `epochMs` is the wall time at the start; default 2026-01-01T00:00:00Z. */
  constructor(epochMs: number = 1_767_225_600_000) {
    this.#epochMs = epochMs;
  }

  nowMs(): number {
    return this.#epochMs + this.#elapsedMs;
  }

  monotonicMs(): number {
    return this.#elapsedMs;
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
      const sleeper: Sleeper = { wakeMs: this.#elapsedMs + delayMs, order: this.#order++, wake };
      this.#sleepers.add(sleeper);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** How many callers are asleep. */
  get sleeping(): number {
    return this.#sleepers.size;
  }

  /** Lets `durationMs` pass: wakes the sleepers whose time has come, in order, and lets what follows settle. */
  async advance(durationMs: number): Promise<void> {
    const untilMs = this.#elapsedMs + durationMs;
    await settle();
    while (true) {
      const next = this.#next(untilMs);
      if (!next) break;
      this.#sleepers.delete(next);
      // After a jump a sleeper may be late; time never goes back.
      this.#elapsedMs = Math.max(this.#elapsedMs, next.wakeMs);
      next.wake();
      await settle();
    }
    this.#elapsedMs = untilMs;
  }

  /** Jumps without waking anyone: what a process sees after it was stopped. */
  jump(durationMs: number): void {
    this.#elapsedMs += durationMs;
  }

  #next(untilMs: number): Sleeper | undefined {
    let best: Sleeper | undefined;
    for (const sleeper of this.#sleepers) {
      if (sleeper.wakeMs > untilMs) continue;
      if (!best || sleeper.wakeMs < best.wakeMs || (sleeper.wakeMs === best.wakeMs && sleeper.order < best.order)) {
        best = sleeper;
      }
    }
    return best;
  }
}

/** Lets everything run that can run without time passing. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < SETTLE_TURNS; turn++) await nextTurn();
}
