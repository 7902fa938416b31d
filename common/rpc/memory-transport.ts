/**
 * Calls inside one process, for simulations and tests: the same contract as gRPC, with every message turned into bytes
 * and back so that the two ends share no object. The link between them is handed in: it delays, drops and partitions.
 * The only time is the Clock's.
 */
import type { DescMessage, DescMethod, DescService, Message, MessageInitShape } from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import { abortable, abortReason, type Clock, systemClock } from "../base/clock.ts";
import { AssertionFailure, SwarmError } from "../base/error.ts";
import { type Logger, silentLogger } from "../base/logger.ts";
import {
  decodeMessage,
  encodeMessage,
  RECEIVE_BYTES_MAX_CLIENT,
  requestBytesMax,
  tooLarge,
  UNARY_TIMEOUT_MS,
} from "./codec.ts";
import { Pipe } from "./pipe.ts";
import type { CallContext, CallOptions, Peer, ServiceImplementation, Transport } from "./service.ts";
import { errorOfStatus, statusOf } from "./status.ts";

/** One message on its way. */
export interface Passage {
  readonly from: string;
  readonly to: string;
  readonly direction: "request" | "response";
}

/** Lets a message pass: resolves when it arrives (latency), rejects with `unavailable` when the connection breaks. */
export type Link = (passage: Passage, signal: AbortSignal) => Promise<void>;

/** What a network of processes in memory is made of. */
export interface MemoryNetworkOptions {
  readonly clock?: Clock;
  /** Default: every message arrives at once. */
  readonly link?: Link;
  readonly logger?: Logger;
}

/** Messages that may be under way in one stream: what sockets and HTTP/2 windows buffer in life. */
const WINDOW = 16;

type Answer = MessageInitShape<DescMessage>;
type Methods = ReadonlyMap<string, unknown>;

interface Connection {
  readonly from: string;
  readonly to: string;
  readonly controller: AbortController;
}

/** Processes by name, some of which serve. */
export class MemoryNetwork {
  readonly #clock: Clock;
  readonly #link: Link;
  readonly #logger: Logger;
  readonly #servers = new Map<string, MemoryServer>();
  readonly #connections = new Set<Connection>();

  constructor(options: MemoryNetworkOptions = {}) {
    this.#clock = options.clock ?? systemClock;
    this.#link = options.link ?? (async () => {});
    this.#logger = options.logger ?? silentLogger;
  }

  /** A server at `address`; it takes calls until it is disposed. Fails with `already_exists` when one is there. */
  serve(address: string): MemoryServer {
    if (this.#servers.has(address)) throw new SwarmError("already_exists", `listen on ${address}: address in use`);
    const server = new MemoryServer(() => {
      this.#servers.delete(address);
      this.disconnect(address);
    });
    this.#servers.set(address, server);
    return server;
  }

  /** A transport of the process `from` to the server at `to`, which sees its caller as "memory:<from>". */
  transport(from: string, to: string, identity?: Peer["identity"]): Transport {
    const peer: Peer = { address: `memory:${from}`, ...(identity ? { identity } : {}) };
    return new MemoryTransport({
      peer,
      clock: this.#clock,
      logger: this.#logger,
      methodOf: (method) => this.#methodOf(to, method),
      pass: (direction, signal) =>
        this.#link(direction === "request" ? { from, to, direction } : { from: to, to: from, direction }, signal),
      connect: () => {
        const connection: Connection = { from, to, controller: new AbortController() };
        this.#connections.add(connection);
        return { signal: connection.controller.signal, close: () => this.#connections.delete(connection) };
      },
    });
  }

  /** Breaks every call from or to `name`, or between it and `other` only: a crash, or a reset connection. */
  disconnect(name: string, other?: string): void {
    for (const { from, to, controller } of this.#connections) {
      const touches = other === undefined ? from === name || to === name : isBetween({ from, to }, name, other);
      if (touches) controller.abort(new SwarmError("unavailable", `connection between ${from} and ${to} broke`));
    }
  }

  #methodOf(address: string, method: DescMethod): unknown {
    const server = this.#servers.get(address);
    if (!server) throw new SwarmError("unavailable", `connect to ${address}: connection refused`);
    const path = pathOf(method);
    const found = server.methods.get(path);
    if (!found) throw new SwarmError("unimplemented", `the server does not implement ${path}`);
    return found;
  }
}

function isBetween(connection: { readonly from: string; readonly to: string }, one: string, other: string): boolean {
  const { from, to } = connection;
  return (from === one && to === other) || (from === other && to === one);
}

/** One process's services. */
export class MemoryServer implements AsyncDisposable {
  readonly #methods = new Map<string, unknown>();
  readonly #close: () => void;

  constructor(close: () => void) {
    this.#close = close;
  }

  get methods(): Methods {
    return this.#methods;
  }

  /** Serves every method of `service` with the function of the same name. */
  addService<S extends GenService<GenServiceMethods>>(service: S, implementation: ServiceImplementation<S>): void {
    const functions = implementation as Readonly<Record<string, unknown>>;
    for (const method of (service as DescService).methods) {
      this.#methods.set(pathOf(method), functions[method.localName]);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#close();
  }
}

interface Wire {
  readonly peer: Peer;
  readonly clock: Clock;
  readonly logger: Logger;
  methodOf(method: DescMethod): unknown;
  pass(direction: Passage["direction"], signal: AbortSignal): Promise<void>;
  connect(): { readonly signal: AbortSignal; close(): void };
}

class MemoryTransport implements Transport {
  readonly #wire: Wire;
  readonly #closing = new AbortController();

  constructor(wire: Wire) {
    this.#wire = wire;
  }

  async unary(method: DescMethod, request: Message, options: CallOptions): Promise<Message> {
    return this.#call(method, { timeoutMs: UNARY_TIMEOUT_MS, ...options }, async (context) => {
      const bytes = encodeMessage(method.input, request);
      await this.#wire.pass("request", context.signal);
      const run = this.#wire.methodOf(method) as (request: Message, context: CallContext) => Promise<Answer>;
      return this.#answer(
        method,
        await run(receive(method.input, bytes, requestBytesMax(method.input)), context),
        context,
      );
    });
  }

  async clientStream(method: DescMethod, requests: AsyncIterable<Message>, options: CallOptions): Promise<Message> {
    const pipe = new Pipe<Message>(WINDOW);
    const iterator = requests[Symbol.asyncIterator]();
    try {
      return await this.#call(method, options, async (context) => {
        await this.#wire.pass("request", context.signal);
        const run = this.#wire.methodOf(method) as (
          requests: AsyncIterable<Message>,
          context: CallContext,
        ) => Promise<Answer>;
        const sending = this.#send(iterator, method.input, pipe, { direction: "request", signal: context.signal });
        const answering = run(pipe.read(context.signal), context);
        // The answer decides; a source that fails ends the call with its own failure.
        const failed = sending.then(() => new Promise<never>(() => {}));
        return this.#answer(method, await Promise.race([answering, failed]), context);
      });
    } finally {
      pipe.close();
      iterator.return?.()?.catch(() => {});
    }
  }

  async *serverStream(method: DescMethod, request: Message, options: CallOptions): AsyncIterable<Message> {
    const call = this.#open(method, options);
    const { context } = call;
    const pipe = new Pipe<Message>(WINDOW);
    const produce = async () => {
      const bytes = encodeMessage(method.input, request);
      await this.#wire.pass("request", context.signal);
      const run = this.#wire.methodOf(method) as (request: Message, context: CallContext) => AsyncIterable<Answer>;
      const responses = run(receive(method.input, bytes, requestBytesMax(method.input)), context);
      const iterator = responses[Symbol.asyncIterator]();
      try {
        await this.#send(iterator, method.output, pipe, { direction: "response", signal: context.signal });
      } finally {
        iterator.return?.()?.catch(() => {});
      }
    };
    const produced = produce().then(
      () => pipe.close(),
      (reason: unknown) => pipe.close(this.#asSent(method, reason)),
    );
    try {
      yield* pipe.read(context.signal);
    } catch (reason) {
      throw call.failure(reason);
    } finally {
      call.end();
      await produced;
    }
  }

  async *bidiStream(
    method: DescMethod,
    requests: AsyncIterable<Message>,
    options: CallOptions,
  ): AsyncIterable<Message> {
    const call = this.#open(method, options);
    const { context } = call;
    const up = new Pipe<Message>(WINDOW);
    const down = new Pipe<Message>(WINDOW);
    const source = requests[Symbol.asyncIterator]();
    const produce = async () => {
      await this.#wire.pass("request", context.signal);
      const run = this.#wire.methodOf(method) as (
        requests: AsyncIterable<Message>,
        context: CallContext,
      ) => AsyncIterable<Answer>;
      const sending = this.#send(source, method.input, up, { direction: "request", signal: context.signal });
      const responses = run(up.read(context.signal), context)[Symbol.asyncIterator]();
      // A source that fails ends the call with its own failure.
      const failed = sending.then(() => new Promise<never>(() => {}));
      const on = { direction: "response", signal: context.signal } as const;
      try {
        await Promise.race([this.#send(responses, method.output, down, on), failed]);
      } finally {
        responses.return?.()?.catch(() => {});
      }
    };
    const produced = produce().then(
      () => down.close(),
      (reason: unknown) => down.close(this.#asSent(method, reason)),
    );
    try {
      yield* down.read(context.signal);
    } catch (reason) {
      throw call.failure(reason);
    } finally {
      call.end();
      up.close();
      source.return?.()?.catch(() => {});
      await produced;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new SwarmError("canceled", "transport is closed"));
  }

  async #call(
    method: DescMethod,
    options: CallOptions,
    run: (context: CallContext) => Promise<Message>,
  ): Promise<Message> {
    const call = this.#open(method, options);
    try {
      return await abortable(run(call.context), call.context.signal);
    } catch (reason) {
      throw call.failure(this.#asSent(method, reason));
    } finally {
      call.end();
    }
  }

  /** Moves what `iterator` gives through the wire into `pipe`, at the pace of the pipe's reader. */
  async #send(
    iterator: AsyncIterator<Answer>,
    schema: DescMessage,
    pipe: Pipe<Message>,
    on: { readonly direction: Passage["direction"]; readonly signal: AbortSignal },
  ): Promise<void> {
    const limit = on.direction === "request" ? requestBytesMax(schema) : RECEIVE_BYTES_MAX_CLIENT;
    while (true) {
      const next = await abortable(iterator.next(), on.signal);
      if (next.done) break;
      const bytes = encodeMessage(schema, next.value);
      await this.#wire.pass(on.direction, on.signal);
      await pipe.write(receive(schema, bytes, limit), on.signal);
    }
    pipe.close();
  }

  async #answer(method: DescMethod, answer: Answer, context: CallContext): Promise<Message> {
    const bytes = encodeMessage(method.output, answer);
    await this.#wire.pass("response", context.signal);
    return receive(method.output, bytes, RECEIVE_BYTES_MAX_CLIENT);
  }

  /** The error as the other end would see it: code and message, no cause; a bug of the server says nothing more. */
  #asSent(method: DescMethod, reason: unknown): SwarmError {
    // A simulation wants to die of a broken invariant, not to see it as one more failed call.
    if (reason instanceof AssertionFailure) throw reason;
    if (reason instanceof SwarmError) return errorOfStatus(statusOf(reason));
    this.#wire.logger.error({ err: reason, method: method.name }, "call failed by a bug");
    return new SwarmError("internal", "internal error; the manager's log has the details");
  }

  /** One call: a signal that joins caller, deadline, connection and transport, and whose it was when it ended. */
  #open(method: DescMethod, options: CallOptions) {
    const connection = this.#wire.connect();
    const controller = new AbortController();
    const timer = new AbortController();
    const sources = [options.signal, connection.signal, this.#closing.signal].filter((signal) => signal !== undefined);
    const stop = () => controller.abort(sources.find((signal) => signal.aborted)?.reason);
    for (const source of sources) source.addEventListener("abort", stop, { once: true });
    if (sources.some((source) => source.aborted)) stop();
    const { timeoutMs } = options;
    if (timeoutMs !== undefined) {
      this.#wire.clock.sleep(timeoutMs, timer.signal).then(
        () => controller.abort(new SwarmError("deadline_exceeded", `${pathOf(method)}: no answer in ${timeoutMs} ms`)),
        () => {},
      );
    }
    return {
      context: { signal: controller.signal, peer: this.#wire.peer } satisfies CallContext,
      failure: (reason: unknown) =>
        controller.signal.aborted ? abortReason(controller.signal) : SwarmError.from(reason),
      end: () => {
        for (const source of sources) source.removeEventListener("abort", stop);
        timer.abort();
        connection.close();
        controller.abort(new SwarmError("canceled", "call ended"));
      },
    };
  }
}

function receive(schema: DescMessage, bytes: Uint8Array, limit: number): Message {
  if (bytes.length > limit) {
    throw tooLarge(bytes.length, limit);
  }
  return decodeMessage(schema, bytes);
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}
