/**
 * swarm-agent on its host: no node yet and waiting, or a node of a cluster. Its socket is there in either case, for the host's
 * root. It also brings the manager of this host into the cluster when the node is to be a manager: the node asks for that one's
 * certificate, since it is the node that the cluster knows.
 *
 *   IDLE ── JoinNode (token, or the manager beside it) ──▶ MEMBER ── LeaveNode ──▶ IDLE
 *                                                            └── its role becomes manager ──▶ LocalManager: BeginJoin, JoinCluster
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Backoff } from "../common/base/backoff.ts";
import { abortable, abortReason, systemClock, withTimeout } from "../common/base/clock.ts";
import type { DataDirectory } from "../common/base/data-directory.ts";
import { AssertionFailure, SwarmError } from "../common/base/error.ts";
import type { NodeId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import { systemRandom } from "../common/base/random.ts";
import { createCertificateRequest } from "../common/pki/certificate-request.ts";
import { exportPrivateKey, generateKeyPair } from "../common/pki/key-pair.ts";
import type { SessionMessage } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { JoinNodeRequest } from "../proto/gen/swarm/v1/local_pb.js";
import { NodeSpec_Role } from "../proto/gen/swarm/v1/types_pb.js";
import { readManagers, writeManagers } from "./known-managers.ts";
import { type LocalManagerDoor, openLocalManager } from "./local-manager-door.ts";
import { purgeNode, runNode } from "./node.ts";
import { askToJoin, NodeIdentity, type NodeIdentityOptions } from "./node-identity.ts";
import type { AgentSettings } from "./options.ts";
import type { HostFacts } from "./runtime/host-facts.ts";
import { ManagerList } from "./session.ts";

/** From the certificate to the first session, which needs a manager that leads or knows who does. */
const SESSION_MS_MAX = 60_000;
/** The manager beside us may be away, or the others' etcd not ready for one more. */
const PROMOTE_RETRY = { delayMsMin: 500, delayMsMax: 15_000 };
/** What is the cluster's in the data directory; images and volumes are the host's. */
const CLUSTERS_PARTS = [
  "identity",
  "tasks",
  "containers",
  "endpoints.pb",
  "network.json",
  "rules.bin",
  "managers.json",
];

/** What a host is made of. */
export interface AgentHostOptions {
  readonly settings: AgentSettings;
  readonly facts: HostFacts;
  readonly directory: DataDirectory<NodeId>;
  readonly logger: Logger;
}

/** A node at work. */
interface Running {
  readonly identity: NodeIdentity;
  readonly managers: ManagerList;
  readonly stop: AbortController;
  readonly done: Promise<void>;
  /** The newest word of a manager. */
  heard: SessionMessage | undefined;
  readonly firstHeard: Promise<SessionMessage>;
  /** Whether managers do not want it as it is: it may join again. */
  isRefused: boolean;
}

export class AgentHost {
  readonly #options: AgentHostOptions;
  readonly #failed = Promise.withResolvers<never>();
  #running: Running | undefined;
  #promoting = false;
  #busy = false;

  constructor(options: AgentHostOptions) {
    this.#options = options;
    this.#failed.promise.catch(() => {});
  }

  get running(): Running | undefined {
    return this.#running;
  }

  /** Takes up what was, or joins as the options say, and goes on until `signal` aborts or the node fails. */
  async run(signal: AbortSignal): Promise<void> {
    const { settings, logger } = this.#options;
    try {
      const identity = (await NodeIdentity.read(this.#identityOptions)) ?? (await this.#joinAsTold(signal));
      if (identity) await this.#start(identity, settings.managers);
      else logger.info("no node of a cluster yet: swarmctl swarm join makes this host one");
      await abortable(this.#failed.promise, signal);
    } catch (reason) {
      if (!signal.aborted) throw reason;
    } finally {
      await this.#end();
    }
  }

  /** See `LocalAgent.JoinNode`. */
  async join(
    request: JoinNodeRequest,
    signal: AbortSignal,
  ): Promise<{ readonly nodeId: NodeId; readonly role: NodeSpec_Role }> {
    return await this.#alone(async () => {
      const former = this.#running;
      if (former && !former.isRefused) {
        throw new SwarmError(
          "failed_precondition",
          "this node is already part of a cluster: use swarmctl swarm leave to leave it, and join another then",
        );
      }
      const isBeside = request.managers.length === 0;
      const { given, managers } = isBeside
        ? await this.#askBeside(request, signal)
        : await this.#askManagers(request, signal);
      // It is somebody else's node, or nobody's: what it was ends only now that it is sure to be one again.
      if (former) await this.#forget(former, signal);
      const identity = await NodeIdentity.adopt(this.#identityOptions, given);
      this.#options.directory.adopt(identity.nodeId);
      await writeManagers(this.#options.settings.dataDirectory, managers);
      const running = await this.#start(identity, managers);
      const limit = { clock: systemClock, timeoutMs: SESSION_MS_MAX, operation: "open a session with a manager" };
      const { role } = await withTimeout(limit, signal, (inner) => abortable(running.firstHeard, inner));
      if (role === NodeSpec_Role.MANAGER && request.managers.length > 0) await this.#promote(running, request, signal);
      return { nodeId: identity.nodeId, role };
    });
  }

  /** See `LocalAgent.LeaveNode`. */
  async leave(signal: AbortSignal): Promise<void> {
    await this.#alone(async () => {
      const running = this.#running;
      if (!running) throw new SwarmError("failed_precondition", "this host is no node of a cluster");
      await this.#forget(running, signal);
    });
  }

  /** Ends the node and its containers. */
  async #forget({ identity: { nodeId } }: Running, signal: AbortSignal): Promise<void> {
    const { settings, facts, logger } = this.#options;
    await this.#end();
    await purgeNode({ settings, nodeId, facts, logger }, { removeAll: false }, signal);
    for (const part of CLUSTERS_PARTS) await rm(join(settings.dataDirectory, part), { recursive: true, force: true });
    logger.info({ nodeId }, "left the cluster");
  }

  get #identityOptions(): NodeIdentityOptions {
    const { settings, logger } = this.#options;
    const directory = join(settings.dataDirectory, "identity");
    return { directory, clock: systemClock, random: systemRandom, logger };
  }

  async #joinAsTold(signal: AbortSignal): Promise<NodeIdentity | undefined> {
    const { settings, directory, logger } = this.#options;
    const token = await settings.joinToken();
    if (token === undefined) return undefined;
    const identity = await NodeIdentity.join(this.#identityOptions, { managers: settings.managers, token }, signal);
    directory.adopt(identity.nodeId);
    logger.info({ nodeId: identity.nodeId, clusterId: identity.clusterId }, "joined the cluster");
    return identity;
  }

  async #askManagers({ managers, token, availability }: JoinNodeRequest, signal: AbortSignal) {
    return { given: await askToJoin({ managers, token, availability }, signal), managers };
  }

  /** The manager on this host is the node's own: it needs no token. */
  async #askBeside({ availability }: JoinNodeRequest, signal: AbortSignal) {
    const keys = await generateKeyPair();
    await using door = this.#localManager();
    const certificateRequest = await createCertificateRequest(keys);
    const answer = await door.client.issueLocalCertificate({ certificateRequest, availability }, { signal });
    return { given: { key: exportPrivateKey(keys), answer }, managers: answer.managers };
  }

  #localManager(): LocalManagerDoor {
    return openLocalManager(this.#options.settings.managerSocket);
  }

  async #start(identity: NodeIdentity, configured: readonly string[]): Promise<Running> {
    const { settings, facts, logger } = this.#options;
    const managers = new ManagerList(configured);
    managers.learn(await readManagers(settings.dataDirectory));
    const stop = new AbortController();
    const first = Promise.withResolvers<SessionMessage>();
    const heard = (message: SessionMessage) => {
      running.heard = message;
      running.isRefused = false;
      first.resolve(message);
      this.#follow(running, message);
    };
    const refused = () => {
      running.isRefused = true;
    };
    const done = runNode({ settings, facts, identity, managers, heard, refused, logger }, stop.signal);
    const state = { heard: undefined, firstHeard: first.promise, isRefused: false };
    const running: Running = { identity, managers, stop, done, ...state };
    this.#running = running;
    first.promise.catch(() => {});
    done.catch((reason: unknown) => {
      first.reject(reason);
      if (!stop.signal.aborted) this.#failed.reject(reason);
    });
    return running;
  }

  /** Keeps the list of managers, and brings this host's manager in when the node becomes one. */
  #follow(running: Running, { managers, role }: SessionMessage): void {
    const { settings, logger } = this.#options;
    const addresses = managers.map(({ address }) => address);
    if (addresses.length > 0) {
      writeManagers(settings.dataDirectory, addresses).catch((err: unknown) =>
        logger.warn({ err }, "managers not recorded"),
      );
    }
    if (role !== NodeSpec_Role.MANAGER || this.#promoting || this.#busy) return;
    this.#promoting = true;
    this.#keepPromoting(running)
      .catch((reason: unknown) => {
        if (reason instanceof AssertionFailure) this.#failed.reject(reason);
        else if (!running.stop.signal.aborted) logger.warn({ err: reason }, "this host's manager is not brought in");
      })
      .finally(() => {
        this.#promoting = false;
      });
  }

  async #keepPromoting(running: Running): Promise<void> {
    const { signal } = running.stop;
    const backoff = new Backoff(PROMOTE_RETRY, systemRandom);
    while (running.heard?.role === NodeSpec_Role.MANAGER) {
      try {
        return await this.#promote(running, { listenAddress: "", advertiseAddress: "" }, signal);
      } catch (reason) {
        if (signal.aborted) throw abortReason(signal);
        this.#options.logger.warn({ err: reason }, "this host's manager is not in the cluster yet");
      }
      await systemClock.sleep(backoff.nextDelayMs(), signal);
    }
  }

  /** Nothing to do for a manager that is in a cluster already. */
  async #promote(
    { identity, managers, heard }: Running,
    { listenAddress, advertiseAddress }: Pick<JoinNodeRequest, "listenAddress" | "advertiseAddress">,
    signal: AbortSignal,
  ): Promise<void> {
    await using door = this.#localManager();
    if (!(await door.isIdle(signal))) return;
    const addresses = { listenAddress, advertiseAddress: advertiseAddress || (heard?.nodeAddress ?? "") };
    const wanted = await door.client.beginJoin(addresses, { signal });
    const { certificates, roots } = await identity.managerCertificate(wanted, managers, signal);
    await door.join({ ...addresses, certificates, roots, managers: [...managers.all] }, signal);
    this.#options.logger.info({ nodeId: identity.nodeId }, "this host's manager is in the cluster");
  }

  /** One change of membership at a time. */
  async #alone<T>(work: () => Promise<T>): Promise<T> {
    if (this.#busy) throw new SwarmError("unavailable", "this host is just joining or leaving a cluster");
    this.#busy = true;
    try {
      return await work();
    } finally {
      this.#busy = false;
    }
  }

  async #end(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    if (!running) return;
    running.stop.abort(new SwarmError("canceled", "agent stops"));
    await running.done.catch(() => {});
  }
}
