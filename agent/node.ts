/** A node at work: this host's executor and the Agent over it. Made by `AgentHost` as often as the host joins and leaves. */
import { systemClock } from "../common/base/clock.ts";
import { readBootId } from "../common/base/directory-lock.ts";
import type { SwarmError } from "../common/base/error.ts";
import type { NodeId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import { systemRandom } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { projectVersion } from "../common/base/version.ts";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import type { SessionMessage } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { Agent } from "./agent.ts";
import { openCgroups } from "./cgroup/manager.ts";
import { ClusterImages } from "./cluster-images.ts";
import { contentsDirectory } from "./container-contents.ts";
import { ContainerExecutor } from "./container-executor.ts";
import { hostPlatform } from "./image/store.ts";
import type { NodeIdentity } from "./node-identity.ts";
import { agentDirectories } from "./node-runtime.ts";
import type { AgentSettings } from "./options.ts";
import type { HostFacts } from "./runtime/host-facts.ts";
import { type Connect, ManagerList } from "./session.ts";
import { FileTaskDatabase } from "./task-database.ts";

/** The shim beside this program. */
export const SHIM_PATH = new URL("shim/build/swarm-shim", import.meta.url).pathname;

/** What a node is made of. */
export interface NodeOptions {
  readonly settings: AgentSettings;
  readonly facts: HostFacts;
  readonly identity: NodeIdentity;
  readonly managers: ManagerList;
  readonly heard: (message: SessionMessage) => void;
  readonly refused: (failure: SwarmError) => void;
  readonly logger: Logger;
}

/** Runs tasks until `signal` aborts; its containers run on. */
export async function runNode(options: NodeOptions, signal: AbortSignal): Promise<void> {
  const { settings, facts, identity, managers, heard, refused, logger } = options;
  const { nodeId } = identity;
  const connect: Connect = (address) => openGrpcTransport({ address, tls: identity.client });
  await using clusterImages = new ClusterImages({ clock: systemClock, connect, managers, platform: hostPlatform() });
  await using executor = await openExecutor({ settings, nodeId, facts, clusterImages, logger });
  const agent = new Agent({
    ...{ nodeId, managers, connect, executor, logger, clock: systemClock, random: systemRandom },
    heard(message) {
      identity.hear(message);
      heard(message);
    },
    refused,
    certificates: (signal) => identity.held(signal),
    database: new FileTaskDatabase(agentDirectories(settings.dataDirectory, undefined), logger),
    bootId: readBootId(),
  });
  logger.info({ nodeId, hostname: settings.hostname, managers: managers.all }, "agent starts");
  await using scope = new Scope(signal);
  scope.spawn("certificate", (inner) => identity.run(managers, inner));
  scope.spawn("agent", (inner) => agent.run(inner));
  try {
    await scope.join();
  } catch (reason) {
    if (!signal.aborted) throw reason;
  }
  logger.info({ nodeId }, "agent stopped, its containers run on");
}

/** Ends every container of a node and frees all that it held on the host. `removeAll`: the whole data directory goes, too. */
export async function purgeNode(
  {
    settings,
    nodeId,
    facts,
    logger,
  }: { readonly settings: AgentSettings; readonly nodeId: NodeId; readonly facts: HostFacts; readonly logger: Logger },
  { removeAll }: { readonly removeAll: boolean },
  signal: AbortSignal,
): Promise<void> {
  const managers = new ManagerList([]);
  const connect: Connect = (address) => openGrpcTransport({ address });
  await using clusterImages = new ClusterImages({ clock: systemClock, connect, managers, platform: hostPlatform() });
  await using executor = await openExecutor({ settings, nodeId, facts, clusterImages, logger });
  await executor.purge(signal);
  if (removeAll) await executor.removeFolder(settings.dataDirectory, signal);
}

async function openExecutor(parts: {
  readonly settings: AgentSettings;
  readonly nodeId: NodeId;
  readonly facts: HostFacts;
  readonly clusterImages: ClusterImages;
  readonly logger: Logger;
}): Promise<ContainerExecutor> {
  const { settings, nodeId, facts, clusterImages, logger } = parts;
  const { dataDirectory: path } = settings;
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
      networkDevice: settings.networkDevice,
      linkLocal: settings.linkLocal,
      wireguardKeyLifetimeMs: settings.wireguardKeyLifetimeMs,
    },
    hostPlatform(),
  );
}
