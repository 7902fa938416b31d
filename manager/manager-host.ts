/**
 * swarm-manager on its host: in no cluster and waiting, or a member of one. Its socket is there in either case, for the host's
 * root: LocalManager to begin, join and leave, Control while it is a member.
 *
 *   IDLE ── InitCluster, JoinCluster ──▶ STARTING ──▶ MEMBER ── LeaveCluster, demoted ──▶ IDLE
 *    ▲             it failed ─────────────────┘          │ the process starts again: by membership.json, LOCKED first with autolock
 */
import { networkInterfaces } from "node:os";
import { dirname, join } from "node:path";
import { abortable, abortReason, systemClock, withTimeout } from "../common/base/clock.ts";
import type { DataDirectory } from "../common/base/data-directory.ts";
import { invalidFields, SwarmError } from "../common/base/error.ts";
import { parseHostPort, printHostPort } from "../common/base/host-port.ts";
import { type NodeId, newId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import { systemEntropy, systemRandom } from "../common/base/random.ts";
import { durationMs } from "../common/model/duration.ts";
import { networkSettingsProblems } from "../common/model/validate-cluster.ts";
import { createCertificateRequest } from "../common/pki/certificate-request.ts";
import { writeCredentials } from "../common/pki/credential-files.ts";
import { exportPrivateKey, generateKeyPair, type KeyPair } from "../common/pki/key-pair.ts";
import type { BeginJoinRequest, InitClusterRequest, JoinClusterRequest } from "../proto/gen/swarm/v1/local_pb.js";
import type { ClusterCa } from "../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Role } from "../proto/gen/swarm/v1/types_pb.js";
import { advertisedAddress, MANAGER_PORT } from "./advertised.ts";
import { ClusterAuthority, newClusterCa } from "./ca/cluster-authority.ts";
import { external, joinedMembership, placeOf, takenInBy } from "./joining.ts";
import type { ClusterDefaults } from "./manager.ts";
import { takeOut } from "./manager-peers.ts";
import { certificateHosts, type Member, type MemberOptions, runMember } from "./member.ts";
import { forgetMembership, type Membership, readMembership, writeMembership } from "./membership.ts";
import type { ManagerSettings } from "./options.ts";
import { keyFile } from "./sealing/key-file.ts";
import { ManagerLock, runtimeDirectory } from "./sealing/manager-lock.ts";
import { Sealer } from "./sealing/sealer.ts";

/** A member that joins copies the store; one that begins elects itself. */
const SERVING_MS_MAX = 120_000;
const START_AGAIN_MS = 2_000;
/** Below a call's default deadline: who calls is told what it waits for. */
const STARTING_MS_MAX = 4_000;

/** What a host is made of. */
export interface ManagerHostOptions {
  readonly settings: ManagerSettings;
  readonly directory: DataDirectory<NodeId>;
  readonly logger: Logger;
}

type State =
  | { readonly kind: "idle" }
  /** It needs the unlock key first. */
  | { readonly kind: "locked" }
  | { readonly kind: "starting" }
  | { readonly kind: "member"; readonly membership: Membership; readonly member: Member };

/** One run of a member. */
interface Run {
  readonly stop: AbortController;
  readonly done: Promise<void>;
}

export class ManagerHost {
  readonly #options: ManagerHostOptions;
  readonly #failed = Promise.withResolvers<never>();
  #unlocked = Promise.withResolvers<void>();
  #lock: ManagerLock;
  #nodeId: NodeId;
  /** Until it has looked whether there is a cluster to take up. */
  #state: State = { kind: "starting" };
  #changed = Promise.withResolvers<void>();
  readonly #looked = Promise.withResolvers<void>();
  #run: Run | undefined;
  /** The key of a certificate that was asked for and has not come yet. */
  #pendingKey: KeyPair | undefined;
  #busy = false;

  constructor(options: ManagerHostOptions) {
    this.#options = options;
    this.#nodeId = options.directory.id;
    this.#lock = this.#newLock();
    this.#failed.promise.catch(() => {});
  }

  get state(): State {
    return this.#state;
  }

  get nodeId(): NodeId {
    return this.#nodeId;
  }

  /** The member's part of the API. Throws `failed_precondition` while there is none. */
  get member(): Member {
    if (this.#state.kind === "member") return this.#state.member;
    throw absence(this.#state.kind);
  }

  /** The member; one that is just starting is waited for a little. Throws as `member` does. */
  async whenMember(signal: AbortSignal): Promise<Member> {
    const limit = { clock: systemClock, timeoutMs: STARTING_MS_MAX, operation: "wait for the manager" };
    try {
      await withTimeout(limit, signal, async (inner) => {
        while (this.#state.kind === "starting") await abortable(this.#changed.promise, inner);
      });
    } catch {
      if (signal.aborted) throw abortReason(signal);
    }
    return this.member;
  }

  #become(state: State): void {
    this.#state = state;
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  /** Takes up what was, or what the options say, and goes on until `signal` aborts or a member fails. */
  async run(signal: AbortSignal): Promise<void> {
    const { settings } = this.#options;
    const membership = (await readMembership(settings.dataDirectory)) ?? this.#asked();
    try {
      if (!membership) this.#become({ kind: "idle" });
      this.#looked.resolve();
      if (membership && this.#lock.isLocked) await this.#waitForKey(signal);
      if (membership && this.#state.kind !== "member") await this.#takeUp(membership, signal);
      await abortable(this.#failed.promise, signal);
    } catch (reason) {
      if (!signal.aborted) throw reason;
    } finally {
      await this.#end();
    }
  }

  async #waitForKey(signal: AbortSignal): Promise<void> {
    this.#become({ kind: "locked" });
    this.#options.logger.warn("locked: waiting for swarmctl swarm unlock");
    await abortable(this.#unlocked.promise, signal);
  }

  /** See `LocalManager.UnlockManager`. */
  async unlock(key: Uint8Array): Promise<void> {
    if (this.#state.kind !== "locked") throw new SwarmError("failed_precondition", "this host's manager is not locked");
    await this.#lock.unlock(key);
    this.#unlocked.resolve();
  }

  #newLock(): ManagerLock {
    const { dataDirectory, clusterKeyFile, socket } = this.#options.settings;
    const runtime = runtimeDirectory(dirname(socket), this.#nodeId);
    return new ManagerLock({
      clusterKeyFile,
      identity: join(dataDirectory, "identity"),
      runtime,
      entropy: systemEntropy,
    });
  }

  /** Without its store there is nothing to do but to wait for it, or for somebody who gives the others up. */
  async #takeUp(membership: Membership, signal: AbortSignal): Promise<void> {
    const { settings, logger } = this.#options;
    for (let retrying = false; ; retrying = true) {
      const starting = this.#start({ membership, cluster: settings.cluster }, signal);
      const run = this.#run;
      try {
        return await starting;
      } catch (reason) {
        if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
        // Somebody began anew with what there is: `InitCluster` with force_new_cluster.
        if (this.#run !== run) return;
        if (reason.code !== "unavailable" && reason.code !== "deadline_exceeded") throw reason;
        if (!retrying) logger.error({ err: reason }, "the store has no quorum: waiting for the other managers");
        await this.#end();
      }
      await systemClock.sleep(START_AGAIN_MS, signal);
    }
  }

  /** A manager that is told where to listen, or which etcd to use, begins a cluster of its own accord. */
  #asked(): Membership | undefined {
    const { listen, advertise, etcd } = this.#options.settings;
    if (listen === undefined && etcd.length === 0) return undefined;
    const place = listen ?? { host: "127.0.0.1", port: MANAGER_PORT };
    const said = advertise ? printHostPort({ host: advertise.host, port: advertise.port ?? place.port }) : "";
    return {
      listen: printHostPort(place),
      advertise: advertisedAddress(said, place, networkInterfaces()),
      etcd: etcd.length > 0 ? { kind: "external", endpoints: etcd } : { kind: "alone" },
    };
  }

  /** See `LocalManager.InitCluster`. */
  async init(request: InitClusterRequest, signal: AbortSignal): Promise<void> {
    await this.#alone(async () => {
      if (request.forceNewCluster) return await this.#goOnAlone(signal);
      await this.#requireIdle();
      const place = placeOf(request, this.#nodeId);
      const { dataDirectory } = this.#options.settings;
      const cluster = this.#defaults(request);
      try {
        const membership = request.etcdEndpoints.length > 0 ? external(place, request.etcdEndpoints) : place.shared;
        const newCa = await this.#makeAuthority(place.advertise);
        await writeMembership(dataDirectory, membership);
        await this.#start({ membership, cluster, newCa }, signal);
        await this.#leads(signal);
      } catch (reason) {
        await this.#forget();
        throw reason;
      }
    });
  }

  /** The other managers are lost: what this one has of the store becomes the store. */
  async #goOnAlone(signal: AbortSignal): Promise<void> {
    const { settings, logger } = this.#options;
    const membership = await readMembership(settings.dataDirectory);
    if (membership?.etcd.kind !== "shared") {
      throw new SwarmError(
        "failed_precondition",
        "--force-new-cluster is for a manager that shared its store with managers that are lost; this one did not",
      );
    }
    if (this.#lock.isLocked) throw absence("locked");
    await this.#end();
    logger.warn("beginning anew with this manager's state: the other managers are given up");
    await this.#start({ membership, cluster: settings.cluster, forceNewCluster: true }, signal);
    await this.#leads(signal);
  }

  /** See `LocalManager.BeginJoin`. */
  async beginJoin(
    request: BeginJoinRequest,
  ): Promise<{ readonly certificateRequest: string; readonly hosts: string[] }> {
    await this.#requireIdle();
    const { advertise } = placeOf(request, this.#nodeId);
    this.#pendingKey ??= await generateKeyPair();
    const certificateRequest = await createCertificateRequest(this.#pendingKey);
    return { certificateRequest, hosts: [...this.#hostsOf(advertise)] };
  }

  #hostsOf(advertise: string): readonly string[] {
    return certificateHosts([parseHostPort(advertise)?.host ?? "", this.#options.settings.hostname]);
  }

  /** See `LocalManager.JoinCluster`. The node's id is that of the certificate, which its agent asked for. */
  async join(request: JoinClusterRequest, nodeId: NodeId, signal: AbortSignal): Promise<void> {
    await this.#alone(async () => {
      await this.#requireIdle();
      const { dataDirectory, clusterKeyFile } = this.#options.settings;
      const key = this.#pendingKey;
      if (!key) throw new SwarmError("failed_precondition", "no certificate was asked for: BeginJoin comes first");
      const credentials = { key: exportPrivateKey(key), chain: request.certificates, trust: request.roots };
      const place = placeOf(request, nodeId);
      try {
        this.#adopt(nodeId);
        await writeCredentials(join(dataDirectory, "identity"), credentials);
        const tls = {
          ca: request.roots,
          certificate: request.certificates,
          key: credentials.key,
          serverName: "swarm-manager",
        };
        const taken = await takenInBy(request.managers, tls, place.peer, signal);
        keyFile(clusterKeyFile, systemEntropy).write(taken.clusterKey);
        const membership = joinedMembership(place, taken);
        await writeMembership(dataDirectory, membership);
        await this.#start({ membership, cluster: this.#options.settings.cluster }, signal);
        this.#pendingKey = undefined;
      } catch (reason) {
        await this.#forget();
        throw reason;
      }
    });
  }

  /** See `LocalManager.LeaveCluster`. */
  async leave({ force }: { readonly force: boolean }, signal: AbortSignal): Promise<void> {
    await this.#alone(async () => {
      if (this.#state.kind === "idle")
        throw new SwarmError("failed_precondition", "this host's manager is in no cluster");
      if (this.#state.kind === "member") await this.#takeLeave(this.#state.member, force, signal);
      await this.#forget();
      this.#options.logger.info("left the cluster");
    });
  }

  async #takeLeave({ members, services }: Member, force: boolean, signal: AbortSignal): Promise<void> {
    const others = services.store.view.managers.size - 1;
    if (!force) {
      throw new SwarmError(
        "failed_precondition",
        others > 0
          ? "this host is a manager of its cluster: demote it first (swarmctl node demote), or use --force"
          : "this host is the last manager: leaving erases all state of the cluster; use --force for that",
      );
    }
    if (!members || others <= 0) return;
    try {
      await takeOut(members, this.#nodeId, signal);
    } catch (reason) {
      if (!(reason instanceof SwarmError)) throw reason;
      this.#options.logger.warn(
        { err: reason },
        "the other managers' store keeps a place for this one: remove the node there",
      );
    }
  }

  async #requireIdle(): Promise<void> {
    await this.#looked.promise;
    if (this.#state.kind !== "idle") {
      throw new SwarmError(
        "failed_precondition",
        "this node is already part of a cluster: use swarmctl swarm leave to leave it, and join another then",
      );
    }
  }

  /** One change of membership at a time. */
  async #alone(work: () => Promise<void>): Promise<void> {
    if (this.#busy) throw new SwarmError("unavailable", "this host's manager is just joining or leaving a cluster");
    this.#busy = true;
    try {
      await work();
    } finally {
      this.#busy = false;
    }
  }

  #adopt(nodeId: NodeId): void {
    this.#options.directory.adopt(nodeId);
    this.#nodeId = nodeId;
    this.#lock = this.#newLock();
  }

  /** Cluster key, CA and this manager's certificate, before there is a store: its etcd needs them. */
  async #makeAuthority(advertise: string): Promise<ClusterCa> {
    const { settings } = this.#options;
    const keys = keyFile(settings.clusterKeyFile, systemEntropy);
    const shared = { clock: systemClock, random: systemRandom, entropy: systemEntropy };
    const sealer = new Sealer(keys.read() ?? keys.create(), systemEntropy);
    const ca = await newClusterCa({ ...shared, sealer });
    const store = { view: { cluster: { ca } }, commit: () => Promise.reject(new SwarmError("internal", "no store")) };
    const authority = new ClusterAuthority({ ...shared, sealer, store: store as unknown as StoreOfCa });
    const key = await generateKeyPair();
    const subject = {
      kind: "node",
      nodeId: this.#nodeId,
      role: "swarm-manager",
      clusterId: authority.clusterId,
    } as const;
    const { chain } = await authority.issue(subject, await createCertificateRequest(key), this.#hostsOf(advertise));
    await writeCredentials(join(settings.dataDirectory, "identity"), {
      key: exportPrivateKey(key),
      chain,
      trust: authority.roots,
    });
    return ca;
  }

  #defaults(request: InitClusterRequest): ClusterDefaults {
    const { cluster } = this.#options.settings;
    const { networkPools, networkPrefixLength, dataPathPort } = request;
    const addressPool = request.addressPool || cluster.addressPool;
    const problems = networkSettingsProblems({ addressPool, networkPools, networkPrefixLength, dataPathPort });
    if (problems.length > 0) throw invalidFields(problems);
    return {
      addressPool,
      networks: { networkPools, networkPrefixLength, dataPathPort },
      heartbeatPeriodMs: durationMs(request.heartbeatPeriod) || cluster.heartbeatPeriodMs,
      taskHistoryLimit: request.taskHistoryLimit ?? cluster.taskHistoryLimit,
      certificateLifetimeMs: durationMs(request.certificateLifetime),
    };
  }

  /** Resolves when the member serves. */
  async #start(
    given: Pick<MemberOptions, "membership" | "cluster" | "newCa" | "forceNewCluster">,
    signal: AbortSignal,
  ): Promise<void> {
    const { settings, logger } = this.#options;
    const { membership } = given;
    this.#become({ kind: "starting" });
    const stop = new AbortController();
    const serving = Promise.withResolvers<void>();
    const options: MemberOptions = { ...given, settings, nodeId: this.#nodeId, lock: this.#lock, logger };
    const done = runMember(
      options,
      (member) => {
        this.#become({ kind: "member", membership, member });
        serving.resolve();
        this.#followRole(member, stop.signal).catch((reason: unknown) => {
          if (!stop.signal.aborted) this.#failed.reject(reason);
        });
      },
      stop.signal,
    );
    this.#run = { stop, done };
    done.then(
      () => serving.reject(new SwarmError("canceled", "the manager was stopped")),
      (reason: unknown) => {
        serving.reject(reason);
        // While it is being started its failure is the caller's affair.
        if (this.#state.kind === "member" && !stop.signal.aborted) this.#failed.reject(reason);
      },
    );
    const limit = { clock: systemClock, timeoutMs: SERVING_MS_MAX, operation: "start the manager" };
    await withTimeout(limit, signal, () => serving.promise);
  }

  /** A manager whose node is to be a worker leaves the managers by itself. */
  async #followRole(member: Member, signal: AbortSignal): Promise<void> {
    const { view } = member.services.store;
    const changes = view.changes(signal);
    const isDemoted = () => view.nodes.get(this.#nodeId)?.spec?.desiredRole === NodeSpec_Role.WORKER;
    if (!isDemoted()) {
      for await (const batch of changes) {
        if (batch.some(({ kind, id }) => kind === "node" && id === this.#nodeId) && isDemoted()) break;
      }
    }
    if (!isDemoted()) return;
    this.#options.logger.info("demoted: leaving the managers");
    await this.#alone(async () => {
      await this.#takeLeave(member, true, signal);
      await this.#forget();
    });
  }

  /** A cluster that begins is there when its one manager leads. */
  async #leads(signal: AbortSignal): Promise<void> {
    const { view } = this.member.services.store;
    const limit = { clock: systemClock, timeoutMs: SERVING_MS_MAX, operation: "become the leader" };
    await withTimeout(limit, signal, async (inner) => {
      while (view.leader?.managerId !== this.#nodeId) await view.waitForRevision(view.revision + 1, inner);
    });
  }

  async #end(): Promise<void> {
    const run = this.#run;
    this.#run = undefined;
    if (!run) return;
    run.stop.abort(new SwarmError("canceled", "manager stops"));
    await run.done.catch(() => {});
  }

  /** Back to nothing, under a new id: the old one may be known as another's still. */
  async #forget(): Promise<void> {
    await this.#end();
    this.#become({ kind: "idle" });
    await forgetMembership(this.#options.settings.dataDirectory);
    this.#adopt(newId<NodeId>(systemRandom));
  }
}

/** Why there is no member to talk to, and what to do. */
function absence(kind: Exclude<State["kind"], "member">): SwarmError {
  switch (kind) {
    case "idle":
      return new SwarmError(
        "failed_precondition",
        "this host's manager is in no cluster: swarmctl swarm init begins one, swarmctl swarm join joins one",
      );
    case "locked":
      return new SwarmError(
        "failed_precondition",
        "the swarm is locked: this host's manager must be unlocked before it can be used (swarmctl swarm unlock)",
      );
    case "starting":
      return new SwarmError("unavailable", "this host's manager is starting");
  }
}

type StoreOfCa = ConstructorParameters<typeof ClusterAuthority>[0]["store"];
