/**
 * Goal: the agent's and the manager's end of the log path understand each other. Method: the real publisher and the real
 * hubs of two managers over gRPC on loopback; only the container behind the log is not real.
 */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { LogPublisher } from "../../agent/log-publisher.ts";
import type { Session } from "../../agent/session.ts";
import type { LoggedTask } from "../../agent/worker.ts";
import { systemClock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { NodeId, SessionId, TaskId } from "../../common/base/id.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { seededRandom } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { GrpcServer } from "../../common/rpc/grpc-server.ts";
import { openGrpcTransport } from "../../common/rpc/grpc-transport.ts";
import { createClient } from "../../common/rpc/service.ts";
import { LogHub } from "../../manager/logbroker/log-hub.ts";
import { MemoryKv } from "../../manager/store/memory-kv.ts";
import { openStore } from "../../manager/store/open-store.ts";
import { LogMessageSchema } from "../../proto/gen/swarm/v1/control_pb.js";
import { Dispatcher, LogBroker, StreamBroker } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import {
  LogOptionsSchema,
  LogSelectorSchema,
  ManagerInfoSchema,
  NodeSchema,
  SessionSchema,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { eventually } from "../eventually.ts";
import { FakeExecutor } from "../fake-executor.ts";
import { aTask, testId } from "../objects.ts";
import { oneSession } from "../one-session.ts";

const clock = systemClock;
const logger = silentLogger;
const { signal } = new AbortController();
const NODE = testId() as NodeId;
const SESSION = testId() as SessionId;
const TASK = aTask({ nodeId: NODE });
const LINES = 1000;

/** A task with a log of 1000 lines; with `follow` it stays open. */
function loggedTask(taskId: TaskId): LoggedTask {
  const controller = new FakeExecutor().controller({ task: TASK } as Parameters<FakeExecutor["controller"]>[0]);
  controller.logs = async function* ({ follow }, until) {
    for (let index = 0; index < LINES; index++) {
      yield create(LogMessageSchema, { timestamp: timestampFromMs(index), data: Buffer.from(`line ${index}`) });
    }
    if (follow) await clock.sleep(1_000_000, until);
  };
  return { taskId, controller };
}

async function world() {
  const kv = new MemoryKv(clock);
  const scope = new Scope();
  const store = await openStore({ kv, clock, random: seededRandom(1), logger }, scope);
  const { lease } = await kv.leaseGrant(1_000_000, signal);
  const start = async () => {
    const managerId = testId();
    const random = seededRandom(managerId.charCodeAt(0));
    const hub = new LogHub({ store, clock, random, logger, managerId, lease, sessionSignal: oneSession(SESSION) });
    const server = new GrpcServer({ clock, logger });
    server.addService(LogBroker, hub.implementation);
    const address = await server.listen("127.0.0.1:0");
    const object = create(ManagerInfoSchema, { id: managerId, address });
    await store.commit([{ type: "create", kind: "manager", object }], { signal });
    scope.spawn("hub", (until) => hub.run(until));
    return { hub, server, address };
  };
  const [asked, connected] = [await start(), await start()];
  const transport = openGrpcTransport({ address: connected.address });
  await store.commit(
    [
      { type: "create", kind: "node", object: create(NodeSchema, { id: NODE, description: { hostname: "node-1" } }) },
      { type: "create", kind: "session", object: create(SessionSchema, { nodeId: NODE, sessionId: SESSION }) },
      { type: "create", kind: "task", object: TASK },
    ],
    { signal },
  );
  const task = loggedTask(TASK.id as TaskId);
  const publisher = new LogPublisher({
    clock,
    random: seededRandom(9),
    logger,
    connect: (address) => openGrpcTransport({ address }),
    worker: { logged: () => [task], onTask: () => {} },
  });
  const session: Session = {
    nodeId: NODE,
    sessionId: SESSION,
    address: connected.address,
    transport,
    dispatcher: createClient(Dispatcher, transport),
    logBroker: createClient(LogBroker, transport),
    streamBroker: createClient(StreamBroker, transport),
  };
  scope.spawn("publisher", (until) => publisher.serve(session, until));
  return {
    store,
    asked,
    connected,
    async [Symbol.asyncDispose]() {
      await scope[Symbol.asyncDispose]();
      await transport[Symbol.asyncDispose]();
      await asked.server[Symbol.asyncDispose]();
      await connected.server[Symbol.asyncDispose]();
      kv[Symbol.dispose]();
    },
  };
}

const EXPECTED = Array.from({ length: LINES }, (_, index) => `line ${index}`);
const selector = create(LogSelectorSchema, { taskIds: [TASK.id] });

test("an agent's log reaches a reader at the agent's own manager and at another one", async () => {
  await using it = await world();
  for (const { hub } of [it.connected, it.asked]) {
    const batches = await Array.fromAsync(hub.subscribe(selector, create(LogOptionsSchema, { tail: -1n }), signal));
    const texts = batches.flatMap(({ messages }) => messages.map(({ data }) => Buffer.from(data).toString()));
    expect(texts).toEqual(EXPECTED);
    expect(batches.flatMap(({ unreachable }) => unreachable)).toEqual([]);
  }
});

test("an agent stops when its reader leaves, and serves the next one", async () => {
  await using it = await world();
  const follow = create(LogOptionsSchema, { tail: -1n, follow: true });
  for (let round = 0; round < 2; round++) {
    const reader = new AbortController();
    let lines = 0;
    const reading = (async () => {
      for await (const { messages } of it.asked.hub.subscribe(selector, follow, reader.signal)) {
        lines += messages.length;
        if (lines === LINES) reader.abort(new SwarmError("canceled", "seen enough"));
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: "canceled", message: "seen enough" });
    await eventually(() => expect(it.store.view.logSubscriptions.size).toBe(0));
  }
});
