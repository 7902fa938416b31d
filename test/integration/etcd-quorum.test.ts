import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "../../common/base/clock.ts";
import { silentLogger } from "../../common/base/logger.ts";
import { systemRandom } from "../../common/base/random.ts";
import { EtcdKv } from "../../manager/store/etcd-kv.ts";
import type { WatchEvent } from "../../manager/store/kv.ts";
import { eventually } from "../eventually.ts";

const { signal } = new AbortController();
const NAMES = ["a", "b", "c"] as const;
type Name = (typeof NAMES)[number];

/** Goal: fault F12 and F13. Method: three etcd members on unix sockets in one directory; kill some, start them again. */
describe("an etcd of three members", () => {
  let directory: string;
  const members = new Map<Name, ChildProcess>();
  let kv: EtcdKv;

  const start = async (name: Name) => {
    // Left by a killed member; the next one would take it for an address in use.
    await rm(join(directory, `client-${name}:1`), { force: true });
    const peers = NAMES.map((each) => `${each}=unix://peer-${each}:1`).join(",");
    const args = [
      ["--name", name, "--data-dir", join(directory, name), "--initial-cluster", peers],
      ["--listen-client-urls", `unix://client-${name}:1`, "--advertise-client-urls", `unix://client-${name}:1`],
      ["--listen-peer-urls", `unix://peer-${name}:1`, "--initial-advertise-peer-urls", `unix://peer-${name}:1`],
      ["--logger", "zap", "--log-level", "fatal"],
    ];
    members.set(name, spawn("etcd", args.flat(), { cwd: directory, stdio: "ignore" }));
  };
  const kill = async (name: Name) => {
    const child = members.get(name);
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((exited) => child.once("exit", exited));
    child.kill("SIGKILL");
    await ended;
  };
  const put = (key: string) =>
    kv.txn({ compare: [], operations: [{ type: "put", key, value: Buffer.from("x") }] }, signal);

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "swarm-quorum-"));
    for (const name of NAMES) await start(name);
    const endpoints = NAMES.map((name) => `unix:${join(directory, `client-${name}:1`)}`);
    kv = new EtcdKv({ endpoints, clock: systemClock, random: systemRandom, logger: silentLogger });
    await eventually(() => put("/ready"), { timeoutMs: 20_000 });
  });
  afterEach(async () => {
    kv[Symbol.dispose]();
    for (const name of NAMES) await kill(name);
    await rm(directory, { recursive: true });
  });

  test("goes on without one; without two it says unavailable in 5 s; then recovers by itself, no event lost", async () => {
    const { revision } = await put("/start");
    const seen: WatchEvent[] = [];
    const stop = new AbortController();
    const watching = (async () => {
      for await (const step of kv.watch({ prefix: "/k/", fromRevision: revision + 1 }, stop.signal)) {
        if (step.type === "events") seen.push(...step.events);
      }
    })().catch((reason) => {
      if (!stop.signal.aborted) throw reason;
    });
    await put("/k/1");
    await kill("a");
    await eventually(() => put("/k/2"), { timeoutMs: 20_000 });
    await eventually(() => expect(seen.at(-1)?.key).toBe("/k/2"), { timeoutMs: 20_000 });
    await kill("b");
    const startMs = performance.now();
    await expect(put("/k/3")).rejects.toMatchObject({ code: "unavailable" });
    await expect(kv.range({ from: { key: "/k/1" }, limit: 1 }, signal)).rejects.toMatchObject({ code: "unavailable" });
    expect(performance.now() - startMs).toBeLessThan(10_000);
    await start("a");
    await eventually(() => put("/k/4"), { timeoutMs: 30_000 });
    await eventually(() => expect(seen.at(-1)?.key).toBe("/k/4"), { timeoutMs: 20_000 });
    const revisions = seen.map(({ modRevision }) => modRevision);
    expect(revisions).toEqual([...new Set(revisions)].sort((left, right) => left - right));
    for (const key of ["/k/1", "/k/2", "/k/4"]) expect(seen.map((event) => event.key)).toContain(key);
    stop.abort();
    await watching;
  });
});
