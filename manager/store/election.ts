import { Backoff } from "../../common/base/backoff.ts";
import { abortReason, type Clock, withTimeout } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { ManagerId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { LEADER_KEY } from "./keys.ts";
import type { Kv } from "./kv.ts";
import { decodeLeader, encodeLeader } from "./leader.ts";
import { Lease } from "./lease.ts";
import type { Fence } from "./proposal.ts";

export interface ElectionOptions {
  readonly kv: Kv;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly managerId: ManagerId;
  /**
   * Default 2,000 ms, etcd's least: a killed leader is replaced after 1.5-2.5 s (TTL since its last renewal, and etcd's
   * half-second look at its leases). A leader whose event loop stands still for over 1 s steps down.
   */
  readonly ttlMs?: number;
}

/** One term of leading. It is a fence: every write of the term carries it. */
export interface Leadership extends Fence {
  /** Aborts when the term is over: lease lost, key gone, or the whole election stopped. */
  readonly signal: AbortSignal;
}

const TTL_MS = 2_000;
const RETRY = { delayMsMin: 50, delayMsMax: 1_000 };
/** A candidate looks itself this often, should its watch have gone deaf. */
const LOOK_AGAIN_MS = 5_000;

/**
 * Campaigns, leads, and campaigns again until `signal` aborts; then hands over at once by revoking its lease.
 *
 *      leader key there ──► wait for its deletion ──┐
 *        ▲                                          ▼
 *        │ taken                     grant a lease, create the key if absent
 *        └──────────────────────────────────────────┤
 *                                                   ▼ created at revision = epoch
 *                             look again: still ours? ──► lead(leadership) until the term ends ──► revoke
 *
 * `lead` has to return soon after its leadership's signal aborts; returning earlier gives the term up. What it throws while it still leads is thrown here,
 * after the lease was given back.
 */
export async function runElection(
  options: ElectionOptions,
  lead: (leadership: Leadership) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const backoff = new Backoff(RETRY, options.random);
  while (!signal.aborted) {
    let elected: Elected | undefined;
    try {
      elected = await campaign(options, signal);
      backoff.reset();
    } catch (reason) {
      if (signal.aborted) break;
      options.logger.warn({ err: reason }, "cannot campaign");
      await options.clock.sleep(backoff.nextDelayMs(), signal).catch(() => {});
      continue;
    }
    await leadTerm(options, elected, lead, signal);
  }
  throw abortReason(signal);
}

interface Elected {
  readonly epoch: number;
  readonly lease: Lease;
}

/** Returns once the leader key is ours. */
async function campaign(options: ElectionOptions, signal: AbortSignal): Promise<Elected> {
  const { kv, managerId } = options;
  while (true) {
    const { entries } = await kv.range({ from: { key: LEADER_KEY }, limit: 1 }, signal);
    const [entry] = entries;
    if (!entry) {
      const elected = await takeKey(options, signal);
      if (elected) return elected;
    } else if (decodeLeader(entry).managerId === managerId) {
      // Our own former life, killed before it could revoke its lease. Should it still run, the fence stops it.
      const compare = [{ key: LEADER_KEY, createRevision: entry.createRevision }];
      await kv.txn({ compare, operations: [{ type: "delete", key: LEADER_KEY }] }, signal);
    } else {
      await keyGone(options, entry.createRevision, signal);
    }
  }
}

/** Creates the leader key if it is absent, on a new lease. */
async function takeKey(options: ElectionOptions, signal: AbortSignal): Promise<Elected | undefined> {
  const { kv, managerId } = options;
  const lease = await Lease.grant({ ...options, ttlMs: options.ttlMs ?? TTL_MS }, signal);
  try {
    const value = encodeLeader(managerId);
    const result = await kv.txn(
      {
        compare: [{ key: LEADER_KEY, createRevision: 0 }],
        operations: [{ type: "put", key: LEADER_KEY, value, lease: lease.id }],
      },
      signal,
    );
    if (result.succeeded) {
      const { entries } = await kv.range({ from: { key: LEADER_KEY }, limit: 1 }, signal);
      lease.checkDeadline();
      if (entries[0]?.createRevision === result.revision) return { epoch: result.revision, lease };
    }
  } catch (reason) {
    await lease[Symbol.asyncDispose]();
    throw reason;
  }
  await lease[Symbol.asyncDispose]();
  return undefined;
}

async function leadTerm(
  options: ElectionOptions,
  { epoch, lease }: Elected,
  lead: (leadership: Leadership) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const { logger } = options;
  const over = new AbortController();
  const termSignal = AbortSignal.any([signal, lease.signal, over.signal]);
  const leadership: Leadership = {
    epoch,
    signal: termSignal,
    checkDeadline() {
      lease.checkDeadline();
      if (termSignal.aborted) throw abortReason(termSignal);
    },
  };
  logger.info({ epoch }, "leading");
  try {
    await using scope = new Scope(leadership.signal);
    scope.spawn("watch the leader key", async (until) => {
      await keyGone(options, epoch, until);
      over.abort(new SwarmError("aborted", `leadership lost: the key of epoch ${epoch} is gone`));
    });
    await lead(leadership);
  } catch (reason) {
    if (!leadership.signal.aborted) throw reason;
  } finally {
    const why = leadership.signal.aborted ? abortReason(leadership.signal).message : "done";
    logger.info({ epoch, why }, "no longer leading");
    await lease[Symbol.asyncDispose]();
  }
}

/** Waits until the leader key of this epoch is gone, whatever happens to the connection meanwhile. */
async function keyGone(
  { kv, clock, random, logger }: ElectionOptions,
  epoch: number,
  signal: AbortSignal,
): Promise<void> {
  const backoff = new Backoff(RETRY, random);
  const options = { clock, timeoutMs: LOOK_AGAIN_MS, operation: "watch the leader key" };
  while (true) {
    try {
      const { entries, revision } = await kv.range({ from: { key: LEADER_KEY }, limit: 1 }, signal);
      if (entries[0]?.createRevision !== epoch) return;
      backoff.reset();
      await withTimeout(options, signal, (until) => anyEvent(kv, revision + 1, until));
    } catch (reason) {
      if (signal.aborted) throw abortReason(signal);
      if (SwarmError.from(reason).code === "deadline_exceeded") continue;
      logger.debug({ err: reason, epoch }, "cannot watch the leader key");
      await clock.sleep(backoff.nextDelayMs(), signal);
    }
  }
}

async function anyEvent(kv: Kv, fromRevision: number, signal: AbortSignal): Promise<void> {
  for await (const step of kv.watch({ prefix: LEADER_KEY, fromRevision }, signal)) {
    if (step.type === "compacted" || step.events.length > 0) return;
  }
}
