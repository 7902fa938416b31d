/**
 * Carries the streams that managers want from this node: a command's in a task, files of a task, the usage of the node's tasks.
 * A manager says that it wants one, the agent opens it to the manager that asked and hears there what it is for.
 *
 *   offer ──▶ carry: CarryStream to the manager that asked
 *               ├─ wire ──▶ requests (a few wait) ──▶ controller.exec │ controller.copy │ worker.usage
 *               └─ wire ◀──────────────────────────── the responses, at the wire's pace
 */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Backoff, type BackoffOptions } from "../common/base/backoff.ts";
import { abortReason, type Clock, withTimeout } from "../common/base/clock.ts";
import { AssertionFailure, SwarmError } from "../common/base/error.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Random } from "../common/base/random.ts";
import type { Scope } from "../common/base/scope.ts";
import { Pipe } from "../common/rpc/pipe.ts";
import { createClient } from "../common/rpc/service.ts";
import { statusOf } from "../common/rpc/status.ts";
import type { CopyRequest, ExecRequest } from "../proto/gen/swarm/v1/control_pb.js";
import {
  type AgentFrame,
  AgentFrameSchema,
  type ManagerFrame,
  type StatsQuestion,
  StreamBroker,
} from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { StreamRequest } from "../proto/gen/swarm/v1/objects_pb.js";
import type { TaskController } from "./executor.ts";
import type { Connect, Session } from "./session.ts";
import type { Worker } from "./worker.ts";

const LISTEN_RETRY: BackoffOptions = { delayMsMin: 1_000, delayMsMax: 30_000 };
/** Streams at once: each may stand for a process on this host and a connection, so a crowd must not starve the tasks. */
const STREAMS_MAX = 32;
/** Of those, for who watches what tasks use: however many watch, commands can still be run. */
const STATS_STREAMS_MAX = 16;
/** Tasks in one question: more than a host runs. Each takes 0.1 ms to answer. */
const STATS_TASKS_MAX = 4_096;
/** How long the manager that asked may take to say what it wants. */
const OPENING_MS_MAX = 10_000;
/** Requests that wait for the command: with 64 KiB each, all that a reader who stopped costs beyond the wire's windows. */
const REQUESTS_MAX = 4;

/** What a stream carrier needs. */
export interface StreamCarrierOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly connect: Connect;
  readonly worker: Pick<Worker, "controllerOf" | "usage" | "probe">;
  /** Owns the streams: they outlive the session in which they were asked for. */
  readonly scope: Scope;
}

export class StreamCarrier {
  readonly #options: StreamCarrierOptions;
  readonly #active = new Set<string>();
  #statsStreams = 0;

  constructor(options: StreamCarrierOptions) {
    this.#options = options;
  }

  /** Takes offers for one session until `signal` aborts. That streams fail never ends a session. */
  async serve(session: Session, signal: AbortSignal): Promise<void> {
    const { clock, random, logger } = this.#options;
    const backoff = new Backoff(LISTEN_RETRY, random);
    while (true) {
      try {
        await this.#listen(session, signal);
      } catch (reason) {
        if (signal.aborted || reason instanceof AssertionFailure) throw reason;
        logger.debug({ err: reason }, "offers of streams ended");
      }
      if (signal.aborted) throw abortReason(signal);
      await clock.sleep(backoff.nextDelayMs(), signal);
    }
  }

  async #listen({ nodeId, sessionId, streamBroker }: Session, signal: AbortSignal): Promise<void> {
    for await (const { request, managerAddress } of streamBroker.listenStreams({ nodeId, sessionId }, { signal })) {
      if (request && !this.#active.has(request.id)) this.#begin(nodeId, request, managerAddress);
    }
  }

  #begin(nodeId: string, request: StreamRequest, managerAddress: string): void {
    const { logger, scope } = this.#options;
    const { id: streamId, taskId } = request;
    this.#active.add(streamId);
    scope.spawn(`stream ${streamId}`, async (signal) => {
      try {
        await this.#carry(nodeId, request, managerAddress, signal);
      } catch (reason) {
        if (reason instanceof AssertionFailure) throw reason;
        // Whoever wanted it has left, most often.
        if (!signal.aborted) logger.debug({ streamId, taskId, err: reason }, "stream ended early");
      } finally {
        this.#active.delete(streamId);
      }
    });
  }

  /** Over a connection of its own, so that neither the session's end nor its other streams touch it. */
  async #carry(nodeId: string, request: StreamRequest, managerAddress: string, signal: AbortSignal): Promise<void> {
    const { clock, connect } = this.#options;
    await using transport = connect(managerAddress);
    const over = new AbortController();
    const until = AbortSignal.any([signal, over.signal]);
    const incoming = new Pipe<ManagerFrame>(REQUESTS_MAX);
    const opening = Promise.withResolvers<ManagerFrame>();
    opening.promise.catch(() => {});
    const outgoing = this.#outgoing(nodeId, request, { opening: opening.promise, incoming }, until);
    const frames = createClient(StreamBroker, transport)
      .carryStream(outgoing, { signal: until })
      [Symbol.asyncIterator]();
    try {
      const wait = { clock, timeoutMs: OPENING_MS_MAX, operation: `stream to manager ${managerAddress}` };
      const first = await withTimeout(wait, until, () => frames.next());
      if (first.done) return;
      opening.resolve(first.value);
      while (true) {
        const next = await frames.next();
        if (next.done) return;
        await incoming.write(next.value, until);
      }
    } catch (reason) {
      opening.reject(reason);
      throw reason;
    } finally {
      over.abort(new SwarmError("canceled", "the stream is over"));
      incoming.close();
      frames.return?.()?.catch(() => {});
    }
  }

  /** A failure is told as the last frame: a caller cannot end a call with a status of its own. */
  async *#outgoing(
    nodeId: string,
    { id: streamId, taskId }: StreamRequest,
    { opening, incoming }: { readonly opening: Promise<ManagerFrame>; readonly incoming: Pipe<ManagerFrame> },
    signal: AbortSignal,
  ): AsyncGenerator<MessageInitShape<typeof AgentFrameSchema>> {
    yield { content: { case: "greeting", value: { streamId, nodeId } } };
    try {
      yield* this.#respond(taskId, await opening, incoming, signal);
    } catch (reason) {
      if (signal.aborted || reason instanceof AssertionFailure) throw reason;
      const { code, details: message } = statusOf(SwarmError.from(reason, "internal"));
      yield { content: { case: "failure", value: { code, message } } };
    } finally {
      // Requests that nobody reads any more must not keep the wire from being read to its end.
      incoming.close();
    }
  }

  async *#respond(
    taskId: string,
    { content }: ManagerFrame,
    incoming: Pipe<ManagerFrame>,
    signal: AbortSignal,
  ): AsyncGenerator<AgentFrame> {
    if (this.#active.size > STREAMS_MAX) {
      throw new SwarmError("resource_exhausted", `${STREAMS_MAX} streams at once on this node, try again later`);
    }
    switch (content.case) {
      case "exec":
        return yield* this.#exec(taskId, content.value, incoming, signal);
      case "copy":
        return yield* this.#copy(taskId, content.value, incoming, signal);
      case "stats":
        return yield* this.#tellStats(content.value, incoming, signal);
      case "probe": {
        const results = [...(await this.#options.worker.probe(content.value.networkId, signal))];
        yield create(AgentFrameSchema, { content: { case: "probe", value: { results } } });
        return;
      }
      case undefined:
        throw new SwarmError("unimplemented", "a stream of a kind that this agent does not know");
    }
  }

  async *#exec(
    taskId: string,
    { content: first }: ExecRequest,
    incoming: Pipe<ManagerFrame>,
    signal: AbortSignal,
  ): AsyncGenerator<AgentFrame> {
    const controller = this.#controllerOf(taskId);
    if (first.case !== "start") throw new SwarmError("invalid_argument", "start: must be the first request");
    for await (const response of controller.exec(first.value, execRequests(incoming, signal), signal)) {
      yield create(AgentFrameSchema, { content: { case: "exec", value: response } });
    }
  }

  async *#copy(
    taskId: string,
    first: CopyRequest,
    incoming: Pipe<ManagerFrame>,
    signal: AbortSignal,
  ): AsyncGenerator<AgentFrame> {
    for await (const response of this.#controllerOf(taskId).copy(first, copyRequests(incoming, signal), signal)) {
      yield create(AgentFrameSchema, { content: { case: "copy", value: response } });
    }
  }

  #controllerOf(taskId: string): TaskController {
    const controller = this.#options.worker.controllerOf(taskId);
    if (controller) return controller;
    throw new SwarmError("not_found", `task ${taskId} is not on this node`);
  }

  /** One answer for each question, until there are no more. */
  async *#tellStats(
    first: StatsQuestion,
    incoming: Pipe<ManagerFrame>,
    signal: AbortSignal,
  ): AsyncGenerator<AgentFrame> {
    if (this.#statsStreams >= STATS_STREAMS_MAX) {
      throw new SwarmError("resource_exhausted", `${STATS_STREAMS_MAX} watch this node's stats already`);
    }
    this.#statsStreams += 1;
    try {
      yield await this.#statsAnswer(first, signal);
      for await (const { content } of incoming.read(signal)) {
        if (content.case === "stats") yield await this.#statsAnswer(content.value, signal);
      }
    } finally {
      this.#statsStreams -= 1;
    }
  }

  async #statsAnswer({ taskIds }: StatsQuestion, signal: AbortSignal): Promise<AgentFrame> {
    if (taskIds.length > STATS_TASKS_MAX) {
      throw new SwarmError("invalid_argument", `task_ids: at most ${STATS_TASKS_MAX} at a time`);
    }
    const tasks = [...(await this.#options.worker.usage(taskIds, signal))];
    return create(AgentFrameSchema, { content: { case: "stats", value: { tasks } } });
  }
}

async function* copyRequests(incoming: Pipe<ManagerFrame>, signal: AbortSignal): AsyncGenerator<CopyRequest> {
  for await (const { content } of incoming.read(signal)) if (content.case === "copy") yield content.value;
}

async function* execRequests(incoming: Pipe<ManagerFrame>, signal: AbortSignal): AsyncGenerator<ExecRequest> {
  for await (const { content } of incoming.read(signal)) if (content.case === "exec") yield content.value;
}
