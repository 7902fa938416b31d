/** The way into a running container's network namespace, for what is to be mended in it. */
import { type FileHandle, open } from "node:fs/promises";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import type { TaskNetlink } from "./network/link-mender.ts";
import { Runner } from "./runtime/runner.ts";
import type { Supervisor } from "./runtime/supervisor.ts";

/**
 * Netlink there, by a runner of its own until it is disposed; undefined when the container does not run. The namespace
 * is held by a descriptor before the supervisor is asked again: a pid is given to another process after its own has
 * ended.
 */
export async function enterTaskNetwork(
  supervisor: Supervisor,
  shimPath: string,
  signal: AbortSignal,
): Promise<TaskNetlink | undefined> {
  const before = await supervisor.state(signal);
  if (before.status !== "running") return undefined;
  const namespace = await openNamespace(before.pid);
  if (namespace === undefined) return undefined;
  try {
    const after = await supervisor.state(signal);
    if (after.pid !== before.pid) throw new SwarmError("aborted", "the container has ended");
  } catch (reason) {
    await namespace.close();
    throw reason;
  }
  const runner = new Runner(shimPath, `/proc/${process.pid}/fd/${namespace.fd}`);
  return {
    netlink: (protocol, message, inner) => runner.netlink(protocol, message, inner),
    async [Symbol.asyncDispose]() {
      await runner[Symbol.asyncDispose]();
      await namespace.close();
    },
  };
}

async function openNamespace(pid: number): Promise<FileHandle | undefined> {
  try {
    return await open(`/proc/${pid}/ns/net`, "r");
  } catch (reason) {
    if (errnoOf(reason) === "ENOENT") return undefined;
    throw SwarmError.wrap("enter a task's network", reason, "unavailable");
  }
}
