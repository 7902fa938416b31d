/**
 * Who may call what of what managers offer, over whatever door: one table of all methods. Pure.
 *
 *   anyone     whoever reaches the port, with a certificate or without
 *   agent      the agent of a node of the cluster          certificate swarm-worker
 *   manager    another manager                             certificate swarm-manager
 *   viewer     somebody who reads                          certificate swarm-viewer, -deployer, -admin
 *   deployer   somebody who changes what runs              certificate swarm-deployer, -admin
 *   admin      somebody who changes the cluster            certificate swarm-admin, or the host's own socket
 */
import type { DescMethod } from "@bufbuild/protobuf";
import { SwarmError } from "../common/base/error.ts";
import type { PeerIdentity } from "../common/rpc/service.ts";
import type { ManagerPeers, NodeCa } from "../proto/gen/swarm/v1/ca_pb.js";
import type { Control } from "../proto/gen/swarm/v1/control_pb.js";
import type { Content, Dispatcher, LogBroker, StreamBroker } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { View } from "./store/view.ts";

/** A kind of callers. */
export type Caller = "anyone" | "agent" | "manager" | "viewer" | "deployer" | "admin";

type Rights<S extends { readonly method: object }> = { readonly [Name in keyof S["method"]]: readonly Caller[] };

const AGENT = ["agent"] as const;
const MANAGER = ["manager"] as const;
const VIEWER = ["viewer", "deployer", "admin"] as const;
const DEPLOYER = ["deployer", "admin"] as const;
const ADMIN = ["admin"] as const;

const NODE_CA: Rights<typeof NodeCa> = { getRootCertificates: ["anyone"], issueCertificate: ["anyone"] };

const MANAGER_PEERS: Rights<typeof ManagerPeers> = {
  joinManagers: MANAGER,
  leaveManagers: MANAGER,
  readAudit: MANAGER,
};

const DISPATCHER: Rights<typeof Dispatcher> = {
  openSession: AGENT,
  heartbeat: AGENT,
  watchAssignments: AGENT,
  updateTaskStatus: AGENT,
  reportVolumes: AGENT,
  reportCertificate: AGENT,
  reportWireguardKey: AGENT,
  reportNetworkFact: AGENT,
};

const LOG_BROKER: Rights<typeof LogBroker> = { listenSubscriptions: AGENT, publishLogs: AGENT };

const STREAM_BROKER: Rights<typeof StreamBroker> = { listenStreams: AGENT, carryStream: AGENT };

/** Managers fetch from one another what was loaded into one of them. */
const CONTENT: Rights<typeof Content> = { resolveImage: ["agent", "manager"], getBlob: ["agent", "manager"] };

const CONTROL: Rights<typeof Control> = {
  getInfo: VIEWER,
  getCa: VIEWER,
  listServices: VIEWER,
  listSpecVersions: VIEWER,
  listSecrets: VIEWER,
  listConfigs: VIEWER,
  planStack: VIEWER,
  listStacks: VIEWER,
  listStackRevisions: VIEWER,
  listVolumes: VIEWER,
  listNetworks: VIEWER,
  checkNetwork: VIEWER,
  listTasks: VIEWER,
  listNodes: VIEWER,
  listImages: VIEWER,
  resolveImages: VIEWER,
  watchServices: VIEWER,
  serviceLogs: VIEWER,
  watchTaskStats: VIEWER,
  createService: DEPLOYER,
  updateService: DEPLOYER,
  removeService: DEPLOYER,
  setServiceStopped: DEPLOYER,
  createSecret: DEPLOYER,
  updateSecret: DEPLOYER,
  removeSecret: DEPLOYER,
  createConfig: DEPLOYER,
  updateConfig: DEPLOYER,
  removeConfig: DEPLOYER,
  applyStack: DEPLOYER,
  rollbackStack: DEPLOYER,
  removeStack: DEPLOYER,
  createVolume: DEPLOYER,
  removeVolume: DEPLOYER,
  createNetwork: DEPLOYER,
  removeNetwork: DEPLOYER,
  missingBlobs: DEPLOYER,
  putBlob: DEPLOYER,
  putImage: DEPLOYER,
  removeImage: DEPLOYER,
  exec: DEPLOYER,
  copyFiles: DEPLOYER,
  updateNode: ADMIN,
  removeNode: ADMIN,
  updateCluster: ADMIN,
  getJoinTokens: ADMIN,
  createUser: ADMIN,
  listUsers: ADMIN,
  removeUser: ADMIN,
  listAudit: ADMIN,
  getUnlockKey: ADMIN,
  rotateCa: ADMIN,
};

/** By the services' full names. */
const TABLE: Readonly<Record<string, Readonly<Record<string, readonly Caller[]>>>> = {
  "swarm.v1.NodeCa": NODE_CA,
  "swarm.v1.ManagerPeers": MANAGER_PEERS,
  "swarm.v1.Dispatcher": DISPATCHER,
  "swarm.v1.LogBroker": LOG_BROKER,
  "swarm.v1.StreamBroker": STREAM_BROKER,
  "swarm.v1.Content": CONTENT,
  "swarm.v1.Control": CONTROL,
};

/** Who may call a method. A method that is not in the table nobody may. */
export function callersOf(method: DescMethod): readonly Caller[] {
  return TABLE[method.parent.typeName]?.[method.localName] ?? [];
}

/** Whom the cluster knows now. */
export interface Members {
  hasNode(nodeId: string): boolean;
  /** Of the one certificate of a user that counts; undefined for a name that nobody has. */
  serialOf(userName: string): string | undefined;
}

/** Whom the store knows. A manager is a member before it has an agent beside it. */
export function membersOf(view: Pick<View, "nodes" | "managers" | "byName">): Members {
  return {
    hasNode: (nodeId) => view.nodes.has(nodeId) || view.managers.has(nodeId),
    serialOf: (name) => view.byName("user", name)?.serial,
  };
}

/**
 * Refuses a call that the peer may not make.
 * @throws unauthenticated: a certificate is needed. permission_denied: this one is not enough, or whom it is of was removed.
 */
export function authorize(method: DescMethod, identity: PeerIdentity | undefined, members: Members): void {
  const callers = callersOf(method);
  // Who was removed is told so, whatever they call: they must not get a new certificate by the old one either.
  const problem = identity && revocation(identity, members);
  if (problem !== undefined) throw new SwarmError("permission_denied", problem);
  if (callers.includes("anyone")) return;
  if (identity === undefined) {
    throw new SwarmError("unauthenticated", `${method.name} needs a certificate of this cluster that is valid now`);
  }
  const caller = callerOf(identity);
  if (callers.includes(caller)) return;
  throw new SwarmError("permission_denied", `${method.name} is not for ${NOUNS[caller]}`);
}

/** Why a certificate counts no more, though its time is not over; undefined while it does. */
export function revocation(identity: PeerIdentity, members: Members): string | undefined {
  if (identity.kind === "node" && !members.hasNode(identity.nodeId)) {
    return `node ${identity.nodeId} was removed from the cluster`;
  }
  if (identity.kind !== "user") return undefined;
  const serial = members.serialOf(identity.name);
  if (serial === undefined) return `user ${identity.name} was removed from the cluster`;
  return serial === identity.serial ? undefined : `user ${identity.name} was given another certificate since this one`;
}

const NOUNS: Readonly<Record<Caller, string>> = {
  anyone: "everybody",
  agent: "agents",
  manager: "managers",
  viewer: "users with role viewer",
  deployer: "users with role deployer",
  admin: "users",
};

function callerOf(identity: PeerIdentity): Caller {
  if (identity.kind === "host" || identity.kind === "operator") return "admin";
  switch (identity.role) {
    case "swarm-worker":
      return "agent";
    case "swarm-manager":
      return "manager";
    case "swarm-viewer":
      return "viewer";
    case "swarm-deployer":
      return "deployer";
    case "swarm-admin":
      return "admin";
  }
}
