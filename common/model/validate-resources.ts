/** Checks of what a task may use and what is kept for it. Used by `validateServiceSpec` alone. */
import type { ResourceLimits, TaskSpec } from "../../proto/gen/swarm/v1/types_pb.js";
import { formatNanoCpus, quoted } from "./units.ts";
import type { Problems } from "./validate-parts.ts";

/** SwarmKit's floors: below them a container cannot start. */
const NANO_CPUS_MIN = 1_000_000n;
const MEMORY_BYTES_MIN = 4n * 1024n * 1024n;
/** More CPUs, memory or processes than any machine has is a typing error; both stay far below 2^53. */
const NANO_CPUS_MAX = 1_000_000n * 1_000_000_000n;
const MEMORY_BYTES_MAX = 2n ** 50n;
const PIDS_MAX = 2n ** 22n;
const NANO_PER_CPU = 1_000_000_000;
/** The kernel's MIN_SHARES and MAX_SHARES. */
const CPU_SHARES_MIN = 2n;
const CPU_SHARES_MAX = 262_144n;
/** CONFIG_NR_CPUS of no kernel is larger. */
const CPUSET_NUMBER_MAX = 8191;

/** Every bad amount. */
export function checkResources(task: TaskSpec, problems: Problems): void {
  const { limits, reservations } = task.resources ?? {};
  for (const [field, amounts] of Object.entries({ limits, reservations })) {
    if (amounts === undefined) continue;
    const { nanoCpus, memoryBytes } = amounts;
    if (nanoCpus !== 0n && (nanoCpus < NANO_CPUS_MIN || nanoCpus > NANO_CPUS_MAX)) {
      const shown = formatNanoCpus(Number(nanoCpus));
      problems.add(
        `resources.${field}.cpus`,
        nanoCpus < NANO_CPUS_MIN
          ? `invalid cpu value ${shown}: Must be at least ${formatNanoCpus(Number(NANO_CPUS_MIN))}`
          : `invalid cpu value ${shown}: Must be at most ${Number(NANO_CPUS_MAX) / NANO_PER_CPU}`,
      );
    }
    if (memoryBytes !== 0n && (memoryBytes < MEMORY_BYTES_MIN || memoryBytes > MEMORY_BYTES_MAX)) {
      const bound = memoryBytes < MEMORY_BYTES_MIN ? "at least 4MiB" : "at most 1PiB";
      problems.add(`resources.${field}.memory`, `invalid memory value ${memoryBytes}: Must be ${bound}`);
    }
  }
  if (limits !== undefined) checkLimits(limits, problems);
  if (limits && reservations && limits.memoryBytes > 0n && reservations.memoryBytes > limits.memoryBytes) {
    problems.add("resources.reservations.memory", "is more than resources.limits.memory");
  }
  for (const { kind } of reservations?.generic ?? []) {
    problems.add("resources.reservations.generic", `generic resources are not supported: ${quoted(kind)}`);
  }
}

/** What only limits have; in Docker's words (moby daemon/daemon_unix.go, verifyPlatformContainerResources). */
function checkLimits(limits: ResourceLimits, problems: Problems): void {
  const { pids, memoryBytes, memorySwapBytes: swap, memorySwappiness: swappiness = 0, cpuShares } = limits;
  if (pids < 0n || pids > PIDS_MAX) {
    problems.add("resources.limits.pids", `invalid pids value ${pids}: Must be from 0 to ${PIDS_MAX}`);
  }
  if (swap < -1n || swap > MEMORY_BYTES_MAX) {
    problems.add("memswap_limit", `invalid value ${swap}: Must be -1 (unlimited) or from 0 to 1PiB`);
  } else if (swap > 0n && memoryBytes === 0n) {
    problems.add("memswap_limit", "You should always set the Memory limit when using Memoryswap limit");
  } else if (swap > 0n && swap < memoryBytes) {
    problems.add("memswap_limit", "Minimum memoryswap limit should be larger than memory limit");
  }
  if (swappiness > 100) problems.add("mem_swappiness", `invalid value ${swappiness}: Must be from 0 to 100`);
  if (cpuShares !== 0n && (cpuShares < CPU_SHARES_MIN || cpuShares > CPU_SHARES_MAX)) {
    const bounds = `from ${CPU_SHARES_MIN} to ${CPU_SHARES_MAX}`;
    problems.add("cpu_shares", `invalid value ${cpuShares}: Must be ${bounds}`);
  }
  for (const [field, list] of Object.entries({ cpuset: limits.cpusetCpus, cpuset_mems: limits.cpusetMems })) {
    if (!isNumberList(list)) problems.add(field, `invalid list ${quoted(list)}: numbers and ranges such as 0-3,7`);
  }
}

/** The kernel's list format (Documentation/admin-guide/cgroup-v1/cpusets.rst); empty for all. */
function isNumberList(list: string): boolean {
  if (list === "") return true;
  return list.split(",").every((part) => {
    const [, first, last = first] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part) ?? [];
    return first !== undefined && Number(first) <= Number(last) && Number(last) <= CPUSET_NUMBER_MAX;
  });
}
