/** What is mounted in a container: the system's own file systems, the agent's files, and what the service asks for. */
import type { FieldProblem } from "../../common/base/error.ts";
import type { OciMount } from "./oci.ts";
import type { HostPath } from "./op.ts";

/** One mount of a service; a volume is a bind mount of the directory that holds it. */
export type ContainerMount =
  | {
      readonly kind: "bind" | "volume";
      readonly source: HostPath;
      readonly target: string;
      readonly readOnly?: boolean;
      /** `private`, `slave`, `shared`, each perhaps with `r` before it. Default `rprivate`. */
      readonly propagation?: string;
      /** Whether mounts below the source come along. Default true. */
      readonly recursive?: boolean;
    }
  | {
      readonly kind: "tmpfs";
      readonly target: string;
      readonly readOnly?: boolean;
      /** Default: half of the host's memory, as the kernel has it. */
      readonly sizeBytes?: number;
      /** Permission bits. Default 0o1777. */
      readonly mode?: number;
    };

/** Files that the agent writes for a container and binds over the image's. */
export interface ContainerFiles {
  readonly hosts?: HostPath;
  readonly resolvConf?: HostPath;
  readonly hostname?: HostPath;
}

/** How the system's own file systems differ for one container. */
export interface SystemMounts {
  /** Size of /dev/shm. 0 = 64 MiB. */
  readonly shmSizeBytes: number;
  /** Whether it shares the host's ipc namespace, and so its /dev/shm. */
  readonly hostIpc: boolean;
  /** Whether it may write to /sys and to its cgroup. */
  readonly writable: boolean;
}

/** Docker's default mounts (moby daemon/pkg/oci/defaults.go); /dev/shm is 64 MiB as there. */
const SYSTEM_MOUNTS: readonly OciMount[] = [
  { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
  {
    destination: "/dev",
    type: "tmpfs",
    source: "tmpfs",
    options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
  },
  {
    destination: "/dev/pts",
    type: "devpts",
    source: "devpts",
    options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
  },
  { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] },
  // Read-only but for the privileged: a writable v1 hierarchy is a way to the host (release_agent, CVE-2022-0492).
  { destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["nosuid", "noexec", "nodev", "ro"] },
  { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
  {
    destination: "/dev/shm",
    type: "tmpfs",
    source: "shm",
    options: ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
  },
];

const HOST_SHM: OciMount = {
  destination: "/dev/shm",
  type: "bind",
  source: "/dev/shm",
  options: ["bind", "rprivate", "nosuid", "noexec", "nodev"],
};

function systemMounts({ shmSizeBytes, hostIpc, writable }: SystemMounts): readonly OciMount[] {
  const shared = (mount: OciMount): OciMount => {
    if (hostIpc) return HOST_SHM;
    const size = (option: string) => (option.startsWith("size=") && shmSizeBytes > 0 ? `size=${shmSizeBytes}` : option);
    return { ...mount, options: mount.options?.map(size) ?? [] };
  };
  const open = (mount: OciMount): OciMount => ({
    ...mount,
    options: mount.options?.map((option) => (option === "ro" ? "rw" : option)) ?? [],
  });
  return SYSTEM_MOUNTS.map((mount) =>
    mount.destination === "/dev/shm" ? shared(mount) : writable ? open(mount) : mount,
  );
}

/** Hidden from containers: they tell about, or reach, the host. Missing ones are skipped. */
export function maskedPaths(hostCpus: number): readonly string[] {
  const proc = "acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats".split(" ");
  const throttles = Array.from({ length: hostCpus }, (_, cpu) => `/sys/devices/system/cpu/cpu${cpu}/thermal_throttle`);
  return [...proc.map((name) => `/proc/${name}`), "/sys/devices/virtual/powercap", "/sys/firmware", ...throttles];
}

/** Readable, but not writable by root in the container either. */
export const READONLY_PATHS: readonly string[] = "bus fs irq sys sysrq-trigger"
  .split(" ")
  .map((name) => `/proc/${name}`);

/**
 * All mounts, in the order to mount them: a service's mount replaces the default at the same place (a larger /dev/shm,
 * an own /etc/hosts) and shallow ones come before what lies in them.
 */
export function containerMounts(
  parts: { readonly mounts: readonly ContainerMount[]; readonly files: ContainerFiles; readonly system: SystemMounts },
  problems: FieldProblem[],
): readonly OciMount[] {
  const { mounts, files, system } = parts;
  const own = new Map<string, OciMount>();
  for (const [index, mount] of mounts.entries()) {
    const target = normalize(mount.target);
    const problem = targetProblem(target, mount.target) ?? (own.has(target) ? "duplicate mount point" : undefined);
    if (problem === undefined) own.set(target, ociMount(mount, target));
    else problems.push({ field: `mounts[${index}].target`, problem: `${JSON.stringify(mount.target)}: ${problem}` });
  }
  const ours = [...systemMounts(system), ...fileMounts(files)].filter(({ destination }) => !own.has(destination));
  const depth = ({ destination }: OciMount) => destination.split("/").length;
  return [...ours, ...[...own.values()].sort((a, b) => depth(a) - depth(b))];
}

function fileMounts(files: ContainerFiles): readonly OciMount[] {
  const places = { "/etc/hosts": files.hosts, "/etc/resolv.conf": files.resolvConf, "/etc/hostname": files.hostname };
  return Object.entries(places).flatMap(([destination, source]) =>
    source === undefined ? [] : [{ destination, type: "bind", source, options: ["bind", "rprivate"] }],
  );
}

function ociMount(mount: ContainerMount, destination: string): OciMount {
  const access = mount.readOnly === true ? ["ro"] : [];
  if (mount.kind === "tmpfs") {
    const size = mount.sizeBytes ? [`size=${mount.sizeBytes}`] : [];
    const mode = `mode=${(mount.mode ?? 0o1777).toString(8)}`;
    const options = ["nosuid", "noexec", "nodev", mode, ...size, ...access];
    return { destination, type: "tmpfs", source: "tmpfs", options };
  }
  const bind = mount.recursive === false ? "bind" : "rbind";
  const options = [bind, mount.propagation || "rprivate", ...access];
  return { destination, type: "bind", source: mount.source, options };
}

/** One slash between names and none at the end. */
function normalize(target: string): string {
  return target.replace(/\/+/g, "/").replace(/(.)\/$/, "$1");
}

function targetProblem(target: string, written: string): string | undefined {
  if (!target.startsWith("/")) return "must be an absolute path";
  if (target === "/") return "must not be the root";
  if (target.split("/").some((name) => name === "." || name === "..")) return "must not contain . or ..";
  if (written.includes("\0")) return "must not contain NUL";
  // A covered /proc could make the runtime's own writes there land elsewhere (CVE-2019-16884 and its kin).
  return target === "/proc" || target.startsWith("/proc/") ? "must not lie in /proc" : undefined;
}
