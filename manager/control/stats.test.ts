/**
 * Goal: a watch asks each node once a period over one stream, is not held up for long by a node that is silent, and takes to
 * nodes and tasks that come and go. Method: the real view, a stepped clock, and nodes that answer as a test wants.
 */
import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, expect, test } from "vitest";
import { abortable } from "../../common/base/clock.ts";
import { SwarmError } from "../../common/base/error.ts";
import { FakeClock, settle } from "../../common/base/fake-clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { seededRandom } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { untilAborted } from "../../common/base/until-aborted.ts";
import { toDuration } from "../../common/model/duration.ts";
import { WatchTaskStatsRequestSchema, type WatchTaskStatsResponse } from "../../proto/gen/swarm/v1/control_pb.js";
import { type AgentFrame, AgentFrameSchema, type ManagerFrame } from "../../proto/gen/swarm/v1/dispatcher_pb.js";
import { NodeSchema, SessionSchema, type Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { NodeStatus_State, TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import { aService, aTask, testId } from "../../test/objects.ts";
import { MemoryKv } from "../store/memory-kv.ts";
import { openStore } from "../store/open-store.ts";
import type { Store } from "../store/store.ts";
import type { ControlDependencies } from "./dependencies.ts";
import { watchTaskStats } from "./stats.ts";

const { signal } = new AbortController();

/** What a node does with its questions. */
interface PlayedNode {
  readonly id: string;
  /** Ids of the tasks in each question. */
  readonly asked: string[][];
  /** Streams opened, and open now. */
  opened: number;
  open: number;
  /** Does not answer until it resolves. */
  gate: Promise<void> | undefined;
  /** What the stream ends with, at the next question or at its opening. */
  failure: SwarmError | undefined;
  /** Tasks without a container. */
  readonly lost: Set<string>;
}

async function world() {
  const clock = new FakeClock();
  const kv = new MemoryKv(clock);
  const scope = new Scope();
  const store: Store = await openStore({ kv, clock, random: seededRandom(1), logger: silentLogger }, scope);
  const nodes = new Map<string, PlayedNode>();
  const service = aService({ name: "web" });
  await store.commit([{ type: "create", kind: "service", object: service }], { signal });
  async function* open(
    { nodeId, taskId }: { readonly nodeId: string; readonly taskId?: string },
    questions: AsyncIterable<ManagerFrame>,
    until: AbortSignal,
  ): AsyncGenerator<AgentFrame, void, undefined> {
    expect(taskId).toBeUndefined();
    const node = nodes.get(nodeId);
    if (!node) throw new Error("no such node");
    node.opened += 1;
    node.open += 1;
    try {
      for await (const { content } of untilAborted(questions, until)) {
        if (node.failure) throw node.failure;
        const taskIds = content.case === "stats" ? content.value.taskIds : [];
        node.asked.push(taskIds);
        if (node.gate) await abortable(node.gate, until);
        const tasks = taskIds.filter((id) => !node.lost.has(id)).map((id) => ({ taskId: id, pids: 1n }));
        yield create(AgentFrameSchema, { content: { case: "stats", value: { tasks } } });
      }
      // As the broker has it: that nothing more is asked does not end a stream.
      await abortable(new Promise<never>(() => {}), until);
    } finally {
      node.open -= 1;
    }
  }
  const dependencies = { store, clock, streams: { open } } as unknown as ControlDependencies;
  return {
    ...{ clock, store, service, nodes },
    async node(hostname: string): Promise<PlayedNode> {
      const id = testId();
      const node = { id, asked: [], opened: 0, open: 0, gate: undefined, failure: undefined, lost: new Set<string>() };
      nodes.set(id, node);
      const object = create(NodeSchema, { id, description: { hostname }, status: { state: NodeStatus_State.READY } });
      await store.commit(
        [
          { type: "create", kind: "node", object },
          { type: "create", kind: "session", object: create(SessionSchema, { nodeId: id, sessionId: "s" }) },
        ],
        { signal },
      );
      return node;
    },
    async task(node: PlayedNode, slot: number, init: Partial<Task> = {}): Promise<Task> {
      const status = { state: TaskState.RUNNING };
      const desired = { desiredState: TaskState.RUNNING, nodeId: node.id, serviceId: service.id };
      const task = aTask({ slot, status, ...desired, ...init } as Parameters<typeof aTask>[0]);
      await store.commit([{ type: "create", kind: "task", object: task }], { signal });
      return task;
    },
    async change({ id }: Task, init: Partial<Task>): Promise<void> {
      const object = { ...store.view.tasks.get(id), ...init } as Task;
      await store.commit([{ type: "update", kind: "task", object }], { signal });
    },
    watch(request: Parameters<typeof create<typeof WatchTaskStatsRequestSchema>>[1], until: AbortSignal = signal) {
      return watchTaskStats(dependencies, create(WatchTaskStatsRequestSchema, request), until);
    },
    async [Symbol.asyncDispose]() {
      await scope[Symbol.asyncDispose]();
      kv[Symbol.dispose]();
    },
  };
}

let it: Awaited<ReturnType<typeof world>>;
beforeEach(async () => {
  it = await world();
});
afterEach(() => it[Symbol.asyncDispose]());

/** The next round, letting `advanceMs` pass for it. */
async function next(watch: AsyncGenerator<WatchTaskStatsResponse>, advanceMs = 0): Promise<string> {
  const round = watch.next();
  round.catch(() => {});
  await it.clock.advance(advanceMs);
  const { value } = await round;
  return shown(value ?? undefined);
}

/** "web.1@node-1" for a task with usage, "web.1@node-1?" for one without, "node-2: down (web.2)". */
function shown(round: WatchTaskStatsResponse | undefined): string {
  if (!round) return "over";
  const tasks = round.tasks.map(({ name, nodeHostname, usage }) => `${name}@${nodeHostname}${usage ? "" : "?"}`);
  const out = round.unreachable.map(({ hostname, reason, taskNames }) => `${hostname}: ${reason} (${taskNames})`);
  return [...tasks.toSorted(), ...out.toSorted()].join(" ");
}

test("one stream a node, one question a period, however many tasks; all is closed with the watch", async () => {
  const [one, two] = [await it.node("node-1"), await it.node("node-2")];
  for (const slot of [1, 2, 3]) await it.task(slot === 3 ? two : one, slot);
  const watch = it.watch({ services: ["web"] });
  for (let round = 0; round < 5; round++) {
    expect(await next(watch, round === 0 ? 0 : 1_000)).toBe("web.1@node-1 web.2@node-1 web.3@node-2");
  }
  expect([one.opened, two.opened]).toEqual([1, 1]);
  expect(one.asked).toHaveLength(5);
  expect(new Set(one.asked.map((ids) => ids.length))).toEqual(new Set([2]));
  await watch.return?.(undefined);
  await settle();
  expect([one.open, two.open]).toEqual([0, 0]);
});

test("the period is the caller's", async () => {
  await it.task(await it.node("node-1"), 1);
  const watch = it.watch({ services: ["web"], period: toDuration(5_000) });
  await next(watch);
  const round = watch.next();
  let came = false;
  void round.then(() => {
    came = true;
  });
  await it.clock.advance(4_999);
  expect(came).toBe(false);
  await it.clock.advance(1);
  await round;
  await watch.return?.(undefined);
  for (const period of [toDuration(199), toDuration(3_600_001), toDuration(-1)]) {
    await expect(it.watch({ services: ["web"], period }).next()).rejects.toMatchObject({ code: "invalid_argument" });
  }
});

test("a silent node holds up a round, and is then left out; a late answer is not mixed with a newer one", async () => {
  const [one, two] = [await it.node("node-1"), await it.node("node-2")];
  await it.task(one, 1);
  await it.task(two, 2);
  const watch = it.watch({ services: ["web"] });
  expect(await next(watch)).toBe("web.1@node-1 web.2@node-2");
  const held = Promise.withResolvers<void>();
  two.gate = held.promise;
  // One period, and two seconds of waiting.
  expect(await next(watch, 3_000)).toBe("web.1@node-1 node-2: no answer (web.2)");
  expect(await next(watch, 3_000)).toBe("web.1@node-1 node-2: no answer (web.2)");
  // It was not asked again meanwhile.
  expect(two.asked).toHaveLength(2);
  two.gate = undefined;
  held.resolve();
  expect(await next(watch, 1_000)).toBe("web.1@node-1 web.2@node-2");
  await watch.return?.(undefined);
});

test("a stream that breaks is opened again at once; a node that cannot be opened is left alone for a while", async () => {
  const one = await it.node("node-1");
  await it.task(one, 1);
  const watch = it.watch({ services: ["web"] });
  await next(watch);
  one.failure = new SwarmError("unavailable", "lost node node-1: it broke");
  expect(await next(watch, 1_000)).toBe("node-1: lost node node-1: it broke (web.1)");
  expect(await next(watch, 1_000)).toBe("node-1: lost node node-1: it broke (web.1)");
  expect(one.opened).toBe(2);
  one.failure = undefined;
  for (let round = 0; round < 2; round++) expect(await next(watch, 1_000)).toContain("it broke");
  expect(one.opened).toBe(2);
  expect(await next(watch, 1_000)).toBe("web.1@node-1");
  expect(one.opened).toBe(3);
  await watch.return?.(undefined);
});

test("tasks and nodes come and go", async () => {
  const [one, two] = [await it.node("node-1"), await it.node("node-2")];
  const first = await it.task(one, 1);
  const watch = it.watch({ services: ["web"] });
  expect(await next(watch)).toBe("web.1@node-1");
  const second = await it.task(two, 2);
  expect(await next(watch, 1_000)).toBe("web.1@node-1 web.2@node-2");
  // Its container has gone, and the manager does not know yet.
  two.lost.add(second.id);
  expect(await next(watch, 1_000)).toBe("web.1@node-1 web.2@node-2?");
  await it.change(first, { status: { ...first.status, state: TaskState.COMPLETE } as Task["status"] & object });
  expect(await next(watch, 1_000)).toBe("web.2@node-2?");
  await settle();
  expect(one.open).toBe(0);
  await it.store.commit([{ type: "delete", kind: "session", id: two.id }], { signal });
  expect(await next(watch, 1_000)).toBe("node-2: not connected (web.2)");
  expect(two.open).toBe(0);
  // What should not run any more and cannot be seen is nobody's concern.
  await it.change(second, { desiredState: TaskState.SHUTDOWN });
  expect(await next(watch, 1_000)).toBe("");
  await watch.return?.(undefined);
});

test("a task is told of once, however it is named; a node that is named is told of without tasks", async () => {
  const [one, two] = [await it.node("node-1"), await it.node("node-2")];
  const task = await it.task(one, 1);
  const once = it.watch({ services: ["web"], tasks: ["web.1", task.id], nodes: ["node-1"] });
  expect(await next(once)).toBe("web.1@node-1");
  await once.return?.(undefined);
  await it.store.commit([{ type: "delete", kind: "session", id: two.id }], { signal });
  const named = it.watch({ nodes: ["node-1", "node-2"] });
  expect(await next(named)).toBe("web.1@node-1 node-2: not connected ()");
  await named.return?.(undefined);
  const everything = it.watch({});
  expect(await next(everything)).toBe("web.1@node-1");
  await everything.return?.(undefined);
});

test("what cannot be is said: bad names, tasks that do not run, too many nodes", async () => {
  const refused = (request: Parameters<typeof it.watch>[0]) => expect(it.watch(request).next()).rejects;
  await refused({ services: ["nonesuch"] }).toMatchObject({ code: "not_found", message: "no such service: nonesuch" });
  await refused({ nodes: ["nonesuch"] }).toMatchObject({ code: "not_found" });
  const node = await it.node("node-0");
  const idle = await it.task(node, 1, { status: { state: TaskState.FAILED } as Task["status"] & object });
  await refused({ tasks: [idle.id] }).toMatchObject({ message: `task ${idle.id} is not running: it is failed` });
  for (let slot = 1; slot <= 257; slot++) await it.task(await it.node(`n${slot}`), slot + 1);
  await refused({ services: ["web"] }).toMatchObject({
    code: "resource_exhausted",
    message: "stats of more than 256 nodes at once: name fewer",
  });
});

test("who leaves in the middle of a round ends its streams", async () => {
  const one = await it.node("node-1");
  await it.task(one, 1);
  one.gate = new Promise<void>(() => {});
  const leave = new AbortController();
  const round = it.watch({}, leave.signal).next();
  round.catch(() => {});
  await settle();
  expect(one.open).toBe(1);
  leave.abort(new SwarmError("canceled", "Ctrl-C"));
  await expect(round).rejects.toMatchObject({ code: "canceled" });
});
