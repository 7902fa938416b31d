/** What is looked at before anything is said of a host. Only facts: what they mean is judged elsewhere. */

/** The parts of the kernel that are tried, not asked for. */
export const TRIALS = ["overlay", "veth", "bridge", "nat", "vxlan", "wireguard"] as const;
export type Trial = (typeof TRIALS)[number];

/** How trying ended. */
export type TrialResult =
  | { readonly type: "works" }
  | { readonly type: "fails"; readonly reason: string }
  /** The program that would try it is not installed. */
  | { readonly type: "untried"; readonly program: string };

/** All trials, or why there were none. */
export type TrialFacts =
  | { readonly type: "tried"; readonly results: Readonly<Record<Trial, TrialResult>> }
  | { readonly type: "no namespaces"; readonly reason: string }
  | { readonly type: "not root" };

/** A mount as proc_pid_mountinfo(5) tells it. */
export interface MountFacts {
  readonly path: string;
  readonly type: string;
  /** Of the super block: a v1 cgroup mount names its controllers here. */
  readonly options: readonly string[];
}

/** Who listens on a port. */
export interface HolderFacts {
  readonly pid: number;
  readonly commandLine: string;
  /** Its parent's: the managers' etcd is a manager's child. */
  readonly parentCommandLine: string;
}

/** A TCP port of this host. */
export type PortFacts =
  | { readonly port: number; readonly type: "free" }
  | { readonly port: number; readonly type: "taken"; readonly holder: HolderFacts | undefined };

/** Where state will lie. */
export interface DiskFacts {
  /** The directory itself, or the nearest one above it that exists. */
  readonly path: string;
  readonly fileSystem: string;
  readonly freeBytes: number;
  /** 0 of 0: a file system that makes inodes as it needs them. */
  readonly freeInodes: number;
  readonly inodes: number;
}

/** What one host is. */
export interface HostFacts {
  readonly root: boolean;
  /** `uname -r`. */
  readonly kernel: string;
  /** Node's name: "x64". */
  readonly architecture: string;
  readonly mounts: readonly MountFacts[];
  /** What `cgroup.controllers` of the v2 tree lists; undefined where there is no v2 tree. */
  readonly unifiedControllers: readonly string[] | undefined;
  /** Kinds of namespaces, as the names in /proc/self/ns. */
  readonly namespaces: readonly string[];
  /** Of /proc/sys/kernel/seccomp/actions_avail; empty without seccomp filters. */
  readonly seccompActions: readonly string[];
  readonly trials: TrialFacts;
  /** Names of the programs that run (their `comm`). */
  readonly processes: ReadonlySet<string>;
  /** Programs of those that are needed, by name. */
  readonly programs: ReadonlySet<string>;
  readonly ports: readonly PortFacts[];
  readonly disk: DiskFacts;
  readonly memoryBytes: number;
  /** RLIMIT_NOFILE's hard limit; root may go up to fs.nr_open. */
  readonly openFilesMax: number;
  readonly processesMax: number;
  /** Wall time. */
  readonly nowMs: number;
  /** Whether systemd-timesyncd has had an answer since boot. */
  readonly timesyncSynchronized: boolean;
}
