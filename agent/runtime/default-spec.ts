/**
 * From what a task asks for to an OCI runtime spec: Docker's meanings, our defaults. Pure: nothing here reads a file or
 * knows how a spec is carried out.
 *
 * Where the defaults differ from Docker's they are stricter: no_new_privs, eleven capabilities instead of fourteen, no
 * core dumps, 2,048 processes, no swap beside limited memory, a cgroup namespace everywhere, no right to make device nodes.
 */
import { type FieldProblem, invalidFields } from "../../common/base/error.ts";
import type { ImageConfig } from "../../common/model/oci-image.ts";
import type { ContainerSpec, ResourceLimits, Resources } from "../../proto/gen/swarm/v1/types_pb.js";
import { CPU_PERIOD_US } from "../cgroup/cpu.ts";
import { commandLine, environment, resourceLimits, type UserLimit } from "./container-process.ts";
import { type ContainerFiles, type ContainerMount, containerMounts } from "./default-mounts.ts";
import type { HostFacts } from "./host-facts.ts";
import type { OciDeviceCgroup, OciResources, OciSpec } from "./oci.ts";
import type { HostPath } from "./op.ts";
import { type ContainerDevice, type PrivilegeWishes, privilegesOf } from "./privileges.ts";
import { type ContainerUser, resolveUser, type UserFiles } from "./user.ts";

/** What a service may say about its container; absent or empty = the image's, or the default. A whole ContainerSpec fits. */
export type ContainerOverrides = Partial<
  Pick<
    ContainerSpec,
    | "command"
    | "args"
    | "env"
    | "dir"
    | "user"
    | "groups"
    | "tty"
    | "readOnly"
    | "sysctls"
    | "oomScoreAdj"
    | "shmSizeBytes"
  >
> &
  PrivilegeWishes & { readonly ulimits?: readonly UserLimit[] };

/** Everything a container's spec is made of. */
export interface ContainerInput {
  /** Where its root will be mounted. */
  readonly rootPath: HostPath;
  readonly hostname: string;
  readonly image: Pick<ImageConfig, "env" | "entrypoint" | "command" | "workingDirectory" | "user">;
  readonly overrides: ContainerOverrides;
  /** The image's /etc/passwd and /etc/group; empty text where it has none. */
  readonly userFiles: UserFiles;
  readonly mounts: readonly ContainerMount[];
  /** Those of the host that it gets, all of them where it is privileged. Default none. */
  readonly devices?: readonly ContainerDevice[];
  readonly files: ContainerFiles;
  /** 0 = no limit, but for `pids`, where it is the default. */
  readonly limits?: Partial<ResourceLimits>;
  /** Memory the kernel tries to leave to it when the host runs short. */
  readonly reservations?: Partial<Pick<Resources, "memoryBytes">>;
  /** `host` shares the host's network namespace; the others get their own. */
  readonly network: "none" | "routed" | "host";
  readonly host: Pick<HostFacts, "architecture" | "cpus" | "openFilesMax" | "kernel" | "apparmor" | "capabilityMask">;
}

/** Enough for any service and too few to take a host down with; `--limit-pids` changes it. */
export const PIDS_LIMIT_DEFAULT = 2048;

/** Nobody sits at it who would have a window; what asks for the size expects the smallest that there ever was. */
const CONSOLE_SIZE = { height: 24, width: 80 };

/** The kernel refuses quotas below 1 ms. */
const CPU_QUOTA_US_MIN = 1000;

/** Settings that live in the container's own ipc namespace; those below `net.` and `fs.mqueue.` do as well. */
const IPC_SYSCTLS = new Set(
  "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split(" ").map((name) => `kernel.${name}`),
);

/** Any port and ping without capabilities, as Docker sets them: a network namespace of one's own makes both harmless. */
const NETWORK_SYSCTLS = { "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647" };

/** The spec. Throws `invalid_argument` that names every field that is wrong: the task is then REJECTED with it. */
export function containerSpec(input: ContainerInput): OciSpec {
  const { overrides } = input;
  const problems: FieldProblem[] = [];
  const user = userOf(input, problems);
  const { network, host, devices = [] } = input;
  const privileges = privilegesOf({ wishes: overrides, devices, network, host }, problems);
  const { capabilities } = privileges;
  // As execve(2) would leave them to a user: nothing that runs before or above the program has more (an init, say).
  const held = user.uid === 0 ? capabilities : [];
  const process: OciSpec["process"] = {
    terminal: overrides.tty ?? false,
    ...(overrides.tty && { consoleSize: CONSOLE_SIZE }),
    user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
    args: commandLine({ image: input.image, command: overrides.command ?? [], args: overrides.args ?? [] }, problems),
    env: environment({
      hostname: input.hostname,
      tty: overrides.tty ?? false,
      imageEnv: input.image.env,
      env: overrides.env ?? [],
      home: user.home,
    }),
    cwd: workingDirectory(overrides.dir || input.image.workingDirectory || "/", problems),
    // Inheritable and ambient stay empty (CVE-2022-24769): programs gain nothing by being executed.
    capabilities: {
      bounding: capabilities,
      effective: held,
      permitted: held,
      inheritable: [],
      ambient: [],
    },
    rlimits: resourceLimits({ limits: overrides.ulimits ?? [], openFilesMax: input.host.openFilesMax }, problems),
    noNewPrivileges: privileges.noNewPrivileges,
    // Always said: what is not said is inherited from the agent, which the kernel is told to spare.
    oomScoreAdj: overrides.oomScoreAdj ?? 0,
  };
  const system = {
    shmSizeBytes: Number(overrides.shmSizeBytes ?? 0n),
    hostIpc: overrides.ipcMode === "host",
    writable: privileges.privileged,
  };
  const mounts = containerMounts({ mounts: input.mounts, files: input.files, system }, problems);
  const sysctl = sysctlsOf(input, problems);
  const resources = resourcesOf(input, privileges.deviceRules);
  if (problems.length > 0) throw invalidFields(problems);
  // A bind mount of the host's /dev brings them all, and nothing may be made there.
  const bound = mounts.some(({ destination, type }) => destination === "/dev" && type === "bind");
  return {
    ociVersion: "1.2.0",
    process,
    root: { path: input.rootPath, readonly: overrides.readOnly ?? false },
    // The host's own name stays what it is.
    ...(overrides.utsMode !== "host" && { hostname: input.hostname }),
    mounts,
    linux: {
      namespaces: privileges.namespaces,
      ...(devices.length > 0 && !bound && { devices: privileges.devices }),
      resources,
      rootfsPropagation: "rprivate",
      ...(privileges.seccomp !== undefined && { seccomp: privileges.seccomp }),
      sysctl,
      maskedPaths: privileges.maskedPaths,
      readonlyPaths: privileges.readonlyPaths,
    },
  };
}

function userOf(input: ContainerInput, problems: FieldProblem[]): ContainerUser {
  const { overrides, image, userFiles } = input;
  const resolved = resolveUser(overrides.user || image.user, overrides.groups ?? [], userFiles);
  if (resolved.kind === "user") return resolved.user;
  problems.push(...resolved.problems);
  return { uid: 0, gid: 0, additionalGids: [], home: "/" };
}

function workingDirectory(directory: string, problems: FieldProblem[]): string {
  if (!directory.startsWith("/")) {
    problems.push({ field: "working_dir", problem: `${JSON.stringify(directory)} must be an absolute path` });
  }
  return directory;
}

/** Only settings of the container's own namespaces pass; the rest would change the host (CVE-2022-0811). */
function sysctlsOf(input: ContainerInput, problems: FieldProblem[]): Readonly<Record<string, string>> {
  const hostNetwork = input.network === "host";
  const hostIpc = input.overrides.ipcMode === "host";
  const asked = Object.entries(input.overrides.sysctls ?? {});
  for (const [name, value] of asked) {
    const bad = (problem: string) => problems.push({ field: `sysctls.${name}`, problem });
    const net = name.startsWith("net.");
    const plain = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+$/.test(name);
    if (!plain || !(net || name.startsWith("fs.mqueue.") || IPC_SYSCTLS.has(name))) bad("not a setting of a container");
    else if (net && hostNetwork) bad("belongs to the host's network, which this container shares");
    else if (!net && hostIpc) bad("belongs to the host's ipc namespace, which this container shares");
    if (/[\0\n]/.test(value)) bad("the value must be one line");
  }
  return { ...(hostNetwork ? {} : NETWORK_SYSCTLS), ...Object.fromEntries(asked) };
}

function resourcesOf(
  { limits = {}, reservations = {} }: ContainerInput,
  devices: readonly OciDeviceCgroup[],
): OciResources {
  const memoryLimit = Number(limits.memoryBytes ?? 0n);
  const memoryReservation = Number(reservations.memoryBytes ?? 0n);
  const nanoCpus = Number(limits.nanoCpus ?? 0n);
  const quota = Math.max(CPU_QUOTA_US_MIN, Math.round((nanoCpus * CPU_PERIOD_US) / 1e9));
  // Memory plus swap equals memory unless it is said: a limit that could spill into swap would slow the whole host instead.
  const swap = Number(limits.memorySwapBytes ?? 0n) || memoryLimit;
  const shares = Number(limits.cpuShares ?? 0n);
  return {
    devices,
    memory: {
      ...(memoryLimit > 0 && { limit: memoryLimit }),
      ...(swap !== 0 && { swap }),
      ...(memoryReservation > 0 && { reservation: memoryReservation }),
      ...(limits.memorySwappiness !== undefined && { swappiness: limits.memorySwappiness }),
    },
    cpu: {
      ...(nanoCpus > 0 && { quota, period: CPU_PERIOD_US }),
      ...(shares > 0 && { shares }),
      ...(limits.cpusetCpus && { cpus: limits.cpusetCpus }),
      ...(limits.cpusetMems && { mems: limits.cpusetMems }),
    },
    pids: { limit: Number(limits.pids ?? 0n) || PIDS_LIMIT_DEFAULT },
  };
}
