import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { FakeClock, settle } from "../../common/base/fake-clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { seededRandom } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { ImageSchema, NodeSchema, SessionSchema, SpecVersionSchema } from "../../proto/gen/swarm/v1/objects_pb.js";
import { aService, aTask, testId } from "../../test/objects.ts";
import type { Change } from "./changes.ts";
import type { Kv, WatchStep } from "./kv.ts";
import { MemoryKv } from "./memory-kv.ts";
import { openStore } from "./open-store.ts";
import type { Store } from "./store.ts";

const { signal } = new AbortController();

async function world(wrap: (kv: MemoryKv) => Kv = (kv) => kv) {
  const clock = new FakeClock();
  const kv = new MemoryKv(clock);
  const scope = new Scope();
  const options = { clock, random: seededRandom(7), logger: silentLogger };
  const writer = await openStore({ ...options, kv }, scope);
  const reader = await openStore({ ...options, kv: wrap(kv) }, scope);
  return {
    clock,
    kv,
    writer,
    reader,
    view: reader.view,
    async [Symbol.asyncDispose]() {
      await scope[Symbol.asyncDispose]();
      kv[Symbol.dispose]();
    },
  };
}

async function addTasks(store: Store, count: number): Promise<void> {
  const tasks = Array.from({ length: count }, (_, index) => aTask({ slot: index + 1 }));
  await store.commit(
    tasks.map((object) => ({ type: "create", kind: "task", object }) as const),
    { signal },
  );
}

describe("the view", () => {
  test("holds objects as they were written, with the version they have and when", async () => {
    await using it = await world();
    const service = aService({ name: "web" });
    const { revision } = await it.writer.commit([{ type: "create", kind: "service", object: service }], { signal });
    await it.view.waitForRevision(revision, signal);
    const seen = it.view.serviceByName("web");
    expect(seen).toMatchObject({ id: service.id, meta: { version: BigInt(revision) } });
    expect(seen?.meta?.createdAt?.seconds).toBe(BigInt(Math.floor(it.clock.nowMs() / 1000)));
    expect(it.view.version("service", service.id)).toBe(BigInt(revision));
    expect(it.view.revision).toBe(revision);
  });

  test("finds tasks by service, slot and node, also after they moved", async () => {
    await using it = await world();
    const [serviceId, node1, node2] = [testId(), testId(), testId()];
    const first = aTask({ serviceId, slot: 1 });
    const second = aTask({ serviceId, slot: 1 });
    const global = aTask({ serviceId, slot: 0, nodeId: node2 });
    await it.writer.commit(
      [first, second, global].map((object) => ({ type: "create", kind: "task", object }) as const),
      {
        signal,
      },
    );
    const ids = (tasks: Iterable<{ readonly id: string }>) => [...tasks].map(({ id }) => id).sort();
    const { view } = it.writer;
    expect(ids(view.tasksOfService(serviceId))).toEqual([first.id, second.id, global.id].sort());
    expect(ids(view.tasksOfSlot(serviceId, 1))).toEqual([first.id, second.id].sort());
    expect(ids(view.tasksOfSlot(serviceId, node2))).toEqual([global.id]);
    const stored = view.tasks.get(first.id);
    expect(stored).toBeDefined();
    if (!stored) return;
    await it.writer.commit(
      [
        { type: "update", kind: "task", object: { ...stored, nodeId: node1 } },
        { type: "delete", kind: "task", id: second.id },
      ],
      { signal },
    );
    expect(ids(view.tasksOfSlot(serviceId, 1))).toEqual([first.id]);
    expect(ids(view.tasksOfNode(node1))).toEqual([first.id]);
    expect(ids(view.tasksOfNode(node2))).toEqual([global.id]);
    await it.writer.commit([{ type: "delete", kind: "task", id: first.id }], { signal });
    expect(ids(view.tasksOfNode(node1))).toEqual([]);
    expect([...view.slotsOfService(serviceId)]).toEqual([node2]);
  });

  test("finds spec versions, nodes by hostname, images by name, sessions by node", async () => {
    await using it = await world();
    const { view } = it.writer;
    const [serviceId, nodeId] = [testId(), testId()];
    const specs = [10n, 9n].map((version) => create(SpecVersionSchema, { serviceId, version }));
    const node = create(NodeSchema, { id: nodeId, description: { hostname: "alpha" } });
    const image = create(ImageSchema, { id: "a".repeat(64), names: ["docker.io/demo/web:1"] });
    const session = create(SessionSchema, { nodeId, sessionId: "s1" });
    await it.writer.commit(
      [
        ...specs.map((object) => ({ type: "create", kind: "spec", object }) as const),
        { type: "create", kind: "node", object: node },
        { type: "create", kind: "image", object: image },
        { type: "create", kind: "session", object: session },
      ],
      { signal },
    );
    expect(view.specVersions(serviceId).map(({ version }) => version)).toEqual([9n, 10n]);
    expect(view.specVersion(serviceId, 9n)?.serviceId).toBe(serviceId);
    expect(view.nodesByHostname("alpha").map(({ id }) => id)).toEqual([nodeId]);
    expect(view.imageByName("docker.io/demo/web:1")?.id).toBe(image.id);
    expect(view.sessions.get(nodeId)?.sessionId).toBe("s1");
    const version = view.version("session", nodeId);
    const renewed = { ...session, sessionId: "s2" };
    const update = { type: "update", kind: "session", object: renewed, version } as const;
    expect((await it.writer.commit([update], { signal })).conflicts).toEqual([]);
    expect((await it.writer.commit([update], { signal })).conflicts).toEqual([update]);
  });

  test("leaves out what it cannot read", async () => {
    await using it = await world();
    const id = testId();
    const operations = [
      { type: "put", key: `/swarm/task/${id}`, value: new Uint8Array([255, 255]) },
      { type: "put", key: "/swarm/pod/x", value: new Uint8Array() },
    ] as const;
    const { revision } = await it.kv.txn({ compare: [], operations }, signal);
    await it.view.waitForRevision(revision, signal);
    expect(it.view.tasks.size).toBe(0);
  });
});

describe("changes", () => {
  test("start at the call, and melt into one per object while the reader is slow", async () => {
    await using it = await world();
    const stop = new AbortController();
    const changes = it.writer.view.changes(stop.signal)[Symbol.asyncIterator]();
    const task = aTask();
    const gone = aTask();
    await it.writer.commit([{ type: "create", kind: "task", object: task }], { signal });
    await it.writer.commit([{ type: "create", kind: "task", object: gone }], { signal });
    for (let round = 0; round < 3; round++) {
      const object = it.writer.view.tasks.get(task.id);
      if (object)
        await it.writer.commit([{ type: "update", kind: "task", object: { ...object, address: `${round}` } }], {
          signal,
        });
    }
    await it.writer.commit([{ type: "delete", kind: "task", id: gone.id }], { signal });
    const batch = await changes.next();
    expect(batch.value).toMatchObject([{ kind: "task", id: task.id, before: undefined, after: { address: "2" } }]);
    const next = changes.next();
    await it.writer.commit([{ type: "delete", kind: "task", id: task.id }], { signal });
    expect((await next).value).toMatchObject([{ id: task.id, before: { address: "2" }, after: undefined }]);
    const last = changes.next();
    stop.abort();
    await expect(last).rejects.toMatchObject({ code: "canceled" });
  });
});

describe("the mirror", () => {
  test("lists thousands of objects and catches up with thousands of revisions", async () => {
    await using it = await world();
    await addTasks(it.writer, 1200);
    const scope = new Scope();
    await using _ = scope;
    const late = await openStore({ ...it, random: seededRandom(1), logger: silentLogger }, scope);
    expect(late.view.tasks.size).toBe(1200);
    for (let round = 0; round < 2500; round++) {
      const operations = [{ type: "delete", key: `/swarm/task/${[...it.view.tasks.keys()][round % 7]}` }] as const;
      await it.kv.txn({ compare: [], operations }, signal);
    }
    await late.view.waitForRevision(it.kv.revision, signal);
    expect([...late.view.tasks.keys()].sort()).toEqual([...it.view.tasks.keys()].sort());
  });

  test("whose watch was compacted lists again and tells the difference", async () => {
    const gate = new Gate();
    await using it = await world((kv) => gated(kv, gate));
    const [kept, changed, removed] = [aTask(), aTask(), aTask()];
    const creates = [kept, changed, removed].map((object) => ({ type: "create", kind: "task", object }) as const);
    const { revision } = await it.writer.commit(creates, { signal });
    await it.view.waitForRevision(revision, signal);
    const keptObject = it.view.tasks.get(kept.id);
    const changes = it.view.changes(signal)[Symbol.asyncIterator]();
    gate.close();
    const object = it.writer.view.tasks.get(changed.id);
    const added = aTask();
    await it.writer.commit(
      [
        { type: "create", kind: "task", object: added },
        { type: "delete", kind: "task", id: removed.id },
        ...(object ? [{ type: "update", kind: "task", object: { ...object, address: "new" } } as const] : []),
      ],
      { signal },
    );
    await addTasks(it.writer, 50);
    it.kv.compact(it.kv.revision);
    gate.open();
    await it.view.waitForRevision(it.kv.revision, signal);
    expect(it.view.tasks.get(kept.id)).toBe(keptObject);
    const batch: readonly Change[] = (await changes.next()).value ?? [];
    expect(batch).toHaveLength(53);
    const byId = new Map(batch.map((change) => [change.id, change] as const));
    expect(byId.get(removed.id)).toMatchObject({ before: { id: removed.id }, after: undefined });
    expect(byId.get(changed.id)).toMatchObject({ before: { address: "" }, after: { address: "new" } });
  });

  test("finds within ten minutes that its watch lost an event", async () => {
    const lost = aTask();
    await using it = await world((kv) => losing(kv, lost.id));
    await it.writer.commit([{ type: "create", kind: "task", object: lost }], { signal });
    await addTasks(it.writer, 3);
    await it.view.waitForRevision(it.kv.revision, signal);
    expect(it.view.tasks.has(lost.id)).toBe(false);
    await it.clock.advance(10 * 60_000);
    await settle();
    expect(it.view.tasks.has(lost.id)).toBe(true);
  });

  test("ends when the store went back in time", async () => {
    const clock = new FakeClock();
    const before = new MemoryKv(clock);
    const after = new MemoryKv(clock);
    const current: { kv: Kv } = { kv: before };
    const swapping: Kv = delegate(() => current.kv);
    const scope = new Scope();
    const store = await openStore({ kv: swapping, clock, random: seededRandom(1), logger: silentLogger }, scope);
    await addTasks(store, 150);
    current.kv = after;
    await clock.advance(10 * 60_000);
    await expect(scope.join()).rejects.toMatchObject({ code: "data_loss" });
  });
});

class Gate {
  #closed = Promise.resolve();
  #open = () => {};

  close(): void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#closed = promise;
    this.#open = resolve;
  }

  open(): void {
    this.#open();
  }

  pass(): Promise<void> {
    return this.#closed;
  }
}

function delegate(kv: () => Kv): Kv {
  return {
    range: (request, until) => kv().range(request, until),
    txn: (request, until) => kv().txn(request, until),
    watch: (request, until) => kv().watch(request, until),
    leaseGrant: (ttlMs, until) => kv().leaseGrant(ttlMs, until),
    leaseKeepAlive: (lease, until) => kv().leaseKeepAlive(lease, until),
    leaseRevoke: (lease, until) => kv().leaseRevoke(lease, until),
  };
}

/** A store whose watches break, and cannot be opened, while the gate is closed. */
function gated(kv: MemoryKv, gate: Gate): Kv {
  return {
    ...delegate(() => kv),
    async *watch(request, until): AsyncGenerator<WatchStep, void, undefined> {
      let { fromRevision } = request;
      while (true) {
        await gate.pass();
        for await (const step of kv.watch({ ...request, fromRevision }, until)) {
          if (await isClosed(gate)) break;
          if (step.type === "events") fromRevision = step.revision + 1;
          yield step;
          if (step.type === "compacted") return;
        }
      }
    },
  };
}

async function isClosed(gate: Gate): Promise<boolean> {
  return Promise.race([gate.pass().then(() => false), settle().then(() => true)]);
}

/** A store whose watch never tells of one object. */
function losing(kv: MemoryKv, id: string): Kv {
  return {
    ...delegate(() => kv),
    async *watch(request, until): AsyncGenerator<WatchStep, void, undefined> {
      for await (const step of kv.watch(request, until)) {
        yield step.type === "events" ? { ...step, events: step.events.filter(({ key }) => !key.endsWith(id)) } : step;
      }
    },
  };
}
