/**
 * The named volumes of this node and what they take on its disk. Names are told at once, sizes when there is time: measuring
 * reads every inode, so it is bounded, and done seldom.
 */
import type { Stats } from "node:fs";
import { lstat, opendir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../common/base/clock.ts";
import { errnoOf } from "../common/base/error.ts";
import { Wakeup } from "../common/base/wakeup.ts";
import { type NodeVolume, NodeVolumeSchema } from "../proto/gen/swarm/v1/objects_pb.js";

/** Sizes are at most this old, plus the time that measuring takes. */
const MEASURE_PERIOD_MS = 3 * 60_000;
/** A volume with more files has no size: to measure it would keep the disk busy for seconds. */
const FILES_MAX = 100_000;
/** The unit of `st_blocks` (stat(2)). */
const BLOCK_BYTES = 512;

/** Lists the volumes below one directory; a name that begins with a dot is none. */
export class VolumeWatch {
  readonly #clock: Clock;
  readonly #directory: string;
  readonly #labels: string;
  readonly #changed = new Wakeup();
  readonly #sizes = new Map<string, bigint | undefined>();

  constructor(clock: Clock, directories: { readonly volumes: string; readonly volumeLabels: string }) {
    this.#clock = clock;
    this.#directory = directories.volumes;
    this.#labels = directories.volumeLabels;
  }

  /** A volume may have come. */
  touch(): void {
    this.#changed.wake();
  }

  /** Measures from time to time until `signal` aborts. */
  async run(signal: AbortSignal): Promise<never> {
    while (true) {
      const names = await this.#names();
      for (const name of this.#sizes.keys()) if (!names.includes(name)) this.#sizes.delete(name);
      for (const name of names) this.#sizes.set(name, await diskUsage(join(this.#directory, name), signal));
      this.#changed.wake();
      await this.#clock.sleep(MEASURE_PERIOD_MS, signal);
    }
  }

  /** The volumes now, and again whenever they may have changed. One reader. */
  async *read(signal: AbortSignal): AsyncGenerator<readonly NodeVolume[], void, undefined> {
    while (true) {
      yield await this.#list();
      await this.#changed.wait(signal);
    }
  }

  async #list(): Promise<NodeVolume[]> {
    const volumes: NodeVolume[] = [];
    for (const name of await this.#names()) {
      const stats = await present(lstat(join(this.#directory, name)));
      if (!stats) continue;
      const sizeBytes = this.#sizes.get(name);
      const createdAt = timestampFromMs(birthMs(stats));
      const labels = await this.#labelsOf(name);
      volumes.push(
        create(NodeVolumeSchema, { name, createdAt, labels, ...(sizeBytes === undefined ? {} : { sizeBytes }) }),
      );
    }
    return volumes;
  }

  async #names(): Promise<string[]> {
    return (await readdir(this.#directory)).filter((name) => !name.startsWith(".")).sort();
  }

  /** Those it was made with. A damaged file is as none: labels are for people. */
  async #labelsOf(name: string): Promise<Record<string, string>> {
    const text = await present(readFile(join(this.#labels, `${name}.json`), "utf8"));
    if (text === undefined) return {};
    try {
      return Object.fromEntries(Object.entries(JSON.parse(text) as object).map(([key, value]) => [key, String(value)]));
    } catch (reason) {
      if (reason instanceof SyntaxError) return {};
      throw reason;
    }
  }
}

/** When a directory was made, in whole ms: what tells a volume from one of the same name that was made later. */
export function birthMs({ birthtimeMs }: Stats): number {
  return Math.floor(birthtimeMs);
}

/**
 * What the files below `path` take on its disk, in bytes, as `du -x` counts: hard links once, no symlink followed.
 * Undefined when there are too many. Containers write there meanwhile: what vanishes is not counted.
 */
export async function diskUsage(path: string, signal: AbortSignal, filesMax = FILES_MAX): Promise<bigint | undefined> {
  const root = await present(lstat(path, { bigint: true }));
  if (!root) return undefined;
  const linked = new Set<bigint>();
  const folders = [path];
  let blocks = root.blocks;
  let files = 0;
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for await (const { name } of (await present(opendir(folder))) ?? []) {
      signal.throwIfAborted();
      files += 1;
      if (files > filesMax) return undefined;
      const stats = await present(lstat(join(folder, name), { bigint: true }));
      if (!stats || stats.dev !== root.dev || linked.has(stats.ino)) continue;
      if (stats.isDirectory()) folders.push(join(folder, name));
      else if (stats.nlink > 1n) linked.add(stats.ino);
      blocks += stats.blocks;
    }
  }
  return blocks * BigInt(BLOCK_BYTES);
}

/** Undefined for what is no longer there. */
async function present<T>(found: Promise<T>): Promise<T | undefined> {
  try {
    return await found;
  } catch (reason) {
    const errno = errnoOf(reason);
    if (errno === "ENOENT" || errno === "ENOTDIR" || errno === "ELOOP") return undefined;
    throw reason;
  }
}
