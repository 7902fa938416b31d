/**
 * From an OCI spec to the plan that the shim carries out. Pure: what must be asked of the host comes in as values, and
 * every bad field of the spec is named at once (`invalid_argument`).
 */
import { type FieldProblem, invalidFields } from "../../common/base/error.ts";
import { capabilityMask, capabilityNamed } from "./capabilities.ts";
import { containerPath, planMounts, type RootLink } from "./mount-plan.ts";
import type { OciNamespace, OciProcess, OciSpec } from "./oci.ts";
import type {
  CgroupMembership,
  ContainerOp,
  CopyInOp,
  CopyOutOp,
  HostOp,
  HostPath,
  MountOverlayOp,
  Namespace,
  NetlinkOp,
  Propagation,
  SetSysctlOp,
  WindowSize,
} from "./op.ts";
import type { LogTarget, Plan } from "./plan.ts";

/** Where the container's root comes from. */
export type RootSource =
  | {
      readonly kind: "overlay";
      /** Unpacked layers, uppermost first. */
      readonly lowers: readonly HostPath[];
      /**
       * Directories of one file system, for this container alone. `upper`'s mode and owner become those of `/` (0755,
       * root). When an attempt failed, the next one needs a fresh `work`: a volatile overlay refuses a used one.
       */
      readonly writable?: NonNullable<MountOverlayOp["writable"]>;
      /**
       * Whether fsync of the root's own files may lie. Default true: the writable layer dies with its task, so nothing
       * that a host crash could lose is ever read again; volumes are other mounts.
       */
      readonly volatile?: boolean;
    }
  | { readonly kind: "directory"; readonly path: HostPath };

/** A compiled seccomp filter. */
export interface CompiledSeccomp {
  readonly filter: Uint8Array;
  /** SECCOMP_FILTER_FLAG_* bits; default 0. */
  readonly flags?: number;
}

/** All that a container's plan is made from. */
export interface PlanInput {
  readonly spec: OciSpec;
  /** An existing directory (0700): control socket, exit record. On tmpfs (/run) it is fastest. */
  readonly stateDirectory: HostPath;
  /** An existing empty directory on which the root is mounted, in the container's mount namespace only. */
  readonly rootDirectory: HostPath;
  readonly root: RootSource;
  readonly log: LogTarget;
  /** What agent/cgroup computed; without it the container stays in the agent's cgroup. */
  readonly cgroup?: { readonly hostOps: readonly HostOp[]; readonly membership: CgroupMembership };
  /** Controllers shown in the container for a mount of type `cgroup` on cgroup v1, as mounted on the host (`cpu,cpuacct`). */
  readonly cgroupControllers?: readonly string[];
  /** Whether it may write to its own cgroup, which is a way to the host. Default false. */
  readonly cgroupWritable?: boolean;
  readonly seccomp?: CompiledSeccomp;
  /** What joins the new network namespace to the host (agent/network). */
  readonly network?: readonly (NetlinkOp | SetSysctlOp)[];
  /** Links in the root beyond what the OCI spec can say: to a container's secrets and configs. */
  readonly links?: readonly RootLink[];
  /** Whether standard input never ends; on a terminal it never does. Default false: it is the container's /dev/null. */
  readonly openStdin?: boolean;
  /** Whether a small init is PID 1, reaps orphans and forwards signals. Default false. */
  readonly init?: boolean;
}

/** Numbers of <asm-generic/resource.h>. */
const RLIMITS: Readonly<Record<string, number>> = {
  RLIMIT_CPU: 0,
  RLIMIT_FSIZE: 1,
  RLIMIT_DATA: 2,
  RLIMIT_STACK: 3,
  RLIMIT_CORE: 4,
  RLIMIT_RSS: 5,
  RLIMIT_NPROC: 6,
  RLIMIT_NOFILE: 7,
  RLIMIT_MEMLOCK: 8,
  RLIMIT_AS: 9,
  RLIMIT_LOCKS: 10,
  RLIMIT_SIGPENDING: 11,
  RLIMIT_MSGQUEUE: 12,
  RLIMIT_NICE: 13,
  RLIMIT_RTPRIO: 14,
  RLIMIT_RTTIME: 15,
};

/** RLIM_INFINITY, which JavaScript's numbers cannot hold exactly, counts as everything from 2^63 on. */
const RLIM_INFINITY = 2n ** 64n - 1n;

/** The plan of a container. */
export function planContainer(input: PlanInput): Plan {
  const problems: FieldProblem[] = [];
  const { spec } = input;
  const namespaces = planNamespaces(spec.linux.namespaces ?? [], problems);
  const noNewPrivileges = spec.process.noNewPrivileges ?? false;
  const seccomp = seccompOps(input.seccomp);
  const credentials = [credentialsOp(spec.process, problems)];
  const container: ContainerOp[] = [
    { op: "new-keyring" },
    ...namespaces.inside,
    oomScoreOp(spec.process),
    ...(input.network ?? []),
    ...sysctlOps(spec, namespaces.all, problems),
    ...nameOps(spec, namespaces.all, problems),
    { op: "set-propagation", propagation: propagationOf(spec.linux.rootfsPropagation, problems) },
    rootOp(input),
    ...planMounts(
      spec,
      {
        cgroup: {
          cgroupVersion: input.cgroup?.membership.version,
          controllers: input.cgroupControllers ?? [],
          writable: input.cgroupWritable ?? false,
        },
        links: input.links ?? [],
      },
      problems,
    ),
    { op: "pivot-root" },
    ...terminalOps(spec.process),
    ...rlimitOps(spec.process, problems),
    { op: "set-working-directory", path: containerPath(spec.process.cwd, "process.cwd", problems) },
    // The filter goes on last. Without no-new-privileges loading it needs a capability that the credentials take away.
    ...(noNewPrivileges
      ? ([...credentials, { op: "no-new-privileges" }, { op: "await-start" }, ...seccomp] as const)
      : ([{ op: "await-start" }, ...seccomp, ...credentials] as const)),
    { op: "exec", args: programOf(spec.process, problems), env: spec.process.env ?? [], init: input.init ?? false },
  ];
  if (problems.length > 0) throw invalidFields(problems);
  return {
    stateDirectory: input.stateDirectory,
    log: input.log,
    namespaces: namespaces.cloned,
    ...(input.cgroup && { cgroup: input.cgroup.membership }),
    openStdin: (input.openStdin ?? false) || (spec.process.terminal ?? false),
    host: input.cgroup?.hostOps ?? [],
    container,
  };
}

/**
 * The operations of a command run inside a container, for `Supervisor.exec` and, with a terminal, `SessionProcess` alone.
 * Whether the container's own process is on a terminal makes no difference to it.
 */
export function planExec(
  process: OciProcess,
  seccomp?: CompiledSeccomp,
  terminal?: WindowSize,
): readonly ContainerOp[] {
  const problems: FieldProblem[] = [];
  const credentials = [credentialsOp(process, problems)];
  const filter = seccompOps(seccomp);
  const ops: ContainerOp[] = [
    { op: "new-keyring" },
    oomScoreOp(process),
    { op: "join-container" },
    ...(terminal ? [{ op: "open-terminal" as const, ...terminal, console: false }] : []),
    ...rlimitOps(process, problems),
    { op: "set-working-directory", path: containerPath(process.cwd, "process.cwd", problems) },
    ...(process.noNewPrivileges
      ? ([...credentials, { op: "no-new-privileges" }, ...filter] as const)
      : ([...filter, ...credentials] as const)),
    { op: "exec", args: programOf(process, problems), env: process.env ?? [] },
  ];
  if (problems.length > 0) throw invalidFields(problems);
  return ops;
}

/** What reading and writing anybody's files takes, and nothing that leads out of a container. */
const COPY_CAPABILITIES = capabilityMask(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID"]);

/**
 * The operations of copying out of a container or into it, for `SessionProcess`: within the container's limits, and with
 * rights that do not depend on its user.
 */
export function planCopy(process: OciProcess, copy: CopyOutOp | CopyInOp): readonly ContainerOp[] {
  const rlimits = process.rlimits?.filter(({ type }) => type === "RLIMIT_FSIZE") ?? [];
  const [held, none] = [COPY_CAPABILITIES, 0n];
  return [
    { op: "new-keyring" },
    oomScoreOp(process),
    { op: "join-container" },
    ...rlimitOps({ ...process, rlimits }, []),
    {
      op: "set-credentials",
      ...{ uid: 0, gid: 0, groups: [], umask: 0 },
      capabilities: { bounding: held, effective: held, permitted: held, inheritable: none, ambient: none },
    },
    { op: "no-new-privileges" },
    copy,
  ];
}

interface PlannedNamespaces {
  readonly all: ReadonlySet<Namespace>;
  readonly cloned: readonly Namespace[];
  readonly inside: readonly ContainerOp[];
}

/** The cgroup namespace is entered late, once the process is in its cgroup; one with a path is joined. */
function planNamespaces(namespaces: readonly OciNamespace[], problems: FieldProblem[]): PlannedNamespaces {
  const cloned: Namespace[] = [];
  const inside: ContainerOp[] = [];
  for (const [index, { type, path }] of namespaces.entries()) {
    const field = `linux.namespaces[${index}]`;
    if (type === "user" || type === "time") problems.push({ field, problem: `${type} namespaces are not supported` });
    else if (path === undefined && type === "cgroup") inside.unshift({ op: "unshare", namespaces: ["cgroup"] });
    else if (path === undefined) cloned.push(type);
    else if (type === "pid" || type === "mount") problems.push({ field, problem: `cannot join a ${type} namespace` });
    else inside.push({ op: "join-namespace", namespace: type, path: path as HostPath });
  }
  if (!cloned.includes("mount")) problems.push({ field: "linux.namespaces", problem: "a mount namespace is needed" });
  return { all: new Set(namespaces.map(({ type }) => type)), cloned, inside };
}

function rootOp(input: PlanInput): ContainerOp {
  const { root, rootDirectory: target } = input;
  if (root.kind === "directory") return { op: "bind-root", source: root.path, target };
  const options = root.volatile === false || !root.writable ? [] : ["volatile"];
  return {
    op: "mount-overlay",
    lowers: root.lowers,
    ...(root.writable && { writable: root.writable }),
    target,
    options,
  };
}

function propagationOf(text: string | undefined, problems: FieldProblem[]): Propagation {
  const name = text?.replace(/^r(?=private|slave|shared|unbindable)/, "") || "slave";
  if (name === "private" || name === "slave" || name === "shared" || name === "unbindable") return name;
  problems.push({ field: "linux.rootfsPropagation", problem: `unknown propagation ${JSON.stringify(text)}` });
  return "slave";
}

/** Always set: the agent's own score, which protects it, must not be inherited. */
function oomScoreOp(process: OciProcess): ContainerOp {
  return { op: "set-oom-score", adjust: process.oomScoreAdj ?? 0 };
}

/** Only what the kernel keeps per namespace may be set: anything else would change the host. */
function sysctlOps(
  spec: OciSpec,
  namespaces: ReadonlySet<Namespace>,
  problems: FieldProblem[],
): readonly ContainerOp[] {
  return Object.entries(spec.linux.sysctl ?? {}).map(([name, value]) => {
    const network = name.startsWith("net.") && namespaces.has("network");
    const ipc = /^(kernel\.(shm|msg|sem)[a-z_]*|fs\.mqueue\.[a-z_]+)$/.test(name) && namespaces.has("ipc");
    const wellFormed = /^[a-zA-Z0-9_.-]+$/.test(name) && !name.includes("..");
    if (!wellFormed || !(network || ipc)) {
      problems.push({ field: `linux.sysctl[${name}]`, problem: "not in a namespace of the container" });
    }
    return { op: "set-sysctl", name, value };
  });
}

function nameOps(spec: OciSpec, namespaces: ReadonlySet<Namespace>, problems: FieldProblem[]): readonly ContainerOp[] {
  const ops: ContainerOp[] = [];
  if (spec.hostname) ops.push({ op: "set-hostname", hostname: spec.hostname });
  if (spec.domainname) ops.push({ op: "set-domainname", domainname: spec.domainname });
  if (ops.length > 0 && !namespaces.has("uts")) problems.push({ field: "hostname", problem: "needs a uts namespace" });
  return ops;
}

/** In the new root, where the devpts is mounted and no path leads to the host's. */
function terminalOps({ terminal, consoleSize }: OciProcess): readonly ContainerOp[] {
  const { height: rows, width: columns } = consoleSize ?? { height: 0, width: 0 };
  return terminal ? [{ op: "open-terminal", rows, columns, console: true }] : [];
}

function rlimitOps(process: OciProcess, problems: FieldProblem[]): readonly ContainerOp[] {
  const limit = (value: number) => (value < 0 || value >= 2 ** 63 ? RLIM_INFINITY : BigInt(Math.trunc(value)));
  return (process.rlimits ?? []).flatMap(({ type, soft, hard }, index) => {
    const resource = RLIMITS[type];
    if (resource !== undefined) return [{ op: "set-rlimit" as const, resource, soft: limit(soft), hard: limit(hard) }];
    problems.push({ field: `process.rlimits[${index}]`, problem: `unknown limit ${JSON.stringify(type)}` });
    return [];
  });
}

function credentialsOp(process: OciProcess, problems: FieldProblem[]): ContainerOp {
  const mask = (set: "bounding" | "effective" | "permitted" | "inheritable" | "ambient") =>
    capabilityMask(
      (process.capabilities?.[set] ?? []).flatMap((name) => {
        const known = capabilityNamed(name);
        if (known) return [known];
        problems.push({ field: `process.capabilities.${set}`, problem: `unknown capability ${JSON.stringify(name)}` });
        return [];
      }),
    );
  const { user } = process;
  if (process.apparmorProfile)
    problems.push({ field: "process.apparmorProfile", problem: "AppArmor is not supported" });
  for (const id of [user.uid, user.gid, ...(user.additionalGids ?? [])]) {
    if (!Number.isInteger(id) || id < 0 || id > 0x7fffffff) {
      problems.push({ field: "process.user", problem: `${id} is not an id from 0 to 2147483647` });
    }
  }
  return {
    op: "set-credentials",
    uid: user.uid,
    gid: user.gid,
    groups: user.additionalGids ?? [],
    umask: user.umask ?? 0o022,
    capabilities: {
      bounding: mask("bounding"),
      effective: mask("effective"),
      permitted: mask("permitted"),
      inheritable: mask("inheritable"),
      ambient: mask("ambient"),
    },
  };
}

function programOf(process: OciProcess, problems: FieldProblem[]): readonly string[] {
  if (!process.args[0]) problems.push({ field: "process.args", problem: "no program" });
  for (const text of [...process.args, ...(process.env ?? [])]) {
    if (text.includes("\0"))
      problems.push({ field: "process.args", problem: "an argument or variable holds a NUL byte" });
  }
  return process.args;
}

function seccompOps(seccomp: CompiledSeccomp | undefined): readonly ContainerOp[] {
  return seccomp ? [{ op: "load-seccomp", filter: seccomp.filter, flags: seccomp.flags ?? 0 }] : [];
}
