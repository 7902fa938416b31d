/**
 * The shape of a service on either end of a wire, independent of the wire. A service is an object of methods; a client
 * is the same object with calls. gRPC (`grpc-server.ts`, `grpc-transport.ts`) and the in-memory transport of simulations
 * (`memory-transport.ts`) both carry it.
 */
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  type Message,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import type { CertificateFacts, NodeSubject, UserSubject } from "../pki/identity.ts";

/**
 * Who calls. `identity` is what the wire proved: a certificate of the cluster's, or that it came over the host's own socket;
 * nothing in a message counts as identity. Absent: whoever reached the port.
 */
export interface Peer {
  /** As the transport names it: "ipv4:10.0.0.7:41234", "unix:", "memory:<name>". */
  readonly address: string;
  readonly identity?: PeerIdentity;
}

export type PeerIdentity = NodeSubject | UserPeer | HostPeer | OperatorPeer;

/** Somebody with a certificate of the cluster's: which one of those for the name, its serial tells. */
export type UserPeer = UserSubject & Pick<CertificateFacts, "serial" | "notAfterMs">;

/** Whoever may open the host's own socket. */
export interface HostPeer {
  readonly kind: "host";
}

/** Somebody with a certificate of an authority that the host's administrator trusts. */
export interface OperatorPeer {
  readonly kind: "operator";
  readonly name: string;
}

/** What a method knows of its call besides the request. */
export interface CallContext {
  /** Aborts when the caller cancels, disconnects, its deadline passes, or the server stops. */
  readonly signal: AbortSignal;
  readonly peer: Peer;
}

/** What a caller may say about one call. */
export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Default: 5,000 ms for unary calls, none for streams. */
  readonly timeoutMs?: number;
}

type Unary<I extends DescMessage, O extends DescMessage> = (
  request: MessageShape<I>,
  context: CallContext,
) => Promise<MessageInitShape<O>>;
type ServerStreaming<I extends DescMessage, O extends DescMessage> = (
  request: MessageShape<I>,
  context: CallContext,
) => AsyncIterable<MessageInitShape<O>>;
type ClientStreaming<I extends DescMessage, O extends DescMessage> = (
  requests: AsyncIterable<MessageShape<I>>,
  context: CallContext,
) => Promise<MessageInitShape<O>>;
type BidiStreaming<I extends DescMessage, O extends DescMessage> = (
  requests: AsyncIterable<MessageShape<I>>,
  context: CallContext,
) => AsyncIterable<MessageInitShape<O>>;

type MethodImplementation<M> = M extends { methodKind: infer Kind; input: infer I; output: infer O }
  ? I extends DescMessage
    ? O extends DescMessage
      ? Kind extends "unary"
        ? Unary<I, O>
        : Kind extends "server_streaming"
          ? ServerStreaming<I, O>
          : Kind extends "client_streaming"
            ? ClientStreaming<I, O>
            : Kind extends "bidi_streaming"
              ? BidiStreaming<I, O>
              : never
      : never
    : never
  : never;

/** What a server implements: one function per method, by its name in lower camel case. */
export type ServiceImplementation<S extends GenService<GenServiceMethods>> = {
  readonly [Name in keyof S["method"]]: MethodImplementation<S["method"][Name]>;
};

type MethodCall<M> = M extends { methodKind: infer Kind; input: infer I; output: infer O }
  ? I extends DescMessage
    ? O extends DescMessage
      ? Kind extends "unary"
        ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
        : Kind extends "server_streaming"
          ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
          : Kind extends "client_streaming"
            ? (requests: AsyncIterable<MessageInitShape<I>>, options?: CallOptions) => Promise<MessageShape<O>>
            : Kind extends "bidi_streaming"
              ? (requests: AsyncIterable<MessageInitShape<I>>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
              : never
      : never
    : never
  : never;

/** What a caller uses: the same methods, as calls. */
export type Client<S extends GenService<GenServiceMethods>> = {
  readonly [Name in keyof S["method"]]: MethodCall<S["method"][Name]>;
};

/** A way to reach one server. Errors are SwarmErrors with the server's code and message. */
export interface Transport extends AsyncDisposable {
  unary(method: DescMethod, request: Message, options: CallOptions): Promise<Message>;
  serverStream(method: DescMethod, request: Message, options: CallOptions): AsyncIterable<Message>;
  clientStream(method: DescMethod, requests: AsyncIterable<Message>, options: CallOptions): Promise<Message>;
  /** Both directions at once, each at its reader's pace. Requests may end long before the answers do. */
  bidiStream(method: DescMethod, requests: AsyncIterable<Message>, options: CallOptions): AsyncIterable<Message>;
}

/** Makes the client of `service` over `transport`. */
export function createClient<S extends GenService<GenServiceMethods>>(service: S, transport: Transport): Client<S> {
  const calls: Record<string, unknown> = {};
  for (const method of (service as DescService).methods) calls[method.localName] = callOf(method, transport);
  return calls as Client<S>;
}

function callOf(method: DescMethod, transport: Transport): unknown {
  switch (method.methodKind) {
    case "unary":
      return (request: MessageInitShape<DescMessage>, options: CallOptions = {}) =>
        transport.unary(method, create(method.input, request), options);
    case "server_streaming":
      return (request: MessageInitShape<DescMessage>, options: CallOptions = {}) =>
        transport.serverStream(method, create(method.input, request), options);
    case "client_streaming":
      return (requests: AsyncIterable<MessageInitShape<DescMessage>>, options: CallOptions = {}) =>
        transport.clientStream(method, createEach(method.input, requests), options);
    case "bidi_streaming":
      return (requests: AsyncIterable<MessageInitShape<DescMessage>>, options: CallOptions = {}) =>
        transport.bidiStream(method, createEach(method.input, requests), options);
  }
}

async function* createEach(schema: DescMessage, inits: AsyncIterable<MessageInitShape<DescMessage>>) {
  for await (const init of inits) yield create(schema, init);
}
