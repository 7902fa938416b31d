import { create } from "@bufbuild/protobuf";
import type {
  AssignedTask,
  Executor,
  ExitStatus,
  NetworkSettings,
  NodeNetwork,
  PortProblem,
  TaskController,
} from "../agent/executor.ts";
import { abortable, systemClock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import type { TaskId } from "../common/base/id.ts";
import { Wakeup } from "../common/base/wakeup.ts";
import {
  type CopyResponse,
  CopyResponseSchema,
  ExecEndedSchema,
  type ExecResponse,
  ExecResponseSchema,
  type LogMessage,
  LogMessage_Stream,
  LogMessageSchema,
  PathState_Kind,
  PathStateSchema,
  TaskUsageSchema,
} from "../proto/gen/swarm/v1/control_pb.js";
import type { LogOptions } from "../proto/gen/swarm/v1/objects_pb.js";
import { NodeDescriptionSchema } from "../proto/gen/swarm/v1/types_pb.js";

/** A container of the fake executor: outlives the controllers that look at it, as real ones outlive the agent. */
export class FakeContainer {
  readonly ended = Promise.withResolvers<ExitStatus>();
  running = false;
  exit: ExitStatus | undefined;

  end(exit: Partial<ExitStatus> = {}): void {
    if (this.exit) return;
    this.running = false;
    this.exit = { exitCode: 0, oomKilled: false, ...exit };
    this.ended.resolve(this.exit);
  }
}

/** Runs tasks in memory, for unit tests: each step is written down, may be held back and may be made to fail. */
export class FakeExecutor implements Executor {
  readonly containers = new Map<string, FakeContainer>();
  /** Every call, in order: "prepare <id>", "publish 8080→10.0.0.1", … */
  readonly calls: string[] = [];
  /** What a step throws, by its name, each once per element. */
  readonly failures = new Map<string, SwarmError[]>();
  /** A step named here waits until the promise resolves. */
  readonly gates = new Map<string, Promise<void>>();
  #pid = 100;
  #portProblems: readonly PortProblem[] = [];
  readonly #portProblemsChanged = new Wakeup();

  async describe() {
    return create(NodeDescriptionSchema, { hostname: "fake" });
  }

  async configure({ addressPool }: NetworkSettings) {
    this.calls.push(`configure ${addressPool}`);
  }

  async publish({ endpoints }: NodeNetwork, signal: AbortSignal) {
    await this.#step("publish", signal);
    const shown = endpoints.map(
      ({ port, targets }) => `${port.publishedPort}→${targets.map(({ address }) => address).join(",")}`,
    );
    this.calls.push(`publish ${shown.join(" ")}`.trimEnd());
  }

  setPortProblems(problems: readonly PortProblem[]): void {
    this.#portProblems = problems;
    this.#portProblemsChanged.wake();
  }

  async *portProblems(signal: AbortSignal) {
    while (true) {
      await this.#portProblemsChanged.wait(signal);
      yield this.#portProblems;
    }
  }

  async *volumes(signal: AbortSignal) {
    yield [];
    await new Wakeup().wait(signal);
  }

  async purgeVolume(name: string, createdMs: number, signal: AbortSignal) {
    this.calls.push(`purge ${name} of ${createdMs}`);
    await this.#step("purge", signal);
  }

  /** Every container that runs uses one CPU, whole. */
  async probe() {
    return [];
  }

  async usage(taskIds: readonly TaskId[]) {
    this.calls.push(`usage ${taskIds.length}`);
    const monotonicNanos = BigInt(Math.round(systemClock.monotonicMs() * 1e6));
    return taskIds
      .filter((taskId) => this.containers.get(taskId)?.running)
      .map((taskId) => create(TaskUsageSchema, { taskId, monotonicNanos, cpuNanos: monotonicNanos, pids: 1n }));
  }

  async collect(live: ReadonlySet<TaskId>) {
    for (const id of this.containers.keys()) if (!live.has(id as TaskId)) this.containers.delete(id);
  }

  container(id: string): FakeContainer {
    const container = this.containers.get(id) ?? new FakeContainer();
    this.containers.set(id, container);
    return container;
  }

  controller({ task: { id } }: AssignedTask): TaskController {
    const note = async (step: string, signal: AbortSignal) => {
      this.calls.push(`${step} ${id}`);
      await this.#step(step, signal);
    };
    const executor = this;
    return {
      async prepare(signal) {
        await note("prepare", signal);
        executor.container(id);
      },
      async start(signal) {
        await note("start", signal);
        const container = executor.container(id);
        if (!container.exit) container.running = true;
        return { pid: executor.#pid++ };
      },
      healthy: (signal) => executor.#step("healthy", signal),
      exited: (signal) => abortable(executor.container(id).ended.promise, signal),
      async shutdown(signal) {
        await note("shutdown", signal);
        executor.container(id).end({ exitCode: 143 });
      },
      async remove(signal) {
        await note("remove", signal);
        executor.containers.delete(id);
      },
      async refresh(template, signal) {
        const pins = template.pins.map(({ objectId, version }) => `${objectId}/${version}`).join(" ");
        await note(`refresh ${pins}`, signal);
      },
      /** `echo` sends back what comes in; `wait` ends with its caller; anything else ends with 0. */
      async *exec(start, requests, signal): AsyncIterable<ExecResponse> {
        executor.calls.push(`exec ${start.args.join(" ")}`);
        const say = (content: ExecResponse["content"]) => create(ExecResponseSchema, { content });
        yield say({ case: "started", value: true });
        try {
          if (start.args[0] === "wait") await abortable(new Promise<never>(() => {}), signal);
          if (start.args[0] === "echo") {
            for await (const { content } of requests) {
              if (content.case === "stdin") yield say({ case: "stdout", value: content.value });
              if (content.case === "stdinEnd") break;
            }
          }
          yield say({ case: "ended", value: create(ExecEndedSchema, {}) });
        } finally {
          executor.calls.push(`exec over ${start.args.join(" ")}`);
        }
      },
      /** Into `/echo` what comes is thrown away; out of anything comes an archive of 40 chunks; `/wait` ends with its caller. */
      async *copy({ content }, requests, signal): AsyncIterable<CopyResponse> {
        const path = content.case === "from" || content.case === "to" ? content.value.path : "";
        executor.calls.push(`copy ${content.case} ${path}`);
        const say = (answer: CopyResponse["content"]) => create(CopyResponseSchema, { content: answer });
        try {
          yield say({ case: "place", value: create(PathStateSchema, { kind: PathState_Kind.FILE, path }) });
          if (path === "/wait") await abortable(new Promise<never>(() => {}), signal);
          for (let chunk = 0; content.case === "from" && chunk < 40; chunk++) {
            yield say({ case: "data", value: Buffer.alloc(64 * 1024, chunk) });
          }
          let received = 0;
          if (content.case === "to") {
            for await (const { content: part } of requests) {
              if (part.case === "data") received += part.value.length;
              if (part.case === "dataEnd") break;
            }
          }
          if (received > 0) yield say({ case: "warning", value: `${received} bytes` });
          yield say({ case: "done", value: true });
        } finally {
          executor.calls.push(`copy over ${path}`);
        }
      },
      async *logs(_options: LogOptions): AsyncIterable<LogMessage> {
        for (const line of ["one", "two"]) {
          yield create(LogMessageSchema, { stream: LogMessage_Stream.STDOUT, data: new TextEncoder().encode(line) });
        }
      },
    };
  }

  async #step(step: string, signal: AbortSignal): Promise<void> {
    const gate = this.gates.get(step);
    if (gate) await abortable(gate, signal);
    const failure = this.failures.get(step)?.shift();
    if (failure) throw failure;
    if (signal.aborted) throw new SwarmError("canceled", "canceled");
  }
}
