/**
 * The language between TypeScript, which decides, and the C shim, which obeys: a plan is a list of these operations, in
 * order. Nothing here is text to be parsed; `plan.ts` encodes it as length-prefixed binary. A snapshot test reads plans
 * without root.
 *
 * Two processes carry a plan out. The *supervisor* runs the `host` list in the host's namespaces before it clones the
 * container's first process; that process then runs the `container` list inside its new namespaces and ends in `exec`.
 */
import type { Branded } from "../../common/base/id.ts";

/** A path on the host, made only from the agent's own directories and ids. */
export type HostPath = Branded<"host path">;

/** A path inside the container's root; the shim resolves it with openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS). */
export type ContainerPath = Branded<"container path">;

/** Which network namespace's socket a netlink message is sent on. */
export type NetlinkSide = "host" | "container";

/**
 * One netlink request, complete with its nlmsghdr (NLM_F_ACK set); the shim sends the bytes as they are and fails with
 * the errno of the acknowledgement. `IFLA_NET_NS_FD` attributes may name `HOST_NETNS_FD`, which the shim holds open
 * in the container's first process while it runs its list.
 */
export interface NetlinkOp {
  readonly op: "netlink";
  readonly side: NetlinkSide;
  readonly message: Uint8Array;
  /** What to call this step in an error: `create veth eth0`. */
  readonly label: string;
}

/** The descriptor number at which the shim keeps the host's network namespace open for NetlinkOps. */
export const HOST_NETNS_FD = 250;

/** Makes a directory on the host (a cgroup, say). One that exists is fine; one that this op made is removed on failure. */
export interface MakeDirectoryOp {
  readonly op: "make-directory";
  readonly path: HostPath;
  /** Permission bits; default 0o755, with umask 0. */
  readonly mode?: number;
}

/** Writes a host file that exists (a cgroup's knob) with one write(2). */
export interface WriteFileOp {
  readonly op: "write-file";
  readonly path: HostPath;
  readonly data: string;
  /** Whether a kernel without this file (ENOENT) is fine. Default false. */
  readonly optional?: boolean;
}

/** Loads a BPF_PROG_TYPE_CGROUP_DEVICE program and attaches it to a cgroup v2 directory. */
export interface AttachDeviceProgramOp {
  readonly op: "attach-device-program";
  readonly cgroup: HostPath;
  /** An array of struct bpf_insn. */
  readonly program: Uint8Array;
}

/** What the supervisor does in the host's namespaces, before the container's first process exists. */
export type HostOp = MakeDirectoryOp | WriteFileOp | AttachDeviceProgramOp | NetlinkOp;

/** Mount attributes of mount_setattr(2) and fsmount(2), by mount(8)'s names. */
export const MOUNT_ATTRIBUTES = {
  ro: 0x1,
  nosuid: 0x2,
  nodev: 0x4,
  noexec: 0x8,
  noatime: 0x10,
  strictatime: 0x20,
  nodiratime: 0x80,
  nosymfollow: 0x200000,
} as const;
export type MountAttribute = keyof typeof MOUNT_ATTRIBUTES;

/** Propagation types of mount(2): "private" cuts the container off, "slave" still receives the host's mounts. */
export const PROPAGATIONS = { private: 1 << 18, slave: 1 << 19, shared: 1 << 20, unbindable: 1 << 17 } as const;
export type Propagation = keyof typeof PROPAGATIONS;

/** Namespaces by their CLONE_NEW* flag (clone(2)). */
export const NAMESPACES = {
  mount: 0x00020000,
  cgroup: 0x02000000,
  uts: 0x04000000,
  ipc: 0x08000000,
  user: 0x10000000,
  pid: 0x20000000,
  network: 0x40000000,
  time: 0x00000080,
} as const;
export type Namespace = keyof typeof NAMESPACES;

/** Enters new namespaces late: the cgroup one must follow the joining of the cgroup, so that its root is that cgroup. */
export interface UnshareOp {
  readonly op: "unshare";
  readonly namespaces: readonly Namespace[];
}

/** Joins an existing namespace by the path of its file (a shared network namespace, say). */
export interface JoinNamespaceOp {
  readonly op: "join-namespace";
  readonly namespace: Namespace;
  readonly path: HostPath;
}

/** In an exec plan: joins all namespaces of the container's first process. */
export interface JoinContainerOp {
  readonly op: "join-container";
}

/** Changes the propagation of the whole mount tree that the namespace began with. */
export interface SetPropagationOp {
  readonly op: "set-propagation";
  readonly propagation: Propagation;
}

/**
 * Mounts the container's root: an overlay of `lowers` (uppermost first) with an optional writable `upper` and its `work`
 * directory, at `target`. The shim names the layers by descriptor (`/proc/self/fd/N`), so 128 layers fit a page and no
 * host path shows in the container's mount table.
 */
export interface MountOverlayOp {
  readonly op: "mount-overlay";
  readonly lowers: readonly HostPath[];
  readonly writable?: { readonly upper: HostPath; readonly work: HostPath };
  readonly target: HostPath;
  /** Further overlay options, such as `volatile` (no syncing: a task's layer does not outlive the task). */
  readonly options: readonly string[];
}

/** Makes an existing directory the container's root, as a bind mount of itself at `target`. */
export interface BindRootOp {
  readonly op: "bind-root";
  readonly source: HostPath;
  readonly target: HostPath;
}

/** Mounts a new file system instance at a path in the root; missing directories are made. */
export interface MountFilesystemOp {
  readonly op: "mount-filesystem";
  /** `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, `cgroup`, `cgroup2`, … */
  readonly type: string;
  readonly source: string;
  readonly target: ContainerPath;
  /** File-system options, each `key` or `key=value`. */
  readonly options: readonly string[];
  readonly attributes: readonly MountAttribute[];
}

/** Binds a host path into the root, by descriptor; a missing target is made as a file or a directory, as the source is. */
export interface BindMountOp {
  readonly op: "bind-mount";
  readonly source: HostPath;
  readonly target: ContainerPath;
  readonly recursive: boolean;
  readonly attributes: readonly MountAttribute[];
  /** Default `private`. */
  readonly propagation?: Propagation;
}

/** Makes a device node in the root. */
export interface MakeDeviceOp {
  readonly op: "make-device";
  readonly path: ContainerPath;
  readonly type: "character" | "block" | "fifo";
  readonly major: number;
  readonly minor: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Makes a symbolic link in the root, and its missing parent directories. */
export interface MakeSymlinkOp {
  readonly op: "make-symlink";
  readonly path: ContainerPath;
  readonly target: string;
  /** Whether a file or link of that name gives way; else one that exists is left as it is. Default false. */
  readonly replace?: boolean;
}

/** Hides paths: a file under the container's own /dev/null, a directory under one empty read-only tmpfs. Missing = skip. */
export interface MaskPathsOp {
  readonly op: "mask-paths";
  readonly paths: readonly ContainerPath[];
}

/** Makes paths (and what is mounted below) read-only. Missing = skip. */
export interface ReadonlyPathsOp {
  readonly op: "readonly-paths";
  readonly paths: readonly ContainerPath[];
}

/** Makes the root mount read-only. */
export interface ReadonlyRootOp {
  readonly op: "readonly-root";
}

/** pivot_root(".", ".") into the root and detaches the host's tree. */
export interface PivotRootOp {
  readonly op: "pivot-root";
}

/** Writes /proc/sys/… through a procfs of the container that no path leads to. */
export interface SetSysctlOp {
  readonly op: "set-sysctl";
  /** With dots: `net.ipv4.ip_unprivileged_port_start`. */
  readonly name: string;
  readonly value: string;
}

export interface SetHostnameOp {
  readonly op: "set-hostname";
  readonly hostname: string;
}

export interface SetDomainnameOp {
  readonly op: "set-domainname";
  readonly domainname: string;
}

/** A resource limit by its number in <asm-generic/resource.h>. */
export interface SetRlimitOp {
  readonly op: "set-rlimit";
  readonly resource: number;
  readonly soft: bigint;
  readonly hard: bigint;
}

export interface SetOomScoreOp {
  readonly op: "set-oom-score";
  /** -1000 (never) to 1000 (first). */
  readonly adjust: number;
}

/** Changes to a directory of the root, made when missing; refuses one that lies outside (getcwd says "(unreachable)"). */
export interface SetWorkingDirectoryOp {
  readonly op: "set-working-directory";
  readonly path: ContainerPath;
}

/** Gives the container a session keyring of its own. */
export interface NewKeyringOp {
  readonly op: "new-keyring";
}

/** Five sets as bit masks (bit n = capability n of <linux/capability.h>). */
export interface CapabilityMasks {
  readonly bounding: bigint;
  readonly effective: bigint;
  readonly permitted: bigint;
  readonly inheritable: bigint;
  readonly ambient: bigint;
}

/** Becomes the user: bounding set, groups, gid, uid, then the other capability sets; stdio is handed to the user. */
export interface SetCredentialsOp {
  readonly op: "set-credentials";
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  readonly umask: number;
  readonly capabilities: CapabilityMasks;
}

export interface NoNewPrivilegesOp {
  readonly op: "no-new-privileges";
}

/** Loads a seccomp filter. Without no-new-privileges it must stand before set-credentials, else right before exec. */
export interface LoadSeccompOp {
  readonly op: "load-seccomp";
  /** An array of struct sock_filter. */
  readonly filter: Uint8Array;
  /** SECCOMP_FILTER_FLAG_* bits; default 0. */
  readonly flags?: number;
}

/** Ends CREATE: reports ready and waits for START. */
export interface AwaitStartOp {
  readonly op: "await-start";
}

/** The last operation: the program, looked up in PATH of `env` when it holds no slash. */
export interface ExecOp {
  readonly op: "exec";
  readonly args: readonly string[];
  readonly env: readonly string[];
  /** Whether the shim stays as PID 1, reaps orphans and forwards signals to the program. Default false. */
  readonly init?: boolean;
}

/** A terminal's window, in characters; 0 = unknown. */
export interface WindowSize {
  readonly rows: number;
  readonly columns: number;
}

/**
 * Makes a terminal of the container's own devpts standard input, output and error, and the controlling terminal; its other
 * end goes to whoever cloned the process. Refuses (EXDEV) what is not a devpts.
 */
export interface OpenTerminalOp extends WindowSize {
  readonly op: "open-terminal";
  /** Whether it is bound at /dev/console too, as the terminal of a container's own process is (as runc does). */
  readonly console: boolean;
}

/** Writes what is at a path to standard output, as records (agent/copy/records.ts), in place of running a program. */
export interface CopyOutOp {
  readonly op: "copy-out";
  readonly path: ContainerPath;
  /** What it is called in the records: their paths are this, or begin with it and a slash. */
  readonly name: string;
  /** Whether a symbolic link at the very path is followed. */
  readonly follow: boolean;
}

/** Carries out file operations (agent/image/unpack-op.ts) from standard input, in place of running a program. */
export interface CopyInOp {
  readonly op: "copy-in";
}

/** What the container's first process (or an exec'd one) does inside. */
export type ContainerOp =
  | UnshareOp
  | JoinNamespaceOp
  | JoinContainerOp
  | SetPropagationOp
  | MountOverlayOp
  | BindRootOp
  | MountFilesystemOp
  | BindMountOp
  | MakeDeviceOp
  | MakeSymlinkOp
  | MaskPathsOp
  | ReadonlyPathsOp
  | ReadonlyRootOp
  | PivotRootOp
  | NetlinkOp
  | SetSysctlOp
  | SetHostnameOp
  | SetDomainnameOp
  | SetRlimitOp
  | SetOomScoreOp
  | SetWorkingDirectoryOp
  | NewKeyringOp
  | SetCredentialsOp
  | NoNewPrivilegesOp
  | LoadSeccompOp
  | AwaitStartOp
  | ExecOp
  | OpenTerminalOp
  | CopyOutOp
  | CopyInOp;

export type Op = HostOp | ContainerOp;

/** How the container's processes get into their cgroup, and how all of them are signalled. Paths are files or cgroups. */
export type CgroupMembership =
  | {
      readonly version: 1;
      /** One cgroup directory per hierarchy; each must exist once the host ops ran. */
      readonly directories: readonly HostPath[];
      /** The freezer's cgroup directory, used to kill without a race; must be one of `directories`. */
      readonly freezer?: HostPath;
      /** The memory cgroup directory, read for OOM kills; must be one of `directories`. */
      readonly memory?: HostPath;
    }
  | {
      readonly version: 2;
      /** The cgroup directory: entered with CLONE_INTO_CGROUP, killed with cgroup.kill. */
      readonly directory: HostPath;
    };
