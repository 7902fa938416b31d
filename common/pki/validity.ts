/** How long certificates count. Apart, so that who plans a renewal need not know how to sign. */

const HOUR_MS = 3_600_000;

/** From when to when a certificate counts. */
export interface Validity {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** How far back certificates begin: a clock that is as much behind believes them. SwarmKit's. */
export const BACKDATE_MS = HOUR_MS;
/** Docker's `--cert-expiry`. */
export const LIFETIME_MS_DEFAULT = 90 * 24 * HOUR_MS;
/** Docker's. Shorter, and clocks that differ by as much as the backdating would make some of them never valid. */
export const LIFETIME_MS_MIN = HOUR_MS;
/** SwarmKit's roots live as long; whatever is longer would end with its root. */
export const LIFETIME_MS_MAX = 20 * 365 * 24 * HOUR_MS;

/** What is wrong with a certificate's lifetime; undefined for one that it may have. */
export function lifetimeProblem(lifetimeMs: number): string | undefined {
  if (!(lifetimeMs >= LIFETIME_MS_MIN)) return "must be at least 1h";
  return lifetimeMs > LIFETIME_MS_MAX ? "must be at most 175200h (20 years)" : undefined;
}
