/**
 * Runs tasks as containers of this host: composes image/, runtime/, cgroup/ and network/ into the agent's Executor. It
 * knows nothing of sessions and managers.
 */
import { existsSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { create } from "@bufbuild/protobuf";
import type { Clock } from "../common/base/clock.ts";
import { abortable } from "../common/base/clock.ts";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import { isId, type TaskId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Random } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { ADDRESS_POOL_DEFAULT } from "../common/model/defaults.ts";
import { RegistryClient } from "../common/registry/client.ts";
import type { ImageSource } from "../common/registry/source.ts";
import {
  type ProbeResult,
  ProbeResult_Kind,
  ProbeResultSchema,
  type TaskUsage,
} from "../proto/gen/swarm/v1/control_pb.js";
import type { NodeVolume } from "../proto/gen/swarm/v1/objects_pb.js";
import { type NodeDescription, NodeDescriptionSchema, PortConfig_Protocol } from "../proto/gen/swarm/v1/types_pb.js";
import type { CgroupManager } from "./cgroup/manager.ts";
import { collectContents, removeContents } from "./container-contents.ts";
import { ContainerController } from "./container-controller.ts";
import { DetachedCommands } from "./container-exec.ts";
import { attachmentOf, mtuOption } from "./container-network.ts";
import { DnsServer } from "./dns/dns-server.ts";
import { ServiceNames } from "./dns/names.ts";
import type { AssignedTask, Executor, NetworkSettings, NodeNetwork, PortProblem, TaskController } from "./executor.ts";
import { Turnstile } from "./image/shared-work.ts";
import { ImageStore } from "./image/store.ts";
import { runImageCollector } from "./image-collector.ts";
import { nameData } from "./name-view.ts";
import { contains, formatIp, type Ipv4Prefix, parseIpv4, parsePrefix } from "./network/address.ts";
import { mtuOf, vethGroup } from "./network/attach.ts";
import { type Underlay, VXLAN_PORT_DEFAULT } from "./network/fabric.ts";
import { readHostRoutes } from "./network/host-routes.ts";
import { hostWarnings } from "./network/host-warnings.ts";
import { type AttachedTask, type NetworkDependencies, NetworkManager } from "./network/network-manager.ts";
import { NftRuleLoader } from "./network/rule-loader.ts";
import type { Protocol } from "./network/ruleset.ts";
import { systemSysctls } from "./network/sysctl.ts";
import { hasWireguard } from "./network/tunnel.ts";
import { probeFrom, probesOf } from "./network-probe.ts";
import { clusterNetwork } from "./network-view.ts";
import { type AgentDirectories, containerDirectory, type NodeRuntime } from "./node-runtime.ts";
import type { HostFacts } from "./runtime/host-facts.ts";
import type { HostPath } from "./runtime/op.ts";
import { Runner } from "./runtime/runner.ts";
import { readTaskUsage } from "./task-usage.ts";
import { Volumes } from "./volumes.ts";
import { WireguardKeys } from "./wireguard-keys.ts";

/** Containers made at a time, for each processor: the work is the kernel's, and part of it is waiting for its locks. */
const STARTS_PER_CPU = 2;
const RESOLVER_RETRY_MS = 5_000;

/** What a node's executor is made of. */
export interface ContainerExecutorOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly nodeId: string;
  readonly hostname: string;
  readonly version: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly facts: HostFacts;
  readonly directories: AgentDirectories;
  readonly shimPath: string;
  readonly cgroups: CgroupManager;
  /** Images loaded into the cluster: asked before any registry. */
  readonly clusterImages: ImageSource;
  readonly insecureRegistries: readonly string[];
  /** How long an image stays that no container uses, in ms; 0 keeps all. */
  readonly imageRetentionMs: number;
  /** Name of the fabric's device and of the nftables table; agents that share a network namespace need different ones. */
  readonly networkDevice: string;
  /** Whether tasks may speak to link-local addresses, such as a cloud's metadata server. Default false. */
  readonly linkLocal?: boolean;
  /** How long a key for encrypted networks is used, in ms; 0: for ever. */
  readonly wireguardKeyLifetimeMs: number;
}

export class ContainerExecutor implements Executor, AsyncDisposable {
  readonly #options: ContainerExecutorOptions;
  readonly #scope = new Scope();
  readonly #runner: Runner;
  readonly #detached = new DetachedCommands();
  readonly #registries: RegistryClient;
  readonly #node: NodeRuntime;
  readonly #controllers = new Map<TaskId, ContainerController>();
  readonly #networkReady = Promise.withResolvers<NetworkManager>();
  #network: NetworkManager | undefined;
  /** Undefined where the kernel has no WireGuard. */
  #keys: WireguardKeys | undefined;
  #settings: NetworkSettings | undefined;
  #resolver: DnsServer | undefined;
  #names: ServiceNames | undefined;

  private constructor(options: ContainerExecutorOptions, images: ImageStore) {
    const { clock, random, logger, facts, directories, cgroups, clusterImages } = options;
    this.#options = options;
    this.#runner = new Runner(options.shimPath);
    this.#registries = new RegistryClient(clock, random, { insecureRegistries: options.insecureRegistries });
    this.#node = {
      ...{ clock, logger, facts, directories, cgroups, clusterImages, images },
      names: { nodeId: options.nodeId, hostname: options.hostname, architecture: facts.architecture, os: "linux" },
      runner: this.#runner,
      shimPath: options.shimPath,
      detached: this.#detached,
      registries: this.#registries,
      volumes: new Volumes({ clock, logger, runner: this.#runner, directories }),
      starting: new Turnstile(Math.max(2, facts.cpus * STARTS_PER_CPU)),
      scope: this.#scope,
      network: (signal) => abortable(this.#networkReady.promise, signal),
      networkNow: () => this.#network,
    };
  }

  /** Opens the image store and makes the directories. Throws a SwarmError that says what this host lacks. */
  static async open(options: ContainerExecutorOptions, platform: { os: string; architecture: string }) {
    const { clock, random, logger, directories, shimPath } = options;
    const { containers, volumes, volumeLabels, mounts, root } = directories;
    for (const directory of [containers, volumes, volumeLabels, mounts, root]) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
    }
    const log = logger.child({ part: "images" });
    const images = await ImageStore.open({ directory: directories.images, shimPath, platform, clock, random, log });
    return new ContainerExecutor(options, images);
  }

  /** What the kernel does not tell now is no reason to stay away from the cluster. */
  async #routes(): Promise<string[]> {
    const { logger, networkDevice } = this.#options;
    try {
      return await readHostRoutes(this.#runner, networkDevice, this.#scope.signal);
    } catch (reason) {
      if (!(reason instanceof SwarmError)) throw reason;
      logger.warn({ err: reason }, "the host's routes cannot be read: networks may overlap them");
      return [];
    }
  }

  async describe(): Promise<NodeDescription> {
    const { facts, hostname, labels, version } = this.#options;
    return create(NodeDescriptionSchema, {
      hostname,
      platform: { architecture: facts.architecture, os: "linux" },
      resources: { nanoCpus: BigInt(facts.nanoCpus), memoryBytes: BigInt(facts.memoryBytes) },
      engine: {
        version,
        labels: { ...labels },
        facts: {
          operatingSystem: facts.operatingSystem,
          kernel: facts.kernel,
          cgroup: `v${facts.cgroupVersion}`,
          overlay: String(facts.overlay),
          seccomp: String(facts.seccomp),
          apparmor: String(facts.apparmor),
          wireguard: String(this.#keys !== undefined),
          ...(await this.#networkFact()),
        },
      },
      routes: await this.#routes(),
      ...(this.#keys && { wireguardKey: this.#keys.told }),
    });
  }

  async *networkFacts(signal: AbortSignal): AsyncGenerator<string, void, undefined> {
    const network = await this.#node.network(signal);
    for await (const warnings of network.hostWatch.changes(signal)) yield warnings.join("; ");
  }

  /** What of the host's own settings stands in the way of traffic, if anything does. */
  async #networkFact(): Promise<{ readonly network?: string }> {
    const told = this.#network?.hostWatch.told;
    if (told) return told.length === 0 ? {} : { network: told.join("; ") };
    const { logger, networkDevice: device } = this.#options;
    const host = { rules: new NftRuleLoader(), sysctls: systemSysctls, device, group: vethGroup(device) };
    try {
      const warnings = await hostWarnings(host, this.#scope.signal);
      return warnings.length === 0 ? {} : { network: warnings.join("; ") };
    } catch (reason) {
      if (!(reason instanceof SwarmError)) throw reason;
      logger.warn({ err: reason }, "the host's firewall cannot be read");
      return {};
    }
  }

  async configure(settings: NetworkSettings, signal: AbortSignal): Promise<void> {
    // The session began with the description, and the key in it.
    if (this.#keys?.settle()) await this.#network?.setKey(this.#keys.inUse, signal);
    const before = this.#settings;
    if (before && sameSettings(before, settings)) return;
    if (before && before.addressPool !== settings.addressPool) {
      this.#recordSettings(settings);
      const { addressPool } = settings;
      this.#options.logger.error({ addressPool }, "the cluster's address pool changed: restart this agent");
      return;
    }
    await this.#startNetwork(settings, signal);
    this.#recordSettings(settings);
  }

  /** What fails here leaves a node that takes no part in what is encrypted. */
  async #openKeys(signal: AbortSignal): Promise<WireguardKeys | undefined> {
    const { clock, logger, directories, wireguardKeyLifetimeMs: lifetimeMs } = this.#options;
    try {
      if (!(await hasWireguard(this.#runner, signal))) return undefined;
      return WireguardKeys.open({ clock, logger, path: directories.wireguard, lifetimeMs });
    } catch (reason) {
      if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
      logger.warn({ err: reason }, "no key for encrypted networks");
      return undefined;
    }
  }

  async replaceKeys(tell: (key: Uint8Array, signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    await this.#keys?.run(tell, async (key, inner) => this.#network?.setKey(key, inner), signal);
  }

  async #startNetwork(settings: NetworkSettings, signal: AbortSignal): Promise<void> {
    const network = this.#network ?? this.#networkOf(parsePrefix(settings.addressPool));
    await network.start(underlayOf(settings), signal);
    this.#settings = settings;
    if (this.#network) return;
    await network.adopt([...this.#controllers.values()].flatMap(attachedTask), signal);
    this.#network = network;
    this.#networkReady.resolve(network);
    this.#scope.spawn("network", (inner) => network.run(inner));
    this.#scope.spawn("resolver", (inner) => this.#openResolver(network, inner));
  }

  /** Somebody may hold its port: tried until he lets go. */
  async #openResolver(network: NetworkManager, signal: AbortSignal): Promise<void> {
    const { clock, random, logger } = this.#options;
    const { address, port } = network.resolverAddress;
    for (let told = false; !signal.aborted; told = true) {
      try {
        const options = { clock, random, address, listenPort: port, servers: () => network.nameservers };
        const resolver = await DnsServer.open({ ...options, logger: logger.child({ part: "resolver" }) });
        if (this.#names) resolver.setNames(this.#names);
        this.#resolver = resolver;
        return;
      } catch (reason) {
        if (!(reason instanceof SwarmError)) throw reason;
        if (!told) logger.error({ err: reason }, "tasks cannot look up names: trying again");
      }
      await clock.sleep(RESOLVER_RETRY_MS, signal);
    }
  }

  /** What an earlier session told is good enough until a manager is there; what fails now is told when one is. */
  async #resumeNetwork(signal: AbortSignal): Promise<void> {
    const { directories, logger } = this.#options;
    if (!existsSync(directories.network)) return;
    try {
      const text = await readFile(directories.network, "utf8");
      await this.#startNetwork(readSettings(text), signal);
    } catch (reason) {
      if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
      logger.warn({ err: reason }, "network not taken up again: waiting for a manager");
    }
  }

  #collectImages(signal: AbortSignal): Promise<void> {
    const { clock, logger, directories, imageRetentionMs: retentionMs } = this.#options;
    const { images } = this.#node;
    return runImageCollector({ clock, logger, images, containers: directories.containers, retentionMs }, signal);
  }

  #recordSettings(settings: NetworkSettings): void {
    const path = this.#options.directories.network;
    try {
      writeFileSync(`${path}.new`, JSON.stringify(settings), { mode: 0o600 });
      renameSync(`${path}.new`, path);
    } catch (reason) {
      this.#options.logger.warn({ path, err: reason }, "network settings not recorded");
    }
  }

  controller(assigned: AssignedTask): TaskController {
    const controller = new ContainerController(assigned, this.#node, () => this.#controllers.delete(controller.id));
    this.#controllers.set(controller.id, controller);
    return controller;
  }

  async publish(network: NodeNetwork, signal: AbortSignal): Promise<void> {
    const manager = await this.#node.network(signal);
    await manager.setCluster(clusterNetwork(network, this.#options.clock.nowMs()), signal);
    this.#names = new ServiceNames(nameData(network));
    this.#resolver?.setNames(this.#names);
  }

  async *portProblems(signal: AbortSignal): AsyncGenerator<readonly PortProblem[], void, undefined> {
    const network = await this.#node.network(signal);
    for await (const problems of network.problems(signal)) {
      yield problems.map(({ protocol, port, message, hostIp }) => ({
        protocol: WIRE_PROTOCOLS[protocol],
        hostAddress: hostIp === undefined ? "" : formatIp(hostIp),
        port,
        message,
      }));
    }
  }

  volumes(signal: AbortSignal): AsyncIterable<readonly NodeVolume[]> {
    return this.#node.volumes.read(signal);
  }

  purgeVolume(name: string, createdMs: number, signal: AbortSignal): Promise<void> {
    return this.#node.volumes.purge(name, createdMs, signal);
  }

  usage(taskIds: readonly TaskId[], signal: AbortSignal): Promise<readonly TaskUsage[]> {
    const { clock, cgroups, facts } = this.#options;
    return readTaskUsage({ clock, cgroups, memoryBytes: facts.memoryBytes }, taskIds, signal);
  }

  async probe(network: NodeNetwork, networkId: string, signal: AbortSignal): Promise<readonly ProbeResult[]> {
    const manager = await this.#node.network(signal);
    const results = (await manager.hostWatch.warnings(signal)).map(warningOf);
    const point = { mtu: manager.fabric.mtu, encryptedMtu: manager.encryptedFabric.mtu };
    for (const each of network.networks) {
      const { id, encrypted } = each;
      const mtu = mtuOf({ encrypted, mtu: mtuOption(each) }, point);
      if (networkId !== "" && networkId !== id) continue;
      const from = network.own.find(
        ({ serving, task }) => serving && task.networks.some(({ networkId: on }) => on === id),
      );
      const pid = await this.#controllers.get(from?.task.id as TaskId)?.runningPid(signal);
      if (pid !== undefined) results.push(...(await probeFrom(pid, probesOf(network, id), mtu, signal)));
    }
    return results;
  }

  async collect(live: ReadonlySet<TaskId>, signal: AbortSignal): Promise<void> {
    await this.#node.volumes.recover(live, signal);
    await this.#free(live, signal);
    this.#keys = await this.#openKeys(signal);
    await this.#resumeNetwork(signal);
    this.#scope.spawn("collect images", (inner) => this.#collectImages(inner));
    this.#scope.spawn("measure volumes", (inner) => this.#node.volumes.measure(inner));
  }

  async #free(live: ReadonlySet<TaskId>, signal: AbortSignal): Promise<void> {
    const { directories, cgroups, logger } = this.#options;
    if (directories.contents !== undefined) collectContents(directories.contents, live);
    const dead = new Set<string>([...(await readdir(directories.containers)), ...(await cgroups.list())]);
    for (const id of dead) {
      if (live.has(id as TaskId)) continue;
      try {
        await cgroups.remove(id, signal);
        if (isId(id)) await this.#runner.removeTree(containerDirectory(directories, id as TaskId), signal);
        logger.info({ taskId: id }, "freed what was left of a task");
      } catch (reason) {
        if (!(reason instanceof SwarmError) && errnoOf(reason) === undefined) throw reason;
        logger.warn({ taskId: id, err: reason }, "could not free what was left of a task");
      }
    }
  }

  /** Ends every container and frees all that the node's tasks held on the host: for leaving a cluster for good. */
  async purge(signal: AbortSignal): Promise<void> {
    await this.#free(new Set(), signal);
    await this.#node.volumes.unmountAll(signal);
    if (this.#options.directories.contents !== undefined) removeContents(this.#options.directories.contents);
    const network = this.#network ?? this.#networkOf(parsePrefix(ADDRESS_POOL_DEFAULT));
    await network.removeAll(signal);
    rmSync(this.#options.directories.wireguard, { force: true });
    await this.#options.cgroups.removeParent();
  }

  /** Removes a folder of the data directory, whatever container users made of it. */
  async removeFolder(path: string, signal: AbortSignal): Promise<void> {
    await this.#runner.removeTree(path as HostPath, signal);
  }

  #networkOf(pool: Ipv4Prefix): NetworkManager {
    const { clock, networkDevice: device, linkLocal = false, directories } = this.#options;
    const logger = this.#options.logger.child({ part: "network" });
    const world = { clock, logger, netlink: this.#runner, rules: new NftRuleLoader(), sysctls: systemSysctls };
    const enter: NetworkDependencies["enter"] = async (taskId, signal) =>
      this.#controllers.get(taskId)?.enterNetwork(signal);
    const options = { pool, device, linkLocal, record: directories.rules, key: this.#keys?.inUse };
    return new NetworkManager({ ...world, enter }, options);
  }

  /** Lets go of everything; containers, links and rules stay. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
    await this.#detached[Symbol.asyncDispose]();
    for (const controller of this.#controllers.values()) await controller.close();
    await this.#resolver?.[Symbol.asyncDispose]();
    await this.#network?.[Symbol.asyncDispose]();
    this.#registries[Symbol.dispose]();
    await this.#runner[Symbol.asyncDispose]();
  }
}

function warningOf(problem: string): ProbeResult {
  return create(ProbeResultSchema, { kind: ProbeResult_Kind.HOST, problem });
}

const WIRE_PROTOCOLS: Readonly<Record<Protocol, PortConfig_Protocol>> = {
  tcp: PortConfig_Protocol.TCP,
  udp: PortConfig_Protocol.UDP,
  sctp: PortConfig_Protocol.SCTP,
};

const LOOPBACK = { address: 0x7f000000, length: 8 };

/** A node that managers see on loopback has no other hosts beside it. */
function underlayOf({ nodeAddress, dataPathPort }: NetworkSettings): Underlay {
  const address = parseIpv4(nodeAddress);
  const local = address === undefined || contains(LOOPBACK, address) ? undefined : address;
  return { local, port: dataPathPort || VXLAN_PORT_DEFAULT };
}

function sameSettings(one: NetworkSettings, other: NetworkSettings): boolean {
  return (
    one.addressPool === other.addressPool &&
    one.nodeAddress === other.nodeAddress &&
    one.dataPathPort === other.dataPathPort
  );
}

/** Reads what `configure` was told. Throws `data_loss` when that is not what the file holds. */
function readSettings(text: string): NetworkSettings {
  try {
    const { addressPool, nodeAddress, dataPathPort } = JSON.parse(text);
    return { addressPool: String(addressPool), nodeAddress: String(nodeAddress), dataPathPort: Number(dataPathPort) };
  } catch (reason) {
    throw SwarmError.wrap("read the network's settings", reason, "data_loss");
  }
}

/** A task without addresses has nothing on the network. */
function attachedTask({ assigned, id: taskId }: ContainerController): readonly AttachedTask[] {
  const { task } = assigned;
  if (task.address === "" && task.networks.length === 0) return [];
  return [{ taskId, attachment: attachmentOf(assigned) }];
}
