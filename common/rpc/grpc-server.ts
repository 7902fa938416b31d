/**
 * Services over gRPC. It turns grpc-js's callbacks and emitters into the promises, async iterables and signals of
 * `service.ts`, bounds what a caller may cost, and lets no failure of one call touch another.
 */
import type { X509Certificate } from "node:crypto";
import type { DescMessage, DescMethod, DescService, Message, MessageInitShape } from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import {
  type Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerErrorResponse,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  type UntypedHandleCall,
} from "@grpc/grpc-js";
import { abortable, abortReason, type Clock, systemClock } from "../base/clock.ts";
import { SwarmError } from "../base/error.ts";
import { parseHostPort } from "../base/host-port.ts";
import type { Logger } from "../base/logger.ts";
import { type Random, systemRandom } from "../base/random.ts";
import { Admission } from "./admission.ts";
import { decodeMessage, encodeMessage, RECEIVE_BYTES_MAX_STACK } from "./codec.ts";
import { ConnectionAge } from "./connection-age.ts";
import type { DoorLimits } from "./door-book.ts";
import { bufferOf } from "./grpc-transport.ts";
import type { CallContext, Peer, PeerIdentity, ServiceImplementation } from "./service.ts";
import { errorOfStatus, statusOf, type WireStatus } from "./status.ts";
import type { MutualTls } from "./tls.ts";
import { TlsDoor, type TlsDoorOptions } from "./tls-door.ts";
import { claimUnixSocket } from "./unix-socket.ts";

/** What a server allows its callers. */
export interface GrpcServerOptions {
  readonly logger: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Absent: plaintext, for unix sockets. */
  readonly tls?: MutualTls;
  /** How many connections may come over TLS. Default `DOOR_LIMITS`. */
  readonly limits?: DoorLimits;
  /** Who somebody is by a certificate that TLS has verified. Absent: nobody has an identity. Throws to refuse the call. */
  readonly identify?: (certificate: X509Certificate) => PeerIdentity;
  /** Who everybody is that comes through this door, where `identify` does not say: a socket's permissions let in one party. */
  readonly identity?: PeerIdentity;
  /** Throws `unauthenticated` or `permission_denied` for a call that the peer may not make. Absent: everybody may. */
  readonly authorize?: (method: DescMethod, peer: Peer) => void;
  /**
   * How long one connection may live, in ms, with 30 s of grace. It spreads agents over managers again and brings new
   * certificates into force; shorter means needless reconnecting. Absent: for ever (unix sockets: a person following
   * logs keeps following). Agents' servers pass an hour.
   */
  readonly connectionAgeMsMax?: number;
}

/**
 * Streams that one connection may have open. An agent needs about six and as many more as it fetches layers and sends
 * logs; each costs the server memory.
 */
const STREAMS_PER_CONNECTION_MAX = 200;

/**
 * What HTTP/2 may hold for one connection, in MB: headers, and answers that wait to be read. Above it new streams are refused
 * (ENHANCE_YOUR_CALM); messages of 1 MiB on all the streams that an agent has come to a tenth.
 */
const SESSION_MEGABYTES_MAX = 64;

/** How long calls in flight get to see their signal and finish once the server stops. */
const STOP_GRACE_MS = 500;

/** Why the signal of a call that is over aborts: one for all, since an error is dear to make (its stack). */
const CALL_ENDED = new SwarmError("canceled", "call ended");

/** What a method answers with: a message, or what makes one. */
type Answer = MessageInitShape<DescMessage>;

/** What all of grpc-js's server calls have in common. */
interface ServerCall {
  readonly metadata: Metadata;
  on(event: "cancelled", listener: () => void): unknown;
  getDeadline(): Date | number;
}

/** A gRPC server: add services, listen, dispose. */
export class GrpcServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #tls: Pick<GrpcServerOptions, "tls" | "limits">;
  readonly #admission: Admission;
  readonly #doors: TlsDoor[] = [];
  /** Ends the calls that are open; a listener of one signal would be looked for among those of all calls. */
  readonly #stops = new Set<() => void>();
  #isStopping = false;

  constructor(options: GrpcServerOptions) {
    this.#logger = options.logger;
    this.#clock = options.clock ?? systemClock;
    const { tls, limits, identify, identity, authorize } = options;
    this.#tls = { ...(tls && { tls }), ...(limits && { limits }) };
    const statusOf = (method: DescMethod, reason: unknown) => this.#statusOf(method, reason);
    const { connectionAgeMsMax: ageMsMax, random = systemRandom } = options;
    const age = ageMsMax === undefined ? undefined : new ConnectionAge({ clock: this.#clock, random, ageMsMax });
    this.#admission = new Admission({ clock: this.#clock, identify, identity, authorize, age, statusOf });
    this.#server = new Server({
      interceptors: [this.#admission.interceptor],
      "grpc.max_receive_message_length": RECEIVE_BYTES_MAX_STACK,
      "grpc.max_concurrent_streams": STREAMS_PER_CONNECTION_MAX,
      "grpc-node.max_session_memory": SESSION_MEGABYTES_MAX,
      "grpc.keepalive_time_ms": 10_000,
      "grpc.keepalive_timeout_ms": 5_000,
      "grpc.enable_channelz": 0,
    });
  }

  /** Serves every method of `service` with the function of the same name. */
  addService<S extends GenService<GenServiceMethods>>(service: S, implementation: ServiceImplementation<S>): void {
    const methods = implementation as Readonly<Record<string, unknown>>;
    const definition: Record<string, ReturnType<typeof definitionOf>> = {};
    const handlers: Record<string, UntypedHandleCall> = {};
    for (const method of (service as DescService).methods) {
      const defined = definitionOf(method);
      definition[method.localName] = defined;
      this.#admission.add(defined.path, method);
      handlers[method.localName] = this.#handlerOf(method, methods[method.localName]);
    }
    this.#server.addService(definition, handlers);
  }

  /**
   * Binds "host:port" (port 0 takes a free one) or "unix:/path" (mode 0600; a socket that nobody answers is replaced)
   * and returns the bound address. Fails with `already_exists` when a live server has it.
   */
  async listen(address: string): Promise<string> {
    const path = address.startsWith("unix:") ? address.slice("unix:".length) : undefined;
    const claim = path === undefined ? undefined : await claimUnixSocket(path);
    try {
      const port = await this.#bind(address);
      await claim?.secure();
      return path === undefined ? `${address.slice(0, address.lastIndexOf(":"))}:${port}` : address;
    } finally {
      claim?.release();
    }
  }

  /** Tells every call to stop, gives them half a second, then closes all connections. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isStopping = true;
    for (const stop of [...this.#stops]) stop();
    for (const door of this.#doors) door.close();
    const graceful = new Promise<void>((resolve) => this.#server.tryShutdown(() => resolve()));
    const timer = new AbortController();
    const forced = this.#clock.sleep(STOP_GRACE_MS, timer.signal).then(
      () => this.#server.forceShutdown(),
      () => {},
    );
    await Promise.race([graceful, forced]);
    timer.abort();
    this.#server.forceShutdown();
    for (const door of this.#doors) door[Symbol.dispose]();
  }

  async #bind(address: string): Promise<number> {
    const { tls, limits } = this.#tls;
    if (tls) return await this.#openDoor(address, { tls, ...(limits && { limits }) });
    return await new Promise((resolve, reject) => {
      this.#server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) => {
        if (error) reject(bindError(address, error));
        else resolve(port);
      });
    });
  }

  async #openDoor(address: string, options: Pick<TlsDoorOptions, "tls" | "limits">): Promise<number> {
    const place = parseHostPort(address);
    if (!place) throw new SwarmError("invalid_argument", `listen on ${address}: is not HOST:PORT`);
    // grpc-js sees no TLS: it is handed connections that have it behind them.
    const { injectConnection } = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    const door = new TlsDoor({ ...options, logger: this.#logger, clock: this.#clock, enter: injectConnection });
    this.#doors.push(door);
    try {
      return await door.listen(place);
    } catch (reason) {
      throw bindError(address, SwarmError.from(reason));
    }
  }

  #handlerOf(method: DescMethod, implementation: unknown): UntypedHandleCall {
    switch (method.methodKind) {
      case "unary": {
        const run = implementation as (request: Message, context: CallContext) => Promise<Answer>;
        return (call: ServerUnaryCall<Message, Answer>, callback: sendUnaryData<Answer>) => {
          void this.#answer(method, call, callback, (context) => run(accepted(call.request), context));
        };
      }
      case "client_streaming": {
        const run = implementation as (requests: AsyncIterable<Message>, context: CallContext) => Promise<Answer>;
        return (call: ServerReadableStream<Message, Answer>, callback: sendUnaryData<Answer>) => {
          void this.#answer(method, call, callback, (context) => run(readAll(call, context.signal), context));
        };
      }
      case "server_streaming": {
        const run = implementation as (request: Message, context: CallContext) => AsyncIterable<Answer>;
        return (call: ServerWritableStream<Message, Answer>) => {
          void this.#stream(method, call, (context) => run(accepted(call.request), context));
        };
      }
      case "bidi_streaming": {
        const run = implementation as (requests: AsyncIterable<Message>, context: CallContext) => AsyncIterable<Answer>;
        return (call: ServerDuplexStream<Message, Answer>) => {
          void this.#stream(method, call, (context) => run(readAll(call, context.signal), context));
        };
      }
    }
  }

  async #answer(
    method: DescMethod,
    call: ServerUnaryCall<Message, Answer> | ServerReadableStream<Message, Answer>,
    callback: sendUnaryData<Answer>,
    run: (context: CallContext) => Promise<Answer>,
  ): Promise<void> {
    const { context, end } = this.#open(call);
    try {
      const response = await abortable(run(context), context.signal);
      callback(null, response);
    } catch (reason) {
      callback(asServerError(this.#statusOf(method, reason)));
    } finally {
      end();
    }
  }

  async #stream(
    method: DescMethod,
    call: ServerWritableStream<Message, Answer> | ServerDuplexStream<Message, Answer>,
    run: (context: CallContext) => AsyncIterable<Answer>,
  ): Promise<void> {
    const { context, end } = this.#open(call);
    const { signal } = context;
    let iterator: AsyncIterator<Answer> | undefined;
    try {
      iterator = run(context)[Symbol.asyncIterator]();
      while (true) {
        const next = await abortable(iterator.next(), signal);
        if (next.done) break;
        if (!call.write(next.value)) await abortable(drained(call), signal);
      }
      iterator = undefined;
      call.end();
    } catch (reason) {
      call.emit("error", asServerError(this.#statusOf(method, reason)));
    } finally {
      // Whoever produces learns that nobody reads: its `finally` blocks run now or when what it awaits has settled.
      iterator?.return?.()?.catch(() => {});
      end();
    }
  }

  /** The context of one call; `end` takes its listeners away and aborts whatever the call left running. */
  #open(call: ServerCall) {
    const controller = new AbortController();
    const stop = () => controller.abort(new SwarmError("unavailable", "server is stopping"));
    if (this.#isStopping) stop();
    this.#stops.add(stop);
    call.on("cancelled", () => {
      const deadline = call.getDeadline();
      const late = typeof deadline === "number" && deadline <= this.#clock.nowMs();
      controller.abort(
        late ? new SwarmError("deadline_exceeded", "deadline passed") : new SwarmError("canceled", "the caller left"),
      );
    });
    const end = () => {
      this.#stops.delete(stop);
      controller.abort(CALL_ENDED);
    };
    return { context: { signal: controller.signal, peer: this.#admission.peerOf(call.metadata) }, end };
  }

  #statusOf(method: DescMethod, reason: unknown): WireStatus {
    if (reason instanceof SwarmError) return statusOf(reason);
    this.#logger.error({ err: reason, method: method.name }, "call failed by a bug");
    return statusOf(new SwarmError("internal", "internal error; the manager's log has the details"));
  }
}

function asServerError(status: WireStatus): ServerErrorResponse {
  return Object.assign(new Error(status.details), status);
}

function definitionOf(method: DescMethod) {
  const serialize = (schema: DescMessage) => (message: Answer) => bufferOf(encodeMessage(schema, message));
  const deserialize = (schema: DescMessage) => (bytes: Buffer) => decodeMessage(schema, bytes);
  // An error that is thrown here would be an internal one for grpc-js: it is handed on, and thrown where calls fail.
  const requestOf = (bytes: Buffer) => {
    try {
      return decodeMessage(method.input, bytes);
    } catch (reason) {
      return SwarmError.from(reason);
    }
  };
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
    requestSerialize: serialize(method.input),
    requestDeserialize: requestOf,
    responseSerialize: serialize(method.output),
    responseDeserialize: deserialize(method.output),
  };
}

/** The request, unless it was none. */
function accepted(request: Message | SwarmError): Message {
  if (request instanceof SwarmError) throw request;
  return request;
}

/** The caller's messages; throws when the caller leaves before it has sent the last. */
async function* readAll(
  call: ServerReadableStream<Message, Answer> | ServerDuplexStream<Message, Answer>,
  signal: AbortSignal,
): AsyncGenerator<Message> {
  // Destroyed with its last request, a call of two directions could answer no more.
  const iterator = call.iterator({ destroyOnReturn: false });
  // A broken stream says so through the iterator; an emitter without a listener would end the process.
  call.on("error", () => {});
  while (true) {
    const next = await abortable(iterator.next(), signal);
    if (next.done) break;
    yield accepted(next.value as Message | SwarmError);
  }
  // A call that the caller gave up ends its stream as one that was sent whole, and is said to be cancelled just after.
  await systemClock.sleep(0);
  if (signal.aborted) throw abortReason(signal);
}

function drained(call: ServerWritableStream<Message, Answer> | ServerDuplexStream<Message, Answer>): Promise<void> {
  return new Promise((resolve) => call.once("drain", () => resolve()));
}

function bindError(address: string, error: Error): SwarmError {
  const taken = /EADDRINUSE/.test(error.message);
  return taken
    ? new SwarmError("already_exists", `listen on ${address}: address already in use`, { cause: error })
    : errorOfStatus({ code: 14, details: `listen on ${address}: ${error.message}` }, error);
}
