/**
 * Questions that are passed on: to one server after another, each over a socket of its own, so that its port cannot be
 * guessed, and believed only if id and question are those that were sent.
 */
import { createSocket } from "node:dgram";
import { connect, isIPv6 } from "node:net";
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { type Random, randomInteger } from "../../common/base/random.ts";
import { isAnswerTo, isRefusal, type Query, withId } from "./message.ts";
import { readFrames, writeFrame } from "./tcp-frames.ts";

/** All tries of one question; a client's own time-out is 5 s (resolv.conf(5)). */
const TOTAL_MS = 3_000;
/** One server's time to answer, while there is another. */
const TRY_MS = 1_000;
const DNS_PORT = 53;

/** How a question is passed on. */
export interface UpstreamOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Port of the servers. Default 53. */
  readonly port?: number;
}

/** "192.0.2.53", or "192.0.2.53:5353" as tests have it. */
interface Server {
  readonly host: string;
  readonly port: number;
}

export class Upstream {
  readonly #options: UpstreamOptions;

  constructor(options: UpstreamOptions) {
    this.#options = options;
  }

  /**
   * The first answer of a server that can and will give one, else the last one's word that it cannot; with the client's own
   * id, and over TCP where the client came by it. Throws `unavailable` when none answered in time, `failed_precondition`
   * when there is none to ask.
   */
  async ask(
    request: {
      readonly message: Uint8Array;
      readonly query: Query;
      readonly servers: readonly string[];
      readonly tcp: boolean;
    },
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const { clock, random } = this.#options;
    const { message, query, tcp } = request;
    const servers = request.servers.map((text) => this.#server(text));
    if (servers.length === 0) throw new SwarmError("failed_precondition", "no server to ask");
    const deadlineMs = clock.monotonicMs() + TOTAL_MS;
    let refusal: Uint8Array | undefined;
    // Each once, then again from the first, until the time is up: packets get lost.
    for (let turn = 0; ; turn++) {
      const leftMs = deadlineMs - clock.monotonicMs();
      const server = servers[turn % servers.length];
      if (leftMs <= 0 || server === undefined) throw new SwarmError("unavailable", "no server answered");
      const id = randomInteger(random, 0x10000);
      const limit = AbortSignal.timeout(Math.ceil(Math.min(leftMs, TRY_MS)));
      const exchange = tcp ? exchangeTcp : exchangeUdp;
      const answer = await exchange(server, withId(message, id), {
        isAnswer: (bytes) => isAnswerTo(bytes, query, id),
        signal: AbortSignal.any([signal, limit]),
      });
      if (answer !== undefined && !isRefusal(answer)) return withId(answer, query.id);
      refusal = answer ?? refusal;
      if (refusal !== undefined && turn + 1 >= servers.length) return withId(refusal, query.id);
      if (signal.aborted) throw new SwarmError("canceled", "the resolver ends");
      // A server that refuses at once is not asked a thousand times.
      if (!limit.aborted && turn >= 2 * servers.length) throw new SwarmError("unavailable", "no server answered");
    }
  }

  #server(text: string): Server {
    const [, host = text, port] = /^(\d+\.\d+\.\d+\.\d+):(\d+)$/.exec(text) ?? [];
    return { host, port: port === undefined ? (this.#options.port ?? DNS_PORT) : Number(port) };
  }
}

interface ExchangeOptions {
  readonly isAnswer: (bytes: Uint8Array) => boolean;
  readonly signal: AbortSignal;
}

/** Undefined when there is no answer: time is up, or nobody is there. */
function exchangeUdp(server: Server, message: Uint8Array, { isAnswer, signal }: ExchangeOptions) {
  const { promise, resolve } = Promise.withResolvers<Uint8Array | undefined>();
  const socket = createSocket(isIPv6(server.host) ? "udp6" : "udp4");
  const end = (answer?: Uint8Array) => {
    signal.removeEventListener("abort", abort);
    socket.removeAllListeners();
    socket.on("error", () => {});
    socket.close();
    resolve(answer);
  };
  const abort = () => end();
  socket.on("error", () => end());
  socket.on("message", (bytes) => {
    if (isAnswer(bytes)) end(bytes);
  });
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) end();
  // Connected, so that the kernel lets in no packet of anybody else, and tells of a port that nobody listens on.
  else
    socket.connect(server.port, server.host, () => {
      if (!signal.aborted) socket.send(message);
    });
  return promise;
}

async function exchangeTcp(server: Server, message: Uint8Array, { isAnswer, signal }: ExchangeOptions) {
  const socket = connect(server);
  const abort = () => socket.destroy();
  socket.on("error", () => {});
  signal.addEventListener("abort", abort, { once: true });
  try {
    writeFrame(socket, message);
    for await (const frame of readFrames(socket)) if (isAnswer(frame)) return frame;
    return undefined;
  } catch {
    return undefined;
  } finally {
    signal.removeEventListener("abort", abort);
    socket.destroy();
  }
}
