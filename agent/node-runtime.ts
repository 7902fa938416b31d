/** What all containers of a node share, and where each of them lives on disk. */
import type { Clock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import type { TaskId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Scope } from "../common/base/scope.ts";
import type { RegistryClient } from "../common/registry/client.ts";
import type { ImageSource } from "../common/registry/source.ts";
import type { CgroupManager } from "./cgroup/manager.ts";
import type { DetachedCommands } from "./container-exec.ts";
import type { NodeNames } from "./container-settings.ts";
import type { Turnstile } from "./image/shared-work.ts";
import type { ImageStore } from "./image/store.ts";
import type { NetworkManager } from "./network/network-manager.ts";
import type { HostFacts } from "./runtime/host-facts.ts";
import type { HostPath } from "./runtime/op.ts";
import type { Runner } from "./runtime/runner.ts";
import type { Volumes } from "./volumes.ts";

/**
 * The agent's data directory, every part of it 0700:
 *
 *   node-id  lock  network.json  wireguard.json  rules.bin  endpoints.pb
 *   tasks/<task id>.pb
 *   containers/<task id>/   control.sock exit container.json hosts hostname resolv.conf upper/ work/ volumes/ log log.1 …
 *   root/                   empty: where every container mounts its root, in its own mount namespace
 *   images/  volumes/<name>/  volume-labels/<name>.json  mounts/…   see volumes.ts
 */
export interface AgentDirectories {
  readonly tasks: string;
  /** File: the published ports as a manager last told them. */
  readonly endpoints: string;
  /** File: the cluster's address pool as a manager last told it. */
  readonly network: string;
  /** File: the nftables table as it was loaded last. */
  readonly rules: string;
  /** File: the node's keys for encrypted networks, private. */
  readonly wireguard: string;
  readonly containers: string;
  readonly images: string;
  readonly volumes: string;
  readonly volumeLabels: string;
  readonly mounts: string;
  readonly root: HostPath;
  /** Outside the data directory, on a tmpfs: secrets and configs of each task. Undefined: this host has no tmpfs. */
  readonly contents: string | undefined;
}

/** The parts of a data directory. */
export function agentDirectories(dataDirectory: string, contents: string | undefined): AgentDirectories {
  return {
    tasks: `${dataDirectory}/tasks`,
    endpoints: `${dataDirectory}/endpoints.pb`,
    network: `${dataDirectory}/network.json`,
    rules: `${dataDirectory}/rules.bin`,
    wireguard: `${dataDirectory}/wireguard.json`,
    containers: `${dataDirectory}/containers`,
    images: `${dataDirectory}/images`,
    volumes: `${dataDirectory}/volumes`,
    volumeLabels: `${dataDirectory}/volume-labels`,
    mounts: `${dataDirectory}/mounts`,
    root: `${dataDirectory}/root` as HostPath,
    contents,
  };
}

/** A container's own directory. A task id has only letters and digits, so it is a safe name. */
export function containerDirectory(directories: AgentDirectories, taskId: TaskId): HostPath {
  return `${directories.containers}/${taskId}` as HostPath;
}

/** Where a task's secrets and configs lie. Throws `failed_precondition` on a host that could keep them on a disk only. */
export function contentsOf({ contents }: AgentDirectories, taskId: TaskId): string {
  if (contents !== undefined) return `${contents}/${taskId}`;
  throw new SwarmError(
    "failed_precondition",
    "secrets and configs need a tmpfs at /run or /dev/shm, which this host lacks",
  );
}

/** The newest log file of a container. */
export function logPath(directory: HostPath): HostPath {
  return `${directory}/log` as HostPath;
}

/** What the controllers of one node work with. */
export interface NodeRuntime {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly names: NodeNames;
  readonly facts: HostFacts;
  readonly directories: AgentDirectories;
  readonly runner: Runner;
  /** The swarm-shim program. */
  readonly shimPath: string;
  readonly detached: DetachedCommands;
  readonly cgroups: CgroupManager;
  readonly images: ImageStore;
  /** Asked before any registry. */
  readonly clusterImages: ImageSource;
  readonly registries: RegistryClient;
  readonly volumes: Volumes;
  /** Bounds how many containers are made at a time. */
  readonly starting: Turnstile;
  /** Owns what outlives a single step: health checks. */
  readonly scope: Scope;
  /** The network, once a session has told the address pool. */
  network(signal: AbortSignal): Promise<NetworkManager>;
  /** The network if it is there: before, no task of this run can be on it. */
  networkNow(): NetworkManager | undefined;
}
