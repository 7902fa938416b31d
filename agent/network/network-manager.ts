/**
 * The network of one host: the fabric's device, what lies behind it, rules, published ports. It knows addresses and
 * task ids; it does not know services, images or managers. It decides with the pure files beside it and acts through
 * what is handed to it.
 */
import type { Clock } from "../../common/base/clock.ts";
import { assert, SwarmError } from "../../common/base/error.ts";
import type { TaskId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import { Wakeup } from "../../common/base/wakeup.ts";
import { formatIpv4, formatPrefix, gatewayOf, type Ipv4Prefix } from "./address.ts";
import {
  type Attachment,
  type AttachOp,
  addressesOf,
  INTERFACES_MAX,
  type InterfaceSpec,
  loopbackOps,
  placesOf,
  RESOLVER_ADDRESS,
  routedOps,
  vethGroup,
  vethName,
} from "./attach.ts";
import { type ClusterNetwork, NOTHING } from "./cluster.ts";
import { ConnectionSweeper } from "./conntrack.ts";
import { EncryptedFabric, encryptedMtu } from "./encrypted-fabric.ts";
import {
  checkPool,
  deleteVeths,
  ensureFabric,
  type FabricState,
  fabricMac,
  fabricNumber,
  listLinks,
  MTU_MIN,
  removeLink,
  type Underlay,
  underlayMtu,
  VXLAN_OVERHEAD,
  VXLAN_PORT_DEFAULT,
} from "./fabric.ts";
import { Forwarder } from "./forwarder.ts";
import { removeForwarding } from "./forwarding.ts";
import { type HostFiles, readHostFiles } from "./host-files.ts";
import { HostWatch } from "./host-warnings.ts";
import { hasIpv6, hasIpv6Networks, type Ipv6Use, routeIpv6, tameIpv6, withoutIpv6 } from "./ipv6.ts";
import { LinkIndexes } from "./link-indexes.ts";
import { LinkMender, type LinkMenderOptions } from "./link-mender.ts";
import { LiveTasks } from "./live-tasks.ts";
import type { Netlink } from "./netlink.ts";
import { PortPublisher, type PublishProblem } from "./port-publisher.ts";
import {
  containerHosts,
  containerResolvConf,
  type DnsOptions,
  extendHosts,
  reachableNameservers,
  resolverResolvConf,
} from "./resolver.ts";
import type { RuleLoader } from "./rule-loader.ts";
import { RuleRecord } from "./rule-record.ts";
import { RuleTable } from "./rule-table.ts";
import { RESOLVER_PORT, type RulesetState } from "./ruleset.ts";
import { balancedTo, beyondReach, encryptedContent, secretPrefixes, unreached } from "./secrecy.ts";
import { quietLink, type Sysctls, tuneHost } from "./sysctl.ts";

/** The parts of the world that the network is made of. */
export interface NetworkDependencies {
  readonly clock: Clock;
  readonly logger: Logger;
  /** The shim's runner. */
  readonly netlink: Netlink;
  /** The way into a running task's own network namespace; undefined while it has no process. */
  readonly enter: LinkMenderOptions["enter"];
  readonly rules: RuleLoader;
  readonly sysctls: Sysctls;
}

/** What is to be chosen per cluster (pool) and per host (the rest). */
export interface NetworkOptions {
  /** The nodes' own network: addresses of tasks that are on no other. */
  readonly pool: Ipv4Prefix;
  /** The name of the fabric's device and of the nftables table of family ip. Default `swarm0`. At most 14 bytes. */
  readonly device?: string;
  /** MTU of the containers. Default: that of the host's uplink, at most 1,500, less 50 for VXLAN. */
  readonly mtu?: number;
  /** Whether tasks may speak to link-local addresses, such as a cloud's metadata server. Default false. */
  readonly linkLocal?: boolean;
  /** File that remembers the rules for the next agent, so that it leaves right ones alone. Default: it loads its own. */
  readonly record?: string;
  /** This host's WireGuard key, private. Absent: it takes part in nothing that is encrypted. */
  readonly key?: Uint8Array | undefined;
}

/** What a container's own files should say, beyond the host's. */
export interface ContainerNames {
  readonly hostname: string;
  /** "address name [alias…]" or "name:address". */
  readonly extraHosts?: readonly string[];
  readonly dns?: Partial<DnsOptions>;
  /** Whether it asks the node's resolver at 127.0.0.11, which knows the names of its networks. */
  readonly resolver?: boolean;
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

/** A task of this host and how it is on the network. */
export interface AttachedTask {
  readonly taskId: TaskId;
  readonly attachment: Attachment;
}

/** Damage from outside is mended within this time; each look costs a few small netlink requests. */
const RECONCILE_INTERVAL_MS = 5_000;

/** Owns the fabric and the table of one network namespace. Disposal leaves both: containers outlive the agent. */
export class NetworkManager implements AsyncDisposable {
  /** What of the host's own settings stands in the way of traffic; it is not changed here. */
  readonly hostWatch: HostWatch;
  readonly #world: NetworkDependencies;
  readonly #logger: Logger;
  readonly #options: Required<Pick<NetworkOptions, "pool" | "device" | "linkLocal">> & Pick<NetworkOptions, "mtu">;
  readonly #table: RuleTable;
  readonly #publisher: PortPublisher;
  readonly #sweeper: ConnectionSweeper;
  readonly #forwarder: Forwarder;
  readonly #encrypted: EncryptedFabric;
  readonly #indexes: LinkIndexes;
  /** Attached here, or adopted. */
  readonly #live = new LiveTasks();
  readonly #mender: LinkMender;
  /** The link group of this fabric's veths. */
  readonly #group: number;
  #underlay: Underlay = { port: VXLAN_PORT_DEFAULT };
  #fabric: FabricState | undefined;
  /** Of containers on encrypted networks. */
  #encryptedMtu = MTU_MIN;
  #key: Uint8Array | undefined;
  /** Addresses of tasks of encrypted networks that cannot be reached. */
  #unreached: ReturnType<typeof unreached> = new Set();
  /** Whether the kernel has IPv6. */
  #ipv6 = false;
  #host: HostFiles = { resolvConf: "", reachable: "", hosts: "" };
  /** Undefined until the agent said what there is: until then what the kernel has is right. */
  #cluster: ClusterNetwork | undefined;
  #problems: readonly PublishProblem[] = [];
  readonly #problemsChanged = new Wakeup();
  /** The end of the queue of work: start, publish and reconcile never overlap. */
  #tail: Promise<unknown> = Promise.resolve();

  constructor(world: NetworkDependencies, options: NetworkOptions) {
    this.#world = world;
    this.#logger = world.logger;
    this.#options = { device: "swarm0", linkLocal: false, ...options };
    this.#group = vethGroup(this.#options.device);
    this.#key = options.key;
    assert(
      Buffer.byteLength(this.#options.device) <= 14,
      "a link's name has at most 15 bytes, one of them for its kind",
    );
    const record = options.record === undefined ? undefined : new RuleRecord(options.record);
    this.#table = new RuleTable(world.rules, world.netlink, record);
    this.#publisher = new PortPublisher(this.#table, world);
    this.#sweeper = new ConnectionSweeper(world);
    this.#forwarder = new Forwarder(world.netlink, { group: this.#group, gateway: gatewayOf(this.#options.pool) });
    this.#encrypted = new EncryptedFabric(world, this.#options.device);
    this.#indexes = new LinkIndexes(world.netlink, this.#group);
    const opsOf: LinkMenderOptions["opsOf"] = (taskId, specs) => this.#opsOf(taskId, specs, process.pid);
    this.#mender = new LinkMender({ ...world, group: this.#group, opsOf });
    this.hostWatch = new HostWatch({ ...world, device: this.#options.device, group: this.#group });
  }

  /**
   * Makes or mends what a host needs before its first container; call it again as often as you like. Throws
   * `failed_precondition` when the pool overlaps a route of the host, nft is missing or the device's name is taken,
   * `permission_denied` without root.
   */
  start(underlay: Underlay, signal: AbortSignal): Promise<void> {
    return this.#inTurn(async () => {
      this.#underlay = underlay;
      this.#host = await readHostFiles();
      await checkPool(this.#world.netlink, { ...this.#options, name: this.#options.device }, signal);
      await tuneHost(this.#world);
      await this.#ensureFabric(signal);
      await this.#indexes.read(signal);
      if (this.#cluster !== undefined) await this.#apply(signal);
      else if (!(await this.#table.exists(this.#options.device, signal))) {
        await this.#table.apply(this.#rulesetState(), signal);
      }
      await this.hostWatch.look(signal);
    });
  }

  /** Reconciles every five seconds until the signal aborts; a failure is logged and tried again. Needs an owner. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#world.clock.sleep(RECONCILE_INTERVAL_MS, signal);
      try {
        await this.reconcile(signal);
        await this.hostWatch.look(signal);
        this.#table.remember();
      } catch (reason) {
        if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
        this.#logger.warn({ err: reason }, "network could not be mended");
      }
    }
  }

  /**
   * Computes what joins a task to the network; nothing is sent. From now on the task's links are held to be alive,
   * until `detach` (call that first when an earlier attempt at the same task may have left its links). Throws
   * `failed_precondition` for a routed task before `start` has succeeded, and when another has one of its addresses.
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
      case "routed": {
        const { interfaces } = attachment;
        if (interfaces.length > INTERFACES_MAX) {
          throw new SwarmError("invalid_argument", `a task cannot be on more than ${INTERFACES_MAX} networks`);
        }
        if (!this.#ipv6 && interfaces.some(({ ipv6 }) => ipv6 !== undefined)) {
          throw new SwarmError(
            "failed_precondition",
            "a network of the task has IPv6, which is turned off on this node",
          );
        }
        const ops = this.#opsOf(taskId, interfaces);
        this.#live.add(taskId, interfaces);
        const addresses = interfaces.flatMap(addressesOf);
        return {
          ops,
          resolvConf: names.resolver
            ? resolverResolvConf(this.#host.reachable, RESOLVER_ADDRESS, dns)
            : containerResolvConf(this.#host.reachable, dns),
          hosts: containerHosts({ hostname, extra, gateway, addresses }),
        };
      }
    }
  }

  /**
   * Removes what is left of a task that has ended: its links (which the kernel deletes with the namespace, by and by)
   * and the tracked connections to its addresses. Take it out of `setCluster` first. Repeating it is harmless.
   */
  async detach(taskId: TaskId, attachment: Attachment, signal: AbortSignal): Promise<void> {
    if (attachment.kind !== "routed") return;
    this.#live.delete(taskId);
    for (const [which, spec] of attachment.interfaces.entries()) {
      await removeLink(this.#world.netlink, { name: vethName(taskId, which) }, signal);
      await this.#sweeper.forget(addressesOf(spec), signal);
    }
  }

  /**
   * Takes what the cluster has; the agent says all of it each time something changed, and once after `start`. Returns
   * the ports that could not be published because somebody on the host holds them; they are tried again by `reconcile`.
   */
  setCluster(cluster: ClusterNetwork, signal: AbortSignal): Promise<readonly PublishProblem[]> {
    return this.#inTurn(async () => {
      this.#cluster = cluster;
      await this.#apply(signal);
      return this.#problems;
    });
  }

  /** Uses another WireGuard key from now on. Other hosts must hear of its public half at the same time. */
  setKey(key: Uint8Array, signal: AbortSignal): Promise<void> {
    return this.#inTurn(async () => {
      this.#key = key;
      if (this.#cluster !== undefined) await this.#apply(signal);
    });
  }

  /** What the containers of encrypted networks have. */
  get encryptedFabric(): { readonly mtu: number } {
    return { mtu: this.#encryptedMtu };
  }

  /** Why nothing can be encrypted on this host, in words for the user; undefined where it can. */
  get encryptionProblem(): string | undefined {
    return this.#key === undefined ? "this node's kernel has no WireGuard" : this.#encrypted.problem;
  }

  /** The published ports that somebody else holds, each time that set changed, until the signal aborts. One reader. */
  async *problems(signal: AbortSignal): AsyncGenerator<readonly PublishProblem[], never, undefined> {
    while (true) {
      await this.#problemsChanged.wait(signal);
      yield this.#problems;
    }
  }

  /** Looks whether device, routes, ports and table are as they should be, and mends what is not. */
  reconcile(signal: AbortSignal): Promise<void> {
    return this.#inTurn(async () => {
      await tuneHost(this.#world);
      await this.#ensureFabric(signal);
      this.#host = await readHostFiles();
      await this.#mender.mend(this.#live.entries(), signal);
      this.#forwarder.distrust();
      this.#encrypted.distrust();
      if (this.#cluster !== undefined) {
        await this.#apply(signal);
      } else if (!(await this.#table.exists(this.#options.device, signal))) {
        await this.#table.apply(this.#rulesetState(), signal);
      }
    });
  }

  /** Takes up live tasks of an earlier run, and deletes the links of all others but those attached since; says which. */
  async adopt(tasks: Iterable<AttachedTask>, signal: AbortSignal): Promise<readonly string[]> {
    const present = new Set((await listLinks(this.#world.netlink, signal)).map(({ name }) => name));
    for (const { taskId, attachment } of tasks) {
      if (attachment.kind !== "routed" || this.#live.has(taskId)) continue;
      this.#live.adopt(taskId, attachment.interfaces, present.has(vethName(taskId)));
    }
    const live = this.#live.links();
    const options = { group: this.#group, live: (name: string) => live.has(name) };
    const deleted = await deleteVeths(this.#world.netlink, options, signal);
    if (deleted.length > 0) this.#logger.info({ links: deleted }, "deleted the links of dead tasks");
    return deleted;
  }

  /** Removes all that `start` and `attach` made: table, routes, links. For leaving a cluster for good. */
  removeAll(signal: AbortSignal): Promise<void> {
    return this.#inTurn(async () => {
      await this.#publisher[Symbol.asyncDispose]();
      await this.#table.remove(this.#rulesetState(), signal);
      this.#live.clear();
      await removeForwarding(this.#world.netlink, this.#ipv6Use(), signal);
      await deleteVeths(this.#world.netlink, { group: this.#group, live: () => false }, signal);
      await removeLink(this.#world.netlink, { name: this.#options.device }, signal);
      await this.#encrypted.remove(signal);
      this.#forwarder.distrust();
      this.#fabric = undefined;
      this.#cluster = undefined;
    });
  }

  /** Stops listening on loopback. Device, rules and links stay as they are. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sweeper[Symbol.asyncDispose]();
    await this.#inTurn(() => this.#publisher[Symbol.asyncDispose]());
    try {
      this.#table.remember();
    } catch (reason) {
      this.#logger.warn({ err: reason }, "rules not recorded");
    }
  }

  /** The host's own nameservers. */
  get nameservers(): readonly string[] {
    return reachableNameservers(this.#host.reachable);
  }

  /** Where the node's resolver is to listen: what containers send to 127.0.0.11 comes there. */
  get resolverAddress(): { readonly address: string; readonly port: number } {
    return { address: formatIpv4(gatewayOf(this.#options.pool)), port: RESOLVER_PORT };
  }

  /** The device as `start` left it. */
  get fabric(): FabricState {
    if (this.#fabric === undefined) throw new SwarmError("failed_precondition", "the network was not started");
    return this.#fabric;
  }

  /** Routes first, so that no rule leads where there is no way. */
  async #apply(signal: AbortSignal): Promise<void> {
    const { hosts, remote, networks } = this.#cluster ?? NOTHING;
    const ipv6 = this.#ipv6Use();
    const encrypted = await this.#encrypted.ensure(
      encryptedContent(this.#cluster ?? NOTHING, { ...this.#underlay, key: this.#key, mtu: this.#encryptedMtu }),
      signal,
    );
    const { index } = this.fabric;
    if (ipv6 === "on") {
      await routeIpv6(this.#world, { name: this.#options.device, index }, signal);
      if (encrypted) await routeIpv6(this.#world, { name: this.#encrypted.way.device, index: encrypted.index }, signal);
    }
    const clear = { index, macOf: fabricMac, hosts, remote: remote.filter((each) => !each.encrypted) };
    const reached = encrypted?.remote ?? [];
    const nowhere = beyondReach(secretPrefixes(networks, remote), reached);
    const wanted = { ways: encrypted ? [clear, encrypted] : [clear], nowhere, source: this.#underlay.local, ipv6 };
    const { changed, gone, goneMarks } = await this.#forwarder.apply(wanted, () => this.#live.links(), signal);
    if (changed > 0) this.#logger.debug({ changed, hosts: hosts.length, remote: remote.length }, "forwarding changed");
    this.#unreached = unreached(remote, reached);
    try {
      await this.#publish(signal);
    } finally {
      // Connections to tasks that are gone would hang until they time out. One that a key is missing for is not gone.
      this.#sweeper.forgetSoon(gone.filter((address) => !this.#unreached.has(address)));
      // Those by a host that moved are taken up again by its new address.
      this.#sweeper.forgetMarkedSoon(goneMarks);
    }
  }

  async #publish(signal: AbortSignal): Promise<void> {
    const { problems, repaired } = await this.#publisher.apply(this.#rulesetState(), signal);
    if (repaired) this.#logger.info({ table: this.#options.device }, "nftables table loaded again");
    const known = new Set(this.#problems.map((problem) => problem.message));
    for (const problem of problems) {
      if (!known.has(problem.message)) this.#logger.warn({ problem: problem.message }, "port not published");
    }
    const changed = problems.length !== known.size || problems.some(({ message }) => !known.has(message));
    this.#problems = problems;
    if (changed) this.#problemsChanged.wake();
  }

  async #ensureFabric(signal: AbortSignal): Promise<void> {
    const { netlink, sysctls } = this.#world;
    const { device: name, pool, mtu: chosen = Number.POSITIVE_INFINITY } = this.#options;
    const { local, port } = this.#underlay;
    const underlay = await underlayMtu(netlink, { name, local }, signal);
    const mtu = Math.min(chosen, Math.max(MTU_MIN, underlay - VXLAN_OVERHEAD));
    this.#encryptedMtu = Math.min(chosen, encryptedMtu(underlay));
    const mac = fabricMac(local ?? gatewayOf(pool));
    const fabric = await ensureFabric(netlink, { name, pool, mac, mtu, local, port }, signal);
    const anew = this.#fabric?.index !== fabric.index || fabric.anew || this.#fabric.mtu !== fabric.mtu;
    this.#fabric = fabric;
    await tameIpv6(sysctls, name);
    if (!anew) return;
    this.#forwarder.distrust();
    this.#ipv6 = await hasIpv6(sysctls, name);
    // Not where tasks of an earlier run may use it.
    if (this.#cluster !== undefined && this.#ipv6Use() === "off") await withoutIpv6(sysctls, name);
    await quietLink(sysctls, name);
    const address = local === undefined ? "none" : formatIpv4(local);
    this.#logger.info({ device: name, mtu: fabric.mtu, pool: formatPrefix(pool), address }, "fabric made or mended");
  }

  #opsOf(taskId: TaskId, interfaces: readonly InterfaceSpec[], hostPid?: number): readonly AttachOp[] {
    const hostIndexes = interfaces.map(() => this.#indexes.next());
    const hostAddress = gatewayOf(this.#options.pool);
    const mtus = { mtu: this.fabric.mtu, encryptedMtu: this.#encryptedMtu };
    const ipv6 = this.#ipv6;
    return routedOps(taskId, interfaces, { hostIndexes, group: this.#group, ...mtus, hostAddress, hostPid, ipv6 });
  }

  #rulesetState(): RulesetState {
    const { device, pool, linkLocal } = this.#options;
    const cluster = this.#cluster ?? NOTHING;
    const { networks, served, remote } = cluster;
    const secret = secretPrefixes(networks, remote);
    return {
      ...{ table: device, device, group: this.#group, pool, linkLocal, networks, served, secret },
      host: this.#underlay.local,
      ...balancedTo(cluster, this.#unreached),
      vxlan: { port: this.#underlay.port, id: fabricNumber(device) },
      encrypted: secret.length === 0 ? undefined : this.#encrypted.way,
      hosts: this.#forwarder.marks,
      local: [...this.#live.interfaces()].map((interfaces) =>
        interfaces.flatMap(placesOf).map(({ address: { address }, gateway }) => ({ address, gateway })),
      ),
      ipv6: this.#ipv6Use(),
    };
  }

  /** On as soon as a network of this host or a task elsewhere that is published has it. */
  #ipv6Use(): Ipv6Use {
    if (!this.#ipv6) return "none";
    return hasIpv6Networks(this.#cluster ?? NOTHING) ? "on" : "off";
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#tail.then(work);
    // The caller has the failure; the next in the queue only waits for the end.
    this.#tail = turn.catch(() => {});
    return turn;
  }
}
