/** Tells this manager's agents which logs somebody wants, wherever in the cluster that somebody asked. */
import { create } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import { Wakeup } from "../../common/base/wakeup.ts";
import { type SubscriptionMessage, SubscriptionMessageSchema } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import { type LogSubscription, LogSubscriptionSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { Change } from "../store/changes.ts";
import type { View } from "../store/view.ts";
import { nodesOf, selects } from "./selection.ts";

/** What a router needs. */
export interface SubscriptionRouterOptions {
  readonly view: View;
  readonly managerId: string;
}

/** One agent's stream: what it was told, and what it has not read yet (at most one message per subscription). */
class Listener {
  readonly replaced = new AbortController();
  readonly #wakeup = new Wakeup();
  readonly #told = new Set<string>();
  #unread = new Map<string, SubscriptionMessage>();

  offer(subscription: LogSubscription, managerAddress: string): void {
    const { id } = subscription;
    if (this.#told.has(id)) return;
    this.#told.add(id);
    this.#unread.set(id, create(SubscriptionMessageSchema, { subscription, managerAddress }));
    this.#wakeup.wake();
  }

  withdraw(id: string): void {
    if (!this.#told.delete(id)) return;
    // What it never heard of needs no end.
    if (this.#unread.delete(id)) return;
    const subscription = create(LogSubscriptionSchema, { id });
    this.#unread.set(id, create(SubscriptionMessageSchema, { subscription, close: true }));
    this.#wakeup.wake();
  }

  async take(signal: AbortSignal): Promise<Iterable<SubscriptionMessage>> {
    await this.#wakeup.wait(signal);
    const messages = this.#unread;
    this.#unread = new Map();
    return messages.values();
  }
}

/** Routes the store's subscriptions to the nodes that have tasks for them, as both come and go. */
export class SubscriptionRouter {
  readonly #view: View;
  readonly #managerId: string;
  readonly #listeners = new Map<string, Listener>();

  constructor({ view, managerId }: SubscriptionRouterOptions) {
    this.#view = view;
    this.#managerId = managerId;
  }

  /** Follows the store until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const changes = this.#view.changes(signal);
    for (const subscription of this.#view.logSubscriptions.values()) this.#offerToNodes(subscription);
    for await (const batch of changes) for (const change of batch) this.#route(change);
  }

  /**
   * What a node is to publish, now and later. One stream per node: a new one ends the one before with `aborted`. Throws
   * the abort reason.
   */
  async *listen(nodeId: string, signal: AbortSignal): AsyncGenerator<SubscriptionMessage, void, undefined> {
    const listener = new Listener();
    this.#listeners.get(nodeId)?.replaced.abort(new SwarmError("aborted", "a newer stream of this node replaced it"));
    this.#listeners.set(nodeId, listener);
    try {
      for (const subscription of this.#view.logSubscriptions.values()) {
        if (nodesOf(this.#view, subscription.selector).has(nodeId)) this.#offer(listener, subscription);
      }
      const until = AbortSignal.any([signal, listener.replaced.signal]);
      while (true) yield* await listener.take(until);
    } finally {
      if (this.#listeners.get(nodeId) === listener) this.#listeners.delete(nodeId);
    }
  }

  #route(change: Change): void {
    switch (change.kind) {
      case "logs":
        if (change.after) this.#offerToNodes(change.after);
        else for (const listener of this.#listeners.values()) listener.withdraw(change.id);
        return;
      case "task": {
        const listener = change.after && this.#listeners.get(change.after.nodeId);
        if (!listener || change.before?.nodeId === change.after?.nodeId) return;
        for (const subscription of this.#view.logSubscriptions.values()) {
          if (selects(subscription.selector, change.after)) this.#offer(listener, subscription);
        }
        return;
      }
      case "manager":
        for (const subscription of this.#view.logSubscriptions.values()) {
          if (subscription.managerId === change.id) this.#offerToNodes(subscription);
        }
        return;
      default:
    }
  }

  #offerToNodes(subscription: LogSubscription): void {
    for (const nodeId of nodesOf(this.#view, subscription.selector)) {
      const listener = this.#listeners.get(nodeId);
      if (listener) this.#offer(listener, subscription);
    }
  }

  /** To our own subscriptions the agent's open connection leads; a manager that is not known yet comes with a change. */
  #offer(listener: Listener, subscription: LogSubscription): void {
    const { managerId } = subscription;
    const address = managerId === this.#managerId ? "" : this.#view.managers.get(managerId)?.address;
    if (address !== undefined) listener.offer(subscription, address);
  }
}
