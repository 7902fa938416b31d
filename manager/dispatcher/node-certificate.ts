/** What nodes and managers tell each other of nodes' certificates. Pure. */
import { create } from "@bufbuild/protobuf";
import { SwarmError } from "../../common/base/error.ts";
import { toTimestamp } from "../../common/model/duration.ts";
import { readCertificates } from "../../common/pki/certificates.ts";
import { identityOf } from "../../common/pki/identity.ts";
import type { ReportCertificateRequest } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import {
  type ClusterCa,
  type Node,
  type NodeCertificate,
  NodeCertificateSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { caCertificates } from "../ca/cluster-ca.ts";

/** As many as a bundle may hold. */
const TRUSTED_MAX = 16;
const KEY = /^[0-9a-f]{64}$/;

/**
 * What a node tells of the certificate that it has. Shown as it is, since nothing that is merely said counts as identity: it
 * must be this node's, and signed by an authority that is believed now. Throws `invalid_argument`.
 */
export function toldCertificate(ca: ClusterCa | undefined, request: ReportCertificateRequest): NodeCertificate {
  if (ca === undefined) throw new SwarmError("failed_precondition", "the cluster has no authority yet");
  const { nodeId, certificate: pem, trustedKeys } = request;
  const invalid = (field: string, problem: string) => new SwarmError("invalid_argument", `${field}: ${problem}`);
  if (trustedKeys.length > TRUSTED_MAX || !trustedKeys.every((key) => KEY.test(key))) {
    throw invalid("trusted_keys", `must be up to ${TRUSTED_MAX} SHA-256 sums in hex`);
  }
  const [leaf] = readCertificates(pem, "certificate:");
  const read = identityOf(leaf, caCertificates(ca).issuers);
  if (!read.ok) throw invalid("certificate", read.problem);
  const { identity } = read;
  if (identity.kind !== "node" || identity.nodeId !== nodeId || identity.clusterId !== ca.clusterId) {
    throw invalid("certificate", "is another's");
  }
  const notAfter = toTimestamp(identity.notAfterMs);
  return create(NodeCertificateSchema, {
    issuerKey: identity.issuerKeyId,
    notAfter,
    trustedKeys: trustedKeys.toSorted(),
  });
}

/** The authority under which the node is to renew its certificate now; empty: it is not its turn. */
export function renewUnder(ca: ClusterCa | undefined, node: Node | undefined): string {
  const { rotation } = ca ?? {};
  if (ca === undefined || !rotation?.id || node?.certificate?.askedRotation !== rotation.id) return "";
  return caCertificates(ca).issuerKeyId;
}

/** Whether a change of a node is that its turn came. */
export function wasAsked({
  before,
  after,
}: {
  readonly before: Node | undefined;
  readonly after: Node | undefined;
}): boolean {
  const asked = after?.certificate?.askedRotation ?? "";
  return asked !== "" && asked !== before?.certificate?.askedRotation;
}
