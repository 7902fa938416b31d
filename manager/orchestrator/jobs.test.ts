/** Goal: each slot of a job runs to its end once for every iteration, and no more. Method: one decision at a time, as a table. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { ServiceSchema, type Task, TaskSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import {
  RestartPolicy_Condition,
  type ServiceMode,
  ServiceModeSchema,
  ServiceSpecSchema,
  TaskState,
  TaskStatusSchema,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { decideService } from "./decide.ts";
import type { ServiceSituation } from "./situation.ts";

interface Fixture {
  readonly mode?: ServiceMode;
  readonly tasks?: readonly Task[];
  readonly condition?: RestartPolicy_Condition;
  readonly maxAttempts?: bigint;
  readonly taskVersion?: bigint;
  readonly nodes?: readonly string[];
  readonly held?: boolean;
  readonly stopped?: boolean;
  readonly lost?: readonly string[];
}

const job = (totalCompletions: bigint, maxConcurrent = 0n) =>
  create(ServiceModeSchema, { mode: { case: "replicatedJob", value: { totalCompletions, maxConcurrent } } });
const globalJob = create(ServiceModeSchema, { mode: { case: "globalJob", value: {} } });

/** What is decided, in words: "+2@1" a task for slot 2 of version 1, "1:SHUTDOWN" a desired state. */
function decide(fixture: Fixture): string[] {
  const taskVersion = fixture.taskVersion ?? 1n;
  let id = 0;
  const situation: ServiceSituation = {
    service: create(ServiceSchema, {
      id: "job",
      specVersion: taskVersion,
      taskVersion,
      stopped: fixture.stopped ?? false,
    }),
    spec: create(ServiceSpecSchema, {
      mode: fixture.mode ?? job(3n),
      task: {
        restart: {
          condition: fixture.condition ?? RestartPolicy_Condition.ANY,
          ...(fixture.maxAttempts === undefined ? {} : { maxAttempts: fixture.maxAttempts }),
        },
      },
    }),
    tasks: fixture.tasks ?? [],
    keeps: ({ nodeId }) => !fixture.lost?.includes(nodeId),
    lost: ({ nodeId }) => fixture.lost?.includes(nodeId) ?? false,
    isCurrentVersion: (version) => version === taskVersion,
    eligibleNodes: fixture.nodes ?? [],
    held: fixture.held ?? false,
    nowMs: 1_000_000,
    newTaskId: () => `new-${id++}`,
  };
  const { created, desired } = decideService(situation);
  return [
    ...created.map((task) => `+${task.slot || task.nodeId}@${task.specVersion}`),
    ...desired.map(({ task, state }) => `${task.slot || task.nodeId}@${task.specVersion}:${TaskState[state]}`),
  ];
}

function task(slot: number | string, state: TaskState, fields: MessageInitShape<typeof TaskSchema> = {}): Task {
  return create(TaskSchema, {
    id: `${slot}-${fields.attempt ?? 1n}-${fields.specVersion ?? 1n}`,
    ...(typeof slot === "number" ? { slot } : { nodeId: slot }),
    specVersion: 1n,
    attempt: 1n,
    desiredState: TaskState.RUNNING,
    status: create(TaskStatusSchema, { state }),
    ...fields,
  });
}

describe("a replicated job", () => {
  test("begins all its slots, or as many as may run at once", () => {
    expect(decide({})).toEqual(["+1@1", "+2@1", "+3@1"]);
    expect(decide({ mode: job(5n, 2n) })).toEqual(["+1@1", "+2@1"]);
    expect(decide({ mode: job(5n, 2n), tasks: [task(1, TaskState.COMPLETE), task(2, TaskState.RUNNING)] })).toEqual([
      "+3@1",
    ]);
    expect(decide({ mode: job(0n) })).toEqual([]);
  });

  test("leaves what has completed, whatever the restart condition, and is done", () => {
    const tasks = [task(1, TaskState.COMPLETE), task(2, TaskState.COMPLETE), task(3, TaskState.COMPLETE)];
    for (const condition of [RestartPolicy_Condition.ANY, RestartPolicy_Condition.ON_FAILURE]) {
      expect(decide({ tasks, condition })).toEqual([]);
    }
    expect(decide({ tasks, mode: job(4n) })).toEqual(["+4@1"]);
  });

  test("ends the successor of a task that completed though it was told to stop", () => {
    const evicted = task(1, TaskState.COMPLETE, { desiredState: TaskState.SHUTDOWN });
    const next = task(1, TaskState.READY, { attempt: 2n, desiredState: TaskState.READY });
    expect(decide({ mode: job(1n), tasks: [evicted, next] })).toEqual(["1@1:SHUTDOWN"]);
    const ended = task(1, TaskState.SHUTDOWN, { attempt: 2n, desiredState: TaskState.SHUTDOWN });
    expect(decide({ mode: job(1n), tasks: [evicted, ended] })).toEqual([]);
  });

  test("tries a failed slot again, as often as the policy says", () => {
    const failed = task(1, TaskState.FAILED);
    const two = [task(2, TaskState.COMPLETE), task(3, TaskState.COMPLETE)];
    expect(decide({ tasks: [failed, ...two] })).toEqual(["+1@1", "1@1:SHUTDOWN"]);
    expect(decide({ tasks: [failed, ...two], condition: RestartPolicy_Condition.NONE })).toEqual(["1@1:SHUTDOWN"]);
    expect(decide({ tasks: [failed, ...two], maxAttempts: 1n })).toEqual(["+1@1", "1@1:SHUTDOWN"]);
    const again = task(1, TaskState.FAILED, {
      attempt: 2n,
      restarts: [{ $typeName: "google.protobuf.Timestamp", seconds: 900n, nanos: 0 }],
    });
    expect(decide({ tasks: [again, ...two], maxAttempts: 1n })).toEqual(["1@1:SHUTDOWN"]);
    const judged = task(1, TaskState.FAILED, { desiredState: TaskState.SHUTDOWN });
    expect(decide({ tasks: [judged, ...two] })).toEqual([]);
  });

  test("runs elsewhere what its node cannot finish, and not what it has finished", () => {
    const tasks = [
      task(1, TaskState.RUNNING, { nodeId: "a" }),
      task(2, TaskState.COMPLETE, { nodeId: "a" }),
      task(3, TaskState.RUNNING, { nodeId: "b" }),
    ];
    expect(decide({ tasks, lost: ["a"] })).toEqual(["+1@1", "1@1:SHUTDOWN"]);
  });

  test("runs anew when its spec changes, and ends what still runs of the old", () => {
    const tasks = [task(1, TaskState.COMPLETE), task(2, TaskState.RUNNING), task(3, TaskState.FAILED)];
    expect(decide({ tasks, taskVersion: 2n })).toEqual([
      ...["+1@2", "+2@2", "+3@2"],
      ...["1@1:SHUTDOWN", "2@1:SHUTDOWN", "3@1:SHUTDOWN"],
    ]);
  });

  test("does nothing while it waits for others, and ends when it is stopped", () => {
    expect(decide({ held: true })).toEqual([]);
    const tasks = [task(1, TaskState.RUNNING), task(2, TaskState.COMPLETE)];
    expect(decide({ tasks, stopped: true })).toEqual(["1@1:SHUTDOWN"]);
    const stopped = [task(1, TaskState.SHUTDOWN, { desiredState: TaskState.SHUTDOWN }), task(2, TaskState.COMPLETE)];
    expect(decide({ tasks: stopped })).toEqual(["+1@1", "+3@1"]);
  });

  test("scaled down it ends what is too much and forgets nothing that has completed", () => {
    const tasks = [task(1, TaskState.COMPLETE), task(2, TaskState.RUNNING), task(3, TaskState.COMPLETE)];
    expect(decide({ tasks, mode: job(1n) })).toEqual(["2@1:SHUTDOWN"]);
  });
});

describe("a global job", () => {
  test("runs once on each node, also on one that joins later", () => {
    expect(decide({ mode: globalJob, nodes: ["a", "b"] })).toEqual(["+a@1", "+b@1"]);
    const done = [task("a", TaskState.COMPLETE), task("b", TaskState.COMPLETE)];
    expect(decide({ mode: globalJob, nodes: ["a", "b"], tasks: done })).toEqual([]);
    expect(decide({ mode: globalJob, nodes: ["a", "b", "c"], tasks: done })).toEqual(["+c@1"]);
    expect(
      decide({ mode: globalJob, nodes: ["a"], tasks: [task("a", TaskState.COMPLETE), task("b", TaskState.RUNNING)] }),
    ).toEqual(["b@1:SHUTDOWN"]);
  });
});

test("a task of a new iteration waits until the old one's in its slot has stopped", () => {
  const old = (state: TaskState) => task(1, state, { desiredState: TaskState.SHUTDOWN, nodeId: "a" });
  const next = task(1, TaskState.READY, {
    ...{ attempt: 2n, specVersion: 2n, desiredState: TaskState.READY, nodeId: "b" },
    meta: { createdAt: timestampFromMs(1_000_000) },
  });
  expect(decide({ mode: job(1n), taskVersion: 2n, tasks: [old(TaskState.RUNNING), next] })).toEqual([]);
  expect(decide({ mode: job(1n), taskVersion: 2n, tasks: [old(TaskState.SHUTDOWN), next] })).toEqual(["1@2:RUNNING"]);
});
