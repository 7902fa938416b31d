/** Both ends of the log broker in one manager: readers come through `subscribe`, agents through the service. */
import { create } from "@bufbuild/protobuf";
import type { Clock } from "../../common/base/clock.ts";
import { AssertionFailure, SwarmError } from "../../common/base/error.ts";
import { newId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { untilAborted } from "../../common/base/until-aborted.ts";
import { WorkQueue } from "../../common/base/work-queue.ts";
import type { CallContext, Peer, ServiceImplementation } from "../../common/rpc/service.ts";
import type { LogMessages } from "../../proto/gen/swarm/v1/control_pb.js";
import type { LogBroker, PublishLogsRequest } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import { type LogOptions, type LogSelector, LogSubscriptionSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { requireNode } from "../require-node.ts";
import type { LeaseId } from "../store/kv.ts";
import type { Store } from "../store/store.ts";
import { Gathering, type NodeStream } from "./gathering.ts";
import { SubscriptionRouter } from "./subscription-router.ts";

/** What a hub needs. */
export interface LogHubOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly managerId: string;
  /** This manager's: its subscriptions vanish with it. */
  readonly lease: LeaseId;
  /** Aborts when the node's session with this manager ends. Throws `failed_precondition` when it has no such session. */
  readonly sessionSignal: (nodeId: string, sessionId: string) => AbortSignal;
}

/** Readers at once. An agent serves as many at most, from all managers together. */
const READERS_MAX = 64;

/**
 *     reader ──subscribe──▶ hub ──LogSubscription──▶ store ──▶ every manager's router ──▶ its agents
 *        ▲                   ▲                                                               │
 *        └──── Gathering ────┴──────────────────────── PublishLogs ──────────────────────────┘
 */
export class LogHub {
  /** To be served to agents. */
  readonly implementation: ServiceImplementation<typeof LogBroker>;
  readonly #options: LogHubOptions;
  readonly #router: SubscriptionRouter;
  readonly #gatherings = new Map<string, Gathering>();
  /** Subscriptions whose readers are gone, to be taken out of the store. */
  readonly #ended: WorkQueue<string>;

  constructor(options: LogHubOptions) {
    this.#options = options;
    this.#router = new SubscriptionRouter({ view: options.store.view, managerId: options.managerId });
    this.#ended = new WorkQueue(options.clock, options.random);
    this.implementation = {
      listenSubscriptions: ({ nodeId, sessionId }, context) => this.#listen(nodeId, sessionId, context),
      publishLogs: (requests, { signal, peer }) => this.#publish(requests, peer, signal),
    };
  }

  /** Routes subscriptions, and clears up behind readers, until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    await using scope = new Scope(signal);
    scope.spawn("route log subscriptions", (until) => this.#router.run(until));
    scope.spawn("delete log subscriptions", (until) => this.#deleteEnded(until));
    await scope.join();
  }

  /**
   * The logs of the selected tasks (by id) from all nodes, each task's lines in their order. Nodes that cannot answer are
   * named in `unreachable`. Ends when every node has sent all it has; with `follow` only with `signal`, whose reason it
   * throws. Nothing is read ahead: agents send at the pace of who iterates.
   * @throws resource_exhausted for the 65th reader; unavailable when the store does not answer.
   */
  async *subscribe(
    selector: LogSelector,
    options: LogOptions,
    signal: AbortSignal,
  ): AsyncGenerator<LogMessages, void, undefined> {
    const { store, clock, random, managerId, lease } = this.#options;
    if (this.#gatherings.size >= READERS_MAX) {
      throw new SwarmError("resource_exhausted", `logs: ${READERS_MAX} readers at once, try again later`);
    }
    const id = newId(random);
    const subscription = create(LogSubscriptionSchema, { id, managerId, selector, options });
    await using scope = new Scope(signal);
    const gathering = new Gathering({ view: store.view, clock, subscription, scope });
    if (gathering.over) return;
    this.#gatherings.set(id, gathering);
    try {
      await store.commit([{ type: "create", kind: "logs", object: subscription, lease }], { signal: scope.signal });
      yield* gathering.read();
    } finally {
      this.#gatherings.delete(id);
      this.#ended.add(id);
    }
  }

  async *#listen(nodeId: string, sessionId: string, { signal, peer }: CallContext) {
    requireNode(peer, nodeId);
    const session = this.#options.sessionSignal(nodeId, sessionId);
    yield* this.#router.listen(nodeId, AbortSignal.any([signal, session]));
  }

  async #publish(requests: AsyncIterable<PublishLogsRequest>, peer: Peer, signal: AbortSignal) {
    const gone = new AbortController();
    const until = AbortSignal.any([signal, gone.signal]);
    let stream: NodeStream | undefined;
    let gathering: Gathering | undefined;
    let complete = false;
    const onEnd = () => gone.abort();
    try {
      for await (const { subscriptionId, nodeId, messages, close } of untilAborted(requests, until)) {
        if (!stream) {
          requireNode(peer, nodeId);
          gathering = this.#gatherings.get(subscriptionId);
          if (!gathering) throw new SwarmError("not_found", "log subscription: its reader is gone");
          gathering.signal.addEventListener("abort", onEnd, { once: true });
          stream = gathering.open(nodeId);
        }
        await stream.deliver(messages, until);
        complete = close;
        if (complete) break;
      }
    } catch (reason) {
      // The reader went: nothing is wrong, and the agent needs to hear no more than that it may stop.
      if (signal.aborted || !gone.signal.aborted) throw reason;
    } finally {
      gathering?.signal.removeEventListener("abort", onEnd);
      stream?.end(complete);
    }
    return {};
  }

  /** A key that cannot be deleted now is tried again; with the manager's lease it goes in any case. */
  async #deleteEnded(signal: AbortSignal): Promise<void> {
    const { store, logger } = this.#options;
    try {
      while (true) {
        await this.#ended.ready(signal);
        for (const id of this.#ended.takeAll()) {
          try {
            await store.commit([{ type: "delete", kind: "logs", id }], { wait: false, signal });
            this.#ended.done(id, "succeeded");
          } catch (reason) {
            if (signal.aborted || reason instanceof AssertionFailure) throw reason;
            logger.debug({ subscriptionId: id, err: reason }, "log subscription not deleted");
            this.#ended.done(id, "failed");
          }
        }
      }
    } finally {
      this.#ended.stop();
    }
  }
}
