/** Forgetting tracked connections, so that packets of one that leads nowhere are looked at afresh by the rules. */
import { abortable, type Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import { type Family, familyOf, formatIp, type Ip } from "./address.ts";
import { exchange, exchangeAll, NETLINK, type Netlink } from "./netlink.ts";
import {
  type ConnectionFilter,
  decodeConnections,
  deleteConnection,
  dumpConnections,
  flushConnections,
  flushMarked,
  type TrackedConnection,
} from "./nfnetlink.ts";

/** IPPROTO_UDP. */
export const UDP = 17;

const protocol = NETLINK.NETFILTER;

/**
 * Forgets the connections that match `filter` and `which` and are not closed; returns how many. A TCP connection that was
 * forgotten is reset by whoever gets its next packet; UDP simply goes to a living target. Throws `resource_exhausted`
 * when there are more than an answer holds, some 18,000.
 */
export async function forgetConnections(
  netlink: Netlink,
  filter: ConnectionFilter,
  which: (connection: TrackedConnection) => boolean,
  signal: AbortSignal,
): Promise<number> {
  const found: TrackedConnection[] = [];
  for (const family of familiesOf(filter)) {
    const dump = { protocol, message: dumpConnections(family, filter), label: "list tracked connections" };
    const connections = decodeConnections(await exchange(netlink, dump, signal), filter);
    found.push(...connections.filter((connection) => !connection.closed && which(connection)));
  }
  const deletions = found.map((connection) => ({
    protocol,
    message: deleteConnection(connection),
    label: "forget a connection",
    tolerated: ["ENOENT"],
  }));
  await exchangeAll(netlink, deletions, signal);
  return found.length;
}

function familiesOf(filter: ConnectionFilter): ReadonlySet<Family> {
  return new Set("replySources" in filter ? [...filter.replySources].map(familyOf) : [4, 6]);
}

/** The least time between two looks: one costs as much as the table is large (10 ms of a processor are usual). */
const PAUSE_MS = 100;

/** For more addresses one list of all connections costs less than the kernel's own look for each of them. */
const FLUSHES_MAX = 8;

/** Those who wait for one look. */
interface Sweep {
  readonly addresses: Set<Ip>;
  readonly done: Promise<void>;
}

interface SweeperWorld {
  readonly netlink: Netlink;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Forgets the connections of addresses that are no more. The first is looked for at once, those that follow together. */
export class ConnectionSweeper implements AsyncDisposable {
  readonly #world: SweeperWorld;
  readonly #disposal = new AbortController();
  /** The sweep that has not begun. */
  #next: Sweep | undefined;
  /** When the one before may be followed by another, and nothing is under way. */
  #ready: Promise<unknown> = Promise.resolve();

  constructor(world: SweeperWorld) {
    this.#world = world;
  }

  /** Forgets what `addresses` answer; resolves once a look that began after this call has found nothing more. */
  forget(addresses: readonly Ip[], signal: AbortSignal): Promise<void> {
    return abortable(this.#add(addresses).done, signal);
  }

  /** The same, for one who has better to do than to wait; a failure is logged, and the connections time out. */
  forgetSoon(addresses: readonly Ip[]): void {
    if (addresses.length === 0) return;
    this.#add(addresses).done.catch((reason: unknown) => {
      if (this.#disposal.signal.aborted) return;
      this.#world.logger.warn({ err: reason, addresses: addresses.map(formatIp) }, "connections not forgotten");
    });
  }

  /** Forgets the connections that bear one of some marks; a failure is logged, and they time out. */
  forgetMarkedSoon(marks: readonly number[]): void {
    const { signal } = this.#disposal;
    const label = "forget the connections of a mark";
    const forgotten = marks.map((mark) =>
      exchange(this.#world.netlink, { protocol, message: flushMarked(mark), label }, signal).catch(
        (reason: unknown) => {
          if (!signal.aborted) this.#world.logger.warn({ err: reason, mark }, "connections not forgotten");
        },
      ),
    );
    this.#ready = Promise.all([this.#ready, ...forgotten]);
  }

  #add(addresses: readonly Ip[]): Sweep {
    this.#next ??= this.#prepare();
    for (const address of addresses) this.#next.addresses.add(address);
    return this.#next;
  }

  #prepare(): Sweep {
    const { signal } = this.#disposal;
    const addresses = new Set<Ip>();
    const done = this.#ready.then(() => {
      this.#next = undefined;
      return this.#sweep(addresses, signal);
    });
    // The failure is of those who wait; the next sweep only waits for the end.
    this.#ready = done.then(() => this.#world.clock.sleep(PAUSE_MS, signal)).catch(() => {});
    return { addresses, done };
  }

  async #sweep(addresses: ReadonlySet<Ip>, signal: AbortSignal): Promise<void> {
    if (addresses.size <= FLUSHES_MAX && (await this.#flush(addresses, signal))) return;
    const { netlink } = this.#world;
    try {
      await forgetConnections(netlink, { replySources: addresses }, () => true, signal);
    } catch (reason) {
      if (signal.aborted || !(reason instanceof SwarmError) || addresses.size === 1) throw reason;
      // All connections of a busy host together may be more than an answer holds.
      if (await this.#flush(addresses, signal)) return;
      for (const address of addresses) {
        await forgetConnections(netlink, { replySources: new Set([address]) }, () => true, signal);
      }
    }
  }

  /** Whether the kernel, asked to look by itself, did so. */
  async #flush(addresses: Iterable<Ip>, signal: AbortSignal): Promise<boolean> {
    const label = "forget the connections of an address";
    try {
      for (const address of addresses) {
        await exchange(this.#world.netlink, { protocol, message: flushConnections(address), label }, signal);
      }
      return true;
    } catch (reason) {
      if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
      return false;
    }
  }

  /** Ends the work; who waits for it is told. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposal.abort(new SwarmError("canceled", "the network is closed"));
    await this.#ready;
  }
}
