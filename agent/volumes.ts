/**
 * The volumes of a node: makes them for the tasks that mount them, and deletes what was removed. A plain volume is a directory;
 * one with options is a file system, mounted on the host once for all the tasks that use it.
 *
 *   volumes/<name>/            data of a plain volume       mounts/<hash>            a volume's file system, while a task uses it
 *   volumes/.new-…, .gone-…    being filled, being deleted  mounts/<task id>-<n>     a part of a volume, bound for one task
 *   volume-labels/<name>.json
 *
 * A volume is filled beside its place and moved there: whatever a crash leaves is not a volume. Which task uses which is in
 * the tasks' container records, so that a restarted agent knows.
 */
import { existsSync } from "node:fs";
import { lstat, mkdir, opendir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Clock, withTimeout } from "../common/base/clock.ts";
import { errnoOf, SwarmError } from "../common/base/error.ts";
import type { TaskId } from "../common/base/id.ts";
import type { Logger } from "../common/base/logger.ts";
import type { NodeVolume } from "../proto/gen/swarm/v1/objects_pb.js";
import type { PlannedMount, PlannedVolume } from "./container-mounts.ts";
import { readContainerRecord } from "./container-record.ts";
import { Turnstile } from "./image/shared-work.ts";
import type { AgentDirectories } from "./node-runtime.ts";
import type { HostPath } from "./runtime/op.ts";
import type { Runner } from "./runtime/runner.ts";
import { findAddress, withAddress } from "./volume-mount.ts";
import { birthMs, VolumeWatch } from "./volume-watch.ts";

/** A server that does not answer must not hold a task for ever; the kernel's own patience is minutes. */
const MOUNT_TIMEOUT_MS = 60_000;

/** What a task holds of volumes: to be let go when its container is gone. */
export interface VolumeUse {
  /** Roots of its volumes. */
  readonly roots: readonly string[];
  /** Parts that are bound for it alone. */
  readonly parts: readonly string[];
}

/** What volumes are made with. */
export interface VolumesOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly runner: Runner;
  readonly directories: Pick<AgentDirectories, "containers" | "volumes" | "mounts" | "volumeLabels">;
}

/** An image's layers, uppermost first. */
interface ImageLayers {
  readonly layers: readonly HostPath[];
}

/** It goes with the container, in whose directory it is. */
function isAnonymous({ name, origin }: PlannedVolume): boolean {
  return name === undefined && origin.kind === "directory";
}

/** What the mounts of a task will hold. */
export function volumeUse(mounts: readonly PlannedMount[]): VolumeUse {
  const volumes = mounts.flatMap((planned) => (planned.kind === "volume" ? [planned.volume] : []));
  return {
    roots: volumes.filter((volume) => !isAnonymous(volume)).map(({ root }) => root),
    parts: volumes.flatMap(({ part }) => part?.place ?? []),
  };
}

export class Volumes {
  readonly #options: VolumesOptions;
  readonly #watch: VolumeWatch;
  /** The tasks that use each root. */
  readonly #users = new Map<string, Set<TaskId>>();
  readonly #uses = new Map<TaskId, VolumeUse>();
  /** One at a time makes, mounts or deletes a volume. */
  readonly #turns = new Map<string, Turnstile>();
  #sequence = 0;

  constructor(options: VolumesOptions) {
    this.#options = options;
    this.#watch = new VolumeWatch(options.clock, options.directories);
  }

  /** See `Executor.volumes`. */
  read(signal: AbortSignal): AsyncIterable<readonly NodeVolume[]> {
    return this.#watch.read(signal);
  }

  /** Measures volumes from time to time until `signal` aborts. */
  measure(signal: AbortSignal): Promise<never> {
    return this.#watch.run(signal);
  }

  /** Learns what tasks that run use, and clears what a crash left. Called once, before all else. */
  async recover(live: ReadonlySet<TaskId>, signal: AbortSignal): Promise<void> {
    const { directories, runner } = this.#options;
    for (const taskId of live) {
      const directory = join(directories.containers, taskId);
      const record = existsSync(join(directory, "exit")) ? undefined : await readContainerRecord(directory);
      if (record?.volumes) this.#hold(taskId, record.volumes);
    }
    const parts = new Set([...this.#uses.values()].flatMap((use) => use.parts));
    for (const name of await readdir(directories.mounts)) {
      const path = join(directories.mounts, name) as HostPath;
      if (!this.#users.has(path) && !parts.has(path)) await runner.unmount(path, signal);
    }
    for (const name of await readdir(directories.volumes)) {
      if (name.startsWith(".")) await runner.removeTree(join(directories.volumes, name) as HostPath, signal);
    }
  }

  /**
   * Makes the sources of a task's mounts, but anonymous volumes. The task holds them until `release`, also when this fails.
   * @throws failed_precondition, in Docker's words: a source that is not there. Whatever mount(2) says of a file system.
   */
  async provide(
    taskId: TaskId,
    mounts: readonly PlannedMount[],
    image: ImageLayers,
    signal: AbortSignal,
  ): Promise<void> {
    this.#hold(taskId, volumeUse(mounts));
    for (const planned of mounts) {
      if (planned.kind === "volume" && !isAnonymous(planned.volume)) {
        await this.#provideVolume(planned.volume, image, signal);
      } else if (planned.kind === "bind" && planned.make) await makeDirectory(planned.mount.source);
      else if (planned.kind === "bind") await checkSource(planned.mount.source);
    }
  }

  /** Makes the anonymous volumes of a task, in the directory of its container. */
  async provideAnonymous(mounts: readonly PlannedMount[], { layers }: ImageLayers, signal: AbortSignal): Promise<void> {
    for (const planned of mounts) {
      if (planned.kind !== "volume" || !isAnonymous(planned.volume)) continue;
      const { root, copyOf } = planned.volume;
      await makeDirectory(root);
      if (copyOf !== undefined) await this.#options.runner.copyUp({ layers, path: copyOf }, root, signal);
    }
  }

  /** Lets go of what a task held: file systems that nobody uses any more are unmounted. Repeating it is harmless. */
  async release(taskId: TaskId, signal: AbortSignal): Promise<void> {
    const use = this.#uses.get(taskId);
    if (!use) return;
    for (const part of use.parts) await this.#options.runner.unmount(part as HostPath, signal);
    for (const root of use.roots) {
      await this.#inTurn(root, () => this.#leave(taskId, root as HostPath, signal), signal);
    }
    this.#uses.delete(taskId);
  }

  /**
   * Deletes the data of a volume. One that is gone, or was made anew since, is fine.
   * @throws failed_precondition while a task uses it.
   */
  async purge(name: string, createdMs: number, signal: AbortSignal): Promise<void> {
    const { directories, runner, logger } = this.#options;
    const root = join(directories.volumes, name);
    const gone = join(directories.volumes, `.gone-${++this.#sequence}-${process.pid}`);
    const moved = await this.#inTurn(
      root,
      async () => {
        if (!existsSync(root) || birthMs(await lstat(root)) !== createdMs) return false;
        if (this.#users.has(root)) throw new SwarmError("failed_precondition", `volume ${name} is in use`);
        await rename(root, gone);
        await rm(join(directories.volumeLabels, `${name}.json`), { force: true });
        return true;
      },
      signal,
    );
    if (moved) {
      await runner.removeTree(gone as HostPath, signal);
      logger.info({ volume: name }, "volume deleted");
    }
    this.#watch.touch();
  }

  /** Takes every mount away: for leaving a cluster for good. What cannot be unmounted must not be deleted through it. */
  async unmountAll(signal: AbortSignal): Promise<void> {
    const { directories, runner } = this.#options;
    for (const name of await readdir(directories.mounts)) {
      await runner.unmount(join(directories.mounts, name) as HostPath, signal);
    }
  }

  #hold(taskId: TaskId, use: VolumeUse): void {
    if (use.roots.length === 0 && use.parts.length === 0) return;
    this.#uses.set(taskId, use);
    for (const root of use.roots) this.#users.set(root, (this.#users.get(root) ?? new Set()).add(taskId));
  }

  async #leave(taskId: TaskId, root: HostPath, signal: AbortSignal): Promise<void> {
    const users = this.#users.get(root);
    users?.delete(taskId);
    if (users && users.size > 0) return;
    this.#users.delete(root);
    if (dirname(root) === this.#options.directories.mounts) await this.#options.runner.unmount(root, signal);
  }

  async #provideVolume(volume: PlannedVolume, image: ImageLayers, signal: AbortSignal): Promise<void> {
    const { root, part, name } = volume;
    try {
      await this.#inTurn(root, () => this.#make(volume, image, signal), signal);
      if (!part) return;
      await this.#options.runner.unmount(part.place, signal);
      await this.#options.runner.bindBelow(root, part.path, part.place, signal);
    } catch (reason) {
      if (part && reason instanceof SwarmError && reason.message.endsWith(`${part.path}: ENOENT`)) {
        throw new SwarmError(
          "failed_precondition",
          `volume ${name}: subpath ${JSON.stringify(part.path)} does not exist`,
        );
      }
      throw name === undefined ? reason : SwarmError.wrap(`volume ${name}`, reason);
    }
  }

  async #make(volume: PlannedVolume, image: ImageLayers, signal: AbortSignal): Promise<void> {
    const { root, origin } = volume;
    switch (origin.kind) {
      case "host":
        return await checkSource(root);
      case "directory":
        return await this.#makeDirectoryVolume(volume, image, signal);
      case "mount": {
        // All looks at it are the runner's: one at a server that is away would hold one of the few threads of this process.
        await makeMountPoint(root);
        await this.#mount(origin.filesystem, root, signal);
        // Not beside its place: a file system of its own has no other.
        if (volume.copyOf !== undefined) {
          await this.#options.runner.copyUp({ ...image, path: volume.copyOf }, root, signal);
        }
      }
    }
  }

  async #mount(filesystem: Parameters<Runner["mount"]>[0], root: HostPath, signal: AbortSignal): Promise<void> {
    const { clock, runner } = this.#options;
    const options = { clock, timeoutMs: MOUNT_TIMEOUT_MS, operation: `mount ${filesystem.type} ${filesystem.source}` };
    try {
      await withTimeout(options, signal, async (inner) =>
        runner.mount(await withAddress(filesystem, findAddress), root, inner),
      );
    } catch (reason) {
      if (!(reason instanceof SwarmError) || !reason.message.endsWith(": ENODEV")) throw reason;
      throw SwarmError.wrap(`this node's kernel has no ${filesystem.type}`, reason);
    }
  }

  /** A new one, or one that is empty and that no other task sees, begins with what the image has at its place. */
  async #makeDirectoryVolume(
    { name, root, copyOf, labels }: PlannedVolume,
    image: ImageLayers,
    signal: AbortSignal,
  ): Promise<void> {
    const { directories, runner } = this.#options;
    const present = existsSync(root);
    if (present && (copyOf === undefined || (this.#users.get(root)?.size ?? 0) > 1 || !(await isEmpty(root)))) return;
    if (Object.keys(labels).length > 0) {
      await writeFile(join(directories.volumeLabels, `${name}.json`), JSON.stringify(labels), { mode: 0o600 });
    }
    const made = join(directories.volumes, `.new-${++this.#sequence}-${process.pid}`) as HostPath;
    await makeDirectory(made);
    if (copyOf !== undefined) await runner.copyUp({ ...image, path: copyOf }, made, signal);
    await rename(made, root);
    this.#watch.touch();
  }

  async #inTurn<T>(root: string, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const turn = this.#turns.get(root) ?? new Turnstile(1);
    this.#turns.set(root, turn);
    try {
      return await turn.run(work, signal);
    } finally {
      if (turn.idle && this.#turns.get(root) === turn) this.#turns.delete(root);
    }
  }
}

async function isEmpty(path: string): Promise<boolean> {
  await using folder = await opendir(path);
  return (await folder.read()) === null;
}

/** Not recursive: that would look at what is mounted there. */
async function makeMountPoint(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (reason) {
    if (errnoOf(reason) !== "EEXIST") throw SwarmError.wrap(`make directory ${path}`, reason, "resource_exhausted");
  }
}

async function checkSource(path: string): Promise<void> {
  try {
    await stat(path);
  } catch (reason) {
    if (errnoOf(reason) !== "ENOENT") throw SwarmError.wrap(`bind source path ${path}`, reason);
    const problem = `invalid mount config for type "bind": bind source path does not exist: ${path}`;
    throw new SwarmError("failed_precondition", problem);
  }
}

/** A source that exists as a file is left as it is. */
async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o755 });
  } catch (reason) {
    if (errnoOf(reason) !== "EEXIST") throw SwarmError.wrap(`make directory ${path}`, reason, "resource_exhausted");
  }
}
