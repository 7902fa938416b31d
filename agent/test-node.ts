/**
 * For tests that run real tasks: a node with everything but a session. Assignments are applied by hand; what it made is
 * gone after disposal. `restart` is what a new process after kill -9 sees.
 */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { systemClock } from "../common/base/clock.ts";
import type { TaskId } from "../common/base/id.ts";
import { newId } from "../common/base/id.ts";
import { openLogger } from "../common/base/logger.ts";
import { systemRandom } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { taskStateName } from "../common/model/task-state.ts";
import type { LogMessage } from "../proto/gen/swarm/v1/control_pb.js";
import {
  type AssignmentChangeSchema,
  AssignmentsMessage_Type,
  AssignmentsMessageSchema,
} from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { LogOptionsSchema, LogSelectorSchema } from "../proto/gen/swarm/v1/objects_pb.js";
import {
  type PortConfigSchema,
  type TaskSpec,
  TaskState,
  type TaskStatus,
  TaskStatusSchema,
} from "../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../test/eventually.ts";
import { buildParts, busyboxFiles } from "../test/images.ts";
import { type CgroupManager, openCgroups } from "./cgroup/manager.ts";
import { contentsDirectory } from "./container-contents.ts";
import { ContainerExecutor } from "./container-executor.ts";
import { hostPlatform } from "./image/store.ts";
import { MemorySource } from "./image/test-store.ts";
import { agentDirectories } from "./node-runtime.ts";
import { Reporter } from "./reporter.ts";
import { readHostFacts } from "./runtime/host-facts.ts";
import { buildShim } from "./runtime/test-root.ts";
import { FileTaskDatabase } from "./task-database.ts";
import { Worker } from "./worker.ts";

type Change = MessageInitShape<typeof AssignmentChangeSchema>;

/** A service of the test: its spec version's task part and ports. */
export interface TestService {
  readonly spec: TaskSpec;
  readonly ports?: readonly MessageInitShape<typeof PortConfigSchema>[];
}

class LastStatus extends Reporter {
  readonly last = new Map<TaskId, TaskStatus>();
  /** As a manager keeps it, over the agent's restarts. */
  stored = new Map<TaskId, TaskStatus>();

  override report(taskId: TaskId, status: TaskStatus): void {
    this.last.set(taskId, status);
    this.stored.set(taskId, status);
  }
}

let nodes = 0;
/** Its key is replaced only while somebody asks for it: then soon. */
const WIREGUARD_KEY_LIFETIME_MS = 1_000;

export class TestNode implements AsyncDisposable {
  readonly directory: string;
  readonly source: MemorySource;
  readonly networkDevice = `swt${process.pid % 100_000}x${nodes++}`;
  readonly #cgroups: CgroupManager;
  /** By process, too: on this host's network others may run the same test. */
  readonly #pool = `10.${130 + ((process.pid + nodes) % 90)}.0.0/16`;
  #scope = new Scope();
  #executor: ContainerExecutor | undefined;
  #worker: Worker | undefined;
  #reporter = new LastStatus(systemClock, openLogger("test", { level: "silent", format: "json" }));
  #sequence = 0;
  readonly #services = new Map<string, Change[]>();
  readonly #tasks = new Map<TaskId, { readonly service: string; readonly address: string }>();

  private constructor(directory: string, cgroups: CgroupManager) {
    this.directory = directory;
    this.#cgroups = cgroups;
    this.source = new MemorySource();
    const image = buildParts({ name: "box:1", layers: [{ files: busyboxFiles() }], config: { Env: ["PATH=/bin"] } });
    this.source.add("box:1", image);
  }

  static async start(): Promise<TestNode> {
    const directory = await mkdtemp(`${tmpdir()}/swarm-node-`);
    const cgroups = await openCgroups(systemClock, `/swarm-test-${process.pid}-${nodes}`);
    const node = new TestNode(directory, cgroups);
    await node.#open();
    return node;
  }

  get executor(): ContainerExecutor {
    if (!this.#executor) throw new Error("not started");
    return this.#executor;
  }

  get worker(): Worker {
    if (!this.#worker) throw new Error("not started");
    return this.#worker;
  }

  async #open(): Promise<void> {
    const logger = openLogger("test-node", { level: process.env.TEST_LOG ? "debug" : "silent", format: "json" });
    const directories = agentDirectories(this.directory, contentsDirectory(`test-${basename(this.directory)}`));
    this.#scope = new Scope();
    this.#executor = await ContainerExecutor.open(
      {
        ...{ clock: systemClock, random: systemRandom, logger, directories, cgroups: this.#cgroups },
        ...{ nodeId: "n".repeat(25), hostname: "test-node", version: "test", labels: {}, insecureRegistries: [] },
        imageRetentionMs: 0,
        facts: await readHostFacts((path) => readFile(path, "utf8"), process.arch),
        shimPath: buildShim(),
        clusterImages: this.source,
        networkDevice: this.networkDevice,
        wireguardKeyLifetimeMs: WIREGUARD_KEY_LIFETIME_MS,
      },
      hostPlatform(),
    );
    const { stored } = this.#reporter;
    this.#reporter = new LastStatus(systemClock, logger);
    this.#reporter.stored = stored;
    this.#worker = new Worker(
      {
        ...{ clock: systemClock, random: systemRandom, logger, executor: this.#executor, reporter: this.#reporter },
        database: new FileTaskDatabase(directories, logger),
        bootId: "boot",
      },
      this.#scope,
    );
    await this.#worker.recover(this.#scope.signal);
    await this.#executor.configure({ addressPool: this.#pool, nodeAddress: "", dataPathPort: 0 }, this.#scope.signal);
    this.#sequence = 0;
  }

  /** The agent goes and comes back; its containers run on. `away` happens between. */
  async restart(away: () => Promise<void> = async () => {}): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
    await this.executor[Symbol.asyncDispose]();
    await away();
    await this.#open();
    this.apply([...this.#services.values()].flat().concat([...this.#tasks.keys()].map((id) => this.#change(id, {}))));
  }

  /** Assigns a task of a new service, or of a known one by its name. */
  assign(service: TestService | string, init: { readonly desired?: TaskState } = {}): TaskId {
    const id = newId<TaskId>(systemRandom);
    const name = typeof service === "string" ? service : newId<TaskId>(systemRandom);
    const changes: Change[] = [];
    if (typeof service !== "string") {
      const { spec, ports = [] } = service;
      changes.push({
        item: { case: "template", value: { serviceId: name, specVersion: 1n, serviceName: "box", spec } },
      });
      changes.push({ item: { case: "endpoint", value: { serviceId: name, ports: [...ports] } } });
      this.#services.set(name, [...changes]);
    }
    this.#tasks.set(id, { service: name, address: this.#pool.replace("0.0/", `1.${this.#tasks.size + 2}/`) });
    changes.push(this.#change(id, init));
    this.apply(changes);
    return id;
  }

  serviceOf(id: TaskId): string {
    return this.#tasks.get(id)?.service ?? "";
  }

  addressOf(id: TaskId): string {
    return this.#tasks.get(id)?.address.split("/")[0] ?? "";
  }

  stop(id: TaskId): void {
    this.apply([this.#change(id, { desired: TaskState.SHUTDOWN })]);
  }

  /** Takes every assignment back. */
  clear(): void {
    this.#tasks.clear();
    this.#services.clear();
    this.#sequence = 0;
    this.apply([]);
  }

  apply(changes: Change[]): void {
    const type = this.#sequence === 0 ? AssignmentsMessage_Type.COMPLETE : AssignmentsMessage_Type.INCREMENTAL;
    const appliesTo = `${this.#sequence}`;
    const resultsIn = `${++this.#sequence}`;
    this.worker.apply(create(AssignmentsMessageSchema, { type, appliesTo, resultsIn, changes, epoch: 1n }));
  }

  #change(id: TaskId, { desired = TaskState.RUNNING }: { readonly desired?: TaskState }): Change {
    const { service: serviceId = "", address = "" } = this.#tasks.get(id) ?? {};
    const status = this.#reporter.stored.get(id) ?? create(TaskStatusSchema, { state: TaskState.ASSIGNED });
    const task = { id, serviceId, specVersion: 1n, slot: 1, desiredState: desired, status, address };
    return { item: { case: "task", value: task } };
  }

  status(id: TaskId): TaskStatus | undefined {
    return this.#reporter.last.get(id);
  }

  /** Waits for a task's state; a wrong end is told at once. */
  async reaches(id: TaskId, state: TaskState, timeoutMs = 15_000): Promise<TaskStatus> {
    return eventually(
      () => {
        const status = this.status(id);
        if (status?.state === state) return status;
        const shown = status ? `${taskStateName(status.state)} (${status.message} ${status.error})` : "unknown";
        throw new Error(`${id} is ${shown}, not ${taskStateName(state)}`);
      },
      { timeoutMs, intervalMs: 5 },
    );
  }

  async logs(id: TaskId): Promise<string> {
    const selector = create(LogSelectorSchema, { taskIds: [id] });
    let text = "";
    for (const { controller } of this.worker.logged(selector)) {
      const options = create(LogOptionsSchema, { tail: -1n });
      for await (const { data } of controller.logs(options, this.#scope.signal) as AsyncIterable<LogMessage>) {
        text += `${new TextDecoder().decode(data)}\n`;
      }
    }
    return text;
  }

  /** Ids that still have a cgroup. */
  cgroups(): Promise<readonly string[]> {
    return this.#cgroups.list();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.clear();
    const all = create(LogSelectorSchema, { serviceIds: [...this.#services.keys()] });
    await eventually(async () => {
      if (this.worker.logged(all).length > 0 || (await this.cgroups()).length > 0) throw new Error("tasks are left");
    });
    await this.executor.purge(this.#scope.signal);
    await this.#scope[Symbol.asyncDispose]();
    await this.executor[Symbol.asyncDispose]();
    await rm(this.directory, { recursive: true });
  }
}
