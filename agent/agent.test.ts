/**
 * Goal: sessions, failover, assignments, statuses and logs work over a wire that fails. Method: an Agent with the
 * in-memory executor talks to scripted managers over the in-memory network; real time, which is short here.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { expect, onTestFinished, test } from "vitest";
import { systemClock } from "../common/base/clock.ts";
import { SwarmError } from "../common/base/error.ts";
import type { NodeId } from "../common/base/id.ts";
import { silentLogger } from "../common/base/logger.ts";
import { seededRandom } from "../common/base/random.ts";
import { Scope } from "../common/base/scope.ts";
import { MemoryNetwork } from "../common/rpc/memory-transport.ts";
import {
  AssignmentsMessage_Type,
  type AssignmentsMessageSchema,
  Dispatcher,
  LogBroker,
  type SessionMessageSchema,
  type SubscriptionMessageSchema,
} from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../test/eventually.ts";
import { FakeExecutor } from "../test/fake-executor.ts";
import { Mailbox } from "../test/mailbox.ts";
import { Agent } from "./agent.ts";
import { ManagerList } from "./session.ts";
import { MemoryTaskDatabase } from "./task-database.ts";

type Assignments = MessageInitShape<typeof AssignmentsMessageSchema>;

const TASK = "a".repeat(25);

/** One manager: what it hands out is scripted, what it is told is kept. */
class ScriptedManager {
  readonly sessions: string[] = [];
  readonly beats: string[] = [];
  readonly statuses: string[] = [];
  readonly logs: string[] = [];
  readonly assignments = new Mailbox<Assignments>(100);
  readonly subscriptions = new Mailbox<MessageInitShape<typeof SubscriptionMessageSchema>>(10);
  watches = 0;
  refuseBeats = false;
  answerBeats = true;
  #stop: () => Promise<void>;

  constructor(network: MemoryNetwork, address: string, managers: readonly string[]) {
    const server = network.serve(address);
    this.#stop = () => server[Symbol.asyncDispose]();
    const manager = this;
    const hello = (sessionId: string): MessageInitShape<typeof SessionMessageSchema> => ({
      sessionId,
      heartbeatPeriod: durationFromMs(20),
      managers: managers.map((known) => ({ address: known })),
      addressPool: "10.224.0.0/12",
    });
    server.addService(Dispatcher, {
      async *openSession({ previousSessionId }, { signal }) {
        const sessionId = `${address}#${manager.sessions.length}`;
        manager.sessions.push(previousSessionId);
        yield hello(sessionId);
        await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      },
      async *heartbeat(requests) {
        for await (const { sessionId } of requests) {
          if (manager.refuseBeats) throw new SwarmError("failed_precondition", "session invalid");
          manager.beats.push(sessionId);
          if (manager.answerBeats) yield { period: durationFromMs(20) };
        }
      },
      async *watchAssignments(_, { signal }) {
        manager.watches += 1;
        yield* manager.assignments.receive(signal);
      },
      reportVolumes: async () => ({}),
      reportCertificate: async () => ({}),
      reportWireguardKey: async () => ({}),
      reportNetworkFact: async () => ({}),
      async updateTaskStatus({ updates }) {
        for (const { status } of updates) manager.statuses.push(TaskState[status?.state ?? TaskState.NEW] ?? "");
        return {};
      },
    });
    server.addService(LogBroker, {
      async *listenSubscriptions(_, { signal }) {
        yield* manager.subscriptions.receive(signal);
      },
      async publishLogs(requests) {
        for await (const { messages, close } of requests) {
          for (const { data } of messages) manager.logs.push(new TextDecoder().decode(data));
          if (close) manager.logs.push("(end)");
        }
        return {};
      },
    });
  }

  stop(): Promise<void> {
    return this.#stop();
  }
}

function setUp(addresses: readonly string[] = ["m1"]) {
  const network = new MemoryNetwork();
  const managers = addresses.map((address) => new ScriptedManager(network, address, addresses));
  const executor = new FakeExecutor();
  const scope = new Scope();
  const agent = new Agent({
    nodeId: "node" as NodeId,
    managers: new ManagerList(addresses.slice(0, 1)),
    clock: systemClock,
    random: seededRandom(7),
    logger: silentLogger,
    connect: (address) => network.transport("node", address),
    executor,
    database: new MemoryTaskDatabase(),
    bootId: "boot",
  });
  scope.spawn("agent", (signal) => agent.run(signal));
  onTestFinished(() => scope[Symbol.asyncDispose]());
  return { network, managers, executor };
}

function assignment(over: Assignments = {}): Assignments {
  const template = { serviceId: "web", specVersion: 1n, spec: {} };
  const status = { state: TaskState.ASSIGNED };
  const task = { id: TASK, serviceId: "web", specVersion: 1n, desiredState: TaskState.RUNNING, status };
  return {
    type: AssignmentsMessage_Type.COMPLETE,
    resultsIn: "1",
    epoch: 5n,
    changes: [{ item: { case: "template", value: template } }, { item: { case: "task", value: task } }],
    ...over,
  };
}

test("registers, beats, runs what is assigned and reports it", async () => {
  const { managers, executor } = setUp();
  const [manager] = managers;
  manager?.assignments.send(assignment());
  await eventually(() => expect(manager?.statuses.at(-1)).toBe("RUNNING"));
  await eventually(() => expect(manager?.beats.length).toBeGreaterThan(2));
  expect(executor.calls.slice(0, 3)).toEqual(["configure 10.224.0.0/12", "publish", `prepare ${TASK}`]);
  expect(manager?.sessions).toEqual([""]);
});

test("a broken chain asks again, an invalid session opens a new one", async () => {
  const { managers } = setUp();
  const [manager] = managers;
  manager?.assignments.send(assignment());
  manager?.assignments.send(assignment({ type: AssignmentsMessage_Type.INCREMENTAL, appliesTo: "7", resultsIn: "8" }));
  await eventually(() => expect(manager?.watches).toBe(2));
  expect(manager?.sessions).toHaveLength(1);
  if (manager) manager.refuseBeats = true;
  await eventually(() => expect(manager?.sessions.length).toBeGreaterThan(1));
  expect(manager?.sessions[1]).toBe("m1#0");
});

test("a manager that answers no heartbeat any more is left for another one", async () => {
  const { managers } = setUp(["m1", "m2"]);
  const [first, second] = managers;
  await eventually(() => expect(first?.beats.length).toBeGreaterThan(1));
  if (first) first.answerBeats = false;
  await eventually(() => expect(second?.beats.length).toBeGreaterThan(1));
  expect(first?.sessions).toEqual([""]);
});

test("moves to a manager that it learned of; what was not yet told goes there", async () => {
  const { managers, executor } = setUp(["m1", "m2"]);
  const [first, second] = managers;
  first?.assignments.send(assignment());
  await eventually(() => expect(first?.statuses.at(-1)).toBe("RUNNING"));
  await first?.stop();
  executor.container(TASK).end({ exitCode: 3 });
  await eventually(() => expect(second?.statuses).toEqual(["FAILED"]));
});

test("a stale leader's assignments are not obeyed", async () => {
  const { managers, executor } = setUp(["m1", "m2"]);
  const [first, second] = managers;
  first?.assignments.send(assignment());
  await eventually(() => expect(first?.statuses.at(-1)).toBe("RUNNING"));
  second?.assignments.send(assignment({ epoch: 4n, changes: [] }));
  await first?.stop();
  await eventually(() => expect(second?.sessions.length).toBeGreaterThan(1));
  expect(executor.calls).not.toContain(`shutdown ${TASK}`);
});

test("publishes the logs that are asked for", async () => {
  const { managers } = setUp();
  const [manager] = managers;
  manager?.assignments.send(assignment());
  await eventually(() => expect(manager?.statuses.at(-1)).toBe("RUNNING"));
  const subscription = { id: "s1", selector: { serviceIds: ["web"] }, options: { tail: -1n } };
  manager?.subscriptions.send({ subscription, managerAddress: "m1" });
  await eventually(() => expect(manager?.logs).toEqual(["one", "two", "(end)"]));
  manager?.subscriptions.send({ subscription: { ...subscription, id: "s2", options: { tail: -1n, follow: true } } });
  await eventually(() => expect(manager?.logs.slice(3)).toEqual(["one", "two"]));
  manager?.subscriptions.send({ subscription: { id: "s2" }, close: true });
});
