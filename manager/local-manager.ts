/** What the manager's own socket offers to the host's root: to begin a cluster, to join one, to leave, and Control meanwhile. */
import { create, type DescMethod } from "@bufbuild/protobuf";
import { SwarmError } from "../common/base/error.ts";
import type { NodeId } from "../common/base/id.ts";
import { projectVersion } from "../common/base/version.ts";
import { readCertificates } from "../common/pki/certificates.ts";
import { identityOf } from "../common/pki/identity.ts";
import { readTrustBundle } from "../common/pki/trust-bundle.ts";
import { parseUnlockKey } from "../common/pki/unlock-key.ts";
import type { CallContext, ServiceImplementation } from "../common/rpc/service.ts";
import { Control, GetUnlockKeyRequestSchema, UpdateClusterRequestSchema } from "../proto/gen/swarm/v1/control_pb.js";
import {
  type IssueLocalCertificateRequest,
  type JoinClusterRequest,
  type LocalManager,
  LocalState,
} from "../proto/gen/swarm/v1/local_pb.js";
import { type ClusterSpec, ClusterSpecSchema, NodeSchema } from "../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Role, NodeStatus_State } from "../proto/gen/swarm/v1/types_pb.js";
import type { ManagerHost } from "./manager-host.ts";
import type { Member } from "./member.ts";

const STATES = {
  idle: LocalState.IDLE,
  locked: LocalState.LOCKED,
  starting: LocalState.STARTING,
  member: LocalState.MEMBER,
} as const;

export function createLocalManager(host: ManagerHost): ServiceImplementation<typeof LocalManager> {
  return {
    async getLocalManager() {
      const { state, nodeId } = host;
      const member = state.kind === "member" ? state.member : undefined;
      return {
        state: STATES[state.kind],
        nodeId: state.kind === "idle" ? "" : nodeId,
        clusterId: member ? clusterIdOf(member) : "",
        address: member?.address ?? "",
        version: projectVersion(),
      };
    },
    async initCluster(request, context) {
      await host.init(request, context.signal);
      const { member, nodeId } = host;
      const what = { kind: "cluster", detail: request.forceNewCluster ? "force new cluster" : "begin" };
      member.services.audit.record({ peer: context.peer, method: "InitCluster", what }, { result: "ok" });
      const unlockKey = request.autolock ? await lockFromNowOn(member, context) : "";
      return { nodeId, clusterId: clusterIdOf(member), address: member.address, unlockKey };
    },
    beginJoin: (request) => host.beginJoin(request),
    async joinCluster(request, { signal }) {
      await host.join(request, nodeOf(request), signal);
      return { address: host.member.address };
    },
    async leaveCluster(request, { signal, peer }) {
      if (host.state.kind === "member") {
        const what = { kind: "manager", id: host.nodeId, detail: request.force ? "force" : "" };
        host.member.services.audit.record({ peer, method: "LeaveCluster", what }, { result: "begun" });
      }
      await host.leave(request, signal);
      return {};
    },
    async unlockManager({ unlockKey }) {
      await host.unlock(parseUnlockKey(unlockKey));
      return {};
    },
    issueLocalCertificate: (request, context) => issueLocalCertificate(host.member, host.nodeId, request, context),
  };
}

/** Turns autolock on, as `swarm update --autolock` does; answers the key. */
async function lockFromNowOn({ services: { control, store } }: Member, context: CallContext): Promise<string> {
  const { cluster } = store.view;
  const spec = create(ClusterSpecSchema, { ...cluster?.spec, autolock: true } as ClusterSpec);
  const request = create(UpdateClusterRequestSchema, { version: cluster?.meta?.version ?? 0n, spec });
  await control.updateCluster(request, context);
  const { unlockKey = "" } = await control.getUnlockKey(create(GetUnlockKeyRequestSchema), context);
  return unlockKey;
}

/** Control while the host's manager is a member; a manager that is just starting is waited for. */
export function delegatedControl(host: ManagerHost): ServiceImplementation<typeof Control> {
  const implementation: Record<string, unknown> = {};
  for (const { localName, methodKind } of Control.methods as readonly DescMethod[]) {
    const methodOf = async ({ signal }: CallContext) => {
      const { control } = (await host.whenMember(signal)).services;
      const method = (control as unknown as Readonly<Record<string, Method>>)[localName];
      if (!method) throw new SwarmError("unimplemented", `${localName} is not a method`);
      return method;
    };
    implementation[localName] =
      methodKind === "unary" || methodKind === "client_streaming"
        ? async (request: unknown, context: CallContext) => (await methodOf(context))(request, context)
        : async function* (request: unknown, context: CallContext) {
            yield* (await methodOf(context))(request, context) as AsyncIterable<unknown>;
          };
  }
  return implementation as ServiceImplementation<typeof Control>;
}

type Method = (request: unknown, context: CallContext) => unknown;

/** Whose certificate it is that a manager joins with. Throws `invalid_argument` for one of another kind. */
function nodeOf({ certificates, roots }: JoinClusterRequest): NodeId {
  const [leaf, ...sent] = readCertificates(certificates, "the manager's certificate");
  const read = identityOf(leaf, [...readTrustBundle(roots), ...sent]);
  if (read.ok && read.identity.kind === "node" && read.identity.role === "swarm-manager") return read.identity.nodeId;
  throw new SwarmError("invalid_argument", `certificates: ${read.ok ? "not a manager's" : read.problem}`);
}

function clusterIdOf({ services }: Member): string {
  return services.store.view.cluster?.ca?.clusterId ?? "";
}

/** The agent beside a manager is of the same node: it comes by the socket, so it is the host's own. */
async function issueLocalCertificate(
  { services: { store, authority, audit } }: Member,
  nodeId: NodeId,
  { certificateRequest, availability }: IssueLocalCertificateRequest,
  { signal, peer }: CallContext,
) {
  const { view } = store;
  const { clusterId } = authority;
  const { chain } = await authority.issue(
    { kind: "node", nodeId, role: "swarm-worker", clusterId },
    certificateRequest,
  );
  if (!view.nodes.has(nodeId)) {
    const object = create(NodeSchema, {
      id: nodeId,
      spec: { desiredRole: NodeSpec_Role.MANAGER, availability },
      status: { state: NodeStatus_State.UNKNOWN, message: "joined, not seen yet" },
    });
    await store.commit([{ type: "create", kind: "node", object }], { signal });
  }
  const what = { kind: "certificate", id: nodeId, detail: "worker" };
  audit.record({ peer, method: "IssueLocalCertificate", what }, { result: "ok" });
  const managers = [...view.managers.values()].map(({ address }) => address);
  return { certificates: chain, roots: authority.roots, nodeId, clusterId, managers };
}
