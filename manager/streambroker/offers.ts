/** Tells this manager's agents which streams somebody wants of them, wherever in the cluster that somebody asked. */
import { create } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import { Wakeup } from "../../common/base/wakeup.ts";
import { type StreamOffer, StreamOfferSchema } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { StreamRequest } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { View } from "../store/view.ts";

/** One agent's ear: what it was told, and what it has not heard yet. */
class Listener {
  readonly replaced = new AbortController();
  readonly #wakeup = new Wakeup();
  readonly #told = new Set<string>();
  #unheard = new Map<string, StreamOffer>();

  tell(request: StreamRequest, managerAddress: string): void {
    if (this.#told.has(request.id)) return;
    this.#told.add(request.id);
    this.#unheard.set(request.id, create(StreamOfferSchema, { request, managerAddress }));
    this.#wakeup.wake();
  }

  /** What is no longer wanted need not be heard of; one that was heard ends by itself, at the manager that asked. */
  forget(id: string): void {
    this.#told.delete(id);
    this.#unheard.delete(id);
  }

  async take(signal: AbortSignal): Promise<Iterable<StreamOffer>> {
    await this.#wakeup.wait(signal);
    const offers = this.#unheard;
    this.#unheard = new Map();
    return offers.values();
  }
}

/** Routes the store's requests for streams to the nodes that they name, as both come and go. */
export class Offers {
  readonly #view: View;
  readonly #listeners = new Map<string, Listener>();

  constructor(view: View) {
    this.#view = view;
  }

  /** Follows the store until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const changes = this.#view.changes(signal);
    for (const request of this.#view.streamRequests.values()) this.#offer(request);
    for await (const batch of changes) {
      for (const change of batch) {
        if (change.kind === "stream" && change.after) this.#offer(change.after);
        if (change.kind === "stream" && change.before) this.#listeners.get(change.before.nodeId)?.forget(change.id);
        if (change.kind === "manager") this.#offerOf(change.id);
      }
    }
  }

  /** What is wanted of a node, now and later. One stream per node: a new one ends the one before with `aborted`. */
  async *listen(nodeId: string, signal: AbortSignal): AsyncGenerator<StreamOffer, void, undefined> {
    const listener = new Listener();
    this.#listeners.get(nodeId)?.replaced.abort(new SwarmError("aborted", "a newer stream of this node replaced it"));
    this.#listeners.set(nodeId, listener);
    try {
      for (const request of this.#view.streamRequests.values()) {
        if (request.nodeId === nodeId) this.#offer(request);
      }
      const until = AbortSignal.any([signal, listener.replaced.signal]);
      while (true) yield* await listener.take(until);
    } finally {
      if (this.#listeners.get(nodeId) === listener) this.#listeners.delete(nodeId);
    }
  }

  #offerOf(managerId: string): void {
    for (const request of this.#view.streamRequests.values()) {
      if (request.managerId === managerId) this.#offer(request);
    }
  }

  /** A manager whose address is not known yet comes with a change. */
  #offer(request: StreamRequest): void {
    const address = this.#view.managers.get(request.managerId)?.address;
    if (address !== undefined) this.#listeners.get(request.nodeId)?.tell(request, address);
  }
}
