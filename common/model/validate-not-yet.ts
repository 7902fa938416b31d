/** What can be said and is not done yet: refused by name, so that nothing is accepted and then ignored. A row goes when its field is honoured. */
import {
  type ContainerSpec,
  PullPolicy,
  type ResourceLimits,
  type SecurityOptions,
} from "../../proto/gen/swarm/v1/types_pb.js";
import type { Problems } from "./validate-parts.ts";

const PROBLEM = "is not supported yet";

/** Refuses what containers are not given yet. */
export function checkContainerNotYet(container: ContainerSpec, problems: Problems): void {
  const { security, devices, deviceCgroupRules, pidMode, ipcMode, utsMode } = container;
  const said = {
    privileged: container.privileged,
    security_opt: security !== undefined && !isDefault(security),
    devices: devices.length > 0,
    device_cgroup_rules: deviceCgroupRules.length > 0,
    shm_size: container.shmSizeBytes !== 0n,
    pid: pidMode !== "",
    ipc: ipcMode !== "",
    uts: utsMode !== "",
    pull_policy: container.pullPolicy !== PullPolicy.MISSING,
  };
  for (const [field, given] of Object.entries(said)) if (given) problems.add(field, PROBLEM);
}

/** What every container has anyway. */
function isDefault(security: SecurityOptions): boolean {
  const { noNewPrivileges = true, seccomp, apparmor, systemPathsUnconfined } = security;
  return noNewPrivileges && seccomp === "" && apparmor === "" && !systemPathsUnconfined;
}

/** Refuses limits that no cgroup is given yet. */
export function checkLimitsNotYet(limits: ResourceLimits | undefined, problems: Problems): void {
  if (limits === undefined) return;
  const said = {
    memswap_limit: limits.memorySwapBytes !== 0n,
    mem_swappiness: limits.memorySwappiness !== undefined,
    cpuset: limits.cpusetCpus !== "" || limits.cpusetMems !== "",
    cpu_shares: limits.cpuShares !== 0n,
  };
  for (const [field, given] of Object.entries(said)) if (given) problems.add(field, PROBLEM);
}
