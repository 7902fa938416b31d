/** Both ends of the stream broker in one manager: who wants a stream calls `open`, agents come through the service. */
import { create } from "@bufbuild/protobuf";
import { abortable, type Clock, withTimeout } from "../../common/base/clock.ts";
import { AssertionFailure, SwarmError } from "../../common/base/error.ts";
import { newId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { untilAborted } from "../../common/base/until-aborted.ts";
import { WorkQueue } from "../../common/base/work-queue.ts";
import type { CallContext, Peer, ServiceImplementation } from "../../common/rpc/service.ts";
import { errorOfStatus } from "../../common/rpc/status.ts";
import type { AgentFrame, ManagerFrame, StreamBroker, StreamFailure } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import { StreamRequestSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { requireNode } from "../require-node.ts";
import type { LeaseId } from "../store/kv.ts";
import type { Store } from "../store/store.ts";
import { Offers } from "./offers.ts";

/** What a hub needs. */
export interface StreamHubOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly managerId: string;
  /** This manager's: its requests vanish with it. */
  readonly lease: LeaseId;
  /** Aborts when the node's session with this manager ends. Throws `failed_precondition` when it has no such session. */
  readonly sessionSignal: (nodeId: string, sessionId: string) => AbortSignal;
}

/**
 * Streams at once through this manager, by what they are about. Each holds two calls; one about a task also what their windows
 * buffer, about 1 MiB at worst, while what is said about a node is small. Either kind leaves the other its room.
 */
const STREAMS_MAX = { task: 128, node: 256 } as const;
/** How long an agent may take to open its stream. */
const ANSWER_MS_MAX = 5_000;

/** Where a stream leads. */
export interface StreamPlace {
  readonly nodeId: string;
  /** Absent: it is about the node. */
  readonly taskId?: string;
}

/** A stream that is wanted, until its agent comes and takes it. */
interface Wanted extends StreamPlace {
  readonly outgoing: AsyncIterable<ManagerFrame>;
  /** Whoever wanted it has gone, or has had all. */
  readonly over: AbortSignal;
  readonly came: (frames: AsyncIterable<AgentFrame>) => void;
}

/** How a stream ends that was read to its end. */
const COMPLETE = new SwarmError("canceled", "the stream is complete");

/**
 *     wanter ──open──▶ hub ──StreamRequest──▶ store ──▶ every manager's offers ──▶ its agents
 *        ▲ │            ▲                                                              │
 *        │ └─ outgoing ─┴──────────── CarryStream ◀──────────────────── the one agent ─┘
 *        └─── incoming ─────────────────┘
 */
export class StreamHub {
  /** To be served to agents. */
  readonly implementation: ServiceImplementation<typeof StreamBroker>;
  readonly #options: StreamHubOptions;
  readonly #offers: Offers;
  readonly #wanted = new Map<string, Wanted>();
  /** Requests that are over, to be taken out of the store. */
  readonly #ended: WorkQueue<string>;
  readonly #stop = new AbortController();
  readonly #open = { task: 0, node: 0 };

  constructor(options: StreamHubOptions) {
    this.#options = options;
    this.#offers = new Offers(options.store.view);
    this.#ended = new WorkQueue(options.clock, options.random);
    this.implementation = {
      listenStreams: ({ nodeId, sessionId }, context) => this.#listen(nodeId, sessionId, context),
      carryStream: (frames, { peer, signal }) => this.#carry(frames, peer, signal),
    };
  }

  /** Routes requests, and clears up behind them, until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    await using scope = new Scope(signal);
    scope.spawn("offer streams", (until) => this.#offers.run(until));
    scope.spawn("delete stream requests", (until) => this.#deleteEnded(until));
    try {
      await scope.join();
    } finally {
      this.#stop.abort(new SwarmError("unavailable", "this manager has lost touch with the store, or stops"));
    }
  }

  /**
   * A stream to the agent of a node: sends `outgoing` at the agent's pace, gives what the agent sends at the pace of
   * who iterates, and reads neither ahead. Ends when the agent has sent all; leaving it, or `caller`, ends it at once.
   * @throws unavailable: the node cannot be asked, does not answer within 5 s, or was lost. resource_exhausted: one too many.
   */
  async *open(
    place: StreamPlace,
    outgoing: AsyncIterable<ManagerFrame>,
    caller: AbortSignal,
  ): AsyncGenerator<AgentFrame, void, undefined> {
    const signal = AbortSignal.any([caller, this.#stop.signal]);
    const { store, clock, random, managerId, lease } = this.#options;
    const { nodeId, taskId = "" } = place;
    const kind = taskId === "" ? "node" : "task";
    const hostname = store.view.nodes.get(nodeId)?.description?.hostname || nodeId;
    if (!store.view.sessions.has(nodeId)) throw new SwarmError("unavailable", `node ${hostname} is not connected`);
    if (this.#open[kind] >= STREAMS_MAX[kind]) {
      const count = `${STREAMS_MAX[kind]} streams to ${kind}s at once`;
      throw new SwarmError("resource_exhausted", `${count} through this manager, try again later`);
    }
    const id = newId(random);
    const over = new AbortController();
    const arrival = Promise.withResolvers<AsyncIterable<AgentFrame>>();
    this.#open[kind]++;
    this.#wanted.set(id, { ...place, outgoing, over: over.signal, came: arrival.resolve });
    try {
      const request = create(StreamRequestSchema, { id, managerId, nodeId, taskId });
      await store.commit([{ type: "create", kind: "stream", object: request, lease }], { signal });
      const wait = { clock, timeoutMs: ANSWER_MS_MAX, operation: `node ${hostname}` };
      const frames = await withTimeout(wait, signal, () => arrival.promise).catch((reason) => {
        throw signal.aborted ? reason : new SwarmError("unavailable", SwarmError.from(reason).message);
      });
      yield* this.#incoming(frames, hostname, signal);
      over.abort(COMPLETE);
    } finally {
      over.abort(new SwarmError("canceled", "whoever wanted the stream has gone"));
      this.#open[kind]--;
      this.#wanted.delete(id);
      this.#ended.add(id);
    }
  }

  /** The agent's own refusals keep their code and words; a broken connection is said to be one. */
  async *#incoming(frames: AsyncIterable<AgentFrame>, hostname: string, signal: AbortSignal) {
    let failure: StreamFailure | undefined;
    try {
      for await (const frame of untilAborted(frames, signal)) {
        if (frame.content.case === "failure") failure = frame.content.value;
        else yield frame;
      }
    } catch (reason) {
      if (signal.aborted || reason instanceof AssertionFailure) throw reason;
      throw new SwarmError("unavailable", `lost node ${hostname}: ${SwarmError.from(reason).message}`, {
        cause: reason,
      });
    }
    if (failure) throw errorOfStatus({ code: failure.code, details: failure.message });
  }

  async *#listen(nodeId: string, sessionId: string, { signal, peer }: CallContext) {
    requireNode(peer, nodeId);
    const session = this.#options.sessionSignal(nodeId, sessionId);
    yield* this.#offers.listen(nodeId, AbortSignal.any([signal, session]));
  }

  /** The agent's end: its frames go to whoever wanted them, whose frames go to it. */
  async *#carry(frames: AsyncIterable<AgentFrame>, peer: Peer, signal: AbortSignal) {
    const incoming = frames[Symbol.asyncIterator]();
    const { value: first } = await incoming.next();
    const greeting = first?.content.case === "greeting" ? first.content.value : undefined;
    if (!greeting) throw new SwarmError("invalid_argument", "a stream begins with a greeting");
    requireNode(peer, greeting.nodeId);
    const wanted = this.#wanted.get(greeting.streamId);
    if (!wanted || wanted.nodeId !== greeting.nodeId)
      throw new SwarmError("not_found", "the stream is not wanted any more");
    this.#wanted.delete(greeting.streamId);
    wanted.came(restOf(incoming));
    const until = AbortSignal.any([signal, wanted.over]);
    try {
      yield* untilAborted(wanted.outgoing, until);
      // All is said, but the answers are still being read.
      await abortable(new Promise<never>(() => {}), until);
    } catch (reason) {
      if (wanted.over.reason !== COMPLETE) throw reason;
    }
  }

  /** A key that cannot be deleted now is tried again; with the manager's lease it goes in any case. */
  async #deleteEnded(signal: AbortSignal): Promise<void> {
    const { store, logger } = this.#options;
    try {
      while (true) {
        await this.#ended.ready(signal);
        for (const id of this.#ended.takeAll()) {
          try {
            await store.commit([{ type: "delete", kind: "stream", id }], { wait: false, signal });
            this.#ended.done(id, "succeeded");
          } catch (reason) {
            if (signal.aborted || reason instanceof AssertionFailure) throw reason;
            logger.debug({ streamId: id, err: reason }, "stream request not deleted");
            this.#ended.done(id, "failed");
          }
        }
      }
    } finally {
      this.#ended.stop();
    }
  }
}

function restOf<T>(iterator: AsyncIterator<T>): AsyncIterable<T> {
  return { [Symbol.asyncIterator]: () => iterator };
}
