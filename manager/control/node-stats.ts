/** One node's answers to what its tasks use: a stream that is asked again and again. */
import { create } from "@bufbuild/protobuf";
import { AssertionFailure, SwarmError } from "../../common/base/error.ts";
import { Pipe } from "../../common/rpc/pipe.ts";
import type { TaskUsage } from "../../proto/gen/swarm/v1/control_pb.js";
import { type ManagerFrame, ManagerFrameSchema } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { StreamSource } from "./dependencies.ts";

/** Asks one question at a time. Once it has failed it stays so: another takes its place. */
export class NodeStats {
  readonly nodeId: string;
  readonly #questions = new Pipe<ManagerFrame>(1);
  /** Ends the stream: that nothing more is asked does not. */
  readonly #over = new AbortController();
  #pending: PromiseWithResolvers<readonly TaskUsage[]> | undefined;
  #failure: SwarmError | undefined;
  #answered = false;

  constructor(nodeId: string) {
    this.nodeId = nodeId;
  }

  get failure(): SwarmError | undefined {
    return this.#failure;
  }

  /** Whether it has ever answered: a stream that broke later is worth another one at once. */
  get answered(): boolean {
    return this.#answered;
  }

  /** Carries questions and answers until the stream ends, is closed, or `signal` aborts. Needs an owner. */
  async run(streams: StreamSource, signal: AbortSignal): Promise<void> {
    const until = AbortSignal.any([signal, this.#over.signal]);
    try {
      const questions = this.#questions.read(until);
      for await (const { content } of streams.open({ nodeId: this.nodeId }, questions, until)) {
        if (content.case !== "stats") continue;
        this.#answered = true;
        this.#pending?.resolve(content.value.tasks);
        this.#pending = undefined;
      }
      this.#fail(new SwarmError("unavailable", "the node's stream ended"));
    } catch (reason) {
      if (reason instanceof AssertionFailure) throw reason;
      this.#fail(SwarmError.from(reason));
    }
  }

  /** The usage of these tasks. While an answer is owed nothing more is asked, and that answer is given. */
  async ask(taskIds: readonly string[], signal: AbortSignal): Promise<readonly TaskUsage[]> {
    if (this.#failure) throw this.#failure;
    if (this.#pending) return await this.#pending.promise;
    const pending = Promise.withResolvers<readonly TaskUsage[]>();
    pending.promise.catch(() => {});
    this.#pending = pending;
    const question = create(ManagerFrameSchema, { content: { case: "stats", value: { taskIds: [...taskIds] } } });
    await this.#questions.write(question, signal);
    return await pending.promise;
  }

  /** Ends the stream. */
  close(): void {
    this.#fail(new SwarmError("canceled", "nobody asks any more"));
  }

  #fail(reason: SwarmError): void {
    this.#failure ??= reason;
    this.#over.abort(this.#failure);
    this.#pending?.reject(this.#failure);
    this.#pending = undefined;
  }
}
