/** A node in the shape of Docker's API (GET /nodes/{id}), and its lines for people. Pure. */
import { roleOf } from "../../common/model/constraints.ts";
import { escapeControls } from "../../common/model/text.ts";
import { formatBytes, formatNanoCpus } from "../../common/model/units.ts";
import { nameOf, subjectDer } from "../../common/pki/certificates.ts";
import type { Node, NodeCertificate } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Role } from "../../proto/gen/swarm/v1/types_pb.js";
import type { ClusterAuthorities } from "./cluster-authorities.ts";
import { enumWord, filled, labelsJson, timeJson } from "./json-parts.ts";
import { availabilityName, nodeStateName, tlsStatusName } from "./node-words.ts";

export function nodeJson(node: Node, authorities?: ClusterAuthorities): Record<string, unknown> {
  const { description, managerStatus } = node;
  const fields = {
    ID: node.id,
    Version: { Index: Number(node.meta?.version ?? 0n) },
    CreatedAt: timeJson(node.meta?.createdAt),
    UpdatedAt: timeJson(node.meta?.updatedAt),
    Spec: {
      Labels: labelsJson(node.spec?.labels),
      Role: enumWord(NodeSpec_Role, node.spec?.desiredRole ?? NodeSpec_Role.WORKER),
      Availability: availabilityName(node).toLowerCase(),
    },
    Description: filled(
      {
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
        TLSInfo: tlsInfo(node.certificate, authorities),
      },
      ["Hostname", "Platform", "Resources", "Engine"],
    ),
    CertificateExpiresAt: timeJson(node.certificate?.notAfter),
    Status: filled(
      {
        State: nodeStateName(node).toLowerCase(),
        Addr: node.status?.address ?? "",
        Message: node.status?.message ?? "",
      },
      ["Addr"],
    ),
    ManagerStatus: managerStatus && {
      Leader: managerStatus.leader,
      Reachability: managerStatus.reachable ? "reachable" : "unreachable",
      Addr: managerStatus.address,
    },
  };
  return filled(fields, ["ID", "Version", "Spec", "Description", "Status"]);
}

/** What is known of a node's certificate: base64 of DER, as Docker has it. */
function tlsInfo(certificate: NodeCertificate | undefined, authorities: ClusterAuthorities | undefined) {
  if (certificate === undefined || authorities === undefined) return undefined;
  const issuer = authorities.byKey.get(certificate.issuerKey);
  const roots = certificate.trustedKeys.flatMap((key) => authorities.byKey.get(key)?.toString() ?? []);
  return filled({
    TrustRoot: roots.join(""),
    CertIssuerSubject: issuer && Buffer.from(subjectDer(issuer)).toString("base64"),
    CertIssuerPublicKey: issuer?.publicKey.export({ type: "spki", format: "der" }).toString("base64"),
  });
}

function tlsLines(node: Node, authorities: ClusterAuthorities | undefined): readonly string[] {
  if (node.certificate === undefined) return [];
  const { TrustRoot, CertIssuerSubject, CertIssuerPublicKey } = tlsInfo(node.certificate, authorities) ?? {};
  const issuer = authorities?.byKey.get(node.certificate.issuerKey);
  return [
    "TLS Info:",
    ` Status:\t\t${tlsStatusName(node, authorities)}`,
    ` Certificate expires:\t${timeJson(node.certificate.notAfter) ?? ""}`,
    ` Issuer:\t\t${issuer ? nameOf(issuer.subject) : "an authority that is not believed any more"}`,
    " TrustRoot:",
    ...String(TrustRoot ?? "")
      .trim()
      .split("\n"),
    "",
    ` Issuer Subject:\t${String(CertIssuerSubject ?? "")}`,
    ` Issuer Public Key:\t${String(CertIssuerPublicKey ?? "")}`,
  ];
}

/** `node inspect --pretty`. */
export function nodePretty(node: Node, authorities?: ClusterAuthorities): string {
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
    ...tlsLines(node, authorities),
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
