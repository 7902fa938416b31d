/**
 * Goal: the loops together carry a service from its spec to running tasks, and keep it there. Method: the real loops over
 * the in-memory Kv; a few lines play the agents by moving assigned tasks on.
 */
import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../common/base/clock.ts";
import { newId, type TaskId } from "../common/base/id.ts";
import { silentLogger } from "../common/base/logger.ts";
import { seededRandom } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { isTerminal } from "../common/model/task-state.ts";
import {
  ClusterSchema,
  NodeSchema,
  ServiceSchema,
  SessionSchema,
  SpecVersionSchema,
  type Task,
} from "../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State, PortConfig_PublishMode, TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../test/eventually.ts";
import { runLeader } from "./leader.ts";
import { MemoryKv } from "./store/memory-kv.ts";
import { Mirror } from "./store/mirror.ts";
import type { ProposalGroup } from "./store/proposal.ts";
import { Store } from "./store/store.ts";

const random = seededRandom(7);
const id = () => newId<TaskId>(random);
let scope: Scope;
let store: Store;
/** Node ids whose agent has fallen silent. */
let silent: Set<string>;

beforeEach(async () => {
  scope = new Scope();
  silent = new Set();
  const kv = new MemoryKv(systemClock);
  const mirror = new Mirror({ kv, clock: systemClock, random, logger: silentLogger });
  scope.spawn("mirror", (signal) => mirror.run(signal));
  await mirror.ready(scope.signal);
  store = new Store({ kv, view: mirror.view, clock: systemClock, random });
  await commit([
    {
      type: "create",
      kind: "cluster",
      object: create(ClusterSchema, { id: "default", spec: { taskHistoryLimit: 1, addressPool: "10.224.0.0/12" } }),
    },
  ]);
  const { revision } = await kv.txn(
    { compare: [], operations: [{ type: "put", key: "/swarm/leader", value: new Uint8Array() }] },
    scope.signal,
  );
  const context = {
    store,
    fence: { epoch: revision, checkDeadline: () => {} },
    clock: systemClock,
    random,
    logger: silentLogger,
  };
  scope.spawn("leader", (signal) => runLeader(context, signal));
  scope.spawn("agents", playAgents);
});

afterEach(async () => {
  await scope[Symbol.asyncDispose]();
});

async function commit(groups: readonly ProposalGroup[]): Promise<void> {
  const { conflicts } = await store.commit(groups, { signal: scope.signal });
  expect(conflicts).toEqual([]);
}

/** Starts what is assigned and stops what is to stop. */
async function playAgents(signal: AbortSignal): Promise<void> {
  for await (const changes of store.view.changes(signal)) {
    for (const change of changes) {
      const task = change.kind === "task" ? store.view.tasks.get(change.id) : undefined;
      const state = task?.status?.state ?? TaskState.NEW;
      if (!task || silent.has(task.nodeId) || state < TaskState.ASSIGNED || isTerminal(state)) continue;
      const next = task.desiredState > TaskState.RUNNING ? TaskState.SHUTDOWN : task.desiredState;
      if (next === state) continue;
      await store.commit([{ type: "update", kind: "task", object: withState(task, next) }], { signal });
    }
  }
}

function withState(task: Task, state: TaskState): Task {
  return { ...task, status: { $typeName: "swarm.v1.TaskStatus", state, message: "", error: "" } };
}

async function addNode(hostname: string): Promise<string> {
  const nodeId = id();
  await commit([
    { type: "create", kind: "node", object: create(NodeSchema, { id: nodeId, spec: {}, description: { hostname } }) },
    { type: "create", kind: "session", object: create(SessionSchema, { nodeId, sessionId: id(), managerId: id() }) },
  ]);
  // Tasks that are placed before go elsewhere.
  await eventually(() => expect(store.view.nodes.get(nodeId)?.status?.state).toBe(NodeStatus_State.READY));
  return nodeId;
}

async function addService(name: string, replicas: number, spec: object = {}): Promise<string> {
  const serviceId = id();
  const full = {
    name,
    mode: { mode: { case: "replicated" as const, value: { replicas: BigInt(replicas) } } },
    ...spec,
  };
  const version = create(SpecVersionSchema, { serviceId, version: 1n, spec: full });
  const service = create(ServiceSchema, { id: serviceId, name, specVersion: 1n, taskVersion: 1n });
  await commit([
    [
      { type: "create", kind: "spec", object: version },
      { type: "create", kind: "service", object: service },
    ],
  ]);
  return serviceId;
}

function running(serviceId: string): Task[] {
  return [...store.view.tasksOfService(serviceId)].filter(
    ({ status, desiredState }) => status?.state === TaskState.RUNNING && desiredState === TaskState.RUNNING,
  );
}

test("a service's tasks come to run, spread over the nodes, each with an address of its own", async () => {
  const nodes = [await addNode("a"), await addNode("b"), await addNode("c")];
  const serviceId = await addService("web", 6, {
    endpoint: { ports: [{ targetPort: 80, publishMode: PortConfig_PublishMode.INGRESS }] },
  });
  await eventually(() => expect(running(serviceId)).toHaveLength(6));
  const tasks = running(serviceId);
  for (const nodeId of nodes) expect(tasks.filter((task) => task.nodeId === nodeId)).toHaveLength(2);
  expect(new Set(tasks.map(({ address }) => address)).size).toBe(6);
  expect(store.view.services.get(serviceId)?.ports[0]?.publishedPort).toBe(30_000);
});

test("a task waits with a reason until a node comes", async () => {
  const serviceId = await addService("web", 1);
  await eventually(() => {
    const [task] = store.view.tasksOfService(serviceId);
    expect(task?.status?.error).toBe("no suitable node (the cluster has no nodes)");
  });
  await addNode("a");
  await eventually(() => expect(running(serviceId)).toHaveLength(1));
});

test("a node without a session is DOWN after its grace time and its tasks run elsewhere", async () => {
  const first = await addNode("a");
  const serviceId = await addService("web", 2);
  await eventually(() => expect(running(serviceId)).toHaveLength(2));
  const second = await addNode("b");
  await eventually(() => expect(store.view.nodes.get(second)?.status?.state).toBe(NodeStatus_State.READY));
  silent.add(first);
  await commit([{ type: "delete", kind: "session", id: first }]);
  await eventually(() => expect(running(serviceId).map(({ nodeId }) => nodeId)).toEqual([second, second]), {
    timeoutMs: 15_000,
  });
  expect(store.view.nodes.get(first)?.status?.message).toBe("heartbeat failure");
});

test("a removed service leaves no task", async () => {
  await addNode("a");
  const serviceId = await addService("web", 3);
  await eventually(() => expect(running(serviceId)).toHaveLength(3));
  await commit([
    { type: "delete", kind: "service", id: serviceId },
    { type: "delete", kind: "spec", id: `${serviceId}/0000000001` },
  ]);
  await eventually(() => expect([...store.view.tasksOfService(serviceId)]).toEqual([]));
});

test("a failed task is replaced in its slot, and its history is kept to the limit", async () => {
  await addNode("a");
  const serviceId = await addService("web", 1, { task: { restart: { delay: { seconds: 0n, nanos: 1_000_000 } } } });
  for (let attempt = 1n; attempt <= 4n; attempt++) {
    const [task] = await eventually(() => {
      const tasks = running(serviceId);
      expect(tasks.map((each) => each.attempt)).toEqual([attempt]);
      return tasks;
    });
    if (task) await commit([{ type: "update", kind: "task", object: withState(task, TaskState.FAILED) }]);
  }
  await eventually(() => expect(running(serviceId).map(({ attempt }) => attempt)).toEqual([5n]));
  await eventually(() =>
    expect([...store.view.tasksOfService(serviceId)].map(({ attempt }) => attempt).sort()).toEqual([4n, 5n]),
  );
});

test("of many spec versions the newest ten stay, and the one that a task names", async () => {
  await addNode("a");
  const serviceId = await addService("web", 1);
  await eventually(() => expect(running(serviceId)).toHaveLength(1));
  const specs = Array.from({ length: 12 }, (_, index) =>
    create(SpecVersionSchema, { serviceId, version: BigInt(index + 2), spec: { name: "web" } }),
  );
  await commit(specs.map((object) => ({ type: "create", kind: "spec", object })));
  const kept = [1n, 4n, 5n, 6n, 7n, 8n, 9n, 10n, 11n, 12n, 13n];
  await eventually(() => expect(store.view.specVersions(serviceId).map(({ version }) => version)).toEqual(kept));
});
