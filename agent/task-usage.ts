/** What containers use now: their cgroups' numbers and their links', as one answer to a manager's question. */
import { create } from "@bufbuild/protobuf";
import type { Clock } from "../common/base/clock.ts";
import type { TaskId } from "../common/base/id.ts";
import {
  type TaskUsage,
  TaskUsageSchema,
  type TransferredBytes,
  TransferredBytesSchema,
} from "../proto/gen/swarm/v1/control_pb.js";
import type { CgroupManager } from "./cgroup/manager.ts";
import { type LinkBytes, readLinkCounters, taskTraffic } from "./network/link-counters.ts";

/** Containers that are read in one turn of the event loop: about 3 ms. */
const PER_TURN = 16;

/** Where the numbers come from. */
export interface UsageSource {
  readonly clock: Clock;
  readonly cgroups: CgroupManager;
  /** The node's: what a container without a limit of its own may use. */
  readonly memoryBytes: number;
}

/** See `Executor.usage`. */
export async function readTaskUsage(
  source: UsageSource,
  taskIds: readonly TaskId[],
  signal: AbortSignal,
): Promise<readonly TaskUsage[]> {
  const links = await readLinkCounters();
  const read: TaskUsage[] = [];
  for (const [index, taskId] of taskIds.entries()) {
    if (index % PER_TURN === PER_TURN - 1) await source.clock.sleep(0, signal);
    const usage = usageOf(source, taskId, taskTraffic(links, taskId));
    if (usage) read.push(usage);
  }
  return read;
}

function usageOf(
  { clock, cgroups, memoryBytes }: UsageSource,
  taskId: TaskId,
  traffic: LinkBytes | undefined,
): TaskUsage | undefined {
  const monotonicNanos = BigInt(Math.round(clock.monotonicMs() * 1e6));
  const stats = cgroups.stats(taskId);
  if (!stats) return undefined;
  const { block } = stats;
  return create(TaskUsageSchema, {
    taskId,
    monotonicNanos,
    cpuNanos: BigInt(stats.cpuNanos),
    memoryBytes: BigInt(stats.memoryBytes),
    memoryLimitBytes: BigInt(Math.min(stats.memoryLimitBytes ?? memoryBytes, memoryBytes)),
    pids: BigInt(stats.pids),
    ...(traffic && { network: transferred(traffic.receivedBytes, traffic.sentBytes) }),
    ...(block && { block: transferred(block.readBytes, block.writeBytes) }),
  });
}

function transferred(into: number, out: number): TransferredBytes {
  return create(TransferredBytesSchema, { in: BigInt(into), out: BigInt(out) });
}
