/**
 * The network of one host: bridge, rules, published ports. It knows addresses and task ids; it does not know services,
 * images or managers. It decides with the pure files beside it and acts through what is handed to it.
 */
import { readFile } from "node:fs/promises";
import type { Clock } from "../../common/base/clock.ts";
import { assert, errnoOf, SwarmError } from "../../common/base/error.ts";
import type { TaskId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import { Wakeup } from "../../common/base/wakeup.ts";
import { formatPrefix, gatewayOf, type Ipv4Prefix } from "./address.ts";
import { type Attachment, type AttachOp, bridgeOps, loopbackOps, vethGroup, vethName } from "./attach.ts";
import { attachPorts, type BridgeState, checkPool, deleteVeths, ensureBridge, removeLink } from "./bridge.ts";
import { ConnectionSweeper } from "./conntrack.ts";
import type { Netlink } from "./netlink.ts";
import { PortPublisher, type PublishProblem } from "./port-publisher.ts";
import {
  containerHosts,
  containerResolvConf,
  type DnsOptions,
  extendHosts,
  isStubResolver,
  RESOLV_CONF,
  RESOLVED_CONF,
} from "./resolver.ts";
import type { RuleLoader } from "./rule-loader.ts";
import { RuleTable } from "./rule-table.ts";
import type { PublishedPort, RulesetState } from "./ruleset.ts";
import type { Sysctls } from "./sysctl.ts";

/** The parts of the world that the network is made of. */
export interface NetworkDependencies {
  readonly clock: Clock;
  readonly logger: Logger;
  /** The shim's runner. */
  readonly netlink: Netlink;
  readonly rules: RuleLoader;
  readonly sysctls: Sysctls;
}

/** What is to be chosen per cluster (pool) and per host (the rest). */
export interface NetworkOptions {
  /** The cluster's pool of task addresses. */
  readonly pool: Ipv4Prefix;
  /** Default `swarm0`. At most 15 bytes. */
  readonly bridge?: string;
  /** The nftables table of family ip. Default `swarm`. */
  readonly table?: string;
  /** MTU of the bridge and the containers. Default: that of the host's default route, at most 1,500. */
  readonly mtu?: number;
}

/** What a container's own files should say, beyond the host's. */
export interface ContainerNames {
  readonly hostname: string;
  /** "address name [alias…]" or "name:address". */
  readonly extraHosts?: readonly string[];
  readonly dns?: Partial<DnsOptions>;
}

/** What a container needs to be on the network. */
export interface NetworkPlan {
  /** For the plan's container list, in this order, after its namespaces exist and before its capabilities go. */
  readonly ops: readonly AttachOp[];
  /** The content of its /etc/resolv.conf. */
  readonly resolvConf: string;
  /** The content of its /etc/hosts. */
  readonly hosts: string;
}

/** Damage from outside is mended within this time; each look costs three small netlink requests. */
const RECONCILE_INTERVAL_MS = 5_000;

/** Owns the bridge and the table of one network namespace. Disposal leaves both: containers outlive the agent. */
export class NetworkManager implements AsyncDisposable {
  readonly #world: NetworkDependencies;
  readonly #logger: Logger;
  readonly #options: Required<Pick<NetworkOptions, "pool" | "bridge" | "table">> & Pick<NetworkOptions, "mtu">;
  readonly #table: RuleTable;
  readonly #publisher: PortPublisher;
  readonly #sweeper: ConnectionSweeper;
  /** The host's ends of the veths of live tasks: attached here, or named by `cleanup`. */
  readonly #live = new Set<string>();
  /** The link group of this bridge's veths. */
  readonly #group: number;
  #bridge: BridgeState | undefined;
  #ipv6 = false;
  #host: HostFiles = { resolvConf: "", reachable: "", hosts: "" };
  /** Undefined until the agent said what is published: until then a table that exists is right. */
  #published: readonly PublishedPort[] | undefined;
  #problems: readonly PublishProblem[] = [];
  readonly #problemsChanged = new Wakeup();
  /** The end of the queue of work: start, publish and reconcile never overlap. */
  #tail: Promise<unknown> = Promise.resolve();

  constructor(world: NetworkDependencies, options: NetworkOptions) {
    this.#world = world;
    this.#logger = world.logger;
    this.#options = { bridge: "swarm0", table: "swarm", ...options };
    this.#group = vethGroup(this.#options.bridge);
    assert(Buffer.byteLength(this.#options.bridge) <= 15, "a link's name has at most 15 bytes");
    this.#table = new RuleTable(world.rules, world.netlink);
    this.#publisher = new PortPublisher(this.#table, world.netlink, this.#logger);
    this.#sweeper = new ConnectionSweeper(world.netlink, world.clock);
  }

  /**
   * Makes or mends what a host needs before its first container; call it again as often as you like. Throws
   * `failed_precondition` when the pool overlaps a route of the host, nft is missing or the bridge's name is taken,
   * `permission_denied` without root.
   */
  start(signal: AbortSignal): Promise<void> {
    return this.#inTurn(async () => {
      this.#host = await readHostFiles();
      await checkPool(this.#world.netlink, { ...this.#options, name: this.#options.bridge }, signal);
      await this.#ensureForwarding();
      await this.#ensureBridge(signal);
      if (!(await this.#table.exists(this.#options.table, signal))) {
        await this.#table.apply(this.#rulesetState(), signal);
      }
      await this.#warnOfFirewall(signal);
    });
  }

  /** Reconciles every five seconds until the signal aborts; a failure is logged and tried again. Needs an owner. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#world.clock.sleep(RECONCILE_INTERVAL_MS, signal);
      try {
        await this.reconcile(signal);
      } catch (reason) {
        if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
        this.#logger.warn({ err: reason }, "network could not be mended");
      }
    }
  }

  /**
   * Computes what joins a task to the network; nothing is sent. From now on the task's veth is held to be alive,
   * until `detach` (call that first when an earlier attempt at the same task may have left its link). Throws
   * `failed_precondition` for a task of the bridge before `start` has succeeded.
   */
  attach(taskId: TaskId, attachment: Attachment, names: ContainerNames): NetworkPlan {
    const gateway = gatewayOf(this.#options.pool);
    const { hostname, extraHosts: extra = [], dns } = names;
    switch (attachment.kind) {
      case "host": {
        // The host's namespace has the host's loopback, so its resolvers are as good here as there.
        const resolvConf = dns === undefined ? this.#host.resolvConf : containerResolvConf(this.#host.reachable, dns);
        return { ops: [], resolvConf, hosts: extendHosts(this.#host.hosts, extra) };
      }
      case "none": {
        const resolvConf = containerResolvConf(this.#host.reachable, dns);
        return { ops: loopbackOps(), resolvConf, hosts: containerHosts({ hostname, extra }) };
      }
      case "bridge": {
        const { index: bridgeIndex, mtu } = this.bridge;
        this.#live.add(vethName(taskId));
        return {
          ops: bridgeOps(taskId, attachment.address, {
            bridgeIndex,
            group: this.#group,
            mtu,
            gateway,
            ipv6: this.#ipv6,
          }),
          resolvConf: containerResolvConf(this.#host.reachable, dns),
          hosts: containerHosts({ hostname, extra, gateway, address: attachment.address.address }),
        };
      }
    }
  }

  /**
   * Removes what is left of a task that has ended: its veth (which the kernel deletes with the namespace, by and by)
   * and the tracked connections to its address. Publish without it first. Repeating it is harmless.
   */
  async detach(taskId: TaskId, attachment: Attachment, signal: AbortSignal): Promise<void> {
    if (attachment.kind !== "bridge") return;
    const name = vethName(taskId);
    this.#live.delete(name);
    await removeLink(this.#world.netlink, { name }, signal);
    await this.#sweeper.forget(attachment.address.address, signal);
  }

  /**
   * Publishes exactly these ports; the agent says all of them each time something changed, and once after `start`.
   * Returns those that could not be published because somebody on the host holds them; they are tried again by
   * `reconcile`.
   */
  setPublished(published: readonly PublishedPort[], signal: AbortSignal): Promise<readonly PublishProblem[]> {
    this.#published = published;
    return this.#inTurn(async () => {
      await this.#publish(signal);
      return this.#problems;
    });
  }

  /** The ports of `setPublished` that somebody else holds, each time that set changed, until the signal aborts. One reader. */
  async *problems(signal: AbortSignal): AsyncGenerator<readonly PublishProblem[], never, undefined> {
    while (true) {
      await this.#problemsChanged.wait(signal);
      yield this.#problems;
    }
  }

  /** Looks whether bridge, ports and table are as they should be, and mends what is not. */
  reconcile(signal: AbortSignal): Promise<void> {
    return this.#inTurn(async () => {
      await this.#ensureForwarding();
      await this.#ensureBridge(signal);
      this.#host = await readHostFiles();
      if (this.#published !== undefined) {
        await this.#publish(signal);
      } else if (!(await this.#table.exists(this.#options.table, signal))) {
        await this.#table.apply(this.#rulesetState(), signal);
      }
    });
  }

  /** Deletes the veths of all tasks but these and those attached since; says which links went. */
  async cleanup(liveTaskIds: Iterable<TaskId>, signal: AbortSignal): Promise<readonly string[]> {
    for (const taskId of liveTaskIds) this.#live.add(vethName(taskId));
    const deleted = await deleteVeths(this.#world.netlink, { group: this.#group, live: this.#live }, signal);
    if (deleted.length > 0) this.#logger.info({ links: deleted }, "deleted the links of dead tasks");
    return deleted;
  }

  /** Removes all that `start` and `attach` made: table, veths, bridge. For leaving a cluster for good. */
  removeAll(signal: AbortSignal): Promise<void> {
    return this.#inTurn(async () => {
      await this.#publisher[Symbol.asyncDispose]();
      await this.#table.remove(this.#options.table, signal);
      this.#live.clear();
      await deleteVeths(this.#world.netlink, { group: this.#group, live: this.#live }, signal);
      await removeLink(this.#world.netlink, { name: this.#options.bridge }, signal);
      this.#bridge = undefined;
      this.#published = undefined;
    });
  }

  /** Stops listening on loopback. Bridge, rules and links stay as they are. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sweeper[Symbol.asyncDispose]();
    await this.#inTurn(() => this.#publisher[Symbol.asyncDispose]());
  }

  /** The bridge as `start` left it. */
  get bridge(): BridgeState {
    if (this.#bridge === undefined) throw new SwarmError("failed_precondition", "the network was not started");
    return this.#bridge;
  }

  async #publish(signal: AbortSignal): Promise<void> {
    const { problems, repaired } = await this.#publisher.apply(this.#rulesetState(), signal);
    if (repaired) this.#logger.info({ table: this.#options.table }, "nftables table loaded again");
    const known = new Set(this.#problems.map((problem) => problem.message));
    for (const problem of problems) {
      if (!known.has(problem.message)) this.#logger.warn({ ...problem }, "port not published");
    }
    const changed = problems.length !== known.size || problems.some(({ message }) => !known.has(message));
    this.#problems = problems;
    if (changed) this.#problemsChanged.wake();
  }

  async #ensureBridge(signal: AbortSignal): Promise<void> {
    const { netlink, sysctls } = this.#world;
    const name = this.#options.bridge;
    const bridge = await ensureBridge(netlink, { ...this.#options, name }, signal);
    const anew = this.#bridge?.index !== bridge.index;
    this.#bridge = bridge;
    if (!bridge.changed && !anew) return;
    const disabled = `net/ipv6/conf/${name}/disable_ipv6`;
    this.#ipv6 = (await sysctls.read(disabled)) !== undefined;
    if (this.#ipv6) {
      await sysctls.write(`net/ipv6/conf/${name}/accept_ra`, "0");
      await sysctls.write(disabled, "1");
    }
    const ports = await attachPorts(netlink, { bridge, group: this.#group, names: this.#live }, signal);
    const pool = formatPrefix(this.#options.pool);
    this.#logger.info({ bridge: name, mtu: bridge.mtu, pool, ports }, "bridge made or mended");
  }

  async #ensureForwarding(): Promise<void> {
    const { sysctls } = this.#world;
    if ((await sysctls.read("net/ipv4/ip_forward")) === "1") return;
    await sysctls.write("net/ipv4/ip_forward", "1");
    this.#logger.info({ sysctl: "net.ipv4.ip_forward", value: 1 }, "ip forwarding turned on");
  }

  /** Our table accepts what is ours, but cannot overrule a drop of the host's own firewall: say what to add there. */
  async #warnOfFirewall(signal: AbortSignal): Promise<void> {
    for (const chain of await this.#world.rules.baseChains(signal)) {
      const concerned = chain.family === "ip" || chain.family === "inet";
      if (!concerned || chain.hook !== "forward" || chain.policy !== "drop") continue;
      const { bridge } = this.#options;
      const place = `${chain.family} ${chain.table} ${chain.name}`;
      const remedy = ["iifname", "oifname"].map((match) => `nft insert rule ${place} ${match} ${bridge} accept`);
      this.#logger.warn(
        { chain: place, remedy },
        "the host's firewall drops forwarded packets: let containers through",
      );
    }
  }

  #rulesetState(): RulesetState {
    const { table, bridge, pool } = this.#options;
    return { table, bridge, pool, published: this.#published ?? [] };
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#tail.then(work);
    // The caller has the failure; the next in the queue only waits for the end.
    this.#tail = turn.catch(() => {});
    return turn;
  }
}

/** The host's files, kept in memory so that `attach` waits for no disk; `reconcile` reads them again. */
interface HostFiles {
  readonly resolvConf: string;
  /** The resolv.conf that names real servers: another one where systemd-resolved's stub stands in the first. */
  readonly reachable: string;
  readonly hosts: string;
}

async function readHostFiles(): Promise<HostFiles> {
  const resolvConf = await readText(RESOLV_CONF);
  const reachable = isStubResolver(resolvConf) ? (await readText(RESOLVED_CONF)) || resolvConf : resolvConf;
  return { resolvConf, reachable, hosts: await readText("/etc/hosts") };
}

/** A file's text, empty when there is none. */
async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT") return "";
    throw SwarmError.wrap(`read ${path}`, reason, "permission_denied");
  }
}
