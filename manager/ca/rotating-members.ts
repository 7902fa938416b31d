/** Who is to follow when the authority changes: every node's agent, and every manager. Pure. */
import type { NodeId } from "../../common/base/id.ts";
import { timestampMs } from "../../common/model/duration.ts";
import type { KeyId } from "../../common/pki/certificates.ts";
import type { RotatingNode } from "../../common/pki/root-rotation.ts";
import { BACKDATE_MS } from "../../common/pki/validity.ts";
import type { NodeCertificate } from "../../proto/gen/swarm/v1/objects_pb.js";
import type { View } from "../store/view.ts";

/** An agent or a manager; those of one host have one id. */
export type RotatingMember = RotatingNode & { readonly kind: "agent" | "manager" };

/** All that are known. A manager that lives renews by itself; one that is away comes with its node. */
export function rotatingMembers(
  { nodes, managers, sessions }: Pick<View, "nodes" | "managers" | "sessions">,
  nowMs: number,
): readonly RotatingMember[] {
  const members: RotatingMember[] = [];
  for (const { id, certificate } of nodes.values()) {
    members.push({ kind: "agent", id: id as NodeId, isConnected: sessions.has(id), ...factsOf(certificate, nowMs) });
  }
  for (const { id, certificate } of managers.values()) {
    members.push({ kind: "manager", id: id as NodeId, isConnected: true, ...factsOf(certificate, nowMs) });
  }
  return members;
}

function factsOf(certificate: NodeCertificate | undefined, nowMs: number) {
  if (certificate === undefined) return { issuerKeyId: undefined, trusted: [] };
  const endMs = timestampMs(certificate.notAfter);
  return {
    issuerKeyId: certificate.issuerKey as KeyId,
    trusted: certificate.trustedKeys as KeyId[],
    // Clocks may differ by as much as certificates are backdated.
    hasEnded: endMs !== undefined && endMs + BACKDATE_MS < nowMs,
  };
}
