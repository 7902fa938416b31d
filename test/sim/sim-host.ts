/**
 * A simulated host: its containers and its disk outlive the agent; its executor runs tasks in virtual time. What an
 * image does stands in its name: "app" runs, "app-crash" dies at once, "app-missing" cannot be pulled, "app-once" ends.
 */
import { create } from "@bufbuild/protobuf";
import type { AssignedTask, Executor, ExitStatus, TaskController } from "../../agent/executor.ts";
import { MemoryTaskDatabase, type TaskDatabase } from "../../agent/task-database.ts";
import { abortable, type Clock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { NodeId, TaskId } from "../../common/base/id.ts";
import type { Random } from "../../common/base/random.ts";
import type { TaskRecord } from "../../proto/gen/swarm/v1/agent_pb.js";
import { type NodeDescription, NodeDescriptionSchema } from "../../proto/gen/swarm/v1/types_pb.js";
import { between, chance } from "./chance.ts";
import type { SimProcess } from "./sim-process.ts";

/** What goes wrong on hosts; the nemesis turns these. */
export interface HostFaults {
  /** Probabilities: of a step that fails for good, of one that fails for now. */
  stepFails: number;
  stepFailsForNow: number;
  /** The probability that a container that starts will crash, some time in the next half minute. */
  crashes: number;
  /** The probability that a container's health check gives up. */
  unhealthy: number;
  /** The most that one write to the disk takes, in ms. */
  diskMsMax: number;
}

const CRASH_WITHIN_MS = 30_000;
const ONCE_MS = 3_000;
const MEMORY_BYTES = 6n * 1024n ** 3n;

interface Container {
  readonly taskId: string;
  readonly image: string;
  state: "preparing" | "ready" | "running" | "ended";
  /** Why it may end though it should run. */
  excused: boolean;
  exit: ExitStatus | undefined;
  readonly ended: PromiseWithResolvers<ExitStatus>;
}

/** What the world tells a host, and wants to know of it. */
export interface HostOptions {
  readonly name: string;
  readonly nodeId: NodeId;
  readonly clock: Clock;
  readonly random: Random;
  readonly faults: HostFaults;
  readonly log: (what: string) => void;
  readonly violated: (what: string) => void;
  /** A container has begun to run. */
  readonly started: (taskId: string) => void;
  /** Whether the store says that this task should still run. */
  readonly shouldRun: (taskId: string) => boolean;
}

export class SimHost {
  readonly name: string;
  readonly nodeId: NodeId;
  readonly #options: HostOptions;
  readonly #containers = new Map<string, Container>();
  readonly #everStarted = new Set<string>();
  readonly #disk = new MemoryTaskDatabase();
  #boots = 1;
  #pid = 100;

  constructor(options: HostOptions) {
    this.#options = options;
    this.name = options.name;
    this.nodeId = options.nodeId;
  }

  get bootId(): string {
    return `${this.name}-boot-${this.#boots}`;
  }

  /** The tasks whose containers run now. */
  get running(): readonly string[] {
    return [...this.#containers.values()].filter(({ state }) => state === "running").map(({ taskId }) => taskId);
  }

  /** The tasks that hold anything here. */
  get held(): readonly string[] {
    return [...this.#containers.keys()];
  }

  /** Every process dies; what lies on the disk stays. The agent's process is the world's affair. */
  reboot(): void {
    this.#boots += 1;
    for (const container of this.#containers.values()) {
      container.excused = true;
      if (container.state === "ready") container.state = "preparing";
      if (container.state === "running") this.#end(container, { exitCode: 137, oomKilled: false });
    }
  }

  /** The agent's way of running tasks, as `process` sees it. */
  executor(process: SimProcess): Executor {
    const { faults, random, clock } = this.#options;
    const takes = (leastMs: number, mostMs: number) => clock.sleep(between(random, leastMs, mostMs));
    const step = <T>(work: () => Promise<T>, signal: AbortSignal) => process.deliver(abortable(work(), signal));
    return {
      describe: async () => this.#describe(),
      configure: (_, signal) => step(() => takes(1, 20), signal),
      controller: (assigned) => this.#controller(assigned, process),
      publish: (_, signal) =>
        step(async () => {
          await takes(1, 10);
          if (chance(random, faults.stepFailsForNow)) throw new SwarmError("unavailable", "nft: resource busy");
        }, signal),
      // Nobody else is on a simulated host.
      async *portProblems() {},
      // Simulated containers write nothing.
      async *volumes() {
        yield [];
      },
      purgeVolume: async () => {},
      // Nobody asks what they use.
      usage: async () => [],
      probe: async () => [],
      collect: (live, signal) =>
        step(async () => {
          await takes(1, 50);
          for (const taskId of this.#containers.keys()) if (!live.has(taskId as TaskId)) this.#remove(taskId);
        }, signal),
    };
  }

  /** The agent's task records, as `process` sees them: a write that was begun lands even if the agent is killed in it. */
  database(process: SimProcess): TaskDatabase {
    const { clock, random, faults } = this.#options;
    const write = async (work: () => Promise<void>) => {
      await process.running();
      const landed = chance(random, 0.5) ? work() : undefined;
      await process.deliver(clock.sleep(between(random, 0, faults.diskMsMax)));
      await (landed ?? work());
    };
    return {
      load: () => process.deliver(this.#disk.load()),
      put: (record: TaskRecord) => write(() => this.#disk.put(record)),
      delete: (taskId: TaskId) => write(() => this.#disk.delete(taskId)),
      loadEndpoints: () => process.deliver(this.#disk.loadEndpoints()),
      putEndpoints: (endpoints) => write(() => this.#disk.putEndpoints(endpoints)),
    };
  }

  #describe(): NodeDescription {
    return create(NodeDescriptionSchema, {
      hostname: this.name,
      platform: { os: "linux", architecture: "x86_64" },
      resources: { nanoCpus: 8_000_000_000n, memoryBytes: MEMORY_BYTES },
    });
  }

  #controller({ task, template }: AssignedTask, process: SimProcess): TaskController {
    const { id } = task;
    const image = template.spec?.container?.image ?? "";
    const step = <T>(work: () => Promise<T>, signal: AbortSignal) => process.deliver(abortable(work(), signal));
    return {
      prepare: (signal) => step(() => this.#prepare(id, image), signal),
      start: (signal) => step(() => this.#start(id), signal),
      healthy: (signal) => step(() => this.#healthy(id), signal),
      exited: (signal) => step(() => this.#container(id).ended.promise, signal),
      shutdown: (signal) => step(() => this.#shutdown(id), signal),
      remove: (signal) => step(() => this.#discard(id), signal),
      // Simulated services have no contents.
      refresh: async () => {},
      // Nobody asks for a command in a simulated container.
      async *exec() {},
      async *copy() {},
      async *logs() {},
    };
  }

  /** The container of a task; one that was never made has ended. */
  #container(taskId: string): Container {
    const container = this.#containers.get(taskId);
    if (container) return container;
    const ended = Promise.withResolvers<ExitStatus>();
    const exit = { exitCode: 137, oomKilled: false, reason: "container is gone" };
    ended.resolve(exit);
    return { taskId, image: "", state: "ended", excused: true, exit, ended };
  }

  async #prepare(taskId: string, image: string): Promise<void> {
    const known = this.#containers.get(taskId);
    if (known && known.state !== "preparing") return;
    const container: Container = known ?? {
      ...{ taskId, image, state: "preparing", excused: false, exit: undefined },
      ended: Promise.withResolvers<ExitStatus>(),
    };
    this.#containers.set(taskId, container);
    await this.#takes(10, 800);
    if (image.endsWith("-missing")) throw new SwarmError("not_found", `pull ${image}: manifest unknown`);
    this.#mayFail("prepare");
    if (container.state === "preparing") container.state = "ready";
  }

  async #start(taskId: string): Promise<{ readonly pid: number }> {
    await this.#takes(1, 60);
    const container = this.#containers.get(taskId);
    if (!container || container.state === "preparing") {
      throw new SwarmError("failed_precondition", `start ${taskId}: it is not prepared`);
    }
    this.#pid += 1;
    if (container.state !== "ready") return { pid: this.#pid };
    this.#mayFail("start");
    if (this.#everStarted.has(taskId)) this.#options.violated(`X1: task ${taskId} was started twice`);
    this.#everStarted.add(taskId);
    container.state = "running";
    this.#options.log(`started ${taskId} (${container.image})`);
    this.#options.started(taskId);
    this.#fate(container);
    return { pid: this.#pid };
  }

  /** What becomes of a container by itself. */
  #fate(container: Container): void {
    const { random, faults } = this.#options;
    const endsAfter = (delayMs: number, exitCode: number) => {
      container.excused = true;
      this.#later(delayMs, () => this.#end(container, { exitCode, oomKilled: false }));
    };
    if (container.image.endsWith("-crash")) endsAfter(between(random, 5, 200), 1);
    else if (container.image.endsWith("-once")) endsAfter(between(random, 100, ONCE_MS), 0);
    else if (chance(random, faults.crashes)) endsAfter(between(random, 0, CRASH_WITHIN_MS), 1);
  }

  async #healthy(taskId: string): Promise<void> {
    await this.#takes(0, 300);
    const { random, faults } = this.#options;
    if (!chance(random, faults.unhealthy)) return;
    this.#container(taskId).excused = true;
    throw new SwarmError("failed_precondition", "unhealthy: 3 probes failed");
  }

  async #shutdown(taskId: string): Promise<void> {
    const container = this.#container(taskId);
    if (container.state === "running" && !container.excused && this.#options.shouldRun(taskId)) {
      this.#options.violated(`X2: ${this.name} stops task ${taskId}, which should run`);
    }
    if (container.state === "running") {
      // The signal is on its way: it ends even if the agent that sent it does not live to see it.
      container.excused = true;
      this.#later(between(this.#options.random, 1, 1_500), () =>
        this.#end(container, { exitCode: 143, oomKilled: false }),
      );
    } else this.#end(container, { exitCode: 137, oomKilled: false });
    await container.ended.promise;
    if (chance(this.#options.random, this.#options.faults.stepFailsForNow)) {
      throw new SwarmError("unavailable", "stop: cgroup is busy");
    }
  }

  async #discard(taskId: string): Promise<void> {
    await this.#takes(1, 50);
    if (chance(this.#options.random, this.#options.faults.stepFailsForNow)) {
      throw new SwarmError("unavailable", "unmount: busy");
    }
    this.#remove(taskId);
  }

  #remove(taskId: string): void {
    const container = this.#containers.get(taskId);
    if (!container) return;
    if (container.state === "running" && !container.excused && this.#options.shouldRun(taskId)) {
      this.#options.violated(`X2: ${this.name} removes task ${taskId}, which should run`);
    }
    this.#end(container, { exitCode: 137, oomKilled: false });
    this.#containers.delete(taskId);
  }

  #end(container: Container, exit: ExitStatus): void {
    if (container.state === "ended") return;
    if (container.state === "running") this.#options.log(`ended ${container.taskId} (${exit.exitCode})`);
    container.state = "ended";
    container.exit = exit;
    container.ended.resolve(exit);
  }

  #mayFail(operation: string): void {
    const { random, faults } = this.#options;
    if (chance(random, faults.stepFailsForNow)) throw new SwarmError("unavailable", `${operation}: try again`);
    if (chance(random, faults.stepFails)) throw new SwarmError("internal", `${operation}: no space left on device`);
  }

  #takes(leastMs: number, mostMs: number): Promise<void> {
    const { clock, random } = this.#options;
    return clock.sleep(between(random, leastMs, mostMs));
  }

  #later(delayMs: number, act: () => void): void {
    void this.#options.clock.sleep(delayMs).then(act);
  }
}
