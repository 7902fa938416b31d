/** A cluster of one node, from the command that a user types to the last byte of memory: ours, then Docker Swarm. */
import { DockerSide } from "./docker-side.ts";
import { type BenchOptions, besidePeer, type Figure } from "./figure.ts";
import { onFreshDisk } from "./fresh-disk.ts";
import { measureMany, measureSide } from "./side.ts";
import { SwarmSide } from "./swarm-side.ts";

/** One after the other, never at the same time. `long`: 2,500 containers too, ours alone. */
export async function measureCluster({ peer, long }: BenchOptions): Promise<readonly Figure[]> {
  const ours = await onFreshDisk(() => measureSide(() => SwarmSide.start()));
  const many = long ? await onFreshDisk(() => measureMany(() => SwarmSide.start())) : [];
  const figures = peer ? besidePeer(ours, await onFreshDisk(() => measureSide(() => DockerSide.start()))) : ours;
  return [...figures, ...many];
}
