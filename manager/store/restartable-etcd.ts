/** An etcd of our own that can be started anew: what it reads only as it starts may change while the manager runs. */
import type { SwarmError } from "../../common/base/error.ts";
import { EmbeddedEtcd, type EmbeddedEtcdOptions } from "./embedded-etcd.ts";

/** Connections to it come back within this, once it serves again. */
const COMES_BACK_MS = 2_000;

export class RestartableEtcd implements AsyncDisposable {
  /** The same for all of its lives. */
  readonly endpoint: string;
  readonly #options: EmbeddedEtcdOptions;
  readonly #failed = Promise.withResolvers<SwarmError>();
  #etcd: EmbeddedEtcd;
  /** By the monotonic clock. */
  #restartsUntilMs = 0;

  private constructor(options: EmbeddedEtcdOptions, etcd: EmbeddedEtcd) {
    this.#options = options;
    this.endpoint = etcd.endpoint;
    this.#etcd = etcd;
    this.#watch();
  }

  /** Throws what `EmbeddedEtcd.start` does. */
  static async start(options: EmbeddedEtcdOptions, signal: AbortSignal): Promise<RestartableEtcd> {
    return new RestartableEtcd(options, await EmbeddedEtcd.start(options, signal));
  }

  /** Resolves, with the reason, when etcd has ended and nobody asked it to. */
  get failed(): Promise<SwarmError> {
    return this.#failed.promise;
  }

  /** Whether it is away for a moment only. */
  get isRestarting(): boolean {
    return this.#options.clock.monotonicMs() < this.#restartsUntilMs;
  }

  /** Ends it, which hands its leadership over, and starts it again; resolves when it serves with the others. Throws as `start`. */
  async restart(signal: AbortSignal): Promise<void> {
    this.#restartsUntilMs = Number.POSITIVE_INFINITY;
    await this.#etcd[Symbol.asyncDispose]();
    const { peer, clock } = this.#options;
    // It has gone on alone once; the others are no longer lost ones.
    const options =
      peer === undefined ? this.#options : { ...this.#options, peer: { ...peer, forceNewCluster: false } };
    this.#etcd = await EmbeddedEtcd.start(options, signal);
    this.#restartsUntilMs = clock.monotonicMs() + COMES_BACK_MS;
    this.#watch();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#etcd[Symbol.asyncDispose]();
  }

  #watch(): void {
    void this.#etcd.exited.then((reason) => {
      if (reason) this.#failed.resolve(reason);
    });
  }
}
