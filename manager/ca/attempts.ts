/** Guesses of join tokens: so many from one address and no more. Bounded whatever comes. */
import type { Clock } from "../../common/base/clock.ts";

/** Wrong tokens a second from one address: a person mistypes one, a script tries thousands. */
const ATTEMPTS_PER_SECOND = 5;
/** Addresses that are remembered: with more, the oldest are forgotten, who have waited longest. */
const ADDRESSES_MAX = 10_000;

export class Attempts {
  readonly #clock: Clock;
  readonly #wrong = new Map<string, { count: number; sinceMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether an address may try (again) now. */
  isAllowed(address: string): boolean {
    const known = this.#wrong.get(address);
    return (
      known === undefined || this.#clock.monotonicMs() - known.sinceMs >= 1_000 || known.count < ATTEMPTS_PER_SECOND
    );
  }

  /** An address came with a wrong token. */
  failed(address: string): void {
    const nowMs = this.#clock.monotonicMs();
    const known = this.#wrong.get(address);
    if (known && nowMs - known.sinceMs < 1_000) known.count += 1;
    else {
      this.#wrong.delete(address);
      this.#wrong.set(address, { count: 1, sinceMs: nowMs });
    }
    const [oldest] = this.#wrong.keys();
    if (this.#wrong.size > ADDRESSES_MAX && oldest !== undefined) this.#wrong.delete(oldest);
  }
}
