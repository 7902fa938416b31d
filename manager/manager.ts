/**
 * A manager: the store's mirror, the services it offers, its place among the managers, and its candidacy. The same class
 * runs in the program and in the simulator; it knows its store, its wire and its clock only as handed in.
 *
 *   swarmctl ── Control ────────┐
 *   agents ──── Dispatcher ─────┼── store (view, commit) ── etcd
 *          ──── LogBroker ──────┤
 *          ──── StreamBroker ───┤
 *          ──── Content         └── election ── leader's loops
 */
import { create } from "@bufbuild/protobuf";
import type { Clock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import type { ManagerId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Entropy, Random } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { toDuration } from "../common/model/duration.ts";
import type { ServiceImplementation } from "../common/rpc/service.ts";
import type { NodeCa } from "../proto/gen/swarm/v1/ca_pb.js";
import type { Control } from "../proto/gen/swarm/v1/control_pb.js";
import type { Dispatcher as DispatcherService, LogBroker, StreamBroker } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import {
  type ClusterCa,
  ClusterSchema,
  type ClusterSpec,
  ManagerInfoSchema,
  type NodeCertificate,
} from "../proto/gen/swarm/v1/objects_pb.js";
import { ClusterAuthority } from "./ca/cluster-authority.ts";
import { createNodeCa } from "./ca/node-ca.ts";
import { createControl } from "./control/control.ts";
import type { ImageBlobs, OwnStore, Registries } from "./control/dependencies.ts";
import { Dispatcher } from "./dispatcher/dispatcher.ts";
import { Audit, type AuditStore } from "./guard/audit.ts";
import { type AuditPeers, gatheredAudits } from "./guard/audit-gathering.ts";
import { guardControl } from "./guard/guard.ts";
import { runLeader } from "./leader.ts";
import { LogHub } from "./logbroker/log-hub.ts";
import { ManagerCard, runPresence } from "./presence.ts";
import { type ClusterKeys, keyId } from "./sealing/cluster-key.ts";
import { Sealer } from "./sealing/sealer.ts";
import { runElection } from "./store/election.ts";
import { checkFormat, STORE_FORMAT } from "./store/format.ts";
import type { Kv, LeaseId } from "./store/kv.ts";
import { openStore } from "./store/open-store.ts";
import type { Proposal } from "./store/proposal.ts";
import type { Store } from "./store/store.ts";
import { StreamHub } from "./streambroker/stream-hub.ts";

/** What a new cluster is made with; later it is the stored object that counts. */
export interface ClusterDefaults {
  readonly addressPool: string;
  /** Absent: the defaults. */
  readonly networks?: Pick<ClusterSpec, "networkPools" | "networkPrefixLength" | "dataPathPort">;
  readonly heartbeatPeriodMs: number;
  readonly taskHistoryLimit: number;
  /** Of nodes' certificates; absent: 90 days. */
  readonly certificateLifetimeMs?: number | undefined;
}

/** What a manager offers; `serve` decides on which doors. */
export interface ManagerServices {
  readonly store: Store;
  /** Its CA is made by `ensure`. */
  readonly authority: ClusterAuthority;
  /** Tells the cluster of the certificate that this manager has. */
  readonly announce: (certificate: NodeCertificate) => void;
  /** Where changes go that do not come through `control`. */
  readonly audit: Audit;
  readonly nodeCa: ServiceImplementation<typeof NodeCa>;
  readonly control: ServiceImplementation<typeof Control>;
  readonly dispatcher: ServiceImplementation<typeof DispatcherService>;
  readonly logBroker: ServiceImplementation<typeof LogBroker>;
  readonly streamBroker: ServiceImplementation<typeof StreamBroker>;
}

/** What a manager is made of. */
export interface ManagerOptions {
  readonly kv: Kv;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly managerId: ManagerId;
  readonly hostname: string;
  readonly version: string;
  readonly cluster: ClusterDefaults;
  /** The authority of a cluster that begins with this manager; absent: one is made when it is asked for. */
  readonly newCa?: ClusterCa | undefined;
  readonly blobs: ImageBlobs;
  readonly registry: Registries;
  /** The key that seals secrets. A new cluster gets one; a manager without its cluster's does not start. */
  readonly clusterKeys: ClusterKeys;
  readonly entropy: Entropy;
  /** Absent: the store is somebody else's. */
  readonly ownStore?: OwnStore | undefined;
  /** Where changes are written down, besides the log. */
  readonly auditStore?: AuditStore | undefined;
  /** What the other managers have written down. */
  readonly auditPeers?: AuditPeers | undefined;
  /**
   * Opens the doors. Returns the address at which agents and other managers reach this one. What it spawns in `scope`
   * runs as long as the manager; the doors themselves are closed by whoever opened them.
   */
  readonly serve: (services: ManagerServices, scope: Scope) => Promise<string>;
}

/** The services that need a lease, while there is one. */
interface Present {
  readonly dispatcher: Dispatcher;
  readonly hub: LogHub;
  readonly streams: StreamHub;
}

export class Manager {
  readonly #options: ManagerOptions;
  #present: Present | undefined;

  constructor(options: ManagerOptions) {
    this.#options = { ...options, logger: options.logger.child({ managerId: options.managerId }) };
  }

  /** Runs until `signal` aborts, or a part of it fails for good. On return its leases are given back. */
  async run(signal: AbortSignal): Promise<void> {
    const { kv, clock, random, entropy, logger, managerId, hostname, version, serve } = this.#options;
    await using scope = new Scope(signal);
    const store = await openStore({ kv, clock, random, logger }, scope);
    const sealer = await this.#openCluster(store, scope.signal);
    const authority = new ClusterAuthority({ store, sealer, clock, random, entropy });
    const card = new ManagerCard(create(ManagerInfoSchema, { id: managerId, hostname, version }));
    const announce = (certificate: NodeCertificate) => card.change({ certificate });
    const address = await serve({ ...this.#services(store, sealer, authority), announce }, scope);
    card.change({ address });
    scope.spawn("presence", (inner) =>
      runPresence(
        { kv, store, clock, random, logger, card },
        (lease, until) => this.#live({ store, sealer, lease }, until),
        inner,
      ),
    );
    scope.spawn("election", (inner) =>
      runElection(
        { kv, clock, random, logger, managerId },
        (leadership) => runLeader({ store, fence: leadership, clock, random, logger }, leadership.signal),
        inner,
      ),
    );
    logger.info({ address, version, revision: store.view.revision }, "manager ready");
    await scope.join();
  }

  /** One lease's time: agents have sessions, readers have logs. */
  async #live(
    on: { readonly store: Store; readonly sealer: Sealer; readonly lease: LeaseId },
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, random, logger, managerId } = this.#options;
    const common = { ...on, clock, random, logger, managerId };
    const dispatcher = new Dispatcher(common);
    const sessionSignal = (nodeId: string, sessionId: string) => dispatcher.sessionSignal(nodeId, sessionId);
    const hub = new LogHub({ ...common, sessionSignal });
    const streams = new StreamHub({ ...common, sessionSignal });
    this.#present = { dispatcher, hub, streams };
    try {
      await using scope = new Scope(signal);
      scope.spawn("dispatcher", (inner) => dispatcher.run(inner));
      scope.spawn("logs", (inner) => hub.run(inner));
      scope.spawn("streams", (inner) => streams.run(inner));
      await scope.join();
    } finally {
      this.#present = undefined;
    }
  }

  #services(store: Store, sealer: Sealer, authority: ClusterAuthority): Omit<ManagerServices, "announce"> {
    const { clock, random, entropy, logger, managerId, version, blobs, registry, auditStore, auditPeers } =
      this.#options;
    const dispatcher = () => this.#require().dispatcher.implementation;
    const logBroker = () => this.#require().hub.implementation;
    const streamBroker = () => this.#require().streams.implementation;
    const audit = new Audit({ view: store.view, clock, logger, managerId, store: auditStore });
    const control = createControl({
      store,
      blobs,
      registry,
      sealer,
      entropy,
      authority,
      ownStore: this.#options.ownStore,
      isInTouch: () => this.#present !== undefined,
      audits: gatheredAudits({ view: store.view, clock, managerId, audit, peers: auditPeers }),
      logs: { subscribe: (...request) => this.#require().hub.subscribe(...request) },
      streams: { open: (...request) => this.#require().streams.open(...request) },
      clock,
      random,
      logger,
      managerId,
      version,
    });
    return {
      store,
      authority,
      audit,
      nodeCa: createNodeCa({ store, authority, audit, clock, random, logger }),
      control: guardControl(control, { view: store.view, audit }),
      dispatcher: {
        openSession: (...call) => dispatcher().openSession(...call),
        heartbeat: (...call) => dispatcher().heartbeat(...call),
        watchAssignments: (...call) => dispatcher().watchAssignments(...call),
        updateTaskStatus: async (...call) => dispatcher().updateTaskStatus(...call),
        reportVolumes: async (...call) => dispatcher().reportVolumes(...call),
        reportCertificate: async (...call) => dispatcher().reportCertificate(...call),
        reportWireguardKey: async (...call) => dispatcher().reportWireguardKey(...call),
        reportNetworkFact: async (...call) => dispatcher().reportNetworkFact(...call),
      },
      logBroker: {
        listenSubscriptions: (...call) => logBroker().listenSubscriptions(...call),
        publishLogs: async (...call) => logBroker().publishLogs(...call),
      },
      streamBroker: {
        listenStreams: (...call) => streamBroker().listenStreams(...call),
        carryStream: (...call) => streamBroker().carryStream(...call),
      },
    };
  }

  #require(): Present {
    if (!this.#present) throw new SwarmError("unavailable", "this manager has lost touch with the store");
    return this.#present;
  }

  /** The first manager of a cluster writes its settings, and makes its key; settings of later ones do not matter. */
  async #openCluster(store: Store, signal: AbortSignal): Promise<Sealer> {
    const { clusterKeys, entropy, logger } = this.#options;
    checkFormat(store.view.cluster?.storeFormat ?? 0);
    let key = clusterKeys.read();
    if (!store.view.cluster?.keyId) {
      key ??= clusterKeys.create();
      await this.#writeCluster(store, keyId(key), signal);
    }
    const wanted = store.view.cluster?.keyId ?? "";
    if (key === undefined || keyId(key) !== wanted) {
      const found = key === undefined ? "is missing" : `is another one (${keyId(key)})`;
      throw new SwarmError(
        "failed_precondition",
        `this cluster's secrets are sealed under key ${wanted}; ${clusterKeys.place} ${found}: ` +
          "copy cluster.key from another manager's data directory to there, or name it with --cluster-key-file",
      );
    }
    logger.debug({ keyId: wanted }, "cluster key found");
    return new Sealer(key, entropy);
  }

  async #writeCluster(store: Store, id: string, signal: AbortSignal): Promise<void> {
    const { newCa } = this.#options;
    const { addressPool, heartbeatPeriodMs, taskHistoryLimit, certificateLifetimeMs, networks } = this.#options.cluster;
    const { cluster } = store.view;
    const spec = {
      addressPool,
      ...networks,
      heartbeatPeriod: toDuration(heartbeatPeriodMs),
      taskHistoryLimit,
      ...(certificateLifetimeMs === undefined ? {} : { certificateLifetime: toDuration(certificateLifetimeMs) }),
    };
    const proposal: Proposal = cluster
      ? { type: "update", kind: "cluster", object: { ...cluster, keyId: id } }
      : {
          type: "create",
          kind: "cluster",
          object: create(ClusterSchema, {
            ...{ id: "default", spec, keyId: id, storeFormat: STORE_FORMAT },
            ...(newCa && { ca: newCa }),
          }),
        };
    // Who loses this race finds out by the key's id.
    await store.commit([proposal], { signal });
  }
}
