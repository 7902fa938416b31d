/**
 * Published UDP ports on 127.0.0.1 and ::1, for the same reason as TCP's in `loopback-proxy.ts`: a process listens there and
 * passes datagrams on. A client is an address and a port; each has a socket of its own towards its target, so that answers find
 * back, and keeps it for as long as either side speaks.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { once } from "node:events";
import type { Clock } from "../../common/base/clock.ts";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import { formatIp } from "./address.ts";
import { type HostPort, isWithoutIpv6, LOOPBACKS, portTaken } from "./loopback-port.ts";
import type { Target } from "./ruleset.ts";

/** As long as the kernel remembers a flow that was answered (nf_conntrack_udp_timeout_stream). */
const IDLE_MS = 120_000;
/** Each client costs a socket of the agent; beyond that the one that was silent for longest makes room. */
const CLIENTS_PER_PORT_MAX = 1024;

interface Flow {
  readonly target: Target;
  readonly upstream: Socket;
  /** Resolves once the upstream socket knows its target. */
  readonly ready: Promise<unknown>;
  /** When either side last spoke. */
  lastMs: number;
}

interface Listening {
  readonly sockets: readonly Socket[];
  readonly flows: Map<string, Flow>;
  targets: readonly Target[];
  /** Counts clients, to deal them out in turn. */
  turn: number;
}

/** The listeners of all published UDP ports of this node. */
export class LoopbackRelay implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #ports = new Map<string, Listening>();
  readonly #ending = new AbortController();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The keys of the ports that are listened on now. */
  get open(): ReadonlySet<string> {
    return new Set(this.#ports.keys());
  }

  /** As `LoopbackProxy.listen`. Clients of a target that is no longer one begin anew with another. */
  async listen(wanted: HostPort & { readonly key: string; readonly targets: readonly Target[] }): Promise<void> {
    const { key, port, address, targets } = wanted;
    const known = this.#ports.get(key);
    if (known !== undefined) {
      known.targets = targets;
      for (const [client, flow] of known.flows)
        if (!targets.some((target) => isSame(target, flow.target))) drop(known, client);
      return;
    }
    const sockets: Socket[] = [];
    const entry: Listening = { sockets, flows: new Map(), targets, turn: 0 };
    for (const host of address === undefined ? LOOPBACKS : [address]) {
      const socket = createSocket(typeOf(host));
      const failure = await bind(socket, host, port);
      if (failure === undefined) {
        sockets.push(socket);
        socket.on("message", (message, client) => this.#pass(entry, socket, { message, client }));
      } else if (!(host === "::1" && isWithoutIpv6(failure))) {
        for (const each of sockets) each.close();
        throw errnoOf(failure) === "EADDRINUSE"
          ? portTaken(wanted)
          : SwarmError.wrap(`listen on ${host} port ${port}`, failure);
      }
    }
    this.#ports.set(key, entry);
  }

  /** Stops listening on a port, and ends what went through it. */
  async close(key: string): Promise<void> {
    const listening = this.#ports.get(key);
    this.#ports.delete(key);
    if (listening !== undefined) end(listening);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort(new SwarmError("canceled", "the relay is closed"));
    for (const listening of this.#ports.values()) end(listening);
    this.#ports.clear();
  }

  #pass(
    listening: Listening,
    socket: Socket,
    { message, client }: { readonly message: Buffer; readonly client: RemoteInfo },
  ): void {
    const name = `${client.address} ${client.port}`;
    const flow = listening.flows.get(name) ?? this.#begin(listening, socket, { client, name });
    if (flow === undefined) return;
    flow.lastMs = this.#clock.monotonicMs();
    flow.ready.then(
      () => flow.upstream.send(message),
      () => drop(listening, name),
    );
  }

  #begin(
    listening: Listening,
    socket: Socket,
    { client, name }: { readonly client: RemoteInfo; readonly name: string },
  ): Flow | undefined {
    const { flows, targets } = listening;
    const target = targets[listening.turn++ % Math.max(1, targets.length)];
    if (target === undefined) return undefined;
    if (flows.size >= CLIENTS_PER_PORT_MAX) drop(listening, silentLongest(flows));
    const host = formatIp(target.address);
    const upstream = createSocket(typeOf(host));
    const ready = once(upstream, "connect");
    const flow: Flow = { target, upstream, ready, lastMs: this.#clock.monotonicMs() };
    flows.set(name, flow);
    upstream.on("message", (answer) => {
      flow.lastMs = this.#clock.monotonicMs();
      socket.send(answer, client.port, client.address);
    });
    // Nobody listens there, now: UDP has no way to tell the client, who asks again.
    upstream.on("error", () => drop(listening, name, flow));
    upstream.connect(target.port, host);
    void this.#expire(listening, name, flow);
    return flow;
  }

  async #expire(listening: Listening, name: string, flow: Flow): Promise<void> {
    const { signal } = this.#ending;
    while (listening.flows.get(name) === flow) {
      const leftMs = flow.lastMs + IDLE_MS - this.#clock.monotonicMs();
      if (leftMs <= 0) return drop(listening, name, flow);
      try {
        await this.#clock.sleep(leftMs, signal);
      } catch {
        return;
      }
    }
  }
}

/** Only if it is that one still: another may have its client by now. */
function drop(listening: Listening, name: string, only?: Flow): void {
  const flow = listening.flows.get(name);
  if (flow === undefined || (only !== undefined && flow !== only)) return;
  listening.flows.delete(name);
  flow.upstream.close();
}

function end(listening: Listening): void {
  for (const name of [...listening.flows.keys()]) drop(listening, name);
  for (const socket of listening.sockets) socket.close();
}

function silentLongest(flows: ReadonlyMap<string, Flow>): string {
  let [oldest, lastMs] = ["", Number.POSITIVE_INFINITY];
  for (const [name, flow] of flows) if (flow.lastMs < lastMs) [oldest, lastMs] = [name, flow.lastMs];
  return oldest;
}

/** Binds and tells of the failure as a value, for it is expected. */
async function bind(socket: Socket, address: string, port: number): Promise<unknown> {
  const bound = once(socket, "listening").then(
    () => undefined,
    (reason: unknown) => reason,
  );
  socket.bind({ address, port, exclusive: true });
  const failure = await bound;
  // A later error (an answer to a client that is gone) must not end the agent.
  socket.on("error", () => {});
  return failure;
}

function typeOf(address: string): "udp4" | "udp6" {
  return address.includes(":") ? "udp6" : "udp4";
}

function isSame(one: Target, other: Target): boolean {
  return one.address === other.address && one.port === other.port;
}
