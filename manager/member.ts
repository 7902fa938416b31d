/**
 * A manager that is in a cluster: its etcd, the store, the doors for everybody but this host, and the Manager behind them. Made by
 * `ManagerHost` as often as the host joins and leaves.
 */
import { isIP } from "node:net";
import { dirname, join } from "node:path";
import { abortReason, systemClock } from "../common/base/clock.ts";
import { parseHostPort, printHostPort } from "../common/base/host-port.ts";
import type { ManagerId, NodeId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import { systemEntropy, systemRandom } from "../common/base/random.ts";
import type { Scope } from "../common/base/scope.ts";
import { projectVersion } from "../common/base/version.ts";
import { readCredentials } from "../common/pki/credential-files.ts";
import { RegistryClient } from "../common/registry/client.ts";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { createClient, type Transport } from "../common/rpc/service.ts";
import { ManagerPeers, NodeCa } from "../proto/gen/swarm/v1/ca_pb.js";
import { Control } from "../proto/gen/swarm/v1/control_pb.js";
import { Content as ContentService, Dispatcher, LogBroker, StreamBroker } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { ClusterCa } from "../proto/gen/swarm/v1/objects_pb.js";
import { ManagerIdentity } from "./ca/manager-identity.ts";
import { BlobStore } from "./content/blob-store.ts";
import { Content } from "./content/content.ts";
import type { OwnStore } from "./control/dependencies.ts";
import { type EtcdTrust, followRoots } from "./follow-roots.ts";
import { AuditFile } from "./guard/audit-file.ts";
import { type ClusterDefaults, Manager, type ManagerServices } from "./manager.ts";
import { createManagerPeers, takeOut } from "./manager-peers.ts";
import { openMembersDoor } from "./members-door.ts";
import type { Membership } from "./membership.ts";
import type { ManagerSettings } from "./options.ts";
import { openRemoteDoor } from "./remote-door.ts";
import { type ManagerLock, runtimeDirectory, UNLOCK_KEY_PLACE } from "./sealing/manager-lock.ts";
import { Sealer } from "./sealing/sealer.ts";
import { EtcdKv } from "./store/etcd-kv.ts";
import type { EtcdMembers } from "./store/etcd-members.ts";
import { RestartableEtcd } from "./store/restartable-etcd.ts";

const parts = { clock: systemClock, random: systemRandom };

/** What a member is made of. */
export interface MemberOptions {
  readonly settings: ManagerSettings;
  readonly nodeId: NodeId;
  readonly membership: Membership;
  readonly lock: ManagerLock;
  /** For a cluster that begins. */
  readonly cluster: ClusterDefaults;
  readonly newCa?: ClusterCa | undefined;
  /** Goes on alone from this member's data. */
  readonly forceNewCluster?: boolean;
  readonly logger: Logger;
}

/** A member that serves. */
export interface Member {
  readonly services: ManagerServices;
  /** The members of the store, where it is the managers' own. */
  readonly members: EtcdMembers | undefined;
  /** How others reach it. */
  readonly address: string;
}

/** Where a manager's key and certificate are while it runs. */
function usedIdentity({ settings, nodeId }: MemberOptions): string {
  return runtimeDirectory(dirname(settings.socket), nodeId);
}

/** Runs until `signal` aborts, or a part of it fails for good. `serving` is told once it answers. */
export async function runMember(
  options: MemberOptions,
  serving: (member: Member) => void,
  signal: AbortSignal,
): Promise<void> {
  const { settings, membership, nodeId, cluster, newCa, lock, logger } = options;
  const { dataDirectory, hostname, insecureRegistries } = settings;
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => lock.close());
  await lock.open();
  const failed = new AbortController();
  const until = AbortSignal.any([signal, failed.signal]);
  const stored = await readCredentials(usedIdentity(options));
  const etcdTrust = { roots: stored.state === "ready" ? stored.credentials.trust : "" };
  await using etcd = await startEtcd(options, until);
  void etcd?.failed.then((reason) => failed.abort(reason));
  const external = membership.etcd.kind === "external" ? membership.etcd.endpoints : [];
  const isRestarting = () => etcd?.isRestarting ?? false;
  using kv = new EtcdKv({ ...parts, logger, endpoints: etcd ? [etcd.endpoint] : external, isRestarting });
  const blobs = await BlobStore.open({ directory: join(dataDirectory, "content"), clock: systemClock });
  using registry = new RegistryClient(systemClock, systemRandom, { insecureRegistries });
  await using doors = new AsyncDisposableStack();
  const { clusterKeys } = lock;
  const audit = cleanup.use(new AuditFile({ path: join(dataDirectory, "audit.log"), clock: systemClock, logger }));
  const peers: Peers = {};
  const manager = new Manager({
    ...{ ...parts, kv, logger, hostname, cluster, newCa, blobs, registry, clusterKeys },
    managerId: nodeId as string as ManagerId,
    version: projectVersion(),
    entropy: systemEntropy,
    ownStore: membership.etcd.kind === "shared" ? ownStore(kv) : undefined,
    auditStore: audit,
    auditPeers: async (address, request, inner) => {
      if (!peers.connect) return [];
      await using transport = peers.connect(address);
      return (await createClient(ManagerPeers, transport).readAudit(request, { signal: inner })).records;
    },
    async serve(services, scope) {
      const clusterKey = clusterKeys.read() ?? new Uint8Array();
      const members = kv.members();
      const opening = { ...options, services, blobs, scope, opened: doors, members, clusterKey, peers, etcdTrust };
      const { bound, identity } = await openDoors(opening);
      if (etcd && membership.etcd.kind === "shared") {
        const { view } = services.store;
        const roots = { kv, view, identity, etcd, etcdTrust, clock: systemClock, logger };
        scope.spawn("roots of etcd", (inner) => followRoots(roots, inner));
      }
      const address = withPort(membership.advertise, bound);
      serving({ services, address, members: membership.etcd.kind === "shared" ? members : undefined });
      return address;
    },
  });
  await manager.run(until);
  if (failed.signal.aborted) throw abortReason(failed.signal);
}

async function startEtcd(options: MemberOptions, signal: AbortSignal): Promise<RestartableEtcd | undefined> {
  const { settings, membership, nodeId, forceNewCluster, logger } = options;
  const { etcd } = membership;
  const common = { ...parts, logger, directory: join(settings.dataDirectory, "etcd") };
  switch (etcd.kind) {
    case "external":
      return undefined;
    case "alone":
      return RestartableEtcd.start(common, signal);
    case "shared": {
      const { listen, advertise, initialCluster, joins } = etcd;
      const credentials = join(usedIdentity(options), "current");
      const peer = { name: nodeId, listen, advertise, initialCluster, joins, credentials };
      return RestartableEtcd.start(
        { ...common, peer: { ...peer, ...(forceNewCluster && { forceNewCluster }) } },
        signal,
      );
    }
  }
}

/** The other managers, once this one has a certificate to show them. */
interface Peers {
  connect?: (address: string) => Transport;
}

interface Doors extends MemberOptions {
  readonly services: ManagerServices;
  readonly blobs: BlobStore;
  readonly members: EtcdMembers;
  readonly clusterKey: Uint8Array;
  readonly peers: Peers;
  readonly etcdTrust: EtcdTrust;
  readonly scope: Scope;
  /** Takes what is to be closed at the end. */
  readonly opened: AsyncDisposableStack;
}

/**
 * What agents, managers and people of other hosts call, on the port, under the cluster's own certificates: who may call what,
 * `authorize` says. And on a port of its own, for people with certificates that they brought.
 */
async function openDoors(doors: Doors): Promise<{ readonly bound: string; readonly identity: ManagerIdentity }> {
  const { settings, membership, nodeId, services, blobs, members, clusterKey, lock, scope, opened, logger } = doors;
  const { etcd } = membership;
  const { api, hostname } = settings;
  const { store, authority, announce } = services;
  await authority.ensure(scope.signal);
  const reached = parseHostPort(membership.advertise)?.host ?? hostname;
  const identity = await ManagerIdentity.open({
    ...{ ...parts, logger, nodeId, authority, announce },
    directory: usedIdentity(doors),
    storeTrust: etcd.kind === "shared" ? () => doors.etcdTrust.roots : undefined,
    hosts: certificateHosts([reached, hostname]),
  });
  await lock.keep(identity.credentials);
  const keep = () =>
    void lock.keep(identity.credentials).catch((err: unknown) => logger.error({ err }, "identity not kept"));
  identity.onRenewed(keep);
  scope.spawn("lock", (signal) => followLock(doors, identity, signal));
  scope.spawn("certificate", (signal) => identity.run(signal));
  const door = opened.use(openMembersDoor({ identity, view: store.view, audit: services.audit, logger }));
  const connect = (address: string) => openGrpcTransport({ address, tls: identity.client });
  doors.peers.connect = connect;
  const content = new Content({
    ...{ blobs, logger, view: store.view, clock: systemClock, managerId: nodeId },
    connect,
  });
  scope.spawn("content", (signal) => content.run(signal));
  const { view } = store;
  door.addService(NodeCa, services.nodeCa);
  door.addService(
    ManagerPeers,
    createManagerPeers({ ...parts, view, etcd, members, clusterKey, audit: services.audit, logger, scope }),
  );
  door.addService(Dispatcher, services.dispatcher);
  door.addService(LogBroker, services.logBroker);
  door.addService(StreamBroker, services.streamBroker);
  door.addService(ContentService, content.implementation);
  door.addService(Control, services.control);
  const bound = await door.listen(membership.listen);
  const remote = api && opened.use(openRemoteDoor(api.files, logger));
  remote?.addService(Control, services.control);
  const apiBound = api && (await remote?.listen(`${api.listen.host}:${api.listen.port}`));
  logger.info({ listen: bound, ...(apiBound ? { api: apiBound } : {}) }, "listening");
  return { bound, identity };
}

/** Port 0 took a free one: others must be told which. */
function withPort(advertise: string, bound: string): string {
  const said = parseHostPort(advertise);
  return said?.port === 0 ? printHostPort({ host: said.host, port: parseHostPort(bound)?.port ?? 0 }) : advertise;
}

/** Locks this manager's keys as the cluster says, now and whenever that changes. */
async function followLock(
  { services: { store }, clusterKey, lock, logger }: Doors,
  identity: ManagerIdentity,
  signal: AbortSignal,
): Promise<void> {
  const sealer = new Sealer(clusterKey, systemEntropy);
  const changes = store.view.changes(signal);
  const apply = async () => {
    const sealed = store.view.cluster?.sealedUnlockKey ?? new Uint8Array();
    await lock.relock(sealed.length === 0 ? undefined : sealer.open(sealed, UNLOCK_KEY_PLACE), identity.credentials);
  };
  await apply();
  for await (const batch of changes) {
    if (!batch.some(({ kind }) => kind === "cluster")) continue;
    await apply();
    logger.debug("keys on the disk are as the cluster says");
  }
}

function ownStore(kv: EtcdKv): OwnStore {
  return {
    takeOut: (id, signal) => takeOut(kv.members(), id, signal),
    places: async () => (await kv.members().list()).map(({ name }) => name).filter((name) => name !== ""),
  };
}

/** Names that a certificate can have, for those who verify a manager by its host, and etcd by its address. */
export function certificateHosts(names: readonly string[]): readonly string[] {
  const wanted = new Set(["localhost", "127.0.0.1", "::1", ...names]);
  return [...wanted].filter((name) => isIP(name) !== 0 || /^[a-zA-Z0-9][a-zA-Z0-9.-]*$/.test(name));
}
