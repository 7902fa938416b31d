/**
 * When a certificate is renewed. Pure: what is known goes in, what to wait for comes out.
 *
 *   issued          50 %        drawn         80 %              100 %
 *   ├────────────────┼───────────┼─────────────┼─────────────────┤
 *         wait             wait     renew, retry with backoff       expired: only a token lets it in again
 */
import type { Random } from "../base/random.ts";
import { BACKDATE_MS, type Validity } from "./validity.ts";

export interface RenewalState {
  readonly validity: Validity;
  /** The point in its life at which it is renewed, from `drawRenewal`: drawn once for each certificate. */
  readonly renewAtMs: number;
  readonly nowMs: number;
  /** How often in a row renewing has failed. */
  readonly failures: number;
  /** Whether another authority is to have signed it: the root rotates, and this node was asked to. */
  readonly isRotated: boolean;
}

export type RenewalPlan =
  /** Look again after the delay: a day at most, since clocks are set, and timers have an end. */
  | { readonly type: "wait"; readonly delayMs: number }
  /** Renew after the delay, which spreads those who come at once. */
  | { readonly type: "renew"; readonly delayMs: number; readonly reason: "due" | "rotated" | "retry" }
  /** No manager takes it any more. It may be this machine's clock: look again after the delay. */
  | { readonly type: "expired"; readonly delayMs: number };

/** SwarmKit's: early enough to miss a few tries, and apart enough that nodes which joined together do not renew together. */
const SHARE_MIN = 0.5;
const SHARE_MAX = 0.8;
const DAY_MS = 86_400_000;
const RETRY_MS_MIN = 1000;
/** SwarmKit's. Longer, and a short-lived certificate could miss its last chance. */
const RETRY_MS_MAX = 300_000;
/** 5,000 nodes that wake up overdue (their managers were away) make 83 renewals a second. */
const OVERDUE_SPREAD_MS = 60_000;
/** No delay takes more than this share of the life that is left. */
const LEFT_SHARE_MAX = 0.1;

/** A random point between 50 and 80 % of the certificate's life, not counting what it is backdated by. */
export function drawRenewal({ notBeforeMs, notAfterMs }: Validity, random: Random): number {
  const issuedMs = Math.min(notBeforeMs + BACKDATE_MS, notAfterMs);
  const share = SHARE_MIN + (SHARE_MAX - SHARE_MIN) * random.next();
  return issuedMs + (notAfterMs - issuedMs) * share;
}

export function planRenewal(state: RenewalState, random: Random): RenewalPlan {
  const { validity, renewAtMs, nowMs, failures, isRotated } = state;
  const leftMs = validity.notAfterMs - nowMs;
  if (leftMs <= 0) return { type: "expired", delayMs: between(RETRY_MS_MAX, random) };
  if (!isRotated && nowMs < renewAtMs) return { type: "wait", delayMs: Math.min(renewAtMs - nowMs, DAY_MS) };
  if (failures > 0) {
    const wholeMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(failures - 1, 30), leftMs * LEFT_SHARE_MAX);
    return { type: "renew", delayMs: between(Math.max(wholeMs, RETRY_MS_MIN), random), reason: "retry" };
  }
  // Who was asked to was asked in turn.
  if (isRotated) return { type: "renew", delayMs: 0, reason: "rotated" };
  // A timer that woke up on time has nothing to spread.
  const spreadMs = Math.min(OVERDUE_SPREAD_MS, nowMs - renewAtMs, leftMs * LEFT_SHARE_MAX);
  return { type: "renew", delayMs: spreadMs * random.next(), reason: "due" };
}

/** Between half of it and the whole. */
function between(wholeMs: number, random: Random): number {
  return wholeMs / 2 + (wholeMs / 2) * random.next();
}
