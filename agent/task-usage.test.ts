/**
 * Goal: what is told of a container is what it did: processor, memory, processes, network as it sees it, disks. Method: real
 * containers that do a known amount of each, and the numbers before and after.
 */
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, expect } from "vitest";
import type { TaskId } from "../common/base/id.ts";
import type { TaskUsage } from "../proto/gen/swarm/v1/control_pb.js";
import { ContainerSpecSchema, TaskSpecSchema, TaskState } from "../proto/gen/swarm/v1/types_pb.js";
import { eventually } from "../test/eventually.ts";
import { isRoot, rootTest } from "../test/privileges.ts";
import { TestNode } from "./test-node.ts";

const MiB = 1n << 20n;
const { signal } = new AbortController();
let node: TestNode;
beforeAll(async () => {
  if (isRoot) node = await TestNode.start();
});
afterAll(async () => {
  await node?.[Symbol.asyncDispose]();
});

function run(script: string, options: { readonly memoryBytes?: bigint; readonly network?: string } = {}): TaskId {
  const { memoryBytes, network } = options;
  return node.assign({
    spec: create(TaskSpecSchema, {
      container: create(ContainerSpecSchema, {
        ...{ image: "box:1", args: ["sh", "-c", script] },
        stopGracePeriod: durationFromMs(100),
      }),
      ...(memoryBytes !== undefined && { resources: { limits: { memoryBytes } } }),
      ...(network !== undefined && { networks: [{ target: network }] }),
    }),
  });
}

async function usage(id: TaskId): Promise<TaskUsage> {
  const [found] = await node.worker.usage([id], signal);
  if (!found) throw new Error(`task ${id} has no usage`);
  return found;
}

rootTest("a processor's time, memory and its limit, processes", async () => {
  const busy = run("while true; do :; done", { memoryBytes: 64n * MiB });
  const idle = run("sleep 1000 & sleep 1000 & wait");
  for (const id of [busy, idle]) await node.reaches(id, TaskState.RUNNING);
  const before = await usage(busy);
  await eventually(async () => {
    const after = await usage(busy);
    expect(after.cpuNanos - before.cpuNanos).toBeGreaterThan(100_000_000n);
    // One loop is one processor at most; the kernel counts in ticks.
    expect(
      Number(after.cpuNanos - before.cpuNanos) / Number(after.monotonicNanos - before.monotonicNanos),
    ).toBeLessThan(1.2);
  });
  expect(before).toMatchObject({ taskId: busy, memoryLimitBytes: 64n * MiB, pids: 1n });
  expect(before.memoryBytes).toBeGreaterThan(0n);
  const quiet = await usage(idle);
  expect(quiet.pids).toBe(3n);
  // Without a limit it is the node's memory.
  const description = await node.executor.describe();
  expect(quiet.memoryLimitBytes).toBe(description.resources?.memoryBytes);
});

rootTest("traffic is the container's own: what it sent, and what it received", async () => {
  const server = run("sleep 1000 | nc -l -p 80 > /dev/null");
  const alone = run("sleep 1000", { network: "host" });
  for (const id of [server, alone]) await node.reaches(id, TaskState.RUNNING);
  const send = `until dd if=/dev/zero bs=64k count=32 | nc ${node.addressOf(server)} 80; do sleep 0.1; done; sleep 1000`;
  const client = run(send);
  await node.reaches(client, TaskState.RUNNING);
  await eventually(async () => {
    expect((await usage(client)).network?.out).toBeGreaterThan(2n * MiB);
    expect((await usage(server)).network?.in).toBeGreaterThan(2n * MiB);
  });
  // Acknowledgements only.
  expect((await usage(client)).network?.in).toBeLessThan(MiB);
  expect((await usage(server)).network?.out).toBeLessThan(MiB);
  expect((await usage(alone)).network).toBeUndefined();
});

rootTest("what it wrote to a disk", async () => {
  const id = run("dd if=/dev/zero of=/big bs=1M count=8 conv=fsync && echo written; sleep 1000");
  await node.reaches(id, TaskState.RUNNING);
  await eventually(async () => expect(await node.logs(id)).toContain("written"));
  const { block } = await usage(id);
  // A node whose data lies on no disk has nothing to count.
  if (block && block.out > 0n) expect(block.out).toBeGreaterThanOrEqual(8n * MiB);
});

rootTest("nothing of tasks that are not here, that have ended, or that are none", async () => {
  const id = run("exit 0");
  await node.reaches(id, TaskState.COMPLETE);
  expect(await node.worker.usage([id, "z".repeat(25), "../../x", ""], signal)).toEqual([]);
});

rootTest("after a restart of the agent, as before", async () => {
  const id = run("sleep 1000");
  await node.reaches(id, TaskState.RUNNING);
  const before = await usage(id);
  await node.restart();
  const after = await usage(id);
  expect(after.cpuNanos).toBeGreaterThanOrEqual(before.cpuNanos);
  expect(after.network?.in).toBeGreaterThanOrEqual(before.network?.in ?? 0n);
});
