/** Finds a manager that answers. The only file of swarmctl that knows addresses. */
import { type NetConnectOpts, connect as openSocket } from "node:net";
import { type Clock, withTimeout } from "../common/base/clock.ts";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { isLoopback } from "../common/base/host-port.ts";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { createClient } from "../common/rpc/service.ts";
import { Control } from "../proto/gen/swarm/v1/control_pb.js";
import type { ControlClient } from "./command.ts";
import { UsageError } from "./usage-error.ts";

/** All addresses together must not keep a person waiting for longer. */
const CONNECT_MS_MAX = 4000;

interface Address {
  /** As the user wrote it. */
  readonly text: string;
  readonly socket: NetConnectOpts;
  /** As gRPC wants it. */
  readonly target: string;
}

/**
 * A client of the first of `hosts` that takes connections.
 * @throws unavailable: none does; every address is named with its reason.
 */
export async function connect(
  hosts: readonly string[],
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<ControlClient> {
  const addresses = hosts.map(parseHost);
  const failures: string[] = [];
  for (const address of addresses) {
    try {
      const timeoutMs = CONNECT_MS_MAX / addresses.length;
      await withTimeout({ clock, timeoutMs, operation: "connect" }, signal, (until) => probe(address.socket, until));
      return createClient(Control, openGrpcTransport({ address: address.target }));
    } catch (reason) {
      if (signal.aborted) throw reason;
      failures.push(`${address.text} (${errnoOf(reason) ?? SwarmError.from(reason).message})`);
    }
  }
  throw new SwarmError(
    "unavailable",
    `cannot reach a manager; tried ${failures.join(", ")}. Is swarm-manager running?`,
  );
}

/** `unix:///path`, `tcp://host:port` or `host:port`. */
function parseHost(text: string): Address {
  const path = /^unix:(?:\/\/)?(\/.+)$/.exec(text)?.[1];
  if (path !== undefined) return { text, socket: { path }, target: `unix:${path}` };
  const match = /^(?:tcp:\/\/)?(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/.exec(text);
  const [, name, port] = match ?? [];
  if (name === undefined || port === undefined || Number(port) > 65535) {
    throw new UsageError(`invalid --host ${JSON.stringify(text)}: unix:///path or tcp://host:port`);
  }
  const host = name.replace(/^\[|\]$/g, "");
  if (!isLoopback(host)) {
    throw new UsageError(`--host ${text}: only a manager on this machine can be reached without a client certificate`);
  }
  return { text, socket: { host, port: Number(port) }, target: `${name}:${port}` };
}

/** Says at once and in the system's words why nothing answers; gRPC would take its time and tell a story. */
function probe(options: NetConnectOpts, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = openSocket(options);
    const leave = () => socket.destroy(new SwarmError("canceled", "canceled"));
    signal.addEventListener("abort", leave, { once: true });
    socket.once("close", () => signal.removeEventListener("abort", leave));
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.destroy();
      resolve();
    });
  });
}
