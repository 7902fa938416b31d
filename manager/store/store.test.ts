import { describe, expect, test } from "vitest";
import { SwarmError } from "../../common/base/error.ts";
import { FakeClock } from "../../common/base/fake-clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { seededRandom } from "../../common/base/random.ts";
import { Scope } from "../../common/base/scope.ts";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";
import { aService, aTask, testId } from "../../test/objects.ts";
import { LEADER_KEY } from "./keys.ts";
import { type Kv, outcomeUnknown, type TxnRequest, type TxnResult } from "./kv.ts";
import { MemoryKv } from "./memory-kv.ts";
import { openStore } from "./open-store.ts";
import type { Fence, Proposal } from "./proposal.ts";
import { Store } from "./store.ts";

const { signal } = new AbortController();

/** Goal: what `commit` says is what happened. Method: a store in memory, with faults put in front of its `txn`. */
async function world() {
  const clock = new FakeClock();
  const kv = new MemoryKv(clock);
  const scope = new Scope();
  const random = seededRandom(3);
  const store = await openStore({ kv, clock, random, logger: silentLogger }, scope);
  return {
    clock,
    kv,
    store,
    view: store.view,
    /** A store over the same view whose transactions pass through `txn`. */
    faulty(txn: (request: TxnRequest) => Promise<TxnResult>): Store {
      const front: Kv = {
        range: (request, until) => kv.range(request, until),
        txn,
        watch: (request, until) => kv.watch(request, until),
        leaseGrant: (ttlMs, until) => kv.leaseGrant(ttlMs, until),
        leaseKeepAlive: (lease, until) => kv.leaseKeepAlive(lease, until),
        leaseRevoke: (lease, until) => kv.leaseRevoke(lease, until),
      };
      return new Store({ kv: front, view: store.view, clock: { ...realSleep(clock) }, random });
    },
    async [Symbol.asyncDispose]() {
      await scope[Symbol.asyncDispose]();
      kv[Symbol.dispose]();
    },
  };
}

/** Back-off passes at once; only the order of things matters here. */
function realSleep(clock: FakeClock) {
  return {
    nowMs: () => clock.nowMs(),
    monotonicMs: () => clock.monotonicMs(),
    sleep: (delayMs: number, until?: AbortSignal) => clock.sleep(delayMs > 2000 ? delayMs : 0, until),
  };
}

const createTask = (object = aTask()): Proposal => ({ type: "create", kind: "task", object });

describe("commit", () => {
  test("of many proposals takes out only those in conflict, group by group", async () => {
    await using it = await world();
    const taken = aTask();
    await it.store.commit([createTask(taken)], { signal });
    const free = Array.from({ length: 250 }, () => createTask());
    const clash = createTask(aTask({ id: taken.id, address: "other" }));
    const companion = createTask();
    const groups = [...free.slice(0, 120), [companion, clash], ...free.slice(120)];
    const { conflicts, revision } = await it.store.commit(groups, { signal });
    expect(conflicts).toEqual([companion, clash]);
    expect(it.view.tasks.size).toBe(251);
    expect(it.view.revision).toBeGreaterThanOrEqual(revision);
    expect(it.kv.revision, "as few transactions as the limit allows").toBe(1 + 1 + 3);
  });

  test("refuses an update of what has changed since it was read", async () => {
    await using it = await world();
    const { id } = aTask();
    await it.store.commit([createTask(aTask({ id }))], { signal });
    const read = it.view.tasks.get(id);
    if (!read) throw new Error("not stored");
    const update = (state: TaskState): Proposal => ({
      type: "update",
      kind: "task",
      object: { ...read, desiredState: state },
    });
    expect((await it.store.commit([update(TaskState.RUNNING)], { signal })).conflicts).toEqual([]);
    const late = update(TaskState.SHUTDOWN);
    expect((await it.store.commit([late], { signal })).conflicts).toEqual([late]);
    expect(it.view.tasks.get(id)?.desiredState).toBe(TaskState.RUNNING);
    expect(it.view.tasks.get(id)?.meta?.createdAt).toEqual(read.meta?.createdAt);
    const remove: Proposal = { type: "delete", kind: "task", id, version: read.meta?.version };
    expect((await it.store.commit([remove], { signal })).conflicts).toEqual([remove]);
  });

  test("keeps names unique, and frees them", async () => {
    await using it = await world();
    const web = aService({ name: "web" });
    const create = (object = web): Proposal => ({ type: "create", kind: "service", object });
    await it.store.commit([create()], { signal });
    const second = it.store.commit([create(aService({ name: "web" })), createTask()], { signal });
    await expect(second).rejects.toThrow(`service name "web" is in use (${web.id})`);
    await expect(second).rejects.toMatchObject({ code: "already_exists" });
    expect(it.view.tasks.size, "the rest landed").toBe(1);
    await it.store.commit([{ type: "delete", kind: "service", id: web.id }], { signal });
    expect(it.view.serviceByName("web")).toBeUndefined();
    await it.store.commit([create(aService({ name: "web" }))], { signal });
    expect(it.view.serviceByName("web")).toBeDefined();
    const renamed = it.view.serviceByName("web");
    if (!renamed) throw new Error("not stored");
    const rename = it.store.commit([{ type: "update", kind: "service", object: { ...renamed, name: "shop" } }], {
      signal,
    });
    await expect(rename).rejects.toMatchObject({ code: "invalid_argument" });
  });

  test("never splits a group, and refuses one that is too large", async () => {
    await using it = await world();
    const many = Array.from({ length: 101 }, () => createTask());
    await expect(it.store.commit([many], { signal })).rejects.toMatchObject({ code: "invalid_argument" });
    const large = createTask(aTask({ address: "x".repeat(1024 * 1024) }));
    await expect(it.store.commit([large], { signal })).rejects.toMatchObject({ code: "invalid_argument" });
    const halves = Array.from({ length: 4 }, () => createTask(aTask({ address: "x".repeat(400 * 1024) })));
    expect((await it.store.commit(halves, { signal })).conflicts).toEqual([]);
    expect(it.kv.revision).toBe(1 + 2);
  });

  test("of a former leader writes nothing", async () => {
    await using it = await world();
    const elect = async () =>
      (
        await it.kv.txn(
          { compare: [], operations: [{ type: "put", key: LEADER_KEY, value: new Uint8Array() }] },
          signal,
        )
      ).revision;
    const fence = (epoch: number): Fence => ({ epoch, checkDeadline: () => {} });
    const first = fence(await elect());
    expect((await it.store.commit([createTask()], { fence: first, signal })).conflicts).toEqual([]);
    await it.kv.txn({ compare: [], operations: [{ type: "delete", key: LEADER_KEY }] }, signal);
    await expect(it.store.commit([createTask()], { fence: first, signal })).rejects.toMatchObject({ code: "aborted" });
    const second = fence(await elect());
    await expect(it.store.commit([createTask()], { fence: first, signal })).rejects.toThrow("leadership lost");
    await it.store.commit([createTask()], { fence: second, signal });
    expect(it.view.tasks.size).toBe(2);
  });
});

describe("commit whose answer is lost", () => {
  const lose = () => outcomeUnknown("write", new Error("connection reset"));

  test("is made once, whether or not the first try arrived", async () => {
    await using it = await world();
    for (const arrives of [true, false]) {
      let tries = 0;
      const store = it.faulty(async (request) => {
        tries += 1;
        if (tries > 1) return it.kv.txn(request, signal);
        if (arrives) await it.kv.txn(request, signal);
        throw lose();
      });
      const task = aTask();
      const { conflicts, revision } = await store.commit([createTask(task), createTask()], { signal });
      expect(conflicts).toEqual([]);
      expect(it.view.version("task", task.id)).toBe(BigInt(revision));
    }
    expect(it.kv.revision).toBe(1 + 2);
  });

  test("is known to have been made even when somebody changed the object since", async () => {
    await using it = await world();
    const task = aTask();
    let tries = 0;
    const store = it.faulty(async (request) => {
      tries += 1;
      if (tries > 1) return it.kv.txn(request, signal);
      const made = await it.kv.txn(request, signal);
      await it.view.waitForRevision(made.revision, signal);
      const object = it.view.tasks.get(task.id);
      if (object)
        await it.store.commit([{ type: "update", kind: "task", object: { ...object, address: "theirs" } }], { signal });
      throw lose();
    });
    expect((await store.commit([createTask(task)], { signal })).conflicts).toEqual([]);
    expect(it.view.tasks.get(task.id)?.address).toBe("theirs");
  });

  test("is a conflict when somebody else was first", async () => {
    await using it = await world();
    const task = aTask();
    let tries = 0;
    const store = it.faulty(async (request) => {
      tries += 1;
      if (tries > 1) return it.kv.txn(request, signal);
      await it.store.commit([createTask(aTask({ id: task.id, address: "theirs" }))], { signal });
      throw lose();
    });
    const proposal = createTask(task);
    expect((await store.commit([proposal], { signal })).conflicts).toEqual([proposal]);
  });

  test("stays unknown when the store stays away; a refusal is not tried again", async () => {
    await using it = await world();
    let tries = 0;
    const away = it.faulty(async () => {
      tries += 1;
      throw lose();
    });
    await expect(away.commit([createTask()], { signal })).rejects.toThrow("outcome unknown");
    expect(tries).toBe(6);
    const full = it.faulty(async () => {
      tries += 1;
      throw new SwarmError("resource_exhausted", "the store is full");
    });
    await expect(full.commit([createTask()], { signal })).rejects.toMatchObject({ code: "resource_exhausted" });
    expect(tries).toBe(7);
  });

  test("of deletions counts as made when all is gone", async () => {
    await using it = await world();
    const { id } = aTask();
    await it.store.commit([createTask(aTask({ id }))], { signal });
    let tries = 0;
    const store = it.faulty(async (request) => {
      tries += 1;
      const result = await it.kv.txn(request, signal);
      if (tries === 1) throw lose();
      return result;
    });
    const version = it.view.version("task", id);
    expect((await store.commit([{ type: "delete", kind: "task", id, version }], { signal })).conflicts).toEqual([]);
    expect(it.view.tasks.has(id)).toBe(false);
    const gone: Proposal = { type: "delete", kind: "task", id: testId(), version: 5n };
    expect((await it.store.commit([gone], { signal })).conflicts).toEqual([gone]);
  });
});
