/**
 * One task's container: made by the runner, kept by its supervisor, which outlives the agent. After a restart of the
 * agent the supervisor's socket and the exit record tell what became of it.
 *
 *   prepare ── image, directory, files, plan ──→ runner.create ──→ supervisor (control.sock)
 *   start   ──→ supervisor.start ──→ health checks by supervisor.exec
 *   exited  ←── EXITED event, or exit record, or neither: "shim lost"
 */
import { existsSync } from "node:fs";
import { abortable, withTimeout } from "../common/base/clock.ts";
import { AssertionFailure, errnoOf, SwarmError } from "../common/base/error.ts";
import type { TaskId } from "../common/base/id.ts";
import type {
  CopyRequest,
  CopyResponse,
  ExecRequest,
  ExecResponse,
  ExecStart,
  LogMessage,
} from "../proto/gen/swarm/v1/control_pb.js";
import type { TaskTemplate } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { LogOptions } from "../proto/gen/swarm/v1/objects_pb.js";
import { changeContents } from "./change-contents.ts";
import { copyInContainer } from "./container-copy.ts";
import { type CreatedContainer, createContainer } from "./container-create.ts";
import { type ExecTarget, execInContainer } from "./container-exec.ts";
import { readContainerLog } from "./container-logs.ts";
import { type ContainerRecord, readContainerRecord } from "./container-record.ts";
import { releaseContainer } from "./container-release.ts";
import { recordedSeccomp } from "./container-seccomp.ts";
import type { AssignedTask, ExitStatus, TaskController } from "./executor.ts";
import { type CheckResult, HEALTH_BEGIN, type HealthPolicy, type HealthState, monitorHealth } from "./health.ts";
import type { TaskNetlink } from "./network/link-mender.ts";
import { containerDirectory, logPath, type NodeRuntime } from "./node-runtime.ts";
import type { ContainerOp, HostPath } from "./runtime/op.ts";
import { planExec } from "./runtime/spec-plan.ts";
import { type Ended, readExitRecord, Supervisor } from "./runtime/supervisor.ts";
import { enterTaskNetwork } from "./task-network.ts";

const SIGTERM = 15;
const SIGKILL = 9;
/** Docker's grace, for a container whose record is damaged. */
const GRACE_MS_DEFAULT = 10_000;
/** What of a health check's output is kept; Docker's 4 KiB. */
const CHECK_OUTPUT_BYTES_MAX = 4096;
/** How long a supervisor may take for an answer, which costs it microseconds. */
const ANSWER_TIMEOUT_MS = 5_000;
/** From SIGKILL to the end of a process that can die; longer means it hangs in the kernel (D state). */
const KILL_TIMEOUT_MS = 10_000;

export class ContainerController implements TaskController {
  readonly id: TaskId;
  #assigned: AssignedTask;
  readonly #node: NodeRuntime;
  readonly #directory: HostPath;
  readonly #healthy = Promise.withResolvers<void>();
  #supervisor: Supervisor | undefined;
  /** The end of the container, once there is one to wait for. */
  #end: Promise<ExitStatus> | undefined;
  #over = false;
  /** Nothing of the last container is left but its directory. */
  #released = false;
  #record: ContainerRecord | undefined;
  #pid = 0;
  #ops: readonly ContainerOp[] = [];
  #monitoring = false;
  /** Why we ended it, when it was not asked for. */
  #reason: string | undefined;

  readonly #onRemoved: () => void;
  /** Preparing and changes of content, one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  /** `onRemoved` is told when nothing of the task is left. */
  constructor(assigned: AssignedTask, node: NodeRuntime, onRemoved: () => void) {
    this.#onRemoved = onRemoved;
    this.id = assigned.task.id as TaskId;
    this.#assigned = assigned;
    this.#node = node;
    this.#directory = containerDirectory(node.directories, this.id);
  }

  prepare(signal: AbortSignal): Promise<void> {
    return this.#inTurn(() => this.#prepare(signal));
  }

  async #prepare(signal: AbortSignal): Promise<void> {
    // It is made before all else of a task and goes last: without it there is nothing to find and nothing to free, and
    // freeing takes locks of the kernel's that the starts of other tasks wait for.
    if (existsSync(this.#directory)) {
      // Made before the agent's restart: then it stands ready.
      if (await this.#connect(signal)) return;
      await this.#release(signal);
      await this.#node.runner.removeTree(this.#directory, signal);
    }
    this.#end = undefined;
    this.#over = false;
    const created = await this.#create(signal);
    this.#record = created.record;
    this.#pid = created.pid;
    this.#ops = created.ops;
    if (!(await this.#connect(signal))) throw new SwarmError("aborted", "the container ended before it was started");
  }

  async start(signal: AbortSignal): Promise<{ readonly pid: number }> {
    const supervisor = await this.#connect(signal);
    // It ended while the agent was away: `exited` tells how.
    if (!supervisor) return { pid: this.#pid };
    await supervisor.start(this.#ops, signal);
    if (this.#pid === 0) this.#pid = (await supervisor.state(signal)).pid;
    this.#ops = [];
    await this.#monitor(HEALTH_BEGIN);
    return { pid: this.#pid };
  }

  async healthy(signal: AbortSignal): Promise<void> {
    const record = await this.#readRecord();
    if (record?.life.health) await abortable(this.#healthy.promise, signal);
  }

  async exited(signal: AbortSignal): Promise<ExitStatus> {
    await this.#connect(signal);
    // After a restart of the agent a running task begins here: it had been healthy.
    if (!this.#over) await this.#monitor({ status: "healthy", failingStreak: 0 });
    this.#end ??= this.#finish(await this.#endedBefore());
    return abortable(this.#end, signal);
  }

  async shutdown(signal: AbortSignal): Promise<void> {
    const supervisor = await this.#connect(signal);
    if (supervisor) await this.#stop(supervisor, signal);
    await this.#release(signal);
  }

  async remove(signal: AbortSignal): Promise<void> {
    await this.shutdown(signal);
    await this.#node.runner.removeTree(this.#directory, signal);
    this.#onRemoved();
  }

  refresh(template: TaskTemplate, signal: AbortSignal): Promise<void> {
    return this.#inTurn(async () => {
      this.#assigned = { ...this.#assigned, template };
      // Not prepared yet, or over: there is nothing to change.
      if (this.#released || this.#over || !existsSync(this.#directory)) return;
      const supervisor = await this.#connect(signal);
      if (supervisor) await changeContents(this.#assigned, this.#node, supervisor, signal);
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async *logs(options: LogOptions, signal: AbortSignal): AsyncIterable<LogMessage> {
    const { clock } = this.#node;
    const path = logPath(this.#directory);
    // After a restart of the agent nobody may have asked yet what became of the container.
    const live = await this.#connect(signal);
    const over = live ? undefined : await readExitRecord(this.#directory).catch(() => undefined);
    yield* readContainerLog({ clock, path, options, ended: () => over !== undefined || this.#over }, signal);
  }

  async *exec(
    start: ExecStart,
    requests: AsyncIterable<ExecRequest>,
    signal: AbortSignal,
  ): AsyncIterable<ExecResponse> {
    yield* execInContainer(await this.#target(signal), this.#node, { start, requests }, signal);
  }

  async *copy(
    first: CopyRequest,
    requests: AsyncIterable<CopyRequest>,
    signal: AbortSignal,
  ): AsyncIterable<CopyResponse> {
    yield* copyInContainer(await this.#target(signal), this.#node, { first, requests }, signal);
  }

  /** The running container's first process as the host numbers it; undefined when it does not run. */
  async runningPid(signal: AbortSignal): Promise<number | undefined> {
    const supervisor = this.#supervisor;
    if (!supervisor) return undefined;
    const { status, pid } = await this.#ask((inner) => supervisor.state(inner), signal);
    return status === "running" ? pid : undefined;
  }

  /** Netlink in the container's own network namespace; undefined when it does not run. */
  async enterNetwork(signal: AbortSignal): Promise<TaskNetlink | undefined> {
    const supervisor = this.#supervisor;
    if (!supervisor) return undefined;
    return await this.#ask((inner) => enterTaskNetwork(supervisor, this.#node.shimPath, inner), signal);
  }

  /** The task as it was last given. */
  get assigned(): AssignedTask {
    return this.#assigned;
  }

  /** The running container, for what enters it. */
  async #target(signal: AbortSignal): Promise<ExecTarget> {
    const supervisor = await this.#connect(signal);
    const record = await this.#readRecord();
    if (!supervisor || !record) throw new SwarmError("failed_precondition", `task ${this.id} does not run`);
    const { membership: cgroup } = this.#node.cgroups.plan(this.id, {});
    const seccomp = recordedSeccomp(record, this.#node.facts.architecture);
    return { supervisor, process: record.process, cgroup, seccomp };
  }

  /** Lets go of the container, which runs on. */
  async close(): Promise<void> {
    await this.#supervisor?.[Symbol.asyncDispose]();
  }

  /** A task that is rejected leaves nothing behind. */
  async #create(signal: AbortSignal): Promise<CreatedContainer> {
    this.#released = false;
    try {
      return await createContainer(this.#assigned, this.#node, signal);
    } catch (reason) {
      await this.#releaseOrWarn();
      await this.#node.runner.removeTree(this.#directory, this.#node.scope.signal).catch(() => {});
      throw reason;
    }
  }

  /** The live container's supervisor; undefined before there is one, and after the end. */
  async #connect(signal: AbortSignal): Promise<Supervisor | undefined> {
    if (this.#supervisor || this.#over) return this.#supervisor;
    try {
      const supervisor = await Supervisor.connect(this.#directory, signal);
      this.#supervisor = supervisor;
      this.#end = supervisor.ended.catch((reason) => this.#damaged(reason)).then((ended) => this.#finish(ended));
      this.#end.catch(() => {});
      return supervisor;
    } catch (reason) {
      const gone = errnoOf(reason) === "ENOENT" || (reason instanceof SwarmError && reason.code === "not_found");
      if (gone) return undefined;
      throw reason;
    }
  }

  async #endedBefore(): Promise<Ended> {
    try {
      const record = await readExitRecord(this.#directory);
      return record ? { kind: "exited", record } : { kind: "lost" };
    } catch (reason) {
      return this.#damaged(reason);
    }
  }

  /** A damaged exit record tells as much as none. */
  #damaged(reason: unknown): Ended {
    if (!(reason instanceof SwarmError) || reason.code !== "data_loss") throw reason;
    this.#node.logger.warn({ taskId: this.id, err: reason }, "exit record is damaged");
    return { kind: "lost" };
  }

  /** Frees what the dead container held, then tells how it ended. */
  async #finish(ended: Ended): Promise<ExitStatus> {
    this.#supervisor = undefined;
    if (ended.kind === "closed") throw new SwarmError("canceled", "the agent stops");
    const oomKilled = ended.kind === "exited" ? ended.record.oom : await this.#node.cgroups.oomKilled(this.id);
    // A lost supervisor may have left processes: removing the cgroup kills them.
    this.#over = true;
    await this.#releaseOrWarn();
    if (ended.kind === "lost") {
      this.#node.logger.warn({ taskId: this.id }, "the supervisor of a container was lost");
      return { exitCode: 128 + SIGKILL, oomKilled, reason: this.#reason ?? "shim lost" };
    }
    const { code } = ended.record;
    return { exitCode: code, oomKilled, ...(this.#reason !== undefined && { reason: this.#reason }) };
  }

  /** Stop signal, grace time, then SIGKILL to the whole cgroup. */
  async #stop(supervisor: Supervisor, signal: AbortSignal): Promise<void> {
    const life = (await this.#readRecord())?.life;
    const end = this.#end ?? Promise.resolve();
    try {
      const { status } = await this.#ask((inner) => supervisor.state(inner), signal);
      if (status === "running") {
        const stop = { number: life?.stopSignal ?? SIGTERM, all: false };
        await this.#ask((inner) => supervisor.signal(stop, inner), signal);
        if (await this.#within(life?.gracePeriodMs ?? GRACE_MS_DEFAULT, end, signal)) return;
      }
      await this.#ask((inner) => supervisor.signal({ number: SIGKILL, all: true }, inner), signal);
    } catch (reason) {
      if (signal.aborted || !(reason instanceof SwarmError)) throw reason;
      // It ended meanwhile, or does not answer: the cgroup is killed without its help.
      if (!this.#over) await this.#node.cgroups.kill(this.id, "SIGKILL");
    }
    if (await this.#within(KILL_TIMEOUT_MS, end, signal)) return;
    throw new SwarmError("unavailable", `stop container ${this.id}: it still runs after SIGKILL`);
  }

  /** Asks the supervisor; one that was stopped itself must not hold up the end of its container. */
  #ask<T>(question: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    const options = { clock: this.#node.clock, timeoutMs: ANSWER_TIMEOUT_MS, operation: "ask the shim" };
    return withTimeout(options, signal, question);
  }

  /** Whether `end` comes within the time. */
  async #within(timeoutMs: number, end: Promise<unknown>, signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#node;
    try {
      await withTimeout({ clock, timeoutMs, operation: "stop container" }, signal, () => end);
      return true;
    } catch (reason) {
      if (reason instanceof SwarmError && reason.code === "deadline_exceeded") return false;
      throw reason;
    }
  }

  async #readRecord(): Promise<ContainerRecord | undefined> {
    this.#record ??= await readContainerRecord(this.#directory);
    return this.#record;
  }

  /** Begins to check the container's health, once, if it has a check. */
  async #monitor(initial: HealthState): Promise<void> {
    const record = await this.#readRecord();
    const policy = record?.life.health;
    if (!policy || !record || this.#monitoring || !this.#supervisor) return;
    this.#monitoring = true;
    const { clock, scope, logger } = this.#node;
    scope.spawn(`health of task ${this.id}`, async (signal) => {
      const over = new AbortController();
      const stopped = AbortSignal.any([signal, over.signal]);
      this.#end?.catch(() => {}).finally(() => over.abort());
      const options = {
        clock,
        policy,
        startedMs: clock.monotonicMs(),
        initial,
        check: (_: HealthPolicy, inner: AbortSignal) => this.#check(policy, record, inner),
        onHealthy: () => this.#healthy.resolve(),
      };
      try {
        const reason = await monitorHealth(options, stopped);
        this.#reason = reason;
        logger.info({ taskId: this.id, reason }, "container is unhealthy");
        if (this.#supervisor) await this.#stop(this.#supervisor, stopped);
      } catch (reason) {
        if (reason instanceof AssertionFailure) throw reason;
        if (!stopped.aborted) logger.warn({ taskId: this.id, err: reason }, "health checks ended");
      }
    });
  }

  async #check(policy: HealthPolicy, record: ContainerRecord, signal: AbortSignal): Promise<CheckResult> {
    const supervisor = this.#supervisor;
    if (!supervisor) throw new SwarmError("unavailable", "the container has ended");
    const process = { ...record.process, args: policy.command };
    const ops = planExec(process, recordedSeccomp(record, this.#node.facts.architecture));
    const limits = { timeoutMs: policy.timeoutMs, maxOutputBytes: CHECK_OUTPUT_BYTES_MAX };
    const result = await supervisor.exec(ops, limits, signal);
    const output = Buffer.concat([result.stdout, result.stderr]).toString("utf8");
    return { exitCode: result.code, timedOut: result.timedOut, output };
  }

  /** Once for each container: to forget connections, the kernel walks all of the host's, which takes tens of ms. */
  async #release(signal: AbortSignal): Promise<void> {
    if (this.#released) return;
    const complete = this.#node.networkNow() !== undefined;
    await releaseContainer(this.#assigned, this.#node, signal);
    this.#released = complete;
  }

  /** What cannot be freed now is freed by `remove` or by the next collection. */
  async #releaseOrWarn(): Promise<void> {
    try {
      await this.#release(this.#node.scope.signal);
    } catch (reason) {
      if (!(reason instanceof SwarmError)) throw reason;
      this.#node.logger.warn({ taskId: this.id, err: reason }, "what a container held is not all freed");
    }
  }
}
