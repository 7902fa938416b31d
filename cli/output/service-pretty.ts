/** `service inspect --pretty`: Docker's lines. Pure. */
import {
  updateDelayMs,
  updateMaxFailureRatio,
  updateMonitorMs,
  updateParallelism,
} from "../../common/model/defaults.ts";
import { durationMs, timestampMs } from "../../common/model/duration.ts";
import { overlayNetworks } from "../../common/model/networks.ts";
import { protocolName } from "../../common/model/ports.ts";
import { withoutLength } from "../../common/model/task-addresses.ts";
import { escapeControls } from "../../common/model/text.ts";
import { formatBytes, formatDurationMs, formatNanoCpus, humanDuration } from "../../common/model/units.ts";
import type { ServiceView } from "../../proto/gen/swarm/v1/control_pb.js";
import {
  type ContainerSpec,
  EndpointSpec_Affinity,
  EndpointSpec_Mode,
  type HealthConfig,
  type LogDriver,
  Mount_Type,
  type Placement,
  PortConfig_PublishMode,
  PullPolicy,
  type ResourceLimits,
  type ResourceRequirements,
  type ServiceMode,
  type UpdateConfig,
  UpdateConfig_FailureAction,
  UpdateConfig_Order,
  UpdateStatus_State,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { enumWord } from "./json-parts.ts";
import { withDefaults } from "./spec-defaults.ts";

/** One service, with how it is doing. */
export function servicePretty(view: ServiceView, nowMs: number): string {
  const { service } = view;
  const spec = view.spec && withDefaults(view.spec);
  const lines: string[] = [];
  const line = (depth: number, name: string, value?: string | number) =>
    lines.push(`${" ".repeat(depth)}${name}:${value === undefined ? "" : `\t${value}`}`);
  const labels = (title: string, entries: Readonly<Record<string, string>> | undefined) => {
    if (entries === undefined || Object.keys(entries).length === 0) return;
    line(0, title);
    for (const [key, value] of Object.entries(entries)) lines.push(` ${key}=${value}`);
  };
  line(0, "ID", `\t${service?.id ?? ""}`);
  line(0, "Name", `\t${service?.name ?? ""}`);
  labels("Labels", spec?.labels);
  modeLines(spec?.mode, line);
  if (service?.stopped) line(0, "Stopped", "true");
  updateStatusLines(view, nowMs, line);
  placementLines(spec?.task?.placement, line);
  if (spec?.update) updateLines("UpdateConfig", "update", spec.update, line);
  if (spec?.rollback) updateLines("RollbackConfig", "rollback", spec.rollback, line);
  containerLines(spec?.task?.container, line);
  fileLines(spec?.task?.container, line);
  logLines(spec?.task?.logDriver, line);
  resourceLines(spec?.task?.resources, line);
  const networks = spec?.task?.networks.map(({ target }) => target) ?? [];
  if (networks.length > 0) line(0, "Networks", networks.join(" "));
  line(0, "Endpoint Mode", enumWord(EndpointSpec_Mode, spec?.endpoint?.mode ?? EndpointSpec_Mode.VIP));
  const affinity = spec?.endpoint?.affinity ?? EndpointSpec_Affinity.NONE;
  if (affinity !== EndpointSpec_Affinity.NONE) line(0, "Session Affinity", enumWord(EndpointSpec_Affinity, affinity));
  vipLines(view, line);
  if (service && service.ports.length > 0) {
    line(0, "Ports");
    for (const port of service.ports) {
      lines.push(` PublishedPort = ${port.publishedPort}`);
      lines.push(`  Protocol = ${protocolName(port.protocol)}`);
      lines.push(`  TargetPort = ${port.targetPort}`);
      lines.push(`  PublishMode = ${enumWord(PortConfig_PublishMode, port.publishMode)}`);
      if (port.hostIp !== "") lines.push(`  HostIP = ${port.hostIp}`);
    }
  }
  healthLines(spec?.task?.container?.healthcheck, line);
  return `${lines.map((text) => text.split("\t").map(escapeControls).join("\t")).join("\n")}\n`;
}

type Line = (depth: number, name: string, value?: string | number) => void;

/** A service's virtual addresses stand in the order of its networks, those of nodes left out. */
function vipLines({ service, spec }: ServiceView, line: Line): void {
  if (!service || service.vips.length === 0) return;
  const names = overlayNetworks(spec);
  line(0, "Virtual IPs");
  service.vips.forEach(({ networkId, addresses }, index) => {
    line(1, names[index] ?? networkId, addresses.map(withoutLength).join(" "));
  });
}

function modeLines(serviceMode: ServiceMode | undefined, line: Line): void {
  const mode = serviceMode?.mode;
  if (mode?.case === "global") line(0, "Service Mode", "Global");
  else if (mode?.case === "globalJob") line(0, "Service Mode", "GlobalJob");
  else if (mode?.case === "replicatedJob") {
    line(0, "Service Mode", "ReplicatedJob");
    line(1, "Max Concurrent", Number(mode.value.maxConcurrent));
    line(1, "Total Completions", Number(mode.value.totalCompletions));
  } else {
    line(0, "Service Mode", "Replicated");
    line(1, "Replicas", Number(mode?.value?.replicas ?? 1n));
  }
}

function placementLines(placement: Placement | undefined, line: Line): void {
  line(0, "Placement");
  for (const constraint of placement?.constraints ?? []) line(1, "Constraints", constraint);
  for (const { spread } of placement?.preferences ?? []) line(1, "Preferences", `spread=${spread}`);
  const maxReplicas = placement?.maxReplicas ?? 0n;
  if (maxReplicas > 0n) line(1, "Max Replicas Per Node", Number(maxReplicas));
}

function updateStatusLines({ service }: ServiceView, nowMs: number, line: Line): void {
  const status = service?.updateStatus;
  if (status === undefined) return;
  const ago = (ms: number | undefined) => (ms === undefined ? "" : `${humanDuration(nowMs - ms).toLowerCase()} ago`);
  line(0, "UpdateStatus");
  line(1, "State", `\t${enumWord(UpdateStatus_State, status.state).replaceAll("-", "_")}`);
  if (status.startedAt) line(1, "Started", ago(timestampMs(status.startedAt)));
  if (status.completedAt) line(1, "Completed", ago(timestampMs(status.completedAt)));
  line(1, "Message", status.message);
}

function updateLines(title: string, word: string, update: UpdateConfig, line: Line): void {
  const parallelism = updateParallelism(update);
  line(0, title);
  line(1, "Parallelism", parallelism === Number.POSITIVE_INFINITY ? 0 : parallelism);
  if (updateDelayMs(update) > 0) line(1, "Delay", `\t${formatDurationMs(updateDelayMs(update))}`);
  line(1, "On failure", enumWord(UpdateConfig_FailureAction, update.failureAction));
  line(1, "Monitoring Period", formatDurationMs(updateMonitorMs(update)));
  line(1, "Max failure ratio", updateMaxFailureRatio(update));
  line(1, `${word === "update" ? "Update" : "Rollback"} order`, `     ${enumWord(UpdateConfig_Order, update.order)}`);
}

function containerLines(container: ContainerSpec | undefined, line: Line): void {
  line(0, "ContainerSpec");
  line(1, "Image", `\t${container?.image ?? ""}`);
  const list = (name: string, words: readonly string[] | undefined) => {
    if (words !== undefined && words.length > 0) line(1, name, `\t${words.join(" ")}`);
  };
  list("Command", container?.command);
  list("Args", container?.args);
  list("Env", container?.env);
  if (container === undefined) return;
  if (container.dir) line(1, "Dir", `\t${container.dir}`);
  if (container.init !== undefined) line(1, "Init", `\t${container.init}`);
  if (container.user) line(1, "User", container.user);
  if (container.hostname) line(1, "Hostname", container.hostname);
  if (container.tty) line(1, "TTY", "true");
  if (container.openStdin) line(1, "Open stdin", "true");
  if (container.readOnly) line(1, "Read only", "true");
  if (container.stopSignal) line(1, "Stop signal", container.stopSignal);
  if (container.stopGracePeriod)
    line(1, "Stop grace period", formatDurationMs(durationMs(container.stopGracePeriod) ?? 0));
  if (container.capAdd.length + container.capDrop.length > 0) {
    line(1, "Capabilities");
    if (container.capAdd.length > 0) line(2, "Add", container.capAdd.join(", "));
    if (container.capDrop.length > 0) line(2, "Drop", container.capDrop.join(", "));
  }
  isolationLines(container, line);
  pairLines(1, "SysCtls", Object.entries(container.sysctls), line);
  pairLines(
    1,
    "Ulimits",
    container.ulimits.map(({ name, soft, hard }) => [name, `${soft}:${hard}`] as const),
    line,
  );
  if (container.mounts.length > 0) line(1, "Mounts");
  for (const mount of container.mounts) {
    line(2, "Target", mount.target);
    line(3, "Source", mount.source);
    line(3, "ReadOnly", String(mount.readOnly));
    line(3, "Type", enumWord(Mount_Type, mount.type));
  }
}

function isolationLines(container: ContainerSpec, line: Line): void {
  const { security, pullPolicy, shmSizeBytes } = container;
  if (container.privileged) line(1, "Privileged", "true");
  if (security !== undefined) {
    const { seccomp, apparmor, noNewPrivileges, systemPathsUnconfined } = security;
    const options = [
      ...(seccomp === "" ? [] : [`seccomp=${seccomp === "unconfined" ? seccomp : "(profile)"}`]),
      ...(apparmor === "" ? [] : [`apparmor=${apparmor}`]),
      ...(noNewPrivileges === undefined ? [] : [`no-new-privileges=${noNewPrivileges}`]),
      ...(systemPathsUnconfined ? ["systempaths=unconfined"] : []),
    ];
    if (options.length > 0) line(1, "Security options", options.join(", "));
  }
  for (const { hostPath, containerPath, permissions } of container.devices) {
    line(1, "Device", `${hostPath}:${containerPath || hostPath}:${permissions || "rwm"}`);
  }
  for (const rule of container.deviceCgroupRules) line(1, "Device cgroup rule", rule);
  if (shmSizeBytes > 0n) line(1, "Shm size", formatBytes(Number(shmSizeBytes)));
  for (const [name, mode] of Object.entries({
    PID: container.pidMode,
    IPC: container.ipcMode,
    UTS: container.utsMode,
  })) {
    if (mode !== "") line(1, `${name} namespace`, mode);
  }
  if (pullPolicy !== PullPolicy.MISSING) line(1, "Pull policy", enumWord(PullPolicy, pullPolicy));
}

function pairLines(depth: number, title: string, pairs: readonly (readonly [string, string])[], line: Line): void {
  if (pairs.length > 0) line(depth, title);
  for (const [name, value] of pairs) line(depth + 1, name, value);
}

function fileLines(container: ContainerSpec | undefined, line: Line): void {
  const configs =
    container?.configs.map(({ file, configName }) => [file?.name || configName, configName] as const) ?? [];
  const secrets =
    container?.secrets.map(({ file, secretName }) => [file?.name || secretName, secretName] as const) ?? [];
  for (const [title, files] of Object.entries({ Configs: configs, Secrets: secrets })) {
    if (files.length > 0) line(0, title);
    for (const [target, source] of files) {
      line(1, "Target", target);
      line(2, "Source", source);
    }
  }
}

function logLines(driver: LogDriver | undefined, line: Line): void {
  if (driver === undefined) return;
  line(0, "Log Driver");
  line(1, "Name", driver.name);
  pairLines(1, "LogOpts", Object.entries(driver.options), line);
}

function healthLines(health: HealthConfig | undefined, line: Line): void {
  if (health === undefined) return;
  line(0, "Healthcheck");
  const times = { Interval: health.interval, Timeout: health.timeout, StartPeriod: health.startPeriod };
  for (const [name, time] of Object.entries({ ...times, StartInterval: health.startInterval })) {
    if (time !== undefined) line(1, name, formatDurationMs(durationMs(time) ?? 0));
  }
  if (health.retries > 0) line(1, "Retries", health.retries);
  if (health.test.length > 0) line(1, "Test", health.test.join(" "));
}

function limitLines(limits: ResourceLimits, line: Line): void {
  const { memorySwapBytes: swap, memorySwappiness, cpusetCpus, cpusetMems, cpuShares } = limits;
  if (swap !== 0n) line(2, "Memory and swap", swap < 0n ? "unlimited" : formatBytes(Number(swap)));
  if (memorySwappiness !== undefined) line(2, "Swappiness", memorySwappiness);
  if (cpusetCpus !== "") line(2, "CPU set", cpusetCpus);
  if (cpusetMems !== "") line(2, "Memory node set", cpusetMems);
  if (cpuShares > 0n) line(2, "CPU shares", Number(cpuShares));
}

function resourceLines(resources: ResourceRequirements | undefined, line: Line): void {
  const { limits, reservations } = resources ?? {};
  if (limits === undefined && reservations === undefined) return;
  line(0, "Resources");
  for (const [title, amounts] of Object.entries({ Reservations: reservations, Limits: limits })) {
    if (amounts === undefined) continue;
    line(1, title);
    if (amounts.nanoCpus > 0n) line(2, "CPU", `\t${formatNanoCpus(Number(amounts.nanoCpus))}`);
    if (amounts.memoryBytes > 0n) line(2, "Memory", `\t${formatBytes(Number(amounts.memoryBytes))}`);
    if ("pids" in amounts && amounts.pids > 0n) line(2, "PIDs", `\t${amounts.pids}`);
    if ("cpuShares" in amounts) limitLines(amounts, line);
    if ("generic" in amounts) {
      for (const { kind, count } of amounts.generic) line(2, "GenericResources", `${kind}=${count}`);
    }
  }
}
