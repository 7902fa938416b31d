import { networkInterfaces } from "node:os";
import type { Clock } from "../../common/base/clock.ts";
import { assert, SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import { contains, familyOf, formatIp, type Ip, parseIp } from "./address.ts";
import { forgetConnections, UDP } from "./conntrack.ts";
import { assertOwnAddress, assertPortFree } from "./loopback-port.ts";
import { LoopbackProxy } from "./loopback-proxy.ts";
import { LoopbackRelay } from "./loopback-relay.ts";
import type { Netlink } from "./netlink.ts";
import type { TrackedConnection } from "./nfnetlink.ts";
import type { RuleTable } from "./rule-table.ts";
import type { Protocol, PublishedPort, RulesetState, Target, VirtualAddress } from "./ruleset.ts";

/** A port that could not be published, and why, in words for the user. */
export interface PublishProblem {
  readonly protocol: Protocol;
  readonly port: number;
  /** The one address it was to be published on. */
  readonly hostIp?: Ip;
  readonly message: string;
}

const LOOPBACK = { address: 0x7f000000, length: 8 };
const LOOPBACK_IPV6 = 1n;

/** Looks for one address each, before all connections are listed. */
const LOOKS_MAX = 8;

/** What it is done with. */
interface PublisherWorld {
  readonly netlink: Netlink;
  readonly logger: Logger;
  readonly clock: Clock;
}

/** Brings the published ports from what they are to what they should be: listeners, rules, tracked connections. */
export class PortPublisher implements AsyncDisposable {
  readonly #table: RuleTable;
  readonly #netlink: Netlink;
  readonly #logger: Logger;
  readonly #proxies: { readonly tcp: LoopbackProxy; readonly udp: LoopbackRelay };
  /** What is published now, by key; taken ports are not in it. */
  #published: ReadonlyMap<string, PublishedPort> = new Map();
  #virtual: readonly VirtualAddress[] = [];

  constructor(table: RuleTable, { netlink, logger, clock }: PublisherWorld) {
    this.#table = table;
    this.#netlink = netlink;
    this.#logger = logger;
    this.#proxies = { tcp: new LoopbackProxy(logger), udp: new LoopbackRelay(clock) };
  }

  /**
   * Publishes exactly `wanted.published`, and returns those that somebody else on the host holds or whose address is not
   * the host's. Throws when the rules cannot be loaded; the next call begins where this one ended.
   */
  async apply(
    wanted: RulesetState,
    signal: AbortSignal,
  ): Promise<{ readonly problems: readonly PublishProblem[]; readonly repaired: boolean }> {
    const problems: PublishProblem[] = [];
    const next = new Map<string, PublishedPort>();
    // First, so that a port may move from all addresses to one of them and back.
    await this.#release(wanted.published);
    for (const port of wanted.published) {
      if (port.targets.length === 0) continue;
      const problem = await this.#claim(port);
      if (problem === undefined) next.set(keyOf(port), port);
      else problems.push(problem);
    }
    const published = [...next.values()];
    await this.#release(published);
    const ruled = published.filter((port) => !isLoopback(port.hostIp));
    const { repaired } = await this.#table.apply({ ...wanted, published: ruled }, signal);
    const before = this.#published;
    this.#published = next;
    await this.#forgetStale(before, next, signal);
    const virtual = this.#virtual;
    this.#virtual = wanted.virtual;
    await this.#forgetLeft(virtual, wanted.virtual, signal);
    return { problems, repaired };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const proxy of Object.values(this.#proxies)) await proxy[Symbol.asyncDispose]();
  }

  /** Sees to it that the port is nobody else's, and listens on loopback where it should. */
  async #claim(port: PublishedPort): Promise<PublishProblem | undefined> {
    try {
      const { protocol, hostIp } = port;
      const bound = { protocol, port: port.port, ...(hostIp !== undefined && { address: formatIp(hostIp) }) };
      await assertOwnAddress(bound);
      const proxy = protocol === "sctp" ? undefined : this.#proxies[protocol];
      if (!this.#published.has(keyOf(port)) && !proxy?.open.has(keyOf(port))) await assertPortFree(bound);
      if (isProxied(port)) await proxy?.listen({ ...bound, key: keyOf(port), targets: reachable(port.targets) });
      return undefined;
    } catch (reason) {
      if (!(reason instanceof SwarmError)) throw reason;
      const { protocol, hostIp } = port;
      return { protocol, port: port.port, ...(hostIp !== undefined && { hostIp }), message: reason.message };
    }
  }

  async #release(published: readonly PublishedPort[]): Promise<void> {
    const kept = new Set(published.filter((port) => isProxied(port) && port.targets.length > 0).map(keyOf));
    for (const proxy of Object.values(this.#proxies)) {
      for (const key of proxy.open) if (!kept.has(key)) await proxy.close(key);
    }
  }

  /**
   * UDP has no end of a connection: a client that keeps sending keeps its old way for ever. So forget those that led
   * to a target which left, and those that began before the port was published. TCP connections to a target that
   * left are let go on: it is draining.
   */
  async #forgetStale(
    before: ReadonlyMap<string, PublishedPort>,
    after: ReadonlyMap<string, PublishedPort>,
    signal: AbortSignal,
  ): Promise<void> {
    const changed = new Set<number>();
    for (const [key, port] of [...before, ...after]) {
      if (port.protocol !== "udp") continue;
      const same = sameTargets(before.get(key)?.targets ?? [], after.get(key)?.targets ?? []);
      if (!same) changed.add(port.port);
    }
    const own = changed.size === 0 ? new Set<Ip>() : ownAddresses();
    for (const port of changed) {
      const there = [...after.values()].filter((each) => each.protocol === "udp" && each.port === port);
      const alive = new Set(there.flatMap(({ targets }) => targets.map(({ address }) => address)));
      const filter = { protocol: UDP, destinationPort: port };
      const count = await forgetConnections(
        this.#netlink,
        filter,
        ({ destination, replySource }) => own.has(destination) && !alive.has(replySource),
        signal,
      );
      if (count > 0) this.#logger.debug({ port, count }, "forgot stale udp flows");
    }
  }

  /**
   * The same of virtual addresses: it is what a target answers for one that it does not serve any more. What cannot be
   * listed (a busy host's connections may be too many for one answer) ends with its task.
   */
  async #forgetLeft(
    before: readonly VirtualAddress[],
    after: readonly VirtualAddress[],
    signal: AbortSignal,
  ): Promise<void> {
    const left = leftTargets(before, after);
    if (left.size === 0) return;
    // One address the kernel looks for by itself; for many, one list of all is less work.
    const each = [...left.keys()].map((target) => ({ replySources: new Set([target]), protocol: UDP }));
    const filters = each.length > LOOKS_MAX ? [{ protocol: UDP }] : each;
    const isLeft = ({ destination, replySource }: TrackedConnection) =>
      left.get(replySource)?.has(destination) === true;
    try {
      for (const filter of filters) await forgetConnections(this.#netlink, filter, isLeft, signal);
    } catch (reason) {
      if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
      this.#logger.warn({ err: reason }, "udp flows to targets that left not forgotten");
    }
  }
}

/** The virtual addresses that have lost each of the targets they did lose. */
function leftTargets(
  before: readonly VirtualAddress[],
  after: readonly VirtualAddress[],
): ReadonlyMap<Ip, ReadonlySet<Ip>> {
  const present = new Map(after.map(({ address, targets }) => [address, targets] as const));
  const left = new Map<Ip, Set<Ip>>();
  for (const { address, targets } of before) {
    if (present.get(address) === targets) continue;
    const kept = new Set(present.get(address));
    for (const target of targets) {
      if (!kept.has(target)) left.set(target, (left.get(target) ?? new Set()).add(address));
    }
  }
  return left;
}

/** The host's own. Others that are asked on the same port (a task's name server, say) are none of our business. */
function ownAddresses(): ReadonlySet<Ip> {
  const present = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  return new Set(present.flatMap(({ address }) => parseIp(address) ?? []));
}

function keyOf(port: PublishedPort): string {
  assert(port.port > 0 && port.port < 65_536, `published port ${port.port} was allocated`);
  return `${port.protocol}-${port.port}-${port.hostIp ?? ""}`;
}

/** Loopback is served where the port is meant for all addresses or for loopback itself. */
function isProxied(port: PublishedPort): boolean {
  return port.protocol !== "sctp" && (port.hostIp === undefined || isLoopback(port.hostIp));
}

function isLoopback(address: Ip | undefined): boolean {
  return address !== undefined && (address === LOOPBACK_IPV6 || contains(LOOPBACK, address));
}

/** A task with addresses of both families is one target: the host speaks to it by IPv4. */
function reachable(targets: readonly Target[]): readonly Target[] {
  const ipv4 = targets.filter(({ address }) => familyOf(address) === 4);
  return ipv4.length > 0 ? ipv4 : targets;
}

function sameTargets(one: readonly Target[], other: readonly Target[]): boolean {
  const text = (targets: readonly Target[]) => targets.map(({ address, port }) => `${address}:${port}`).join();
  return text(one) === text(other);
}
