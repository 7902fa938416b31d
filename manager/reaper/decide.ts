/** Which tasks and spec versions may be forgotten. */
import { isTerminal } from "../../common/model/task-state.ts";
import type { Service, Task } from "../../proto/gen/swarm/v1/objects_pb.js";
import { TaskState } from "../../proto/gen/swarm/v1/types_pb.js";

/**
 * The tasks of one service that go: those to be removed that hold nothing on any node, and in each slot the oldest dead
 * ones beyond the history limit. `isNodeGone` says whether a task's node was removed from the cluster for good.
 */
export function decideReaped(
  tasks: Iterable<Task>,
  options: { readonly historyLimit: number; readonly isNodeGone: (nodeId: string) => boolean },
): Task[] {
  const reaped: Task[] = [];
  const history = new Map<string, Task[]>();
  for (const task of tasks) {
    const state = task.status?.state ?? TaskState.NEW;
    const ended = isTerminal(state) || state < TaskState.ASSIGNED || options.isNodeGone(task.nodeId);
    if (!ended || task.desiredState <= TaskState.RUNNING) continue;
    if (task.desiredState >= TaskState.REMOVE) {
      reaped.push(task);
      continue;
    }
    const key = task.slot > 0 ? String(task.slot) : task.nodeId;
    const dead = history.get(key);
    if (dead) dead.push(task);
    else history.set(key, [task]);
  }
  for (const dead of history.values()) {
    if (dead.length <= options.historyLimit) continue;
    dead.sort((left, right) => Number(left.attempt - right.attempt));
    reaped.push(...dead.slice(0, dead.length - options.historyLimit));
  }
  return reaped;
}

/** Newest spec versions of a service that are kept as its history: more only fill the store, fewer cannot be gone back to. */
export const SPEC_HISTORY_LIMIT = 10;

/**
 * The spec versions of one service (oldest first) that go: all but the newest, those the service names, and those a task
 * names, dead ones too, since `service ps` shows what they ran. Of a service that is gone only its tasks' versions stay.
 */
export function decideTrimmedSpecs(
  versions: readonly bigint[],
  service: Service | undefined,
  tasks: Iterable<Task>,
): readonly bigint[] {
  const old = service ? versions.slice(0, -SPEC_HISTORY_LIMIT) : versions;
  if (old.length === 0) return [];
  const named = new Set<bigint>();
  if (service) for (const it of [service.specVersion, service.previousSpecVersion, service.taskVersion]) named.add(it);
  for (const { specVersion } of tasks) named.add(specVersion);
  return old.filter((version) => !named.has(version));
}

/** A version that nothing names yet may be on its way to be named: a change writes content before what pins it. */
const UNNAMED_MS = 60 * 60_000;
/** And one that was the newest until just now may be pinned by a service that is being made. */
const SUPERSEDED_MS = 60_000;

/**
 * The versions of one secret or config that go: all but the newest and those that something pins. `versions` are all of
 * them, oldest first; `current` is the object's version; undefined for an object that is gone. `young`: there are some to look at again.
 */
export function decideCollected(
  versions: readonly { readonly version: bigint; readonly pinned: boolean; readonly ageMs: number }[],
  current: bigint | undefined,
): { readonly collected: readonly bigint[]; readonly young: boolean } {
  const collected: bigint[] = [];
  let young = false;
  versions.forEach(({ version, pinned, ageMs }, index) => {
    if (pinned || version === current) return;
    const superseded = current !== undefined && version < current;
    const quietMs = superseded ? (versions[index + 1]?.ageMs ?? ageMs) : ageMs;
    if (current === undefined || quietMs > (superseded ? SUPERSEDED_MS : UNNAMED_MS)) collected.push(version);
    else young = true;
  });
  return { collected, young };
}
