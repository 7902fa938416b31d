/** swarm-manager: opens the real store, disk and doors, puts a Manager together from them, and runs it until a signal comes. */
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { abortReason, systemClock } from "../common/base/clock.ts";
import { openDataDirectory } from "../common/base/data-directory.ts";
import { isLoopback, printHostPort } from "../common/base/host-port.ts";
import type { ManagerId } from "../common/base/id.ts";
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
import { Control } from "../proto/gen/swarm/v1/control_pb.js";
import { Content as ContentService, Dispatcher, LogBroker, StreamBroker } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { BlobStore } from "./content/blob-store.ts";
import { Content } from "./content/content.ts";
import { Manager, type ManagerServices } from "./manager.ts";
import { describeProgram, type ManagerSettings, managerSettings } from "./options.ts";
import { keyFile } from "./sealing/key-file.ts";
import { EmbeddedEtcd } from "./store/embedded-etcd.ts";
import { EtcdKv } from "./store/etcd-kv.ts";

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
  await using agents = new GrpcServer({ logger, connectionAgeMsMax: CONNECTION_AGE_MS_MAX });
  await using remote = settings.api && openRemoteDoor(settings.api.files, logger);
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
        { services, local, agents, remote, content: contentOf(services, { blobs, managerId, logger }), scope },
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

function contentOf(
  { store }: ManagerServices,
  options: { readonly blobs: BlobStore; readonly managerId: string; readonly logger: Logger },
): Content {
  const connect = (address: string) => openGrpcTransport({ address });
  return new Content({ ...options, view: store.view, clock: systemClock, connect });
}

interface Doors {
  readonly services: ManagerServices;
  readonly content: Content;
  readonly scope: Scope;
  /** The unix socket: people of this host. */
  readonly local: GrpcServer;
  /** The port: agents and other managers. */
  readonly agents: GrpcServer;
  /** The TLS port: people of other hosts. */
  readonly remote: GrpcServer | undefined;
}

/** Control on the socket and to clients with a certificate; what agents call on the port only. */
async function openDoors(
  { services, content, local, agents, remote, scope }: Doors,
  { listen, advertise, socket, api }: ManagerSettings,
  logger: Logger,
): Promise<string> {
  local.addService(Control, services.control);
  agents.addService(Dispatcher, services.dispatcher);
  agents.addService(LogBroker, services.logBroker);
  agents.addService(StreamBroker, services.streamBroker);
  agents.addService(ContentService, content.implementation);
  scope.spawn("content", (signal) => content.run(signal));
  const bound = await agents.listen(printHostPort(listen));
  await local.listen(`unix:${socket}`);
  remote?.addService(Control, services.control);
  const apiBound = api && (await remote?.listen(printHostPort(api.listen)));
  const port = Number(bound.slice(bound.lastIndexOf(":") + 1));
  if (!isLoopback(listen.host)) {
    logger.warn({ address: bound }, "agents' connections are neither encrypted nor authenticated");
  }
  logger.info({ socket, listen: bound, ...(apiBound ? { api: apiBound } : {}) }, "listening");
  return printHostPort({ host: advertise?.host ?? reachable(listen.host), port: advertise?.port ?? port });
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
