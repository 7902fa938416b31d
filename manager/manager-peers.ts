/** What managers do for one another: take each other in, and out. */
import type { Clock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import { parseHostPort } from "../common/base/host-port.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Scope } from "../common/base/scope.ts";
import type { Peer, ServiceImplementation } from "../common/rpc/service.ts";
import type { ManagerPeers } from "../proto/gen/swarm/v1/ca_pb.js";
import { NodeSpec_Role } from "../proto/gen/swarm/v1/types_pb.js";
import type { Audit } from "./guard/audit.ts";
import type { MembershipEtcd } from "./membership.ts";
import { peerUrl } from "./store/embedded-etcd.ts";
import type { EtcdMembers } from "./store/etcd-members.ts";
import type { View } from "./store/view.ts";

/** From its acceptance to its vote: it starts, and copies what there is. */
const CATCH_UP_MS_MAX = 120_000;

/** What the service needs. */
export interface ManagerPeersOptions {
  readonly view: Pick<View, "nodes">;
  readonly etcd: MembershipEtcd;
  readonly members: EtcdMembers;
  readonly clusterKey: Uint8Array;
  readonly audit: Audit;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Owns what goes on after an answer. */
  readonly scope: Scope;
}

/** The service, for the managers' port: `access.ts` lets nobody else in. */
export function createManagerPeers(options: ManagerPeersOptions): ServiceImplementation<typeof ManagerPeers> {
  const { etcd, clusterKey, members, audit } = options;
  return {
    async joinManagers({ etcdPeerAddress }, { peer, signal }) {
      const nodeId = callerOf(peer);
      if (options.view.nodes.get(nodeId)?.spec?.desiredRole !== NodeSpec_Role.MANAGER) {
        throw new SwarmError("permission_denied", `node ${nodeId} is not a manager: see swarmctl node promote`);
      }
      if (etcd.kind === "external") return { clusterKey, etcdEndpoints: [...etcd.endpoints] };
      if (etcd.kind === "alone") {
        throw new SwarmError(
          "failed_precondition",
          "this cluster's only manager keeps its store to itself: begin a cluster for several with swarmctl swarm init, or give managers an etcd with --etcd",
        );
      }
      if (!parseHostPort(etcdPeerAddress)) {
        throw new SwarmError("invalid_argument", "etcd_peer_address: is not HOST:PORT");
      }
      const taken = await takeIn(options, { nodeId, address: etcdPeerAddress }, signal);
      const what = { kind: "manager", id: nodeId, detail: `its store at ${etcdPeerAddress}` };
      audit.record({ peer, method: "JoinManagers", what }, { result: "ok" });
      return { clusterKey, ...taken };
    },
    async leaveManagers({ nodeId }, { peer, signal }) {
      const id = nodeId || callerOf(peer);
      await takeOut(members, id, signal);
      audit.record({ peer, method: "LeaveManagers", what: { kind: "manager", id } }, { result: "ok" });
      return {};
    },
    readAudit: async (request) => ({ records: [...(await audit.read(request))] }),
  };
}

/** Takes a manager's member out of the managers' etcd, whether it runs or not. */
export async function takeOut(members: EtcdMembers, nodeId: string, signal: AbortSignal): Promise<void> {
  for (const { id, name } of await members.list()) if (name === nodeId) await members.remove(id, signal);
}

async function takeIn(
  { members, logger, scope }: ManagerPeersOptions,
  { nodeId, address }: { readonly nodeId: string; readonly address: string },
  signal: AbortSignal,
) {
  // What an attempt left that came to nothing.
  for (const { id, name, peerUrls } of await members.list()) {
    if (name === nodeId || peerUrls.includes(peerUrl(address))) await members.remove(id, signal);
  }
  const learner = await members.addLearner(address, signal);
  const others = (await members.list()).filter(({ id, name }) => id !== learner.id && name !== "");
  const lines = others.flatMap(({ name, peerUrls }) => peerUrls.map((url) => `${name}=${url}`));
  scope.spawn(`take in manager ${nodeId}`, async (inner) => {
    try {
      await members.promote(learner.id, CATCH_UP_MS_MAX, inner);
      logger.info({ nodeId, address }, "manager has its vote");
    } catch (reason) {
      if (inner.aborted || !(reason instanceof SwarmError)) throw reason;
      logger.warn({ nodeId, address, err: reason }, "a new manager did not come: its place is taken back");
      await members
        .remove(learner.id, inner)
        .catch((err: unknown) => logger.warn({ nodeId, err }, "and stays for now"));
    }
  });
  return { etcdInitialCluster: [...lines, `${nodeId}=${peerUrl(address)}`].join(","), etcdName: nodeId };
}

function callerOf({ identity }: Peer): string {
  if (identity?.kind === "node") return identity.nodeId;
  throw new SwarmError("unauthenticated", "a manager's certificate is needed");
}
