/** swarm-manager: opens the real store, disk and doors, puts a Manager together from them, and runs it until a signal comes. */
import { isIP } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { abortReason, systemClock } from "../common/base/clock.ts";
import { openDataDirectory } from "../common/base/data-directory.ts";
import { printHostPort } from "../common/base/host-port.ts";
import type { ManagerId, NodeId } from "../common/base/id.ts";
import { type Logger, openLogger } from "../common/base/logger.ts";
import { dieOfBugs, runProgram } from "../common/base/program.ts";
import { systemEntropy, systemRandom } from "../common/base/random.ts";
import type { Scope } from "../common/base/scope.ts";
import { stopSignal } from "../common/base/stop-signal.ts";
import { projectVersion } from "../common/base/version.ts";
import { RegistryClient } from "../common/registry/client.ts";
import { GrpcServer } from "../common/rpc/grpc-server.ts";
import { openGrpcTransport } from "../common/rpc/grpc-transport.ts";
import { MutualTls } from "../common/rpc/tls.ts";
import { loadTlsFiles, type ServerTlsFiles } from "../common/rpc/tls-files.ts";
import { NodeCa } from "../proto/gen/swarm/v1/ca_pb.js";
import { Control } from "../proto/gen/swarm/v1/control_pb.js";
import { Content as ContentService, Dispatcher, LogBroker, StreamBroker } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { authorize } from "./access.ts";
import { ManagerIdentity } from "./ca/manager-identity.ts";
import { BlobStore } from "./content/blob-store.ts";
import { Content } from "./content/content.ts";
import { Manager, type ManagerServices } from "./manager.ts";
import { describeProgram, type ManagerSettings, managerSettings } from "./options.ts";
import { keyFile } from "./sealing/key-file.ts";
import { EmbeddedEtcd } from "./store/embedded-etcd.ts";
import { EtcdKv } from "./store/etcd-kv.ts";
import type { Store } from "./store/store.ts";

/** Agents connect again after this long, which spreads them over the managers once more. */
const CONNECTION_AGE_MS_MAX = 60 * 60_000;

const parts = { clock: systemClock, random: systemRandom };

function main(): Promise<number> {
  return runProgram(describeProgram(projectVersion()), async (values) => {
    const settings = managerSettings(values, { isRoot: process.getuid?.() === 0, environment: process.env });
    const logger = openLogger("swarm-manager", settings.log);
    dieOfBugs(logger);
    const stop = stopSignal(logger, "manager stops");
    try {
      await run(settings, logger, stop);
    } catch (reason) {
      if (!stop.aborted) throw reason;
    }
    logger.info("manager stopped");
  });
}

async function run(settings: ManagerSettings, logger: Logger, stop: AbortSignal): Promise<void> {
  const { dataDirectory, hostname, cluster } = settings;
  using directory = await openDataDirectory<ManagerId>(dataDirectory, "manager-id", systemRandom);
  const { id: managerId } = directory;
  const failed = new AbortController();
  const signal = AbortSignal.any([stop, failed.signal]);
  await using etcd = await startEtcd(settings, logger, signal);
  void etcd?.exited.then((reason) => {
    if (reason) failed.abort(reason);
  });
  const endpoints = etcd ? [etcd.endpoint] : settings.etcd;
  using kv = new EtcdKv({ ...parts, logger, endpoints });
  const blobs = await BlobStore.open({ directory: join(dataDirectory, "content"), clock: systemClock });
  using registry = new RegistryClient(systemClock, systemRandom, { insecureRegistries: settings.insecureRegistries });
  await using local = new GrpcServer({ logger });
  await using remote = settings.api && openRemoteDoor(settings.api.files, logger);
  await using doors = new AsyncDisposableStack();
  const manager = new Manager({
    ...parts,
    kv,
    logger,
    managerId,
    hostname,
    version: projectVersion(),
    cluster,
    blobs,
    registry,
    clusterKeys: keyFile(settings.clusterKeyFile, systemEntropy),
    entropy: systemEntropy,
    serve: (services, scope) =>
      openDoors(
        { services, local, remote, blobs, scope, opened: doors, nodeId: managerId as string as NodeId },
        settings,
        logger,
      ),
  });
  await manager.run(signal);
  if (failed.signal.aborted) throw abortReason(failed.signal);
}

async function startEtcd(
  { etcd, dataDirectory }: ManagerSettings,
  logger: Logger,
  signal: AbortSignal,
): Promise<EmbeddedEtcd | undefined> {
  if (etcd.length > 0) return undefined;
  return EmbeddedEtcd.start({ ...parts, logger, directory: join(dataDirectory, "etcd") }, signal);
}

interface Doors {
  readonly services: ManagerServices;
  readonly blobs: BlobStore;
  /** Who this manager is. */
  readonly nodeId: NodeId;
  readonly scope: Scope;
  /** The unix socket: people of this host. */
  readonly local: GrpcServer;
  /** The TLS port for certificates that people brought themselves. */
  readonly remote: GrpcServer | undefined;
  /** Takes what is to be closed at the end. */
  readonly opened: AsyncDisposableStack;
}

/**
 * Control on the socket, and for people of other hosts; what agents and managers call on the port only, under the cluster's
 * own certificates: who may call what, `authorize` says.
 */
async function openDoors(
  { services, blobs, nodeId, local, remote, scope, opened }: Doors,
  settings: ManagerSettings,
  logger: Logger,
): Promise<string> {
  const { listen, advertise, socket, api, dataDirectory, hostname } = settings;
  const { store, authority } = services;
  await authority.ensure(scope.signal);
  const reached = advertise?.host ?? reachable(listen.host);
  const identity = await ManagerIdentity.open({
    ...{ ...parts, logger, nodeId, authority },
    directory: join(dataDirectory, "identity"),
    hosts: certificateHosts([reached, hostname]),
  });
  scope.spawn("certificate", (signal) => identity.run(signal));
  const members = opened.use(openMembersDoor(identity, store, logger));
  const content = new Content({
    ...{ blobs, logger, view: store.view, clock: systemClock, managerId: nodeId },
    connect: (address: string) => openGrpcTransport({ address, tls: identity.client }),
  });
  scope.spawn("content", (signal) => content.run(signal));
  members.addService(NodeCa, services.nodeCa);
  members.addService(Dispatcher, services.dispatcher);
  members.addService(LogBroker, services.logBroker);
  members.addService(StreamBroker, services.streamBroker);
  members.addService(ContentService, content.implementation);
  for (const server of [members, local, remote]) server?.addService(Control, services.control);
  const bound = await members.listen(printHostPort(listen));
  await local.listen(`unix:${socket}`);
  const apiBound = api && (await remote?.listen(printHostPort(api.listen)));
  const port = Number(bound.slice(bound.lastIndexOf(":") + 1));
  logger.info({ socket, listen: bound, ...(apiBound ? { api: apiBound } : {}) }, "listening");
  return printHostPort({ host: reached, port: advertise?.port ?? port });
}

/** Hosts without a certificate reach it too, for their first one. */
function openMembersDoor(identity: ManagerIdentity, { view }: Store, logger: Logger): GrpcServer {
  const tls = new MutualTls(identity.server, { anonymous: true });
  identity.onRenewed(() => tls.renew(identity.server));
  // A manager is a member before it has an agent beside it.
  const isMember = (nodeId: string) => view.nodes.has(nodeId) || view.managers.has(nodeId);
  return new GrpcServer({
    ...{ logger, tls, connectionAgeMsMax: CONNECTION_AGE_MS_MAX },
    identify: (certificate) => identity.identify(certificate),
    authorize: (method, peer) => authorize(method, peer.identity, isMember),
  });
}

/** Names that a certificate can have, for those who verify a manager by its host. */
function certificateHosts(names: readonly string[]): readonly string[] {
  const wanted = new Set(["localhost", "127.0.0.1", "::1", ...names]);
  return [...wanted].filter((name) => isIP(name) !== 0 || /^[a-zA-Z0-9][a-zA-Z0-9.-]*$/.test(name));
}

/** A server for clients with a certificate. SIGHUP reads the files again: bad ones are logged, and the old ones stay. */
function openRemoteDoor(files: ServerTlsFiles, logger: Logger): GrpcServer {
  const load = () => {
    const { pem, warnings } = loadTlsFiles(files, { end: "server", nowMs: systemClock.nowMs() });
    for (const warning of warnings) logger.warn(warning);
    return pem;
  };
  const tls = new MutualTls(load());
  process.on("SIGHUP", () => {
    try {
      tls.renew(load());
      logger.info({ certificate: files.certificate }, "certificate renewed");
    } catch (reason) {
      logger.error({ err: reason }, "certificate not renewed");
    }
  });
  return new GrpcServer({ logger, tls });
}

/** An address that others can use for a host that means "all of them". */
function reachable(host: string): string {
  if (host !== "0.0.0.0" && host !== "::") return host;
  const addresses = Object.values(networkInterfaces()).flatMap((of) => of ?? []);
  return addresses.find(({ internal, family }) => !internal && family === "IPv4")?.address ?? "127.0.0.1";
}

void main().then((code) => process.exit(code));
