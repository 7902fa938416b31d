/**
 * The node's set of tasks: applies what the manager assigns, keeps one task manager per task, and says which ports are
 * served. It knows nothing of sessions or of how a container is made.
 */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../common/base/clock.ts";
import { assert, SwarmError } from "../common/base/error.ts";
import type { TaskId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import type { Random } from "../common/base/random.ts";
import type { Scope } from "../common/base/scope.ts";
import { hostAddress } from "../common/model/ports.ts";
import { ingressAddresses } from "../common/model/task-addresses.ts";
import { type TaskRecord, TaskRecordSchema } from "../proto/gen/swarm/v1/agent_pb.js";
import type { ProbeResult, TaskUsage } from "../proto/gen/swarm/v1/control_pb.js";
import {
  type AssignmentChange,
  AssignmentChange_Action,
  type AssignmentsMessage,
  AssignmentsMessage_Type,
  type TaskTemplate,
} from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { LogSelector, Task } from "../proto/gen/swarm/v1/objects_pb.js";
import { type PortConfig, TaskStatusSchema } from "../proto/gen/swarm/v1/types_pb.js";
import { ClusterNetworkState } from "./cluster-network.ts";
import { ContentCache } from "./content-cache.ts";
import { EndpointPublisher } from "./endpoint-publisher.ts";
import type { Executor, OwnTask, PortProblem, TaskController } from "./executor.ts";
import type { Reporter } from "./reporter.ts";
import type { TaskDatabase } from "./task-database.ts";
import { TaskManager } from "./task-manager.ts";
import { adopt, recover, type TaskOutcome } from "./task-step.ts";
import { VolumePurger } from "./volume-purger.ts";

/**
 * Between a task's removal and that of what led to it, for all that are removed meanwhile: as long as other nodes may take
 * to hear of its end. It goes sooner when anything else changes.
 */
const FORGET_DELAY_MS = 60_000;

/** What a worker needs. */
export interface WorkerOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly executor: Executor;
  readonly database: TaskDatabase;
  readonly reporter: Reporter;
  /** The host's boot, to tell records of an earlier one. */
  readonly bootId: string;
}

/**
 * What became of a message: `broken` means that one before it was missed (subscribe again), `stale` that it comes from a
 * leader that has been replaced (ask another manager).
 */
export type Applied = "applied" | "broken" | "stale";

/** A task whose logs someone may read. */
export interface LoggedTask {
  readonly taskId: TaskId;
  readonly controller: TaskController;
}

export class Worker {
  readonly #options: WorkerOptions;
  readonly #scope: Scope;
  readonly #managers = new Map<TaskId, TaskManager>();
  readonly #templates = new Map<string, TaskTemplate>();
  readonly #network = new ClusterNetworkState();
  readonly #contents = new ContentCache();
  readonly #publisher: EndpointPublisher;
  readonly #purger: VolumePurger;
  #portProblems: readonly PortProblem[] = [];
  readonly #taskListeners = new Set<(manager: TaskManager) => void>();
  #sequence = "";
  #epoch = 0n;
  #complete = false;
  #forgetting = false;
  /** Until a manager or the record of an earlier run told of it, the network stands as it is. */
  #knowsNetwork = false;

  /** `scope` owns the task managers' loops: its end stops them, not their containers. */
  constructor(options: WorkerOptions, scope: Scope) {
    this.#options = options;
    this.#scope = scope;
    this.#purger = new VolumePurger(options, scope);
    this.#publisher = new EndpointPublisher({ ...options, network: () => this.#network.snapshot(this.#own()) });
  }

  /** Takes up the tasks on record from before the agent's restart. Called once, before the first message. */
  async recover(signal: AbortSignal): Promise<void> {
    const { database, executor, bootId, logger, reporter } = this.#options;
    const records = await database.load();
    for (const record of records) {
      const { status } = record;
      if (!record.task || !record.template || !status) continue;
      const manager = this.#resume(record, recover(status.state, record.bootId === bootId));
      reporter.report(manager.id, manager.status);
    }
    await this.#loadNetwork();
    await executor.collect(new Set(this.#managers.keys()), signal);
    if (records.length > 0) logger.info({ tasks: this.#managers.size }, "tasks of an earlier run taken up");
    this.#scope.spawn("publish the network", (inner) => this.#publisher.run(inner));
    this.#scope.spawn("port problems", (inner) => this.#followPortProblems(inner));
    for (const manager of this.#managers.values()) this.#launch(manager);
    if (this.#knowsNetwork) void this.#publisher.changed();
  }

  /** Applies one message of the assignments stream. */
  apply(message: AssignmentsMessage): Applied {
    if (message.epoch < this.#epoch) return "stale";
    const complete = message.type === AssignmentsMessage_Type.COMPLETE;
    if (!complete && (!this.#complete || message.appliesTo !== this.#sequence)) return "broken";
    if (!this.#hasTemplates(message)) return "broken";
    this.#epoch = message.epoch;
    this.#sequence = message.resultsIn;
    if (complete) this.#closeAbsent(message);
    const network = this.#takeAll(message.changes);
    if (complete || network) {
      void this.#publisher.changed();
      this.#scope.spawn("record the network", () => this.#recordNetwork());
    }
    this.#complete = true;
    this.#knowsNetwork = true;
    return "applied";
  }

  /** The controller of a task of this node; undefined: it has none of that id. */
  controllerOf(taskId: string): TaskController | undefined {
    return this.#managers.get(taskId as TaskId)?.controller;
  }

  /** What those of these tasks use now that are this node's. */
  usage(taskIds: readonly string[], signal: AbortSignal): Promise<readonly TaskUsage[]> {
    const own = taskIds.filter((taskId) => this.#managers.has(taskId as TaskId));
    return this.#options.executor.usage(own as readonly string[] as readonly TaskId[], signal);
  }

  /** What the node's tasks can reach on a network, or, with an empty id, on all of theirs. */
  probe(networkId: string, signal: AbortSignal): Promise<readonly ProbeResult[]> {
    return this.#options.executor.probe(this.#network.snapshot(this.#own()), networkId, signal);
  }

  /** The tasks on this node that a reader of logs asks for. */
  logged(selector: LogSelector): readonly LoggedTask[] {
    return [...this.#managers.values()].filter((manager) => selects(selector, manager.task)).map(logged);
  }

  /** Tells `listener` of each task that starts on this node later and that `selector` asks for, until the signal aborts. */
  onTask(selector: LogSelector, listener: (task: LoggedTask) => void, signal: AbortSignal): void {
    const onTask = (manager: TaskManager) => {
      if (selects(selector, manager.task)) listener(logged(manager));
    };
    this.#taskListeners.add(onTask);
    signal.addEventListener("abort", () => this.#taskListeners.delete(onTask), { once: true });
  }

  /** Applies changes in their order; returns whether any was about the network. */
  #takeAll(changes: readonly AssignmentChange[]): boolean {
    let network = false;
    for (const change of changes) {
      if (this.#network.apply(change)) network = true;
      else this.#change(change);
    }
    return network;
  }

  /** A new task must come with its template, or after it. */
  #hasTemplates(message: AssignmentsMessage): boolean {
    const arriving = new Set<string>();
    for (const { item } of message.changes) if (item.case === "template") arriving.add(templateKey(item.value));
    return message.changes.every(({ action, item }) => {
      if (item.case !== "task" || action !== AssignmentChange_Action.UPDATE) return true;
      const key = templateKey(item.value);
      return this.#managers.has(item.value.id as TaskId) || arriving.has(key) || this.#templates.has(key);
    });
  }

  /** A complete set closes every task, template and endpoint that is not in it. */
  #closeAbsent(message: AssignmentsMessage): void {
    const tasks = new Set<string>();
    for (const { item } of message.changes) if (item.case === "task") tasks.add(item.value.id);
    for (const [taskId, manager] of this.#managers) if (!tasks.has(taskId)) manager.remove();
    this.#templates.clear();
    this.#network.clear();
    this.#contents.clear();
    for (const { item } of message.changes)
      if (item.case === "template") this.#templates.set(templateKey(item.value), item.value);
  }

  #change({ action, item }: AssignmentChange): void {
    const removed = action === AssignmentChange_Action.REMOVE;
    switch (item.case) {
      case "template":
        if (removed) this.#templates.delete(templateKey(item.value));
        else this.#takeTemplate(item.value);
        return;
      case "task":
        if (removed) this.#managers.get(item.value.id as TaskId)?.remove();
        else this.#assign(item.value);
        return;
      case "content":
        if (removed) this.#contents.delete(item.value);
        else this.#contents.put(item.value);
        return;
      case "volume":
        if (removed) this.#purger.purge(item.value);
        return;
      case "endpoint":
      case "network":
      case "peer":
      case "taskEndpoint":
      case undefined:
        return;
    }
  }

  /** A template that is told again pins other content: its tasks follow. */
  #takeTemplate(template: TaskTemplate): void {
    const key = templateKey(template);
    this.#templates.set(key, template);
    for (const manager of this.#managers.values()) {
      if (templateKey(manager.task) !== key || !manager.takesContent(template)) continue;
      this.#scope.spawn(`contents of task ${manager.id}`, (signal) => manager.refresh(template, signal));
    }
  }

  #assign(task: Task): void {
    const known = this.#managers.get(task.id as TaskId);
    if (known) {
      known.update(task);
      return;
    }
    const template = this.#templates.get(templateKey(task));
    assert(template, "a message whose templates are missing was let through");
    const status = task.status ?? create(TaskStatusSchema);
    const record = create(TaskRecordSchema, { task, template, status, bootId: this.#options.bootId });
    const outcome = adopt(status.state);
    const manager = this.#resume(record, outcome);
    if (outcome) this.#options.reporter.report(manager.id, manager.status);
    this.#launch(manager);
    for (const listener of this.#taskListeners) listener(manager);
  }

  /** Makes the manager of a task, known or new; `outcome` is what already became of it. */
  #resume(record: TaskRecord, outcome: TaskOutcome | undefined): TaskManager {
    const { clock, bootId, executor, reporter } = this.#options;
    const { task, template } = record;
    assert(task && template, "a task record without a task");
    if (outcome) {
      const timestamp = timestampFromMs(clock.nowMs());
      const { state, message, error = "" } = outcome;
      record.status = create(TaskStatusSchema, { ...record.status, state, message, error, timestamp });
    }
    record.bootId = bootId;
    const manager = new TaskManager({
      ...this.#options,
      record,
      controller: executor.controller({ task, template, contents: this.#contents, networks: this.#network }),
      hooks: {
        report: (taskId, status) => reporter.report(taskId, status),
        portProblem: (serviceId) => this.#portProblem(serviceId),
        servingChanged: (serviceId) => this.#servingChanged(serviceId),
        joined: (joining) => this.#joined(joining),
        hasOthers: (other) => this.#hasOthers(other),
        removed: (taskId) => {
          this.#managers.delete(taskId);
          reporter.forget(taskId);
          this.#forgetLater();
        },
      },
    });
    this.#managers.set(manager.id, manager);
    return manager;
  }

  /** Late connections to a task that is gone are passed on a little longer; then nothing may lead to its address. */
  #forgetLater(): void {
    if (this.#forgetting) return;
    this.#forgetting = true;
    this.#scope.spawn("forget removed tasks", async (signal) => {
      await this.#options.clock.sleep(FORGET_DELAY_MS, signal);
      this.#forgetting = false;
      if (this.#knowsNetwork) await this.#publisher.changed();
    });
  }

  #launch(manager: TaskManager): void {
    this.#scope.spawn(`task ${manager.id}`, (signal) => manager.run(signal));
  }

  #hasOthers({ id, serviceId }: Task): boolean {
    if (!this.#network.isReached(serviceId)) return false;
    const own = [...this.#managers.values()].some(
      ({ task, serving }) => serving && task.serviceId === serviceId && task.id !== id,
    );
    return own || this.#network.isServed(serviceId);
  }

  #servingChanged(serviceId: string): Promise<void> {
    if (!this.#knowsNetwork || !this.#network.isReached(serviceId)) return Promise.resolve();
    return this.#publisher.changed();
  }

  /** A task on networks is one of those that ask for names; nothing else may have changed that would have been published. */
  #joined({ networks }: Task): Promise<void> {
    return this.#knowsNetwork && networks.length > 0 ? this.#publisher.changed() : Promise.resolve();
  }

  async #loadNetwork(): Promise<void> {
    const record = await this.#options.database.loadEndpoints();
    if (!record) return;
    this.#network.restore(record);
    this.#knowsNetwork = true;
  }

  async #recordNetwork(): Promise<void> {
    try {
      await this.#options.database.putEndpoints(this.#network.record());
    } catch (reason) {
      // Only an agent that starts again while no manager is there would miss it.
      if (!(reason instanceof SwarmError)) throw reason;
      this.#options.logger.warn({ err: reason }, "network not recorded");
    }
  }

  async #followPortProblems(signal: AbortSignal): Promise<void> {
    for await (const problems of this.#options.executor.portProblems(signal)) {
      this.#portProblems = problems;
      for (const manager of this.#managers.values()) manager.portProblemsChanged();
    }
  }

  /** Why not all ports of a service can be reached on this node; empty when they can. */
  #portProblem(serviceId: string): string {
    const ports = this.#network.service(serviceId)?.ports ?? [];
    const concerns = (port: PortConfig) => (problem: PortProblem) =>
      port.publishedPort === problem.port &&
      port.protocol === problem.protocol &&
      hostAddress(port) === problem.hostAddress;
    return this.#portProblems
      .filter((problem) => ports.some((port) => concerns(port)(problem)))
      .map(({ message }) => message)
      .join("; ");
  }

  /** The node's own tasks as the network sees them. */
  #own(): readonly OwnTask[] {
    const isInternal = (networkId: string) => this.#network.network(networkId)?.internal ?? false;
    return [...this.#managers.values()].map(({ task, status, serving, template }) => ({
      ...{ task, status, serving, ingressAddresses: ingressAddresses(task, isInternal) },
      nameservers: template?.spec?.container?.dns?.nameservers ?? [],
    }));
  }
}

function logged(manager: TaskManager): LoggedTask {
  return { taskId: manager.id, controller: manager.controller };
}

function selects(selector: LogSelector, task: Task): boolean {
  return selector.taskIds.includes(task.id) || selector.serviceIds.includes(task.serviceId);
}

function templateKey(of: { readonly serviceId: string; readonly specVersion: bigint }): string {
  return `${of.serviceId}/${of.specVersion}`;
}
