/**
 * Unpacked layers, one directory each, shared by every image that has them:
 *
 *   layers/<hex of diff id>/fs/         the files, in overlayfs's form (one lowerdir)
 *   layers/<hex of diff id>/facts.json  what was learnt while unpacking
 *   ingest/<random>/                    being unpacked or being removed
 *
 * A layer's directory appears by one rename, after everything in it is on disk: that it exists is the mark that it is whole.
 * Whatever is in ingest/ when the agent starts was left by a crash and is removed.
 */
import { existsSync, renameSync } from "node:fs";
import { mkdir, open, readdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../common/base/clock.ts";
import { errnoOf, SwarmError } from "../../common/base/error.ts";
import { newId } from "../../common/base/id.ts";
import type { Logger } from "../../common/base/logger.ts";
import type { Random } from "../../common/base/random.ts";
import type { Descriptor } from "../../common/model/oci-image.ts";
import type { CapturedFile, LayerFacts } from "./layer.ts";
import { type UnpackLimits, unpackLayer } from "./unpack.ts";
import { UnpackProcess } from "./unpack-process.ts";

/** Where layers live and what unpacks them. */
export interface LayerStoreOptions {
  /** The images directory, private to the agent. */
  readonly directory: string;
  readonly shimPath: string;
  readonly limits: UnpackLimits;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Together 2 s: how long the unpackers of a killed agent may take to die. */
const LEFTOVER_TRIES_MAX = 100;
const LEFTOVER_DELAY_MS = 20;

/** The layers of one host. One instance, in one process, owns the directory. */
export class LayerStore {
  readonly #options: LayerStoreOptions;
  readonly #present = new Set<string>();

  private constructor(options: LayerStoreOptions) {
    this.#options = options;
  }

  /** Opens or makes the store, and removes what a crash left. Throws `failed_precondition` when it cannot. */
  static async open(options: LayerStoreOptions): Promise<LayerStore> {
    const store = new LayerStore(options);
    try {
      for (const name of ["layers", "ingest", "empty"]) {
        await mkdir(join(options.directory, name), { recursive: true, mode: name === "empty" ? 0o755 : 0o700 });
      }
      await store.#removeLeftovers();
      for (const hex of await readdir(join(options.directory, "layers"))) store.#present.add(hex);
    } catch (reason) {
      throw SwarmError.wrap(`open image store ${options.directory}`, reason, "failed_precondition");
    }
    return store;
  }

  /** A private directory on the same file system, for what is to be renamed into place. */
  get ingestDirectory(): string {
    return join(this.#options.directory, "ingest");
  }

  /** For images without layers: overlayfs wants at least one lowerdir. */
  get emptyDirectory(): string {
    return join(this.#options.directory, "empty");
  }

  has(diffId: string): boolean {
    return this.#present.has(hexOf(diffId));
  }

  /** The lowerdir of a layer. */
  filesDirectory(diffId: string): string {
    return join(this.#layerDirectory(hexOf(diffId)), "fs");
  }

  /** Digests' hex parts of all layers. */
  list(): readonly string[] {
    return [...this.#present];
  }

  /** Throws `data_loss` when the facts of a layer are gone or damaged. */
  async facts(diffId: string): Promise<LayerFacts> {
    const path = join(this.#layerDirectory(hexOf(diffId)), "facts.json");
    try {
      return decodeFacts(JSON.parse(await readFile(path, "utf8")));
    } catch (cause) {
      throw new SwarmError("data_loss", `read ${path}: ${errnoOf(cause) ?? String(cause)}`, { cause });
    }
  }

  /** Unpacks `content` as the layer `diffId`; see `unpackLayer` for what it throws. Nothing stays behind on failure. */
  async add(layer: Descriptor, diffId: string, content: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
    const name = newId(this.#options.random);
    const directory = join(this.ingestDirectory, name);
    const { shimPath, limits } = this.#options;
    try {
      await mkdir(join(directory, "fs"), { recursive: true, mode: 0o755 });
      const options = { shimPath, limits, layer, diffId, directory: join(directory, "fs") };
      const facts = await unpackLayer(options, content, signal);
      await writeDurably(join(directory, "facts.json"), JSON.stringify(facts));
      await syncDirectory(directory);
      await this.#commit(directory, hexOf(diffId));
    } catch (reason) {
      await this.#discard([name]);
      throw storageError(reason);
    }
  }

  /** Removes a layer that no image needs. It is gone for `has` at once; its files a moment later. */
  async remove(hex: string): Promise<void> {
    const name = newId(this.#options.random);
    this.#present.delete(hex);
    // In the same turn of the event loop: a new copy of the layer must not be what is taken away.
    renameSync(this.#layerDirectory(hex), join(this.ingestDirectory, name));
    await this.#discard([name]);
  }

  async #commit(directory: string, hex: string): Promise<void> {
    // A damaged layer may stand there, whose image was dropped.
    if (existsSync(this.#layerDirectory(hex))) await this.remove(hex);
    await rename(directory, this.#layerDirectory(hex));
    await syncDirectory(join(this.#options.directory, "layers"));
    this.#present.add(hex);
  }

  /** What a crash left. The unpackers of a killed agent die with it, but may finish one system call more. */
  async #removeLeftovers(): Promise<void> {
    const { clock, log } = this.#options;
    for (let tries = 1; ; tries++) {
      const leftovers = await readdir(this.ingestDirectory);
      if (leftovers.length === 0) return;
      if (tries === 1) log.info({ count: leftovers.length }, "removing unfinished layers");
      if (tries === LEFTOVER_TRIES_MAX) return this.#discard(leftovers);
      await this.#remove(leftovers).catch(() => clock.sleep(LEFTOVER_DELAY_MS));
    }
  }

  async #discard(names: readonly string[]): Promise<void> {
    try {
      await this.#remove(names);
    } catch (err) {
      const directory = this.ingestDirectory;
      this.#options.log.warn({ err, directory }, "left files behind, to be removed at the next start");
    }
  }

  /** Removes trees of hostile content by descriptor, in the shim: this process never walks into them. */
  async #remove(names: readonly string[]): Promise<void> {
    const directory = this.ingestDirectory;
    const { shimPath } = this.#options;
    // Not the caller's signal: what is given up must be cleaned up.
    await using process = new UnpackProcess({ shimPath, directory, fileBytesMax: 0 }, new AbortController().signal);
    for (const name of names) await process.send([{ op: "remove", path: Buffer.from(name).toString("latin1") }]);
    await process.send([{ op: "end" }]);
    await process.finish();
  }

  #layerDirectory(hex: string): string {
    return join(this.#options.directory, "layers", hex);
  }
}

/** The hex part of a digest: the name of its file or directory. */
export function hexOf(digest: string): string {
  return digest.slice(digest.indexOf(":") + 1);
}

/** Writes a new file and waits until it is on disk. */
export async function writeDurably(path: string, content: string | Uint8Array): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Waits until the names in a directory are on disk. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** A full disk says so in the same words wherever it shows. */
export function storageError(reason: unknown): SwarmError {
  const errno = errnoOf(reason);
  const isFull = errno === "ENOSPC" || errno === "EDQUOT";
  return SwarmError.from(reason, isFull ? "resource_exhausted" : "internal");
}

function decodeFacts(value: unknown): LayerFacts {
  const record = value as Readonly<Record<keyof LayerFacts, unknown>>;
  if (
    typeof record.isRootOpaque !== "boolean" ||
    typeof record.contentBytes !== "number" ||
    typeof record.entries !== "number"
  ) {
    throw new SwarmError("data_loss", "not the facts of a layer");
  }
  return {
    passwd: decodeCaptured(record.passwd),
    group: decodeCaptured(record.group),
    isRootOpaque: record.isRootOpaque,
    contentBytes: record.contentBytes,
    entries: record.entries,
  };
}

function decodeCaptured(value: unknown): CapturedFile {
  const { state, text } = value as { readonly state: unknown; readonly text: unknown };
  if (state === "hidden" || state === "untouched") return { state };
  if (state === "brought" && typeof text === "string") return { state, text };
  throw new SwarmError("data_loss", "not the facts of a layer");
}
