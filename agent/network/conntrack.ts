/** Forgetting tracked connections, so that packets of one that leads nowhere are looked at afresh by the rules. */
import { exchange, NETLINK, type Netlink } from "./netlink.ts";
import {
  type ConnectionFilter,
  decodeConnections,
  deleteConnection,
  dumpConnections,
  type TrackedConnection,
} from "./nfnetlink.ts";

/** IPPROTO_UDP. */
export const UDP = 17;

/**
 * Forgets the connections that match `filter` and `which`; returns how many. A TCP connection that was forgotten is
 * reset by whoever gets its next packet; UDP simply goes to a living target.
 */
export async function forgetConnections(
  netlink: Netlink,
  filter: ConnectionFilter,
  which: (connection: TrackedConnection) => boolean,
  signal: AbortSignal,
): Promise<number> {
  const protocol = NETLINK.NETFILTER;
  const dump = { protocol, message: dumpConnections(filter), label: "list tracked connections" };
  const found = decodeConnections(await exchange(netlink, dump, signal), filter).filter(which);
  for (const connection of found) {
    const message = deleteConnection(connection);
    await exchange(netlink, { protocol, message, label: "forget a connection", tolerated: ["ENOENT"] }, signal);
  }
  return found.length;
}
