/** What swarm-agent can be told, by flags and environment, and what it makes of it. */
import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { type FieldProblem, invalidFields, SwarmError } from "../common/base/error.ts";
import { parseHostPort } from "../common/base/host-port.ts";
import { LOG_LEVELS, type LoggerOptions, type LogLevel } from "../common/base/logger.ts";
import { type OptionTable, type OptionValues, type ProgramDescription, splitList } from "../common/base/options.ts";
import { parseDurationMs } from "../common/model/units.ts";

/** Far longer than a task needs from its image's arrival to its container. */
const RETENTION_MS_MIN = 10 * 60_000;
/** Each replacement costs packets of a moment; and a timer of Node's lasts at most 24 days. */
const [KEY_LIFETIME_MS_MIN, KEY_LIFETIME_MS_MAX] = [60_000, 20 * 24 * 3_600_000];

const OPTIONS = {
  manager: {
    value: "HOST:PORT,…",
    help: "Managers to begin with; the agent learns the others from them",
    default: "127.0.0.1:2377",
  },
  "join-token-file": {
    value: "PATH",
    help: "The cluster's join token, for a host that is no node yet and joins when it\nstarts (else it waits for swarmctl swarm join); read once",
  },
  socket: {
    value: "PATH",
    help: "Unix socket for swarmctl swarm join and leave, root's only",
    default: "/run/swarm/agent.sock",
  },
  "manager-socket": {
    value: "PATH",
    help: "The socket of the manager on this host, if there is one",
    default: "/run/swarm/manager.sock",
  },
  "data-dir": { value: "PATH", help: "State, images, logs and volumes", default: "/var/lib/swarm/agent" },
  hostname: { value: "NAME", help: "The node's name in the cluster (default: the host's)" },
  label: { value: "KEY=VALUE,…", help: "Engine labels, for constraints on engine.labels.KEY" },
  "insecure-registry": {
    value: "HOST[:PORT],…",
    help: "Registries that may speak plain HTTP or have any certificate; those on this\nmachine may anyway",
  },
  "image-retention": {
    value: "DURATION",
    help: "Remove images that no container has used for so long; 0 keeps all",
    default: "24h",
  },
  "cgroup-parent": { value: "PATH", help: "Cgroup of all tasks (default: /swarm-<start of the node's id>)" },
  "network-device": {
    value: "NAME",
    help: "The device to other hosts, and the name of the nftables table: the same on all hosts.\nAgents that share a network namespace need different ones",
    default: "swarm0",
  },
  "link-local": {
    help: "Let tasks speak to link-local addresses, such as a cloud's metadata server\n(169.254.169.254), which may give them the host's credentials",
  },
  "wireguard-key-lifetime": {
    value: "DURATION",
    help: "Replace this node's key for encrypted networks each time it is so old; 0 never does",
    default: "12h",
  },
  purge: {
    help: "End this node's containers, remove everything it made on this host, the data\ndirectory included, and exit. The agent must not run",
  },
  probe: {
    help: "Try what stdin says from this network namespace, say what came of it, and exit: for\nswarmctl network check",
  },
  "log-level": { value: "LEVEL", help: LOG_LEVELS.join(", "), default: "info" },
  "log-format": { value: "FORMAT", help: "json or pretty (default: pretty on a terminal)" },
} as const satisfies OptionTable;

/** swarm-agent as its help presents it. */
export function describeProgram(version: string): ProgramDescription<typeof OPTIONS> {
  return {
    name: "swarm-agent",
    summary: "Runs the tasks that the cluster's managers assign to this host. Must run as root.",
    version,
    options: OPTIONS,
    epilogue:
      "Containers outlive the agent: stop it, upgrade it, start it again, and they run on.\n" +
      "`swarmctl node update --availability drain` moves them away first.",
  };
}

/** The agent's settings, checked. */
export interface AgentSettings {
  readonly managers: readonly string[];
  /** The join token, for a host that is no node yet and is to join when it starts. Throws when the file cannot be read. */
  readonly joinToken: () => Promise<string | undefined>;
  readonly socket: string;
  readonly managerSocket: string;
  readonly dataDirectory: string;
  readonly hostname: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly insecureRegistries: readonly string[];
  /** 0 keeps all. */
  readonly imageRetentionMs: number;
  readonly cgroupParent: string | undefined;
  readonly networkDevice: string;
  /** Whether tasks may speak to link-local addresses. */
  readonly linkLocal: boolean;
  /** 0: its key for encrypted networks is never replaced. */
  readonly wireguardKeyLifetimeMs: number;
  /** Carry out probes, and nothing else. */
  readonly probe: boolean;
  /** Undo everything instead of running. */
  readonly purge: boolean;
  readonly log: LoggerOptions;
}

/** Throws `invalid_argument` that names every bad option. */
export function agentSettings(values: OptionValues<typeof OPTIONS>): AgentSettings {
  const problems: FieldProblem[] = [];
  const check = (field: string, holds: boolean, problem: string) => {
    if (!holds) problems.push({ field: `--${field}`, problem });
  };
  const managers = splitList(values.manager);
  check("manager", managers.length > 0, "name at least one manager");
  for (const address of managers) {
    const parsed = parseHostPort(address);
    check("manager", parsed !== undefined, `${address} is not HOST:PORT`);
  }
  for (const flag of ["socket", "manager-socket"] as const) {
    check(flag, values[flag].startsWith("/"), "must be an absolute path");
  }
  check("data-dir", values["data-dir"].startsWith("/"), "must be an absolute path");
  check(
    "network-device",
    /^[a-zA-Z][a-zA-Z0-9_-]{0,13}$/.test(values["network-device"]),
    "must be 1 to 14 letters, digits, - or _",
  );
  const labels = splitList(values.label).map((label) => {
    check("label", /^[^=\s]+=/.test(label), `${label} is not KEY=VALUE`);
    const equals = label.indexOf("=");
    return [label.slice(0, equals), label.slice(equals + 1)] as const;
  });
  const retention = parseDurationMs(values["image-retention"]);
  const retentionMs = retention.ok ? retention.value : 0;
  check("image-retention", retention.ok, retention.ok ? "" : retention.problem);
  // A task that is being prepared does not use its image yet.
  check("image-retention", retentionMs === 0 || retentionMs >= RETENTION_MS_MIN, "must be 0 or at least 10m");
  const lifetime = parseDurationMs(values["wireguard-key-lifetime"]);
  const lifetimeMs = lifetime.ok ? lifetime.value : 0;
  check("wireguard-key-lifetime", lifetime.ok, lifetime.ok ? "" : lifetime.problem);
  check(
    "wireguard-key-lifetime",
    lifetimeMs === 0 || (lifetimeMs >= KEY_LIFETIME_MS_MIN && lifetimeMs <= KEY_LIFETIME_MS_MAX),
    "must be 0 or from 1m to 20d",
  );
  const level = LOG_LEVELS.find((known) => known === values["log-level"]);
  check("log-level", level !== undefined, `must be one of ${LOG_LEVELS.join(", ")}`);
  const format = values["log-format"];
  check("log-format", format === undefined || format === "json" || format === "pretty", "must be json or pretty");
  if (problems.length > 0) throw invalidFields(problems);
  return {
    managers,
    joinToken: () => readToken(values["join-token-file"]),
    socket: values.socket,
    managerSocket: values["manager-socket"],
    dataDirectory: values["data-dir"].replace(/(.)\/+$/, "$1"),
    hostname: values.hostname ?? hostname(),
    labels: Object.fromEntries(labels),
    insecureRegistries: splitList(values["insecure-registry"]),
    imageRetentionMs: retentionMs,
    cgroupParent: values["cgroup-parent"],
    networkDevice: values["network-device"],
    linkLocal: values["link-local"],
    wireguardKeyLifetimeMs: lifetimeMs,
    probe: values.probe,
    purge: values.purge,
    log: logOptions(level ?? "info", format),
  };
}

async function readToken(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  try {
    return await readFile(path, "utf8");
  } catch (reason) {
    throw SwarmError.wrap(`--join-token-file ${path}`, reason, "failed_precondition");
  }
}

function logOptions(level: LogLevel, format: string | undefined): LoggerOptions {
  return { level, ...((format === "json" || format === "pretty") && { format }) };
}
