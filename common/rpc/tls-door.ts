/**
 * The way into a server that the network reaches: TCP, then TLS, then HTTP/2 by whoever is handed the connection. What comes is
 * counted (`door-book.ts`) before it costs a handshake, and nobody may take his time about saying who he is.
 *
 *   TCP ─▶ book ─▶ TLS, 5 s at most ─┬─ a certificate that holds ─▶ stays, until the connection is old
 *           │                        └─ none, where strangers may come ─▶ 20 s in all: enough for a first certificate
 *           └─ too many ─▶ closed at once
 */
import { createServer as createTcpServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from "node:tls";
import { type Clock, systemClock } from "../base/clock.ts";
import { SwarmError } from "../base/error.ts";
import { type HostPort, printHostPort } from "../base/host-port.ts";
import type { Logger } from "../base/logger.ts";
import { DoorBook, type DoorLimits, type Guest, sourceOf } from "./door-book.ts";
import type { MutualTls } from "./tls.ts";

/** How long a TLS handshake may take, in ms: three round trips over the slowest link, and a busy processor. */
const HANDSHAKE_MS_MAX = 5_000;

/** How long a connection without a certificate may live, in ms: a host that joins needs it for two calls. */
const STRANGER_MS_MAX = 20_000;

/** Connections that the kernel holds while the process is busy (listen(2)); it takes its own maximum, 4,096, if that is less. */
const BACKLOG = 4_096;

/**
 * Handshakes that begin in one turn of the event loop. Each costs 1 to 2 ms, and a crowd that comes at once would otherwise have them
 * all in one turn, in which no timer runs: a manager that a thousand agents come back to would lose its lease over it.
 */
const HANDSHAKES_A_TURN_MAX = 32;

/** What it says of those it has refused at most so often, in ms: a flood must not fill the log. */
const REFUSALS_LOGGED_MS = 10_000;

/** What a door is made of. */
export interface TlsDoorOptions {
  readonly tls: MutualTls;
  readonly logger: Logger;
  readonly clock?: Clock;
  readonly limits?: DoorLimits;
  /** Takes a connection that has come through. */
  readonly enter: (connection: TLSSocket) => void;
}

/** Opens with `listen`, closes when disposed of, with everybody who is in it. */
export class TlsDoor implements Disposable {
  readonly #options: TlsDoorOptions;
  readonly #clock: Clock;
  readonly #book: DoorBook;
  readonly #tcp: Server;
  readonly #tls: TlsServer;
  /** By both ends' addresses and ports: TLS hands out another socket than it was given. */
  readonly #guests = new Map<string, Guest>();
  readonly #unwatch: () => void;
  /** Connections whose handshake is to begin, in the order in which they came. */
  readonly #waiting: Socket[] = [];
  #isShaking = false;
  #refused = 0;
  #refusalsToldMs = Number.NEGATIVE_INFINITY;

  constructor(options: TlsDoorOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#book = new DoorBook(this.#clock, options.limits);
    const { tls } = options;
    this.#tls = createTlsServer({ ...tls.serverOptions, ALPNProtocols: ["h2"], handshakeTimeout: HANDSHAKE_MS_MAX });
    this.#unwatch = tls.onRenewed(() => this.#tls.setSecureContext(tls.serverOptions));
    this.#tls.on("secureConnection", (socket) => this.#secured(socket));
    // A handshake that fails or takes too long ends the connection, which is all there is to do about it.
    this.#tls.on("tlsClientError", (_, socket) => socket.destroy());
    this.#tcp = createTcpServer((socket) => this.#arrived(socket));
  }

  /** Binds; port 0 takes a free one. Resolves with the port, rejects with Node's error. */
  listen({ host, port }: HostPort): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.#tcp.once("error", reject);
    this.#tcp.listen({ host, port, backlog: BACKLOG }, () => {
      this.#tcp.off("error", reject);
      // Out of file descriptors for a moment, say: the next connection may be taken again.
      this.#tcp.on("error", (err) => this.#options.logger.warn({ err }, "connection not accepted"));
      const bound = this.#tcp.address();
      resolve(typeof bound === "object" && bound !== null ? bound.port : port);
    });
    return promise;
  }

  /** Takes no more connections; those that are open go on. */
  close(): void {
    this.#unwatch();
    this.#tcp.close();
  }

  /** Closes every connection. */
  [Symbol.dispose](): void {
    this.close();
    for (const guest of [...this.#guests.values()]) guest.leave();
  }

  #arrived(socket: Socket): void {
    socket.on("error", () => {});
    const key = keyOf(socket);
    const { remoteAddress } = socket;
    // Gone before we looked.
    if (key === undefined || remoteAddress === undefined) return void socket.destroy();
    const guest: Guest = { address: sourceOf(remoteAddress), leave: () => socket.destroy() };
    try {
      this.#book.arrive(guest);
    } catch (reason) {
      socket.resetAndDestroy();
      this.#tellRefused(remoteAddress, SwarmError.from(reason));
      return;
    }
    this.#guests.set(key, guest);
    const gone = new AbortController();
    socket.once("close", () => {
      this.#book.left(guest);
      this.#guests.delete(key);
      gone.abort();
    });
    void this.#expectCertificate(guest, gone.signal);
    this.#waiting.push(socket);
    if (!this.#isShaking) void this.#shakeHands();
  }

  /** A few in each turn, until nobody waits. */
  async #shakeHands(): Promise<void> {
    this.#isShaking = true;
    while (this.#waiting.length > 0) {
      for (const socket of this.#waiting.splice(0, HANDSHAKES_A_TURN_MAX)) {
        if (!socket.destroyed) this.#tls.emit("connection", socket);
      }
      await systemClock.sleep(0);
    }
    this.#isShaking = false;
  }

  /** Ends a connection that is a stranger's after its time. */
  async #expectCertificate(guest: Guest, gone: AbortSignal): Promise<void> {
    const isGone = await this.#clock.sleep(STRANGER_MS_MAX, gone).then(
      () => false,
      () => true,
    );
    if (!isGone && guest.fingerprint === undefined) guest.leave();
  }

  #secured(socket: TLSSocket): void {
    socket.on("error", () => {});
    const key = keyOf(socket);
    const guest = key === undefined ? undefined : this.#guests.get(key);
    if (!guest || socket.alpnProtocol !== "h2") return void socket.destroy();
    const fingerprint = socket.authorized ? socket.getPeerX509Certificate()?.fingerprint256 : undefined;
    try {
      if (fingerprint !== undefined) this.#book.identified(guest, fingerprint);
    } catch (reason) {
      socket.destroy();
      this.#tellRefused(guest.address, SwarmError.from(reason));
      return;
    }
    this.#options.enter(socket);
  }

  #tellRefused(address: string, { message }: SwarmError): void {
    this.#refused += 1;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#refusalsToldMs < REFUSALS_LOGGED_MS) return;
    this.#options.logger.warn({ address, reason: message, refused: this.#refused }, "connections refused");
    this.#refused = 0;
    this.#refusalsToldMs = nowMs;
  }
}

/** The four numbers that tell a connection from all others; undefined once it is closed. */
function keyOf(socket: Socket): string | undefined {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  if (remoteAddress === undefined || remotePort === undefined) return undefined;
  return `${printHostPort({ host: remoteAddress, port: remotePort })} ${localAddress} ${localPort}`;
}
