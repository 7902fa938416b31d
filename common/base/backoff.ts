import type { Random } from "./random.ts";

/** Exponential backoff with full jitter on the upper half. */
export interface BackoffOptions {
  /** First delay in ms. */
  readonly delayMsMin: number;
  /** Cap in ms: raising it makes recovery slower, lowering it makes stampedes likelier. */
  readonly delayMsMax: number;
}

/** Counts failures in a row and says how long to wait before the next try. */
export class Backoff {
  readonly #options: BackoffOptions;
  readonly #random: Random;
  #failures = 0;

  constructor(options: BackoffOptions, random: Random) {
    this.#options = options;
    this.#random = random;
  }

  /** The delay in ms after one more failure: between half and the whole of min(max, min·2^n). */
  nextDelayMs(): number {
    const whole = Math.min(this.#options.delayMsMax, this.#options.delayMsMin * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    return whole / 2 + (whole / 2) * this.#random.next();
  }

  /** Called after a success. */
  reset(): void {
    this.#failures = 0;
  }
}
