/**
 * Keeps the node's network as its tasks need it, published ports and all: one publication at a time, always of the whole newest set,
 * however many changes came meanwhile.
 */
import { Backoff, type BackoffOptions } from "../common/base/backoff.ts";
import { type Clock, withTimeout } from "../common/base/clock.ts";
import { AssertionFailure } from "../common/base/error.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Random } from "../common/base/random.ts";
import { Wakeup } from "../common/base/wakeup.ts";
import type { Executor, NodeNetwork } from "./executor.ts";

const RETRY: BackoffOptions = { delayMsMin: 100, delayMsMax: 10_000 };
/** Longer than any healthy kernel needs; without it one stuck publication would hold up every shutdown. */
const PUBLISH_TIMEOUT_MS = 5_000;

/** What the publisher needs. `network` is asked anew for each publication. */
export interface EndpointPublisherOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly executor: Executor;
  readonly network: () => NodeNetwork;
}

export class EndpointPublisher {
  readonly #options: EndpointPublisherOptions;
  #waiting: (() => void)[] = [];
  readonly #wakeup = new Wakeup();

  constructor(options: EndpointPublisherOptions) {
    this.#options = options;
  }

  /**
   * Says that the set changed. Resolves once a publication that began after this call was tried; it never rejects, since
   * a failing one is repeated in the background.
   */
  changed(): Promise<void> {
    this.#wakeup.wake();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Publishes until `signal` aborts; what was published stays. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const backoff = new Backoff(RETRY, random);
    try {
      while (true) {
        await this.#wakeup.wait(signal);
        if (await this.#publish(signal)) {
          backoff.reset();
          continue;
        }
        this.#wakeup.wake();
        await clock.sleep(backoff.nextDelayMs(), signal);
      }
    } finally {
      for (const resolve of this.#waiting.splice(0)) resolve();
    }
  }

  /** Publishes the newest set once; who waits for it goes on in either case. */
  async #publish(signal: AbortSignal): Promise<boolean> {
    const { clock, logger, executor, network } = this.#options;
    const limits = { clock, timeoutMs: PUBLISH_TIMEOUT_MS, operation: "publish the network" };
    const served = this.#waiting.splice(0);
    try {
      await withTimeout(limits, signal, (inner) => executor.publish(network(), inner));
      return true;
    } catch (reason) {
      if (signal.aborted || reason instanceof AssertionFailure) throw reason;
      logger.error({ err: reason }, "publishing the network failed, trying again");
      return false;
    } finally {
      for (const resolve of served) resolve();
    }
  }
}
