/**
 * Decides of a call by its first frame, before a byte of its request is taken: who calls, whether they may, and how much they may send.
 * For strangers that is little, and few at a time.
 */
import { X509Certificate } from "node:crypto";
import type { ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import type { DescMethod } from "@bufbuild/protobuf";
import {
  type Metadata,
  ResponderBuilder,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  type ServerListener,
  ServerListenerBuilder,
} from "@grpc/grpc-js";
import type { Clock } from "../base/clock.ts";
import { SwarmError } from "../base/error.ts";
import { requestBytesMax } from "./codec.ts";
import type { ConnectionAge } from "./connection-age.ts";
import { sourceOf } from "./door-book.ts";
import { boundRequests } from "./request-decoder.ts";
import type { Peer, PeerIdentity } from "./service.ts";
import type { WireStatus } from "./status.ts";

/** Largest request of a caller without a certificate, in bytes: a join token and a certificate request have 1 KB. */
export const STRANGER_REQUEST_BYTES_MAX = 16 * 1024;

/** Calls of callers without a certificate that are open at once, of one address and in whole: joins take milliseconds. */
const STRANGER_CALLS_PER_ADDRESS_MAX = 32;
const STRANGER_CALLS_MAX = 256;

/** Who a server takes its callers for, and what it lets them do. */
export interface AdmissionOptions {
  readonly clock: Clock;
  readonly identify: ((certificate: X509Certificate) => PeerIdentity) | undefined;
  readonly identity: PeerIdentity | undefined;
  readonly authorize: ((method: DescMethod, peer: Peer) => void) | undefined;
  /** Absent: connections may become as old as they like. */
  readonly age: ConnectionAge | undefined;
  /** What a refused caller is told. */
  readonly statusOf: (method: DescMethod, reason: unknown) => WireStatus;
}

interface Admitted {
  readonly peer: Peer;
  readonly isStranger: boolean;
}

/** The admission of one server. */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #methods = new Map<string, DescMethod>();
  /** Callers by what grpc-js hands to the handler as it came from here. */
  readonly #peers = new WeakMap<Metadata, Peer>();
  readonly #strangers = new StrangerCalls();

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** A method that the server has, by its path. */
  add(path: string, method: DescMethod): void {
    this.#methods.set(path, method);
  }

  /** Who made the call that came with `metadata`. */
  peerOf(metadata: Metadata): Peer {
    return this.#peers.get(metadata) ?? { address: "unknown" };
  }

  /** For grpc-js, which asks it at the headers of each call. */
  get interceptor(): ServerInterceptor {
    return ({ path }, call) => {
      const method = this.#methods.get(path);
      const responder = new ResponderBuilder().withStart((next) => {
        const admitted = method && this.#admitted(method, call);
        if (admitted) next(this.#listenerOf(method, call, admitted));
      });
      return new ServerInterceptingCall(call, responder.build());
    };
  }

  /** Refuses the call, or says who calls. */
  #admitted(method: DescMethod, call: ServerInterceptingCallInterface): Admitted | undefined {
    const { clock, authorize, identify, age } = this.#options;
    const connection = connectionOf(call);
    if (connection) age?.follow(connection);
    try {
      if (Number(call.getDeadline()) <= clock.nowMs()) throw new SwarmError("deadline_exceeded", "deadline passed");
      const identity = this.#identityOf(call, connection);
      const peer: Peer = { address: call.getPeer(), ...(identity && { identity }) };
      authorize?.(method, peer);
      const isStranger = identify !== undefined && identity === undefined;
      boundRequests(call, isStranger ? STRANGER_REQUEST_BYTES_MAX : requestBytesMax(method.input));
      return { peer, isStranger };
    } catch (reason) {
      this.#refuse(method, call, reason);
      return undefined;
    }
  }

  /** Hands the call on with who makes it; a stranger's is counted until it is over, which grpc-js tells as `onCancel`. */
  #listenerOf(
    method: DescMethod,
    call: ServerInterceptingCallInterface,
    { peer, isStranger }: Admitted,
  ): ServerListener {
    const listener = new ServerListenerBuilder();
    let leave = () => {};
    if (isStranger) listener.withOnCancel(() => leave());
    return listener
      .withOnReceiveMetadata((metadata, next) => {
        try {
          if (isStranger) leave = this.#strangers.enter(peer.address);
        } catch (reason) {
          this.#refuse(method, call, reason);
          return;
        }
        this.#peers.set(metadata, peer);
        next(metadata);
      })
      .build();
  }

  #refuse(method: DescMethod, call: ServerInterceptingCallInterface, reason: unknown): void {
    call.sendStatus(this.#options.statusOf(method, reason));
  }

  #identityOf(
    call: ServerInterceptingCallInterface,
    connection: ServerHttp2Session | undefined,
  ): PeerIdentity | undefined {
    const { identify, identity } = this.#options;
    const certificate = identify && certificateOf(call, connection);
    return certificate ? identify(certificate) : identity;
  }
}

/** How many calls of strangers are open. */
class StrangerCalls {
  readonly #byAddress = new Map<string, number>();
  #count = 0;

  /** Counts one more until what comes back is called. Throws `resource_exhausted`. */
  enter(peer: string): () => void {
    const address = sourceOf(peer.replace(/:\d+$/, ""));
    const count = this.#byAddress.get(address) ?? 0;
    if (count >= STRANGER_CALLS_PER_ADDRESS_MAX || this.#count >= STRANGER_CALLS_MAX) {
      throw new SwarmError("resource_exhausted", "too many calls without a certificate at once");
    }
    this.#byAddress.set(address, count + 1);
    this.#count += 1;
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#count -= 1;
      const left = (this.#byAddress.get(address) ?? 1) - 1;
      if (left === 0) this.#byAddress.delete(address);
      else this.#byAddress.set(address, left);
    };
  }
}

/** What each connection has shown: to read it anew takes 1 ms, more than all the rest of a heartbeat. */
const certificates = new WeakMap<object, X509Certificate>();

/** The caller's certificate that TLS has verified. */
function certificateOf(
  call: ServerInterceptingCallInterface,
  connection: ServerHttp2Session | undefined,
): X509Certificate | undefined {
  const known = connection && certificates.get(connection);
  if (known) return known;
  const shown = call.getAuthContext().sslPeerCertificate;
  if (shown === undefined) return undefined;
  const certificate = new X509Certificate(shown.raw);
  if (connection) certificates.set(connection, certificate);
  return certificate;
}

/** The HTTP/2 session of a call, which grpc-js keeps to itself; undefined should it keep it elsewhere. */
function connectionOf(call: object): ServerHttp2Session | undefined {
  const stream = Reflect.get(call, "stream") as ServerHttp2Stream | undefined;
  return stream?.session as ServerHttp2Session | undefined;
}
