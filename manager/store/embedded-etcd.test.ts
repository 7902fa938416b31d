import { spawn } from "node:child_process";
import { cp, mkdtemp, rename, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { eventually } from "../../test/eventually.ts";
import { EmbeddedEtcd } from "./embedded-etcd.ts";
import { EtcdKv } from "./etcd-kv.ts";

const { signal } = new AbortController();
const shared = { clock: systemClock, random: systemRandom, logger: silentLogger };

describe("the embedded etcd", () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "swarm-embedded-"));
  });
  afterEach(async () => {
    await rm(directory, { recursive: true, force: true });
  });
  const start = (clientPort?: number) =>
    EmbeddedEtcd.start({ directory, ...shared, ...(clientPort === undefined ? {} : { clientPort }) }, signal);

  test("keeps its data, for its owner only, over a stop and a start", async () => {
    const operations = [{ type: "put", key: "/kept", value: Buffer.from("yes") }] as const;
    {
      await using etcd = await start();
      using kv = new EtcdKv({ ...shared, endpoints: [etcd.endpoint] });
      await kv.txn({ compare: [], operations }, signal);
      expect((await stat(directory)).mode & 0o777).toBe(0o700);
      await expect(start(), "a second one on the directory").rejects.toThrow(/in use by the manager with pid/);
    }
    await using etcd = await start();
    using kv = new EtcdKv({ ...shared, endpoints: [etcd.endpoint] });
    const { entries } = await kv.range({ from: { key: "/kept" }, limit: 1 }, signal);
    expect(Buffer.from(entries[0]?.value ?? []).toString()).toBe("yes");
  });

  test("restored from a backup is noticed by whoever saw more (F14)", async () => {
    const operations = [{ type: "put", key: "/grows", value: Buffer.from("x") }] as const;
    const data = join(directory, "data");
    const first = await start();
    using kv = new EtcdKv({ ...shared, endpoints: [first.endpoint], timeoutMs: 1_000 });
    await kv.txn({ compare: [], operations }, signal);
    await first[Symbol.asyncDispose]();
    await cp(data, `${data}.backup`, { recursive: true });
    let last = 0;
    {
      await using _ = await start();
      for (let round = 0; round < 5; round++) {
        last = await eventually(async () => (await kv.txn({ compare: [], operations }, signal)).revision);
      }
    }
    const watch = kv
      .watch({ prefix: "/", fromRevision: last + 1 }, signal)
      [Symbol.asyncIterator]()
      .next();
    watch.catch(() => {});
    await rm(data, { recursive: true });
    await rename(`${data}.backup`, data);
    await using _ = await start();
    await expect(watch).rejects.toMatchObject({ code: "data_loss" });
    await expect(kv.range({ from: { key: "/grows" }, limit: 1 }, signal)).rejects.toThrow(/went back from revision/);
  });

  test("listens on a given loopback port; a taken one is named", async () => {
    const blocker = createServer().listen(0, "127.0.0.1");
    await new Promise((listening) => blocker.once("listening", listening));
    const address = blocker.address();
    const port = typeof address === "object" && address ? address.port : 0;
    await expect(start(port)).rejects.toThrow(`port ${port} is taken`);
    await new Promise((closed) => blocker.close(closed));
    await using etcd = await start(port);
    expect(etcd.endpoint).toBe(`127.0.0.1:${port}`);
  });

  test("says why it ended when it dies by itself, and starts again", async () => {
    {
      await using etcd = await start();
      process.kill(etcd.pid, "SIGKILL");
      expect(await etcd.exited).toMatchObject({ message: expect.stringContaining("etcd ended with SIGKILL") });
    }
    await using _ = await start();
  });

  test("says what is wrong with a spoilt data directory", async () => {
    await writeFile(join(directory, "data"), "not a directory");
    await expect(start()).rejects.toMatchObject({
      code: "failed_precondition",
      message: expect.stringContaining("etcd ended"),
    });
  });

  test("dies with a manager that is killed, and the next one takes over", async () => {
    const script = `
      import { EmbeddedEtcd } from ${JSON.stringify(new URL("embedded-etcd.ts", import.meta.url).href)};
      import { systemClock } from ${JSON.stringify(new URL("../../common/base/clock.ts", import.meta.url).href)};
      import { systemRandom } from ${JSON.stringify(new URL("../../common/base/random.ts", import.meta.url).href)};
      import { silentLogger as logger } from ${JSON.stringify(new URL("../../common/base/logger.ts", import.meta.url).href)};
      const options = { directory: ${JSON.stringify(directory)}, clock: systemClock, random: systemRandom, logger };
      const etcd = await EmbeddedEtcd.start(options, new AbortController().signal);
      console.log(etcd.pid);`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const etcdPid = Number(await new Promise((said) => child.stdout.once("data", said)));
    expect(etcdPid).toBeGreaterThan(1);
    const ended = new Promise((exited) => child.once("exit", exited));
    child.kill("SIGKILL");
    await ended;
    await using etcd = await start();
    expect(etcd.pid).not.toBe(etcdPid);
    await eventually(() => expect(() => process.kill(etcdPid, 0)).toThrow());
  });
});
