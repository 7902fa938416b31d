/** What both cgroup versions do with a cgroup's directory: name it, read its files, signal its processes, remove it. */
import { constants, readFileSync } from "node:fs";
import { readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Clock } from "../../common/base/clock.ts";
import { assert, errnoOf, invalidFields, SwarmError } from "../../common/base/error.ts";
import type { HostPath } from "../runtime/op.ts";

/** Marks the cgroups of containers, so that a parent of agents is never mistaken for a container. */
const PREFIX = "container-";

/** How long `removeDirectories` fights for a cgroup. Longer, and one stuck process holds up a shutdown. */
const REMOVE_MS_MAX = 5_000;
const REMOVE_RETRY_MS = 10;

/** Checks an agent's `--cgroup-parent`: an absolute path of plain names. Throws `invalid_argument`. */
export function checkParent(parent: string): string {
  const plain = /^(\/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+$/.test(parent);
  if (!plain)
    throw invalidFields([{ field: "cgroup-parent", problem: `${JSON.stringify(parent)} is not a plain path` }]);
  return parent;
}

/** The directory of a container's cgroup; made of the checked parent and an id that cannot leave it. */
export function containerDirectory(mount: string, parent: string, id: string): HostPath {
  assert(/^[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}$/.test(id), `not a container id: ${JSON.stringify(id)}`);
  return `${mount}${parent}/${PREFIX}${id}` as HostPath;
}

/** Ids of the containers that have a cgroup below `parent`; none when the parent does not exist. */
export async function containerIds(parent: string): Promise<readonly string[]> {
  return (await subdirectories(parent)).flatMap((name) => (name.startsWith(PREFIX) ? name.slice(PREFIX.length) : []));
}

/** A file's text, or undefined when the file or its cgroup is gone. */
export async function readKnob(directory: string, file: string): Promise<string | undefined> {
  return await unlessGone(readFile(join(directory, file), "utf8"));
}

/**
 * `readKnob` without the thread pool, for what is counted: the kernel makes such a file up as it is read, which takes 15 µs,
 * and the way through the pool five times that; 200 containers have 1,600 of them.
 */
export function readCounter(directory: string, file: string): string | undefined {
  try {
    return readFileSync(join(directory, file), "utf8");
  } catch (reason) {
    if (isGone(reason)) return undefined;
    throw reason;
  }
}

/** A file's number; `max` and "as good as infinite" are undefined, as is a file that is gone. */
export function readNumber(directory: string, file: string): number | undefined {
  const text = readCounter(directory, file)?.trim();
  // v1 says "no limit" with the largest multiple of a page below 2^63.
  if (text === undefined || text === "max" || Number(text) >= 2 ** 62) return undefined;
  return Number(text);
}

/** A flat-keyed file (`key value` a line) as a map; empty when the file is gone. */
export function readTable(directory: string, file: string): ReadonlyMap<string, number> {
  const lines = readCounter(directory, file)?.split("\n") ?? [];
  return new Map(
    lines.flatMap((line) => {
      const [key, value] = line.split(" ");
      return key !== undefined && value !== undefined ? [[key, Number(value)] as const] : [];
    }),
  );
}

/** Writes a knob; false when the file or its cgroup is gone. Other failures say file and cgroup. */
export async function writeKnob(directory: string, file: string, value: string): Promise<boolean> {
  // Never creates a file, and never asks to read: some knobs can only be written.
  const flag = constants.O_WRONLY | constants.O_TRUNC;
  try {
    return (await unlessGone(writeFile(join(directory, file), value, { flag }).then(() => true))) ?? false;
  } catch (reason) {
    throw SwarmError.wrap(`write ${file} of cgroup ${directory}`, reason, "internal");
  }
}

/** The processes of a cgroup and of the cgroups below it; none when it is gone. */
export async function processesOf(directory: string): Promise<readonly number[]> {
  const own = await ownProcesses(directory);
  const below = await Promise.all((await subdirectories(directory)).map((name) => processesOf(join(directory, name))));
  return [...own, ...below.flat()];
}

/** The processes of a cgroup alone. */
export async function ownProcesses(directory: string): Promise<readonly number[]> {
  const lines = (await readKnob(directory, "cgroup.procs"))?.split("\n") ?? [];
  // 0 stands for a process that this PID namespace cannot see; to kill(2) it would mean "ourselves".
  return lines.map(Number).filter((pid) => pid > 0);
}

/** Sends a signal to each process; those that are gone already are fine. */
export function signalProcesses(pids: readonly number[], signal: NodeJS.Signals | number): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch (reason) {
      if (errnoOf(reason) !== "ESRCH") throw SwarmError.wrap(`signal process ${pid}`, reason, "internal");
    }
  }
}

/**
 * Removes cgroup directories and what lies below them. While one is busy its processes are killed with `kill` and it is
 * tried again for up to 5 s; then it throws `unavailable`. What is gone already is fine.
 */
export async function removeDirectories(
  clock: Clock,
  directories: readonly string[],
  kill: () => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const deadlineMs = clock.monotonicMs() + REMOVE_MS_MAX;
  let remaining = directories;
  while (true) {
    const removed = await Promise.all(remaining.map(removeTree));
    remaining = remaining.filter((_, index) => removed[index] === false);
    if (remaining.length === 0) return;
    if (clock.monotonicMs() >= deadlineMs) {
      throw new SwarmError("unavailable", `remove cgroup ${remaining.join(", ")}: EBUSY for ${REMOVE_MS_MAX} ms`);
    }
    await kill();
    await clock.sleep(REMOVE_RETRY_MS, signal);
  }
}

/** Removes `<mount>/a/b`, then `<mount>/a`, up to the first level that is in use by others. */
export async function removeEmptyLevels(mount: string, path: string): Promise<void> {
  for (let level = path; level !== "/" && level !== ""; level = dirname(level)) {
    try {
      await rmdir(`${mount}${level}`);
    } catch (reason) {
      const errno = errnoOf(reason);
      if (errno === "EBUSY" || errno === "ENOTEMPTY") return;
      if (errno !== "ENOENT") throw SwarmError.wrap(`remove cgroup ${mount}${level}`, reason);
    }
  }
}

/** Whether the tree is gone afterwards; false = busy. Only directories can be removed in a cgroup file system. */
async function removeTree(directory: string): Promise<boolean> {
  try {
    await rmdir(directory);
    return true;
  } catch (reason) {
    const errno = errnoOf(reason);
    if (errno === "ENOENT") return true;
    if (errno !== "EBUSY" && errno !== "ENOTEMPTY") throw SwarmError.wrap(`remove cgroup ${directory}`, reason);
  }
  for (const name of await subdirectories(directory)) await removeTree(join(directory, name));
  return false;
}

async function subdirectories(directory: string): Promise<readonly string[]> {
  const entries = (await unlessGone(readdir(directory, { withFileTypes: true }))) ?? [];
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

/** The errno that is at the root of an error, through all that was wrapped around it. */
export function rootErrno(reason: unknown): string | undefined {
  if (!(reason instanceof Error)) return undefined;
  return errnoOf(reason) ?? rootErrno(reason.cause);
}

async function unlessGone<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (reason) {
    if (isGone(reason)) return undefined;
    throw reason;
  }
}

/** ENODEV is what the kernel says of an open file whose cgroup has been removed. */
function isGone(reason: unknown): boolean {
  const errno = errnoOf(reason);
  return errno === "ENOENT" || errno === "ENODEV";
}
