/** swarm-agent: opens this host's parts, puts an Agent together from them, and runs it until a signal comes. */
import { existsSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { systemClock } from "../common/base/clock.ts";
import { type DataDirectory, openDataDirectory } from "../common/base/data-directory.ts";
import { readBootId } from "../common/base/directory-lock.ts";
import { SwarmError } from "../common/base/error.ts";
import { isLoopback, parseHostPort } from "../common/base/host-port.ts";
import type { NodeId } from "../common/base/id.ts";
import { type Logger, openLogger } from "../common/base/logger.ts";
import { dieOfBugs, runProgram } from "../common/base/program.ts";
import { systemRandom } from "../common/base/random.ts";
import { stopSignal } from "../common/base/stop-signal.ts";
import { projectVersion } from "../common/base/version.ts";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { Agent } from "./agent.ts";
import { openCgroups } from "./cgroup/manager.ts";
import { ClusterImages } from "./cluster-images.ts";
import { contentsDirectory } from "./container-contents.ts";
import { ContainerExecutor } from "./container-executor.ts";
import { hostPlatform } from "./image/store.ts";
import { agentDirectories } from "./node-runtime.ts";
import { type AgentSettings, agentSettings, describeProgram, plaintextProblem } from "./options.ts";
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
  const managers = new ManagerList(settings.managers);
  const connect = connectTo(settings);
  const platform = hostPlatform();
  await using clusterImages = new ClusterImages({ clock: systemClock, connect, managers, platform });
  await using executor = await openExecutor({ settings, directory, facts, clusterImages, logger });
  const agent = new Agent({
    nodeId: directory.id,
    managers,
    clock: systemClock,
    random: systemRandom,
    logger,
    connect,
    executor,
    database: new FileTaskDatabase(agentDirectories(directory.path, undefined), logger),
    bootId: readBootId(),
  });
  const { id: nodeId } = directory;
  logger.info(
    { nodeId, hostname: settings.hostname, managers: managers.all, dataDirectory: directory.path },
    "agent starts",
  );
  await agent.run(stopSignal(logger, "agent stops"));
  logger.info({ nodeId }, "agent stopped, its containers run on");
}

/** Managers tell of each other: those that are elsewhere are not connected to in plaintext either, unless that was asked for. */
function connectTo({ insecure }: AgentSettings): Connect {
  return (address) => {
    const host = parseHostPort(address)?.host;
    if (!insecure && (host === undefined || !isLoopback(host))) {
      throw new SwarmError("failed_precondition", plaintextProblem(address));
    }
    return openGrpcTransport({ address });
  };
}

/** Ends the node's containers and removes what it made on this host; a directory that is not there is no error. */
async function purge(settings: AgentSettings, logger: Logger): Promise<void> {
  if (!existsSync(settings.dataDirectory)) return;
  const facts = await checkHost();
  const managers = new ManagerList(settings.managers);
  const connect = connectTo(settings);
  using directory = await openDataDirectory<NodeId>(settings.dataDirectory, "node-id", systemRandom);
  await using clusterImages = new ClusterImages({ clock: systemClock, connect, managers, platform: hostPlatform() });
  await using executor = await openExecutor({ settings, directory, facts, clusterImages, logger });
  const signal = stopSignal(logger, "agent stops");
  await executor.purge(signal);
  await executor.removeFolder(directory.path, signal);
  logger.info({ nodeId: directory.id, dataDirectory: directory.path }, "node purged");
}

async function openExecutor(parts: {
  readonly settings: AgentSettings;
  readonly directory: DataDirectory<NodeId>;
  readonly facts: HostFacts;
  readonly clusterImages: ClusterImages;
  readonly logger: Logger;
}): Promise<ContainerExecutor> {
  const { settings, directory, facts, clusterImages, logger } = parts;
  const { id: nodeId, path } = directory;
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
