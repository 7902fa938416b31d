/**
 * Calls over gRPC. One transport is one channel to one server; together with `grpc-server.ts` the only door to grpc-js,
 * whose callbacks and emitters stay behind it.
 */
import { isIP } from "node:net";
import { checkServerIdentity, createSecureContext } from "node:tls";
import type { DescMethod, Message } from "@bufbuild/protobuf";
import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientWritableStream,
  credentials as channelCredentials,
  Metadata,
  type ServiceError,
} from "@grpc/grpc-js";
import { abortable, abortReason, systemClock } from "../base/clock.ts";
import { SwarmError } from "../base/error.ts";
import { parseHostPort } from "../base/host-port.ts";
import { ClosingCredentials } from "./closing-credentials.ts";
import { decodeMessage, encodeMessage, RECEIVE_BYTES_MAX_CLIENT, UNARY_TIMEOUT_MS } from "./codec.ts";
import type { CallOptions, Transport } from "./service.ts";
import { errorOfStatus } from "./status.ts";
import { type ClientTls, clientTlsOptions } from "./tls.ts";

/** Whom to call and how. */
export interface GrpcTransportOptions {
  /** "host:port" or "unix:/path". */
  readonly address: string;
  /** Absent: plaintext, for unix sockets. */
  readonly tls?: ClientTls;
  /** The largest message taken from the server, in bytes. Default 64 MiB. */
  readonly receiveBytesMax?: number;
}

/**
 * After as many failures in a row the channel is made anew: grpc-js channels have been seen to answer every call with
 * a reset for ever (grpc-node #3040).
 */
const FAILURES_BEFORE_NEW_CHANNEL = 3;

const CHANNEL_OPTIONS: ChannelOptions = {
  // A half-open connection is found in 15 s; an idle one is watched too, since sessions mostly wait.
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  // Who calls decides about retries: a retried write may run twice.
  "grpc.enable_retries": 0,
  "grpc.enable_channelz": 0,
  // Control traffic stays inside the cluster whatever the environment says.
  "grpc.enable_http_proxy": 0,
  "grpc.service_config_disable_resolution": 1,
  // A transport owns its connection, so that closing it closes it.
  "grpc.use_local_subchannel_pool": 1,
  // grpc's own 1 s … 120 s would outlast a manager's restart by far.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 2_000,
};

/** Makes a channel; it connects at the first call. */
export function openGrpcTransport(options: GrpcTransportOptions): Transport {
  return new GrpcTransport(options);
}

class GrpcTransport implements Transport {
  readonly #options: GrpcTransportOptions;
  #channel: Channel;
  #failures = 0;
  #closed = false;

  constructor(options: GrpcTransportOptions) {
    this.#options = options;
    this.#channel = openChannel(options);
  }

  unary(method: DescMethod, request: Message, options: CallOptions): Promise<Message> {
    const client = this.#liveClient();
    const { promise, resolve, reject } = Promise.withResolvers<Message>();
    if (options.signal?.aborted) return Promise.reject(abortReason(options.signal));
    const call = client.makeUnaryRequest<Message, Message>(
      pathOf(method),
      serializerOf(method),
      deserializerOf(method),
      request,
      new Metadata(),
      { deadline: systemClock.nowMs() + (options.timeoutMs ?? UNARY_TIMEOUT_MS) },
      (error, response) => {
        if (error) reject(error);
        else if (response) resolve(response);
        else reject(new SwarmError("internal", `${pathOf(method)}: empty answer`));
      },
    );
    return this.#settle(method, promise, options, () => call.cancel());
  }

  async *serverStream(method: DescMethod, request: Message, options: CallOptions): AsyncIterable<Message> {
    const client = this.#liveClient();
    if (options.signal?.aborted) throw abortReason(options.signal);
    const call = client.makeServerStreamRequest<Message, Message>(
      pathOf(method),
      serializerOf(method),
      deserializerOf(method),
      request,
      new Metadata(),
      callOptions(options),
    );
    yield* this.#read(method, call, options);
  }

  clientStream(method: DescMethod, requests: AsyncIterable<Message>, options: CallOptions): Promise<Message> {
    const client = this.#liveClient();
    const { promise, resolve, reject } = Promise.withResolvers<Message>();
    if (options.signal?.aborted) return Promise.reject(abortReason(options.signal));
    const call = client.makeClientStreamRequest<Message, Message>(
      pathOf(method),
      serializerOf(method),
      deserializerOf(method),
      new Metadata(),
      callOptions(options),
      (error, response) => {
        if (error) reject(error);
        else if (response) resolve(response);
        else reject(new SwarmError("internal", `${pathOf(method)}: empty answer`));
      },
    );
    const answer = this.#settle(method, promise, options, () => call.cancel());
    return sendAll(call, requests, answer);
  }

  async *bidiStream(
    method: DescMethod,
    requests: AsyncIterable<Message>,
    options: CallOptions,
  ): AsyncIterable<Message> {
    const client = this.#liveClient();
    if (options.signal?.aborted) throw abortReason(options.signal);
    const call = client.makeBidiStreamRequest<Message, Message>(
      pathOf(method),
      serializerOf(method),
      deserializerOf(method),
      new Metadata(),
      callOptions(options),
    );
    const over = Promise.withResolvers<void>();
    let failure: { readonly reason: unknown } | undefined;
    void writeAll(call, requests, over.promise).catch((reason: unknown) => {
      failure = { reason };
      call.cancel();
    });
    try {
      yield* this.#read(method, call, options);
    } catch (reason) {
      // A source that fails ends the call, and the reader hears of that, not of the cancelling.
      throw failure ? SwarmError.from(failure.reason) : reason;
    } finally {
      over.resolve();
    }
  }

  /** Closes the channel; calls in flight are cancelled by the server's side closing. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#channel.close();
  }

  async *#read(
    method: DescMethod,
    call: ClientReadableStream<Message> | ClientDuplexStream<Message, Message>,
    options: CallOptions,
  ): AsyncIterable<Message> {
    const onAbort = () => call.cancel();
    options.signal?.addEventListener("abort", onAbort, { once: true });
    // A reader that leaves early cancels, and the cancellation comes back as an error that nobody waits for.
    call.on("error", () => {});
    try {
      for await (const message of call) {
        if (options.signal?.aborted) throw abortReason(options.signal);
        yield message as Message;
      }
      this.#failures = 0;
    } catch (reason) {
      throw this.#failed(method, reason, options);
    } finally {
      options.signal?.removeEventListener("abort", onAbort);
      call.cancel();
    }
  }

  async #settle(
    method: DescMethod,
    answer: Promise<Message>,
    options: CallOptions,
    cancel: () => void,
  ): Promise<Message> {
    options.signal?.addEventListener("abort", cancel, { once: true });
    try {
      const message = await answer;
      this.#failures = 0;
      return message;
    } catch (reason) {
      throw this.#failed(method, reason, options);
    } finally {
      options.signal?.removeEventListener("abort", cancel);
    }
  }

  #failed(method: DescMethod, reason: unknown, options: CallOptions): SwarmError {
    if (options.signal?.aborted) return abortReason(options.signal);
    const error = errorOf(method, reason, this.#options.address);
    const suspect = error.code === "unavailable" || error.code === "internal";
    this.#failures = suspect ? this.#failures + 1 : 0;
    return error;
  }

  #liveClient(): Client {
    if (this.#closed) throw new SwarmError("canceled", `transport to ${this.#options.address} is closed`);
    if (this.#failures >= FAILURES_BEFORE_NEW_CHANNEL) {
      this.#failures = 0;
      this.#channel.close();
      this.#channel = openChannel(this.#options);
    }
    return this.#channel.client;
  }
}

type RequestStream = ClientWritableStream<Message> | ClientDuplexStream<Message, Message>;

/** Writes at the pace of the reader; whichever end stops first, the source is closed. */
async function sendAll(
  call: ClientWritableStream<Message>,
  requests: AsyncIterable<Message>,
  answer: Promise<Message>,
): Promise<Message> {
  const over = answer.then(
    () => {},
    () => {},
  );
  try {
    await writeAll(call, requests, over);
  } catch (reason) {
    call.cancel();
    await over;
    throw reason;
  }
  return answer;
}

/** Why nothing more is written: one for all, since an error is dear to make. */
const CALL_OVER = new SwarmError("canceled", "the call is over");

/** Writes what `requests` gives until its end, or until the call is `over`. Throws what the source throws. */
async function writeAll(call: RequestStream, requests: AsyncIterable<Message>, over: Promise<void>): Promise<void> {
  // After the answer (or an error) the stream is gone; a late write's own error would say less than the answer does.
  call.on("error", () => {});
  // A race with a promise that lasts as long as the call would hold every message until then.
  const ended = new AbortController();
  void over.then(() => ended.abort(CALL_OVER));
  const iterator = requests[Symbol.asyncIterator]();
  let exhausted = false;
  try {
    while (!exhausted) {
      const next = await abortable(iterator.next(), ended.signal);
      if (next.done) {
        exhausted = true;
        call.end();
      } else if (!call.write(next.value)) await abortable(drained(call), ended.signal);
    }
  } catch (reason) {
    if (reason !== CALL_OVER) throw reason;
  } finally {
    if (!exhausted) iterator.return?.()?.catch(() => {});
  }
}

function drained(call: RequestStream): Promise<void> {
  return new Promise((resolve) => call.once("drain", () => resolve()));
}

interface Channel {
  readonly client: Client;
  close(): void;
}

function openChannel(options: GrpcTransportOptions): Channel {
  const { address, tls, receiveBytesMax } = options;
  const name = tls && (tls.serverName ?? ipOf(address));
  const credentials = new ClosingCredentials(
    tls === undefined ? channelCredentials.createInsecure() : secured(tls, name),
  );
  const client = new Client(address, credentials, {
    ...CHANNEL_OPTIONS,
    "grpc.max_receive_message_length": receiveBytesMax ?? RECEIVE_BYTES_MAX_CLIENT,
    ...(name === undefined ? {} : { "grpc.ssl_target_name_override": tls?.serverName ?? NAME_INSTEAD_OF_IP }),
  });
  const close = () => {
    credentials.close();
    client.close();
  };
  return { client, close };
}

/**
 * grpc-js sends the host as the TLS server name, which must not be an address (RFC 6066, 3): Node warns of it on stderr.
 * Our servers have one certificate and look at no name.
 */
const NAME_INSTEAD_OF_IP = "swarm-manager";

/** `name` is what the server's certificate must be for, if that is not the host of its address. */
function secured(tls: ClientTls, name: string | undefined): ChannelCredentials {
  return channelCredentials.createFromSecureContext(createSecureContext(clientTlsOptions(tls)), {
    rejectUnauthorized: tls.verify ?? true,
    ...(name === undefined ? {} : { checkServerIdentity: (_, certificate) => checkServerIdentity(name, certificate) }),
  });
}

function ipOf(address: string): string | undefined {
  const host = parseHostPort(address)?.host;
  return host !== undefined && isIP(host) !== 0 ? host : undefined;
}

function callOptions(options: CallOptions): { deadline?: number } {
  return options.timeoutMs === undefined ? {} : { deadline: systemClock.nowMs() + options.timeoutMs };
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function serializerOf(method: DescMethod): (message: Message) => Buffer {
  return (message) => bufferOf(encodeMessage(method.input, message));
}

function deserializerOf(method: DescMethod): (bytes: Buffer) => Message {
  return (bytes) => decodeMessage(method.output, bytes);
}

/** The same bytes as grpc-js wants them typed. */
export function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function errorOf(method: DescMethod, reason: unknown, address: string): SwarmError {
  if (!isServiceError(reason)) return SwarmError.wrap(pathOf(method), reason);
  const error = errorOfStatus(reason, reason);
  // grpc-js at either end says no more than "Deadline exceeded".
  if (error.code === "deadline_exceeded" && reason.details.startsWith("Deadline exceeded")) {
    return new SwarmError("deadline_exceeded", `${address}: no answer in time to ${method.name}`, { cause: reason });
  }
  if (error.code !== "unavailable" || !reason.details.startsWith("No connection established")) return error;
  // grpc-js hides the cause at the end of its own long story: "… Last error: Error: connect ENOENT /run/…".
  const last = /Last error: (?:Error: )?(.*?)(?:\. Resolution note:.*)?$/.exec(reason.details)?.[1];
  return new SwarmError("unavailable", `connect to ${address}: ${last || "no connection"}`, { cause: reason });
}

function isServiceError(reason: unknown): reason is ServiceError {
  return reason instanceof Error && "code" in reason && typeof reason.code === "number" && "details" in reason;
}
