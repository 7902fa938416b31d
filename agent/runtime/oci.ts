/**
 * The part of the OCI runtime specification (config.json, v1.2) that this runtime understands, in its own vocabulary:
 * https://github.com/opencontainers/runtime-spec/blob/main/config.md. Field names are the specification's.
 */

export interface OciUser {
  readonly uid: number;
  readonly gid: number;
  /** Octal bits as a number; default 0o022. */
  readonly umask?: number;
  readonly additionalGids?: readonly number[];
}

/** Capability names (`CAP_CHOWN`) by set. */
export interface OciCapabilities {
  readonly bounding?: readonly string[];
  readonly effective?: readonly string[];
  readonly permitted?: readonly string[];
  readonly inheritable?: readonly string[];
  readonly ambient?: readonly string[];
}

export interface OciRlimit {
  /** `RLIMIT_NOFILE` */
  readonly type: string;
  readonly soft: number;
  readonly hard: number;
}

export interface OciProcess {
  /** Whether it runs on a terminal of its own. Default false. */
  readonly terminal?: boolean;
  /** In characters; meaningless without `terminal`. */
  readonly consoleSize?: { readonly height: number; readonly width: number };
  readonly user: OciUser;
  readonly args: readonly string[];
  readonly env?: readonly string[];
  readonly cwd: string;
  readonly capabilities?: OciCapabilities;
  readonly rlimits?: readonly OciRlimit[];
  readonly noNewPrivileges?: boolean;
  readonly apparmorProfile?: string;
  readonly oomScoreAdj?: number;
}

export interface OciMount {
  readonly destination: string;
  /** `proc`, `tmpfs`, …, or `bind`. */
  readonly type?: string;
  readonly source?: string;
  /** As mount(8): `nosuid`, `ro`, `bind`, `rbind`, `rprivate`, `mode=755`, … */
  readonly options?: readonly string[];
}

export type OciNamespaceType = "pid" | "network" | "mount" | "ipc" | "uts" | "user" | "cgroup" | "time";

export interface OciNamespace {
  readonly type: OciNamespaceType;
  /** An existing namespace to join instead of a new one. */
  readonly path?: string;
}

export interface OciDevice {
  readonly type: "c" | "u" | "b" | "p";
  readonly path: string;
  readonly major?: number;
  readonly minor?: number;
  readonly fileMode?: number;
  readonly uid?: number;
  readonly gid?: number;
}

export interface OciDeviceCgroup {
  readonly allow: boolean;
  /** a = all. */
  readonly type?: "a" | "c" | "b";
  /** Absent = any. */
  readonly major?: number;
  readonly minor?: number;
  /** Some of `rwm`. */
  readonly access?: string;
}

export interface OciResources {
  readonly devices?: readonly OciDeviceCgroup[];
  readonly memory?: {
    /** Bytes; -1 = unlimited. */
    readonly limit?: number;
    readonly reservation?: number;
    /** Memory plus swap, bytes. */
    readonly swap?: number;
    readonly swappiness?: number;
    readonly disableOOMKiller?: boolean;
  };
  readonly cpu?: {
    readonly shares?: number;
    /** Microseconds per period. */
    readonly quota?: number;
    readonly period?: number;
    readonly cpus?: string;
    readonly mems?: string;
  };
  readonly pids?: { readonly limit: number };
  /** cgroup v2 files and values, written as they are. */
  readonly unified?: Readonly<Record<string, string>>;
}

export interface OciSeccompArgument {
  readonly index: number;
  readonly value: number;
  readonly valueTwo?: number;
  readonly op:
    | "SCMP_CMP_NE"
    | "SCMP_CMP_LT"
    | "SCMP_CMP_LE"
    | "SCMP_CMP_EQ"
    | "SCMP_CMP_GE"
    | "SCMP_CMP_GT"
    | "SCMP_CMP_MASKED_EQ";
}

export interface OciSeccompSyscall {
  readonly names: readonly string[];
  /** `SCMP_ACT_ALLOW`, `SCMP_ACT_ERRNO`, … */
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly OciSeccompArgument[];
}

export interface OciSeccomp {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number;
  readonly architectures?: readonly string[];
  readonly flags?: readonly string[];
  readonly syscalls?: readonly OciSeccompSyscall[];
}

export interface OciIdMapping {
  readonly containerID: number;
  readonly hostID: number;
  readonly size: number;
}

export interface OciLinux {
  readonly namespaces?: readonly OciNamespace[];
  readonly uidMappings?: readonly OciIdMapping[];
  readonly gidMappings?: readonly OciIdMapping[];
  readonly devices?: readonly OciDevice[];
  readonly cgroupsPath?: string;
  readonly resources?: OciResources;
  /** `private`, `slave`, `shared`, `unbindable`, each perhaps with `r` before it. */
  readonly rootfsPropagation?: string;
  readonly seccomp?: OciSeccomp;
  readonly sysctl?: Readonly<Record<string, string>>;
  readonly maskedPaths?: readonly string[];
  readonly readonlyPaths?: readonly string[];
}

/** A container, as config.json says it. */
export interface OciSpec {
  readonly ociVersion: string;
  readonly process: OciProcess;
  readonly root: { readonly path: string; readonly readonly?: boolean };
  readonly hostname?: string;
  readonly domainname?: string;
  readonly mounts?: readonly OciMount[];
  readonly linux: OciLinux;
  readonly annotations?: Readonly<Record<string, string>>;
}
