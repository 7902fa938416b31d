/** Finds a manager that answers. The only file of swarmctl that knows addresses. */
import { connect as openSocket } from "node:net";
import { type Clock, withTimeout } from "../common/base/clock.ts";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { isLoopback } from "../common/base/host-port.ts";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { createClient } from "../common/rpc/service.ts";
import { Control } from "../proto/gen/swarm/v1/control_pb.js";
import type { ControlClient } from "./command.ts";
import type { TlsChoice } from "./endpoint.ts";
import type { ProbeTls } from "./tls-probe.ts";
import { UsageError } from "./usage-error.ts";

/** All addresses together must not keep a person waiting for longer. */
const CONNECT_MS_MAX = 4000;

/** What connecting stands on. */
export interface ConnectOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** For TCP addresses; absent: plaintext, and only to this machine. */
  readonly tls?: TlsChoice | undefined;
  /** Takes sentences about files that lie open. */
  readonly warn?: (text: string) => void;
}

/** Where a socket leads. */
type Place = { readonly path: string } | { readonly host: string; readonly port: number };

interface Address {
  /** As the user wrote it. */
  readonly text: string;
  readonly place: Place;
  /** As gRPC wants it. */
  readonly target: string;
}

/**
 * A client of the first of `hosts` that takes connections.
 * @throws unavailable: none does; every address is named with its reason. failed_precondition: a certificate's file is bad.
 */
export async function connect(hosts: readonly string[], options: ConnectOptions): Promise<ControlClient> {
  const { clock, signal } = options;
  const addresses = hosts.map((text) => parseHost(text, options.tls !== undefined));
  const tls = addresses.some(({ place }) => "host" in place) ? await loadTls(options) : undefined;
  const failures: string[] = [];
  let understood = false;
  for (const { text, place, target } of addresses) {
    try {
      const timeoutMs = CONNECT_MS_MAX / addresses.length;
      await withTimeout({ clock, timeoutMs, operation: "connect" }, signal, (until) => probe(place, tls, until));
      const secure = "host" in place && tls !== undefined ? { tls: tls.pem } : {};
      return createClient(Control, openGrpcTransport({ address: target, ...secure }));
    } catch (reason) {
      if (signal.aborted) throw reason;
      understood ||= reason instanceof SwarmError && reason.code === "unauthenticated";
      failures.push(`${text} (${errnoOf(reason) ?? SwarmError.from(reason).message})`);
    }
  }
  const hint = understood ? "" : ". Is swarm-manager running?";
  throw new SwarmError("unavailable", `cannot reach a manager; tried ${failures.join(", ")}${hint}`);
}

/** What TLS needs is loaded when it is needed: most calls go to a unix socket. */
async function loadTls({ tls, clock, warn }: ConnectOptions): Promise<ProbeTls | undefined> {
  if (tls === undefined) return undefined;
  const { loadTlsFiles } = await import("../common/rpc/tls-files.ts");
  const nowMs = clock.nowMs();
  const { pem, warnings } = loadTlsFiles(tls.files, { end: "client", nowMs });
  for (const warning of warnings) warn?.(warning);
  const named = tls.serverName === undefined ? {} : { serverName: tls.serverName };
  return { pem: { ...pem, verify: tls.verify, ...named }, files: tls.files, nowMs };
}

/** `unix:///path`, `tcp://host:port` or `host:port`. */
function parseHost(text: string, secure: boolean): Address {
  const path = /^unix:(?:\/\/)?(\/.+)$/.exec(text)?.[1];
  if (path !== undefined) return { text, place: { path }, target: `unix:${path}` };
  const match = /^(?:tcp:\/\/)?(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/.exec(text);
  const [, name, port] = match ?? [];
  if (name === undefined || port === undefined || Number(port) > 65535) {
    throw new UsageError(`invalid --host ${JSON.stringify(text)}: unix:///path or tcp://host:port`);
  }
  const host = name.replace(/^\[|\]$/g, "");
  if (!secure && !isLoopback(host)) {
    throw new UsageError(
      `--host ${text}: only a manager on this machine can be reached without a client certificate; add --tlsverify`,
    );
  }
  return { text, place: { host, port: Number(port) }, target: `${name}:${port}` };
}

/** Says at once and in the system's words why nothing answers; gRPC would take its time and tell a story. */
async function probe(place: Place, tls: ProbeTls | undefined, signal: AbortSignal): Promise<void> {
  if ("host" in place) {
    const { probePlain, probeTls } = await import("./tls-probe.ts");
    return tls === undefined ? await probePlain(place, signal) : await probeTls(place, tls, signal);
  }
  await new Promise<void>((resolve, reject) => {
    const socket = openSocket(place);
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
