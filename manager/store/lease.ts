import { abortReason, type Clock, withTimeout } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import { Scope } from "../../common/base/scope.ts";
import type { Kv, LeaseId } from "./kv.ts";

export interface LeaseOptions {
  readonly kv: Kv;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How long the store keeps the lease without hearing of us; etcd grants whole seconds, at least 2. */
  readonly ttlMs: number;
}

/** Renewals per TTL: one may fail or be late by half a TTL and the lease still lives. */
const RENEWALS_PER_TTL = 4;
/** After a renewal that failed. */
const RETRY_MS = 100;
/** The share of the TTL that we give up for what clocks and queues may do, and its cap. */
const MARGIN_SHARE = 1 / 4;
const MARGIN_MS_MAX = 1_000;
/** Revoking is a kindness to the next one: worth this much waiting at shutdown. */
const REVOKE_TIMEOUT_MS = 1_000;

/**
 * A lease kept alive until it is disposed. It counts as ours until the monotonic time at which the last successful
 * renewal was *sent* plus the TTL less a margin: the store, which started counting later, has it at least that long.
 * It is never granted again: whoever loses it starts anew with another.
 */
export class Lease implements AsyncDisposable {
  readonly id: LeaseId;
  readonly ttlMs: number;
  /** Aborts with `aborted` when the lease is lost, or its deadline has passed without a renewal. */
  readonly signal: AbortSignal;
  readonly #options: LeaseOptions;
  readonly #lost = new AbortController();
  readonly #scope = new Scope();
  #deadlineMs: number;

  private constructor(options: LeaseOptions, id: LeaseId, ttlMs: number, sentMs: number) {
    this.#options = options;
    this.id = id;
    this.ttlMs = ttlMs;
    this.signal = this.#lost.signal;
    this.#deadlineMs = sentMs + this.#validMs;
    this.#scope.spawn("keep lease alive", (signal) => this.#keepAlive(signal));
    this.#scope.spawn("lease deadline", (signal) => this.#watchDeadline(signal));
  }

  /** Asks the store for a lease and starts to renew it. */
  static async grant(options: LeaseOptions, signal: AbortSignal): Promise<Lease> {
    const sentMs = options.clock.monotonicMs();
    const { lease, ttlMs } = await options.kv.leaseGrant(options.ttlMs, signal);
    return new Lease(options, lease, ttlMs, sentMs);
  }

  /** @throws aborted when the lease may have run out, also when a blocked event loop kept `signal` from saying so. */
  checkDeadline(): void {
    if (this.#options.clock.monotonicMs() >= this.#deadlineMs) this.#lose("its deadline passed");
    if (this.#lost.signal.aborted) throw abortReason(this.#lost.signal);
  }

  /** Stops renewing and gives the lease back, so that its keys vanish now. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
    this.#lose("it was given back");
    const { clock, kv, logger } = this.#options;
    const options = { clock, timeoutMs: REVOKE_TIMEOUT_MS, operation: "revoke a lease" };
    try {
      await withTimeout(options, new AbortController().signal, (signal) => kv.leaseRevoke(this.id, signal));
    } catch (reason) {
      logger.debug({ err: reason }, "lease not revoked, it will run out");
    }
  }

  get #validMs(): number {
    return this.ttlMs - Math.min(MARGIN_MS_MAX, this.ttlMs * MARGIN_SHARE);
  }

  async #keepAlive(signal: AbortSignal): Promise<void> {
    const { clock, kv, logger } = this.#options;
    const periodMs = this.ttlMs / RENEWALS_PER_TTL;
    const options = { clock, timeoutMs: this.#validMs, operation: "renew a lease" };
    let delayMs = periodMs;
    while (!this.#lost.signal.aborted) {
      await clock.sleep(delayMs, signal);
      const sentMs = clock.monotonicMs();
      try {
        const renewed = await withTimeout(options, signal, (until) => kv.leaseKeepAlive(this.id, until));
        if (!renewed) return this.#lose("the store no longer has it");
        this.#deadlineMs = Math.max(this.#deadlineMs, sentMs + this.#validMs);
        delayMs = Math.max(0, periodMs - (clock.monotonicMs() - sentMs));
      } catch (reason) {
        if (signal.aborted) throw abortReason(signal);
        logger.debug({ err: reason }, "lease not renewed");
        delayMs = RETRY_MS;
      }
    }
  }

  async #watchDeadline(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (!this.#lost.signal.aborted) {
      const leftMs = this.#deadlineMs - clock.monotonicMs();
      if (leftMs <= 0) return this.#lose("its deadline passed");
      await clock.sleep(leftMs, signal);
    }
  }

  #lose(why: string): void {
    if (!this.#lost.signal.aborted) this.#lost.abort(new SwarmError("aborted", `lease ${this.id} lost: ${why}`));
  }
}
