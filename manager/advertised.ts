/** The address by which others reach this host: said, or the only one there is. Pure but for the list of interfaces. */
import { isIP } from "node:net";
import type { NetworkInterfaceInfo } from "node:os";
import { SwarmError } from "../common/base/error.ts";
import { isLoopback, parseHostPort, printHostPort } from "../common/base/host-port.ts";

/** As os.networkInterfaces() has them. */
export type Interfaces = Readonly<Record<string, readonly NetworkInterfaceInfo[] | undefined>>;

/** Docker's port for managers. */
export const MANAGER_PORT = 2377;

/**
 * The etcds of managers meet at this distance from the managers' port: 2378 for 2377. Not at etcd's own 2380, which the etcd that
 * Debian's package starts has on every host where it was installed.
 */
export const PEER_PORT_OFFSET = 1;

/**
 * "host:port" that others reach, from what an operator said (an address, a name, an interface; with a port or without) or,
 * when that is empty, from where the manager listens.
 * @throws invalid_argument: it is not said, and this host has several addresses; an interface without one; an address by which
 * others would not reach this host.
 */
export function advertisedAddress(
  said: string,
  listen: { readonly host: string; readonly port: number },
  interfaces: Interfaces,
): string {
  const parsed = parseHostPort(said) ?? { host: said, port: listen.port };
  if (said !== "") {
    const host = addressOf(parsed.host, interfaces);
    requireReachable(host, listen.host, interfaces);
    return printHostPort({ ...parsed, host });
  }
  if (!isAny(listen.host)) return printHostPort(listen);
  const found = Object.entries(interfaces).flatMap(([name, addresses]) =>
    (addresses ?? [])
      .filter(({ internal, family }) => !internal && family === "IPv4")
      .map(({ address }) => ({ name, address })),
  );
  const [first, second] = found;
  if (first === undefined) return printHostPort({ host: "127.0.0.1", port: listen.port });
  if (second === undefined) return printHostPort({ host: first.address, port: listen.port });
  throw new SwarmError(
    "invalid_argument",
    "could not choose an IP address to advertise since this system has multiple addresses: " +
      `${found.map(({ name, address }) => `${address} on ${name}`).join(", ")}: specify one with --advertise-addr`,
  );
}

/** An interface's name stands for its address. */
function addressOf(host: string, interfaces: Interfaces): string {
  const named = interfaces[host];
  if (named === undefined) return host;
  const address = named.find(({ family }) => family === "IPv4") ?? named[0];
  if (address) return address.address;
  throw new SwarmError("invalid_argument", `interface ${host} has no address to advertise`);
}

/** Behind an address translator a host is known by a name: an address that it has not, others would be sent to in vain. */
function requireReachable(host: string, listenHost: string, interfaces: Interfaces): void {
  const refuse = (problem: string) => new SwarmError("invalid_argument", `--advertise-addr: ${host} ${problem}`);
  if (isAny(host)) throw refuse("is no address that others could reach this host by");
  if (isIP(host) === 0) return;
  if (isLoopback(host)) {
    if (isLoopback(listenHost)) return;
    throw refuse("is a loopback address, by which no other host reaches this one");
  }
  const own = Object.values(interfaces).flatMap((addresses) => (addresses ?? []).map(({ address }) => address));
  if (own.includes(host)) return;
  throw refuse("is not an address of this host; if it stands for it elsewhere, give a name that resolves to it");
}

function isAny(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}
