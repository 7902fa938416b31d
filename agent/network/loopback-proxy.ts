/**
 * Published TCP ports on 127.0.0.1 and ::1, or on the one loopback address that a port asks for. The kernel would translate loopback addresses only with route_localnet,
 * which opens the host's loopback to its neighbours (CVE-2020-8558); so a process listens there and passes bytes on.
 * Listening has a second use: nobody on the host can take the port on all addresses while we hold it.
 */

import { connect, createServer, type Server, type Socket } from "node:net";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import { formatIp } from "./address.ts";
import { closeServer, type HostPort, isTaken, isWithoutIpv6, LOOPBACKS, listen, portTaken } from "./loopback-port.ts";
import type { Target } from "./ruleset.ts";

/** Each connection costs two sockets of the agent; more than this on one port are closed at once. */
const CONNECTIONS_PER_PORT_MAX = 1024;
/** After so long without an answer to SYN (which is not resent for a second) the next target is tried. */
const CONNECT_TIMEOUT_MS = 3_000;
/** A client waits for at most so many silent targets. */
const TARGETS_TRIED_MAX = 3;
const KEEPALIVE_MS = 30_000;

/** A port that is listened on, and where its connections go. */
interface Listening {
  readonly servers: readonly Server[];
  targets: readonly Target[];
  /** Counts connections, to deal them out in turn. */
  turn: number;
}

/** The listeners of all published TCP ports of this node. */
export class LoopbackProxy implements AsyncDisposable {
  readonly #logger: Logger;
  readonly #ports = new Map<string, Listening>();
  readonly #connections = new Set<Socket>();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** The keys of the ports that are listened on now. */
  get open(): ReadonlySet<string> {
    return new Set(this.#ports.keys());
  }

  /**
   * Listens on a port's loopback address (both of the host's unless it names one), or changes the targets of the port of
   * that key. Throws `already_exists` when it is taken.
   */
  async listen(wanted: HostPort & { readonly key: string; readonly targets: readonly Target[] }): Promise<void> {
    const { key, port, address, targets } = wanted;
    const listening = this.#ports.get(key);
    if (listening !== undefined) {
      listening.targets = targets;
      return;
    }
    const servers: Server[] = [];
    const entry: Listening = { servers, targets, turn: 0 };
    for (const host of address === undefined ? LOOPBACKS : [address]) {
      const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.#serve(entry, client));
      server.maxConnections = CONNECTIONS_PER_PORT_MAX;
      const failure = await listen(server, host, port);
      if (failure === undefined) {
        servers.push(server);
      } else if (host === "::1" && isWithoutIpv6(failure)) {
        this.#logger.debug({ port }, "no ipv6 loopback to publish on");
      } else {
        await Promise.all(servers.map(closeServer));
        throw isTaken(failure) ? portTaken(wanted) : SwarmError.wrap(`listen on ${host} port ${port}`, failure);
      }
    }
    this.#ports.set(key, entry);
  }

  /** Stops listening on a port. Connections that it accepted go on. */
  async close(key: string): Promise<void> {
    const listening = this.#ports.get(key);
    this.#ports.delete(key);
    // Not awaited to the end of the connections: `close` of net.Server stops accepting at once.
    for (const server of listening?.servers ?? []) server.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closing = [...this.#ports.values()].flatMap(({ servers }) => servers.map(closeServer));
    this.#ports.clear();
    for (const socket of this.#connections) socket.resetAndDestroy();
    await Promise.all(closing);
  }

  #serve(port: Listening, client: Socket): void {
    this.#own(client);
    const first = port.turn++;
    const split = first % Math.max(1, port.targets.length);
    const inTurn = [...port.targets.slice(split), ...port.targets.slice(0, split)];
    this.#connect(client, inTurn.slice(0, TARGETS_TRIED_MAX));
  }

  /** Joins the client to the first target that answers; resets it when none does. */
  #connect(client: Socket, [target, ...others]: readonly Target[]): void {
    if (target === undefined || client.destroyed) {
      client.resetAndDestroy();
      return;
    }
    const upstream = connect({
      host: formatIp(target.address),
      port: target.port,
      allowHalfOpen: true,
      noDelay: true,
      timeout: CONNECT_TIMEOUT_MS,
      // A target whose veth was deleted says nothing any more: an idle connection to it must end too.
      keepAlive: true,
      keepAliveInitialDelay: KEEPALIVE_MS,
    });
    this.#own(upstream);
    const gone = () => upstream.destroy();
    const next = () => {
      client.off("close", gone);
      upstream.destroy();
      this.#connect(client, others);
    };
    client.once("close", gone);
    upstream.once("timeout", next).once("error", next);
    upstream.once("connect", () => {
      upstream.off("timeout", next).off("error", next);
      client.off("close", gone);
      join(client, upstream);
    });
  }

  /** Keeps a socket for disposal; its errors end it, and that is all that can be done about them. */
  #own(socket: Socket): void {
    this.#connections.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => this.#connections.delete(socket));
  }
}

/** Passes bytes both ways; the end of one direction is passed on while the other goes on (half-close). */
function join(one: Socket, other: Socket): void {
  closeAfter(one, other);
  closeAfter(other, one);
  one.pipe(other);
  other.pipe(one);
}

/** A connection that broke breaks its other half; one that ended in order lets it send what it still holds. */
function closeAfter(one: Socket, other: Socket): void {
  one.once("close", (broken: boolean) => {
    if (broken || !one.readableEnded || !one.writableFinished) other.resetAndDestroy();
  });
}
