/** Waits that are counted from stamps in the store, which any manager's wall clock may have made. */

/**
 * How far managers' clocks may differ and a wait still be kept. Lower would cut short honest waits of hosts without time
 * synchronisation; higher lets a wrong clock hold up a slot for as long.
 */
const SKEW_MS_MAX = 10_000;

/**
 * What is left of `waitMs` since the stamp, in ms; 0 when it is over. A stamp from further in the future than clocks may
 * differ is a wrong clock's: nobody waits for it, or one host whose clock was an hour fast would hold up its services
 * for an hour.
 */
export function leftMs(wait: { readonly sinceMs: number; readonly waitMs: number }, nowMs: number): number {
  const left = wait.sinceMs + wait.waitMs - nowMs;
  if (wait.sinceMs - nowMs > SKEW_MS_MAX) return 0;
  return Math.max(0, left);
}
