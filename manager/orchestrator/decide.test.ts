import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isTerminal } from "../../common/model/task-state.ts";
import { ServiceSchema, type Task, TaskSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import {
  RestartPolicy_Condition,
  ServiceModeSchema,
  ServiceSpecSchema,
  TaskState,
  UpdateConfig_FailureAction,
  UpdateConfig_Order,
  UpdateStatus_State,
} from "../../proto/gen/swarm/v1/types_pb.js";
import { decideRemoved, decideService } from "./decide.ts";
import type { ServiceDecision, ServiceSituation } from "./situation.ts";

const NOW = 1_000_000;
let nextId = 0;

interface Fixture {
  readonly replicas?: number;
  readonly tasks?: readonly Task[];
  readonly condition?: RestartPolicy_Condition;
  readonly maxAttempts?: number;
  readonly windowMs?: number;
  readonly taskVersion?: bigint;
  readonly updateState?: UpdateStatus_State;
  readonly order?: UpdateConfig_Order;
  readonly parallelism?: bigint;
  readonly failureAction?: UpdateConfig_FailureAction;
  readonly downNodes?: readonly string[];
  readonly drainedNodes?: readonly string[];
  readonly nowMs?: number;
  readonly stopped?: boolean;
}

function situation(fixture: Fixture): ServiceSituation {
  const taskVersion = fixture.taskVersion ?? 1n;
  return {
    service: create(ServiceSchema, {
      id: "service",
      specVersion: taskVersion,
      previousSpecVersion: taskVersion - 1n,
      taskVersion,
      stopped: fixture.stopped ?? false,
      ...(fixture.updateState ? { updateStatus: { state: fixture.updateState, startedAt: timestampFromMs(1) } } : {}),
    }),
    spec: create(ServiceSpecSchema, {
      mode: { mode: { case: "replicated", value: { replicas: BigInt(fixture.replicas ?? 1) } } },
      update: {
        parallelism: fixture.parallelism ?? 1n,
        order: fixture.order ?? UpdateConfig_Order.STOP_FIRST,
        failureAction: fixture.failureAction ?? UpdateConfig_FailureAction.PAUSE,
      },
      task: {
        restart: {
          condition: fixture.condition ?? RestartPolicy_Condition.ANY,
          maxAttempts: BigInt(fixture.maxAttempts ?? 0),
          ...(fixture.windowMs ? { window: durationFromMs(fixture.windowMs) } : {}),
        },
      },
    }),
    tasks: fixture.tasks ?? [],
    keeps: (task) => ![...(fixture.downNodes ?? []), ...(fixture.drainedNodes ?? [])].includes(task.nodeId),
    lost: (task) => fixture.downNodes?.includes(task.nodeId) ?? false,
    isCurrentVersion: (version) => version === taskVersion,
    held: false,
    eligibleNodes: [],
    nowMs: fixture.nowMs ?? NOW,
    newTaskId: () => `new-${nextId++}`,
  };
}

function task(fields: {
  slot: number;
  state?: TaskState;
  desired?: TaskState;
  node?: string;
  attempt?: number;
  version?: bigint;
  atMs?: number;
  restartsMs?: readonly number[];
}): Task {
  const at = timestampFromMs(fields.atMs ?? NOW - 60_000);
  return create(TaskSchema, {
    id: `task-${nextId++}`,
    meta: { createdAt: at, updatedAt: at },
    slot: fields.slot,
    attempt: BigInt(fields.attempt ?? 1),
    specVersion: fields.version ?? 1n,
    nodeId: fields.node ?? "n1",
    desiredState: fields.desired ?? TaskState.RUNNING,
    status: { state: fields.state ?? TaskState.RUNNING },
    restarts: (fields.restartsMs ?? []).map((atMs) => timestampFromMs(atMs)),
  });
}

/** What the decision says, short enough to compare. */
function summary(decision: ServiceDecision) {
  return {
    created: decision.created.map(
      (each) => `${each.slot}#${each.attempt} v${each.specVersion} ${TaskState[each.desiredState]}`,
    ),
    desired: decision.desired.map(({ task: each, state }) => `${each.slot}#${each.attempt} ${TaskState[state]}`),
  };
}

describe("replicas", () => {
  test("fills the lowest free slots", () => {
    const decision = decideService(situation({ replicas: 3, tasks: [task({ slot: 2 })] }));
    expect(summary(decision)).toEqual({ created: ["1#1 v1 RUNNING", "3#1 v1 RUNNING"], desired: [] });
  });

  test("scales down from the fullest node, high slots first", () => {
    const tasks = [task({ slot: 1 }), task({ slot: 2 }), task({ slot: 3 }), task({ slot: 4, node: "n2" })];
    const decision = decideService(situation({ replicas: 2, tasks }));
    expect(summary(decision).desired).toEqual(["3#1 REMOVE", "2#1 REMOVE"]);
  });

  test("scales down what does not run before what does", () => {
    const tasks = [task({ slot: 1 }), task({ slot: 2, state: TaskState.PENDING, node: "" }), task({ slot: 3 })];
    expect(summary(decideService(situation({ replicas: 2, tasks }))).desired).toEqual(["2#1 REMOVE"]);
  });

  test("a slot that is wanted again waits for the task that is still leaving it", () => {
    const leaving = (state: TaskState) => task({ slot: 1, state, desired: TaskState.REMOVE });
    const before = [leaving(TaskState.RUNNING)];
    expect(summary(decideService(situation({ tasks: before }))).created).toEqual(["1#1 v1 READY"]);
    expect(summary(decideService(situation({ tasks: before, downNodes: ["n1"] }))).created).toEqual(["1#1 v1 RUNNING"]);
    expect(summary(decideService(situation({ tasks: [leaving(TaskState.SHUTDOWN)] }))).created).toEqual([
      "1#1 v1 RUNNING",
    ]);
    const next = task({ slot: 1, state: TaskState.READY, desired: TaskState.READY, node: "n2", atMs: NOW });
    expect(summary(decideService(situation({ tasks: [next, ...before] }))).desired).toEqual([]);
    const gone = [next, leaving(TaskState.SHUTDOWN)];
    expect(summary(decideService(situation({ tasks: gone }))).desired).toEqual(["1#1 RUNNING"]);
  });

  test("does nothing when all is as desired", () => {
    const tasks = [task({ slot: 1 }), task({ slot: 2, state: TaskState.PREPARING })];
    expect(summary(decideService(situation({ replicas: 2, tasks })))).toEqual({ created: [], desired: [] });
  });

  test("a removed service's tasks are all to be removed", () => {
    const tasks = [task({ slot: 1 }), task({ slot: 2, desired: TaskState.SHUTDOWN })];
    expect(summary(decideRemoved(tasks)).desired).toEqual(["1#1 REMOVE", "2#1 REMOVE"]);
  });
});

describe("a stopped service", () => {
  const stop = (tasks: readonly Task[], condition = RestartPolicy_Condition.ANY) =>
    summary(decideService(situation({ replicas: 3, tasks, condition, stopped: true })));

  test("ends its tasks and makes none; they stay to be looked at", () => {
    const tasks = [task({ slot: 1 }), task({ slot: 2, state: TaskState.PENDING, node: "" })];
    expect(stop(tasks)).toEqual({ created: [], desired: ["1#1 SHUTDOWN", "2#1 SHUTDOWN"] });
    const ended = task({ slot: 1, state: TaskState.SHUTDOWN, desired: TaskState.SHUTDOWN });
    expect(stop([ended])).toEqual({ created: [], desired: [] });
  });

  test("a slot that no restart would fill again is emptied", () => {
    const crashed = task({ slot: 1, state: TaskState.FAILED, desired: TaskState.SHUTDOWN });
    expect(stop([crashed]).desired).toEqual(["1#1 REMOVE"]);
    expect(stop([task({ slot: 1 })], RestartPolicy_Condition.NONE).desired).toEqual(["1#1 REMOVE"]);
    const done = task({ slot: 1, state: TaskState.COMPLETE, desired: TaskState.SHUTDOWN });
    expect(stop([done], RestartPolicy_Condition.ON_FAILURE).desired).toEqual([]);
  });

  test.each([
    [UpdateStatus_State.UPDATING, UpdateStatus_State.COMPLETED],
    [UpdateStatus_State.ROLLBACK_STARTED, UpdateStatus_State.ROLLBACK_COMPLETED],
    [UpdateStatus_State.PAUSED, undefined],
  ])("an update in state %d has nothing left to do", (updateState, expected) => {
    const decision = decideService(
      situation({ tasks: [task({ slot: 1 })], taskVersion: 2n, updateState, stopped: true }),
    );
    expect(decision.updateStatus?.state).toBe(expected);
    expect(summary(decision)).toEqual({ created: [], desired: ["1#1 SHUTDOWN"] });
  });

  test("once it is started again each slot gets its next task", () => {
    const stopped = task({ slot: 1, state: TaskState.SHUTDOWN, desired: TaskState.SHUTDOWN });
    expect(summary(decideService(situation({ replicas: 2, tasks: [stopped] }))).created).toEqual([
      "1#2 v1 RUNNING",
      "2#1 v1 RUNNING",
    ]);
  });
});

describe("global services", () => {
  /** A service on n1 whose task there is `state`, told to shut down. */
  const stopped = (state: TaskState, condition = RestartPolicy_Condition.ANY): ServiceSituation => {
    const base = situation({ condition, tasks: [task({ slot: 0, state, desired: TaskState.SHUTDOWN })] });
    return { ...base, spec: { ...base.spec, mode: aGlobalMode() }, eligibleNodes: ["n1"] };
  };

  test("a node that is eligible again gets its task back, however the last one ended", () => {
    for (const state of [TaskState.SHUTDOWN, TaskState.FAILED, TaskState.COMPLETE]) {
      expect(summary(decideService(stopped(state))).created).toHaveLength(1);
    }
  });

  test("what the restart policy left stays so", () => {
    const left = stopped(TaskState.COMPLETE, RestartPolicy_Condition.ON_FAILURE);
    expect(summary(decideService(left))).toEqual({ created: [], desired: [] });
  });
});

function aGlobalMode() {
  return create(ServiceModeSchema, { mode: { case: "global", value: {} } });
}

test("an update that shall continue on failure goes on to the slots that are left", () => {
  const failed = task({ slot: 1, version: 2n, state: TaskState.REJECTED, desired: TaskState.SHUTDOWN });
  const restarted = task({ slot: 1, version: 2n, attempt: 2 });
  const fixture = {
    replicas: 2,
    taskVersion: 2n,
    updateState: UpdateStatus_State.UPDATING,
    failureAction: UpdateConfig_FailureAction.CONTINUE,
    tasks: [failed, restarted, task({ slot: 2, version: 1n })],
  };
  expect(summary(decideService(situation(fixture))).created).toEqual(["2#2 v2 READY"]);
});

describe("start-first", () => {
  const order = UpdateConfig_Order.START_FIRST;

  test("of a slot's tasks only the newest that serves goes on beside a successor", () => {
    const tasks = [
      task({ slot: 1, node: "n1" }),
      task({ slot: 1, attempt: 2, node: "n1" }),
      task({ slot: 1, attempt: 3, node: "n2", state: TaskState.ASSIGNED }),
    ];
    const decision = decideService(situation({ order, tasks, drainedNodes: ["n2"] }));
    expect(summary(decision)).toEqual({ created: ["1#4 v1 RUNNING"], desired: ["1#1 SHUTDOWN", "1#3 SHUTDOWN"] });
  });

  test("a successor does not wait for a task that nobody told to stop", () => {
    const waiting = task({ slot: 1, attempt: 2, desired: TaskState.READY, state: TaskState.READY, atMs: NOW });
    expect(summary(decideService(situation({ order, tasks: [task({ slot: 1 }), waiting] }))).desired).toEqual([
      "1#2 RUNNING",
    ]);
  });
});

describe("restart policy", () => {
  const ended = (fields: Partial<Parameters<typeof task>[0]> = {}) =>
    task({ slot: 1, state: TaskState.FAILED, ...fields });

  test("a failed task gets a successor that waits for the delay", () => {
    const decision = decideService(situation({ tasks: [ended()] }));
    expect(summary(decision)).toEqual({ created: ["1#2 v1 READY"], desired: ["1#1 SHUTDOWN"] });
    const [created] = decision.created;
    expect(created?.startAfter && timestampMs(created.startAfter)).toBe(NOW + 5_000);
  });

  test("the successor starts when its delay is over", () => {
    const waiting = task({ slot: 1, attempt: 2, desired: TaskState.READY, state: TaskState.READY });
    waiting.startAfter = timestampFromMs(NOW + 3_000);
    const tasks = [ended({ desired: TaskState.SHUTDOWN }), waiting];
    expect(decideService(situation({ tasks })).wakeAfterMs).toBe(3_000);
    expect(summary(decideService(situation({ tasks, nowMs: NOW + 3_000 }))).desired).toEqual(["1#2 RUNNING"]);
  });

  test("a start time that only a wrong clock can have stamped is not waited for", () => {
    const waiting = task({ slot: 1, attempt: 2, desired: TaskState.READY, state: TaskState.READY });
    waiting.startAfter = timestampFromMs(NOW + 3_600_000);
    const tasks = [ended({ desired: TaskState.SHUTDOWN }), waiting];
    expect(summary(decideService(situation({ tasks }))).desired).toEqual(["1#2 RUNNING"]);
  });

  test("the successor waits for its predecessor to stop, but not on a lost node", () => {
    const waiting = task({ slot: 1, attempt: 2, desired: TaskState.READY, node: "n2", atMs: NOW });
    const tasks = [task({ slot: 1, desired: TaskState.SHUTDOWN }), waiting];
    expect(summary(decideService(situation({ tasks }))).desired).toEqual([]);
    expect(summary(decideService(situation({ tasks, downNodes: ["n1"] }))).desired).toEqual(["1#2 RUNNING"]);
  });

  test.each([
    [RestartPolicy_Condition.NONE, TaskState.FAILED, 0],
    [RestartPolicy_Condition.NONE, TaskState.COMPLETE, 0],
    [RestartPolicy_Condition.ON_FAILURE, TaskState.COMPLETE, 0],
    [RestartPolicy_Condition.ON_FAILURE, TaskState.FAILED, 1],
    [RestartPolicy_Condition.ON_FAILURE, TaskState.REJECTED, 1],
    [RestartPolicy_Condition.ANY, TaskState.COMPLETE, 1],
  ])("condition %i, state %i: %i successors, and the same when asked again", (condition, state, successors) => {
    const first = decideService(situation({ condition, tasks: [ended({ state })] }));
    expect(first.created.length).toBe(successors);
    const again = situation({ condition, tasks: [ended({ state, desired: TaskState.SHUTDOWN })] });
    if (successors === 0) expect(summary(decideService(again))).toEqual({ created: [], desired: [] });
  });

  test("attempts are counted within the window", () => {
    const tasks = (restartsMs: readonly number[]) => [ended({ restartsMs })];
    const limits = { maxAttempts: 2, windowMs: 10_000 };
    expect(decideService(situation({ ...limits, tasks: tasks([NOW - 1, NOW - 2]) })).created).toEqual([]);
    const [created] = decideService(situation({ ...limits, tasks: tasks([NOW - 20_000, NOW - 2]) })).created;
    expect(created?.restarts.map(timestampMs)).toEqual([NOW - 2, NOW]);
  });

  test("a task on a lost node moves at once, unless the condition is none", () => {
    const tasks = [task({ slot: 1 })];
    expect(summary(decideService(situation({ tasks, downNodes: ["n1"] })))).toEqual({
      created: ["1#2 v1 RUNNING"],
      desired: ["1#1 SHUTDOWN"],
    });
    const none = { tasks, downNodes: ["n1"], condition: RestartPolicy_Condition.NONE };
    expect(decideService(situation(none)).created).toEqual([]);
  });

  test("a drained node's task waits for its successor where the order is start-first", () => {
    const fixture = { tasks: [task({ slot: 1 })], drainedNodes: ["n1"], order: UpdateConfig_Order.START_FIRST };
    expect(summary(decideService(situation(fixture)))).toEqual({ created: ["1#2 v1 RUNNING"], desired: [] });
  });
});

describe("update", () => {
  test("replaces one slot at a time, stop-first", () => {
    const tasks = [task({ slot: 1 }), task({ slot: 2 })];
    const decision = decideService(situation({ replicas: 2, tasks, taskVersion: 2n }));
    expect(summary(decision)).toEqual({ created: ["1#2 v2 READY"], desired: ["1#1 SHUTDOWN"] });
    expect(decision.updateStatus?.state).toBe(UpdateStatus_State.UPDATING);
  });

  test("waits for the new task before the next slot", () => {
    const updating = { replicas: 2, taskVersion: 2n, updateState: UpdateStatus_State.UPDATING };
    const starting = [task({ slot: 1, attempt: 2, version: 2n, state: TaskState.STARTING }), task({ slot: 2 })];
    expect(summary(decideService(situation({ ...updating, tasks: starting }))).created).toEqual([]);
    const running = [task({ slot: 1, attempt: 2, version: 2n }), task({ slot: 2 })];
    expect(summary(decideService(situation({ ...updating, tasks: running }))).created).toEqual(["2#2 v2 READY"]);
  });

  test("start-first starts beside the old task and stops that when the new one runs", () => {
    const fixture = {
      taskVersion: 2n,
      order: UpdateConfig_Order.START_FIRST,
      updateState: UpdateStatus_State.UPDATING,
    };
    const before = decideService(situation({ ...fixture, tasks: [task({ slot: 1 })] }));
    expect(summary(before)).toEqual({ created: ["1#2 v2 RUNNING"], desired: [] });
    const tasks = [task({ slot: 1 }), task({ slot: 1, attempt: 2, version: 2n })];
    expect(summary(decideService(situation({ ...fixture, tasks }))).desired).toEqual(["1#1 SHUTDOWN"]);
  });

  test("is completed when every new task has been watched for its monitor time", () => {
    const fixture = { taskVersion: 2n, updateState: UpdateStatus_State.UPDATING };
    const at = (atMs: number) => [task({ slot: 1, attempt: 2, version: 2n, atMs })];
    expect(decideService(situation({ ...fixture, tasks: at(NOW - 1_000) })).wakeAfterMs).toBe(4_000);
    const done = decideService(situation({ ...fixture, tasks: at(NOW - 5_000) }));
    expect(done.updateStatus?.state).toBe(UpdateStatus_State.COMPLETED);
  });

  test.each([
    [UpdateConfig_FailureAction.PAUSE, UpdateStatus_State.PAUSED, false],
    [UpdateConfig_FailureAction.ROLLBACK, UpdateStatus_State.ROLLBACK_STARTED, true],
  ])("failure action %i", (failureAction, state, rollback) => {
    const failed = task({ slot: 1, attempt: 2, version: 2n, state: TaskState.FAILED, atMs: NOW - 100 });
    const fixture = { replicas: 2, taskVersion: 2n, updateState: UpdateStatus_State.UPDATING, failureAction };
    const decision = decideService(situation({ ...fixture, tasks: [failed, task({ slot: 2 })] }));
    expect(decision.updateStatus?.state).toBe(state);
    expect(decision.rollback).toBe(rollback);
    // Slot 2 keeps its old task, and the failed slot's restart does not touch it either.
    expect(summary(decision).desired).toEqual(["1#2 SHUTDOWN"]);
  });

  test("a paused update replaces nothing, and a restart keeps the old version", () => {
    const tasks = [task({ slot: 1, state: TaskState.FAILED }), task({ slot: 2 })];
    const fixture = { replicas: 2, taskVersion: 2n, updateState: UpdateStatus_State.PAUSED, tasks };
    expect(summary(decideService(situation(fixture)))).toEqual({
      created: ["1#2 v1 READY"],
      desired: ["1#1 SHUTDOWN"],
    });
  });
});

test("a decision once made leaves at most one task per slot that should run (stop-first)", () => {
  const states = [
    TaskState.NEW,
    TaskState.PENDING,
    TaskState.RUNNING,
    TaskState.FAILED,
    TaskState.COMPLETE,
    TaskState.SHUTDOWN,
  ];
  const anyTask = fc.record({
    slot: fc.integer({ min: 1, max: 4 }),
    state: fc.constantFrom(...states),
    desired: fc.constantFrom(TaskState.READY, TaskState.RUNNING, TaskState.SHUTDOWN),
    node: fc.constantFrom("n1", "n2", "n3"),
    version: fc.constantFrom(1n, 2n),
  });
  fc.assert(
    fc.property(
      fc.uniqueArray(anyTask, { selector: ({ slot }) => slot }),
      fc.integer({ min: 0, max: 5 }),
      (shapes, replicas) => {
        const tasks = shapes.map((shape) => task(shape));
        const decision = decideService(situation({ replicas, tasks, taskVersion: 2n, downNodes: ["n3"] }));
        const raised = new Map(decision.desired.map(({ task: each, state }) => [each.id, state]));
        const after = [...tasks, ...decision.created].filter(
          (each) =>
            (raised.get(each.id) ?? each.desiredState) <= TaskState.RUNNING &&
            !isTerminal(each.status?.state ?? TaskState.NEW),
        );
        expect(new Set(after.map((each) => each.slot)).size).toBe(after.length);
        expect(after.length).toBeLessThanOrEqual(replicas);
      },
    ),
  );
});
