/** A port of this host that is to be published, and whether that can be. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import { printHostPort } from "../../common/base/host-port.ts";
import type { Protocol } from "./ruleset.ts";

export const LOOPBACKS = ["127.0.0.1", "::1"];

/** A port of this host. */
export interface HostPort {
  readonly protocol: Protocol;
  readonly port: number;
  /** The one address of it that is meant. Default: all. */
  readonly address?: string;
}

/**
 * Whether nobody on the host listens on the port, on whatever address it is meant for: a translated port would be taken away
 * from them unseen. A connection that came from it, as it may from one that the kernel chooses from, is not disturbed. Throws
 * `already_exists` with the words for the user, and nothing when SCTP, which Node cannot ask for.
 */
export async function assertPortFree(wanted: HostPort): Promise<void> {
  const { protocol, port, address = "0.0.0.0" } = wanted;
  if (protocol === "sctp") return;
  const failure = protocol === "tcp" ? await probeTcp(address, port) : await probeUdp(address, port);
  if (failure === undefined) return;
  if (!isTaken(failure)) throw SwarmError.wrap(nameOf(wanted), failure);
  if (await isHeld(protocol, port)) throw portTaken(wanted);
}

/** In /proc/net: TCP that listens, and UDP that is not connected. */
const OPEN_TO_ALL = { tcp: "0A", udp: "07" } as const;

async function isHeld(protocol: "tcp" | "udp", port: number): Promise<boolean> {
  const ending = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const tables = await Promise.all(
    ["", "6"].map((suffix) => readFile(`/proc/self/net/${protocol}${suffix}`, "utf8").catch(() => "")),
  );
  return tables
    .flatMap((table) => table.split("\n").map((line) => line.trim().split(/\s+/)))
    .some(([, local = "", , state]) => local.endsWith(ending) && state === OPEN_TO_ALL[protocol]);
}

/** Throws `failed_precondition` when the port is for an address that this host does not have (now). */
export async function assertOwnAddress(wanted: HostPort): Promise<void> {
  if (wanted.address === undefined) return;
  const failure = await probeUdp(wanted.address, 0);
  if (errnoOf(failure) !== "EADDRNOTAVAIL") return;
  throw new SwarmError("failed_precondition", `${nameOf(wanted)}: this node does not have the address`);
}

/** The words for the user. */
export function portTaken(wanted: HostPort): SwarmError {
  return new SwarmError("already_exists", `${nameOf(wanted)}: already in use on this node`);
}

function nameOf({ protocol, port, address }: HostPort): string {
  return `published port ${address === undefined ? port : printHostPort({ host: address, port })}/${protocol}`;
}

async function probeTcp(address: string, port: number): Promise<unknown> {
  const server = createServer();
  const failure = await listen(server, address, port);
  if (failure === undefined) await closeServer(server);
  return failure;
}

async function probeUdp(address: string, port: number): Promise<unknown> {
  const socket = createSocket("udp4");
  const bound = once(socket, "listening").then(
    () => undefined,
    (reason: unknown) => reason,
  );
  socket.bind({ address, port, exclusive: true });
  const failure = await bound;
  if (failure === undefined) {
    const closed = once(socket, "close");
    socket.close();
    await closed;
  }
  return failure;
}

/** Listens and tells of the failure as a value, for it is expected. */
export async function listen(server: Server, host: string, port: number): Promise<unknown> {
  const listening = once(server, "listening").then(
    () => undefined,
    (reason: unknown) => reason,
  );
  server.listen({ host, port, exclusive: true });
  const failure = await listening;
  // A later error (accept ran out of descriptors) must not end the agent; the client sees its connection refused.
  server.on("error", () => {});
  return failure;
}

export function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}

export function isTaken(failure: unknown): boolean {
  return errnoOf(failure) === "EADDRINUSE";
}

export function isWithoutIpv6(failure: unknown): boolean {
  return ["EADDRNOTAVAIL", "EAFNOSUPPORT"].includes(errnoOf(failure) ?? "");
}
