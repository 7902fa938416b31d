/** A cluster of one node, from the command that a user types to the last byte of memory: ours, then Docker Swarm. */
import { DockerSide } from "./docker-side.ts";
import { besidePeer, type Figure } from "./figure.ts";
import { onFreshDisk } from "./fresh-disk.ts";
import { measureSide } from "./side.ts";
import { SwarmSide } from "./swarm-side.ts";

/** One after the other, never at the same time. */
export async function measureCluster({ peer }: { readonly peer: boolean }): Promise<readonly Figure[]> {
  const ours = await onFreshDisk(() => measureSide(() => SwarmSide.start()));
  return peer ? besidePeer(ours, await onFreshDisk(() => measureSide(() => DockerSide.start()))) : ours;
}
