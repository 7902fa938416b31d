/** A manager's place among the living: a lease, and its address on it for agents and other managers to find. */
import { equals } from "@bufbuild/protobuf";
import { Backoff } from "../common/base/backoff.ts";
import { abortReason, type Clock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Random } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { Wakeup } from "../common/base/wakeup.ts";
import { type ManagerInfo, ManagerInfoSchema } from "../proto/gen/swarm/v1/objects_pb.js";
import type { Kv, LeaseId } from "./store/kv.ts";
import { Lease } from "./store/lease.ts";
import type { Store } from "./store/store.ts";

/** What presence needs. */
export interface PresenceOptions {
  readonly kv: Kv;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly card: ManagerCard;
}

/** What others are told of a manager, which may change. */
export class ManagerCard {
  readonly changed = new Wakeup();
  #info: ManagerInfo;

  constructor(info: ManagerInfo) {
    this.#info = info;
  }

  get info(): ManagerInfo {
    return this.#info;
  }

  change(part: Partial<Pick<ManagerInfo, "address" | "certificate">>): void {
    this.#info = { ...this.#info, ...part };
    this.changed.wake();
  }
}

/**
 * How long a silent manager counts as alive, and its agents' sessions with it. A shorter one would end all its sessions
 * for a pause of the store; a longer one would keep agents' nodes READY for longer after both have died.
 */
const TTL_MS = 5_000;
const RETRY = { delayMsMin: 100, delayMsMax: 2_000 };
/** Our own former life may be registered still; more conflicts than that are somebody else's doing. */
const ATTEMPTS_MAX = 10;

/**
 * Registers this manager and runs `live` for as long as the lease lasts; when it was lost, all over with a new one.
 * Returns never: throws the abort reason, or what `live` throws while the lease is good.
 */
export async function runPresence(
  options: PresenceOptions,
  live: (lease: LeaseId, signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<never> {
  const { logger, clock, random } = options;
  const backoff = new Backoff(RETRY, random);
  while (true) {
    try {
      await using lease = await Lease.grant({ ...options, ttlMs: TTL_MS }, signal);
      const until = AbortSignal.any([signal, lease.signal]);
      await register(options, lease.id, until);
      backoff.reset();
      try {
        await using scope = new Scope(until);
        scope.spawn("keep the card", (inner) => keepCard(options, lease.id, inner));
        scope.spawn("live", (inner) => live(lease.id, inner));
        await scope.join();
      } catch (reason) {
        // What fails while the lease is good is not the store's doing: it is ours to die of.
        if (!until.aborted) throw new PresenceFailure(reason);
      }
      if (!signal.aborted) logger.warn({ err: abortReason(until) }, "lost touch with the store, registering again");
    } catch (reason) {
      if (reason instanceof PresenceFailure) throw reason.cause;
      if (signal.aborted) throw abortReason(signal);
      logger.warn({ err: reason }, "cannot register with the store yet");
    }
    await clock.sleep(backoff.nextDelayMs(), signal);
  }
}

class PresenceFailure extends Error {
  constructor(cause: unknown) {
    super("presence failed", { cause });
  }
}

/** Writes what changes of the card. */
async function keepCard(options: PresenceOptions, lease: LeaseId, signal: AbortSignal): Promise<never> {
  const { card, store, clock, random, logger } = options;
  const backoff = new Backoff(RETRY, random);
  while (true) {
    await card.changed.wait(signal);
    const told = store.view.managers.get(card.info.id);
    if (told && equals(ManagerInfoSchema, told, card.info)) continue;
    try {
      await register(options, lease, signal);
      backoff.reset();
      continue;
    } catch (reason) {
      if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
      logger.warn({ err: reason }, "cannot tell the others of a change yet");
    }
    card.changed.wake();
    await clock.sleep(backoff.nextDelayMs(), signal);
  }
}

async function register({ store, card, clock }: PresenceOptions, lease: LeaseId, signal: AbortSignal): Promise<void> {
  const { info } = card;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const version = store.view.version("manager", info.id);
    const { conflicts } = await store.commit(
      [
        version === undefined
          ? { type: "create", kind: "manager", object: info, lease }
          : { type: "update", kind: "manager", object: info, version, lease },
      ],
      { signal },
    );
    if (conflicts.length === 0) return;
    await clock.sleep(RETRY.delayMsMin, signal);
  }
  throw new SwarmError("aborted", `register manager ${info.id}: another process seems to have the same id`);
}
