/**
 * Gives hosts their certificates: a new node's for a join token, a known one's for the certificate that it has. Who somebody
 * is, TLS or the token says; what the request says of it is ignored.
 *
 *   token ──▶ role ──▶ Node in the store ──▶ certificate: agents get swarm-worker
 *   agent's certificate, `manager` ──▶ the node's role is manager? ──▶ certificate swarm-manager of the same node
 */
import { create } from "@bufbuild/protobuf";
import type { Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { type NodeId, newId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import { readCertificateRequest } from "../../common/pki/certificate-request.ts";
import type { NodeRole } from "../../common/pki/identity.ts";
import { parseJoinToken, roleOfSecret } from "../../common/pki/join-token.ts";
import type { Peer, PeerIdentity, ServiceImplementation } from "../../common/rpc/service.ts";
import type { IssueCertificateRequest, NodeCa } from "../../proto/gen/swarm/v1/ca_pb.js";
import { type Node, NodeSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Availability, NodeSpec_Role, NodeStatus_State } from "../../proto/gen/swarm/v1/types_pb.js";
import type { Audit } from "../guard/audit.ts";
import type { What } from "../guard/changes.ts";
import type { Store } from "../store/store.ts";
import { Attempts } from "./attempts.ts";
import type { ClusterAuthority } from "./cluster-authority.ts";
import { certificateFacts } from "./cluster-ca.ts";

/** What the service needs. */
export interface NodeCaOptions {
  readonly store: Store;
  readonly authority: ClusterAuthority;
  readonly audit: Pick<Audit, "record">;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** As the audit log has it. */
const METHOD = "IssueCertificate";

/** The service, for the managers' port. */
export function createNodeCa(options: NodeCaOptions): ServiceImplementation<typeof NodeCa> {
  const { authority, store } = options;
  const attempts = new Attempts(options.clock);
  return {
    getRootCertificates: async () => ({ roots: authority.roots }),
    async issueCertificate(request, { peer, signal }) {
      const { nodeId, role, newNode } =
        request.token === ""
          ? knownNode(store, peer.identity, request.manager)
          : await admit(options, attempts, { request, peer });
      const subject = { kind: "node", nodeId, role, clusterId: authority.clusterId } as const;
      const hosts = role === "swarm-manager" ? request.hosts : [];
      const { certificate, chain } = await authority.issue(subject, request.certificateRequest, hosts);
      if (newNode) {
        const object: Node = { ...newNode, certificate: certificateFacts(certificate, authority.certificates) };
        await store.commit([{ type: "create", kind: "node", object }], { signal });
        const { desiredRole = NodeSpec_Role.WORKER, availability = NodeSpec_Availability.ACTIVE } = newNode.spec ?? {};
        const wanted = { role: NodeSpec_Role[desiredRole], availability: NodeSpec_Availability[availability] };
        options.logger.info({ nodeId, ...wanted, address: peer.address }, "node joined");
        const detail = `joins as ${wanted.role}, ${wanted.availability}`.toLowerCase();
        written(options, peer, { kind: "node", id: nodeId, detail });
      }
      options.logger.debug({ nodeId, role, address: peer.address }, "certificate issued");
      written(options, peer, { kind: "certificate", id: nodeId, detail: role.replace(/^swarm-/, "") });
      return {
        certificates: chain,
        roots: authority.roots,
        nodeId,
        clusterId: authority.clusterId,
        role: store.view.nodes.get(nodeId)?.spec?.desiredRole ?? NodeSpec_Role.WORKER,
      };
    },
  };
}

function written({ audit }: Pick<NodeCaOptions, "audit">, peer: Peer, what: What): void {
  audit.record({ peer, method: METHOD, what, who: "join token" }, { result: "ok" });
}

interface Admitted {
  readonly nodeId: NodeId;
  readonly role: NodeRole;
  /** It is not in the store yet. */
  readonly newNode?: Node;
}

/** Whom a caller with a certificate may get another one for. */
function knownNode({ view }: Store, identity: PeerIdentity | undefined, asManager: boolean): Admitted {
  if (identity === undefined) {
    throw new SwarmError("unauthenticated", "IssueCertificate needs a join token, or a certificate of this cluster");
  }
  if (identity.kind !== "node") throw new SwarmError("permission_denied", "IssueCertificate is not for users");
  const { nodeId, role } = identity;
  if (!asManager && role === "swarm-worker") return { nodeId, role };
  if (view.nodes.get(nodeId)?.spec?.desiredRole !== NodeSpec_Role.MANAGER) {
    throw new SwarmError("permission_denied", `node ${nodeId} is not a manager: see swarmctl node promote`);
  }
  return { nodeId, role: "swarm-manager" };
}

/** A new node, by its token. The request is looked at first: what it costs us is bounded, what it makes stays. */
async function admit(
  { authority, audit, random, logger }: NodeCaOptions,
  attempts: Attempts,
  { request, peer }: { readonly request: IssueCertificateRequest; readonly peer: Peer },
): Promise<Admitted> {
  const host = peer.address.replace(/:\d+$/, "");
  if (!attempts.isAllowed(host)) {
    throw new SwarmError("resource_exhausted", "too many invalid join tokens from this address: wait a second");
  }
  const role = tokenRole(authority, request.token);
  if (role === undefined) {
    attempts.failed(host);
    logger.warn({ address: peer.address }, "a join token that is not valid was refused");
    const failure = new SwarmError("permission_denied", "the join token is not valid: it may have been rotated");
    audit.record({ peer, method: METHOD, what: { kind: "node" } }, { failure });
    throw failure;
  }
  await readCertificateRequest(request.certificateRequest);
  const nodeId = newId<NodeId>(random);
  const newNode = create(NodeSchema, {
    id: nodeId,
    spec: {
      availability: request.availability,
      desiredRole: role === "manager" ? NodeSpec_Role.MANAGER : NodeSpec_Role.WORKER,
    },
    status: { state: NodeStatus_State.UNKNOWN, message: "joined, not seen yet" },
  });
  return { nodeId, role: "swarm-worker", newNode };
}

/** Text that is no token at all counts as a guess too. */
function tokenRole(authority: ClusterAuthority, text: string): "worker" | "manager" | undefined {
  try {
    return roleOfSecret(parseJoinToken(text).secret, authority.secrets);
  } catch (reason) {
    if (reason instanceof SwarmError && reason.code === "invalid_argument") return undefined;
    throw reason;
  }
}
