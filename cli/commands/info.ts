import {
  DATA_PATH_PORT_DEFAULT,
  NETWORK_POOLS_DEFAULT,
  NETWORK_PREFIX_LENGTH_DEFAULT,
} from "../../common/model/defaults.ts";
import { durationMs } from "../../common/model/duration.ts";
import { escapeControls } from "../../common/model/text.ts";
import { formatDurationMs, humanDuration } from "../../common/model/units.ts";
import { LIFETIME_MS_DEFAULT } from "../../common/pki/validity.ts";
import type { GetCaResponse, GetInfoResponse } from "../../proto/gen/swarm/v1/control_pb.js";
import type { Command, Invocation } from "../command.ts";
import { printWarnings } from "../manager-warnings.ts";
import { renderObject } from "../output/format.ts";

export const command: Command = {
  usage: "info [OPTIONS]",
  summary: "Display cluster-wide information",
  flags: { format: { kind: "text", short: "f", value: "string", help: "Format output: 'json' or a Go template" } },
  words: { min: 0, max: 0 },
  run,
};

async function run({ flags, io, connect }: Invocation): Promise<number> {
  const client = await connect();
  const [info, ca] = await Promise.all([client.getInfo({}), client.getCa({})]);
  const format = flags.text("format");
  io.out(format === undefined ? pretty(info, ca) : renderObject(objectOf(info, ca), format));
  if (format === undefined) printWarnings(info, io);
  return 0;
}

function objectOf(info: GetInfoResponse, ca: GetCaResponse): unknown {
  return {
    Version: info.version,
    ClusterID: info.clusterId,
    ManagerID: info.managerId,
    LeaderID: info.leaderId,
    Managers: info.managers.map(({ id, address, hostname, version }) => ({
      ID: id,
      Addr: address,
      Hostname: hostname,
      Version: version,
    })),
    AgentVersions: info.agentVersions,
    Revision: Number(info.revision),
    Nodes: info.nodes,
    NodesReady: info.nodesReady,
    Services: info.services,
    Tasks: info.tasks,
    TasksRunning: info.tasksRunning,
    Images: info.images,
    HeartbeatPeriodMs: durationMs(info.cluster?.spec?.heartbeatPeriod) ?? 0,
    TaskHistoryLimit: info.cluster?.spec?.taskHistoryLimit ?? 0,
    CertificateLifetimeMs: lifetimeMsOf(info),
    ForceRotate: Number(ca.rotations),
    RootRotationInProgress: ca.rotating,
    AddressPool: info.cluster?.spec?.addressPool ?? "",
    DefaultAddrPool: networkPools(info),
    SubnetSize: info.cluster?.spec?.networkPrefixLength || NETWORK_PREFIX_LENGTH_DEFAULT,
    DataPathPort: info.cluster?.spec?.dataPathPort || DATA_PATH_PORT_DEFAULT,
    Warnings: info.warnings,
    // What scripts ask of docker info: who answers is a manager, and no node in particular.
    Swarm: {
      NodeID: "",
      LocalNodeState: "active",
      ControlAvailable: true,
      Error: "",
      Nodes: info.nodes,
      Managers: info.managers.length,
      Cluster: { ID: info.clusterId },
    },
  };
}

function pretty(info: GetInfoResponse, ca: GetCaResponse): string {
  const leader = info.managers.find(({ id }) => id === info.leaderId);
  const managers = info.managers.map(({ id, address, hostname, version }) => {
    const mark = id === info.leaderId ? " (leader)" : "";
    return `  ${hostname} ${address} ${version}${mark}`;
  });
  const lines = [
    `Manager version: ${info.version}`,
    `Cluster ID: ${info.clusterId}`,
    `Leader: ${leader ? `${leader.hostname} (${leader.id})` : info.leaderId || "none"}`,
    `Managers: ${info.managers.length}`,
    ...managers,
    `Nodes: ${info.nodes} (${info.nodesReady} ready)`,
    ...versionLines(info),
    `Services: ${info.services}`,
    `Tasks: ${info.tasks} (${info.tasksRunning} running)`,
    `Images: ${info.images}`,
    `Address pool: ${info.cluster?.spec?.addressPool ?? ""}`,
    `Default Address Pool: ${networkPools(info).join(" ")}`,
    `SubnetSize: ${info.cluster?.spec?.networkPrefixLength || NETWORK_PREFIX_LENGTH_DEFAULT}`,
    `Data Path Port: ${info.cluster?.spec?.dataPathPort || DATA_PATH_PORT_DEFAULT}`,
    `Heartbeat period: ${formatDurationMs(durationMs(info.cluster?.spec?.heartbeatPeriod) ?? 0)}`,
    `Task history retention limit: ${info.cluster?.spec?.taskHistoryLimit ?? 0}`,
    "CA Configuration:",
    `  Expiry Duration: ${humanDuration(lifetimeMsOf(info))}`,
    `  Force Rotate: ${ca.rotations}`,
    `Root Rotation In Progress: ${ca.rotating}`,
  ];
  return `${lines.map(escapeControls).join("\n")}\n`;
}

function networkPools({ cluster }: GetInfoResponse): readonly string[] {
  const pools = cluster?.spec?.networkPools ?? [];
  return pools.length > 0 ? pools : NETWORK_POOLS_DEFAULT;
}

/** "  3 with agent 0.1.0". */
function versionLines({ agentVersions }: GetInfoResponse): readonly string[] {
  const sorted = Object.entries(agentVersions).toSorted(([left], [right]) => (left < right ? -1 : 1));
  return sorted.map(([version, count]) => `  ${count} with agent ${version}`);
}

function lifetimeMsOf({ cluster }: GetInfoResponse): number {
  return durationMs(cluster?.spec?.certificateLifetime) || LIFETIME_MS_DEFAULT;
}
