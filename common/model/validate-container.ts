/** Checks of what runs: image, process, mounts, capabilities, limits. Used by `validateServiceSpec` alone. */
import { isIP } from "node:net";
import { type ContainerSpec, type HealthConfig, type Mount, Mount_Type } from "../../proto/gen/swarm/v1/types_pb.js";
import { isCapability } from "./capability-names.ts";
import { parseImageReference } from "./image-reference.ts";
import { signalProblem } from "./signals.ts";
import { templateProblem } from "./template.ts";
import { lineProblem, valueProblem } from "./text.ts";
import { quoted } from "./units.ts";
import { checkIsolation } from "./validate-isolation.ts";
import { HEALTH_TIME_MS_MIN, type Problems } from "./validate-parts.ts";
import { checkReferences } from "./validate-references.ts";
import { checkVolumeDriver, isVolumeName } from "./validate-volume.ts";

/** Lengths beyond what Linux lets a process have (ARG_MAX is 2 MiB for all together) are mistakes. */
const ARGUMENT_LENGTH_MAX = 128 * 1024;
const ARGUMENTS_MAX = 4096;
const NAME_LENGTH_MAX = 255;
const PATH_LENGTH_MAX = 4096;
const MOUNTS_MAX = 256;
const SUBPATH_LENGTH_MAX = 4096;

const ULIMITS = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split(
  " ",
);
const PROPAGATIONS = ["", "rprivate", "private", "rshared", "shared", "rslave", "slave"];
const HOSTNAME = /^[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*$/;
/** Settings that belong to a container's own namespaces (runc's list); any other would change the whole host. */
const SYSCTL =
  /^(?:kernel\.(?:msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\.[a-z_]+|net\.[a-z0-9_./-]+)$/;

/** Checks a whole container spec. */
export function checkContainer(container: ContainerSpec | undefined, problems: Problems): void {
  if (container === undefined || container.image === "") {
    problems.add("image", "image reference must be provided");
  } else {
    const image = parseImageReference(container.image);
    if (!image.ok) problems.add("image", image.problem);
  }
  if (container === undefined) return;
  checkProcess(container, problems);
  checkMounts(container.mounts, problems);
  checkReferences(container, problems);
  checkHealth(container.healthcheck, problems);
  checkNames(container, problems);
  checkPrivileges(container, problems);
  checkIsolation(container, problems);
  problems.labels("container_labels", container.labels);
}

function checkProcess(container: ContainerSpec, problems: Problems): void {
  const lists = { command: container.command, args: container.args, groups: container.groups };
  for (const [field, values] of Object.entries(lists)) {
    if (values.length > ARGUMENTS_MAX) problems.add(field, `at most ${ARGUMENTS_MAX} words`);
    values.forEach((value, index) => {
      problems.text(`${field}[${index}]`, valueProblem(value, ARGUMENT_LENGTH_MAX));
    });
  }
  if (container.command[0] === "") problems.add("command", "the first word must not be empty");
  container.env.forEach((variable, index) => {
    const field = `env[${index}]`;
    if (/^=|^$/.test(variable)) problems.add(field, `invalid environment variable: ${quoted(variable)}`);
    problems.text(field, valueProblem(variable, ARGUMENT_LENGTH_MAX));
    problems.text(field, templateProblem(variable.slice(variable.indexOf("=") + 1)));
  });
  if (container.env.length > ARGUMENTS_MAX) problems.add("env", `at most ${ARGUMENTS_MAX} variables`);
  problems.text("working_dir", lineProblem(container.dir, PATH_LENGTH_MAX));
  if (container.dir !== "" && !container.dir.startsWith("/")) {
    problems.add("working_dir", `${quoted(container.dir)} must be an absolute path`);
  }
  problems.text("user", lineProblem(container.user, NAME_LENGTH_MAX));
  if (container.stopSignal !== "") problems.text("stop_signal", signalProblem(container.stopSignal));
  problems.duration("stop_grace_period", container.stopGracePeriod);
}

function checkMounts(mounts: readonly Mount[], problems: Problems): void {
  if (mounts.length > MOUNTS_MAX) problems.add("mounts", `at most ${MOUNTS_MAX} mounts`);
  const targets = new Set<string>();
  mounts.forEach((mount, index) => {
    const field = `mounts[${index}]`;
    for (const text of [mount.source, mount.target]) {
      problems.text(field, lineProblem(text, PATH_LENGTH_MAX) ?? templateProblem(text));
    }
    if (!/^(?:\/|\{\{)/.test(mount.target)) {
      problems.add(`${field}.target`, `invalid mount target ${quoted(mount.target)}, must be an absolute path`);
    }
    if (mount.target.replace(/\/+/g, "/") === "/") problems.add(`${field}.target`, "invalid mount target '/'");
    if (targets.has(mount.target)) problems.add(`${field}.target`, `duplicate mount point: ${quoted(mount.target)}`);
    targets.add(mount.target);
    checkMountSource(mount, field, problems);
  });
}

function checkMountSource(mount: Mount, field: string, problems: Problems): void {
  const template = mount.source.includes("{{");
  switch (mount.type) {
    case Mount_Type.BIND:
      if (!mount.source.startsWith("/") && !template) {
        problems.add(`${field}.source`, `invalid bind mount source ${quoted(mount.source)}, must be an absolute path`);
      }
      if (!PROPAGATIONS.includes(mount.propagation)) {
        problems.add(`${field}.propagation`, `invalid propagation ${quoted(mount.propagation)}`);
      }
      return;
    case Mount_Type.VOLUME:
      if (mount.source !== "" && !template && !isVolumeName(mount.source)) {
        problems.add(
          `${field}.source`,
          `invalid volume mount source ${quoted(mount.source)}: letters, digits and _.- (a path needs type=bind)`,
        );
      }
      checkVolume(mount, field, problems);
      return;
    case Mount_Type.TMPFS:
      if (mount.source !== "") problems.add(`${field}.source`, "a tmpfs mount has no source");
      if (mount.tmpfsSizeBytes < 0n) problems.add(`${field}.tmpfs-size`, "must not be negative");
      if (mount.tmpfsMode > 0o7777) problems.add(`${field}.tmpfs-mode`, "must be at most 7777");
      return;
    default:
      problems.add(`${field}.type`, `unknown mount type ${mount.type satisfies never}`);
  }
}

function checkVolume(mount: Mount, field: string, problems: Problems): void {
  const { volumeDriver: driver, volumeOptions: options, volumeLabels: labels, volumeSubpath: subpath } = mount;
  const values = Object.values(options);
  for (const value of [...values, ...Object.values(labels)]) problems.text(field, templateProblem(value));
  const fields = { driver: `${field}.volume-driver`, options: `${field}.volume-opt` };
  // What a template becomes is known on the node only.
  checkVolumeDriver(fields, { driver, options: values.some(isTemplate) ? {} : options }, problems);
  problems.labels(`${field}.volume-label`, labels);
  if (subpath === "") return;
  problems.text(`${field}.volume-subpath`, lineProblem(subpath, SUBPATH_LENGTH_MAX));
  const names = subpath.split("/");
  if (names.includes("..")) problems.add(`${field}.volume-subpath`, `${quoted(subpath)} must not contain ..`);
  if (subpath.startsWith("/")) problems.add(`${field}.volume-subpath`, `${quoted(subpath)} must be a relative path`);
  if (mount.source === "") problems.add(`${field}.volume-subpath`, "needs a volume with a name");
}

function isTemplate(text: string): boolean {
  return text.includes("{{");
}

function checkHealth(health: HealthConfig | undefined, problems: Problems): void {
  if (health === undefined) return;
  const [kind, ...words] = health.test;
  if (kind !== undefined && !["NONE", "CMD", "CMD-SHELL"].includes(kind)) {
    problems.add("healthcheck.test", `must begin with NONE, CMD or CMD-SHELL, not ${quoted(kind)}`);
  }
  if ((kind === "CMD" && words.length === 0) || (kind === "CMD-SHELL" && words.length !== 1)) {
    problems.add("healthcheck.test", `${kind} needs ${kind === "CMD" ? "a command" : "one command line"}`);
  }
  if (kind === "NONE" && words.length > 0) problems.add("healthcheck.test", "NONE takes no command");
  words.forEach((word, index) => {
    problems.text(`healthcheck.test[${index + 1}]`, valueProblem(word, ARGUMENT_LENGTH_MAX));
  });
  problems.duration("healthcheck.interval", health.interval, HEALTH_TIME_MS_MIN);
  problems.duration("healthcheck.timeout", health.timeout, HEALTH_TIME_MS_MIN);
  problems.duration("healthcheck.start_period", health.startPeriod, HEALTH_TIME_MS_MIN);
  problems.duration("healthcheck.start_interval", health.startInterval, HEALTH_TIME_MS_MIN);
}

function checkNames(container: ContainerSpec, problems: Problems): void {
  const { hostname, hosts, dns } = container;
  problems.text("hostname", templateProblem(hostname));
  if (hostname !== "" && !hostname.includes("{{") && !(hostname.length <= 63 && HOSTNAME.test(hostname))) {
    problems.add("hostname", `invalid hostname format: ${quoted(hostname)}`);
  }
  hosts.forEach((line, index) => {
    const [address = "", ...names] = line.split(" ");
    const fine = isIP(address) !== 0 && names.length > 0 && names.every((name) => HOSTNAME.test(name));
    if (!fine) problems.add(`hosts[${index}]`, `invalid IP address or name in add-host: ${quoted(line)}`);
  });
  dns?.nameservers.forEach((address, index) => {
    if (isIP(address) === 0) problems.add(`dns[${index}]`, `${quoted(address)} is not an ip address`);
  });
  dns?.search.forEach((domain, index) => {
    if (domain !== "." && !HOSTNAME.test(domain)) {
      problems.add(`dns_search[${index}]`, `${quoted(domain)} is not a valid domain`);
    }
  });
  dns?.options.forEach((option, index) => {
    if (!/^[a-z0-9:-]{1,64}$/.test(option)) problems.add(`dns_opt[${index}]`, `invalid option ${quoted(option)}`);
  });
}

function checkPrivileges(container: ContainerSpec, problems: Problems): void {
  for (const field of ["cap_add", "cap_drop"] as const) {
    const names = field === "cap_add" ? container.capAdd : container.capDrop;
    names.forEach((name, index) => {
      if (!isCapability(name)) problems.add(`${field}[${index}]`, `unknown capability ${quoted(name)}`);
    });
  }
  for (const [name, value] of Object.entries(container.sysctls)) {
    if (!SYSCTL.test(name) || name.includes("..")) {
      problems.add("sysctls", `${quoted(name)} is not a setting of a container's own namespaces`);
    }
    problems.text(`sysctls.${name}`, lineProblem(value, NAME_LENGTH_MAX));
  }
  container.ulimits.forEach(({ name, soft, hard }, index) => {
    const field = `ulimits[${index}]`;
    if (!ULIMITS.includes(name)) problems.add(field, `invalid ulimit type: ${quoted(name)}`);
    if (soft < -1n || hard < -1n) problems.add(field, "must be -1 (unlimited) or more");
    if (hard !== -1n && (soft === -1n || soft > hard)) {
      problems.add(field, `ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`);
    }
  });
  if (Math.abs(container.oomScoreAdj) > 1000) problems.add("oom_score_adj", "must be from -1000 to 1000");
}
