/**
 * Goal: the agent's and the managers' ends of the stream path understand each other, whichever manager is asked, and leave
 * nothing behind. Method: the real carrier and the real hubs of two managers over gRPC on loopback; only the container
 * behind the command is not real.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Session } from "../../agent/session.ts";
import { StreamCarrier } from "../../agent/stream-carrier.ts";
import { abortable, systemClock } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import type { NodeId, SessionId, TaskId } from "../../common/base/id.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { seededRandom } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { GrpcServer } from "../../common/rpc/grpc-server.ts";
import { openGrpcTransport } from "../../common/rpc/grpc-transport.ts";
import { Pipe } from "../../common/rpc/pipe.ts";
import { createClient } from "../../common/rpc/service.ts";
import { copyFiles } from "../../manager/control/copy.ts";
import { execInTask } from "../../manager/control/exec.ts";
import { MemoryKv } from "../../manager/store/memory-kv.ts";
import { openStore } from "../../manager/store/open-store.ts";
import { StreamHub } from "../../manager/streambroker/stream-hub.ts";
import {
  CopyRequestSchema,
  type ExecRequest,
  ExecRequestSchema,
  type ExecStartSchema,
} from "../../proto/gen/swarm/v1/control_pb.js";
import {
  Dispatcher,
  LogBroker,
  type ManagerFrame,
  ManagerFrameSchema,
  StreamBroker,
} from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import { ManagerInfoSchema, NodeSchema, SessionSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../eventually.ts";
import { FakeExecutor } from "../fake-executor.ts";
import { aTask, testId } from "../objects.ts";
import { oneSession } from "../one-session.ts";

const clock = systemClock;
const logger = silentLogger;
const { signal } = new AbortController();
const NODE = testId() as NodeId;
const SESSION = testId() as SessionId;
const SECRET = "hunter2-in-argv";

async function world() {
  const kv = new MemoryKv(clock);
  const scope = new Scope();
  const store = await openStore({ kv, clock, random: seededRandom(1), logger }, scope);
  const { lease } = await kv.leaseGrant(1_000_000, signal);
  const start = async () => {
    const managerId = testId();
    const random = seededRandom(managerId.charCodeAt(0));
    const hub = new StreamHub({ store, clock, random, logger, managerId, lease, sessionSignal: oneSession(SESSION) });
    const server = new GrpcServer({ clock, logger });
    server.addService(StreamBroker, hub.implementation);
    const address = await server.listen("127.0.0.1:0");
    await store.commit(
      [{ type: "create", kind: "manager", object: create(ManagerInfoSchema, { id: managerId, address }) }],
      { signal },
    );
    scope.spawn("hub", (until) => hub.run(until));
    return { hub, server, address };
  };
  const [asked, connected] = [await start(), await start()];
  const task = aTask({ nodeId: NODE, status: { state: TaskState.RUNNING } });
  await store.commit(
    [
      { type: "create", kind: "node", object: create(NodeSchema, { id: NODE, description: { hostname: "node-1" } }) },
      { type: "create", kind: "session", object: create(SessionSchema, { nodeId: NODE, sessionId: SESSION }) },
      { type: "create", kind: "task", object: task },
    ],
    { signal },
  );
  const executor = new FakeExecutor();
  const controller = executor.controller({ task } as Parameters<FakeExecutor["controller"]>[0]);
  const agent = new Scope();
  const transport = openGrpcTransport({ address: connected.address });
  const carrier = new StreamCarrier({
    clock,
    random: seededRandom(9),
    logger,
    connect: (address) => openGrpcTransport({ address }),
    worker: {
      controllerOf: (id) => (id === task.id ? controller : undefined),
      usage: (ids) => executor.usage(ids as readonly string[] as readonly TaskId[]),
      probe: () => executor.probe(),
    },
    scope: agent,
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
  agent.spawn("carrier", (until) => carrier.serve(session, until));
  return {
    store,
    asked,
    connected,
    task,
    executor,
    controller,
    agent,
    /** As Control does it. */
    exec(hub: StreamHub, requests: AsyncIterable<ExecRequest>, until: AbortSignal = signal) {
      return execInTask({ store, streams: hub } as unknown as Parameters<typeof execInTask>[0], requests, until);
    },
    async [Symbol.asyncDispose]() {
      await agent[Symbol.asyncDispose]();
      await transport[Symbol.asyncDispose]();
      await scope[Symbol.asyncDispose]();
      for (const { server } of [asked, connected]) await server[Symbol.asyncDispose]();
      kv[Symbol.dispose]();
    },
  };
}

let it: Awaited<ReturnType<typeof world>>;
beforeEach(async () => {
  it = await world();
});
afterEach(() => it[Symbol.asyncDispose]());

const request = (content: MessageInitShape<typeof ExecRequestSchema>["content"]) =>
  create(ExecRequestSchema, content ? { content } : {});

/** `start`, then each piece of input and its end; without input it stays silent. */
async function* typed(start: MessageInitShape<typeof ExecStartSchema>, input?: readonly Uint8Array[]) {
  yield request({ case: "start", value: { taskId: it.task.id, ...start } });
  if (!input) return await new Promise<never>(() => {});
  for (const value of input) yield request({ case: "stdin", value });
  yield request({ case: "stdinEnd", value: true });
}

const over = (args: string) => eventually(() => expect(it.executor.calls).toContain(`exec over ${args}`));
const nothingLeft = () => eventually(() => expect(it.store.view.streamRequests.size).toBe(0));

test("input comes back whole, at the agent's own manager and at another one; nothing of it is stored", async () => {
  const pieces = Array.from({ length: 40 }, (_, index) => Buffer.alloc(64 * 1024, index));
  for (const { hub } of [it.connected, it.asked]) {
    const stored: string[] = [];
    const stop = new AbortController();
    const changes = it.store.view.changes(stop.signal);
    const watching = (async () => {
      for await (const batch of changes) {
        for (const { kind, after } of batch) if (kind === "stream") stored.push(JSON.stringify(after ?? {}));
      }
    })().catch(() => {});
    const start = { args: ["echo", SECRET], env: [`TOKEN=${SECRET}`], stdin: true };
    const responses = await Array.fromAsync(it.exec(hub, typed(start, pieces)));
    expect(responses.at(0)?.content).toMatchObject({ case: "started" });
    expect(responses.at(-1)?.content).toMatchObject({ case: "ended", value: { exitCode: 0 } });
    const back = responses.flatMap(({ content }) => (content.case === "stdout" ? [content.value] : []));
    expect(Buffer.concat(back).equals(Buffer.concat(pieces))).toBe(true);
    await nothingLeft();
    stop.abort();
    await watching;
    expect(stored).toHaveLength(2);
    expect(stored.join()).not.toContain(SECRET);
  }
});

test("whoever leaves takes the command along; a hundred times, and nothing is left", async () => {
  for (let round = 0; round < 100; round++) {
    const { hub } = round % 2 === 0 ? it.asked : it.connected;
    for await (const { content } of it.exec(hub, typed({ args: ["wait", String(round)] }))) {
      expect(content.case).toBe("started");
      break;
    }
    await over(`wait ${round}`);
  }
  await nothingLeft();
  const abort = new AbortController();
  const read = async () => {
    for await (const _ of it.exec(it.asked.hub, typed({ args: ["wait", "abort"] }), abort.signal)) {
      abort.abort(new SwarmError("canceled", "Ctrl-C"));
    }
  };
  await expect(read()).rejects.toMatchObject({ message: "Ctrl-C" });
  await over("wait abort");
});

test("an agent or a manager that is lost ends it on both sides, and says who was lost", async () => {
  const read = async (hub: StreamHub, then: () => unknown) => {
    for await (const _ of it.exec(hub, typed({ args: ["wait", "lost"] }))) void then();
  };
  // The manager that was asked goes: the agent ends the command.
  const { server } = it.asked;
  await expect(read(it.asked.hub, () => server[Symbol.asyncDispose]())).rejects.toMatchObject({ code: "unavailable" });
  await over("wait lost");
  it.executor.calls.length = 0;
  await expect(read(it.connected.hub, () => it.agent.cancel())).rejects.toMatchObject({
    code: "unavailable",
    message: expect.stringContaining("lost node node-1"),
  });
  await over("wait lost");
});

test("what cannot be is said: no such task, none that runs, no node, no agent, bad fields", async () => {
  const refused = (start: MessageInitShape<typeof ExecStartSchema>) =>
    expect(Array.fromAsync(it.exec(it.asked.hub, typed({ args: ["true"], ...start })))).rejects;
  await refused({ taskId: testId() }).toMatchObject({ code: "not_found" });
  await refused({ args: [], dir: "x", env: ["=a"], detach: true, tty: true }).toMatchObject({
    code: "invalid_argument",
    message: expect.stringMatching(/^args: .*; env: .*; dir: .*; detach: /),
  });
  it.controller.exec = () => {
    throw new SwarmError("failed_precondition", "the container is created, not running");
  };
  await refused({}).toMatchObject({ code: "failed_precondition", message: "the container is created, not running" });
  const [idle, alone] = [testId(), testId()];
  await it.store.commit(
    [
      { type: "create", kind: "task", object: aTask({ id: idle, nodeId: NODE, status: { state: TaskState.FAILED } }) },
      {
        type: "create",
        kind: "task",
        object: aTask({ id: alone, nodeId: testId(), status: { state: TaskState.RUNNING } }),
      },
    ],
    { signal },
  );
  await refused({ taskId: idle }).toMatchObject({ message: `task ${idle} is not running: it is failed` });
  await refused({ taskId: alone }).toMatchObject({ code: "unavailable", message: /^node .* is not connected$/ });
  await nothingLeft();
});

test("who stops reading stops the command, and nobody's memory grows", async () => {
  let produced = 0;
  it.controller.exec = async function* (_, _requests, until) {
    while (!until.aborted) {
      produced++;
      const value = Buffer.alloc(64 * 1024);
      yield { $typeName: "swarm.v1.ExecResponse", content: { case: "stdout", value } };
      await clock.sleep(0);
    }
  };
  let fed = 0;
  async function* flood() {
    yield request({ case: "start", value: { taskId: it.task.id, args: ["flood"], stdin: true } });
    while (true) {
      fed++;
      yield request({ case: "stdin", value: Buffer.alloc(64 * 1024) });
      await clock.sleep(0);
    }
  }
  const reading = it.exec(it.asked.hub, flood())[Symbol.asyncIterator]();
  await reading.next();
  let before = "";
  await eventually(
    () => {
      const [last, now] = [before, `${produced} ${fed}`];
      before = now;
      expect(now).toBe(last);
    },
    { intervalMs: 150 },
  );
  // Three wires' windows and queues of 16 messages.
  expect(produced).toBeLessThan(150);
  expect(fed).toBeLessThan(150);
  await reading.return?.(undefined);
});

/** As Control does it: what comes into the task is `data`. */
function copy(
  hub: StreamHub,
  first: MessageInitShape<typeof CopyRequestSchema>["content"],
  data: readonly Uint8Array[] = [],
) {
  async function* requests() {
    const say = (content: MessageInitShape<typeof CopyRequestSchema>["content"]) =>
      create(CopyRequestSchema, content ? { content } : {});
    yield say(first);
    if (first?.case !== "to") return;
    yield say({ case: "target", value: { directory: "/" } });
    for (const value of data) yield say({ case: "data", value });
    yield say({ case: "dataEnd", value: true });
  }
  return copyFiles({ store: it.store, streams: hub } as unknown as Parameters<typeof copyFiles>[0], requests(), signal);
}

test("files go either way, whole, at the agent's own manager and at another one", async () => {
  for (const { hub } of [it.connected, it.asked]) {
    const from = { case: "from", value: { taskId: it.task.id, path: "/x" } } as const;
    const out = (await Array.fromAsync(copy(hub, from))).map(({ content }) => content);
    expect(out.at(0)).toMatchObject({ case: "place", value: { path: "/x" } });
    expect(out.at(-1)).toMatchObject({ case: "done" });
    const data = out.flatMap((content) => (content.case === "data" ? [content.value] : []));
    expect(data.map((bytes) => [bytes.length, bytes[0]])).toEqual(
      Array.from({ length: 40 }, (_, chunk) => [64 * 1024, chunk]),
    );
    const pieces = Array.from({ length: 40 }, () => Buffer.alloc(64 * 1024));
    const into = await Array.fromAsync(copy(hub, { case: "to", value: { taskId: it.task.id, path: "/echo" } }, pieces));
    expect(into.map(({ content }) => content.value).slice(1)).toEqual([`${40 * 64 * 1024} bytes`, true]);
    await nothingLeft();
  }
});

test("whoever leaves a copy ends it; a bad request is refused by its field", async () => {
  for await (const _ of copy(it.asked.hub, { case: "from", value: { taskId: it.task.id, path: "/wait" } })) break;
  await eventually(() => expect(it.executor.calls).toContain("copy over /wait"));
  const refused = (...request: Parameters<typeof copy> extends [unknown, ...infer Rest] ? Rest : never) =>
    expect(Array.fromAsync(copy(it.asked.hub, ...request))).rejects;
  await refused({ case: "from", value: { taskId: testId(), path: "/x" } }).toMatchObject({ code: "not_found" });
  await refused({ case: "from", value: { taskId: it.task.id, path: "" } }).toMatchObject({
    code: "invalid_argument",
    message: "from.path: must not be empty",
  });
  await refused({ case: "to", value: { taskId: it.task.id, path: "a\0b" } }).toMatchObject({
    message: /^to\.path: .*NUL/,
  });
  await refused({ case: "dataEnd", value: true }).toMatchObject({ message: "from or to: must be the first request" });
  await refused({ case: "to", value: { taskId: it.task.id, path: "/" } }, [Buffer.alloc(64 * 1024 + 1)]).toMatchObject({
    message: "data: at most 65536 bytes at a time",
  });
  await nothingLeft();
});

/** Questions about the node's tasks, each once `ask` is called. */
function watchStats(hub: StreamHub, until: AbortSignal = signal) {
  const questions = new Pipe<ManagerFrame>(1);
  const answers = hub.open({ nodeId: NODE }, questions.read(until), until)[Symbol.asyncIterator]();
  return {
    async ask(...taskIds: readonly string[]) {
      const question = create(ManagerFrameSchema, { content: { case: "stats", value: { taskIds: [...taskIds] } } });
      await questions.write(question, until);
      const { value } = await answers.next();
      return value?.content.case === "stats" ? value.content.value.tasks : [];
    },
    leave: () => answers.return?.(undefined),
  };
}

test("a node's stats are asked for again and again over one stream", async () => {
  it.executor.container(it.task.id).running = true;
  for (const { hub } of [it.connected, it.asked]) {
    it.executor.calls.length = 0;
    const watch = watchStats(hub);
    const first = await watch.ask(it.task.id, testId());
    const second = await watch.ask(it.task.id);
    expect([first.length, second.length]).toEqual([1, 1]);
    expect(second[0]?.monotonicNanos).toBeGreaterThan(first[0]?.monotonicNanos ?? 0n);
    expect(it.store.view.streamRequests.size).toBe(1);
    expect(it.store.view.streamRequests.values().next().value).toMatchObject({ nodeId: NODE, taskId: "" });
    await watch.leave();
    await nothingLeft();
    expect(it.executor.calls).toEqual(["usage 2", "usage 1"]);
  }
});

test("however many watch a node's stats, commands can be run", async () => {
  const stop = new AbortController();
  const watches = Array.from({ length: 16 }, () => watchStats(it.asked.hub, stop.signal));
  for (const watch of watches) await watch.ask(it.task.id);
  await expect(watchStats(it.asked.hub, stop.signal).ask(it.task.id)).rejects.toMatchObject({
    code: "resource_exhausted",
    message: "16 watch this node's stats already",
  });
  const responses = await Array.fromAsync(it.exec(it.asked.hub, typed({ args: ["true"] })));
  expect(responses.at(-1)?.content).toMatchObject({ case: "ended" });
  await watches.pop()?.leave();
  await eventually(async () => {
    const watch = watchStats(it.asked.hub, stop.signal);
    await watch.ask(it.task.id);
    watches.push(watch);
  });
  stop.abort();
  for (const watch of watches) await watch.leave();
  await nothingLeft();
});

test("a question that is too long is refused by its field", async () => {
  const many = Array.from({ length: 4_097 }, () => it.task.id);
  await expect(watchStats(it.asked.hub).ask(...many)).rejects.toMatchObject({
    code: "invalid_argument",
    message: "task_ids: at most 4096 at a time",
  });
});

test("a node carries at most 32 streams at once", async () => {
  const stop = new AbortController();
  const running = Array.from({ length: 32 }, async (_, index) => {
    const reading = it
      .exec(it.asked.hub, typed({ args: ["wait", `many ${index}`] }), stop.signal)
      [Symbol.asyncIterator]();
    await reading.next();
    return reading;
  });
  const readers = await Promise.all(running);
  await expect(Array.fromAsync(it.exec(it.asked.hub, typed({ args: ["wait"] })))).rejects.toMatchObject({
    code: "resource_exhausted",
  });
  stop.abort();
  for (const reader of readers) await abortable(reader.next(), signal).catch(() => {});
  await nothingLeft();
});
