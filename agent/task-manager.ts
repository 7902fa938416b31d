/**
 * Drives one task: asks `task-step.ts` what is next, does it through the task's controller, writes down what came of it
 * and reports it. A change of the assignment that calls for another step interrupts the running one.
 */
import { clone, create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Backoff, type BackoffOptions } from "../common/base/backoff.ts";
import { abortReason, type Clock } from "../common/base/clock.ts";
import { AssertionFailure, type ErrorCode, SwarmError } from "../common/base/error.ts";
import type { TaskId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Random } from "../common/base/random.ts";
import { isTerminal, taskStateName } from "../common/model/task-state.ts";
import type { TaskRecord } from "../proto/gen/swarm/v1/agent_pb.js";
import type { TaskTemplate } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { type Task, TaskSchema } from "../proto/gen/swarm/v1/objects_pb.js";
import {
  type ContainerStatus,
  ContainerStatusSchema,
  type ContentPin,
  TaskState,
  type TaskStatus,
  TaskStatusSchema,
} from "../proto/gen/swarm/v1/types_pb.js";
import type { ExitStatus, TaskController } from "./executor.ts";
import type { TaskDatabase } from "./task-database.ts";
import {
  nextStep,
  outcomeOfExit,
  outcomeOfFailure,
  type TaskOutcome,
  type TaskStep,
  type TaskView,
} from "./task-step.ts";

/** Failures that pass by themselves: a registry that is down, a deadline that passed. */
const TRANSIENT: ReadonlySet<ErrorCode> = new Set(["unavailable", "deadline_exceeded", "aborted"]);
/** Tries of a step that fails transiently, about 30 s in all; more would hide a broken registry from `service ps`. */
const ATTEMPTS_MAX = 6;
const RETRY: BackoffOptions = { delayMsMin: 1_000, delayMsMax: 60_000 };
/** A process takes a connection from its queue within this time, even on a busy host. */
const ACCEPT_MS = 500;
/** Stopping and removing are retried for ever: giving up would leave a container behind. */
const CLEANUP_RETRY: BackoffOptions = { delayMsMin: 200, delayMsMax: 10_000 };

/** What a task manager tells the worker that owns it. */
export interface TaskManagerHooks {
  /** A status that is on disk and may be told to the managers. */
  report(taskId: TaskId, status: TaskStatus): void;
  /** Why not all ports of a service can be reached on this node, for the status of its running tasks; empty when they can. */
  portProblem(serviceId: string): string;
  /** `serving` changed; resolves once the published ports say so (or that failed: it never rejects). */
  servingChanged(serviceId: string): Promise<void>;
  /** Resolves once the node's network has this task, so that its first question for a name is answered; it never rejects. */
  joined(task: Task): Promise<void>;
  /** Whether other tasks serve in its place, so that connections go there. */
  hasOthers(task: Task): boolean;
  /** The task is gone from this node. */
  removed(taskId: TaskId): void;
}

/** What a task manager needs. */
export interface TaskManagerOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly controller: TaskController;
  readonly database: TaskDatabase;
  /** The task with its newest status. The manager owns it from now on. */
  readonly record: TaskRecord;
  readonly hooks: TaskManagerHooks;
}

/** One task on this node. */
export class TaskManager {
  readonly id: TaskId;
  readonly controller: TaskController;
  readonly #options: TaskManagerOptions;
  #task: Task;
  #status: TaskStatus;
  #removed = false;
  #gone = false;
  #serving = false;
  /** The template whose contents the container is being given, or was given last. */
  #wanted: TaskTemplate | undefined;
  #current: { readonly kind: TaskStep["kind"]; readonly interrupt: AbortController } | undefined;

  constructor(options: TaskManagerOptions) {
    const { task, status } = options.record;
    this.#options = options;
    this.#task = task ?? create(TaskSchema);
    this.#status = status ?? create(TaskStatusSchema);
    this.id = this.#task.id as TaskId;
    this.controller = options.controller;
  }

  get task(): Task {
    return this.#task;
  }

  get template(): TaskTemplate | undefined {
    return this.#options.record.template;
  }

  get status(): TaskStatus {
    return this.#status;
  }

  /** Whether its published ports may lead to it: running, healthy, and not about to stop. */
  get serving(): boolean {
    return this.#serving;
  }

  /** Takes a newer version of the assignment. The desired state only grows, whatever order messages come in. */
  update(task: Task): void {
    const desiredState = Math.max(task.desiredState, this.#task.desiredState);
    this.#task = create(TaskSchema, { ...task, desiredState });
    this.#reconsider();
  }

  /** Whether `template` pins other content than this task was last given, and the task still has use for it. */
  takesContent({ pins }: TaskTemplate): boolean {
    const known = (this.#wanted ?? this.#options.record.template)?.pins ?? [];
    const same = pins.length === known.length && pins.every((pin, index) => isSamePin(pin, known[index]));
    return !same && !isTerminal(this.#status.state);
  }

  /** Gives the running container new content. It is tried until it succeeds or the task has ended. */
  async refresh(template: TaskTemplate, signal: AbortSignal): Promise<void> {
    this.#wanted = template;
    let done = false;
    await this.#persist(signal, "change contents", async () => {
      // A newer change has come meanwhile, or there is nobody left to have it.
      if (this.#wanted !== template || isTerminal(this.#status.state) || this.#gone) return;
      await this.controller.refresh(template, signal);
      done = true;
    });
    if (!done || this.#gone) return;
    this.#options.record.template = template;
    await this.#write();
  }

  /** What `hooks.portProblem` says may have changed: a running task tells it, and goes on. */
  portProblemsChanged(): void {
    if (this.#status.state !== TaskState.RUNNING) return;
    const error = this.#options.hooks.portProblem(this.#task.serviceId);
    if (error === this.#status.error) return;
    this.#status = create(TaskStatusSchema, { ...this.#status, error });
    this.#options.record.status = this.#status;
    this.#options.hooks.report(this.id, this.#status);
  }

  /** The assignment was taken back: stop the task and forget it. */
  remove(): void {
    this.#removed = true;
    this.#reconsider();
  }

  /** Runs until the task is removed or `signal` aborts, which leaves its container alone. */
  async run(signal: AbortSignal): Promise<void> {
    while (!this.#gone) {
      const step = nextStep(this.#view());
      const interrupt = new AbortController();
      this.#current = { kind: step.kind, interrupt };
      try {
        await this.#perform(step, AbortSignal.any([signal, interrupt.signal]));
      } catch (reason) {
        if (signal.aborted || reason instanceof AssertionFailure || !interrupt.signal.aborted) throw reason;
      }
    }
  }

  #view(): TaskView {
    return { observed: this.#status.state, desired: this.#task.desiredState, removed: this.#removed };
  }

  /** Interrupts the running step if the assignment now calls for another one, or if it only waits. */
  #reconsider(): void {
    if (!this.#current) return;
    const kind = nextStep(this.#view()).kind;
    if (kind === this.#current.kind && kind !== "rest") return;
    this.#current.interrupt.abort(new SwarmError("canceled", "the assignment changed"));
  }

  async #perform(step: TaskStep, signal: AbortSignal): Promise<void> {
    switch (step.kind) {
      case "accept":
        return this.#observe({ state: TaskState.ACCEPTED, message: "accepted" });
      case "prepare":
        return this.#prepare(signal);
      case "start":
        return this.#start(signal);
      case "watch":
        return this.#watch(signal);
      case "shutdown":
        return this.#shutdown(signal);
      case "remove":
        return this.#remove(signal);
      case "rest":
        return this.#rest(signal);
    }
  }

  async #prepare(signal: AbortSignal): Promise<void> {
    if (this.#status.state < TaskState.PREPARING) {
      await this.#observe({ state: TaskState.PREPARING, message: "preparing" });
    }
    const done = await this.#attempt(signal, () => this.controller.prepare(signal));
    if (done) await this.#observe({ state: TaskState.READY, message: "prepared" });
  }

  async #start(signal: AbortSignal): Promise<void> {
    if (this.#status.state < TaskState.STARTING) {
      await this.#observe({ state: TaskState.STARTING, message: "starting" });
    }
    await this.#options.hooks.joined(this.#task);
    const started = await this.#attempt(signal, () => this.controller.start(signal));
    if (!started) return;
    const ended = await this.#untilHealthy(signal);
    if (ended) return this.#ended(ended.exit);
    await this.#setServing(true);
    await this.#observe({ state: TaskState.RUNNING, message: "started" }, { pid: started.value.pid });
  }

  /** Resolves with nothing once healthy, or with the exit status of a process that ended before. */
  async #untilHealthy(signal: AbortSignal): Promise<{ readonly exit: ExitStatus } | undefined> {
    const race = new AbortController();
    const either = AbortSignal.any([signal, race.signal]);
    const exited = this.controller.exited(either).then((exit) => ({ exit }));
    const healthy = this.controller.healthy(either).then(() => undefined);
    try {
      return await Promise.race([exited, healthy]);
    } catch (reason) {
      if (signal.aborted || reason instanceof AssertionFailure) throw reason;
      // It gave up on health: what `exited` says once it is stopped carries the reason.
      const failure = SwarmError.from(reason);
      await this.controller.shutdown(signal);
      return { exit: { ...(await this.controller.exited(signal)), reason: failure.message } };
    } finally {
      race.abort(new SwarmError("canceled", "the other came first"));
      await Promise.allSettled([exited, healthy]);
    }
  }

  async #watch(signal: AbortSignal): Promise<void> {
    // After a restart of the agent this is the first step of a running task.
    if (!this.#serving) await this.#setServing(true);
    const exit = await this.controller.exited(signal);
    await this.#ended(exit);
  }

  async #ended(exit: ExitStatus): Promise<void> {
    const withdrawn = this.#setServing(false);
    await this.#observe(outcomeOfExit(this.#task.desiredState, exit));
    await withdrawn;
  }

  /** Withdraws the task first, so that no new connection meets a dying process. */
  async #shutdown(signal: AbortSignal): Promise<void> {
    await this.#withdraw(signal);
    const started = this.#status.state >= TaskState.STARTING;
    await this.#persist(signal, "stop task", () => this.controller.shutdown(signal));
    if (!started) return this.#observe({ state: TaskState.SHUTDOWN, message: "shutdown" });
    const exit = await this.controller.exited(signal);
    await this.#observe(outcomeOfExit(TaskState.SHUTDOWN, exit));
  }

  /** What was let in a moment ago is accepted before the process hears that it is to end. */
  async #withdraw(signal: AbortSignal): Promise<void> {
    if (!this.#serving) return;
    await this.#setServing(false);
    if (this.#options.hooks.hasOthers(this.#task)) await this.#options.clock.sleep(ACCEPT_MS, signal);
  }

  async #remove(signal: AbortSignal): Promise<void> {
    await this.#setServing(false);
    const { database, hooks } = this.#options;
    if (!isTerminal(this.#status.state)) {
      await this.#persist(signal, "stop task", () => this.controller.shutdown(signal));
    }
    await this.#persist(signal, "remove task", () => this.controller.remove(signal));
    await this.#persist(signal, "forget task", () => database.delete(this.id));
    this.#gone = true;
    hooks.removed(this.id);
  }

  async #rest(signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw abortReason(signal);
    const { promise, resolve } = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => resolve(), { once: true });
    await promise;
  }

  /** Tries a step a bounded number of times; a failure for good becomes the task's status and resolves to undefined. */
  async #attempt<T>(signal: AbortSignal, work: () => Promise<T>): Promise<{ readonly value: T } | undefined> {
    const { clock, random, logger } = this.#options;
    const backoff = new Backoff(RETRY, random);
    for (let attempt = 1; ; attempt++) {
      try {
        return { value: await work() };
      } catch (reason) {
        if (signal.aborted || reason instanceof AssertionFailure) throw reason;
        const failure = SwarmError.from(reason);
        if (attempt < ATTEMPTS_MAX && TRANSIENT.has(failure.code)) {
          logger.debug({ taskId: this.id, err: failure, attempt }, "task step failed, trying again");
          const again = { state: this.#status.state, message: `trying again: ${failure.message}` };
          await this.#observe({ ...again, error: failure.message });
          await clock.sleep(backoff.nextDelayMs(), signal);
          continue;
        }
        logger.info({ taskId: this.id, err: failure }, "task failed");
        if (this.#status.state >= TaskState.STARTING) await this.#stopHalfStarted(signal);
        await this.#observe(outcomeOfFailure(this.#status.state, failure));
        return undefined;
      }
    }
  }

  async #stopHalfStarted(signal: AbortSignal): Promise<void> {
    await this.#persist(signal, "stop task", () => this.controller.shutdown(signal));
  }

  /** Repeats cleaning work until it succeeds or `signal` aborts. */
  async #persist(signal: AbortSignal, operation: string, work: () => Promise<void>): Promise<void> {
    const { clock, random, logger } = this.#options;
    const backoff = new Backoff(CLEANUP_RETRY, random);
    while (true) {
      try {
        return await work();
      } catch (reason) {
        if (signal.aborted || reason instanceof AssertionFailure) throw reason;
        logger.warn({ taskId: this.id, operation, err: reason }, "cleaning up failed, trying again");
        await clock.sleep(backoff.nextDelayMs(), signal);
      }
    }
  }

  async #setServing(serving: boolean): Promise<void> {
    if (this.#serving === serving) return;
    this.#serving = serving;
    await this.#options.hooks.servingChanged(this.#task.serviceId);
  }

  /** Writes the new status down where that matters, then reports it. It is never interrupted. */
  async #observe(outcome: TaskOutcome, started?: { readonly pid: number }): Promise<void> {
    const { clock, hooks, logger, record } = this.#options;
    const timestamp = timestampFromMs(clock.nowMs());
    this.#status = create(TaskStatusSchema, {
      state: outcome.state,
      timestamp,
      message: outcome.message,
      error: outcome.error ?? (outcome.state === TaskState.RUNNING ? hooks.portProblem(this.#task.serviceId) : ""),
      container: this.#containerStatus(outcome, started),
    });
    record.task = this.#task;
    record.status = this.#status;
    if (isDurable(outcome.state)) await this.#write();
    logger.debug({ taskId: this.id, state: taskStateName(outcome.state), error: outcome.error }, "task moved");
    hooks.report(this.id, this.#status);
  }

  async #write(): Promise<void> {
    try {
      await this.#options.database.put(this.#options.record);
    } catch (reason) {
      // A full disk must not hide what happened; after a crash the steps are repeated, which they allow.
      this.#options.logger.warn({ taskId: this.id, err: reason }, "task record not written");
    }
  }

  #containerStatus(outcome: TaskOutcome, started?: { readonly pid: number }): ContainerStatus {
    const before = this.#status.container;
    const container = before
      ? clone(ContainerStatusSchema, before)
      : create(ContainerStatusSchema, { containerId: this.id });
    if (started) {
      container.pid = started.pid;
      container.startedAt = timestampFromMs(this.#options.clock.nowMs());
    }
    if (outcome.exit) {
      container.exitCode = outcome.exit.exitCode;
      container.oomKilled = outcome.exit.oomKilled;
    }
    return container;
  }
}

function isSamePin(pin: ContentPin, other: ContentPin | undefined): boolean {
  return pin.objectId === other?.objectId && pin.version === other.version;
}

/** PREPARING and READY need no record: after a crash `prepare` runs again, and finds the container that stands ready. */
function isDurable(state: TaskState): boolean {
  return state !== TaskState.PREPARING && state !== TaskState.READY;
}
