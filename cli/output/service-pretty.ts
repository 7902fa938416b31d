/** `service inspect --pretty`: Docker's lines. Pure. */
import {
  updateDelayMs,
  updateMaxFailureRatio,
  updateMonitorMs,
  updateParallelism,
} from "../../common/model/defaults.ts";
import { timestampMs } from "../../common/model/duration.ts";
import { protocolName } from "../../common/model/ports.ts";
import { escapeControls } from "../../common/model/text.ts";
import { formatBytes, formatDurationMs, formatNanoCpus, humanDuration } from "../../common/model/units.ts";
import type { ServiceView } from "../../proto/gen/swarm/v1/control_pb.js";
import {
  type ContainerSpec,
  EndpointSpec_Mode,
  Mount_Type,
  PortConfig_PublishMode,
  type ResourceRequirements,
  type UpdateConfig,
  UpdateConfig_FailureAction,
  UpdateConfig_Order,
  UpdateStatus_State,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { enumWord } from "./json-parts.ts";

/** One service, with how it is doing. */
export function servicePretty(view: ServiceView, nowMs: number): string {
  const { service, spec } = view;
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
  const mode = spec?.mode?.mode;
  line(0, "Service Mode", mode?.case === "global" ? "Global" : "Replicated");
  if (mode?.case !== "global") line(1, "Replicas", Number(view.desiredTasks));
  updateStatusLines(view, nowMs, line);
  line(0, "Placement");
  for (const constraint of spec?.task?.placement?.constraints ?? []) line(1, "Constraints", constraint);
  const maxReplicas = spec?.task?.placement?.maxReplicas ?? 0n;
  if (maxReplicas > 0n) line(1, "Max Replicas Per Node", Number(maxReplicas));
  if (spec?.update) updateLines("UpdateConfig", "update", spec.update, line);
  if (spec?.rollback) updateLines("RollbackConfig", "rollback", spec.rollback, line);
  containerLines(spec?.task?.container, line);
  resourceLines(spec?.task?.resources, line);
  line(0, "Endpoint Mode", enumWord(EndpointSpec_Mode, spec?.endpoint?.mode ?? EndpointSpec_Mode.VIP));
  if (service && service.ports.length > 0) {
    line(0, "Ports");
    for (const port of service.ports) {
      line(1, "PublishedPort", port.publishedPort);
      line(2, "Protocol", protocolName(port.protocol));
      line(2, "TargetPort", port.targetPort);
      line(2, "PublishMode", enumWord(PortConfig_PublishMode, port.publishMode));
    }
  }
  return `${lines.map((text) => text.split("\t").map(escapeControls).join("\t")).join("\n")}\n`;
}

type Line = (depth: number, name: string, value?: string | number) => void;

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
  if (container?.dir) line(1, "Dir", `\t${container.dir}`);
  if (container?.user) line(1, "User", container.user);
  for (const mount of container?.mounts ?? []) {
    line(1, "Mounts");
    line(2, "Target", mount.target);
    line(3, "Source", mount.source);
    line(3, "ReadOnly", String(mount.readOnly));
    line(3, "Type", enumWord(Mount_Type, mount.type));
  }
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
  }
}
