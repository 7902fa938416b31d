/**
 * Brings assignments to the agents that are connected to this manager and their reports into the store. Every manager
 * has one. It decides nothing: who runs what is the loops' work, it only carries.
 *
 *   store ── changes ──▶ touched tasks, per node ──▶ diff ──▶ WatchAssignments ──▶ agent
 *   store ◀── batches ── judge (owner, table) ◀──────────── UpdateTaskStatus ◀──── agent
 *   /swarm/session/<node> (this manager's lease) ◀── OpenSession, heartbeats (never stored)
 */
import { abortReason, type Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { isId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { Wakeup } from "../../common/base/wakeup.ts";
import { durationMs, toDuration } from "../../common/model/duration.ts";
import { taskStateName } from "../../common/model/task-state.ts";
import type { CallContext, ServiceImplementation } from "../../common/rpc/service.ts";
import {
  type AssignmentChange,
  AssignmentsMessage_Type,
  type Dispatcher as DispatcherService,
  type HeartbeatRequest,
  type OpenSessionRequest,
  type ReportCertificateRequest,
  type ReportNetworkFactRequest,
  type ReportVolumesRequest,
  type ReportWireguardKeyRequest,
  type UpdateTaskStatusRequest,
  type WatchAssignmentsRequest,
} from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import type { ContentVersion, NodeVolumes, Volume } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeSpec_Role } from "../../proto/gen/swarm/v1/types_pb.js";
import { caCertificates } from "../ca/cluster-ca.ts";
import { requireNode } from "../require-node.ts";
import type { Sealer } from "../sealing/sealer.ts";
import type { Change } from "../store/changes.ts";
import { versionId } from "../store/kinds.ts";
import type { LeaseId } from "../store/kv.ts";
import type { Store } from "../store/store.ts";
import { AssignmentSet, concernsAgent, concernsAgents } from "./assignment-set.ts";
import { batches, completeBatches } from "./batches.ts";
import { CertificateWriter } from "./certificate-writer.ts";
import { storeNetworkFact } from "./network-fact.ts";
import { networkTouch } from "./network-touch.ts";
import { renewUnder, toldCertificate, wasAsked } from "./node-certificate.ts";
import { storeNodeVolumes } from "./node-volumes.ts";
import { forgetSession, refuseSuperseded, registerSession } from "./registration.ts";
import { type AgentSession, BEATS_MISSED_MAX, Sessions, sessionInvalid } from "./sessions.ts";
import { assignmentsMessage } from "./shared-changes.ts";
import { NOT_ITS_OWN, StatusWriter } from "./status-writer.ts";
import { TouchedSet } from "./touched-set.ts";
import { hasOptions } from "./volume-assignments.ts";
import { storeWireguardKey } from "./wireguard-key.ts";

/** What the dispatcher stands on. */
export interface DispatcherOptions {
  readonly store: Store;
  /** Opens secrets for the nodes that run a task with them. */
  readonly sealer: Sealer;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly managerId: string;
  /** This manager's lease: sessions vanish with it. A manager that gets another lease makes another dispatcher. */
  readonly lease: LeaseId;
}

/** Docker's default is 5 s; a beat of 1 s finds a dead node in 3 s and costs 100 calls/s for 100 nodes. */
const HEARTBEAT_PERIOD_MS = 1_000;
/** Below it a slow cluster setting could make every beat late. */
const HEARTBEAT_PERIOD_MS_MIN = 100;
const FORGET_RETRY_MS = 1_000;
/** Reports in one call; agents send at most 500. */
const UPDATES_MAX = 2_000;
/** Of other nodes' tasks in one report: a hostile agent must not fill the log. */
const FOREIGN_TASKS_LOGGED_MAX = 3;

interface Stream {
  readonly nodeId: string;
  readonly touched: TouchedSet;
}

/** The Dispatcher of one manager: serve `implementation`, run `run`. */
export class Dispatcher {
  readonly implementation: ServiceImplementation<typeof DispatcherService>;
  readonly #options: DispatcherOptions;
  readonly #scope = new Scope();
  readonly #sessions: Sessions;
  readonly #statuses: StatusWriter;
  readonly #certificates: CertificateWriter;
  /** Streams of assignments by node: the index that a change of the store wakes by. */
  readonly #streams = new Map<string, Set<Stream>>();
  #epoch = 0;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#statuses = new StatusWriter(options);
    this.#certificates = new CertificateWriter(options);
    this.#sessions = new Sessions(
      {
        clock: options.clock,
        random: options.random,
        heartbeatPeriodMs: () => this.#heartbeatPeriodMs,
        expired: (session) => this.#expired(session),
      },
      this.#scope,
    );
    this.implementation = {
      openSession: (request, context) => this.#openSession(request, context),
      heartbeat: (requests, context) => this.#heartbeat(requests, context),
      watchAssignments: (request, context) => this.#watchAssignments(request, context),
      updateTaskStatus: (request, context) => this.#updateTaskStatus(request, context),
      reportVolumes: (request, context) => this.#reportVolumes(request, context),
      reportCertificate: (request, context) => this.#reportCertificate(request, context),
      reportWireguardKey: (request, context) => this.#reportWireguardKey(request, context),
      reportNetworkFact: (request, context) => this.#reportNetworkFact(request, context),
    };
  }

  /** Runs until `signal` aborts; every session ends with it. */
  async run(signal: AbortSignal): Promise<void> {
    const { store } = this.#options;
    try {
      await using scope = new Scope(signal);
      const changes = store.view.changes(scope.signal);
      scope.spawn("statuses", (inner) => this.#statuses.run(inner));
      scope.spawn("certificates", (inner) => this.#certificates.run(inner));
      scope.spawn("sessions", (inner) => this.#superviseSessions(inner));
      scope.spawn("changes", async () => {
        for await (const batch of changes) for (const change of batch) this.#observe(change);
      });
      await scope.join();
    } finally {
      const stopping = new SwarmError("unavailable", "manager is stopping");
      for (const session of [...this.#sessions.values()]) session.end(stopping);
      await this.#scope[Symbol.asyncDispose]();
    }
  }

  /** Owns what sessions leave running (timers, clean-up): its failure is the dispatcher's. */
  async #superviseSessions(signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => this.#scope.cancel(), { once: true });
    this.#scope.spawn("until the dispatcher stops", (inner) => new Wakeup().wait(inner));
    await this.#scope.join();
  }

  /** Aborts when the node's session with this manager ends: for other services that agents call. Throws `failed_precondition` without it. */
  sessionSignal(nodeId: string, sessionId: string): AbortSignal {
    return this.#sessions.require(nodeId, sessionId).signal;
  }

  get #heartbeatPeriodMs(): number {
    const period = durationMs(this.#options.store.view.cluster?.spec?.heartbeatPeriod) ?? 0;
    return period > 0 ? Math.max(period, HEARTBEAT_PERIOD_MS_MIN) : HEARTBEAT_PERIOD_MS;
  }

  async *#openSession(request: OpenSessionRequest, context: CallContext) {
    const { nodeId } = request;
    if (!isId(nodeId)) throw new SwarmError("invalid_argument", "node_id: is not an id");
    if (request.instanceId !== "" && !isId(request.instanceId)) {
      throw new SwarmError("invalid_argument", "instance_id: is not an id");
    }
    requireNode(context.peer, nodeId);
    refuseSuperseded(this.#options, request);
    this.#sessions.admit(nodeId);
    const session = this.#sessions.prepare(nodeId);
    await this.#register(request, session, context);
    const logger = this.#options.logger.child({ nodeId, sessionId: session.id });
    logger.info({ address: context.peer.address, hostname: request.description?.hostname }, "session opened");
    try {
      const signal = AbortSignal.any([context.signal, session.signal]);
      while (true) {
        yield this.#sessionMessage(session);
        await session.news.wait(signal);
      }
    } finally {
      // The session lives on while its heart beats: an agent that only lost this stream comes back to it with a new one.
      const reason = session.signal.aborted ? abortReason(session.signal).message : "stream closed";
      logger.info({ reason }, "session stream ended");
    }
  }

  /** Until the agent has no more to say, or another session. */
  async *#heartbeat(requests: AsyncIterable<HeartbeatRequest>, { peer }: CallContext) {
    for await (const { nodeId, sessionId } of requests) {
      requireNode(peer, nodeId);
      this.#sessions.beat(nodeId, sessionId);
      yield { period: toDuration(this.#heartbeatPeriodMs) };
    }
  }

  /** Not under the caller's signal: a registration that was begun is either in force, with its heart watched, or undone. */
  async #register(request: OpenSessionRequest, session: AgentSession, { peer }: CallContext): Promise<void> {
    try {
      await registerSession(this.#options, { request, session, peer }, this.#scope.signal);
    } catch (reason) {
      this.#scope.spawn("undo a registration", async (signal) => {
        await this.#options.clock.sleep(BEATS_MISSED_MAX * this.#heartbeatPeriodMs, signal);
        await this.#forget(session, signal);
      });
      throw reason;
    }
    this.#sessions.open(session);
    this.#verify(session);
  }

  #sessionMessage(session: AgentSession) {
    const { view } = this.#options.store;
    const node = view.nodes.get(session.nodeId);
    const ca = view.cluster?.ca;
    return {
      sessionId: session.id,
      heartbeatPeriod: toDuration(this.#heartbeatPeriodMs),
      managers: [...view.managers.values()],
      addressPool: view.cluster?.spec?.addressPool ?? "",
      role: node?.spec?.desiredRole ?? NodeSpec_Role.WORKER,
      nodeAddress: node?.status?.address ?? "",
      roots: ca ? caCertificates(ca).trust : "",
      renewUnder: renewUnder(ca, node),
      dataPathPort: view.cluster?.spec?.dataPathPort ?? 0,
    };
  }

  async *#watchAssignments({ nodeId, sessionId }: WatchAssignmentsRequest, context: CallContext) {
    requireNode(context.peer, nodeId);
    const session = this.#sessions.require(nodeId, sessionId);
    const signal = AbortSignal.any([context.signal, session.signal]);
    const { view } = this.#options.store;
    // Without a leader there is no epoch to speak in, and nothing new to say.
    while (!view.leader && this.#epoch === 0) await view.waitForRevision(view.revision + 1, signal);
    const stream: Stream = { nodeId, touched: new TouchedSet(this.#options.clock) };
    const streams = this.#streams.get(nodeId) ?? new Set();
    this.#streams.set(nodeId, streams.add(stream));
    try {
      let sequence = 0;
      const message = (changes: readonly AssignmentChange[]) => {
        const type = sequence === 0 ? AssignmentsMessage_Type.COMPLETE : AssignmentsMessage_Type.INCREMENTAL;
        const appliesTo = sequence === 0 ? "" : String(sequence);
        const epoch = BigInt(this.#currentEpoch());
        return assignmentsMessage({ type, appliesTo, resultsIn: String(++sequence), epoch }, changes);
      };
      const told = new AssignmentSet(nodeId, (content) => this.#openContent(content));
      for (const changes of completeBatches(told.complete(view))) yield message(changes);
      while (true) {
        for (const changes of batches(told.update(view, await stream.touched.take(signal)))) yield message(changes);
      }
    } finally {
      streams.delete(stream);
      if (streams.size === 0 && this.#streams.get(nodeId) === streams) this.#streams.delete(nodeId);
    }
  }

  #openContent({ objectId, version, data, sealed }: ContentVersion): Uint8Array {
    return sealed ? this.#options.sealer.open(data, versionId(objectId, version)) : data;
  }

  /** The newest leader this manager knows of; between two leaders the former one's. */
  #currentEpoch(): number {
    this.#epoch = Math.max(this.#epoch, this.#options.store.view.leader?.epoch ?? 0);
    return this.#epoch;
  }

  async #updateTaskStatus({ nodeId, sessionId, updates }: UpdateTaskStatusRequest, context: CallContext) {
    requireNode(context.peer, nodeId);
    const session = this.#sessions.require(nodeId, sessionId);
    if (updates.length > UPDATES_MAX) throw new SwarmError("invalid_argument", `updates: at most ${UPDATES_MAX}`);
    const signal = AbortSignal.any([context.signal, session.signal]);
    const verdicts = await Promise.all(
      updates.map(async ({ taskId, status }) => ({
        taskId,
        status,
        reason: await this.#statuses.report({ nodeId, taskId, status }, signal),
      })),
    );
    const refused = verdicts.flatMap(({ taskId, reason }) => (reason === undefined ? [] : [{ taskId, reason }]));
    this.#options.logger.debug(
      { nodeId, tasks: updates.map(({ taskId, status }) => `${taskId} ${stateWord(status?.state)}`), refused },
      "task statuses",
    );
    const foreign = refused.filter(({ reason }) => reason === NOT_ITS_OWN).map(({ taskId }) => taskId);
    if (foreign.length > 0) {
      const tasks = foreign.slice(0, FOREIGN_TASKS_LOGGED_MAX);
      this.#options.logger.warn({ nodeId, tasks, count: foreign.length }, "agent reported tasks of other nodes");
    }
    return { refused };
  }

  async #reportVolumes({ nodeId, sessionId, volumes }: ReportVolumesRequest, context: CallContext) {
    requireNode(context.peer, nodeId);
    const session = this.#sessions.require(nodeId, sessionId);
    await storeNodeVolumes(this.#options, nodeId, volumes, AbortSignal.any([context.signal, session.signal]));
    return {};
  }

  async #reportCertificate(request: ReportCertificateRequest, context: CallContext) {
    const { nodeId, sessionId } = request;
    requireNode(context.peer, nodeId);
    const session = this.#sessions.require(nodeId, sessionId);
    const { view } = this.#options.store;
    const certificate = toldCertificate(view.cluster?.ca, request);
    await this.#certificates.report(nodeId, certificate, AbortSignal.any([context.signal, session.signal]));
    return {};
  }

  async #reportWireguardKey({ nodeId, sessionId, key }: ReportWireguardKeyRequest, context: CallContext) {
    requireNode(context.peer, nodeId);
    const session = this.#sessions.require(nodeId, sessionId);
    await storeWireguardKey(this.#options, nodeId, key, AbortSignal.any([context.signal, session.signal]));
    return {};
  }

  async #reportNetworkFact({ nodeId, sessionId, network }: ReportNetworkFactRequest, context: CallContext) {
    requireNode(context.peer, nodeId);
    const session = this.#sessions.require(nodeId, sessionId);
    await storeNetworkFact(this.#options, nodeId, network, AbortSignal.any([context.signal, session.signal]));
    return {};
  }

  /** Passes a change on to the streams and sessions that it concerns. */
  #observe(change: Change): void {
    this.#observeNetwork(change);
    switch (change.kind) {
      case "task":
        this.#observeTask(change);
        return;
      case "service":
        if (concernsAgents(change.before, change.after)) this.#touchService(change.id);
        return;
      case "manager":
      case "cluster":
        for (const session of this.#sessions.values()) session.news.wake();
        return;
      case "node":
        if (change.before?.spec?.desiredRole !== change.after?.spec?.desiredRole || wasAsked(change)) {
          this.#sessions.get(change.id)?.news.wake();
        }
        this.#verifyNode(change.id);
        return;
      case "session":
        this.#verifyNode(change.id);
        return;
      case "volume":
        this.#touchVolume(change.before, change.after);
        return;
      case "nodevolumes":
        this.#touchRemoved(change.id, change.after);
        return;
      case "spec":
      case "image":
      case "network":
      case "ipam":
      case "logs":
      case "stream":
      case "secret":
      case "config":
      case "content":
      case "stack":
      case "stackrevision":
      case "user":
        return;
      default:
        change satisfies never;
    }
  }

  #touchTask(nodeId: string | undefined, taskId: string): void {
    for (const { touched } of this.#streams.get(nodeId ?? "") ?? []) touched.touchTask(taskId);
  }

  #observeTask({ before, after, id }: Extract<Change, { kind: "task" }>): void {
    if (!concernsAgent(before, after)) return;
    this.#touchTask(before?.nodeId, id);
    if (after?.nodeId !== before?.nodeId) this.#touchTask(after?.nodeId, id);
  }

  /** Tells the nodes that hear of a change because of their network, not because of their own tasks. */
  #observeNetwork(change: Change): void {
    const { nodeIds, taskIds, serviceIds, peerIds } = networkTouch(this.#options.store.view, change);
    for (const nodeId of nodeIds === "all" ? this.#streams.keys() : nodeIds) {
      for (const { touched } of this.#streams.get(nodeId) ?? []) {
        for (const id of taskIds) touched.touchTask(id);
        for (const id of serviceIds) touched.touchService(id);
        for (const id of peerIds) touched.touchNode(id);
      }
    }
  }

  #touchService(serviceId: string): void {
    const nodeIds = new Set<string>();
    for (const { nodeId } of this.#options.store.view.tasksOfService(serviceId)) nodeIds.add(nodeId);
    for (const nodeId of nodeIds) {
      for (const { touched } of this.#streams.get(nodeId) ?? []) touched.touchService(serviceId);
    }
  }

  #touchRemoved(nodeId: string, copies: NodeVolumes | undefined): void {
    for (const { name, removing } of copies?.volumes ?? []) {
      if (removing) for (const { touched } of this.#streams.get(nodeId) ?? []) touched.touchVolume(name);
    }
  }

  #touchVolume(before: Volume | undefined, after: Volume | undefined): void {
    const changed = [before, after].flatMap((volume) => (volume?.spec && hasOptions(volume.spec) ? [volume.name] : []));
    if (changed.length === 0) return;
    for (const streams of this.#streams.values()) {
      for (const { touched } of streams) for (const name of changed) touched.touchVolume(name);
    }
  }

  #verifyNode(nodeId: string): void {
    const session = this.#sessions.get(nodeId);
    if (session) this.#verify(session);
  }

  /** Ends a session that the store no longer has: the node went to another manager, was removed, or our lease is gone. */
  #verify(session: AgentSession): void {
    const { view } = this.#options.store;
    const stored = view.sessions.get(session.nodeId);
    if (stored && stored.sessionId !== session.id) {
      session.end(sessionInvalid(`the node has a newer one at manager ${stored.managerId}`));
    } else if (!stored) session.end(sessionInvalid("it is no longer stored"));
    else if (!view.nodes.has(session.nodeId)) session.end(sessionInvalid("the node was removed"));
  }

  async #expired(session: AgentSession): Promise<void> {
    const { nodeId, id: sessionId } = session;
    this.#options.logger.info({ nodeId, sessionId }, "session ended: heartbeats missed");
    await this.#forget(session, this.#scope.signal);
  }

  /** Deletes the session's key, however long the store is away: a key that stayed would keep a dead node READY. */
  async #forget(session: AgentSession, signal: AbortSignal): Promise<void> {
    const { logger, clock } = this.#options;
    while (true) {
      try {
        return await forgetSession(this.#options, session, signal);
      } catch (reason) {
        if (signal.aborted) throw abortReason(signal);
        logger.warn({ err: reason, nodeId: session.nodeId }, "cannot remove a session yet");
      }
      await clock.sleep(FORGET_RETRY_MS, signal);
    }
  }
}

function stateWord(state: number | undefined): string {
  try {
    return state === undefined ? "?" : taskStateName(state);
  } catch {
    return String(state);
  }
}
