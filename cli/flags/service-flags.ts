/** The flags of `service create` and `service update`: Docker's names, words and defaults (docker/cli service/opts.go), and some of `docker run`'s. */
import { ISOLATION_FLAGS } from "./isolation.ts";
import type { Flag, FlagTable } from "./parse.ts";
import { WAIT_FLAGS } from "./wait-flags.ts";

const text = (value: string, help: string, more: Partial<Flag> = {}): Flag => ({ kind: "text", value, help, ...more });
const list = (help: string, more: Partial<Flag> = {}): Flag => ({ kind: "list", value: "list", help, ...more });
const toggle = (help: string, more: Partial<Flag> = {}): Flag => ({ kind: "boolean", help, ...more });

function updateFlags(prefix: "update" | "rollback", word: string, actions: string): FlagTable {
  return {
    [`${prefix}-delay`]: text("duration", `Delay between task ${word}s (ns|us|ms|s|m|h)`, { default: "0s" }),
    [`${prefix}-failure-action`]: text("string", `Action on ${word} failure (${actions})`, { default: '"pause"' }),
    [`${prefix}-max-failure-ratio`]: text("float", `Failure rate to tolerate during a ${word}`, { default: "0" }),
    [`${prefix}-monitor`]: text("duration", `Duration after each task ${word} to monitor for failure`, {
      default: "5s",
    }),
    [`${prefix}-order`]: text(
      "string",
      `${word === "update" ? "Update" : "Rollback"} order ("start-first", "stop-first")`,
      {
        default: '"stop-first"',
      },
    ),
    [`${prefix}-parallelism`]: text("uint", `Maximum number of tasks per ${word} simultaneously (0 for all at once)`, {
      default: "1",
    }),
  };
}

/** Flags with one value, the same on create and update. */
const SCALARS: FlagTable = {
  ...WAIT_FLAGS,
  "endpoint-mode": text("string", 'Endpoint mode ("vip", "dnsrr")', { default: '"vip"' }),
  entrypoint: text("command", "Overwrite the default ENTRYPOINT of the image"),
  "health-cmd": text("string", "Command to run to check health"),
  "health-interval": text("duration", "Time between running the check", { default: "30s" }),
  "health-retries": text("int", "Consecutive failures needed to report unhealthy", { default: "3" }),
  "health-start-interval": text("duration", "Time between running the check during the start period", {
    default: "5s",
  }),
  "health-start-period": text("duration", "Start period before retries count towards unstable", { default: "0s" }),
  "health-timeout": text("duration", "Maximum time to allow one check to run", { default: "30s" }),
  hostname: text("string", "Container hostname"),
  init: toggle("Use an init inside each service container to forward signals and reap processes"),
  "limit-cpu": text("decimal", "Limit CPUs"),
  "limit-memory": text("bytes", "Limit Memory"),
  "limit-pids": text("int", "Limit maximum number of processes (0 = unlimited)", { default: "0" }),
  "log-driver": text("string", "Logging driver for service"),
  "log-opt": list("Logging driver options"),
  "max-concurrent": text("uint", "Number of job tasks to run concurrently"),
  "no-healthcheck": toggle("Disable any container-specified HEALTHCHECK"),
  "no-resolve-image": toggle("Do not ask the registry for the image's digest: each node resolves the tag by itself"),
  "oom-score-adj": text("int", "Tune host's OOM preferences (-1000 to 1000)", { default: "0" }),
  "read-only": toggle("Mount the container's root filesystem as read only"),
  replicas: text("uint", "Number of tasks"),
  "replicas-max-per-node": text("uint", "Maximum number of tasks per node (0 = unlimited)", { default: "0" }),
  "reserve-cpu": text("decimal", "Reserve CPUs"),
  "reserve-memory": text("bytes", "Reserve Memory"),
  "restart-condition": text("string", 'Restart when condition is met ("none", "on-failure", "any")', {
    default: '"any"',
  }),
  "restart-delay": text("duration", "Delay between restart attempts (ns|us|ms|s|m|h)", { default: "5s" }),
  "restart-max-attempts": text("uint", "Maximum number of restarts before giving up"),
  "restart-window": text("duration", "Window used to evaluate the restart policy (ns|us|ms|s|m|h)"),
  ...updateFlags("rollback", "rollback", '"pause", "continue"'),
  "session-affinity": text("string", 'Whether a client meets the same task again ("none", "client-ip")', {
    default: '"none"',
  }),
  "stop-grace-period": text("duration", "Time to wait before force killing a container", { default: "10s" }),
  "stop-signal": text("string", "Signal to stop the container"),
  tty: toggle("Allocate a pseudo-TTY", { short: "t" }),
  ...updateFlags("update", "update", '"pause", "continue", "rollback"'),
  user: text("string", "Username or UID (format: <name|uid>[:<group|gid>])", { short: "u" }),
  "with-registry-auth": toggle("Send registry authentication details to swarm agents"),
  workdir: text("string", "Working directory inside the container", { short: "w" }),
  "cap-add": list("Add Linux capabilities"),
  "cap-drop": list("Drop Linux capabilities"),
  ...ISOLATION_FLAGS,
};

/** Lists: `--X` on create, `--X-add` and `--X-rm` on update. */
const LISTS: Readonly<Record<string, { readonly help: string; readonly add: string; readonly remove: string }>> = {
  config: {
    help: "Specify configurations to expose to the service",
    add: "Add or update a config file on a service",
    remove: "Remove a configuration file",
  },
  constraint: {
    help: "Placement constraints",
    add: "Add or update a placement constraint",
    remove: "Remove a constraint",
  },
  "container-label": {
    help: "Container labels",
    add: "Add or update a container label",
    remove: "Remove a container label by its key",
  },
  "depends-on": {
    help: "Wait for a service before tasks are made (SERVICE[:started|healthy|completed])",
    add: "Add or update a service to wait for (SERVICE[:started|healthy|completed])",
    remove: "Remove a service to wait for",
  },
  device: {
    help: "Add a host device to the containers (/dev/host[:/dev/container[:rwm]])",
    add: "Add or update a host device",
    remove: "Remove a device by its path in the containers",
  },
  "device-cgroup-rule": {
    help: "Add a rule to the cgroup allowed devices list",
    add: "Add a rule to the cgroup allowed devices list",
    remove: "Remove a rule from the cgroup allowed devices list",
  },
  dns: {
    help: "Set custom DNS servers",
    add: "Add or update a custom DNS server",
    remove: "Remove a custom DNS server",
  },
  "dns-option": { help: "Set DNS options", add: "Add or update a DNS option", remove: "Remove a DNS option" },
  "dns-search": {
    help: "Set custom DNS search domains",
    add: "Add or update a custom DNS search domain",
    remove: "Remove a DNS search domain",
  },
  env: {
    help: "Set environment variables",
    add: "Add or update an environment variable",
    remove: "Remove an environment variable",
  },
  group: {
    help: "Set one or more supplementary user groups for the container",
    add: "Add an additional supplementary user group to the container",
    remove: "Remove a previously added supplementary user group from the container",
  },
  host: {
    help: "Set one or more custom host-to-IP mappings (host:ip)",
    add: "Add a custom host-to-IP mapping (host:ip)",
    remove: "Remove a custom host-to-IP mapping (host:ip)",
  },
  label: { help: "Service labels", add: "Add or update a service label", remove: "Remove a label by its key" },
  mount: {
    help: "Attach a filesystem mount to the service",
    add: "Add or update a mount on a service",
    remove: "Remove a mount by its target path",
  },
  network: { help: "Network attachments", add: "Add a network", remove: "Remove a network" },
  "placement-pref": {
    help: "Add a placement preference",
    add: "Add a placement preference",
    remove: "Remove a placement preference",
  },
  publish: {
    help: "Publish a port as a node port",
    add: "Add or update a published port",
    remove: "Remove a published port by its target port",
  },
  secret: {
    help: "Specify secrets to expose to the service",
    add: "Add or update a secret on a service",
    remove: "Remove a secret",
  },
  sysctl: { help: "Sysctl options", add: "Add or update a Sysctl option", remove: "Remove a Sysctl option" },
  ulimit: { help: "Ulimit options", add: "Add or update a ulimit option", remove: "Remove a ulimit option" },
};

/** Docker's flags that cannot work yet, and why: known, so that the answer is better than "unknown flag". */
export const UNSUPPORTED: Readonly<Record<string, string>> = {
  "credential-spec": "it is for Windows containers",
  "generic-resource": "generic resources are not supported yet",
  isolation: "it is for Windows containers",
};

const SHORTS: Readonly<Record<string, string>> = { env: "e", label: "l", publish: "p" };

function unsupported(names: readonly string[]): FlagTable {
  return Object.fromEntries(names.map((name) => [name, list("Not supported yet")]));
}

const REFUSED_NAMES = Object.keys(UNSUPPORTED);

export const CREATE_FLAGS: FlagTable = {
  ...SCALARS,
  ...Object.fromEntries(
    Object.entries(LISTS).map(([name, { help }]) => {
      const short = SHORTS[name];
      return [name, list(help, short === undefined ? {} : { short })];
    }),
  ),
  "env-file": list("Read in a file of environment variables"),
  mode: text("string", 'Service mode ("replicated", "global", "replicated-job", "global-job")', {
    default: '"replicated"',
  }),
  name: text("string", "Service name"),
  ...unsupported(REFUSED_NAMES),
};

export const UPDATE_FLAGS: FlagTable = {
  ...SCALARS,
  ...Object.fromEntries(
    Object.entries(LISTS).flatMap(([name, { add, remove }]) => [
      [`${name}-add`, list(add)],
      [`${name}-rm`, list(remove)],
    ]),
  ),
  args: text("command", "Service command args"),
  force: toggle("Force update even if no changes require it"),
  image: text("string", "Service image tag"),
  rollback: toggle("Rollback to previous specification"),
  ...unsupported(
    REFUSED_NAMES.flatMap((name) => (name === "generic-resource" ? [`${name}-add`, `${name}-rm`] : [name])),
  ),
};
