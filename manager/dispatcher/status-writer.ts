/**
 * Brings what agents observed into the store: reports of all agents share transactions, and a task that changed
 * meanwhile is judged again in its new light.
 */
import { abortable, type Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { Logger } from "../../common/base/logger.ts";
import { Wakeup } from "../../common/base/wakeup.ts";
import { mayMove, taskStateName } from "../../common/model/task-state.ts";
import type { Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState, type TaskStatus } from "../../proto/gen/swarm/v1/types_pb.js";
import type { ProposalGroup } from "../store/proposal.ts";
import type { Store } from "../store/store.ts";

/** How long a report waits for others. Agents gather for 5 ms themselves; more would be felt in `service create`. */
const GATHER_MS = 3;
/** Reports written at once; the rest wait for the next round. About ten transactions. */
const WRITES_MAX = 1_000;
/** Reports that may wait: beyond, agents are told to come again (they keep their newest). */
const WAITING_MAX = 50_000;
/** A task that keeps changing under our hands: its manager's loops are at work, the next round has it. */
const ATTEMPTS_MAX = 5;
/** Words of an error that are kept: it is shown in a table, and must not fill the store. */
const WORDS_LENGTH_MAX = 2_000;

/** Of an honest agent's: nothing. */
export const NOT_ITS_OWN = "not a task of this node";

/** Why a report was refused; undefined when it was written. */
export type Refusal = string | undefined;

interface Report {
  readonly nodeId: string;
  readonly taskId: string;
  readonly status: TaskStatus;
  readonly settle: (refusal: Refusal) => void;
  readonly fail: (reason: SwarmError) => void;
}

export class StatusWriter {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #wakeup = new Wakeup();
  #waiting: Report[] = [];

  constructor(options: { readonly store: Store; readonly clock: Clock; readonly logger: Logger }) {
    this.#store = options.store;
    this.#clock = options.clock;
    this.#logger = options.logger;
  }

  /** Resolves once the report is in the store or refused. Throws `unavailable`, or `resource_exhausted` when too many wait. */
  async report(
    update: { readonly nodeId: string; readonly taskId: string; readonly status: TaskStatus | undefined },
    signal: AbortSignal,
  ): Promise<Refusal> {
    const { nodeId, taskId } = update;
    const verdict = judge(this.#store.view.tasks.get(taskId), nodeId, update.status);
    if (verdict.type === "refused") return verdict.reason;
    if (this.#waiting.length >= WAITING_MAX) {
      throw new SwarmError("resource_exhausted", `${WAITING_MAX} task statuses wait to be stored`);
    }
    const { promise, resolve, reject } = Promise.withResolvers<Refusal>();
    this.#waiting.push({ nodeId, taskId, status: verdict.status, settle: resolve, fail: reject });
    this.#wakeup.wake();
    return abortable(promise, signal);
  }

  /** Writes until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (true) {
      await this.#wakeup.wait(signal);
      await this.#clock.sleep(GATHER_MS, signal);
      while (this.#waiting.length > 0) {
        const batch = newestOf(this.#waiting.splice(0, WRITES_MAX));
        try {
          await this.#write(batch, signal);
        } catch (reason) {
          const error = SwarmError.wrap("store task statuses", reason);
          this.#logger.warn({ err: error, tasks: batch.length }, "task statuses not stored, agents will report again");
          for (const report of batch) report.fail(error);
        }
      }
    }
  }

  async #write(batch: readonly Report[], signal: AbortSignal): Promise<void> {
    let pending = batch;
    for (let attempt = 0; attempt < ATTEMPTS_MAX && pending.length > 0; attempt++) {
      const sent = new Map<string, Report>();
      const groups: ProposalGroup[] = [];
      for (const report of pending) {
        const task = this.#store.view.tasks.get(report.taskId);
        const verdict = judge(task, report.nodeId, report.status);
        if (verdict.type === "refused") report.settle(verdict.reason);
        else {
          sent.set(report.taskId, report);
          groups.push({ type: "update", kind: "task", object: { ...verdict.task, status: verdict.status } });
        }
      }
      if (groups.length === 0) return;
      const { conflicts } = await this.#store.commit(groups, { signal });
      const refused: Report[] = [];
      for (const proposal of conflicts) {
        if (proposal.type !== "update" || proposal.kind !== "task") continue;
        const report = sent.get(proposal.object.id);
        if (!report) continue;
        refused.push(report);
        sent.delete(report.taskId);
      }
      for (const report of sent.values()) report.settle(undefined);
      pending = refused;
      // What stands there instead is on its way into the view.
      if (pending.length > 0) await this.#clock.sleep(GATHER_MS, signal);
    }
    for (const report of pending) report.fail(new SwarmError("aborted", `task ${report.taskId} keeps changing`));
  }
}

/** Of several reports on one task the newest counts; the older ones share its fate. */
function newestOf(reports: readonly Report[]): readonly Report[] {
  const newest = new Map<string, Report>();
  for (const report of reports) {
    const older = newest.get(report.taskId);
    newest.set(report.taskId, older ? joined(older, report) : report);
  }
  return [...newest.values()];
}

function joined(older: Report, newer: Report): Report {
  if (older.nodeId !== newer.nodeId) {
    older.settle("another node reported it");
    return newer;
  }
  const settle = (refusal: Refusal) => {
    older.settle(refusal);
    newer.settle(refusal);
  };
  const fail = (reason: SwarmError) => {
    older.fail(reason);
    newer.fail(reason);
  };
  return { ...newer, settle, fail };
}

type Verdict =
  | { readonly type: "accepted"; readonly task: Task; readonly status: TaskStatus }
  | { readonly type: "refused"; readonly reason: string };

/** Whether `nodeId` may say this of the task: the task must be its own and the move in the table. */
function judge(task: Task | undefined, nodeId: string, status: TaskStatus | undefined): Verdict {
  if (!task) return { type: "refused", reason: "no such task" };
  if (task.nodeId !== nodeId) return { type: "refused", reason: NOT_ITS_OWN };
  // Open enums: a number that no state has is in no table.
  if (!status || TaskState[status.state] === undefined) return { type: "refused", reason: "no such state" };
  const from = task.status?.state ?? TaskState.NEW;
  if (!mayMove("agent", from, status.state)) {
    return { type: "refused", reason: `${taskStateName(from)} does not become ${taskStateName(status.state)}` };
  }
  return { type: "accepted", task, status: shortened(status) };
}

function shortened(status: TaskStatus): TaskStatus {
  const { message, error } = status;
  if (message.length <= WORDS_LENGTH_MAX && error.length <= WORDS_LENGTH_MAX) return status;
  return { ...status, message: message.slice(0, WORDS_LENGTH_MAX), error: error.slice(0, WORDS_LENGTH_MAX) };
}
