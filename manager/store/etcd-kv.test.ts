import { mkdtemp, rm } from "node:fs/promises";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { startTestEtcd, type TestEtcd } from "../../test/etcd.ts";
import { eventually } from "../../test/eventually.ts";
import { EtcdKv } from "./etcd-kv.ts";
import { isOutcomeUnknown, type WatchEvent } from "./kv.ts";

const { signal } = new AbortController();
const put = (key: string, size = 1) => ({ type: "put", key, value: new Uint8Array(size).fill(65) }) as const;

/** Goal: the faults at etcd's border end in the right error, soon, and leave the client usable. */
describe("etcd's faults", () => {
  let etcd: TestEtcd;
  beforeAll(async () => {
    etcd = await startTestEtcd();
  });
  afterAll(async () => {
    await etcd[Symbol.asyncDispose]();
  });

  test("a stopped etcd: reads are unavailable and writes of unknown outcome within the deadline; then all goes on", async () => {
    using kv = new EtcdKv({ ...shared, endpoints: [etcd.endpoint], timeoutMs: 500 });
    const before = await kv.txn({ compare: [], operations: [put("/stop/1")] }, signal);
    const seen: WatchEvent[] = [];
    const stop = new AbortController();
    const watching = watchInto(kv, "/stop/", before.revision + 1, seen, stop.signal);
    process.kill(etcd.etcd.pid, "SIGSTOP");
    try {
      const startMs = performance.now();
      const read = kv.range({ from: { key: "/stop/1" }, limit: 1 }, signal);
      const write = kv.txn({ compare: [{ key: "/stop/2", modRevision: 0 }], operations: [put("/stop/2")] }, signal);
      const [readReason, writeReason] = await Promise.all([
        read.catch((reason) => reason),
        write.catch((reason) => reason),
      ]);
      expect(performance.now() - startMs).toBeLessThan(2_000);
      expect(readReason).toMatchObject({ code: "unavailable" });
      expect(isOutcomeUnknown(readReason)).toBe(false);
      expect(writeReason).toMatchObject({ code: "unavailable" });
      expect(isOutcomeUnknown(writeReason)).toBe(true);
    } finally {
      process.kill(etcd.etcd.pid, "SIGCONT");
    }
    await eventually(() => kv.txn({ compare: [], operations: [put("/stop/3")] }, signal));
    await eventually(() => expect(seen.map(({ key }) => key)).toContain("/stop/3"));
    expect(new Set(seen.map(({ modRevision }) => modRevision)).size, "no event twice").toBe(seen.length);
    stop.abort();
    await watching;
  });

  test("a watch that catches up over a connection that is cut again and again loses nothing and repeats nothing", async () => {
    const kv = etcd.connect();
    const { revision } = await kv.txn({ compare: [], operations: [put("/cut/0")] }, signal);
    for (let done = 0; done < 3000; done += 100) {
      await Promise.all(
        Array.from({ length: 100 }, (_, index) =>
          kv.txn({ compare: [], operations: [put(`/cut/${index % 9}`)] }, signal),
        ),
      );
    }
    await using proxy = await startCuttingProxy(etcd.endpoint.slice("unix:".length), { cuts: 6, afterBytes: 40_000 });
    using through = new EtcdKv({ ...shared, endpoints: [proxy.endpoint] });
    const seen: WatchEvent[] = [];
    const stop = new AbortController();
    const watching = watchInto(through, "/cut/", revision + 1, seen, stop.signal);
    await eventually(() => expect(seen).toHaveLength(3000));
    expect(seen.map(({ modRevision }) => modRevision - revision)).toEqual(
      Array.from({ length: 3000 }, (_, index) => index + 1),
    );
    expect(proxy.cutsMade()).toBeGreaterThanOrEqual(2);
    stop.abort();
    await watching;
  });

  test("an answer above the limit fails alone: the next call works at once", async () => {
    const kv = etcd.connect();
    for (let index = 0; index < 34; index++) {
      await kv.txn({ compare: [], operations: [put(`/large/${index}`, 1024 * 1024)] }, signal);
    }
    const large = kv.range({ from: { prefix: "/large/" }, limit: 1000 }, signal);
    await expect(large).rejects.toMatchObject({ code: "resource_exhausted" });
    await kv.txn({ compare: [], operations: [put("/after")] }, signal);
  });

  test("nobody there: unavailable, and a write is known not to have been made", async () => {
    using kv = new EtcdKv({ ...shared, endpoints: ["unix:/nonexistent/socket"] });
    const reason = await kv.txn({ compare: [], operations: [put("/x")] }, signal).catch((error) => error);
    expect(reason).toMatchObject({ code: "unavailable" });
    expect(isOutcomeUnknown(reason)).toBe(false);
  });

  test("forty calls and watches over one connection end with it", async () => {
    const kv = new EtcdKv({ ...shared, endpoints: [etcd.endpoint] });
    const stop = new AbortController();
    const watches = Array.from({ length: 20 }, () => watchInto(kv, "/none/", 1_000_000, [], stop.signal));
    await Promise.all(
      Array.from({ length: 20 }, (_, index) => kv.txn({ compare: [], operations: [put(`/many/${index}`)] }, signal)),
    );
    stop.abort();
    await Promise.all(watches);
    kv[Symbol.dispose]();
    await expect(kv.range({ from: { key: "/x" }, limit: 1 }, signal)).rejects.toMatchObject({ code: "unavailable" });
  });
});

describe("a full etcd", () => {
  test("refuses writes with the remedy; reads, deletes and leases work; after defragmentation writes do again", async () => {
    await using etcd = await startTestEtcd({ quotaBytes: 4 * 1024 * 1024 });
    const kv = etcd.connect();
    const { lease } = await kv.leaseGrant(60_000, signal);
    const fill = async () => {
      for (let index = 0; index < 20; index++) {
        await kv.txn({ compare: [], operations: [put(`/fill/${index}`, 1024 * 1024)] }, signal);
      }
    };
    await expect(fill()).rejects.toMatchObject({
      code: "resource_exhausted",
      message: expect.stringContaining("defragment"),
    });
    const page = await kv.range({ from: { prefix: "/fill/" }, limit: 100, keysOnly: true }, signal);
    expect(page.entries.length).toBeGreaterThan(0);
    expect(await kv.leaseKeepAlive(lease, signal)).toBeDefined();
    const operations = page.entries.map(({ key }) => ({ type: "delete", key }) as const);
    const { revision } = await kv.txn({ compare: [], operations }, signal);
    await kv.compact(revision, signal);
    await kv.defragment(signal);
    await kv.txn({ compare: [], operations: [put("/again")] }, signal);
  });
});

/** A way to etcd that is cut after so many bytes of answers, so many times. */
async function startCuttingProxy(target: string, options: { readonly cuts: number; readonly afterBytes: number }) {
  const directory = await mkdtemp(join(tmpdir(), "swarm-proxy-"));
  const path = join(directory, "socket");
  let cuts = 0;
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = createConnection({ path: target });
    let bytes = 0;
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        near.destroy();
        far.destroy();
      });
    }
    near.pipe(far);
    far.on("data", (chunk) => {
      bytes += chunk.length;
      if (bytes > options.afterBytes && cuts < options.cuts) {
        cuts += 1;
        near.destroy();
      } else near.write(chunk);
    });
  }).listen(path);
  await new Promise((listening) => server.once("listening", listening));
  return {
    endpoint: `unix:${path}`,
    cutsMade: () => cuts,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((closed) => server.close(closed));
      await rm(directory, { recursive: true });
    },
  };
}

const shared = { clock: systemClock, random: systemRandom, logger: silentLogger };

async function watchInto(kv: EtcdKv, prefix: string, fromRevision: number, into: WatchEvent[], until: AbortSignal) {
  try {
    for await (const step of kv.watch({ prefix, fromRevision }, until)) {
      if (step.type === "events") into.push(...step.events);
    }
  } catch (reason) {
    if (!until.aborted) throw reason;
  }
}
