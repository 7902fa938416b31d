/** What the facts of a host mean: for each thing a node or a manager needs, one finding. Pure. */
import type { HostFacts, PortFacts, Trial, TrialResult } from "./facts.ts";
import type { Finding } from "./findings.ts";
import { judgeResources } from "./judge-resources.ts";

/** What the host is to be: every manager runs tasks too. */
export type Role = "worker" | "manager";

/** Where managers are reached by agents, by people elsewhere, and by each other's etcd. */
export const PORTS: readonly { readonly port: number; readonly use: string }[] = [
  { port: 2377, use: "agents and managers" },
  { port: 2376, use: "remote swarmctls" },
  { port: 2378, use: "the managers' etcd" },
];

/** mount_setattr(2), by which container mounts are made read-only. */
const KERNEL_MIN = [5, 12] as const;

const CONTROLLERS = ["memory", "cpu", "pids"];
const CONTROLLERS_V1 = [...CONTROLLERS, "cpuacct", "devices", "freezer"];
/** Of namespaces(7), those of a container. */
const NAMESPACES = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];

/** All findings, in the order in which people would mend them. */
export function judge(facts: HostFacts, role: Role): readonly Finding[] {
  const forManagers = role === "manager" ? [etcd(facts), ...facts.ports.map(port)] : [];
  return [
    ...(facts.root ? [] : [notRoot]),
    architecture(facts),
    kernel(facts),
    cgroups(facts),
    namespaces(facts),
    seccomp(facts),
    overlay(facts),
    links(facts),
    nftables(facts),
    secrets(facts),
    ...judgeResources(facts),
    ...forManagers,
    ...firewall(facts),
    optional(facts, "vxlan", "overlay networks between hosts"),
    optional(facts, "wireguard", "encrypted overlay networks"),
  ];
}

const notRoot: Finding = {
  name: "privileges",
  level: "WARN",
  message: "not root: mounts, links and rules were not tried",
  mend: "sudo swarmctl check",
};

function architecture({ architecture: name }: HostFacts): Finding {
  const known = name === "x64" || name === "arm64";
  if (known) return { name: "architecture", level: "OK", message: name };
  return { name: "architecture", level: "FAIL", message: `${name}: containers need x86-64 or 64-bit Arm` };
}

function kernel({ kernel: release }: HostFacts): Finding {
  const [major = 0, minor = 0] = release.split(".").map((part) => Number.parseInt(part, 10));
  const [majorMin, minorMin] = KERNEL_MIN;
  if (major > majorMin || (major === majorMin && minor >= minorMin)) {
    return { name: "kernel", level: "OK", message: release };
  }
  const wanted = KERNEL_MIN.join(".");
  return {
    name: "kernel",
    level: "FAIL",
    message: `${release} is older than ${wanted}, which has mount_setattr`,
    mend: "a newer kernel, such as that of Debian 12, Ubuntu 22.04 or a current Fedora",
  };
}

function cgroups({ mounts, unifiedControllers }: HostFacts): Finding {
  const missing = CONTROLLERS.filter((controller) => !unifiedControllers?.includes(controller));
  if (missing.length === 0) return { name: "cgroups", level: "OK", message: "version 2" };
  const first = mounts.flatMap(({ type, options }) => (type === "cgroup" ? options : []));
  const missingV1 = CONTROLLERS_V1.filter((controller) => !first.includes(controller));
  if (missingV1.length === 0) return { name: "cgroups", level: "OK", message: "version 1" };
  if (unifiedControllers === undefined && first.length === 0) {
    return {
      name: "cgroups",
      level: "FAIL",
      message: "none are mounted",
      mend: "a host with systemd, which mounts them; or mount -t cgroup2 none /sys/fs/cgroup",
    };
  }
  const lacking = first.includes("memory") ? missingV1 : missing;
  return {
    name: "cgroups",
    level: "FAIL",
    message: `no controller ${lacking.join(", ")}`,
    mend: lacking.includes("memory")
      ? "add cgroup_enable=memory to the kernel's command line and restart the host"
      : `a kernel with them, or take cgroup_disable=${lacking.join(",")} off its command line`,
  };
}

function namespaces({ namespaces: kinds, trials }: HostFacts): Finding {
  const missing = NAMESPACES.filter((kind) => !kinds.includes(kind));
  if (missing.length > 0) {
    const message = `the kernel has none of the kind ${missing.join(", ")}`;
    return { name: "namespaces", level: "FAIL", message, mend: "a distribution's own kernel" };
  }
  if (trials.type !== "no namespaces") return { name: "namespaces", level: "OK", message: NAMESPACES.join(", ") };
  return {
    name: "namespaces",
    level: "FAIL",
    message: `cannot be made: ${trials.reason}`,
    mend: "run it on the host itself, or give the container it is in CAP_SYS_ADMIN",
  };
}

function seccomp({ seccompActions }: HostFacts): Finding {
  if (seccompActions.includes("errno")) return { name: "seccomp", level: "OK", message: "filters" };
  return {
    name: "seccomp",
    level: "FAIL",
    message: "the kernel has no filters, and no container starts without one",
    mend: "a kernel with CONFIG_SECCOMP_FILTER",
  };
}

function overlay(facts: HostFacts): Finding {
  return tried(facts, "overlay", `mounts on ${facts.disk.fileSystem}`, {
    message: "an image's layers cannot be mounted",
    mend: "modprobe overlay; the state's file system must be ext4, xfs (ftype=1) or btrfs",
  });
}

function links(facts: HostFacts): Finding {
  const mend = (kind: string) => ({ message: "containers get no network", mend: `modprobe ${kind}` });
  const veth = tried(facts, "veth", "veth and bridge", mend("veth"));
  return { ...(veth.level === "OK" ? tried(facts, "bridge", "veth and bridge", mend("bridge")) : veth), name: "links" };
}

function nftables(facts: HostFacts): Finding {
  if (!facts.programs.has("nft")) {
    return {
      name: "nftables",
      level: "FAIL",
      message: "nft is not installed: no published ports, no way out for containers",
      mend: "apt-get install nftables (dnf install nftables)",
    };
  }
  const lacking = {
    message: "rules cannot be loaded",
    mend: "modprobe -a nf_tables nft_chain_nat nft_ct nft_fib_ipv4 nft_numgen nft_reject_ipv4",
  };
  return { ...tried(facts, "nat", "translation, zones, maps, numgen and fib", lacking), name: "nftables" };
}

function secrets({ mounts }: HostFacts): Finding {
  const place = ["/run", "/dev/shm"].find((path) =>
    mounts.some((mount) => mount.path === path && mount.type === "tmpfs"),
  );
  if (place !== undefined) return { name: "secrets", level: "OK", message: `kept in memory, at ${place}` };
  return {
    name: "secrets",
    level: "WARN",
    message: "neither /run nor /dev/shm is a tmpfs: tasks with secrets or configs are refused",
    mend: "mount -t tmpfs tmpfs /dev/shm",
  };
}

function etcd({ programs }: HostFacts): Finding {
  if (!programs.has("etcd")) {
    return {
      name: "etcd",
      level: "WARN",
      message: "not installed: a manager needs its own, or --etcd with the addresses of another",
      mend: "apt-get install etcd-server (dnf install etcd)",
    };
  }
  return { name: "etcd", level: "OK", message: "installed" };
}

function port(facts: PortFacts): Finding {
  const { port: number } = facts;
  const name = `port ${number}`;
  const use = PORTS.find((each) => each.port === number)?.use ?? "";
  if (facts.type === "free") return { name, level: "OK", message: `free, for ${use}` };
  const { holder } = facts;
  if (holder === undefined) {
    return { name, level: "WARN", message: `taken, for ${use}`, mend: `see who has it: ss -ltnp 'sport = :${number}'` };
  }
  if (`${holder.commandLine} ${holder.parentCommandLine}`.includes("swarm-manager")) {
    return { name, level: "OK", message: `the manager's, for ${use}` };
  }
  const program = holder.commandLine.split(" ")[0]?.split("/").at(-1) || "a process";
  return {
    name,
    level: "FAIL",
    message: `${program} (pid ${holder.pid}) has it, and ${use} need it`,
    mend: `end it: kill ${holder.pid}`,
  };
}

/** Programs that guard a host, and how they open a port. */
const FIREWALLS: readonly (readonly [process: string, open: string])[] = [
  ["firewalld", "firewall-cmd --permanent --add-port=2377/tcp && firewall-cmd --reload"],
  ["ufw", "ufw allow 2377/tcp"],
];

function firewall({ processes }: HostFacts): readonly Finding[] {
  return FIREWALLS.filter(([process]) => processes.has(process)).map(([process, open]) => ({
    name: "firewall",
    level: "INFO",
    message: `${process} runs; hosts of a cluster must reach a manager's port 2377`,
    mend: open,
  }));
}

function optional(facts: HostFacts, trial: Trial, use: string): Finding {
  const result = resultOf(facts, trial);
  const message = result?.type === "works" ? `there, for ${use}` : `not there, only for ${use}`;
  return {
    name: trial,
    level: "INFO",
    message: result === undefined || result.type === "untried" ? "not tried" : message,
  };
}

function tried(
  facts: HostFacts,
  trial: Trial,
  works: string,
  lacking: { readonly message: string; readonly mend: string },
): Finding {
  const result = resultOf(facts, trial);
  switch (result?.type) {
    case undefined:
      return { name: trial, level: "INFO", message: "not tried" };
    case "works":
      return { name: trial, level: "OK", message: works };
    case "untried":
      return { name: trial, level: "INFO", message: `not tried: ${result.program} is not installed` };
    case "fails":
      return { name: trial, level: "FAIL", message: `${lacking.message}: ${result.reason}`, mend: lacking.mend };
  }
}

function resultOf({ trials }: HostFacts, trial: Trial): TrialResult | undefined {
  return trials.type === "tried" ? trials.results[trial] : undefined;
}
