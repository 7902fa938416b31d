import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { SwarmError } from "../../common/base/error.ts";
import { FakeClock, settle } from "../../common/base/fake-clock.ts";
import type { ClusterId, NodeId } from "../../common/base/id.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { seededRandom } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { MemoryNetwork } from "../../common/rpc/memory-transport.ts";
import { type Client, createClient, type PeerIdentity } from "../../common/rpc/service.ts";
import { type LogMessage, LogMessageSchema, type LogMessages } from "../../proto/gen/swarm/v1/control_pb.js";
import { LogBroker, type SubscriptionMessage } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import {
  LogOptionsSchema,
  LogSelectorSchema,
  ManagerInfoSchema,
  NodeSchema,
  SessionSchema,
  type Task,
} from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State } from "../../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../../test/eventually.ts";
import { aTask, testId } from "../../test/objects.ts";
import { oneSession } from "../../test/one-session.ts";
import type { Kv } from "../store/kv.ts";
import { MemoryKv } from "../store/memory-kv.ts";
import { openStore } from "../store/open-store.ts";
import { LogHub } from "./log-hub.ts";

const { signal } = new AbortController();
const SESSION = "session";

/** Two managers over one store, with hubs; nodes and agents as a test wants them. */
function identityOf(nodeId: string): PeerIdentity {
  return { kind: "node", nodeId: nodeId as NodeId, role: "swarm-worker", clusterId: "c".repeat(25) as ClusterId };
}

async function world() {
  const clock = new FakeClock();
  const memory = new MemoryKv(clock);
  const faults = { txn: false };
  const kv: Kv = {
    range: (request, until) => memory.range(request, until),
    watch: (request, until) => memory.watch(request, until),
    leaseGrant: (ttlMs, until) => memory.leaseGrant(ttlMs, until),
    leaseKeepAlive: (lease, until) => memory.leaseKeepAlive(lease, until),
    leaseRevoke: (lease, until) => memory.leaseRevoke(lease, until),
    txn: async (request, until) => {
      if (faults.txn) throw new SwarmError("invalid_argument", "the store is out of order");
      return memory.txn(request, until);
    },
  };
  const scope = new Scope();
  const network = new MemoryNetwork({ clock });
  const start = async (name: string) => {
    const options = { kv, clock, random: seededRandom(name.length), logger: silentLogger };
    const store = await openStore(options, scope);
    const { lease } = await kv.leaseGrant(1_000_000, signal);
    const managerId = testId();
    const info = create(ManagerInfoSchema, { id: managerId, address: name, hostname: name });
    await store.commit([{ type: "create", kind: "manager", object: info, lease }], { signal });
    const hub = new LogHub({ ...options, store, managerId, lease, sessionSignal: oneSession(SESSION) });
    network.serve(name).addService(LogBroker, hub.implementation);
    scope.spawn("hub", (until) => hub.run(until));
    return { store, hub };
  };
  const one = await start("one");
  const another = await start("another");
  const serviceId = testId();
  return {
    clock,
    kv: memory,
    faults,
    one,
    another,
    network,
    scope,
    serviceId,
    selector: create(LogSelectorSchema, { serviceIds: [serviceId] }),
    /** A node with one task of the service. */
    async node(hostname: string, init: { readonly down?: boolean; readonly session?: boolean } = {}) {
      const { down = false, session = true } = init;
      const id = testId();
      const state = down ? NodeStatus_State.DOWN : NodeStatus_State.READY;
      const node = create(NodeSchema, { id, description: { hostname }, status: { state } });
      await one.store.commit([{ type: "create", kind: "node", object: node }], { signal });
      if (session) {
        const object = create(SessionSchema, { nodeId: id, sessionId: SESSION });
        await one.store.commit([{ type: "create", kind: "session", object }], { signal });
      }
      const task = aTask({ serviceId, nodeId: id });
      const { revision } = await one.store.commit([{ type: "create", kind: "task", object: task }], { signal });
      await another.store.view.waitForRevision(revision, signal);
      return task;
    },
    client: (from: string, to: string, nodeId?: string) =>
      createClient(LogBroker, network.transport(from, to, nodeId ? identityOf(nodeId) : undefined)),
    async [Symbol.asyncDispose]() {
      await scope[Symbol.asyncDispose]();
      memory[Symbol.dispose]();
    },
  };
}

type World = Awaited<ReturnType<typeof world>>;

function line(task: Task, index: number, text = `line ${index}`): LogMessage {
  const { id: taskId, nodeId } = task;
  return create(LogMessageSchema, { taskId, nodeId, timestamp: timestampFromMs(index), data: Buffer.from(text) });
}

function textsOf(batches: readonly LogMessages[]): string[] {
  return batches.flatMap(({ messages }) => messages.map(({ data }) => Buffer.from(data).toString()));
}

/** An agent that answers every subscription with `lines`; with follow its stream then stays open. */
function startAgent(
  it: World,
  name: string,
  manager: string,
  task: Task,
  lines: readonly LogMessage[],
): SubscriptionMessage[] {
  const { nodeId } = task;
  const heard: SubscriptionMessage[] = [];
  const publish = async (message: SubscriptionMessage, until: AbortSignal) => {
    const subscriptionId = message.subscription?.id ?? "";
    const requests = async function* () {
      for (const one of lines) yield { subscriptionId, nodeId, messages: [one] };
      if (message.subscription?.options?.follow) await new Promise(() => {});
      yield { subscriptionId, nodeId, close: true };
    };
    await it.client(name, message.managerAddress || manager).publishLogs(requests(), { signal: until });
  };
  it.scope.spawn(name, async (until) => {
    for await (const message of it
      .client(name, manager)
      .listenSubscriptions({ nodeId, sessionId: SESSION }, { signal: until })) {
      heard.push(message);
      if (!message.close) it.scope.spawn(`${name} publishes`, (inner) => publish(message, inner));
    }
  });
  return heard;
}

const ALL = create(LogOptionsSchema, { tail: -1n });
const FOLLOW = create(LogOptionsSchema, { tail: -1n, follow: true });

describe("logs without follow", () => {
  test("come from nodes of every manager, and end", async () => {
    await using it = await world();
    const [first, second] = [await it.node("node-1"), await it.node("node-2")];
    startAgent(it, "agent-1", "one", first, [line(first, 1, "a"), line(first, 2, "b")]);
    const heard = startAgent(it, "agent-2", "another", second, [line(second, 1, "c")]);
    const batches = await Array.fromAsync(it.one.hub.subscribe(it.selector, ALL, signal));
    expect(textsOf(batches).sort()).toEqual(["a", "b", "c"]);
    expect(batches.flatMap(({ unreachable }) => unreachable)).toEqual([]);
    expect(heard[0]).toMatchObject({ managerAddress: "one", close: false });
    await eventually(() => {
      expect(it.one.store.view.logSubscriptions.size).toBe(0);
      expect(heard.at(-1)).toMatchObject({ close: true, subscription: { id: heard[0]?.subscription?.id } });
    });
  });

  test("name the nodes that cannot answer, and do not wait for them", async () => {
    await using it = await world();
    await it.node("node-2", { down: true, session: false });
    await it.node("node-3", { session: false });
    const batches = await Array.fromAsync(it.one.hub.subscribe(it.selector, ALL, signal));
    expect(batches.flatMap(({ unreachable }) => unreachable)).toEqual(["node-2: down", "node-3: not connected"]);
  });

  test("wait five seconds for a node that stays silent, or comes not back", async () => {
    await using it = await world();
    const task = await it.node("node-1");
    await it.node("node-2");
    const reading = Array.fromAsync(it.one.hub.subscribe(it.selector, ALL, signal));
    const id = await eventually(() => {
      const [known] = it.one.store.view.logSubscriptions.keys();
      if (known === undefined) throw new Error("not subscribed yet");
      return known;
    });
    await it.clock.advance(4000);
    const requests = async function* () {
      yield { subscriptionId: id, nodeId: task.nodeId, messages: [line(task, 1, "a")] };
      throw new SwarmError("unavailable", "agent died");
    };
    await expect(it.client("agent-1", "one").publishLogs(requests())).rejects.toMatchObject({ code: "unavailable" });
    await it.clock.advance(6000);
    const batches = await reading;
    expect(textsOf(batches)).toEqual(["a"]);
    expect(batches.flatMap(({ unreachable }) => unreachable)).toEqual(["node-2: no answer", "node-1: no answer"]);
  });

  test("of nothing end at once and leave the store alone", async () => {
    await using it = await world();
    const before = it.kv.revision;
    expect(await Array.fromAsync(it.one.hub.subscribe(it.selector, ALL, signal))).toEqual([]);
    expect(it.kv.revision).toBe(before);
  });
});

describe("logs with follow", () => {
  test("go on with tasks and nodes that come later, until the reader leaves", async () => {
    await using it = await world();
    const reader = new AbortController();
    const logs = it.one.hub.subscribe(it.selector, FOLLOW, reader.signal);
    const next = logs.next();
    await settle();
    const task = await it.node("node-1");
    const heard = startAgent(it, "agent-1", "another", task, [line(task, 1, "a")]);
    expect(textsOf([(await next).value as LogMessages])).toEqual(["a"]);
    const rest = logs.next();
    reader.abort(new SwarmError("canceled", "reader left"));
    await expect(rest).rejects.toMatchObject({ code: "canceled" });
    await eventually(() => expect(heard.at(-1)?.close).toBe(true));
    expect(it.one.store.view.logSubscriptions.size).toBe(0);
  });

  test("do not repeat what a node sends again after its stream broke", async () => {
    await using it = await world();
    const task = await it.node("node-1");
    const reader = new AbortController();
    const logs = it.one.hub.subscribe(it.selector, FOLLOW, reader.signal);
    const next = logs.next();
    startAgent(it, "agent-1", "one", task, [line(task, 1), line(task, 2)]);
    const got = textsOf([(await next).value as LogMessages]);
    while (got.length < 2) got.push(...textsOf([(await logs.next()).value as LogMessages]));
    const later = logs.next();
    const [subscriptionId = ""] = it.one.store.view.logSubscriptions.keys();
    const again = async function* () {
      yield { subscriptionId, nodeId: task.nodeId, messages: [line(task, 1), line(task, 2), line(task, 3)] };
      await new Promise(() => {});
    };
    it.scope.spawn("again", async (until) => {
      await it.client("agent-1", "one").publishLogs(again(), { signal: until });
    });
    got.push(...textsOf([(await later).value as LogMessages]));
    expect(got).toEqual(["line 1", "line 2", "line 3"]);
    reader.abort();
  });

  test("are read from agents no faster than the reader reads", async () => {
    await using it = await world();
    const task = await it.node("node-1");
    const reader = new AbortController();
    const logs = it.one.hub.subscribe(it.selector, FOLLOW, reader.signal);
    const next = logs.next();
    await eventually(() => expect(it.one.store.view.logSubscriptions.size).toBe(1));
    const [subscriptionId = ""] = it.one.store.view.logSubscriptions.keys();
    let sent = 0;
    const flood = async function* () {
      while (true) yield { subscriptionId, nodeId: task.nodeId, messages: [line(task, ++sent)] };
    };
    it.scope.spawn("flood", async (until) => {
      await it.client("agent-1", "one").publishLogs(flood(), { signal: until });
    });
    await next;
    await settle();
    await settle();
    const stuck = sent;
    expect(stuck, "what the wire buffers, and a few").toBeLessThan(30);
    await settle();
    expect(sent).toBe(stuck);
    const got = textsOf([(await logs.next()).value as LogMessages]);
    expect(got[0]).toBe("line 2");
    await eventually(() => expect(sent).toBeGreaterThan(stuck));
    reader.abort();
  });
});

describe("the broker", () => {
  test("lets nobody speak for others", async () => {
    await using it = await world();
    const [own, foreign] = [await it.node("node-1"), await it.node("node-2")];
    const logs = it.one.hub.subscribe(it.selector, FOLLOW, signal);
    const next = logs.next();
    await eventually(() => expect(it.one.store.view.logSubscriptions.size).toBe(1));
    const [subscriptionId = ""] = it.one.store.view.logSubscriptions.keys();
    const publish = async (
      client: Client<typeof LogBroker>,
      nodeId: string,
      messages: LogMessage[],
      id = subscriptionId,
    ) => {
      const requests = async function* () {
        yield { subscriptionId: id, nodeId, messages, close: true };
      };
      await client.publishLogs(requests());
    };
    const agent = it.client("agent-1", "one");
    const forged = [line(foreign, 1), { ...line(foreign, 1), nodeId: own.nodeId }, { ...line(own, 1), taskId: "../x" }];
    await Promise.all([
      publish(agent, own.nodeId, [...forged, line(own, 2, "mine"), line(aTask({ nodeId: own.nodeId }), 3, "new")]),
      next.then(({ value }) => expect(textsOf([value as LogMessages])).toEqual(["mine", "new"])),
    ]);
    const code = (name: string) => ({ code: name });
    await expect(publish(agent, testId(), [])).rejects.toMatchObject(code("permission_denied"));
    await expect(publish(agent, own.nodeId, [], testId())).rejects.toMatchObject(code("not_found"));
    const known = it.client("agent-2", "one", foreign.nodeId);
    await expect(publish(known, own.nodeId, [])).rejects.toMatchObject(code("permission_denied"));
    const listen = (client: Client<typeof LogBroker>, sessionId: string) =>
      Array.fromAsync(client.listenSubscriptions({ nodeId: own.nodeId, sessionId }));
    await expect(listen(agent, "stale")).rejects.toMatchObject(code("failed_precondition"));
    await expect(listen(known, SESSION)).rejects.toMatchObject(code("permission_denied"));
    await logs.return(undefined);
  });

  test("keeps one stream per node: a new one replaces the one before", async () => {
    await using it = await world();
    const { nodeId } = await it.node("node-1");
    const listen = () =>
      Array.fromAsync(
        it.client("agent-1", "one").listenSubscriptions({ nodeId, sessionId: SESSION }, { signal: it.scope.signal }),
      );
    const first = listen();
    await settle();
    const second = listen();
    second.catch(() => {});
    await expect(first).rejects.toMatchObject({ code: "aborted" });
  });

  test("deletes a subscription as soon as the store lets it", async () => {
    await using it = await world();
    await it.node("node-1");
    const reader = new AbortController();
    const next = it.one.hub.subscribe(it.selector, FOLLOW, reader.signal).next();
    await eventually(() => expect(it.one.store.view.logSubscriptions.size).toBe(1));
    it.faults.txn = true;
    reader.abort();
    await expect(next).rejects.toMatchObject({ code: "canceled" });
    await it.clock.advance(60_000);
    expect(it.one.store.view.logSubscriptions.size).toBe(1);
    it.faults.txn = false;
    await it.clock.advance(10_000);
    await eventually(() => expect(it.one.store.view.logSubscriptions.size).toBe(0));
  });

  test("serves a bounded number of readers", async () => {
    await using it = await world();
    await it.node("node-1");
    const reader = new AbortController();
    const open = () => it.one.hub.subscribe(it.selector, FOLLOW, reader.signal).next();
    const readers = Array.from({ length: 64 }, open);
    await expect(open()).rejects.toMatchObject({ code: "resource_exhausted" });
    reader.abort();
    expect((await Promise.allSettled(readers)).every(({ status }) => status === "rejected")).toBe(true);
    await eventually(() => expect(it.one.store.view.logSubscriptions.size).toBe(0));
  });
});
