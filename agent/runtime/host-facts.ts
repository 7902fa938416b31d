/** What this host is and can do, read from /proc and /sys: the facts behind a node's description. */
import { SwarmError } from "../../common/base/error.ts";
import { detectCgroups, type ReadText } from "../cgroup/hierarchy.ts";
import { type Architecture, architectureOf } from "./syscalls.ts";

/** Facts that do not change while the host is up. */
export interface HostFacts {
  readonly hostname: string;
  /** `uname -r`. */
  readonly kernel: string;
  readonly architecture: Architecture;
  /** PRETTY_NAME of os-release, else "Linux". */
  readonly operatingSystem: string;
  /** Processors that are on. */
  readonly cpus: number;
  /** The same in Docker's unit: billionths of a processor. */
  readonly nanoCpus: number;
  readonly memoryBytes: number;
  /** The most open files that this process may let another have (RLIMIT_NOFILE). */
  readonly openFilesMax: number;
  /** The capabilities that this process has and may give, bit n for capability n. */
  readonly capabilityMask: bigint;
  readonly cgroupVersion: 1 | 2;
  /** Whether overlayfs is there or can be loaded. */
  readonly overlay: boolean;
  /** Whether the kernel takes seccomp filters. */
  readonly seccomp: boolean;
  readonly apparmor: boolean;
}

/**
 * Reads the facts. A missing security feature is a fact, not a failure; a host on which no container can run (foreign
 * architecture, no cgroups) throws `failed_precondition`.
 */
export async function readHostFacts(readText: ReadText, nodeArchitecture: string): Promise<HostFacts> {
  const architecture = architectureOf(nodeArchitecture);
  if (architecture === undefined) {
    throw new SwarmError("failed_precondition", `containers need x86-64 or 64-bit Arm, not ${nodeArchitecture}`);
  }
  const optional = (path: string) => readText(path).catch(() => "");
  const kernel = (await readText("/proc/sys/kernel/osrelease")).trim();
  const hierarchy = await detectCgroups(readText);
  const capabilityMask = await readCapabilityMask(readText);
  const openFilesMax = await readOpenFilesMax(readText, capabilityMask);
  const [hostname, osRelease, online, meminfo, filesystems, actions, apparmor] = await Promise.all([
    readText("/proc/sys/kernel/hostname"),
    optional("/etc/os-release"),
    readText("/sys/devices/system/cpu/online"),
    readText("/proc/meminfo"),
    readText("/proc/filesystems"),
    optional("/proc/sys/kernel/seccomp/actions_avail"),
    optional("/sys/module/apparmor/parameters/enabled"),
  ]);
  const cpus = countList(online);
  return {
    hostname: hostname.trim(),
    kernel,
    architecture,
    operatingSystem: /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(osRelease)?.[1] ?? "Linux",
    cpus,
    nanoCpus: cpus * 1_000_000_000,
    memoryBytes: Number(/^MemTotal:\s+(\d+) kB$/m.exec(meminfo)?.[1] ?? 0) * 1024,
    openFilesMax,
    capabilityMask,
    cgroupVersion: hierarchy.version,
    overlay: /\boverlay$/m.test(filesystems) || (await hasModule(optional, kernel)),
    seccomp: actions.split(/\s+/).includes("errno"),
    apparmor: apparmor.trim() === "Y",
  };
}

/** Bit of CAP_SYS_RESOURCE, without which nobody gives more than the own hard limit. */
const SYS_RESOURCE = 1n << 24n;

async function readCapabilityMask(readText: ReadText): Promise<bigint> {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(await readText("/proc/self/status"))?.[1] ?? "0";
  return BigInt(`0x${effective}`);
}

async function readOpenFilesMax(readText: ReadText, capabilityMask: bigint): Promise<number> {
  if ((capabilityMask & SYS_RESOURCE) !== 0n) return Number(await readText("/proc/sys/fs/nr_open"));
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(await readText("/proc/self/limits"))?.[1] ?? "";
  return Number(hard === "unlimited" ? await readText("/proc/sys/fs/nr_open") : hard);
}

/** A module not yet loaded is loaded by the first mount. */
async function hasModule(optional: ReadText, kernel: string): Promise<boolean> {
  return /\/overlay\.ko(\.\w+)?:/.test(await optional(`/lib/modules/${kernel}/modules.dep`));
}

/** Counts the numbers of a kernel list such as `0-3,8,10-11`. */
function countList(list: string): number {
  return list
    .trim()
    .split(",")
    .reduce((count, range) => {
      const [first = 0, last = first] = range.split("-").map(Number);
      return count + last - first + 1;
    }, 0);
}
