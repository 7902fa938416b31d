/**
 * Brings the logs of this node's tasks to whoever subscribed to them: the manager says what is wanted, the agent opens
 * the stream that carries it.
 */
import { Backoff, type BackoffOptions } from "../common/base/backoff.ts";
import { abortReason, type Clock } from "../common/base/clock.ts";
import { AssertionFailure } from "../common/base/error.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Random } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { type Client, createClient } from "../common/rpc/service.ts";
import type { LogMessage } from "../proto/gen/swarm/v1/control_pb.js";
import { LogBroker, type SubscriptionMessage } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { LogSubscription } from "../proto/gen/swarm/v1/objects_pb.js";
import { BackpressureQueue } from "./backpressure-queue.ts";
import { logOptionsOf } from "./container-logs.ts";
import type { Connect, Session } from "./session.ts";
import type { LoggedTask, Worker } from "./worker.ts";

const LISTEN_RETRY: BackoffOptions = { delayMsMin: 1_000, delayMsMax: 30_000 };
/** Readers at once; each holds open files and a stream, so a crowd of them must not starve the node. */
const SUBSCRIPTIONS_MAX = 64;
/** Messages between the log files and the wire; a line is at most 16 KiB. */
const QUEUE_MAX = 256;
/** Messages per request: 64 lines of 16 KiB stay below gRPC's 4 MiB. */
const BATCH_MAX = 64;

/** What a log publisher needs. */
export interface LogPublisherOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly connect: Connect;
  readonly worker: Pick<Worker, "logged" | "onTask">;
}

export class LogPublisher {
  readonly #options: LogPublisherOptions;

  constructor(options: LogPublisherOptions) {
    this.#options = options;
  }

  /** Serves subscriptions for one session until `signal` aborts. That logs fail never ends a session. */
  async serve(session: Session, signal: AbortSignal): Promise<void> {
    const { clock, random, logger } = this.#options;
    const backoff = new Backoff(LISTEN_RETRY, random);
    while (true) {
      try {
        await this.#listen(session, signal);
      } catch (reason) {
        if (signal.aborted || reason instanceof AssertionFailure) throw reason;
        logger.debug({ err: reason }, "log subscriptions ended");
      }
      if (signal.aborted) throw abortReason(signal);
      await clock.sleep(backoff.nextDelayMs(), signal);
    }
  }

  async #listen(session: Session, signal: AbortSignal): Promise<void> {
    const { nodeId, sessionId, logBroker } = session;
    await using scope = new Scope(signal);
    const active = new Map<string, AbortController>();
    for await (const message of logBroker.listenSubscriptions({ nodeId, sessionId }, { signal: scope.signal })) {
      const { subscription } = message;
      if (!subscription) continue;
      if (message.close) active.get(subscription.id)?.abort();
      else if (!active.has(subscription.id)) this.#begin(session, message, subscription, active, scope);
    }
  }

  #begin(
    session: Session,
    message: SubscriptionMessage,
    subscription: LogSubscription,
    active: Map<string, AbortController>,
    scope: Scope,
  ): void {
    const { logger } = this.#options;
    if (active.size >= SUBSCRIPTIONS_MAX) {
      logger.warn({ subscriptionId: subscription.id, limit: SUBSCRIPTIONS_MAX }, "too many log readers, one refused");
      return;
    }
    const stop = new AbortController();
    active.set(subscription.id, stop);
    scope.spawn("publish logs", async (inner) => {
      const signal = AbortSignal.any([inner, stop.signal]);
      try {
        await this.#publish(session, message.managerAddress, subscription, signal);
      } catch (reason) {
        if (reason instanceof AssertionFailure) throw reason;
        if (!signal.aborted) logger.warn({ subscriptionId: subscription.id, err: reason }, "publishing logs failed");
      } finally {
        active.delete(subscription.id);
      }
    });
  }

  /** To the manager that has the reader, over the session's own connection where that is the same. */
  async #publish(
    session: Session,
    managerAddress: string,
    subscription: LogSubscription,
    signal: AbortSignal,
  ): Promise<void> {
    if (managerAddress === "" || managerAddress === session.address) {
      return this.#stream(session.logBroker, session.nodeId, subscription, signal);
    }
    await using transport = this.#options.connect(managerAddress);
    await this.#stream(createClient(LogBroker, transport), session.nodeId, subscription, signal);
  }

  async #stream(
    logBroker: Client<typeof LogBroker>,
    nodeId: string,
    subscription: LogSubscription,
    signal: AbortSignal,
  ): Promise<void> {
    const { id: subscriptionId } = subscription;
    await using scope = new Scope(signal);
    const queue = new BackpressureQueue<LogMessage>(QUEUE_MAX);
    scope.spawn("read logs", (inner) => this.#read(subscription, nodeId, queue, inner));
    const requests = async function* () {
      for await (const messages of queue.batches(BATCH_MAX, scope.signal)) yield { subscriptionId, nodeId, messages };
      yield { subscriptionId, nodeId, close: true };
    };
    await logBroker.publishLogs(requests(), { signal: scope.signal });
  }

  /** Reads every selected task's log; with `follow` also those of tasks that come later, until the reader goes. */
  async #read(
    { selector, options }: LogSubscription,
    nodeId: string,
    queue: BackpressureQueue<LogMessage>,
    signal: AbortSignal,
  ): Promise<void> {
    if (!selector || !options) return queue.close();
    await using readers = new Scope(signal);
    const read = ({ taskId, controller }: LoggedTask) => {
      readers.spawn(`logs of task ${taskId}`, async (inner) => {
        for await (const message of controller.logs(logOptionsOf(options, taskId), inner)) {
          await queue.send({ ...message, taskId, nodeId }, inner);
        }
      });
    };
    const { worker } = this.#options;
    for (const task of worker.logged(selector)) read(task);
    if (options.follow) {
      worker.onTask(selector, read, readers.signal);
      // Nothing ends this but the reader: further tasks may come.
      readers.spawn("follow", (inner) => aborted(inner));
    }
    await readers.join();
    queue.close();
  }
}

/** Resolves when `signal` aborts. */
function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
