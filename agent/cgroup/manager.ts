/**
 * The cgroups of containers. This folder owns the kernel's files below `<mount>/<parent>/container-<id>` and the
 * knowledge of which value goes where; it must not know tasks, images, networks or how processes are started: the shim
 * carries out what `plan` returns.
 */
import { readFile } from "node:fs/promises";
import type { Clock } from "../../common/base/clock.ts";
import type { OciResources } from "../runtime/oci.ts";
import type { CgroupMembership, HostOp } from "../runtime/op.ts";
import type { BlockBytes } from "./blkio.ts";
import { checkParent } from "./directory.ts";
import { type CgroupHierarchy, detectCgroups } from "./hierarchy.ts";
import { CgroupsV1 } from "./manager-v1.ts";
import { CgroupsV2 } from "./manager-v2.ts";

/** What the shim must do for a container's cgroup, in order, and how the container's processes get into it. */
export interface CgroupPlan {
  readonly hostOps: readonly HostOp[];
  readonly membership: CgroupMembership;
}

/** What a container uses now. Absent: the kernel does not tell, or there is no limit. */
export interface CgroupStats {
  /** CPU time used since the start, ns. */
  readonly cpuNanos: number;
  /** Time in which the quota held it back, ns. */
  readonly throttledNanos: number;
  /** Bytes of memory without page cache that could be dropped at once: what `docker stats` shows. */
  readonly memoryBytes: number;
  readonly memoryLimitBytes: number | undefined;
  /** Number of processes and threads. */
  readonly pids: number;
  readonly pidsLimit: number | undefined;
  readonly block: BlockBytes | undefined;
}

/** The cgroups of one agent's containers, the same over v1 and v2. An id that has no cgroup is as one that has stopped. */
export interface CgroupManager {
  readonly version: 1 | 2;
  /** The v1 trees that containers are in, each as the controllers mounted together (`cpu,cpuacct`); none on v2. */
  readonly hierarchies: readonly string[];
  /**
   * Makes the parent cgroup with its controllers switched on; to be called once before the first container. Throws
   * `failed_precondition` where cgroups cannot be written.
   */
  ensureParent(): Promise<void>;
  /** What makes the container's cgroup with these resources. Pure. Throws `invalid_argument` for what v1 or v2 lacks. */
  plan(id: string, resources: OciResources): CgroupPlan;
  /** Undefined once the cgroup is gone. Takes 0.1 ms, and the event loop with it. */
  stats(id: string): CgroupStats | undefined;
  /** Whether the kernel killed a process of it for want of memory; ask before `remove`. */
  oomKilled(id: string): Promise<boolean>;
  /** Process ids as this host sees them. */
  processes(id: string): Promise<readonly number[]>;
  /** Signals every process. SIGKILL leaves none the chance to fork away. */
  kill(id: string, signal: NodeJS.Signals | number): Promise<void>;
  /** Kills what is left and removes the cgroup; tries for up to 5 s, then throws `unavailable`. */
  remove(id: string, signal: AbortSignal): Promise<void>;
  /** Undoes `ensureParent`, level by level as far as they are empty; for when the agent leaves the host for good. */
  removeParent(): Promise<void>;
  /** Ids of all containers that have a cgroup: what a crash may have left behind. */
  list(): Promise<readonly string[]>;
}

/** Where an agent keeps its containers' cgroups. Agents that share a host need different ones. */
export const DEFAULT_CGROUP_PARENT = "/swarm";

/** The manager for a known hierarchy. Throws `invalid_argument` when `parent` is not an absolute path of plain names. */
export function createCgroupManager(clock: Clock, hierarchy: CgroupHierarchy, parent: string): CgroupManager {
  const checked = checkParent(parent);
  return hierarchy.version === 1 ? new CgroupsV1(clock, hierarchy, checked) : new CgroupsV2(clock, hierarchy, checked);
}

/** The manager for this host, its parent made. */
export async function openCgroups(clock: Clock, parent: string = DEFAULT_CGROUP_PARENT): Promise<CgroupManager> {
  const hierarchy = await detectCgroups((path) => readFile(path, "utf8"));
  const manager = createCgroupManager(clock, hierarchy, parent);
  await manager.ensureParent();
  return manager;
}
