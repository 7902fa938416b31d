import { assert, SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import { contains, type Ipv4 } from "./address.ts";
import { forgetConnections, UDP } from "./conntrack.ts";
import { assertPortFree, LoopbackProxy } from "./loopback-proxy.ts";
import type { Netlink } from "./netlink.ts";
import type { RuleTable } from "./rule-table.ts";
import type { Protocol, PublishedPort, RulesetState, Target } from "./ruleset.ts";

/** A port that could not be published, and why, in words for the user. */
export interface PublishProblem {
  readonly protocol: Protocol;
  readonly port: number;
  readonly message: string;
}

const LOOPBACK = { address: 0x7f000000, length: 8 };

/** Brings the published ports from what they are to what they should be: listeners, rules, tracked connections. */
export class PortPublisher implements AsyncDisposable {
  readonly #table: RuleTable;
  readonly #netlink: Netlink;
  readonly #logger: Logger;
  readonly #proxy: LoopbackProxy;
  /** What is published now, by key; taken ports are not in it. */
  #published: ReadonlyMap<string, PublishedPort> = new Map();

  constructor(table: RuleTable, netlink: Netlink, logger: Logger) {
    this.#table = table;
    this.#netlink = netlink;
    this.#logger = logger;
    this.#proxy = new LoopbackProxy(logger);
  }

  /**
   * Publishes exactly `wanted.published`, and returns those that somebody else on the host holds. Throws when the
   * rules cannot be loaded; the next call begins where this one ended.
   */
  async apply(
    wanted: RulesetState,
    signal: AbortSignal,
  ): Promise<{ readonly problems: readonly PublishProblem[]; readonly repaired: boolean }> {
    const problems: PublishProblem[] = [];
    const next = new Map<string, PublishedPort>();
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
    return { problems, repaired };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#proxy[Symbol.asyncDispose]();
  }

  /** Sees to it that the port is nobody else's, and listens on loopback where it should. */
  async #claim(port: PublishedPort): Promise<PublishProblem | undefined> {
    try {
      if (!this.#published.has(keyOf(port)) && !this.#proxy.ports.has(port.port)) {
        await assertPortFree(port.protocol, port.port);
      }
      if (isProxied(port)) await this.#proxy.open(port.port, port.targets);
      return undefined;
    } catch (reason) {
      if (!(reason instanceof SwarmError)) throw reason;
      return { protocol: port.protocol, port: port.port, message: reason.message };
    }
  }

  async #release(published: readonly PublishedPort[]): Promise<void> {
    const kept = new Set(published.filter(isProxied).map((port) => port.port));
    for (const port of this.#proxy.ports) if (!kept.has(port)) await this.#proxy.close(port);
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
    const changed = new Map<number, readonly Target[]>();
    for (const [key, port] of [...before, ...after]) {
      if (port.protocol !== "udp") continue;
      const targets = after.get(key)?.targets ?? [];
      if (!sameTargets(before.get(key)?.targets ?? [], targets)) changed.set(port.port, targets);
    }
    for (const [port, targets] of changed) {
      const alive = new Set(targets.map((target) => target.address));
      const filter = { protocol: UDP, destinationPort: port };
      const count = await forgetConnections(
        this.#netlink,
        filter,
        (connection) => !alive.has(connection.replySource),
        signal,
      );
      if (count > 0) this.#logger.debug({ port, count }, "forgot stale udp flows");
    }
  }
}

function keyOf(port: PublishedPort): string {
  assert(port.port > 0 && port.port < 65_536, `published port ${port.port} was allocated`);
  return `${port.protocol}-${port.port}-${port.hostIp ?? ""}`;
}

/** Loopback is served where the port is meant for all addresses or for loopback itself. */
function isProxied(port: PublishedPort): boolean {
  return port.protocol === "tcp" && (port.hostIp === undefined || isLoopback(port.hostIp));
}

function isLoopback(address: Ipv4 | undefined): boolean {
  return address !== undefined && contains(LOOPBACK, address);
}

function sameTargets(one: readonly Target[], other: readonly Target[]): boolean {
  const text = (targets: readonly Target[]) => targets.map(({ address, port }) => `${address}:${port}`).join();
  return text(one) === text(other);
}
