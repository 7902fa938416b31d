/**
 * Brings observed statuses to the manager: only the newest of each task counts, and it is kept until a manager has
 * accepted it. It outlives sessions; `deliver` runs once per session.
 */
import type { Clock } from "../common/base/clock.ts";
import type { TaskId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import { Wakeup } from "../common/base/wakeup.ts";
import type { Client } from "../common/rpc/service.ts";
import type { Dispatcher } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { TaskStatus } from "../proto/gen/swarm/v1/types_pb.js";

/** How long the first status waits for others: long enough to skip the short states of a fast start, too short to see. */
const GATHER_MS = 5;
/**
 * From one call to the next: each costs the managers a transaction and all their loops a look, so a node that starts many
 * tasks at once tells of several together. More would be felt at the end of a `service create`.
 */
const PAUSE_MS = 20;
/** Updates per call: more would make one call's transaction in the store too large. */
const BATCH_MAX = 500;

/** The session that a report travels over. */
export interface ReportChannel {
  readonly nodeId: string;
  readonly sessionId: string;
  readonly dispatcher: Client<typeof Dispatcher>;
}

/** Bounded by the number of tasks on the node. */
export class Reporter {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #pending = new Map<TaskId, TaskStatus>();
  readonly #wakeup = new Wakeup();

  constructor(clock: Clock, logger: Logger) {
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Takes the newest status of a task; what was waiting for it before is dropped. */
  report(taskId: TaskId, status: TaskStatus): void {
    this.#pending.set(taskId, status);
    this.#wakeup.wake();
  }

  /** Drops what waits for a task that no longer exists. */
  forget(taskId: TaskId): void {
    this.#pending.delete(taskId);
  }

  /** Sends over one session until `signal` aborts; throws when a call fails, with nothing lost. */
  async deliver(channel: ReportChannel, signal: AbortSignal): Promise<void> {
    while (true) {
      if (this.#pending.size === 0) await this.#wakeup.wait(signal);
      await this.#clock.sleep(GATHER_MS, signal);
      await this.#send(channel, signal);
      await this.#clock.sleep(PAUSE_MS, signal);
    }
  }

  async #send(channel: ReportChannel, signal: AbortSignal): Promise<void> {
    const batch = [...this.#pending].slice(0, BATCH_MAX);
    if (batch.length === 0) return;
    const updates = batch.map(([taskId, status]) => ({ taskId, status }));
    const { nodeId, sessionId } = channel;
    const answer = await channel.dispatcher.updateTaskStatus({ nodeId, sessionId, updates }, { signal });
    for (const { taskId, reason } of answer.refused) {
      this.#logger.debug({ taskId, reason }, "manager refused a status");
    }
    for (const [taskId, status] of batch) {
      if (this.#pending.get(taskId) === status) this.#pending.delete(taskId);
    }
  }
}
