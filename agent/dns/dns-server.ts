/**
 * The resolver of a node's tasks. In a container it is 127.0.0.11; its questions come here with the task's own address,
 * which tells whose names they are about. What is not a name of the task's networks is passed on.
 */
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import { addressBytes, addressOfReverse } from "./addresses.ts";
import { type AnswerRecord, encodeAnswer, encodeName, type Query, RCODE, type Rcode, receive } from "./message.ts";
import { type Client, ServiceNames } from "./names.ts";
import { readFrames, writeFrame } from "./tcp-frames.ts";
import { Upstream, type UpstreamOptions } from "./upstream.ts";

/** Questions under way to other servers: of all tasks, and of one, so that none keeps the others from asking. */
const FORWARDED_MAX = 2_048;
const FORWARDED_MAX_OF_ONE = 1_024;
/** Connections over TCP of all tasks, and of one. */
const CONNECTIONS_MAX = 512;
const CONNECTIONS_MAX_OF_ONE = 16;
const IDLE_MS = 10_000;
const TCP_BYTES = 65_535;
/** A burst of questions waits in the kernel rather than being lost. */
const RECEIVE_BUFFER_BYTES = 4 << 20;

/** What the resolver stands on. */
export interface DnsServerOptions extends UpstreamOptions {
  readonly logger: Logger;
  /** Where it listens, over UDP and TCP. */
  readonly address: string;
  /** 0: whichever is free. */
  readonly listenPort: number;
  /** The host's own servers, asked anew each time. */
  readonly servers: () => readonly string[];
}

type Reply = (answer: Uint8Array) => void;

export class DnsServer implements AsyncDisposable {
  readonly #options: DnsServerOptions;
  readonly #udp: DatagramSocket;
  readonly #tcp: Server;
  readonly #upstream: Upstream;
  readonly #connections = new Counter();
  readonly #forwarded = new Counter();
  readonly #sockets = new Set<Socket>();
  readonly #ending = new AbortController();
  #names = new ServiceNames({ networks: [], services: [], tasks: [], clients: [] });

  private constructor(options: DnsServerOptions) {
    this.#options = options;
    this.#upstream = new Upstream(options);
    this.#udp = createSocket({ type: "udp4", recvBufferSize: RECEIVE_BUFFER_BYTES });
    this.#tcp = createServer((socket) => void this.#serve(socket));
    // One answer that cannot be sent is the client's loss; it asks again.
    this.#udp.on("error", (reason) => options.logger.debug({ err: reason }, "resolver"));
    this.#udp.on("message", (message, { address, port }) => {
      this.#take(message, { address, tcp: false }, (answer) => {
        if (!this.#ending.signal.aborted) this.#udp.send(answer, port, address, () => {});
      });
    });
  }

  /** Listens. Throws `failed_precondition` when somebody else does. */
  static async open(options: DnsServerOptions): Promise<DnsServer> {
    const server = new DnsServer(options);
    try {
      await server.#listen();
      return server;
    } catch (reason) {
      await server[Symbol.asyncDispose]();
      throw SwarmError.wrap(`listen on ${options.address}:${options.listenPort}`, reason, "failed_precondition");
    }
  }

  get port(): number {
    return this.#udp.address().port;
  }

  /** What names mean from now on. */
  setNames(names: ServiceNames): void {
    this.#names = names;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort(new SwarmError("canceled", "the resolver ends"));
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all([
      new Promise<void>((resolve) => this.#udp.close(() => resolve())),
      new Promise<void>((resolve) => this.#tcp.close(() => resolve())),
    ]);
  }

  async #listen(): Promise<void> {
    const { address, listenPort } = this.#options;
    // Where any port will do: one that is free for TCP, of which a host has many in use, is nearly always so for UDP.
    const listening = Promise.withResolvers<void>();
    this.#tcp.once("error", listening.reject);
    this.#tcp.listen(listenPort, address, () => listening.resolve());
    await listening.promise;
    const bound = Promise.withResolvers<void>();
    this.#udp.once("error", bound.reject);
    this.#udp.bind((this.#tcp.address() as AddressInfo).port, address, () => bound.resolve());
    await bound.promise;
    this.#udp.off("error", bound.reject);
  }

  async #serve(socket: Socket): Promise<void> {
    const { remoteAddress: address = "" } = socket;
    const admitted =
      this.#connections.total < CONNECTIONS_MAX && this.#connections.of(address) < CONNECTIONS_MAX_OF_ONE;
    socket.on("error", () => {});
    if (!admitted) {
      socket.destroy();
      return;
    }
    this.#connections.add(address, 1);
    this.#sockets.add(socket);
    const idle = this.#endWhenIdle(socket);
    socket.once("close", () => {
      this.#connections.add(address, -1);
      this.#sockets.delete(socket);
    });
    try {
      for await (const message of readFrames(socket)) {
        idle.heard();
        this.#take(message, { address, tcp: true }, (answer) => {
          if (!socket.destroyed) writeFrame(socket, answer);
        });
      }
    } catch {
      // The client went away in the middle.
    }
  }

  /** Ends a connection on which nothing is asked for a while. */
  #endWhenIdle(socket: Socket): { heard(): void } {
    const { clock } = this.#options;
    const closed = new AbortController();
    let heardMs = clock.monotonicMs();
    const watch = async () => {
      for (;;) {
        const leftMs = heardMs + IDLE_MS - clock.monotonicMs();
        if (leftMs <= 0) break;
        await clock.sleep(leftMs, closed.signal);
      }
      socket.destroy();
    };
    watch().catch(() => {});
    socket.once("close", () => closed.abort());
    return {
      heard() {
        heardMs = clock.monotonicMs();
      },
    };
  }

  #take(message: Uint8Array, from: { readonly address: string; readonly tcp: boolean }, reply: Reply): void {
    const received = receive(message);
    if (received.kind === "noise") return;
    if (received.kind === "bad") {
      reply(received.answer);
      return;
    }
    const { query } = received;
    const limit = from.tcp ? TCP_BYTES : query.udpBytes;
    const client = this.#names.client(from.address);
    // Nobody but the tasks of this node is served: the resolver is no use for a flood against somebody else.
    if (client === undefined) {
      reply(encodeAnswer(query, { rcode: RCODE.REFUSED, records: [] }, limit));
      return;
    }
    const known = query.internet ? this.#lookUp(client, query) : undefined;
    if (known !== undefined) reply(encodeAnswer(query, known, limit));
    else if (!client.forwards) reply(encodeAnswer(query, { rcode: RCODE.NXDOMAIN, records: [] }, limit));
    else void this.#forward({ message, query, client, ...from }, limit, reply);
  }

  /** Undefined for names that are not of the client's networks. */
  #lookUp(
    client: Client,
    { name, type }: Query,
  ): { readonly rcode: Rcode; readonly records: readonly AnswerRecord[] } | undefined {
    const address = type === "PTR" ? addressOfReverse(name) : undefined;
    if (address !== undefined) {
      const bearer = this.#names.findReverse(client, address);
      if (bearer === undefined) return undefined;
      return { rcode: RCODE.NOERROR, records: [{ type: "PTR", ttl: 0, data: encodeName(bearer) }] };
    }
    const entry = this.#names.find(client, name);
    if (entry === undefined) return undefined;
    const records = entry.addresses.flatMap((text): AnswerRecord[] => {
      const data = addressBytes(text);
      const kind = data?.length === 4 ? "A" : "AAAA";
      return data === undefined || (type !== kind && type !== "ANY") ? [] : [{ type: kind, ttl: entry.ttl, data }];
    });
    // A name without an address of that kind is still a name: an answer of NXDOMAIN to AAAA would take away its A.
    return { rcode: RCODE.NOERROR, records };
  }

  async #forward(
    from: {
      readonly message: Uint8Array;
      readonly query: Query;
      readonly client: Client;
      readonly address: string;
      readonly tcp: boolean;
    },
    limit: number,
    reply: Reply,
  ): Promise<void> {
    const { message, query, client, address, tcp } = from;
    const fail = () => reply(encodeAnswer(query, { rcode: RCODE.SERVFAIL, records: [] }, limit));
    if (this.#forwarded.total >= FORWARDED_MAX || this.#forwarded.of(address) >= FORWARDED_MAX_OF_ONE) {
      fail();
      return;
    }
    this.#forwarded.add(address, 1);
    const servers = client.servers.length > 0 ? client.servers : this.#options.servers();
    try {
      // A copy: the socket's own buffer is not ours after this turn.
      const request = { message: Uint8Array.from(message), query: ownQuery(query), servers, tcp };
      reply(await this.#upstream.ask(request, this.#ending.signal));
    } catch (reason) {
      if (!this.#ending.signal.aborted) fail();
      if (!(reason instanceof SwarmError)) throw reason;
    } finally {
      this.#forwarded.add(address, -1);
    }
  }
}

function ownQuery(query: Query): Query {
  return { ...query, question: Uint8Array.from(query.question) };
}

/** Counts by key, and in all. */
class Counter {
  readonly #counts = new Map<string, number>();
  total = 0;

  of(key: string): number {
    return this.#counts.get(key) ?? 0;
  }

  add(key: string, step: 1 | -1): void {
    const count = this.of(key) + step;
    this.total += step;
    if (count > 0) this.#counts.set(key, count);
    else this.#counts.delete(key);
  }
}
