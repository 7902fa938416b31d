import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Kv, WatchEvent, WatchStep } from "../../manager/store/kv.ts";
import { readPages } from "../../manager/store/kv.ts";

/** A store to be held to the contract. */
export interface KvUnderTest extends AsyncDisposable {
  readonly kv: Kv;
  compact(revision: number): Promise<void>;
  /** Lets this much time pass for leases. */
  pass(delayMs: number): Promise<void>;
}

const signal = new AbortController().signal;
const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array) => new TextDecoder().decode(value);

/** Goal: every `Kv` behaves like etcd. Method: the same script against each, on keys of each test's own. */
export function describeKv(name: string, open: () => Promise<KvUnderTest>): void {
  describe(`${name} keeps the contract of Kv`, () => {
    let under: KvUnderTest;
    let kv: Kv;
    beforeAll(async () => {
      under = await open();
      kv = under.kv;
    });
    afterAll(async () => {
      await under[Symbol.asyncDispose]();
    });

    const put = async (key: string, value: string) =>
      (await kv.txn({ compare: [], operations: [{ type: "put", key, value: bytes(value) }] }, signal)).revision;
    const remove = async (key: string) =>
      (await kv.txn({ compare: [], operations: [{ type: "delete", key }] }, signal)).revision;
    const get = async (key: string, revision?: number) =>
      (await kv.range({ from: { key }, limit: 1, ...(revision === undefined ? {} : { revision }) }, signal)).entries[0];

    test("a key has a create and a mod revision, and begins anew after its deletion", async () => {
      const first = await put("/a/key", "one");
      expect(await get("/a/key")).toMatchObject({ createRevision: first, modRevision: first, lease: undefined });
      const second = await put("/a/key", "two");
      expect(second).toBe(first + 1);
      expect(await get("/a/key")).toMatchObject({ createRevision: first, modRevision: second });
      expect(text((await get("/a/key", first))?.value ?? bytes(""))).toBe("one");
      const gone = await remove("/a/key");
      expect(gone).toBe(second + 1);
      expect(await get("/a/key")).toBeUndefined();
      expect(await remove("/a/key"), "deleting nothing makes no revision").toBe(gone);
      const again = await put("/a/key", "three");
      expect(await get("/a/key")).toMatchObject({ createRevision: again, modRevision: again });
    });

    test("a range goes in key order, in pages, at one revision", async () => {
      for (const key of ["/b/3", "/b/1", "/bb", "/b/2"]) await put(key, key);
      const page = await kv.range({ from: { prefix: "/b/" }, limit: 2 }, signal);
      expect(page.entries.map(({ key }) => key)).toEqual(["/b/1", "/b/2"]);
      expect(page.more).toBe(true);
      await put("/b/4", "late");
      const rest = await kv.range(
        { from: { prefix: "/b/", after: "/b/2" }, limit: 2, revision: page.revision, keysOnly: true },
        signal,
      );
      expect(rest.entries.map(({ key, value }) => [key, value.length])).toEqual([["/b/3", 0]]);
      expect(rest.more).toBe(false);
    });

    test("1,200 keys are read in pages that share a revision", async () => {
      for (let from = 0; from < 1200; from += 100) {
        const operations = Array.from({ length: 100 }, (_, index) => ({
          type: "put" as const,
          key: `/pages/${String(from + index).padStart(5, "0")}`,
          value: bytes("x"),
        }));
        await kv.txn({ compare: [], operations }, signal);
      }
      const pages = [];
      for await (const page of readPages(kv, { prefix: "/pages/" }, signal)) pages.push(page);
      expect(pages.map(({ entries }) => entries.length)).toEqual([500, 700]);
      expect(new Set(pages.map(({ revision }) => revision)).size).toBe(1);
    });

    test("a transaction is made wholly or not at all, and tells what stood in its way", async () => {
      const revision = await put("/c/here", "1");
      const operations = [
        { type: "put", key: "/c/new", value: bytes("n") },
        { type: "delete", key: "/c/here" },
      ] as const;
      const compare = [
        { key: "/c/new", modRevision: 0 },
        { key: "/c/here", modRevision: revision + 1 },
      ];
      const refused = await kv.txn({ compare, operations }, signal);
      expect(refused).toMatchObject({ succeeded: false, found: [undefined, { modRevision: revision }] });
      expect(refused.succeeded ? undefined : refused.found[1]?.value).toHaveLength(0);
      expect(await get("/c/new")).toBeUndefined();
      const fenced = [...compare.slice(0, 1), { key: "/c/here", createRevision: revision }];
      const made = await kv.txn({ compare: fenced, operations }, signal);
      expect(made).toEqual({ succeeded: true, revision: made.revision });
      expect(await get("/c/new")).toMatchObject({ modRevision: made.revision });
      expect(await get("/c/here")).toBeUndefined();
    });

    test("a transaction above the limits is refused", async () => {
      const many = Array.from({ length: 129 }, (_, index) => ({
        type: "put" as const,
        key: `/d/${index}`,
        value: bytes("x"),
      }));
      const twice = [many[0], many[0]].filter((operation) => operation !== undefined);
      const large = [{ type: "put", key: "/d/large", value: new Uint8Array(1.6 * 1024 * 1024) }] as const;
      for (const operations of [many, twice, large]) {
        await expect(kv.txn({ compare: [], operations }, signal)).rejects.toMatchObject({ code: "invalid_argument" });
      }
      expect(await get("/d/0")).toBeUndefined();
    });

    test("a watch sees every change from its revision on, in order, revisions whole", async () => {
      const before = await put("/e/1", "before");
      const seen = collect(kv, "/e/", before + 1);
      await kv.txn(
        {
          compare: [],
          operations: [
            { type: "put", key: "/e/2", value: bytes("two") },
            { type: "delete", key: "/e/1" },
            { type: "put", key: "/elsewhere", value: bytes("no") },
          ],
        },
        signal,
      );
      await put("/e/3", "three");
      const events = await seen.until((all) => all.length >= 3);
      expect(events.map((event) => [event.type, event.key, event.modRevision - before])).toEqual([
        ["put", "/e/2", 1],
        ["delete", "/e/1", 1],
        ["put", "/e/3", 2],
      ]);
      await seen.stop();
    });

    test("a watch that starts 2,500 revisions behind misses nothing", async () => {
      const before = (await kv.range({ from: { key: "/f" }, limit: 1 }, signal)).revision;
      for (let done = 0; done < 2500; done += 50) {
        await Promise.all(Array.from({ length: 50 }, (_, index) => put(`/f/${(done + index) % 7}`, "x")));
      }
      const seen = collect(kv, "/f/", before + 1);
      const events = await seen.until((all) => all.length >= 2500);
      expect(events.map(({ modRevision }) => modRevision - before)).toEqual(
        Array.from({ length: 2500 }, (_, index) => index + 1),
      );
      await seen.stop();
    });

    test("a compacted watch says so and ends; a compacted read is out of range", async () => {
      const first = await put("/g/1", "x");
      await put("/g/1", "y");
      const last = await put("/g/1", "z");
      await under.compact(last);
      const steps: WatchStep[] = [];
      for await (const step of kv.watch({ prefix: "/g/", fromRevision: first }, signal)) steps.push(step);
      expect(steps).toEqual([{ type: "compacted", revision: last }]);
      await expect(get("/g/1", first)).rejects.toMatchObject({ code: "out_of_range" });
      expect(await get("/g/1", last)).toMatchObject({ modRevision: last });
    });

    test("an aborted watch ends with the abort's reason", async () => {
      const stop = new AbortController();
      const watch = kv.watch({ prefix: "/h/", fromRevision: 1_000_000 }, stop.signal)[Symbol.asyncIterator]();
      const next = watch.next();
      stop.abort();
      await expect(next).rejects.toMatchObject({ code: "canceled" });
    });

    test("a lease takes its keys with it, in one revision, unless it is renewed", async () => {
      const { lease, ttlMs } = await kv.leaseGrant(1000, signal);
      expect(ttlMs).toBe(2000);
      const operations = ["/i/1", "/i/2"].map((key) => ({ type: "put", key, value: bytes("x"), lease }) as const);
      const { revision } = await kv.txn({ compare: [], operations }, signal);
      expect(await get("/i/1")).toMatchObject({ lease });
      const seen = collect(kv, "/i/", revision + 1);
      for (let round = 0; round < 2; round++) {
        await under.pass(1200);
        expect(await kv.leaseKeepAlive(lease, signal)).toEqual({ ttlMs });
      }
      expect(await get("/i/1")).toBeDefined();
      await under.pass(ttlMs + 200);
      const events = await seen.until((all) => all.length >= 2);
      expect(events.map(({ type }) => type)).toEqual(["delete", "delete"]);
      expect(new Set(events.map(({ modRevision }) => modRevision)).size).toBe(1);
      expect(await kv.leaseKeepAlive(lease, signal)).toBeUndefined();
      await seen.stop();
    });

    test("a revoked lease is gone at once; a key put without it stays", async () => {
      const { lease } = await kv.leaseGrant(60_000, signal);
      const leased = (key: string) => ({ type: "put", key, value: bytes("x"), lease }) as const;
      await kv.txn({ compare: [], operations: [leased("/j/1"), leased("/j/2")] }, signal);
      await put("/j/2", "without");
      await kv.leaseRevoke(lease, signal);
      expect(await get("/j/1")).toBeUndefined();
      expect(await get("/j/2")).toMatchObject({ lease: undefined });
      await kv.leaseRevoke(lease, signal);
      await expect(kv.txn({ compare: [], operations: [leased("/j/3")] }, signal)).rejects.toMatchObject({
        code: "not_found",
      });
    });
  });
}

/** Reads a watch in the background. */
function collect(kv: Kv, prefix: string, fromRevision: number) {
  const stop = new AbortController();
  const events: WatchEvent[] = [];
  let check = () => {};
  const reading = (async () => {
    for await (const step of kv.watch({ prefix, fromRevision }, stop.signal)) {
      if (step.type === "events") events.push(...step.events);
      check();
    }
  })().catch((reason) => {
    if (!stop.signal.aborted) throw reason;
  });
  return {
    until(enough: (events: readonly WatchEvent[]) => boolean): Promise<readonly WatchEvent[]> {
      const { promise, resolve } = Promise.withResolvers<readonly WatchEvent[]>();
      check = () => {
        if (enough(events)) resolve(events);
      };
      check();
      return promise;
    },
    async stop(): Promise<void> {
      stop.abort();
      await reading;
    },
  };
}
