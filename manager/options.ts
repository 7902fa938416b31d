/** What swarm-manager can be told, by flags and environment, and what it makes of it. Pure. */
import { isIP } from "node:net";
import { hostname } from "node:os";
import { type FieldProblem, invalidFields } from "../common/base/error.ts";
import { type HostPort, parseHostPort } from "../common/base/host-port.ts";
import { LOG_LEVELS, type LoggerOptions } from "../common/base/logger.ts";
import { type OptionTable, type OptionValues, type ProgramDescription, splitList } from "../common/base/options.ts";
import type { ServerTlsFiles } from "../common/rpc/tls-files.ts";
import type { ClusterDefaults } from "./manager.ts";

const OPTIONS = {
  "data-dir": {
    value: "PATH",
    help: "State: the manager's id, its etcd, loaded images\n(default /var/lib/swarm/manager; not root: $XDG_STATE_HOME/swarm/manager)",
  },
  socket: {
    value: "PATH",
    help: "Unix socket for swarmctl: its user's, and the group's where its folder is\n(default /run/swarm/manager.sock; not root: DATA-DIR/manager.sock)",
  },
  "listen-addr": {
    value: "HOST:PORT",
    help: "Where agents, other managers and remote swarmctls connect. A manager that is\nin no cluster begins one when this or --etcd is given; else it waits for\nswarmctl swarm init or join",
  },
  "advertise-addr": {
    value: "HOST[:PORT]",
    help: "How they reach it (default: --listen-addr, or this host's first address)",
  },
  "api-addr": {
    value: "HOST:PORT",
    help: "Also serve swarmctl here, over TLS 1.3 to clients with a certificate of your\nown CA; needs the three files below (SIGHUP reads them again)",
  },
  tlscacert: { value: "FILE", help: "CA certificates (PEM) that vouch for the clients of --api-addr" },
  tlscert: { value: "FILE", help: "Certificate (PEM) of --api-addr" },
  tlskey: { value: "FILE", help: "Key (PEM) of --tlscert" },
  etcd: {
    value: "URL,…",
    help: "Members of an etcd cluster to use (default: an etcd of its own in --data-dir)",
  },
  "cluster-key-file": {
    value: "PATH",
    help: "The key that seals the cluster's secrets (default: DATA-DIR/cluster.key). A new\ncluster's is made; every manager of a cluster needs the same",
  },
  "insecure-registry": {
    value: "HOST[:PORT],…",
    help: "Registries that may speak plain HTTP or have any certificate, when tags are\nresolved; those on this machine may anyway",
  },
  hostname: { value: "NAME", help: "The manager's name in the cluster (default: the host's)" },
  "address-pool": { value: "CIDR", help: "New clusters: IPv4 addresses of tasks", default: "10.224.0.0/12" },
  "heartbeat-period": { value: "DURATION", help: "New clusters: between two beats of an agent", default: "1s" },
  "task-history-limit": { value: "N", help: "New clusters: dead tasks kept per slot", default: "5" },
  "log-level": { value: "LEVEL", help: LOG_LEVELS.join(", "), default: "info" },
  "log-format": { value: "FORMAT", help: "json or pretty (default: pretty on a terminal)" },
} as const satisfies OptionTable;

/** swarm-manager as its help presents it. */
export function describeProgram(version: string): ProgramDescription<typeof OPTIONS> {
  return {
    name: "swarm-manager",
    summary: "Keeps a cluster's desired state and makes it so. Needs no root.",
    version,
    options: OPTIONS,
    epilogue:
      "Several managers that share one etcd make one cluster: each answers, one leads.\n" +
      "Their --data-dir must differ.",
  };
}

/** The manager's settings, checked. */
export interface ManagerSettings {
  readonly dataDirectory: string;
  readonly socket: string;
  /** Undefined: wait to be told. */
  readonly listen: HostPort | undefined;
  /** Where swarmctl is served over TLS, and with which files. */
  readonly api: { readonly listen: HostPort; readonly files: ServerTlsFiles } | undefined;
  /** The port may be missing: then it is the one that is bound. */
  readonly advertise: { readonly host: string; readonly port: number | undefined } | undefined;
  /** Empty: run an etcd of its own. */
  readonly etcd: readonly string[];
  readonly clusterKeyFile: string;
  /** `host` or `host:port`. */
  readonly insecureRegistries: readonly string[];
  readonly hostname: string;
  readonly cluster: ClusterDefaults;
  readonly log: LoggerOptions;
}

/** What the process is, as far as defaults depend on it. */
export interface ProcessFacts {
  readonly isRoot: boolean;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Throws `invalid_argument` that names every bad option. */
export function managerSettings(values: OptionValues<typeof OPTIONS>, facts: ProcessFacts): ManagerSettings {
  const problems: FieldProblem[] = [];
  const bad = (flag: keyof typeof OPTIONS, problem: string) => problems.push({ field: `--${flag}`, problem });
  const dataDirectory = trimmed(values["data-dir"] ?? dataDirectoryOf(facts));
  const socket = values.socket ?? (facts.isRoot ? "/run/swarm/manager.sock" : `${dataDirectory}/manager.sock`);
  if (!dataDirectory.startsWith("/")) bad("data-dir", "must be an absolute path");
  if (!socket.startsWith("/")) bad("socket", "must be an absolute path");
  const listen = values["listen-addr"] === undefined ? undefined : parseHostPort(values["listen-addr"]);
  if (values["listen-addr"] !== undefined && !listen) bad("listen-addr", `${values["listen-addr"]} is not HOST:PORT`);
  const api = apiDoor(values, bad);
  const advertise = parseAdvertised(values["advertise-addr"]);
  if (advertise === "bad") bad("advertise-addr", `${values["advertise-addr"]} is not HOST or HOST:PORT`);
  const etcd = splitList(values.etcd);
  for (const url of etcd) {
    if (!/^(?:https?:\/\/)?[^\s/,]+:\d{1,5}\/?$|^unix:\/.+$/.test(url)) bad("etcd", `${url} is not HOST:PORT or a URL`);
  }
  const cluster = clusterDefaults(values, bad);
  const log = logOptions(values, bad);
  if (problems.length > 0 || advertise === "bad") throw invalidFields(problems);
  const name = values.hostname ?? hostname();
  const insecureRegistries = splitList(values["insecure-registry"]);
  const clusterKeyFile = values["cluster-key-file"] ?? `${dataDirectory}/cluster.key`;
  const places = { dataDirectory, socket, clusterKeyFile };
  return { ...places, listen, api, advertise, etcd, insecureRegistries, hostname: name, cluster, log };
}

/** All four options or none: an API that whoever connects may use would hand the cluster to the network. */
function apiDoor(values: OptionValues<typeof OPTIONS>, bad: Complain): ManagerSettings["api"] {
  const { tlscacert: ca, tlscert: certificate, tlskey: key } = values;
  const text = values["api-addr"];
  if (text === undefined) {
    for (const flag of ["tlscacert", "tlscert", "tlskey"] as const) {
      if (values[flag] !== undefined) bad(flag, "is for --api-addr, which is not given");
    }
    return undefined;
  }
  const listen = parseHostPort(text);
  if (!listen) bad("api-addr", `${text} is not HOST:PORT`);
  for (const flag of ["tlscacert", "tlscert", "tlskey"] as const) {
    if (values[flag] === undefined) bad(flag, "must be given: --api-addr is served to clients with a certificate only");
  }
  if (!listen || ca === undefined || certificate === undefined || key === undefined) return undefined;
  return { listen, files: { ca, certificate, key } };
}

type Complain = (flag: keyof typeof OPTIONS, problem: string) => void;

function clusterDefaults(values: OptionValues<typeof OPTIONS>, bad: Complain): ClusterDefaults {
  const addressPool = values["address-pool"];
  const [address = "", bits = ""] = addressPool.split("/");
  // A /29 holds a bridge and five tasks; above /8 no private pool exists.
  const isPool = isIP(address) === 4 && /^\d{1,2}$/.test(bits) && Number(bits) >= 8 && Number(bits) <= 29;
  if (!isPool) bad("address-pool", `${addressPool} is not an IPv4 network between /8 and /29`);
  const heartbeatPeriodMs = parseDuration(values["heartbeat-period"]);
  if (heartbeatPeriodMs === undefined || heartbeatPeriodMs < 100 || heartbeatPeriodMs > 60_000) {
    bad("heartbeat-period", `${values["heartbeat-period"]} is not between 100ms and 60s`);
  }
  const text = values["task-history-limit"];
  const taskHistoryLimit = /^\d{1,4}$/.test(text) ? Number(text) : undefined;
  if (taskHistoryLimit === undefined) bad("task-history-limit", `${text} is not a number from 0 to 9999`);
  return { addressPool, heartbeatPeriodMs: heartbeatPeriodMs ?? 0, taskHistoryLimit: taskHistoryLimit ?? 0 };
}

function logOptions(values: OptionValues<typeof OPTIONS>, bad: Complain): LoggerOptions {
  const level = LOG_LEVELS.find((known) => known === values["log-level"]);
  if (!level) bad("log-level", `must be one of ${LOG_LEVELS.join(", ")}`);
  const format = values["log-format"];
  if (format === undefined) return { level: level ?? "info" };
  if (format === "json" || format === "pretty") return { level: level ?? "info", format };
  bad("log-format", "must be json or pretty");
  return { level: level ?? "info" };
}

function dataDirectoryOf({ isRoot, environment }: ProcessFacts): string {
  if (isRoot) return "/var/lib/swarm/manager";
  return `${environment.XDG_STATE_HOME || `${environment.HOME ?? ""}/.local/state`}/swarm/manager`;
}

function parseAdvertised(text: string | undefined): ManagerSettings["advertise"] | "bad" {
  if (text === undefined) return undefined;
  const whole = parseHostPort(text);
  if (whole) return whole;
  if (isIP(text) !== 0 || /^[A-Za-z0-9][A-Za-z0-9.-]*$/.test(text)) return { host: text, port: undefined };
  return "bad";
}

/** "500ms", "1s", "1.5s". */
function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s)$/.exec(text);
  return match ? Number(match[1]) * (match[2] === "s" ? 1000 : 1) : undefined;
}

function trimmed(path: string): string {
  return path.replace(/(.)\/+$/, "$1");
}
