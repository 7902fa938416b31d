import { Backoff } from "../../common/base/backoff.ts";
import type { Clock } from "../../common/base/clock.ts";
import type { Random } from "../../common/base/random.ts";
import { isOutcomeUnknown, type Kv, type Operation, type TxnRequest, type TxnResult } from "./kv.ts";

export interface SendContext {
  readonly kv: Kv;
  readonly clock: Clock;
  readonly random: Random;
}

/** Tries to learn an outcome; with the call's own deadline (4 s) this is up to half a minute. */
const ATTEMPTS_MAX = 6;
const RETRY = { delayMsMin: 50, delayMsMax: 1_000 };
/** Versions of a key looked back through to find a write of ours. */
const STEPS_BACK_MAX = 16;

/**
 * Sends a transaction and finds out what became of it even when an answer is lost. Sending it again is safe because it
 * compares what it replaces: it can be made once. If it is refused the second time, the first one may have been the
 * reason: then the value that directly followed the compared one is ours.
 * @throws what `Kv.txn` throws; an unknown outcome only if it stays unknown.
 */
export async function sendGuarded(context: SendContext, request: TxnRequest, signal: AbortSignal): Promise<TxnResult> {
  const backoff = new Backoff(RETRY, context.random);
  for (let attempt = 1; ; attempt++) {
    try {
      const result = await context.kv.txn(request, signal);
      if (result.succeeded || attempt === 1) return result;
      const revision = await findOurs(context.kv, request, signal);
      return revision === undefined ? result : { succeeded: true, revision };
    } catch (reason) {
      if (!isOutcomeUnknown(reason) || signal.aborted || attempt >= ATTEMPTS_MAX || !isGuarded(request)) throw reason;
      await context.clock.sleep(backoff.nextDelayMs(), signal);
    }
  }
}

/** Whether making it twice is impossible: at least one of its changes undoes its own condition. */
function isGuarded({ compare, operations }: TxnRequest): boolean {
  return operations.every(({ type }) => type === "delete") || findWitness({ compare, operations }) !== undefined;
}

/** A put whose key is compared by mod_revision: its history tells whether the whole transaction was made. */
function findWitness({
  compare,
  operations,
}: TxnRequest): { readonly put: Put; readonly expected: number } | undefined {
  const expected = new Map(
    compare.flatMap((one) => ("modRevision" in one ? [[one.key, one.modRevision] as const] : [])),
  );
  for (const operation of operations) {
    const revision = expected.get(operation.key);
    if (operation.type === "put" && revision !== undefined) return { put: operation, expected: revision };
  }
  return undefined;
}

type Put = Extract<Operation, { type: "put" }>;

/** The revision at which this transaction was made before; undefined if it was not. */
async function findOurs(kv: Kv, request: TxnRequest, signal: AbortSignal): Promise<number | undefined> {
  const witness = findWitness(request);
  if (!witness) return findOurDeletions(kv, request, signal);
  const { put, expected } = witness;
  let at: number | undefined;
  for (let step = 0; step < STEPS_BACK_MAX; step++) {
    const from = { key: put.key };
    const { entries } = await kv.range({ from, limit: 1, ...(at === undefined ? {} : { revision: at }) }, signal);
    const [entry] = entries;
    if (!entry || entry.modRevision <= expected) return undefined;
    if (Buffer.compare(entry.value, put.value) === 0) return entry.modRevision;
    at = entry.modRevision - 1;
  }
  return undefined;
}

/** Deletions leave no value to know them by: if all keys are gone, what was wanted is so, whoever did it. */
async function findOurDeletions(kv: Kv, request: TxnRequest, signal: AbortSignal): Promise<number | undefined> {
  let revision = 0;
  for (const { key } of request.operations) {
    const result = await kv.range({ from: { key }, limit: 1 }, signal);
    if (result.entries.length > 0) return undefined;
    revision = result.revision;
  }
  return revision;
}
