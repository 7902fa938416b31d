import { Etcd3, type IOptions, type IRequestOp, type IResponseHeader, type KVClient } from "etcd3";
import { abortable, abortReason, type Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import { toCompare, toEntry, toOperation, toRange } from "./etcd-codec.ts";
import { readError, writeError } from "./etcd-errors.ts";
import { EtcdKeepAlive } from "./etcd-keep-alive.ts";
import { EtcdMembers } from "./etcd-members.ts";
import { watchEtcd } from "./etcd-watch.ts";
import type { Kv, LeaseId, RangeRequest, RangeResult, TxnRequest, TxnResult, WatchRequest, WatchStep } from "./kv.ts";

/** The options of one call: deadline and interceptors; the type is grpc-js's, which only common/rpc may import. */
export type CallOptions = NonNullable<Parameters<KVClient["range"]>[1]>;

type InterceptedCall = ReturnType<NonNullable<CallOptions["interceptors"]>[number]>;

/** PEM texts; the client certificate is what etcd knows a manager by. */
export interface EtcdTls {
  readonly ca: Buffer;
  readonly certificate: Buffer;
  readonly key: Buffer;
}

export interface EtcdKvOptions {
  /** "host:port", "http(s)://host:port" or "unix:/path", one per member. */
  readonly endpoints: readonly string[];
  readonly tls?: EtcdTls;
  /** Deadline of each call. Default 4,000 ms: above an etcd election (1-2 s), below what a user takes for a hang. */
  readonly timeoutMs?: number;
  /** Whether etcd is away for a moment only: calls that could not be sent wait for it, up to the deadline of one. Default: never. */
  readonly isRestarting?: () => boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** Keepalive finds a half-open connection in 15 s (etcd closes connections that ping below 5 s). */
const CHANNEL_OPTIONS = {
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.max_receive_message_length": 32 * 1024 * 1024,
  "grpc.enable_channelz": 0,
  "grpc.enable_retries": 0,
  // A restarted etcd is found within the second; grpc's default cap is two minutes.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1_000,
} as const;

/** grpc-js's word for a call that never left. */
const NOT_SENT = "No connection established";
const RESTART_POLL_MS = 50;

type FaultHandling = NonNullable<IOptions["faultHandling"]>;
type Policy = NonNullable<FaultHandling["global"]>;

/**
 * In place of etcd3's circuit breaker (one over-large read shut a member out for 5 s) and its retries (they may make a
 * write twice): every call is made once.
 */
const onceOnly: Policy = {
  get _altReturn(): never {
    throw new SwarmError("internal", "not a value");
  },
  onSuccess: () => ({ dispose: () => {} }),
  onFailure: () => ({ dispose: () => {} }),
  execute: async (work) => work({ signal: new AbortController().signal }),
};

/**
 * etcd behind `Kv`, through etcd3's connections and raw clients only: its Watcher, Lease and Election lose events and
 * leadership. Nothing of etcd3 leaves the `etcd-*` files.
 */
export class EtcdKv implements Kv, Disposable {
  readonly #client: Etcd3;
  readonly #options: EtcdKvOptions;
  readonly #keepAlive: EtcdKeepAlive;
  readonly #timeoutMs: number;
  #revisionSeen = 0;
  #clusterId: string | undefined;

  constructor(options: EtcdKvOptions) {
    this.#options = options;
    this.#timeoutMs = options.timeoutMs ?? 4_000;
    const { tls } = options;
    this.#client = new Etcd3({
      hosts: [...options.endpoints],
      grpcOptions: { ...CHANNEL_OPTIONS },
      faultHandling: { host: () => onceOnly, global: onceOnly },
      ...(tls ? { credentials: { rootCertificate: tls.ca, privateKey: tls.key, certChain: tls.certificate } } : {}),
    });
    this.#keepAlive = new EtcdKeepAlive(() => this.#client.leaseClient.leaseKeepAlive(streamOptions()));
  }

  /** The members of the etcd, for who runs it. */
  members(): EtcdMembers {
    return new EtcdMembers(this.#client.cluster, this.#options.clock);
  }

  async range(request: RangeRequest, signal: AbortSignal): Promise<RangeResult> {
    const response = await this.#ordered("read the store", signal, readError, (options) =>
      this.#client.kv.range(toRange(request), options),
    );
    return { revision: Number(response.header.revision), entries: response.kvs.map(toEntry), more: response.more };
  }

  async txn(request: TxnRequest, signal: AbortSignal): Promise<TxnResult> {
    const response = await this.#ordered("write to the store", signal, writeError, (options) =>
      this.#client.kv.txn(
        {
          compare: request.compare.map(toCompare),
          success: request.operations.map(toOperation),
          failure: request.compare.map(
            ({ key }): IRequestOp => ({ request_range: { key: Buffer.from(key), keys_only: true } }),
          ),
        },
        options,
      ),
    );
    const revision = Number(response.header.revision);
    if (response.succeeded) return { succeeded: true, revision };
    const found = response.responses.map(({ response_range }) => response_range.kvs[0]).map((kv) => kv && toEntry(kv));
    return { succeeded: false, revision, found };
  }

  watch(request: WatchRequest, signal: AbortSignal): AsyncIterable<WatchStep> {
    const { clock, random, logger } = this.#options;
    return watchEtcd(
      {
        clock,
        random,
        logger,
        openTimeoutMs: this.#timeoutMs,
        open: () => this.#client.watchClient.watch(streamOptions()),
        observe: (header) => this.#observe(header, 0),
        checkRevision: (until) => this.range({ from: { key: "/" }, limit: 1 }, until),
      },
      request,
      signal,
    );
  }

  async leaseGrant(ttlMs: number, signal: AbortSignal): Promise<{ readonly lease: LeaseId; readonly ttlMs: number }> {
    const response = await this.#call("grant a lease", signal, readError, (options) =>
      this.#client.leaseClient.leaseGrant({ TTL: Math.ceil(ttlMs / 1000), ID: 0 }, options),
    );
    return { lease: response.ID as LeaseId, ttlMs: Number(response.TTL) * 1000 };
  }

  async leaseKeepAlive(lease: LeaseId, signal: AbortSignal): Promise<{ readonly ttlMs: number } | undefined> {
    const response = await this.#call("renew a lease", signal, readError, () => {
      const timer = new AbortController();
      const answer = this.#keepAlive.renew(lease);
      this.#options.clock.sleep(this.#timeoutMs, timer.signal).then(
        () => this.#keepAlive.reset(new SwarmError("unavailable", `no answer in ${this.#timeoutMs} ms`)),
        () => {},
      );
      return answer.finally(() => timer.abort());
    });
    const ttlMs = Number(response.TTL) * 1000;
    return ttlMs > 0 ? { ttlMs } : undefined;
  }

  async leaseRevoke(lease: LeaseId, signal: AbortSignal): Promise<void> {
    try {
      await this.#call("revoke a lease", signal, readError, (options) =>
        this.#client.leaseClient.leaseRevoke({ ID: lease }, options),
      );
    } catch (reason) {
      if (!(reason instanceof SwarmError && reason.code === "not_found")) throw reason;
    }
  }

  /** Forgets history before `revision` and waits until its space is free. Auto-compaction does it in production. */
  async compact(revision: number, signal: AbortSignal): Promise<void> {
    await this.#call("compact the store", signal, writeError, (options) =>
      this.#client.kv.compact({ revision, physical: true }, options),
    );
  }

  /** Gives freed space back (on the member that answers) and lifts the alarm that a full store raises. */
  async defragment(signal: AbortSignal): Promise<void> {
    await this.#call("defragment the store", signal, readError, (options) =>
      this.#client.maintenance.defragment(options),
    );
    const { maintenance } = this.#client;
    const { alarms } = await this.#call("read the store's alarms", signal, readError, (options) =>
      maintenance.alarm({ action: "Get", memberID: 0, alarm: "None" }, options),
    );
    for (const { memberID, alarm } of alarms) {
      await this.#call("lift the store's alarm", signal, readError, (options) =>
        maintenance.alarm({ action: "Deactivate", memberID, alarm }, options),
      );
    }
  }

  /** Closes the connections; running calls fail. */
  [Symbol.dispose](): void {
    this.#keepAlive.reset(new SwarmError("canceled", "store connection closed"));
    this.#client.close();
  }

  /** A call that the whole cluster orders: its answer cannot be older than what was seen when it was sent. */
  async #ordered<T extends { readonly header: IResponseHeader }>(
    operation: string,
    signal: AbortSignal,
    toError: (operation: string, reason: unknown) => SwarmError,
    send: (options: CallOptions) => Promise<T>,
  ): Promise<T> {
    const revisionAtSend = this.#revisionSeen;
    const response = await this.#call(operation, signal, toError, send);
    this.#observe(response.header, revisionAtSend);
    return response;
  }

  async #call<T>(
    operation: string,
    signal: AbortSignal,
    toError: (operation: string, reason: unknown) => SwarmError,
    send: (options: CallOptions) => Promise<T>,
  ): Promise<T> {
    const { clock, isRestarting } = this.#options;
    const waitsUntilMs = clock.monotonicMs() + this.#timeoutMs;
    while (true) {
      if (signal.aborted) throw abortReason(signal);
      try {
        return await abortable(send({ ...streamOptions(), deadline: clock.nowMs() + this.#timeoutMs }), signal);
      } catch (reason) {
        const error = toError(operation, reason);
        const waits = isRestarting?.() === true && error.message.includes(NOT_SENT);
        if (!waits || clock.monotonicMs() >= waitsUntilMs) throw error;
      }
      await clock.sleep(RESTART_POLL_MS, signal);
    }
  }

  /** A revision that goes back, or another cluster id, means a store restored from a backup: nothing here holds then. */
  #observe(header: IResponseHeader, revisionAtLeast: number): void {
    const revision = Number(header.revision);
    this.#clusterId ??= header.cluster_id;
    if (header.cluster_id !== this.#clusterId) {
      throw new SwarmError("data_loss", `etcd is another cluster now (${header.cluster_id}, was ${this.#clusterId})`);
    }
    if (revision < revisionAtLeast) {
      throw new SwarmError(
        "data_loss",
        `etcd went back from revision ${revisionAtLeast} to ${revision} (restored from a backup?): restart the managers`,
      );
    }
    if (revision > this.#revisionSeen) this.#revisionSeen = revision;
  }
}

/** `hasleader` makes a member that lost its cluster end a call instead of staying silent; etcd3 offers no metadata. */
function streamOptions(): CallOptions {
  return {
    interceptors: [
      (options, nextCall) => {
        const call = nextCall(options);
        const start = call.start.bind(call);
        call.start = (metadata, listener) => {
          metadata.set("hasleader", "true");
          start(metadata, listener);
        };
        // grpc-js types a call as its class but asks of it only this interface.
        return call as InterceptedCall;
      },
    ],
  };
}
