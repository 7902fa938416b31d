/**
 * Goal: assignments become tasks that move through their states, ports follow the running set, and a restarted agent
 * goes on where it was. Method: messages are applied by hand over an in-memory executor and a clock that is stepped.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, onTestFinished, test } from "vitest";
import { SwarmError } from "../common/base/error.ts";
import { FakeClock } from "../common/base/fake-clock.ts";
import type { TaskId } from "../common/base/id.ts";
import { silentLogger } from "../common/base/logger.ts";
import { seededRandom } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { taskStateName } from "../common/model/task-state.ts";
import {
  AssignmentChange_Action,
  type AssignmentChangeSchema,
  AssignmentsMessage_Type,
  AssignmentsMessageSchema,
} from "../proto/gen/swarm/v1/dispatcher_pb.js";
import type { TaskSchema } from "../proto/gen/swarm/v1/objects_pb.js";
import { PortConfig_Protocol, TaskState, type TaskStatus } from "../proto/gen/swarm/v1/types_pb.js";
import { FakeExecutor } from "../test/fake-executor.ts";
import { Reporter } from "./reporter.ts";
import { MemoryTaskDatabase } from "./task-database.ts";
import { type Applied, Worker } from "./worker.ts";

type Change = MessageInitShape<typeof AssignmentChangeSchema>;
type TaskInit = Partial<MessageInitShape<typeof TaskSchema>>;

const A = "a".repeat(25);
const B = "b".repeat(25);
const TEMPLATE: Change = {
  item: { case: "template", value: { serviceId: "web", specVersion: 1n, spec: {}, serviceName: "web" } },
};
const ENDPOINT: Change = {
  item: { case: "endpoint", value: { serviceId: "web", ports: [{ publishedPort: 8080, targetPort: 80 }] } },
};

function taskChange(id: string, init: TaskInit = {}): Change {
  return {
    item: {
      case: "task",
      value: {
        id,
        serviceId: "web",
        specVersion: 1n,
        desiredState: TaskState.RUNNING,
        status: { state: TaskState.ASSIGNED },
        address: `10.0.0.${id === A ? 1 : 2}/12`,
        ...init,
      } as MessageInitShape<typeof TaskSchema>,
    },
  };
}

function removal(id: string): Change {
  return { action: AssignmentChange_Action.REMOVE, item: { case: "task", value: { id } } };
}

/** Keeps every status instead of sending it. */
class RecordingReporter extends Reporter {
  readonly seen: string[] = [];
  readonly last = new Map<string, TaskStatus>();

  override report(taskId: TaskId, status: TaskStatus): void {
    this.seen.push(`${taskId[0]} ${taskStateName(status.state)}`);
    this.last.set(taskId, status);
  }
}

async function startWorker(shared: { executor?: FakeExecutor; database?: MemoryTaskDatabase; bootId?: string } = {}) {
  const clock = new FakeClock();
  const executor = shared.executor ?? new FakeExecutor();
  const database = shared.database ?? new MemoryTaskDatabase();
  const reporter = new RecordingReporter(clock, silentLogger);
  const scope = new Scope();
  const options = { clock, executor, database, reporter, logger: silentLogger, bootId: shared.bootId ?? "boot" };
  const worker = new Worker({ ...options, random: seededRandom(1) }, scope);
  await worker.recover(scope.signal);
  onTestFinished(() => scope[Symbol.asyncDispose]());
  let sequence = 0;
  const apply = async (changes: Change[], over: { complete?: boolean; epoch?: bigint; appliesTo?: string } = {}) => {
    const complete = over.complete ?? sequence === 0;
    const message = create(AssignmentsMessageSchema, {
      type: complete ? AssignmentsMessage_Type.COMPLETE : AssignmentsMessage_Type.INCREMENTAL,
      appliesTo: over.appliesTo ?? `${sequence}`,
      resultsIn: `${++sequence}`,
      changes,
      epoch: over.epoch ?? 1n,
    });
    const applied: Applied = worker.apply(message);
    await clock.advance(0);
    return applied;
  };
  return { clock, executor, database, reporter, worker, scope, apply };
}

test("a task goes through every state to running, and its port is published before that is told", async () => {
  const { executor, reporter, apply } = await startWorker();
  expect(await apply([TEMPLATE, ENDPOINT, taskChange(A)])).toBe("applied");
  expect(reporter.seen).toEqual(["a accepted", "a preparing", "a ready", "a starting", "a running"]);
  expect(executor.calls).toEqual(["publish 8080→", `prepare ${A}`, `start ${A}`, "publish 8080→10.0.0.1"]);
  expect(reporter.last.get(A)).toMatchObject({ message: "started", container: { pid: 100 } });
});

test("an exit tells its code and withdraws the port", async () => {
  const { executor, reporter, clock, apply } = await startWorker();
  await apply([TEMPLATE, ENDPOINT, taskChange(A)]);
  executor.container(A).end({ exitCode: 3 });
  await clock.advance(0);
  expect(reporter.last.get(A)).toMatchObject({
    state: TaskState.FAILED,
    error: "task: non-zero exit (3)",
    container: { exitCode: 3 },
  });
  expect(executor.calls.at(-1)).toBe("publish 8080→");
});

test("a shutdown withdraws the port first, a removal frees the task", async () => {
  const { clock, executor, reporter, database, worker, apply } = await startWorker();
  await apply([TEMPLATE, ENDPOINT, taskChange(A), taskChange(B)]);
  executor.calls.length = 0;
  await apply([taskChange(A, { desiredState: TaskState.SHUTDOWN })]);
  // What was let in a moment ago is accepted first, since others serve in its place.
  expect(executor.calls).toEqual(["publish 8080→10.0.0.2"]);
  await clock.advance(500);
  expect(executor.calls).toEqual(["publish 8080→10.0.0.2", `shutdown ${A}`]);
  expect(reporter.last.get(A)).toMatchObject({ state: TaskState.SHUTDOWN, container: { exitCode: 143 } });
  await apply([removal(A)]);
  expect(executor.calls.at(-1)).toBe(`remove ${A}`);
  expect((await database.load()).map(({ task }) => task?.id)).toEqual([B]);
  expect(worker.logged({ serviceIds: ["web"], taskIds: [] } as never).map(({ taskId }) => taskId)).toEqual([B]);
});

test("a task on networks is in the node's network before it starts, though nothing else changed", async () => {
  const { executor, apply } = await startWorker();
  await apply([TEMPLATE, taskChange(A)]);
  executor.calls.length = 0;
  await apply([taskChange(B, { networks: [{ networkId: "front", addresses: ["10.0.1.7/24"] }] })]);
  const steps = executor.calls.map((call) => call.split(" ")[0]);
  expect(steps).toContain("publish");
  expect(steps.indexOf("publish")).toBeLessThan(steps.indexOf("start"));
});

test("what led to a removed task is taken away a minute later, once for all that go meanwhile", async () => {
  const { clock, executor, apply } = await startWorker();
  await apply([TEMPLATE, ENDPOINT, taskChange(A), taskChange(B)]);
  const stop = { desiredState: TaskState.SHUTDOWN };
  await apply([taskChange(A, stop), taskChange(B, stop)]);
  await clock.advance(500);
  await apply([removal(A)]);
  await clock.advance(50_000);
  await apply([removal(B)]);
  executor.calls.length = 0;
  await clock.advance(10_000);
  expect(executor.calls).toEqual(["publish 8080→"]);
  await clock.advance(120_000);
  expect(executor.calls).toEqual(["publish 8080→"]);
});

test("a shutdown interrupts a preparation", async () => {
  const { executor, reporter, apply } = await startWorker();
  executor.gates.set("prepare", Promise.withResolvers<void>().promise);
  await apply([TEMPLATE, taskChange(A)]);
  expect(reporter.seen.at(-1)).toBe("a preparing");
  await apply([taskChange(A, { desiredState: TaskState.SHUTDOWN })]);
  expect(reporter.seen.at(-1)).toBe("a shutdown");
});

test("a ready task waits to be let go; its start time is for the manager's clock alone", async () => {
  const { clock, reporter, apply } = await startWorker();
  await apply([TEMPLATE, taskChange(A, { desiredState: TaskState.READY })]);
  expect(reporter.seen.at(-1)).toBe("a ready");
  const startAfter = timestampFromMs(clock.nowMs() + 3_600_000);
  await apply([taskChange(A, { startAfter })]);
  expect(reporter.seen.at(-1)).toBe("a running");
});

test("a failure for good rejects, a passing one is tried again", async () => {
  const { clock, executor, reporter, apply } = await startWorker();
  executor.failures.set("prepare", [new SwarmError("not_found", "no such image: nope:1")]);
  await apply([TEMPLATE, taskChange(A)]);
  expect(reporter.last.get(A)).toMatchObject({ state: TaskState.REJECTED, error: "no such image: nope:1" });
  executor.failures.set("prepare", [new SwarmError("unavailable", "registry is down")]);
  await apply([taskChange(B)]);
  expect(reporter.last.get(B)).toMatchObject({
    state: TaskState.PREPARING,
    message: "trying again: registry is down",
    error: "registry is down",
  });
  await clock.advance(2_000);
  expect(reporter.last.get(B)).toMatchObject({ state: TaskState.RUNNING, error: "" });
});

test("a passing failure that stays is given up", async () => {
  const { clock, executor, reporter, apply } = await startWorker();
  const down = new SwarmError("unavailable", "registry is down");
  executor.failures.set(
    "prepare",
    Array.from({ length: 20 }, () => down),
  );
  await apply([TEMPLATE, taskChange(A)]);
  await clock.advance(60_000);
  expect(reporter.last.get(A)).toMatchObject({ state: TaskState.REJECTED, error: "registry is down" });
  expect(executor.calls.filter((call) => call.startsWith("prepare"))).toHaveLength(6);
});

test("a start that fails is FAILED, with its container stopped; an unhealthy one as well", async () => {
  const { executor, reporter, apply } = await startWorker();
  executor.failures.set("start", [new SwarmError("internal", "exec /nope: ENOENT")]);
  await apply([TEMPLATE, taskChange(A)]);
  expect(reporter.last.get(A)).toMatchObject({ state: TaskState.FAILED, error: "exec /nope: ENOENT" });
  expect(executor.calls.at(-1)).toBe(`shutdown ${A}`);
  executor.failures.set("healthy", [new SwarmError("failed_precondition", "unhealthy: no answer")]);
  await apply([taskChange(B)]);
  expect(reporter.last.get(B)).toMatchObject({ state: TaskState.FAILED, error: "task: unhealthy: no answer" });
});

test("a complete set closes what is not in it; a broken chain and a stale leader are refused", async () => {
  const { executor, apply } = await startWorker();
  await apply([TEMPLATE, taskChange(A)], { epoch: 5n });
  expect(await apply([taskChange(B)], { epoch: 5n, appliesTo: "nope" })).toBe("broken");
  expect(await apply([], { complete: true, epoch: 4n })).toBe("stale");
  expect([...executor.containers.keys()]).toEqual([A]);
  expect(await apply([TEMPLATE, taskChange(B)], { complete: true, epoch: 6n })).toBe("applied");
  expect([...executor.containers.keys()]).toEqual([B]);
  expect(executor.calls).toContain(`shutdown ${A}`);
});

test("a task without its template breaks the chain", async () => {
  const { apply } = await startWorker();
  expect(await apply([taskChange(A)])).toBe("broken");
});

test("a restarted agent finds its containers running, tells exits that it missed, and frees the rest", async () => {
  const first = await startWorker();
  await first.apply([TEMPLATE, ENDPOINT, taskChange(A), taskChange(B)]);
  await first.scope[Symbol.asyncDispose]();
  const { executor, database } = first;
  executor.container(B).end({ exitCode: 7 });
  executor.container("c".repeat(25));
  executor.calls.length = 0;

  const second = await startWorker({ executor, database });
  await second.clock.advance(0);
  expect(second.reporter.seen).toEqual(["a running", "b running", "b failed"]);
  expect(second.reporter.last.get(B)?.error).toBe("task: non-zero exit (7)");
  expect([...executor.containers.keys()]).toEqual([A, B]);
  expect(executor.calls.at(-1)).toBe("publish 8080→10.0.0.1");
  await second.apply([TEMPLATE, ENDPOINT, taskChange(A), taskChange(B)]);
  expect(executor.calls.at(-1)).toBe("publish 8080→10.0.0.1");
});

test("after a reboot what ran is dead, and what had not started begins again", async () => {
  const first = await startWorker();
  await first.apply([TEMPLATE, taskChange(A), taskChange(B, { desiredState: TaskState.READY })]);
  await first.scope[Symbol.asyncDispose]();
  const second = await startWorker({ database: first.database, bootId: "another" });
  expect(second.reporter.last.get(A)).toMatchObject({ state: TaskState.FAILED, error: "task: the host was restarted" });
  await second.apply([TEMPLATE, taskChange(A), taskChange(B)]);
  expect(second.reporter.last.get(B)?.state).toBe(TaskState.RUNNING);
});

test("a started task of which there is no record is failed, never started twice", async () => {
  const { executor, reporter, apply } = await startWorker();
  await apply([TEMPLATE, taskChange(A, { status: { state: TaskState.RUNNING } })]);
  expect(reporter.last.get(A)).toMatchObject({
    state: TaskState.FAILED,
    error: "task: its node lost the record of it",
  });
  expect(executor.calls).not.toContain(`start ${A}`);
});

test("a port that somebody else holds stands in the status of running tasks until he lets go", async () => {
  const { executor, reporter, clock, apply } = await startWorker();
  await apply([TEMPLATE, ENDPOINT, taskChange(A)]);
  const message = "published port 8080/tcp: already in use on this node";
  const problem = { hostAddress: "", port: 8080, protocol: PortConfig_Protocol.TCP, message };
  const others = [
    { ...problem, port: 9090, message: "another service's" },
    { ...problem, hostAddress: "192.0.2.1", message: "another address's" },
  ];
  executor.setPortProblems([problem, ...others]);
  await clock.advance(0);
  expect(reporter.last.get(A)).toMatchObject({ state: TaskState.RUNNING, error: message, message: "started" });
  await apply([taskChange(B)]);
  expect(reporter.last.get(B)).toMatchObject({ state: TaskState.RUNNING, error: message });
  executor.setPortProblems(others);
  await clock.advance(0);
  for (const id of [A, B]) expect(reporter.last.get(id)).toMatchObject({ state: TaskState.RUNNING, error: "" });
});

test("an agent that starts again without a manager publishes what it knew, and follows its tasks", async () => {
  const shared = { executor: new FakeExecutor(), database: new MemoryTaskDatabase() };
  const first = await startWorker(shared);
  await first.apply([TEMPLATE, ENDPOINT, taskChange(A), taskChange(B)]);
  await first.scope[Symbol.asyncDispose]();
  shared.executor.calls.length = 0;
  const { clock } = await startWorker(shared);
  await clock.advance(0);
  expect(shared.executor.calls).toEqual(["publish 8080→10.0.0.1,10.0.0.2"]);
  shared.executor.container(A).end({ exitCode: 1 });
  await clock.advance(0);
  expect(shared.executor.calls.at(-1)).toBe("publish 8080→10.0.0.2");
});
