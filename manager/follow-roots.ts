/**
 * Has this manager's etcd trust what the cluster trusts. etcd reads the roots only as it starts. While a rotation lasts that is
 * enough: what the new root signs comes with the old one's signature. Once it is over the old root must not count any more, and
 * the next rotation would leave an etcd alone that knows neither: the managers start theirs again, one after the other.
 */
import { abortReason, type Clock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import type { Logger } from "../common/base/logger.ts";
import { Scope } from "../common/base/scope.ts";
import { Wakeup } from "../common/base/wakeup.ts";
import type { ClusterCa } from "../proto/gen/swarm/v1/objects_pb.js";
import { caCertificates } from "./ca/cluster-ca.ts";
import type { ManagerIdentity } from "./ca/manager-identity.ts";
import { ETCD_TURN_KEY } from "./store/keys.ts";
import type { Kv } from "./store/kv.ts";
import { Lease } from "./store/lease.ts";
import type { RestartableEtcd } from "./store/restartable-etcd.ts";
import type { View } from "./store/view.ts";

/** The roots (PEM) with which etcd was started. */
export interface EtcdTrust {
  roots: string;
}

/** What it needs. */
export interface FollowRootsOptions {
  readonly kv: Kv;
  readonly view: Pick<View, "cluster" | "changes">;
  readonly identity: ManagerIdentity;
  readonly etcd: RestartableEtcd;
  readonly etcdTrust: EtcdTrust;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A manager that dies in its turn leaves it after this long; a start takes etcd up to 30 s. */
const TURN_MS = 60_000;
const RETRY_MS = 500;
/** Without a quorum for this long nobody's turn can be asked for; what keeps the others away may be that we do not trust them. */
const WITHOUT_STORE_MS = 20_000;

/** Runs until `signal` aborts; throws when etcd does not start again. */
export async function followRoots(options: FollowRootsOptions, signal: AbortSignal): Promise<never> {
  const { view, identity, etcd, etcdTrust, logger } = options;
  const changed = new Wakeup();
  let wanted = identity.credentials.trust;
  identity.onRenewed(() => {
    wanted = identity.credentials.trust;
    changed.wake();
  });
  await using scope = new Scope(signal);
  scope.spawn("cluster", async (inner) => {
    for await (const batch of view.changes(inner)) if (batch.some(({ kind }) => kind === "cluster")) changed.wake();
  });
  for (; ; await changed.wait(scope.signal)) {
    if (wanted === etcdTrust.roots || !isTime(view.cluster?.ca, wanted)) continue;
    await using _ = await turn(options, signal);
    const roots = wanted;
    logger.info("starting etcd again: it is to trust other roots");
    await etcd.restart(signal);
    etcdTrust.roots = roots;
    identity.announce();
    logger.info("etcd trusts what the cluster trusts");
  }
}

/**
 * While the old root vouches for the new one there is time: one start is enough, when it is over. Where it cannot, the leader waits
 * with the change until all etcds trust the new root. And when the roots that are `wanted` are the newest: this manager's certificate comes a moment after the store's word.
 */
function isTime(ca: ClusterCa | undefined, wanted: string): boolean {
  if (ca === undefined || caCertificates(ca).trust !== wanted) return false;
  return ca.rotation === undefined || ca.rotation.next !== "";
}

/** Resolves when no other manager's etcd is being started; undefined when the store that would tell is away. */
async function turn({ kv, clock, logger }: FollowRootsOptions, signal: AbortSignal): Promise<Lease | undefined> {
  const sinceMs = clock.monotonicMs();
  while (true) {
    try {
      return await takeTurn({ kv, clock, logger }, signal);
    } catch (reason) {
      if (signal.aborted) throw abortReason(signal);
      if (!(reason instanceof SwarmError)) throw reason;
      if (clock.monotonicMs() - sinceMs >= WITHOUT_STORE_MS) return undefined;
      logger.debug({ err: reason }, "cannot ask for etcd's turn yet");
    }
    await clock.sleep(RETRY_MS, signal);
  }
}

async function takeTurn(
  options: Pick<FollowRootsOptions, "kv" | "clock" | "logger">,
  signal: AbortSignal,
): Promise<Lease> {
  const { kv, clock } = options;
  const lease = await Lease.grant({ ...options, ttlMs: TURN_MS }, signal);
  try {
    const put = { type: "put", key: ETCD_TURN_KEY, value: new Uint8Array(), lease: lease.id } as const;
    const request = { compare: [{ key: ETCD_TURN_KEY, createRevision: 0 }], operations: [put] };
    while (!(await kv.txn(request, signal)).succeeded) await clock.sleep(RETRY_MS, signal);
    return lease;
  } catch (reason) {
    await lease[Symbol.asyncDispose]();
    throw reason;
  }
}
