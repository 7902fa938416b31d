/** Forgetting tracked connections, so that packets of one that leads nowhere are looked at afresh by the rules. */
import { abortable, type Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { type Family, familyOf, type Ip } from "./address.ts";
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
  const found: TrackedConnection[] = [];
  for (const family of familiesOf(filter)) {
    const dump = { protocol, message: dumpConnections(family, filter), label: "list tracked connections" };
    found.push(...decodeConnections(await exchange(netlink, dump, signal), filter).filter(which));
  }
  for (const connection of found) {
    const message = deleteConnection(connection);
    await exchange(netlink, { protocol, message, label: "forget a connection", tolerated: ["ENOENT"] }, signal);
  }
  return found.length;
}

function familiesOf(filter: ConnectionFilter): ReadonlySet<Family> {
  return new Set("replySources" in filter ? [...filter.replySources].map(familyOf) : [4, 6]);
}

/** The least time between two looks: one costs as much as the table is large (10 ms of a processor are usual). */
const PAUSE_MS = 100;

/** Those who wait for one look. */
interface Sweep {
  readonly addresses: Set<Ip>;
  readonly done: Promise<void>;
}

/** Forgets the connections of addresses that are no more. The first is looked for at once, those that follow together. */
export class ConnectionSweeper implements AsyncDisposable {
  readonly #netlink: Netlink;
  readonly #clock: Clock;
  readonly #disposal = new AbortController();
  /** The sweep that has not begun. */
  #next: Sweep | undefined;
  /** When the one before may be followed by another. */
  #ready: Promise<unknown> = Promise.resolve();

  constructor(netlink: Netlink, clock: Clock) {
    this.#netlink = netlink;
    this.#clock = clock;
  }

  /** Forgets what `address` answers; resolves once a look that began after this call has found nothing more. */
  forget(address: Ip, signal: AbortSignal): Promise<void> {
    this.#next ??= this.#prepare();
    this.#next.addresses.add(address);
    return abortable(this.#next.done, signal);
  }

  #prepare(): Sweep {
    const { signal } = this.#disposal;
    const addresses = new Set<Ip>();
    const done = this.#ready.then(() => {
      this.#next = undefined;
      return this.#sweep(addresses, signal);
    });
    // The failure is of those who wait; the next sweep only waits for the end.
    this.#ready = done.then(() => this.#clock.sleep(PAUSE_MS, signal)).catch(() => {});
    return { addresses, done };
  }

  async #sweep(addresses: ReadonlySet<Ip>, signal: AbortSignal): Promise<void> {
    try {
      await forgetConnections(this.#netlink, { replySources: addresses }, () => true, signal);
    } catch (reason) {
      if (signal.aborted || !(reason instanceof SwarmError) || addresses.size === 1) throw reason;
      // All connections of a busy host together may be more than an answer holds.
      for (const address of addresses) {
        await forgetConnections(this.#netlink, { replySources: new Set([address]) }, () => true, signal);
      }
    }
  }

  /** Ends the work; who waits for it is told. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposal.abort(new SwarmError("canceled", "the network is closed"));
    await this.#ready;
  }
}
