/**
 * A node: keeps a session with a manager, runs the tasks that it assigns, and reports what becomes of them. The same
 * class runs on hosts and in the simulator; it knows its executor, its wire, its disk and its clock only as handed in.
 *
 *   manager ══ session ══╦═ heartbeats
 *                        ╠═ assignments → worker → task managers → controllers (executor)
 *                        ╠═ statuses    ← reporter ←────┘
 *                        ╠═ logs        ← log publisher
 *                        ╚═ streams     ↔ stream carrier (commands in tasks)
 */
import { create, equals } from "@bufbuild/protobuf";
import { Backoff, type BackoffOptions } from "../common/base/backoff.ts";
import type { Clock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import type { NodeId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Random } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import type { SessionMessage } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { type NodeVolumes, NodeVolumesSchema } from "../proto/gen/swarm/v1/objects_pb.js";
import type { Executor } from "./executor.ts";
import { LogPublisher } from "./log-publisher.ts";
import type { HeldCertificate } from "./node-identity.ts";
import { Reporter } from "./reporter.ts";
import { type Connect, type ManagerList, type Session, SessionKeeper } from "./session.ts";
import { StreamCarrier } from "./stream-carrier.ts";
import type { TaskDatabase } from "./task-database.ts";
import { Worker } from "./worker.ts";

/** Asking again for assignments after a missed message, telling again of a certificate: seldom, and never in a storm. */
const RESUBSCRIBE: BackoffOptions = { delayMsMin: 50, delayMsMax: 5_000 };

/** What an agent is made of. */
export interface AgentOptions {
  readonly nodeId: NodeId;
  readonly managers: ManagerList;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly connect: Connect;
  /** Hears what managers say of the cluster and of this node. */
  readonly heard?: (message: SessionMessage) => void;
  /** Hears that managers do not want this node as it is. */
  readonly refused?: (failure: SwarmError) => void;
  /** The certificates that the node has, one after the other, for managers to know. Absent where there are none. */
  readonly certificates?: (signal: AbortSignal) => AsyncIterable<HeldCertificate>;
  readonly executor: Executor;
  readonly database: TaskDatabase;
  /** The host's boot, to tell the records of an earlier one. */
  readonly bootId: string;
}

export class Agent {
  readonly #options: AgentOptions;
  readonly #logger: Logger;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#logger = options.logger.child({ nodeId: options.nodeId });
  }

  /**
   * Runs until `signal` aborts, and then leaves every container as it is. Tasks of an earlier run are taken up before a
   * manager is there, and run on while there is none.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, executor } = this.#options;
    const options = { ...this.#options, logger: this.#logger };
    await using scope = new Scope(signal);
    const reporter = new Reporter(clock, this.#logger);
    const worker = new Worker({ ...options, reporter }, scope);
    await worker.recover(scope.signal);
    const logs = new LogPublisher({ ...options, worker });
    const streams = new StreamCarrier({ ...options, worker, scope });
    const sessions = new SessionKeeper({
      ...options,
      describe: () => executor.describe(),
      configure: (settings, inner) => executor.configure(settings, inner),
      serve: (session, inner) => this.#serve(session, { worker, reporter, logs, streams }, inner),
    });
    scope.spawn("sessions", (inner) => sessions.run(inner));
    await scope.join();
  }

  async #serve(
    session: Session,
    parts: {
      readonly worker: Worker;
      readonly reporter: Reporter;
      readonly logs: LogPublisher;
      readonly streams: StreamCarrier;
    },
    signal: AbortSignal,
  ): Promise<void> {
    await using scope = new Scope(signal);
    scope.spawn("assignments", (inner) => this.#assignments(session, parts.worker, inner));
    scope.spawn("statuses", (inner) => parts.reporter.deliver(session, inner));
    scope.spawn("volumes", (inner) => this.#volumes(session, inner));
    scope.spawn("certificate", (inner) => this.#certificates(session, inner));
    scope.spawn("wireguard key", (inner) => this.#keys(session, inner));
    scope.spawn("network fact", (inner) => this.#networkFacts(session, inner));
    scope.spawn("logs", (inner) => parts.logs.serve(session, inner));
    scope.spawn("streams", (inner) => parts.streams.serve(session, inner));
    await scope.join();
  }

  /** Tells the manager of this node's volumes: all of them once, then on change. */
  async #volumes({ nodeId, sessionId, dispatcher }: Session, signal: AbortSignal): Promise<void> {
    let told: NodeVolumes | undefined;
    for await (const list of this.#options.executor.volumes(signal)) {
      const volumes = create(NodeVolumesSchema, { nodeId, volumes: [...list] });
      if (told && equals(NodeVolumesSchema, told, volumes)) continue;
      await dispatcher.reportVolumes({ nodeId, sessionId, volumes: volumes.volumes }, { signal });
      told = volumes;
    }
  }

  /** Tells the manager of this node's certificate: of the present one once, then on change. */
  async #certificates(session: Session, signal: AbortSignal): Promise<void> {
    for await (const held of this.#options.certificates?.(signal) ?? []) await this.#tell(session, held, signal);
  }

  /** A manager that has not heard of a new authority yet believes the certificate a moment later: no reason to end a session. */
  async #tell({ nodeId, sessionId, dispatcher }: Session, held: HeldCertificate, signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const { certificate, trustedKeys } = held;
    const backoff = new Backoff(RESUBSCRIBE, random);
    while (true) {
      try {
        await dispatcher.reportCertificate(
          { nodeId, sessionId, certificate, trustedKeys: [...trustedKeys] },
          { signal },
        );
        return;
      } catch (reason) {
        if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
        this.#logger.debug({ err: reason }, "certificate not told yet");
      }
      await clock.sleep(backoff.nextDelayMs(), signal);
    }
  }

  async #keys({ nodeId, sessionId, dispatcher }: Session, signal: AbortSignal): Promise<void> {
    const tell = async (key: Uint8Array, inner: AbortSignal) => {
      await dispatcher.reportWireguardKey({ nodeId, sessionId, key }, { signal: inner });
    };
    await this.#options.executor.replaceKeys?.(tell, signal);
  }

  /** A manager of an older version hears of it with the next session. */
  async #networkFacts({ nodeId, sessionId, dispatcher }: Session, signal: AbortSignal): Promise<void> {
    for await (const network of this.#options.executor.networkFacts?.(signal) ?? []) {
      try {
        await dispatcher.reportNetworkFact({ nodeId, sessionId, network }, { signal });
      } catch (reason) {
        if (!(reason instanceof SwarmError && reason.code === "unimplemented")) throw reason;
      }
    }
  }

  /** Follows the assignments; a broken chain means asking again, a stale leader means another manager. */
  async #assignments(session: Session, worker: Worker, signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const backoff = new Backoff(RESUBSCRIBE, random);
    while (true) {
      await this.#follow(session, worker, backoff, signal);
      await clock.sleep(backoff.nextDelayMs(), signal);
    }
  }

  /** Returns when the chain broke. */
  async #follow(session: Session, worker: Worker, backoff: Backoff, signal: AbortSignal): Promise<void> {
    const { nodeId, sessionId, dispatcher, address } = session;
    for await (const message of dispatcher.watchAssignments({ nodeId, sessionId }, { signal })) {
      switch (worker.apply(message)) {
        case "applied":
          backoff.reset();
          continue;
        case "broken":
          this.#logger.warn({ sessionId }, "missed an assignment, asking for the whole set");
          return;
        case "stale":
          throw new SwarmError("unavailable", `manager ${address} follows a leader that was replaced`);
      }
    }
    throw new SwarmError("unavailable", `manager ${address} ended the assignments`);
  }
}
