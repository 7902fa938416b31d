/** swarm-agent: opens this host's parts, puts an Agent together from them, and runs it until a signal comes. */
import { existsSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { systemClock } from "../common/base/clock.ts";
import { type DataDirectory, openDataDirectory } from "../common/base/data-directory.ts";
import { readBootId } from "../common/base/directory-lock.ts";
import { SwarmError } from "../common/base/error.ts";
import type { NodeId } from "../common/base/id.ts";
import { type Logger, openLogger } from "../common/base/logger.ts";
import { dieOfBugs, runProgram } from "../common/base/program.ts";
import { systemRandom } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { stopSignal } from "../common/base/stop-signal.ts";
import { projectVersion } from "../common/base/version.ts";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { Agent } from "./agent.ts";
import { openCgroups } from "./cgroup/manager.ts";
import { ClusterImages } from "./cluster-images.ts";
import { contentsDirectory } from "./container-contents.ts";
import { ContainerExecutor } from "./container-executor.ts";
import { hostPlatform } from "./image/store.ts";
import { NodeIdentity } from "./node-identity.ts";
import { agentDirectories } from "./node-runtime.ts";
import { type AgentSettings, agentSettings, describeProgram } from "./options.ts";
import { type HostFacts, readHostFacts } from "./runtime/host-facts.ts";
import { type Connect, ManagerList } from "./session.ts";
import { FileTaskDatabase } from "./task-database.ts";

/** When memory runs out the kernel shall take containers before the agent and their supervisors. */
const OOM_SCORE_ADJUST = "-500";

const SHIM_PATH = new URL("shim/build/swarm-shim", import.meta.url).pathname;

function main(): Promise<number> {
  return runProgram(describeProgram(projectVersion()), async (values) => {
    const settings = agentSettings(values);
    const logger = openLogger("swarm-agent", settings.log);
    dieOfBugs(logger);
    await (settings.purge ? purge(settings, logger) : run(settings, logger));
  });
}

async function run(settings: AgentSettings, logger: Logger): Promise<void> {
  const facts = await checkHost();
  using directory = await openDataDirectory<NodeId>(settings.dataDirectory, "node-id", systemRandom);
  sparedByOom(logger);
  const stop = stopSignal(logger, "agent stops");
  const identity = await openIdentity(settings, directory, logger, stop);
  const { nodeId } = identity;
  const managers = new ManagerList(settings.managers);
  const connect: Connect = (address) => openGrpcTransport({ address, tls: identity.client });
  const platform = hostPlatform();
  await using clusterImages = new ClusterImages({ clock: systemClock, connect, managers, platform });
  await using executor = await openExecutor({ settings, directory, nodeId, facts, clusterImages, logger });
  const agent = new Agent({
    nodeId,
    managers,
    clock: systemClock,
    random: systemRandom,
    logger,
    connect,
    executor,
    database: new FileTaskDatabase(agentDirectories(directory.path, undefined), logger),
    bootId: readBootId(),
  });
  await using scope = new Scope(stop);
  scope.spawn("certificate", (signal) => identity.run(managers, signal));
  logger.info(
    { nodeId, hostname: settings.hostname, managers: managers.all, dataDirectory: directory.path },
    "agent starts",
  );
  scope.spawn("agent", (signal) => agent.run(signal));
  await scope.join().catch((reason: unknown) => {
    if (!stop.aborted) throw reason;
  });
  logger.info({ nodeId }, "agent stopped, its containers run on");
}

/** Who this node is; a host that is none yet joins by its token. */
async function openIdentity(
  { dataDirectory, joinTokenFile, managers }: AgentSettings,
  directory: DataDirectory<NodeId>,
  logger: Logger,
  signal: AbortSignal,
): Promise<NodeIdentity> {
  const options = { directory: `${dataDirectory}/identity`, clock: systemClock, random: systemRandom, logger };
  const known = await NodeIdentity.read(options);
  if (known) return known;
  if (joinTokenFile === undefined) {
    throw lacking(
      "this host is no node of a cluster: give --join-token-file FILE with what 'swarmctl swarm join-token worker' prints",
    );
  }
  const token = await readToken(joinTokenFile);
  const identity = await NodeIdentity.join(options, { managers, token }, signal);
  directory.adopt(identity.nodeId);
  logger.info({ nodeId: identity.nodeId, clusterId: identity.clusterId }, "joined the cluster");
  return identity;
}

async function readToken(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (reason) {
    throw SwarmError.wrap(`--join-token-file ${path}`, reason, "failed_precondition");
  }
}

/** Ends the node's containers and removes what it made on this host; a directory that is not there is no error. */
async function purge(settings: AgentSettings, logger: Logger): Promise<void> {
  if (!existsSync(settings.dataDirectory)) return;
  const facts = await checkHost();
  const managers = new ManagerList(settings.managers);
  const connect: Connect = (address) => openGrpcTransport({ address });
  using directory = await openDataDirectory<NodeId>(settings.dataDirectory, "node-id", systemRandom);
  await using clusterImages = new ClusterImages({ clock: systemClock, connect, managers, platform: hostPlatform() });
  const { id: nodeId } = directory;
  await using executor = await openExecutor({ settings, directory, nodeId, facts, clusterImages, logger });
  const signal = stopSignal(logger, "agent stops");
  await executor.purge(signal);
  await executor.removeFolder(directory.path, signal);
  logger.info({ nodeId: directory.id, dataDirectory: directory.path }, "node purged");
}

async function openExecutor(parts: {
  readonly settings: AgentSettings;
  readonly directory: DataDirectory<NodeId>;
  readonly nodeId: NodeId;
  readonly facts: HostFacts;
  readonly clusterImages: ClusterImages;
  readonly logger: Logger;
}): Promise<ContainerExecutor> {
  const { settings, nodeId, facts, clusterImages, logger } = parts;
  const { path } = parts.directory;
  const cgroups = await openCgroups(systemClock, settings.cgroupParent ?? `/swarm-${nodeId.slice(0, 12)}`);
  return ContainerExecutor.open(
    {
      clock: systemClock,
      random: systemRandom,
      logger,
      nodeId,
      hostname: settings.hostname,
      version: projectVersion(),
      labels: settings.labels,
      facts,
      directories: agentDirectories(path, contentsDirectory(nodeId)),
      shimPath: SHIM_PATH,
      cgroups,
      clusterImages,
      insecureRegistries: settings.insecureRegistries,
      imageRetentionMs: settings.imageRetentionMs,
      bridge: settings.bridge,
    },
    hostPlatform(),
  );
}

/** A host inside a container may lack the right (CAP_SYS_RESOURCE); the agent runs all the same. */
function sparedByOom(logger: Logger): void {
  try {
    writeFileSync("/proc/self/oom_score_adj", OOM_SCORE_ADJUST);
  } catch (reason) {
    logger.warn({ err: reason }, "cannot ask the kernel to spare the agent when memory runs out");
  }
}

/** Refuses a host on which no container can run, with the remedy. */
async function checkHost(): Promise<HostFacts> {
  if (process.getuid?.() !== 0) throw lacking("must run as root: containers need namespaces, mounts and cgroups");
  if (!existsSync(SHIM_PATH)) throw lacking(`${SHIM_PATH} is missing: build it with 'make -C agent/shim'`);
  const facts = await readHostFacts((path) => readFile(path, "utf8"), process.arch);
  if (!facts.overlay) throw lacking("the kernel has no overlayfs: load it with 'modprobe overlay'");
  return facts;
}

function lacking(problem: string): SwarmError {
  return new SwarmError("failed_precondition", problem);
}

void main().then((code) => process.exit(code));
