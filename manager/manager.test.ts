// Goal: managers on one store are one cluster: agents find a session, tasks reach them, and when the leader dies another
// goes on. Method: the class the program runs, over the store and the wire in memory, on a clock that the test moves.
import { describe, expect, onTestFinished, test } from "vitest";
import { FakeClock } from "../common/base/fake-clock.ts";
import type { ManagerId } from "../common/base/id.ts";
import { silentLogger } from "../common/base/logger.ts";
import { seededRandom, systemEntropy } from "../common/base/random.ts";
import { MemoryNetwork } from "../common/rpc/memory-transport.ts";
import { createClient } from "../common/rpc/service.ts";
import { Control } from "../proto/gen/swarm/v1/control_pb.js";
import { type AssignmentsMessage, Dispatcher, LogBroker, StreamBroker } from "../proto/gen/swarm/v1/dispatcher_pb.js";
import { NodeStatus_State, TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import { TEST_KEYS } from "../test/cluster-key.ts";
import { testId } from "../test/objects.ts";
import { beatOnce } from "../test/one-beat.ts";
import { Manager } from "./manager.ts";
import { MemoryKv } from "./store/memory-kv.ts";
import type { Store } from "./store/store.ts";

function world() {
  const clock = new FakeClock();
  const kv = new MemoryKv(clock);
  const network = new MemoryNetwork({ clock });
  const running: { stop(): Promise<void> }[] = [];
  onTestFinished(async () => {
    for (const one of running) await one.stop();
    kv[Symbol.dispose]();
  });

  /** Steps the clock until `holds`. */
  async function until(what: string, holds: () => boolean, limitMs = 15_000): Promise<void> {
    for (let passedMs = 0; !holds(); passedMs += 5) {
      if (passedMs > limitMs) throw new Error(`not within ${limitMs} ms: ${what}`);
      await clock.advance(5);
    }
  }
  async function within<T>(what: string, promise: Promise<T>): Promise<T> {
    let settled = false;
    const done = promise.finally(() => {
      settled = true;
    });
    done.catch(() => {});
    await until(what, () => settled);
    return done;
  }

  async function start(name: string, seed: number) {
    const controller = new AbortController();
    const managerId = testId() as ManagerId;
    let store: Store | undefined;
    const manager = new Manager({
      kv,
      clock,
      random: seededRandom(seed),
      logger: silentLogger,
      managerId,
      hostname: name,
      version: "test",
      cluster: { addressPool: "10.224.0.0/12", heartbeatPeriodMs: 1000, taskHistoryLimit: 5 },
      clusterKeys: TEST_KEYS,
      entropy: systemEntropy,
      registry: { digestOf: async () => undefined },
      blobs: {
        missing: async (digests) => digests,
        put: async () => {},
        open: async function* () {},
        delete: async () => {},
      },
      serve: async (services) => {
        store = services.store;
        const server = network.serve(name);
        server.addService(Control, services.control);
        server.addService(Dispatcher, services.dispatcher);
        server.addService(LogBroker, services.logBroker);
        server.addService(StreamBroker, services.streamBroker);
        return name;
      },
    });
    const run = manager.run(controller.signal);
    const stop = async () => {
      controller.abort();
      network.disconnect(name);
      await within("manager stops", run);
    };
    running.push({ stop });
    await until(`${name} serves`, () => store?.view.managers.has(managerId) ?? false);
    if (!store) throw new Error("unreachable");
    return {
      managerId,
      view: store.view,
      stop,
      control: createClient(Control, network.transport("person", name, { kind: "host" })),
    };
  }

  /** An agent that beats, and keeps what it is told. */
  async function agent(manager: string, nodeId = testId()) {
    const client = createClient(Dispatcher, network.transport(`agent-${nodeId}`, manager));
    const stop = new AbortController();
    running.push({ stop: async () => stop.abort() });
    const description = {
      hostname: `host-${nodeId.slice(0, 4)}`,
      platform: { os: "linux", architecture: "x86_64" },
      resources: { nanoCpus: 4_000_000_000n, memoryBytes: 8n * 1024n ** 3n },
    };
    const sessions = client.openSession({ nodeId, description }, { signal: stop.signal })[Symbol.asyncIterator]();
    const first = await within("session", sessions.next());
    if (first.done) throw new Error("no session");
    const { sessionId } = first.value;
    const messages: AssignmentsMessage[] = [];
    const ended: unknown[] = [];
    const beat = async () => {
      while (!stop.signal.aborted) {
        await clock.sleep(900, stop.signal);
        await beatOnce(client, { nodeId, sessionId }, { signal: stop.signal });
      }
    };
    const follow = async () => {
      for await (const message of client.watchAssignments({ nodeId, sessionId }, { signal: stop.signal })) {
        messages.push(message);
      }
    };
    const next = async () => {
      while (!(await sessions.next()).done);
    };
    for (const loop of [beat, follow, next]) loop().catch((reason: unknown) => ended.push(reason));
    return { nodeId, sessionId, client, messages, ended, stop };
  }

  return { clock, kv, network, start, agent, until, within };
}

function taskIds(messages: readonly AssignmentsMessage[]): string[] {
  return messages.flatMap(({ changes }) =>
    changes.flatMap(({ item }) => (item.case === "task" ? [item.value.id] : [])),
  );
}

describe("a cluster of managers", () => {
  test("a service's tasks reach the agent, and what it reports is seen by people", async () => {
    const { start, agent, until, within } = world();
    const { view, control } = await start("m1", 1);
    const node = await agent("m1");
    await until("node ready", () => view.nodes.get(node.nodeId)?.status?.state === NodeStatus_State.READY);
    const spec = {
      name: "web",
      task: { container: { image: "docker.io/demo/web:1" } },
      mode: { mode: { case: "replicated" as const, value: { replicas: 2n } } },
    };
    await within("create", control.createService({ spec }));
    await until("assignments", () => taskIds(node.messages).length === 2);
    const updates = taskIds(node.messages).map((taskId) => ({ taskId, status: { state: TaskState.RUNNING } }));
    const { nodeId, sessionId } = node;
    const { refused } = await within("report", node.client.updateTaskStatus({ nodeId, sessionId, updates }));
    expect(refused).toEqual([]);
    const { services } = await within("list", control.listServices({}));
    expect(services[0]).toMatchObject({ runningTasks: 2n, desiredTasks: 2n });
  });

  test("the leader stops: the other manager leads, and takes the agents over", async () => {
    const { start, agent, until } = world();
    const first = await start("m1", 1);
    await until("m1 leads", () => first.view.leader?.managerId === first.managerId);
    const second = await start("m2", 2);
    const node = await agent("m1");
    await until("node ready", () => second.view.nodes.get(node.nodeId)?.status?.state === NodeStatus_State.READY);
    await first.stop();
    await until("agent hears of it", () => node.ended.length > 0);
    expect(node.ended[0]).toMatchObject({ code: "unavailable" });
    await until("m2 leads", () => second.view.leader?.managerId === second.managerId);
    expect(second.view.managers.has(first.managerId)).toBe(false);
    expect(second.view.sessions.has(node.nodeId)).toBe(false);
    const again = await agent("m2", node.nodeId);
    await until("assignments of the new epoch", () => again.messages.length > 0);
    expect(again.messages[0]?.epoch).toBe(BigInt(second.view.leader?.epoch ?? 0));
    expect(second.view.nodes.get(node.nodeId)?.status?.state).toBe(NodeStatus_State.READY);
  });

  test("an agent that falls silent is DOWN within seconds", async () => {
    const { start, agent, until } = world();
    const { view } = await start("m1", 1);
    const node = await agent("m1");
    const state = () => view.nodes.get(node.nodeId)?.status?.state;
    await until("node ready", () => state() === NodeStatus_State.READY);
    node.stop.abort();
    await until("node down", () => state() === NodeStatus_State.DOWN, 12_000);
  });

  test("a manager that lost its lease ends its sessions and registers again", async () => {
    const { start, agent, until, kv, within } = world();
    const one = await start("m1", 1);
    const node = await agent("m1");
    const { signal } = new AbortController();
    const { entries } = await kv.range({ from: { key: `/swarm/manager/${one.managerId}` }, limit: 1 }, signal);
    const lease = entries[0]?.lease;
    if (!lease) throw new Error("no lease");
    const before = one.view.version("manager", one.managerId);
    await within("revoke", kv.leaseRevoke(lease, signal));
    await until("session over", () => node.ended.length > 0);
    await until("registered again", () => (one.view.version("manager", one.managerId) ?? 0n) > (before ?? 0n));
    const again = await agent("m1", node.nodeId);
    await until("assignments", () => again.messages.length > 0);
  });
});
