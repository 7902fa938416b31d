/** Forgetting tracked connections, so that packets of one that leads nowhere are looked at afresh by the rules. */
import { constants } from "node:os";
import { command, type NetlinkSocket } from "./netlink.ts";
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
  socket: NetlinkSocket,
  filter: ConnectionFilter,
  which: (connection: TrackedConnection) => boolean,
  signal: AbortSignal,
): Promise<number> {
  const answer = await command(socket, dumpConnections(filter), { operation: "list tracked connections" }, signal);
  const found = decodeConnections(answer.messages, filter).filter(which);
  const options = { operation: "forget a tracked connection", tolerated: [constants.errno.ENOENT] };
  for (const connection of found) await command(socket, deleteConnection(connection), options, signal);
  return found.length;
}
