/** Goal: images go when no container names them, and never by guess. Method: records on disk, a stepped clock. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { expect, onTestFinished, test } from "vitest";
import { FakeClock } from "../common/base/fake-clock.ts";
import { silentLogger } from "../common/base/logger.ts";
import { Scope } from "../common/base/scope.ts";
import { eventually } from "../test/eventually.ts";
import { runImageCollector } from "./image-collector.ts";

const HOUR = 3_600_000;

async function collector(retentionMs: number) {
  const containers = await mkdtemp(`${tmpdir()}/swarm-collector-`);
  onTestFinished(() => rm(containers, { recursive: true }));
  const clock = new FakeClock();
  const calls: (readonly [readonly string[], number])[] = [];
  const images = {
    collect: async (inUse: ReadonlySet<string>, forMs: number) => void calls.push([[...inUse].sort(), forMs]),
  };
  const scope = new Scope();
  onTestFinished(() => scope[Symbol.asyncDispose]());
  const options = { clock, logger: silentLogger, images, containers, retentionMs };
  scope.spawn("collector", (signal) => runImageCollector(options, signal));
  const container = async (id: string, record: object | undefined) => {
    await mkdir(`${containers}/${id}`, { recursive: true });
    if (record) await writeFile(`${containers}/${id}/container.json`, JSON.stringify({ version: 1, ...record }));
  };
  return { clock, calls, container };
}

test("names what containers use, every hour at most", async () => {
  const { clock, calls, container } = await collector(24 * HOUR);
  await container("a", { image: "sha256:1" });
  await container("b", { image: "sha256:2" });
  await clock.advance(HOUR);
  await eventually(() => expect(calls).toEqual([[["sha256:1", "sha256:2"], 24 * HOUR]]));
});

test("keeps everything while a container does not say what it uses", async () => {
  const { clock, calls, container } = await collector(HOUR);
  await container("a", undefined);
  await clock.advance(HOUR / 4);
  await eventually(() => expect(clock.sleeping).toBe(1));
  expect(calls).toEqual([]);
  await container("a", { image: "sha256:1" });
  await clock.advance(HOUR / 4);
  await eventually(() => expect(calls).toEqual([[["sha256:1"], HOUR]]));
});

test("does nothing when images are kept for ever", async () => {
  const { clock, calls } = await collector(0);
  await clock.advance(48 * HOUR);
  expect([clock.sleeping, calls]).toEqual([0, []]);
});
