import type { ILeaseKeepAliveResponse, LeaseClient } from "etcd3";
import { SwarmError } from "../../common/base/error.ts";
import type { LeaseId } from "./kv.ts";

type KeepAliveStream = Awaited<ReturnType<LeaseClient["leaseKeepAlive"]>>;

interface Waiter {
  readonly resolve: (response: ILeaseKeepAliveResponse) => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * One keepalive stream that all leases of a process share; it is opened when needed and again after it broke. Whoever
 * waits when it breaks is told, and decides.
 */
export class EtcdKeepAlive {
  readonly #open: () => Promise<KeepAliveStream>;
  readonly #waiters = new Map<string, Waiter[]>();
  #stream: Promise<KeepAliveStream> | undefined;

  constructor(open: () => Promise<KeepAliveStream>) {
    this.#open = open;
  }

  /** Sends one renewal and resolves with its answer (TTL 0: the lease is gone). */
  async renew(lease: LeaseId): Promise<ILeaseKeepAliveResponse> {
    this.#stream ??= this.#start();
    const opening = this.#stream;
    const stream = await opening;
    if (this.#stream !== opening) throw new SwarmError("unavailable", "keepalive stream broke");
    const { promise, resolve, reject } = Promise.withResolvers<ILeaseKeepAliveResponse>();
    const waiters = this.#waiters.get(lease);
    if (waiters) waiters.push({ resolve, reject });
    else this.#waiters.set(lease, [{ resolve, reject }]);
    stream.write({ ID: lease });
    return promise;
  }

  /** Drops the stream and fails whoever waits with `reason`; the next renewal opens a new one. */
  reset(reason: SwarmError): void {
    const opening = this.#stream;
    this.#stream = undefined;
    this.#fail(reason);
    opening?.then(close, () => {});
  }

  async #start(): Promise<KeepAliveStream> {
    let stream: KeepAliveStream;
    try {
      stream = await this.#open();
    } catch (reason) {
      this.#stream = undefined;
      throw reason;
    }
    const owner = this.#stream;
    stream.on("data", (response) => {
      const waiters = this.#waiters.get(response.ID);
      waiters?.shift()?.resolve(response);
      if (waiters?.length === 0) this.#waiters.delete(response.ID);
    });
    stream.on("error", (reason) => this.#drop(owner, stream, reason));
    stream.on("end", () => this.#drop(owner, stream, new Error("14 UNAVAILABLE: keepalive stream ended")));
    return stream;
  }

  #drop(owner: Promise<KeepAliveStream> | undefined, stream: KeepAliveStream, reason: unknown): void {
    close(stream);
    if (this.#stream !== owner) return;
    this.#stream = undefined;
    this.#fail(reason);
  }

  #fail(reason: unknown): void {
    const waiters = [...this.#waiters.values()].flat();
    this.#waiters.clear();
    for (const waiter of waiters) waiter.reject(reason);
  }
}

/** end() first: etcd3 takes the error of a still writable stream for a sick member and drops its connections. */
function close(stream: KeepAliveStream): void {
  stream.end();
  stream.cancel();
}
