import type { TaskId } from "../common/base/id.ts";
import { removeContents } from "./container-contents.ts";
import { attachmentOf } from "./container-network.ts";
import type { AssignedTask } from "./executor.ts";
import { containerDirectory, contentsOf, type NodeRuntime } from "./node-runtime.ts";
import type { HostPath } from "./runtime/op.ts";

/**
 * Frees what a container held: whatever still runs in its cgroup, the cgroup, its link, its secrets and configs, its hold on volumes, and its writable layer. Logs and
 * the exit record stay until the directory is removed. Repeating it is harmless. The end of `prepare` is not awaited: call
 * it only when nothing makes the container.
 */
export async function releaseContainer(assigned: AssignedTask, node: NodeRuntime, signal: AbortSignal): Promise<void> {
  const { task } = assigned;
  const taskId = task.id as TaskId;
  await node.cgroups.remove(taskId, signal);
  const network = node.networkNow();
  if (network && (task.address !== "" || task.networks.length > 0))
    await network.detach(taskId, attachmentOf(assigned), signal);
  if (node.directories.contents !== undefined) removeContents(contentsOf(node.directories, taskId));
  await node.volumes.release(taskId, signal);
  const directory = containerDirectory(node.directories, taskId);
  for (const part of ["upper", "work"]) await node.runner.removeTree(`${directory}/${part}` as HostPath, signal);
}
