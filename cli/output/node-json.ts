/** A node in the shape of Docker's API (GET /nodes/{id}), and its lines for people. Pure. */
import { roleOf } from "../../common/model/constraints.ts";
import { escapeControls } from "../../common/model/text.ts";
import { formatBytes, formatNanoCpus } from "../../common/model/units.ts";
import type { Node } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Role } from "../../proto/gen/swarm/v1/types_pb.js";
import { enumWord, filled, labelsJson, timeJson } from "./json-parts.ts";
import { availabilityName, nodeStateName } from "./node-words.ts";

export function nodeJson(node: Node): Record<string, unknown> {
  const { description, managerStatus } = node;
  return {
    ID: node.id,
    Version: { Index: Number(node.meta?.version ?? 0n) },
    CreatedAt: timeJson(node.meta?.createdAt),
    UpdatedAt: timeJson(node.meta?.updatedAt),
    Spec: {
      Labels: labelsJson(node.spec?.labels),
      Role: enumWord(NodeSpec_Role, node.spec?.desiredRole ?? NodeSpec_Role.WORKER),
      Availability: availabilityName(node).toLowerCase(),
    },
    Description: {
      Hostname: description?.hostname ?? "",
      Platform: { Architecture: description?.platform?.architecture ?? "", OS: description?.platform?.os ?? "" },
      Resources: {
        NanoCPUs: Number(description?.resources?.nanoCpus ?? 0n),
        MemoryBytes: Number(description?.resources?.memoryBytes ?? 0n),
      },
      Engine: {
        EngineVersion: description?.engine?.version ?? "",
        Labels: labelsJson(description?.engine?.labels),
        Facts: labelsJson(description?.engine?.facts),
      },
    },
    Status: {
      State: nodeStateName(node).toLowerCase(),
      Addr: node.status?.address ?? "",
      ...filled({ Message: node.status?.message }),
    },
    ...(managerStatus
      ? {
          ManagerStatus: {
            Leader: managerStatus.leader,
            Reachability: managerStatus.reachable ? "reachable" : "unreachable",
            Addr: managerStatus.address,
          },
        }
      : {}),
  };
}

/** `node inspect --pretty`. */
export function nodePretty(node: Node): string {
  const { description } = node;
  const labels = Object.entries(node.spec?.labels ?? {}).map(([key, value]) => ` - ${key}=${value}`);
  const facts = Object.entries(description?.engine?.facts ?? {}).map(([key, value]) => ` ${key}:\t${value}`);
  const engineLabels = Object.entries(description?.engine?.labels ?? {}).map(([key, value]) => ` - ${key}=${value}`);
  const generic = description?.resources?.generic ?? [];
  const lines = [
    `ID:\t\t\t${node.id}`,
    ...(labels.length > 0 ? ["Labels:", ...labels] : []),
    `Hostname:\t\t${description?.hostname ?? ""}`,
    `Joined at:\t\t${timeJson(node.meta?.createdAt) ?? ""}`,
    "Status:",
    ` State:\t\t\t${nodeStateName(node)}`,
    ...(node.status?.message ? [` Message:\t\t${node.status.message}`] : []),
    ` Availability:\t\t${availabilityName(node)}`,
    ` Address:\t\t${node.status?.address ?? ""}`,
    `Role:\t\t\t${roleOf(node)}`,
    ...managerLines(node),
    "Platform:",
    ` Operating System:\t${description?.platform?.os ?? ""}`,
    ` Architecture:\t\t${description?.platform?.architecture ?? ""}`,
    "Resources:",
    ` CPUs:\t\t\t${formatNanoCpus(Number(description?.resources?.nanoCpus ?? 0n))}`,
    ` Memory:\t\t${formatBytes(Number(description?.resources?.memoryBytes ?? 0n))}`,
    ...(generic.length > 0 ? [` Generic:\t\t${generic.map(({ kind, count }) => `${kind}=${count}`).join(", ")}`] : []),
    `Engine Version:\t\t${description?.engine?.version ?? ""}`,
    ...(engineLabels.length > 0 ? ["Engine Labels:", ...engineLabels] : []),
    ...(facts.length > 0 ? ["Facts:", ...facts] : []),
  ];
  return `${lines.map((line) => line.split("\t").map(escapeControls).join("\t")).join("\n")}\n`;
}

function managerLines(node: Node): readonly string[] {
  const status = node.managerStatus;
  if (status === undefined) return [];
  return [
    "Manager Status:",
    ` Address:\t\t${status.address}`,
    ` Status:\t\t${status.reachable ? "Reachable" : "Unreachable"}`,
    ` Leader:\t\t${status.leader ? "Yes" : "No"}`,
  ];
}
